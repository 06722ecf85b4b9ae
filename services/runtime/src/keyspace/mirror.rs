//! A live copy of a prefix.
//!
//! Invariant: a key in a copy never goes back to an older revision, and changes appear in revision order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::moment::{Moment, now};
use super::{Backend, Entry};

/// A live copy of all keys of a prefix. Clones share the copy; each wakes on changes of its own.
///
/// The copy keeps itself current until the last clone is dropped. While the store is away it stands still and
/// [`Mirror::stale_for`] grows: whoever reads decides how old is too old.
#[derive(Clone)]
pub struct Mirror {
    feed: Arc<Feed>,
    progress: watch::Receiver<Progress>,
    _stop: Arc<DropGuard>,
    _backend: Arc<dyn Backend>,
}

/// The side of a mirror that a backend fills.
#[derive(Debug)]
pub(crate) struct Feed {
    copy: ArcSwap<BTreeMap<String, Entry>>,
    proved: Moment,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    changes: u64,
    ready: bool,
}

/// One key's new state.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) revision: i64,
    /// `None` when the key was removed.
    pub(crate) entry: Option<Entry>,
}

// === impl Mirror ===

impl Mirror {
    pub(crate) fn new(feed: Arc<Feed>, stop: CancellationToken, backend: Arc<dyn Backend>) -> Self {
        Self {
            progress: feed.progress.subscribe(),
            feed,
            _stop: Arc::new(stop.drop_guard()),
            _backend: backend,
        }
    }

    /// The copy as it is now; consistent in itself (a transaction is in it whole or not at all).
    #[must_use]
    pub fn snapshot(&self) -> Arc<BTreeMap<String, Entry>> {
        self.feed.copy.load_full()
    }

    /// Waits for a change since this handle last waited (the first listing counts as one). Changes are merged: look
    /// at the snapshot afterwards. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.progress.changed().await.is_err() {
            // Unreachable while `feed` lives; to wait for ever is what "no more changes" means.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the first listing has arrived.
    pub async fn ready(&mut self) {
        if self.progress.wait_for(|it| it.ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the first listing has arrived.
    #[must_use]
    pub fn listed(&self) -> bool {
        self.progress.borrow().ready
    }

    /// Time since the copy was last known to be current: an event, a sign of life of the watch, or a listing;
    /// before the first listing, since the mirror was made. Always zero in embedded mode.
    #[must_use]
    pub fn stale_for(&self) -> Duration {
        now().saturating_duration_since(self.feed.proved.get())
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("keys", &self.feed.copy.load().len())
            .field("listed", &self.listed())
            .finish_non_exhaustive()
    }
}

// === impl Feed ===

impl Feed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            copy: ArcSwap::default(),
            proved: Moment::at(now()),
            progress: watch::Sender::new(Progress::default()),
        })
    }

    /// The copy was current at `moment`.
    pub(crate) fn prove(&self, moment: Instant) {
        self.proved.set(moment);
    }

    /// The copy is current whenever it is read, because its writer is the store itself.
    pub(crate) fn prove_always(&self) {
        self.proved.set_always();
    }

    /// Takes a full listing: keys that are not in it are gone.
    pub(crate) fn replace(&self, entries: Vec<Entry>) {
        let next: BTreeMap<_, _> = entries.into_iter().map(|it| (it.key.clone(), it)).collect();
        let same = **self.copy.load() == next;
        self.copy.store(Arc::new(next));
        self.progress.send_if_modified(|it| {
            let news = !same || !it.ready;
            it.ready = true;
            it.changes += u64::from(news);
            news
        });
    }

    /// Takes changes in revision order; those that the copy is already past are left out.
    ///
    /// Copies the map once per batch: prefixes hold hundreds of keys and change a few times a second.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut next = BTreeMap::clone(&self.copy.load());
        let mut news = false;
        for change in changes {
            let known = next.get(&change.key).map_or(0, |it| it.mod_revision);
            if change.revision <= known {
                continue;
            }
            news |= match change.entry {
                Some(entry) => {
                    next.insert(change.key, entry);
                    true
                }
                None => next.remove(&change.key).is_some(),
            };
        }
        if news {
            self.copy.store(Arc::new(next));
            self.progress.send_modify(|it| it.changes += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, revision: i64) -> Entry {
        Entry {
            key: key.to_owned(),
            value: revision.to_string().into(),
            create_revision: 1,
            mod_revision: revision,
            leased: false,
        }
    }

    fn put(key: &str, revision: i64) -> Change {
        Change {
            key: key.to_owned(),
            revision,
            entry: Some(entry(key, revision)),
        }
    }

    fn delete(key: &str, revision: i64) -> Change {
        Change {
            key: key.to_owned(),
            revision,
            entry: None,
        }
    }

    #[test]
    fn key_never_goes_back_to_an_older_revision() {
        let feed = Feed::new();
        feed.replace(vec![entry("a", 5)]);
        feed.apply([put("a", 4), delete("a", 3), delete("a", 5)]);
        assert_eq!(feed.copy.load()["a"].mod_revision, 5);
        feed.apply([put("a", 6)]);
        assert_eq!(feed.copy.load()["a"].mod_revision, 6);
    }

    #[test]
    fn listing_drops_what_is_not_in_it() {
        let feed = Feed::new();
        feed.replace(vec![entry("a", 5), entry("b", 6)]);
        feed.replace(vec![entry("b", 6)]);
        assert_eq!(feed.copy.load().keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn nothing_new_wakes_nobody() {
        let feed = Feed::new();
        let mut progress = feed.progress.subscribe();
        feed.replace(vec![]);
        assert!(
            progress.has_changed().expect("the feed lives"),
            "the first listing is news"
        );
        progress.mark_unchanged();
        feed.replace(vec![]);
        feed.apply([delete("a", 3)]);
        assert!(!progress.has_changed().expect("the feed lives"));
    }
}
