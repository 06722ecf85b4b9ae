//! The public board: one rendering a second for everybody, in each language, however many look.
//!
//! Invariant: a viewer costs copies of references to what was rendered, and nothing is rendered while nobody looks. What
//! is shown is read where the public API reads it.

mod facts;
mod page;
mod plot;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use domain::RegionId;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use runtime::Clock;
use tokio::sync::{Notify, watch};

use super::assets;
use super::events::{self, Part};
use super::reply::set;
use super::text::Language;
use crate::availability::Supply;
use crate::room::Rooms;
use facts::Facts;

/// Everybody sees the same second.
const RENDER_EVERY: Duration = Duration::from_secs(1);
/// Supply moves by thousands in a rush, and is the larger part of a page: it is told less often.
const SUPPLY_EVERY: Duration = Duration::from_secs(3);
/// Rendering goes on for so long after the last request.
const WANTED_FOR: Duration = Duration::from_secs(15);
/// What is older was rendered before anybody looked again.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// The first one to look waits so long for a page.
const FIRST_WITHIN: Duration = Duration::from_secs(4);

/// The board. Cheap to clone.
#[derive(Clone)]
pub(super) struct Board(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    supply: Supply,
    regions: Vec<RegionId>,
    clock: Clock,
    began: Instant,
    /// Milliseconds after `began` at which somebody asked last.
    asked_ms: AtomicU64,
    wake: Notify,
    latest: watch::Sender<Option<Arc<Rendered>>>,
}

/// What was rendered at one moment.
pub(super) struct Rendered {
    at: Instant,
    now_ms: i64,
    supply_at: Instant,
    pages: [Page; 2],
}

/// One language's page.
struct Page {
    html: Bytes,
    tag: String,
    parts: Vec<Part>,
}

impl Board {
    pub(super) fn new(rooms: Rooms, supply: Supply, regions: Vec<RegionId>, clock: Clock) -> Self {
        let began = clock.monotonic();
        Self(Arc::new(Inner {
            rooms,
            supply,
            regions,
            clock,
            began,
            asked_ms: AtomicU64::new(0),
            wake: Notify::new(),
            latest: watch::Sender::new(None),
        }))
    }

    /// The page, the same for everybody who reads the language; `None` when there is none in time.
    pub(super) async fn page(&self, language: Language, headers: &HeaderMap) -> Option<Response> {
        let rendered = self.fresh().await?;
        let page = rendered.page(language);
        let known = assets::has(headers, &page.tag);
        let body = if known {
            Bytes::new()
        } else {
            page.html.clone()
        };
        let mut answer = Response::new(Body::from(body));
        if known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = answer.headers_mut();
        set(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
        set(headers, header::CACHE_CONTROL, "public, max-age=1");
        set(headers, header::VARY, "Accept-Language, Cookie");
        if let Ok(tag) = HeaderValue::from_str(&page.tag) {
            headers.insert(header::ETAG, tag);
        }
        Some(answer)
    }

    /// What changes on the page, from now on.
    pub(super) fn follow(&self, language: Language) -> impl futures::Stream<Item = Bytes> + use<> {
        self.touch();
        let receiver = self.0.latest.subscribe();
        let start = (receiver, Vec::new(), true);
        futures::stream::unfold(start, move |(mut receiver, mut seen, first)| async move {
            // A page that was loaded from here a moment ago is told what changed since by versions, not by time.
            if !first && receiver.changed().await.is_err() {
                return None;
            }
            let rendered = receiver.borrow_and_update().clone();
            let bytes = match rendered {
                Some(rendered) => {
                    let parts = &rendered.page(language).parts;
                    events::news(rendered.now_ms, parts, &mut seen)
                }
                None => events::BEGIN,
            };
            Some((bytes, (receiver, seen, false)))
        })
    }

    async fn fresh(&self) -> Option<Arc<Rendered>> {
        self.touch();
        let mut latest = self.0.latest.subscribe();
        let now = self.0.clock.monotonic();
        let is_fresh = |known: &Option<Arc<Rendered>>| {
            let at = known.as_ref().map(|known| known.at);
            at.is_some_and(|at| now.saturating_duration_since(at) < STALE_AFTER)
        };
        let wait = latest.wait_for(is_fresh);
        let found = tokio::time::timeout(FIRST_WITHIN, wait).await.ok()?;
        found.ok()?.clone()
    }

    fn touch(&self) {
        let now = self.0.clock.monotonic();
        let ms = now.saturating_duration_since(self.0.began).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        self.0.asked_ms.fetch_max(ms, Ordering::Relaxed);
        self.0.wake.notify_one();
    }

    fn wanted(&self) -> bool {
        let now = self.0.clock.monotonic();
        let since = now.saturating_duration_since(self.0.began);
        let asked = Duration::from_millis(self.0.asked_ms.load(Ordering::Relaxed));
        self.0.latest.receiver_count() > 0 || (!asked.is_zero() && since < asked + WANTED_FOR)
    }

    async fn render(&self, before: Option<&Rendered>) -> Rendered {
        let at = self.0.clock.monotonic();
        let facts = Facts::read(
            &self.0.rooms,
            &self.0.supply,
            &self.0.regions,
            &self.0.clock,
        )
        .await;
        // Also where there is something for the first time: nobody is to wait for it.
        let keeps_supply = before
            .is_some_and(|before| at.saturating_duration_since(before.supply_at) < SUPPLY_EVERY);
        let pages = Language::ALL.map(|language| {
            let known = before.map(|before| before.page(language).parts.as_slice());
            let parts = page::parts(&facts, language);
            let parts = events::versioned(parts, known, |id| keeps_supply && id == page::SUPPLY);
            let html = page::whole(&facts, language, &parts).into_string();
            let html = Bytes::from(html);
            let tag = assets::tag(&html);
            Page { html, tag, parts }
        });
        Rendered {
            at,
            now_ms: facts.now.as_micros() / 1_000,
            supply_at: before
                .filter(|_| keeps_supply)
                .map_or(at, |before| before.supply_at),
            pages,
        }
    }
}

impl Rendered {
    fn page(&self, language: Language) -> &Page {
        &self.pages[language as usize]
    }
}

/// Renders while somebody looks, until it is dropped.
pub(super) async fn render(board: Board) -> Infallible {
    loop {
        while !board.wanted() {
            board.0.wake.notified().await;
        }
        let before = board.0.latest.borrow().clone();
        let rendered = board.render(before.as_deref()).await;
        board.0.latest.send_replace(Some(Arc::new(rendered)));
        tokio::time::sleep(RENDER_EVERY).await;
    }
}
