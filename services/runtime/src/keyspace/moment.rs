//! The monotonic clock of this layer, and a moment on it that tasks can share without a mutex.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The one place where this layer asks for the time: leases and staleness are judged by our own monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A moment that one task moves and others read.
#[derive(Debug)]
pub(crate) struct Moment {
    base: Instant,
    nanos: AtomicU64,
}

/// Stands for "whenever you look".
const ALWAYS: u64 = u64::MAX;

// === impl Moment ===

impl Moment {
    pub(crate) fn at(moment: Instant) -> Self {
        Self {
            base: moment,
            nanos: AtomicU64::new(0),
        }
    }

    /// Moments before the first one count as the first one.
    pub(crate) fn set(&self, moment: Instant) {
        let nanos = moment.saturating_duration_since(self.base).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(ALWAYS - 1);
        self.nanos.store(nanos, Ordering::Release);
    }

    pub(crate) fn set_always(&self) {
        self.nanos.store(ALWAYS, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Instant {
        match self.nanos.load(Ordering::Acquire) {
            ALWAYS => now(),
            nanos => self.base + Duration::from_nanos(nanos),
        }
    }
}
