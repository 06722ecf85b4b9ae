//! How rooms are steered, by configuration and by what operators set.

use std::time::Duration;

use super::control::{Control, Rate};
use super::steer;

/// The section `identity.doorkeeper`, validated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// People a second, in all regions together, to begin with.
    pub start_per_second: f64,
    /// Never more people a second.
    pub ceiling_per_second: f64,
    /// The part of admitted people who come, before it was measured; above 0, at most 1.
    pub presence: f64,
    /// Slower commits are trouble.
    pub latency_max: Duration,
    /// More ops waiting in a region are trouble.
    pub queued_max: u64,
    /// How long a plan may be followed.
    pub ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start_per_second: 50.0,
            ceiling_per_second: 5_000.0,
            presence: 0.9,
            latency_max: Duration::from_millis(500),
            queued_max: 2_000,
            ttl: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// What the steering of a room follows.
    #[must_use]
    pub fn with(&self, rate: Rate, control: Control) -> steer::Settings {
        let per_second = |per_kilosecond: u64| per_kilosecond as f64 / 1_000.0;
        let ceiling = control.ceiling_per_kilosecond.map_or(f64::MAX, per_second);
        let ceiling = ceiling.min(self.ceiling_per_second);
        let rate = match rate {
            Rate::Fixed { per_kilosecond } => {
                steer::Rate::Fixed(per_second(per_kilosecond).min(ceiling))
            }
            Rate::Adaptive | Rate::AtOnce => steer::Rate::Adaptive {
                start: self.start_per_second.min(ceiling),
                ceiling,
            },
        };
        steer::Settings {
            rate,
            ttl: self.ttl,
            presence: self.presence,
            latency_max: self.latency_max,
            queued_max: self.queued_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_the_lower_of_both_ceilings() {
        let settings = Settings::default();
        let with = |rate, ceiling_per_kilosecond| {
            let control = Control {
                rate,
                ceiling_per_kilosecond,
            };
            settings.with(rate, control).rate
        };
        let fixed = |per_kilosecond| Rate::Fixed { per_kilosecond };
        assert_eq!(with(fixed(7_000), None), steer::Rate::Fixed(7.0));
        assert_eq!(with(fixed(7_000), Some(3_000)), steer::Rate::Fixed(3.0));
        assert_eq!(with(fixed(u64::MAX), None), steer::Rate::Fixed(5_000.0));
        let slow = steer::Rate::Adaptive {
            start: 10.0,
            ceiling: 10.0,
        };
        assert_eq!(with(Rate::Adaptive, Some(10_000)), slow);
    }
}
