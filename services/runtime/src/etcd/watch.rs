//! Keeps a mirror current: lists, watches from there, resumes where a watch broke off, lists again when it cannot.
//!
//! Invariants: the cursor moves only by events and listings, never by progress reports (some versions of etcd send
//! them ahead of the events they cover); a listing older than what was seen of the same cluster is not taken.

use std::time::Duration;

use etcd_client::{EventType, ResponseHeader, WatchOptions, WatchResponse};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::clients::Link;
use super::fault::Silent;
use super::{EtcdBackend, MESSAGE_BYTES_MAX, entry};
use crate::keyspace::{Backoff, BoxError, Change, Feed, now};

/// A copy may be read as stale after a few seconds: never wait longer before asking again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How far a copy has come.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// Every change up to this revision is in the copy.
    seen: i64,
    cluster: u64,
    /// Whether the next watch may start at `seen + 1`.
    resumable: bool,
}

/// Why a watch ended.
enum End {
    /// History behind the cursor is gone, or is not the one that was followed.
    Relist,
    Broken(BoxError),
}

struct Follower<'a> {
    etcd: &'a EtcdBackend,
    prefix: &'a str,
    feed: &'a Feed,
    cursor: Cursor,
    backoff: Backoff,
}

/// Never ends by itself.
pub(super) async fn follow(etcd: &EtcdBackend, prefix: &str, feed: &Feed) {
    let mut follower = Follower {
        etcd,
        prefix,
        feed,
        cursor: Cursor::default(),
        backoff: Backoff::up_to(BACKOFF_MAX),
    };
    loop {
        if let Err(error) = follower.advance().await {
            if !follower.backoff.failing() {
                tracing::warn!(prefix, error = &*error, "watch broke off; resuming");
            }
            follower.backoff.wait().await;
        }
    }
}

// === impl Follower ===

impl Follower<'_> {
    /// One listing if needed, one watch until it ends.
    async fn advance(&mut self) -> Result<(), BoxError> {
        if !self.cursor.resumable {
            self.list().await?;
        }
        match self.watch().await {
            End::Relist => {
                tracing::info!(
                    prefix = self.prefix,
                    revision = self.cursor.seen,
                    "watch cannot be resumed; listing again"
                );
                self.cursor.resumable = false;
                Ok(())
            }
            End::Broken(error) => Err(error),
        }
    }

    async fn list(&mut self) -> Result<(), BoxError> {
        let asked = now();
        let listing = self.etcd.listing(self.prefix).await?;
        // A cluster restored from a backup has a new id, and a history of its own that may be shorter.
        if listing.cluster == self.cursor.cluster && listing.revision < self.cursor.seen {
            return Err("etcd's revisions have gone back".into());
        }
        self.feed.replace(listing.entries);
        self.feed.prove(asked);
        self.cursor = Cursor {
            seen: listing.revision,
            cluster: listing.cluster,
            resumable: true,
        };
        Ok(())
    }

    async fn watch(&mut self) -> End {
        let link = match self.etcd.streams.link().await {
            Ok(link) => link,
            Err(error) => return End::Broken(error.into()),
        };
        let end = match self.watch_over(&link).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if matches!(end, End::Broken(_)) {
            self.etcd.streams.failed(&link);
        }
        end
    }

    async fn watch_over(&mut self, link: &Link) -> Result<std::convert::Infallible, End> {
        let silence = self.etcd.config.watch_silence;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(self.cursor.seen + 1)
            .with_progress_notify();
        let mut client = link
            .client()
            .watch_client()
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = timeout(silence, client.watch(self.prefix, Some(options))).await;
        let (mut requests, mut replies) = match opened {
            Ok(Ok(stream)) => stream.split(),
            Ok(Err(error)) => return Err(End::Broken(error.into())),
            Err(_) => return Err(End::Broken(Silent(silence).into())),
        };
        let mut ask = interval(silence / 3);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = now();
        let mut asked = None;
        loop {
            tokio::select! {
                reply = timeout_at(heard + silence, replies.message()) => {
                    let reply = match reply {
                        Ok(Ok(Some(reply))) => reply,
                        Ok(Ok(None)) => return Err(End::Broken("etcd closed the watch".into())),
                        Ok(Err(error)) => return Err(End::Broken(error.into())),
                        Err(_) => return Err(End::Broken(Silent(silence).into())),
                    };
                    if self.take(&reply, asked.unwrap_or_else(now))? {
                        heard = now();
                        asked = None;
                    }
                }
                _ = ask.tick() => {
                    // The first of several unanswered questions is the one an answer may belong to.
                    asked.get_or_insert_with(now);
                    let sending = timeout(silence, requests.request_progress());
                    sending.await.map_err(|_| End::Broken(Silent(silence).into()))?
                        .map_err(|error| End::Broken(error.into()))?;
                }
            }
        }
    }

    /// Whether the reply counts as a sign of life, which then proves the copy current as of `asked`.
    fn take(&mut self, reply: &WatchResponse, asked: Instant) -> Result<bool, End> {
        let revision = reply.header().map_or(0, ResponseHeader::revision);
        let cluster = reply.header().map_or(0, ResponseHeader::cluster_id);
        if reply.canceled() {
            return Err(match reply.compact_revision() {
                0 => End::Broken(
                    format!("etcd cancelled the watch: {}", reply.cancel_reason()).into(),
                ),
                _ => End::Relist,
            });
        }
        if cluster != self.cursor.cluster {
            return Err(End::Relist);
        }
        if revision < self.cursor.seen {
            // A member that lags behind the listing: it may catch up before the silence is over.
            return Ok(false);
        }
        if self.backoff.failing() {
            tracing::info!(prefix = self.prefix, "watch resumed");
            self.backoff.reset();
        }
        let events = reply.events();
        if !events.is_empty() {
            self.apply(events);
            self.feed.prove(now());
        } else if !reply.created() || revision == self.cursor.seen {
            self.feed.prove(asked);
        }
        Ok(true)
    }

    fn apply(&mut self, events: &[etcd_client::Event]) {
        let seen = self.cursor.seen;
        let mut last = seen;
        let changes = events.iter().filter_map(|event| {
            let pair = event.kv()?;
            let revision = pair.mod_revision();
            last = last.max(revision);
            let key = pair.key_str().ok()?.to_owned();
            let entry = match event.event_type() {
                EventType::Put => Some(entry(pair.clone())?),
                EventType::Delete => None,
            };
            (revision > seen).then_some(Change {
                key,
                revision,
                entry,
            })
        });
        self.feed.apply(changes.collect::<Vec<_>>());
        self.cursor.seen = last;
    }
}
