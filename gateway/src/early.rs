//! Refusals that need no look at the message, given once the message has come.
//!
//! A server that answers an HTTP/2 request before its body has ended must reset the stream, and what the client had
//! already sent then arrives for a stream that is gone. Such frames count as the peer's errors: after some hundreds the
//! connection is closed, with every call on it, although the client did nothing wrong. A short message that is read and
//! thrown away costs less than the frames that say it is not wanted.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tonic::body::Body;

/// More than any command has, four times over; who sends more has the stream reset.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Answers when the request's message has ended, failed, or become too long. The server's own limit of time holds.
#[derive(Debug)]
pub struct Early<B, E> {
    body: B,
    read: usize,
    answer: Option<http::Response<Body>>,
    error: PhantomData<fn() -> E>,
}

impl<B, E> Early<B, E> {
    /// Gives `answer` to `request`.
    pub(crate) fn new(request: http::Request<B>, answer: http::Response<Body>) -> Self {
        Self {
            body: request.into_body(),
            read: 0,
            answer: Some(answer),
            error: PhantomData,
        }
    }
}

impl<B, E> Future for Early<B, E>
where
    B: http_body::Body + Unpin,
{
    type Output = Result<http::Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while self.read <= READ_BYTES_MAX && !self.body.is_end_stream() {
            let Some(Ok(frame)) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                break;
            };
            self.read += frame.data_ref().map_or(0, bytes::Buf::remaining);
        }
        match self.answer.take() {
            Some(answer) => Poll::Ready(Ok(answer)),
            // Polled after it was ready, which no caller does.
            None => Poll::Pending,
        }
    }
}
