//! Waits between attempts: short, growing, never two callers in step.

use std::time::Duration;

/// A wait that grows from try to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    /// How long to wait now: between half and all of the step, which then doubles.
    pub(crate) fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_vary() {
        let mut waits = Backoff::new(Duration::from_millis(10), Duration::from_millis(80));
        for full in [10, 20, 40, 80, 80, 80] {
            let wait = waits.step();
            let full = Duration::from_millis(full);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
    }
}
