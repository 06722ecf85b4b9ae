//! Deadlines of calls: what the caller asked for, capped, and answered with the code that callers expect.
//!
//! Invariant: a call that ran out of time is answered DEADLINE_EXCEEDED, never CANCELLED.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

const HEADER: &str = "grpc-timeout";

/// The protocol allows this many digits.
const DIGITS_MAX: usize = 8;

/// A century; more would overflow the timer and means "no limit".
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// When the answer to a call must begin. In a request's extensions.
///
/// For calls that stream, this bounds the answer's beginning only; the stream ends at what the caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
}

/// Gives every call a deadline: the caller's, at most `cap`.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    cap: Duration,
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    cap: Duration,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Within(Duration),
    Malformed,
}

// === impl Deadline ===

impl Deadline {
    /// A deadline `within` from now, for calls of our own.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        Self {
            at: Instant::now() + within.min(FOREVER),
        }
    }

    /// Of the request with these extensions.
    #[must_use]
    pub fn of(extensions: &http::Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// When.
    #[must_use]
    pub fn at(self) -> Instant {
        self.at
    }

    /// How much is left; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The earlier of two.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        Self {
            at: self.at.min(other.at),
        }
    }
}

// === impl DeadlineLayer ===

impl DeadlineLayer {
    /// No call waits longer than `cap` for its answer to begin.
    #[must_use]
    pub const fn new(cap: Duration) -> Self {
        Self { cap }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService {
            inner,
            cap: self.cap,
        }
    }
}

impl<S, B> Service<http::Request<B>> for DeadlineService<S>
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

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let asked = match asked(request.headers()) {
            Asked::Nothing => None,
            Asked::Within(within) if within.is_zero() => return answer(expired()),
            Asked::Within(within) => Some(within),
            Asked::Malformed => {
                return answer(Status::invalid_argument(
                    "the grpc-timeout header must be 1 to 8 digits and one of H M S m u n",
                ));
            }
        };
        let now = Instant::now();
        let deadline = Deadline {
            at: now + asked.map_or(self.cap, |asked| asked.min(self.cap)),
        };
        let stream_ends = asked.map(|asked| now + asked.min(FOREVER));
        request.extensions_mut().insert(deadline);
        let handling = self.inner.call(request);
        Box::pin(async move {
            match timeout_at(deadline.at, handling).await {
                Ok(Ok(response)) => Ok(bounded(response, stream_ends)),
                Ok(Err(never)) => match never {},
                Err(_) => Ok(expired().into_http()),
            }
        })
    }
}

fn answer(
    status: Status,
) -> Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>> {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

fn expired() -> Status {
    Status::deadline_exceeded(
        "no answer within the deadline; what happened is unknown: repeat the call with the same request_id",
    )
}

fn asked(headers: &http::HeaderMap) -> Asked {
    let Some(value) = headers.get(HEADER) else {
        return Asked::Nothing;
    };
    value
        .to_str()
        .ok()
        .and_then(parse)
        .map_or(Asked::Malformed, Asked::Within)
}

fn parse(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().next_back()?;
    let digits = &text[..at];
    if digits.is_empty()
        || digits.len() > DIGITS_MAX
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3_600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Ends a streamed answer at the caller's own deadline. Answers that are refusals have no body to bound.
fn bounded(response: http::Response<Body>, ends: Option<Instant>) -> http::Response<Body> {
    match ends {
        Some(ends) if !response.headers().contains_key(Status::GRPC_STATUS) => {
            response.map(|inner| {
                Body::new(Bounded {
                    inner,
                    ends,
                    timer: None,
                    done: false,
                })
            })
        }
        Some(_) | None => response,
    }
}

struct Bounded {
    inner: Body,
    ends: Instant,
    /// Made when the body first has to wait: the body of a unary answer never does.
    timer: Option<Pin<Box<Sleep>>>,
    done: bool,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let ends = self.ends;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(ends)));
        ready!(timer.as_mut().poll(cx));
        self.done = true;
        self.inner = Body::empty();
        let mut trailers = http::HeaderMap::new();
        // Fails only for text that is no header value, and ours is plain ASCII.
        let _ = Status::deadline_exceeded("the stream reached the caller's deadline")
            .add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    const CAP: Duration = Duration::from_secs(10);

    fn request(timeout: Option<&str>) -> http::Request<Body> {
        let mut request = http::Request::new(Body::empty());
        if let Some(timeout) = timeout {
            request
                .headers_mut()
                .insert(HEADER, timeout.parse().expect("a header value"));
        }
        request
    }

    fn status_of(response: &http::Response<Body>) -> tonic::Code {
        Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code())
    }

    /// The code and after how long, for a handler that takes `takes`.
    async fn call(timeout: Option<&str>, takes: Duration) -> (tonic::Code, Duration) {
        let began = Instant::now();
        let handler = tower::service_fn(move |_: http::Request<Body>| async move {
            tokio::time::sleep(takes).await;
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        });
        let service = DeadlineLayer::new(CAP).layer(handler);
        let Ok(response) = service.oneshot(request(timeout)).await;
        (status_of(&response), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_time_is_deadline_exceeded() {
        let secs = Duration::from_secs;
        let exceeded = tonic::Code::DeadlineExceeded;
        assert_eq!(call(Some("2S"), secs(1)).await, (tonic::Code::Ok, secs(1)));
        assert_eq!(call(Some("2S"), secs(5)).await, (exceeded, secs(2)));
        assert_eq!(
            call(Some("250m"), secs(5)).await,
            (exceeded, Duration::from_millis(250))
        );
        assert_eq!(call(Some("0S"), secs(5)).await, (exceeded, secs(0)));
        assert_eq!(
            call(None, secs(60)).await,
            (exceeded, CAP),
            "without a deadline the cap counts"
        );
        assert_eq!(
            call(Some("99999999H"), secs(60)).await,
            (exceeded, CAP),
            "absurd is capped"
        );
        for malformed in [
            "",
            "S",
            "5",
            "5s",
            "-1S",
            "999999999S",
            "1.5S",
            "+1S",
            "5 S",
            "5SS",
        ] {
            let (code, after) = call(Some(malformed), secs(5)).await;
            assert_eq!(
                (code, after),
                (tonic::Code::InvalidArgument, secs(0)),
                "{malformed:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_handler_sees_what_is_left() {
        let handler = tower::service_fn(|request: http::Request<Body>| async move {
            let deadline = Deadline::of(request.extensions()).expect("a deadline");
            assert_eq!(deadline.remaining(), Duration::from_secs(3));
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        });
        let Ok(response) = DeadlineLayer::new(CAP)
            .layer(handler)
            .oneshot(request(Some("3S")))
            .await;
        assert_eq!(status_of(&response), tonic::Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_outlives_the_cap_and_ends_at_the_callers_deadline() {
        let handler = tower::service_fn(|_: http::Request<Body>| async {
            let frames = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(4)).await;
                Some((
                    Ok::<_, Status>(Frame::data(Bytes::from_static(b"tick"))),
                    (),
                ))
            });
            let body = http_body_util::StreamBody::new(Box::pin(frames));
            Ok::<_, Infallible>(http::Response::new(Body::new(body)))
        });
        let began = Instant::now();
        let Ok(response) = DeadlineLayer::new(CAP)
            .layer(handler)
            .oneshot(request(Some("30S")))
            .await;
        let collected = response.into_body().collect().await.expect("no error");
        let trailers = collected.trailers().expect("an end");
        let status = Status::from_header_map(trailers).expect("a status");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
    }
}
