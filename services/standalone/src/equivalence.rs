//! Whether a group's mean is equivalent to the others': two one-sided tests (Welch's error, normal), and the data they need.
//!
//! Hypothesis that is to be rejected: the means are [`MARGIN_SECS`] or more apart. Both tests reject it at [`LEVEL`] exactly
//! when the 90 % interval of the difference lies inside the margin. Failing to reject says nothing; so data too scarce to
//! reject it even for equal means are told from means that are apart.

/// Equivalent means: within so many seconds of the others' mean.
pub(crate) const MARGIN_SECS: f64 = 1.0;
/// Each of both one-sided tests is made at this level.
pub(crate) const LEVEL: f64 = 0.05;
/// What [`LEVEL`] leaves above it in the standard normal distribution; the half of the 90 % interval in standard errors.
const Z: f64 = 1.644_854;
/// Below it a mean of waiting times is not yet normal enough to be judged.
const PEOPLE_MIN: u64 = 30;

/// Mean and spread of a number of values, without keeping them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    pub n: u64,
    pub mean: f64,
    squares: f64,
}

/// One group against the others; times in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    /// People of the group.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// How much later than the others' mean.
    pub difference: f64,
    /// The difference's standard error.
    pub error: f64,
    /// The larger p of both tests.
    pub p: f64,
    /// Too few, here or among the others, to judge a mean.
    scarce: bool,
}

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The means are less than the margin apart.
    Equivalent,
    /// That they are is not shown, although there are data enough.
    Unproven,
    /// Equal means would not be told from means that are apart.
    TooFew,
}

// === impl Moments ===

impl Moments {
    pub(crate) fn note(&mut self, value: f64) {
        self.n += 1;
        let off = value - self.mean;
        self.mean += off / self.n as f64;
        self.squares += off * (value - self.mean);
    }

    pub(crate) fn variance(&self) -> f64 {
        if self.n < 2 {
            0.0
        } else {
            self.squares / (self.n - 1) as f64
        }
    }

    /// Both together (Chan's formula).
    pub(crate) fn with(self, other: Self) -> Self {
        if self.n == 0 || other.n == 0 {
            return if self.n == 0 { other } else { self };
        }
        let n = self.n + other.n;
        let off = other.mean - self.mean;
        let part = other.n as f64 / n as f64;
        Self {
            n,
            mean: self.mean + off * part,
            squares: self.squares + other.squares + off * off * self.n as f64 * part,
        }
    }
}

// === impl Comparison ===

impl Comparison {
    /// Compares a group's mean with the others'.
    pub(crate) fn of(found: Moments, others: Moments) -> Self {
        let difference = found.mean - others.mean;
        let part = |of: Moments| of.variance() / (of.n.max(1)) as f64;
        let error = (part(found) + part(others)).sqrt().max(f64::MIN_POSITIVE);
        let too_early = 1.0 - normal((difference + MARGIN_SECS) / error);
        let too_late = normal((difference - MARGIN_SECS) / error);
        Self {
            n: found.n,
            mean: found.mean,
            difference,
            error,
            p: too_early.max(too_late),
            scarce: found.n.min(others.n) < PEOPLE_MIN,
        }
    }

    /// The 90 % interval of the difference.
    pub(crate) fn interval(&self) -> (f64, f64) {
        let half = Z * self.error;
        (self.difference - half, self.difference + half)
    }

    /// The verdict.
    pub(crate) fn shown(&self) -> Shown {
        if self.scarce || Z * self.error >= MARGIN_SECS {
            Shown::TooFew
        } else if self.p < LEVEL {
            Shown::Equivalent
        } else {
            Shown::Unproven
        }
    }

    /// Mean difference, its interval, p and people, for a reader.
    pub(crate) fn told(&self) -> String {
        let (from, to) = self.interval();
        format!(
            "{:+.3} s (90 % interval {from:+.3} to {to:+.3}), p = {:.2e}, n = {}",
            self.difference,
            self.p,
            crate::rush::group(self.n)
        )
    }
}

impl Shown {
    /// As in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Equivalent => "equivalent",
            Self::Unproven => "not shown",
            Self::TooFew => "too few to say",
        }
    }
}

/// The hypothesis and the rule, for a reader.
pub(crate) fn rule() -> String {
    format!(
        "Hypothesis to be rejected: a group's mean time of becoming admitted is {MARGIN_SECS} s or more from that of those who wait as \
         they are told. Equivalent: both one-sided tests (Welch, normal) reject it, each at the level {LEVEL}, which is the 90 % interval \
         of the difference inside ±{MARGIN_SECS} s. Where that interval would be too wide for equal means, there are too few to say."
    )
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

    fn shown(n: u32, shift: f64) -> Shown {
        Comparison::of(moments(n, shift), moments(1_000_000, 0.0)).shown()
    }

    #[test]
    fn a_second_is_told_from_none_and_little_data_from_much() {
        assert_eq!(shown(100_000, 0.0), Shown::Equivalent);
        assert_eq!(shown(100_000, 0.5), Shown::Equivalent);
        assert_eq!(shown(100_000, 1.1), Shown::Unproven);
        assert_eq!(shown(100_000, -1.1), Shown::Unproven);
        assert_eq!(shown(100, 0.0), Shown::TooFew);
        // Far apart, and too few all the same: no verdict either way.
        assert_eq!(shown(100, 5.0), Shown::TooFew);
    }

    #[test]
    fn the_floor_is_where_equal_means_begin_to_pass() {
        // Values 0 to 99: a deviation of 28.9 s, so that 1.645 errors are a second at 2,258 people.
        assert_eq!(shown(2_100, 0.0), Shown::TooFew);
        assert_eq!(shown(2_400, 0.0), Shown::Equivalent);
        let same = Moments {
            n: 29,
            mean: 3.0,
            squares: 0.0,
        };
        assert_eq!(
            Comparison::of(same, moments(1_000, 0.0)).shown(),
            Shown::TooFew
        );
        assert_eq!(Comparison::of(same, same).shown(), Shown::TooFew);
        assert_eq!(
            Comparison::of(Moments::default(), same).shown(),
            Shown::TooFew
        );
    }

    #[test]
    fn the_verdict_is_whether_the_interval_lies_inside_the_margin() {
        for shift in [
            -1.2, -0.9, -0.85, -0.84, -0.8, 0.0, 0.3, 0.84, 0.85, 0.9, 1.0,
        ] {
            let found = Comparison::of(moments(100_000, shift), moments(1_000_000, 0.0));
            let (from, to) = found.interval();
            let inside = -MARGIN_SECS < from && to < MARGIN_SECS;
            assert_eq!(
                found.shown() == Shown::Equivalent,
                inside,
                "{shift}: {found:?}"
            );
        }
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
