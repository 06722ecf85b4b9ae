//! How many of those whose turn it is really come.
//!
//! Two windows: the long one is quiet enough not to shake the line by itself, the short one notices a change.

use std::time::Duration;

/// Between a turn and its person's first call lies about one poll.
const LAG: Duration = Duration::from_millis(1_200);
const SHORT: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(60);
/// What was assumed weighs as much as so many people.
const PRIOR: f64 = 100.0;
/// A region's own figures count against everybody's with this weight, in people.
const OTHERS: f64 = 400.0;
/// The windows disagree when they are this many standard deviations apart.
const DISAGREE: f64 = 4.0;
/// Fewer admitted people than this in the short window say nothing.
const LEAST: f64 = 20.0;
/// A fiftieth of the people at least; above 1 when people come back who were admitted long ago.
const BOUNDS: (f64, f64) = (0.02, 2.0);

/// A measured share.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    on_the_way: f64,
    short: Window,
    long: Window,
    prior: f64,
    prior_weight: f64,
    known_for: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    swept: f64,
    came: f64,
}

impl Window {
    fn note(&mut self, kept: f64, swept: f64, came: f64) {
        self.swept = self.swept * kept + swept;
        self.came = self.came * kept + came;
    }
}

// === impl Presence ===

impl Presence {
    pub(super) fn new(assumed: f64) -> Self {
        Self {
            on_the_way: 0.0,
            short: Window::default(),
            long: Window::default(),
            prior: assumed.clamp(BOUNDS.0, BOUNDS.1),
            prior_weight: PRIOR,
            known_for: Duration::ZERO,
        }
    }

    /// `swept` people became admitted in the last `elapsed`, `came` came.
    pub(super) fn note(&mut self, elapsed: Duration, swept: f64, came: u64) {
        let kept = |window: Duration| (-elapsed.as_secs_f64() / window.as_secs_f64()).exp();
        self.on_the_way += swept;
        let due = self.on_the_way * (1.0 - kept(LAG));
        self.on_the_way -= due;
        let came = came as f64;
        self.short.note(kept(SHORT), due, came);
        self.long.note(kept(LONG), due, came);
        self.prior_weight *= kept(LONG);
        self.known_for = self.known_for.saturating_add(elapsed);
        if self.short.swept < LEAST {
            return;
        }
        let then = self.own();
        let deviation = DISAGREE * (then / self.short.swept).sqrt();
        let now = self.nearest(&self.short, 0.0, then);
        if (now - then).abs() > deviation {
            self.long = self.short;
            self.prior_weight = 0.0;
        }
    }

    /// The share here, where own figures are few drawn towards everybody's.
    pub(super) fn with(&self, all: &Self) -> f64 {
        self.nearest(&self.long, OTHERS, all.own())
    }

    /// People who came per second, lately.
    pub(super) fn arriving(&self) -> f64 {
        let window = SHORT.as_secs_f64();
        let filled = 1.0 - (-self.known_for.as_secs_f64() / window).exp();
        self.short.came / (window * filled).max(1.0)
    }

    fn own(&self) -> f64 {
        self.nearest(&self.long, self.prior_weight, self.prior)
    }

    /// The share nearest to `assumed` that a window allows, where `assumed` itself counts as `weight` people. Those on
    /// their way may as well have come already: before that is told apart, nothing shakes the line.
    fn nearest(&self, window: &Window, weight: f64, assumed: f64) -> f64 {
        let came = window.came + weight * assumed;
        let (fewest, most) = (
            window.swept + weight,
            window.swept + self.on_the_way + weight,
        );
        if fewest < 1.0 {
            return assumed;
        }
        assumed
            .clamp(came / most, came / fewest)
            .clamp(BOUNDS.0, BOUNDS.1)
    }
}
