//! Counters of other processes, as they were one to two spans ago: what a rate is made of. Pure; time is an argument.

use std::time::{Duration, Instant};

/// Rates are measured over about this time.
const SPAN: Duration = Duration::from_secs(2);

/// Counters of one process, now and one to two spans ago.
#[derive(Clone, Debug)]
pub(super) struct Spans<T> {
    before: (Instant, T),
    between: (Instant, T),
    now: (Instant, T),
}

impl<T: Clone> Spans<T> {
    /// Heard for the first time.
    pub(super) fn new(now: Instant, counters: T) -> Self {
        let first = (now, counters);
        Self {
            before: first.clone(),
            between: first.clone(),
            now: first,
        }
    }

    /// Heard again; `restarted` says that the process counts from the beginning.
    pub(super) fn note(&mut self, now: Instant, counters: T, restarted: bool) {
        let latest = (now, counters);
        if restarted {
            self.before = latest.clone();
            self.between = latest.clone();
        } else if now.saturating_duration_since(self.between.0) >= SPAN {
            self.before = std::mem::replace(&mut self.between, latest.clone());
        }
        self.now = latest;
    }

    /// The counters heard last.
    pub(super) fn last(&self) -> &T {
        &self.now.1
    }

    /// Those that the last ones are compared with.
    pub(super) fn before(&self) -> &T {
        &self.before.1
    }

    /// How long ago the last ones were heard.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.now.0)
    }

    /// The seconds between both; 0 where there is only one.
    pub(super) fn secs(&self) -> f64 {
        let span = self.now.0.saturating_duration_since(self.before.0);
        span.as_secs_f64()
    }
}
