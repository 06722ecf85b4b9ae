//! Keeps a warning that repeats from filling the log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// Lets one line through in each interval and counts the others. Works as a `static`.
///
/// ```
/// use std::time::Duration;
/// use runtime::telemetry::LogLimit;
///
/// static SHEDDING: LogLimit = LogLimit::every(Duration::from_secs(1));
/// if let Some(suppressed) = SHEDDING.pass() {
///     tracing::warn!(suppressed, "shedding load");
/// }
/// ```
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    /// When the next line may pass, in microseconds after the first one.
    next_micros: AtomicU64,
    suppressed: AtomicU64,
    origin: OnceLock<Instant>,
}

impl LogLimit {
    /// One line in each `interval`.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self {
            interval,
            next_micros: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            origin: OnceLock::new(),
        }
    }

    /// Whether a line may be written now, and how many were left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Clock::system().monotonic())
    }

    /// Like [`LogLimit::pass`], at an instant of the caller's clock.
    pub fn pass_at(&self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(*self.origin.get_or_init(|| now));
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let (now, interval) = (micros(since), micros(self.interval));
        let next = self.next_micros.load(Ordering::Relaxed);
        let due = now >= next
            && self
                .next_micros
                .compare_exchange(
                    next,
                    now.saturating_add(interval),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if due {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_and_the_next_says_how_many_were_left_out() {
        let limit = LogLimit::every(Duration::from_secs(1));
        let start = Clock::system().monotonic();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(limit.pass_at(at(0)), Some(0));
        assert_eq!(limit.pass_at(at(10)), None);
        assert_eq!(limit.pass_at(at(999)), None);
        assert_eq!(limit.pass_at(at(1_000)), Some(2));
        assert_eq!(limit.pass_at(at(1_001)), None);
        assert_eq!(limit.pass_at(at(5_000)), Some(1));
    }
}
