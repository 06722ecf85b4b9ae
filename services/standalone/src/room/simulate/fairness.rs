//! Do people with ten devices, or who reload, become admitted earlier? Two one-sided tests of equivalence.
//!
//! One draw of millions over two hours cannot show a second: its own chance is larger. Many smaller openings can.

use super::crowd::{Group, Habits};
use super::figures::Moments;
use super::world::{Scene, World};

/// People of each trial: the eligible of Seoul's fifties at a twentieth, as the rush has them.
const PEOPLE: u32 = 85_911;
const RATE: f64 = 500.0;
/// Equivalent means: within so many seconds of the others' mean.
pub(super) const MARGIN_SECS: f64 = 1.0;
/// Each of both one-sided tests is made at this level.
pub(super) const LEVEL: f64 = 0.05;

/// One group against those who wait as they are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub group: Group,
    /// People of the group, over all trials.
    pub n: u64,
    /// Their mean, in seconds after the opening.
    pub mean: f64,
    /// How much later than the others' mean.
    pub difference: f64,
    /// The difference's standard error.
    pub error: f64,
    /// The larger p of both tests.
    pub p: f64,
}

/// What all trials together show.
#[derive(Clone, Debug)]
pub(super) struct Fairness {
    pub trials: u32,
    pub others: Moments,
    pub groups: Vec<Comparison>,
}

impl Comparison {
    /// Both tests reject "a second or more apart".
    pub(super) fn equivalent(&self) -> bool {
        self.n > 1 && self.p < LEVEL
    }
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
        .map(|(group, found)| compare(group, found, others));
    Fairness {
        trials,
        others,
        groups: groups.collect(),
    }
}

fn compare(group: Group, found: Moments, others: Moments) -> Comparison {
    let difference = found.mean - others.mean;
    let part = |of: Moments| of.variance() / (of.n.max(1)) as f64;
    let error = (part(found) + part(others)).sqrt().max(f64::MIN_POSITIVE);
    let too_early = 1.0 - normal((difference + MARGIN_SECS) / error);
    let too_late = normal((difference - MARGIN_SECS) / error);
    Comparison {
        group,
        n: found.n,
        mean: found.mean,
        difference,
        error,
        p: too_early.max(too_late),
    }
}

/// The standard normal distribution (Abramowitz and Stegun, 26.2.17; error below 7.5e-8). With this many people Student's
/// is the same.
fn normal(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let coefficients = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let sum = coefficients.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * sum;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(n: u32, shift: f64) -> Moments {
        let mut of = Moments::default();
        (0..n).for_each(|at| of.note(f64::from(at % 100) + shift));
        of
    }

    #[test]
    fn the_test_tells_a_second_from_none_and_little_data_from_much() {
        let others = moments(1_000_000, 0.0);
        assert!(compare(Group::TenDevices, moments(100_000, 0.0), others).equivalent());
        assert!(compare(Group::TenDevices, moments(100_000, 0.5), others).equivalent());
        assert!(!compare(Group::TenDevices, moments(100_000, 1.1), others).equivalent());
        assert!(!compare(Group::TenDevices, moments(100_000, -1.1), others).equivalent());
        assert!(
            !compare(Group::TenDevices, moments(100, 0.0), others).equivalent(),
            "too few to say so"
        );
    }

    #[test]
    fn known_values_of_the_normal_distribution() {
        for (z, p) in [
            (0.0, 0.5),
            (1.644_854, 0.95),
            (-1.959_964, 0.025),
            (3.0, 0.998_650),
        ] {
            assert!((normal(z) - p).abs() < 1e-6, "{z}");
        }
    }

    #[test]
    fn moments_add_up() {
        let (mut all, mut parts) = (Moments::default(), [Moments::default(); 3]);
        for at in 0..999u32 {
            let value = f64::from(at * at % 77);
            all.note(value);
            parts[at as usize % 3].note(value);
        }
        let sum = parts[0].with(parts[1]).with(parts[2]);
        assert_eq!(sum.n, all.n);
        assert!(
            (sum.mean - all.mean).abs() < 1e-9 && (sum.variance() - all.variance()).abs() < 1e-9
        );
    }
}
