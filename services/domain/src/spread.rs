//! How long things take, counted in classes that double: how one process tells another. Pure.

use std::time::Duration;

/// The first class ends here, each next one at twice as much.
pub const UNIT: Duration = Duration::from_micros(128);
/// Classes; they reach beyond a minute, and the last has no end.
pub const CLASSES: usize = 20;

/// The class of something that took so long.
#[must_use]
pub fn class(took: Duration) -> usize {
    let units = took.as_micros() / UNIT.as_micros();
    let at = u128::BITS - units.leading_zeros();
    usize::try_from(at).unwrap_or(CLASSES).min(CLASSES - 1)
}

/// The upper end of the class in which 99 of 100 have ended; zero when nothing was counted.
#[must_use]
pub fn percentile_99(counts: &[u64]) -> Duration {
    // The counts may come from another process: whatever it says, no sum overflows.
    let all: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let mut seen = 0;
    for (at, count) in counts.iter().enumerate() {
        seen += u128::from(*count);
        if all > 0 && seen * 100 >= all * 99 {
            let doubled = u32::try_from(at.min(CLASSES)).unwrap_or(0);
            return UNIT * (1 << doubled);
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_ends_where_the_next_begins() {
        for at in 0..CLASSES - 1 {
            let end = UNIT * (1 << at);
            assert_eq!(class(end - Duration::from_nanos(1)), at);
            assert_eq!(class(end), at + 1);
        }
        assert_eq!(class(Duration::ZERO), 0);
        assert_eq!(class(Duration::MAX), CLASSES - 1);
    }

    #[test]
    fn one_of_a_hundred_may_be_slower() {
        assert_eq!(percentile_99(&[]), Duration::ZERO);
        assert_eq!(percentile_99(&[0, 0]), Duration::ZERO);
        assert_eq!(percentile_99(&[99, 0, 0, 1]), UNIT);
        assert_eq!(percentile_99(&[98, 0, 0, 2]), UNIT * 8);
        assert_eq!(percentile_99(&[u64::MAX; 40]), UNIT * (1 << CLASSES));
    }
}
