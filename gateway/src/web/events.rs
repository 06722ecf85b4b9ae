//! What a page that is open is sent: the server's time, and those parts of the page that are not as it has them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use domain::Refusal;
use futures::{Stream, StreamExt as _};
use http::header;
use runtime::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::{Following, WebMetrics};
use super::reply::set;

/// A browser whose stream broke comes back after so many milliseconds, to whichever gateway takes it.
pub(super) const BEGIN: Bytes = Bytes::from_static(b"retry: 3000\n\n");

/// A part of a page that may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: &'static str,
    /// What stands in the page.
    pub(super) html: String,
    /// By what it is told whether it changed: a countdown that only ticks is no change.
    pub(super) key: String,
    version: u64,
    event: Bytes,
}

/// Who may follow. Cheap to clone.
#[derive(Clone)]
pub(super) struct Seats {
    seats: Arc<Semaphore>,
    metrics: WebMetrics,
    drain: Drain,
}

/// A seat, as long as a page follows.
struct Seat {
    _seat: OwnedSemaphorePermit,
    _following: Following,
}

impl Part {
    pub(super) fn new(id: &'static str, html: String, key: String) -> Self {
        let event = event(id, &html);
        Self {
            id,
            html,
            key,
            version: 1,
            event,
        }
    }
}

/// One part as an event.
fn event(id: &str, html: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(html.len() + 64);
    bytes.extend_from_slice(b"event: part\ndata: ");
    bytes.extend_from_slice(id.as_bytes());
    for line in html.split(['\n', '\r']) {
        bytes.extend_from_slice(b"\ndata: ");
        bytes.extend_from_slice(line.as_bytes());
    }
    bytes.extend_from_slice(b"\n\n");
    bytes.freeze()
}

/// Parts with versions that rise where something changed; `keeps` says which stay as they were told, for now.
pub(super) fn versioned(
    parts: Vec<Part>,
    known: Option<&[Part]>,
    keeps: impl Fn(&str) -> bool,
) -> Vec<Part> {
    let versioned = |part: Part| {
        let before = known.and_then(|known| known.iter().find(|known| known.id == part.id));
        match before {
            None => part,
            Some(before) if keeps(part.id) => before.clone(),
            Some(before) if before.key == part.key => Part {
                version: before.version,
                ..part
            },
            Some(before) => Part {
                version: before.version + 1,
                ..part
            },
        }
    };
    parts.into_iter().map(versioned).collect()
}

/// The time, and every part of which `seen` knows another version.
pub(super) fn news(now_ms: i64, parts: &[Part], seen: &mut Vec<(&'static str, u64)>) -> Bytes {
    let mut bytes = BytesMut::new();
    if seen.is_empty() {
        bytes.extend_from_slice(&BEGIN);
    }
    bytes.extend_from_slice(format!("event: time\ndata: {now_ms}\n\n").as_bytes());
    for part in parts {
        match seen.iter_mut().find(|(id, _)| *id == part.id) {
            Some((_, version)) if *version == part.version => continue,
            Some((_, version)) => *version = part.version,
            None => seen.push((part.id, part.version)),
        }
        bytes.extend_from_slice(&part.event);
    }
    bytes.freeze()
}

impl Seats {
    pub(super) fn new(streams_max: usize, metrics: WebMetrics, drain: Drain) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(streams_max)),
            metrics,
            drain,
        }
    }

    /// Streams to a browser until the gateway drains; refuses when there is no seat.
    pub(super) fn stream<S>(&self, events: S) -> Result<Response, Refusal>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let seat = Seat {
            _seat: seat.map_err(|_| Refusal::Overloaded)?,
            _following: self.metrics.following(),
        };
        let drain = self.drain.clone();
        let events = events
            .map(move |bytes| {
                let _ = &seat;
                Ok::<_, Infallible>(bytes)
            })
            .take_until(async move { drain.announced().await });
        let mut answer = Response::new(Body::from_stream(events));
        let headers = answer.headers_mut();
        set(headers, header::CONTENT_TYPE, "text/event-stream");
        set(headers, header::CACHE_CONTROL, "no-store");
        // Proxies that gather what they pass on would keep it from being live.
        headers.insert("x-accel-buffering", http::HeaderValue::from_static("no"));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(html: &str, key: &str) -> Part {
        Part::new("p", html.to_owned(), key.to_owned())
    }

    #[test]
    fn a_page_is_sent_what_it_does_not_have() {
        let first = versioned(vec![part("a", "1")], None, |_| false);
        let mut seen = Vec::new();
        let told = news(5, &first, &mut seen);
        assert_eq!(
            &told[..],
            b"retry: 3000\n\nevent: time\ndata: 5\n\nevent: part\ndata: p\ndata: a\n\n"
        );
        let ticked = versioned(vec![part("b", "1")], Some(&first), |_| false);
        assert_eq!(
            &news(6, &ticked, &mut seen)[..],
            b"event: time\ndata: 6\n\n"
        );
        let changed = versioned(vec![part("c\nd", "2")], Some(&ticked), |_| false);
        let told = news(7, &changed, &mut seen);
        assert!(
            told.ends_with(b"event: part\ndata: p\ndata: c\ndata: d\n\n"),
            "{told:?}"
        );
        let kept = versioned(vec![part("e", "3")], Some(&changed), |_| true);
        assert_eq!(kept, changed);
    }
}
