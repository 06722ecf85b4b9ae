//! Whether this process should be sent work.
//!
//! Invariant: not ready until every registered component has released its latch, and never again once draining began.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Collects the latches of all components. Cheap to clone.
///
/// Register every component before the first latch is released; with none registered the process is not ready.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

/// One component's part in readiness. It may be held again, for instance while a store is away.
/// Dropping a latch that was not released leaves the process not ready.
#[derive(Clone, Debug)]
pub struct Latch {
    name: &'static str,
    at: usize,
    readiness: Readiness,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    components: Vec<(&'static str, bool)>,
    closed: bool,
}

impl State {
    fn ready(&self) -> bool {
        !self.closed
            && !self.components.is_empty()
            && self.components.iter().all(|(_, released)| *released)
    }
}

// === impl Readiness ===

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Nobody registered, not ready.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            ready: watch::channel(false).0,
        }))
    }

    /// Makes readiness wait for a component as well.
    #[must_use = "a latch that nobody releases keeps the process unready"]
    pub fn register(&self, name: &'static str) -> Latch {
        let at = self.change(|state| {
            state.components.push((name, false));
            state.components.len() - 1
        });
        Latch {
            name,
            at,
            readiness: self.clone(),
        }
    }

    /// Whether work may come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// The components that are still held, or `draining`.
    #[must_use]
    pub fn waiting(&self) -> Vec<&'static str> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = state
            .components
            .iter()
            .filter(|(_, released)| !released)
            .map(|(n, _)| *n)
            .collect();
        if state.closed {
            names.push("draining");
        }
        names
    }

    /// Follows readiness, for instance to feed the gRPC health service.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// Waits until work may come.
    pub async fn ready(&self) {
        let mut changes = self.watch();
        // The sender lives as long as `self`, so this cannot end early.
        let _ = changes.wait_for(|ready| *ready).await;
    }

    /// Not ready from now on, whatever the components say: the first step of stopping.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let ready = state.ready();
        // Told under the lock, so that two changes cannot be told in the wrong order.
        self.0
            .ready
            .send_if_modified(|was| std::mem::replace(was, ready) != ready);
        result
    }
}

// === impl Latch ===

impl Latch {
    /// This component can work.
    pub fn release(&self) {
        self.set(true);
    }

    /// This component cannot work for now.
    pub fn hold(&self) {
        self.set(false);
    }

    fn set(&self, released: bool) {
        let changed = self.readiness.change(|state| {
            let was = std::mem::replace(&mut state.components[self.at].1, released);
            was != released
        });
        if changed {
            tracing::info!(component = self.name, released, "readiness latch changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_latches_are_released_and_not_after_closing() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "nobody registered");
        let (stores, shards) = (readiness.register("stores"), readiness.register("shards"));
        stores.release();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting(), ["shards"]);
        shards.release();
        assert!(readiness.is_ready());
        stores.hold();
        assert!(!readiness.is_ready());
        stores.release();
        readiness.close();
        shards.release();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting(), ["draining"]);
    }

    #[tokio::test]
    async fn waiting_for_readiness_ends_with_the_last_release() {
        let readiness = Readiness::new();
        let latch = readiness.register("stores");
        let waiting = readiness.ready();
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        latch.release();
        waiting.await;
        assert!(readiness.is_ready());
    }
}
