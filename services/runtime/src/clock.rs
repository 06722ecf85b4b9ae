//! The process's clocks, handed to whoever needs the time.
//!
//! Invariant: nothing outside this file reads the machine's clocks, so a test can put its own in their place.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use domain::Timestamp;

/// Wall time for what is written down, monotonic time for what is waited for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    wall_start_micros: i64,
    started: Instant,
    advanced_micros: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is advanced; for tests and simulations.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            wall_start_micros: start.as_micros(),
            started: machine_instant(),
            advanced_micros: AtomicI64::new(0),
        })))
    }

    /// Moves a manual clock (and all its clones) forward.
    ///
    /// # Panics
    /// On the system clock, which nobody can move.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(manual) = &self.0 else {
            panic!("only a manual clock can be advanced");
        };
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        manual.advanced_micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// The wall clock. It may step; never measure a duration with it.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System => machine_wall(),
            Source::Manual(manual) => Timestamp::from_micros(
                manual.wall_start_micros + manual.advanced_micros.load(Ordering::SeqCst),
            ),
        }
    }

    /// The monotonic clock.
    #[must_use]
    pub fn monotonic(&self) -> Instant {
        match &self.0 {
            Source::System => machine_instant(),
            Source::Manual(manual) => {
                let advanced = manual.advanced_micros.load(Ordering::SeqCst);
                manual.started + Duration::from_micros(u64::try_from(advanced).unwrap_or(0))
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn machine_wall() -> Timestamp {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the monotonic clock"
)]
fn machine_instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_move_together() {
        let clock = Clock::manual(Timestamp::from_secs(100));
        let other = clock.clone();
        let before = other.monotonic();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(other.wall(), Timestamp::from_millis(101_500));
        assert_eq!(other.monotonic() - before, Duration::from_millis(1_500));
    }

    #[test]
    fn the_system_clock_is_in_this_century() {
        assert!(Clock::system().wall() > Timestamp::from_secs(1_700_000_000));
    }
}
