//! July 2021 for comparison: 10 million devices for 1.5 million eligible people, at both capacities of that summer.
//!
//! Simulated at a tenth: people and capacity shrink together, so that waiting times stay and polls scale.

use super::crowd::Habits;
use super::figures::Figures;
use super::world::{Scene, World};

/// Everything is simulated at one in so many.
pub(super) const SCALE: u32 = 10;
const ELIGIBLE: u32 = 1_500_000;
/// Devices that came.
pub(super) const DEVICES: u32 = 10_000_000;

/// One capacity.
pub(super) struct Case {
    /// Bookings per hour, in full size.
    pub per_hour: u32,
    /// At [`SCALE`].
    pub figures: Figures,
}

impl Case {
    /// All polls per second at the peak of 10 s, in full size.
    pub(super) fn polls(&self) -> f64 {
        let figures = &self.figures;
        let open = &figures.seconds[figures.opened_at.min(figures.seconds.len())..];
        let of = |window: &[super::figures::Second]| {
            window
                .iter()
                .map(|second| f64::from(second.polls + second.extra))
                .sum::<f64>()
                / 10.0
        };
        open.windows(10).map(of).fold(0.0, f64::max) * f64::from(SCALE)
    }
}

/// Both capacities.
pub(super) fn compare(seed: u64) -> Vec<Case> {
    [300_000, 2_000_000]
        .into_iter()
        .map(|per_hour| case(per_hour, SCALE, seed))
        .collect()
}

pub(super) fn case(per_hour: u32, scale: u32, seed: u64) -> Case {
    let people = ELIGIBLE / scale;
    let rate = f64::from(per_hour) / 3_600.0 / f64::from(scale);
    let scene = Scene {
        people,
        late: 0,
        open_for_secs: (f64::from(people) / rate * 1.02) as u64 + 60,
        rate,
        adaptive: false,
        capacity: rate * 1.1,
        supply: u64::from(people) * 2,
        habits: Habits {
            presence: 1.0,
            ten_devices: 0.0,
            reloaders: 0.0,
            returners: 0.0,
            devices: f64::from(DEVICES) / f64::from(ELIGIBLE),
        },
        regions: vec![("korea".parse().expect("a slug"), 1.0)],
        polls_per_second: u64::from(50_000 / scale),
        seed,
    };
    Case {
        per_hour,
        figures: World::new(&scene).run(),
    }
}
