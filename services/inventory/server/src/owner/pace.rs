//! Holds a process to so many changes a second, where a database is shared or a rate is to be shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime::Clock;

/// The bound of a whole process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pace(Option<Arc<Bound>>);

#[derive(Debug)]
struct Bound {
    per_op: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many changes a second; 0 = as many as the ledger takes.
    #[must_use]
    pub fn per_second(changes: u32) -> Self {
        let bound = |changes: u32| Bound {
            per_op: Duration::from_secs(1) / changes,
            next: Mutex::new(None),
        };
        Self((changes > 0).then(|| Arc::new(bound(changes))))
    }

    /// Waits until `ops` more are within the bound.
    pub(super) async fn take(&self, ops: usize, clock: &Clock) {
        let Some(bound) = &self.0 else { return };
        let now = clock.monotonic();
        let wait = bound.wait(ops, now);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

impl Bound {
    fn wait(&self, ops: usize, now: Instant) -> Duration {
        let ops = u32::try_from(ops).unwrap_or(u32::MAX);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let start = next.map_or(now, |next| next.max(now));
        *next = Some(start + self.per_op.saturating_mul(ops));
        start.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_before_is_waited_for_and_idle_time_is_not_saved_up() {
        let pace = Pace::per_second(1_000);
        let bound = pace.0.as_ref().expect("a bound");
        let now = Clock::system().monotonic();
        assert_eq!(bound.wait(100, now), Duration::ZERO);
        assert_eq!(bound.wait(50, now), Duration::from_millis(100));
        assert_eq!(
            bound.wait(1, now + Duration::from_millis(100)),
            Duration::from_millis(50)
        );
        let later = now + Duration::from_secs(60);
        assert_eq!(bound.wait(500, later), Duration::ZERO);
        assert_eq!(bound.wait(1, later), Duration::from_millis(500));
        assert!(Pace::per_second(0).0.is_none());
    }
}
