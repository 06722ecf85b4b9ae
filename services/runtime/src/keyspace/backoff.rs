//! How long to wait before the next attempt of something that is repeated for ever.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);

/// Doubles from 50 ms up to a bound, with jitter so that a restarted etcd is not met by everybody at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self {
            failures: 0,
            longest: longest.max(FIRST),
        }
    }

    /// Whether the last attempt failed: the log tells of an outage when it begins and when it ends, not in between.
    pub(crate) fn failing(&self) -> bool {
        self.failures > 0
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) async fn wait(&mut self) {
        let pause = self.next();
        tokio::time::sleep(pause).await;
    }

    fn next(&mut self) -> Duration {
        let full = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_starts_over() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        assert!(!backoff.failing());
        assert!(backoff.next() <= FIRST);
        for _ in 0..40 {
            let pause = backoff.next();
            assert!(pause <= Duration::from_secs(1), "{pause:?}");
        }
        assert!(backoff.next() >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
