//! Do people with ten devices, or who reload, become admitted earlier? Two one-sided tests of equivalence.
//!
//! One draw of millions over two hours cannot show a second: its own chance is larger. Many smaller openings can.

use super::crowd::{Group, Habits};
use super::world::{Scene, World};
use crate::equivalence::{Comparison, Moments};

/// People of each trial: the eligible of Seoul's fifties at a twentieth, as the rush has them.
const PEOPLE: u32 = 85_911;
const RATE: f64 = 500.0;

/// One group against those who wait as they are told, over all trials.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfGroup {
    pub group: Group,
    pub found: Comparison,
}

/// What all trials together show.
#[derive(Clone, Debug)]
pub(super) struct Fairness {
    pub trials: u32,
    pub others: Moments,
    pub groups: Vec<OfGroup>,
}

/// Runs the trials.
pub(super) fn measure(trials: u32, seed: u64) -> Fairness {
    measure_with(trials, seed, PEOPLE, RATE)
}

pub(super) fn measure_with(trials: u32, seed: u64, people: u32, rate: f64) -> Fairness {
    let compared = [Group::TenDevices, Group::Reloader];
    let mut others = Moments::default();
    let mut groups = [Moments::default(); 2];
    for trial in 0..trials {
        let scene = Scene {
            people,
            late: 0,
            open_for_secs: (f64::from(people) / rate * 1.1) as u64 + 20,
            rate,
            adaptive: false,
            capacity: rate * 2.0,
            supply: u64::from(people) * 2,
            habits: Habits {
                presence: 1.0,
                ten_devices: 0.05,
                reloaders: 0.03,
                returners: 0.0,
                devices: 1.0,
            },
            regions: vec![("seoul".parse().expect("a slug"), 1.0)],
            polls_per_second: 50_000,
            seed: seed.wrapping_mul(1_000_003).wrapping_add(u64::from(trial)),
        };
        let figures = World::new(&scene).run();
        others = others.with(figures.group(Group::Early).admitted);
        for (all, group) in groups.iter_mut().zip(compared) {
            *all = all.with(figures.group(group).admitted);
        }
    }
    let groups = compared
        .into_iter()
        .zip(groups)
        .map(|(group, found)| OfGroup {
            group,
            found: Comparison::of(found, others),
        });
    Fairness {
        trials,
        others,
        groups: groups.collect(),
    }
}
