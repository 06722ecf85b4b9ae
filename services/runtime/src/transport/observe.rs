//! Every call in a span that continues the caller's trace, and in the histogram, however it ends.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::fields;
use crate::metrics::{RpcMetrics, RpcTimer};
use crate::telemetry::TraceContext;

/// Outermost of our layers: what the others refuse is measured too.
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    metrics: RpcMetrics,
}

/// See [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct ObserveService<S> {
    inner: S,
    metrics: RpcMetrics,
}

/// A call until its last trailer is sent. Dropped earlier it counts as cancelled.
struct Call {
    timer: Option<RpcTimer>,
    span: Span,
}

impl ObserveLayer {
    /// Records into `metrics`.
    #[must_use]
    pub const fn new(metrics: RpcMetrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> ObserveService<S> {
        ObserveService {
            inner,
            metrics: self.metrics.clone(),
        }
    }
}

impl<S, B> Service<http::Request<B>> for ObserveService<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let timer = self.metrics.begin(request.uri().path());
        let call = Call {
            span: span_of(timer.method(), &request),
            timer: Some(timer),
        };
        let handling = call
            .span
            .in_scope(|| self.inner.call(request))
            .instrument(call.span.clone());
        Box::pin(async move {
            let response = handling.await?;
            Ok(match status_in(response.headers()) {
                Some(code) => {
                    call.end(code);
                    response
                }
                None => response.map(|inner| {
                    Body::new(Observed {
                        inner,
                        call: Some(call),
                    })
                }),
            })
        })
    }
}

/// The method's name comes from the closed set, never from the wire.
fn span_of<B>(method: &str, request: &http::Request<B>) -> Span {
    let span = tracing::debug_span!(
        target: fields::RPC_TARGET,
        "rpc",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.status_code = Empty,
        trace.id = Empty,
    );
    if !span.is_disabled() {
        if let Some(parent) = TraceContext::from_headers(request.headers()) {
            parent.adopt(&span);
        }
        if let Some(own) = TraceContext::of(&span) {
            span.record(fields::TRACE_ID, own.trace_id());
        }
    }
    span
}

/// The status of an answer without a body, or of trailers.
fn status_in(headers: &http::HeaderMap) -> Option<Code> {
    headers
        .get(Status::GRPC_STATUS)
        .map(|code| Code::from_bytes(code.as_bytes()))
}

impl Call {
    fn end(mut self, code: Code) {
        if let Some(timer) = self.timer.take() {
            timer.end(code);
        }
        self.span
            .record("rpc.status_code", crate::metrics::code_name(code));
        if ours(code) {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.timer.is_some() {
            self.span.record(
                "rpc.status_code",
                crate::metrics::code_name(Code::Cancelled),
            );
        }
    }
}

/// Codes that are our failure and not an answer.
const fn ours(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

struct Observed {
    inner: Body,
    call: Option<Call>,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let span = this
            .call
            .as_ref()
            .map_or_else(Span::none, |call| call.span.clone());
        let frame = ready!(span.in_scope(|| Pin::new(&mut this.inner).poll_frame(cx)));
        let ended = match &frame {
            Some(Ok(frame)) => frame
                .trailers_ref()
                .map(|t| status_in(t).unwrap_or(Code::Unknown)),
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        if let Some(code) = ended
            && let Some(call) = this.call.take()
        {
            call.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::metrics::{Registry, counted};
    use crate::transport::DeadlineLayer;

    const BOOK: &str = "/doseline.booking.v1.BookingService/Book";

    fn request() -> http::Request<Body> {
        http::Request::builder()
            .uri(BOOK)
            .body(Body::empty())
            .expect("a request")
    }

    fn trailers(code: Code) -> Body {
        let mut trailers = http::HeaderMap::new();
        Status::new(code, "")
            .add_header(&mut trailers)
            .expect("plain text");
        Body::new(http_body_util::StreamBody::new(futures::stream::iter([
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"answer"))),
            Ok(Frame::trailers(trailers)),
        ])))
    }

    #[tokio::test(start_paused = true)]
    async fn each_ending_is_counted_with_its_status() {
        type Request = http::Request<Body>;
        let registry = Registry::new();
        let layer = ObserveLayer::new(registry.rpc_metrics([BOOK]));
        let count = |code| counted(&registry, BOOK, code);

        let answers =
            tower::service_fn(|_: Request| async { Ok(http::Response::new(trailers(Code::Ok))) });
        let Ok(response) = layer.layer(answers).oneshot(request()).await;
        assert_eq!(count(Code::Ok), 0, "not before the trailers are sent");
        response.into_body().collect().await.expect("no error");
        assert_eq!(count(Code::Ok), 1);

        let Ok(response) = layer.layer(answers).oneshot(request()).await;
        drop(response);
        assert_eq!(count(Code::Cancelled), 1, "the caller left while reading");

        let refuses =
            tower::service_fn(|_: Request| async { Ok(Status::already_exists("").into_http()) });
        layer
            .layer(refuses)
            .oneshot(request())
            .await
            .expect("infallible");
        assert_eq!(count(Code::AlreadyExists), 1);

        let hangs = tower::service_fn(|_: Request| std::future::pending());
        let waiting = layer.layer(hangs).oneshot(request());
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting)
                .await
                .is_err()
        );
        assert_eq!(count(Code::Cancelled), 2, "the caller left while waiting");

        let late = layer.layer(DeadlineLayer::new(Duration::from_secs(1)).layer(hangs));
        late.oneshot(request()).await.expect("infallible");
        assert_eq!(count(Code::DeadlineExceeded), 1);
    }
}
