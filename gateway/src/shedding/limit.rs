//! How many may be served at once: a ceiling that sinks when answers take too long. Pure.

use std::time::Duration;

/// A ceiling, and how old answers may become before it sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    in_flight_max: u32,
    age_target: Duration,
}

/// However slow answers are, this part of the ceiling stays open: without samples nothing would ever recover.
const FLOOR_PART: u32 = 8;

impl Limit {
    /// At most `in_flight_max` at once while answers come within `age_target`.
    #[must_use]
    pub const fn new(in_flight_max: u32, age_target: Duration) -> Self {
        Self {
            in_flight_max,
            age_target,
        }
    }

    /// The ceiling when answers take `age`: by Little's law, as many as would be answered within the target.
    #[must_use]
    pub fn ceiling(&self, age: Duration) -> u32 {
        if age <= self.age_target {
            return self.in_flight_max;
        }
        let part =
            u128::from(self.in_flight_max) * self.age_target.as_micros() / age.as_micros().max(1);
        let floor = (self.in_flight_max / FLOOR_PART).max(1);
        u32::try_from(part).unwrap_or(self.in_flight_max).max(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit::new(800, Duration::from_millis(500));

    #[test]
    fn the_ceiling_holds_while_answers_are_in_time_and_then_sinks_to_a_floor() {
        for (age_ms, ceiling) in [
            (0, 800),
            (500, 800),
            (1_000, 400),
            (2_000, 200),
            (4_000, 100),
            (60_000, 100),
        ] {
            assert_eq!(
                LIMIT.ceiling(Duration::from_millis(age_ms)),
                ceiling,
                "{age_ms} ms"
            );
        }
    }

    #[test]
    fn somebody_is_always_let_in() {
        let least = Limit::new(1, Duration::from_millis(1));
        assert_eq!(least.ceiling(Duration::from_secs(9)), 1);
    }
}
