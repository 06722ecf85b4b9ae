//! The gates as a layer over all services; a refusal is a copy of headers that were made once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use domain::Refusal;
use futures::future::Either;
use http::HeaderMap;
use proto::Method;
use proto::status::Refused;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Class, Gates, RETURN_AFTER_MS, Seat};
use crate::early::Early;

/// Puts [`SheddingService`] around a service.
#[derive(Clone, Debug)]
pub struct SheddingLayer {
    gates: Gates,
    refusals: Arc<Refusals>,
}

#[derive(Debug)]
struct Refusals {
    headers: Vec<HeaderMap>,
    next: AtomicUsize,
}

/// Lets in what there is a seat for.
#[derive(Clone, Debug)]
pub struct SheddingService<S> {
    gates: Gates,
    refusals: Arc<Refusals>,
    inner: S,
}

impl SheddingLayer {
    /// Guards with `gates`.
    #[must_use]
    pub fn new(gates: Gates) -> Self {
        let headers = RETURN_AFTER_MS
            .iter()
            .map(|ms| {
                let refused =
                    Refused::from(Refusal::Overloaded).retry_in(Duration::from_millis(*ms));
                Status::from(refused).into_http::<Body>().headers().clone()
            })
            .collect();
        Self {
            gates,
            refusals: Arc::new(Refusals {
                headers,
                next: AtomicUsize::new(0),
            }),
        }
    }
}

impl Refusals {
    fn next(&self) -> http::Response<Body> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.headers.len();
        let mut response = http::Response::new(Body::empty());
        *response.headers_mut() = self.headers[at].clone();
        response
    }
}

impl<S> Layer<S> for SheddingLayer {
    type Service = SheddingService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SheddingService {
            gates: self.gates.clone(),
            refusals: Arc::clone(&self.refusals),
            inner,
        }
    }
}

impl<S, B> Service<http::Request<B>> for SheddingService<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Unpin,
    B: http_body::Body + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Early<B, S::Error>, Seated<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let seat = match Method::from_path(request.uri().path()) {
            None => None,
            Some(method) => match self.gates.enter(Class::of(method)) {
                Some(seat) => Some(seat),
                None => return Either::Left(Early::new(request, self.refusals.next())),
            },
        };
        Either::Right(Seated {
            inner: self.inner.call(request),
            _seat: seat,
        })
    }
}

/// A call that sits until its answer is there.
#[derive(Debug)]
pub struct Seated<F> {
    inner: F,
    _seat: Option<Seat>,
}

impl<F: Future + Unpin> Future for Seated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proto::status::read;

    use super::*;
    use crate::shedding::{Bounds, Limit};

    #[tokio::test]
    async fn beyond_the_limit_a_call_is_told_when_to_return() {
        let limit = Limit::new(1, Duration::from_secs(1));
        let bounds = Bounds {
            floor: 1,
            ceiling: 1,
            calm: Duration::from_millis(1),
            target: Duration::from_secs(1),
        };
        let layer = SheddingLayer::new(Gates::new(limit, limit, limit, bounds));
        let mut service = layer.layer(tower::service_fn(|_: http::Request<Body>| {
            Box::pin(async {
                std::future::pending::<()>().await;
                Ok::<_, Infallible>(http::Response::new(Body::empty()))
            })
        }));
        let book = || {
            http::Request::builder()
                .uri(Method::Book.path())
                .body(Body::empty())
                .expect("a request")
        };
        let mut first = service.call(book());
        assert!(futures::poll!(&mut first).is_pending());
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..RETURN_AFTER_MS.len() {
            let answer = service.call(book()).await.expect("infallible");
            let status = Status::from_header_map(answer.headers()).expect("a status");
            assert_eq!(status.code(), tonic::Code::Unavailable);
            let refused = read(&status).expect("a reason");
            assert_eq!(refused.refusal, Refusal::Overloaded);
            waits.insert(refused.retry_after.expect("a time to return"));
        }
        assert_eq!(waits.len(), RETURN_AFTER_MS.len(), "spread out");
        drop(first);
        let mut next = service.call(book());
        assert!(
            futures::poll!(&mut next).is_pending(),
            "the seat was given back"
        );
        let health = http::Request::builder()
            .uri("/grpc.health.v1.Health/Check")
            .body(Body::empty())
            .expect("one");
        assert!(
            futures::poll!(&mut service.call(health)).is_pending(),
            "probes are never shed"
        );
    }
}
