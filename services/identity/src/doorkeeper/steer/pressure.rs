//! How many people a region's back end can take: grows slowly while it shows that it can, halves on trouble.
//!
//! The rate is what inventories show. What gateways say is a brake on it and never more: the rate is not lost by it, and
//! when their trouble is over the brake is let go as slowly as a rate grows.

use std::time::Duration;

use domain::room::wait::Reason;

use super::{Figures, Settings, Tick, gateways};

/// A halving needs time to show; until then there is no other and no growth.
const SETTLE: Duration = Duration::from_secs(3);
/// Growth by compound interest, per second.
const GROWTH: f64 = 0.04;
/// Never far beyond what has really come: an unused rate proves nothing.
const AHEAD_OF_ARRIVALS: f64 = 1.5;
/// Growth needs this part of what was wanted to have come, and of those who came to have been committed.
const USED: f64 = 0.7;
/// Work for this long waiting in a region is trouble.
const BACKLOG: Duration = Duration::from_secs(2);
/// A rate that is braked more than this proves nothing: no growth.
const BRAKED: f64 = 0.5;
/// Never slower than this, in people a second: something must show that the trouble is over.
const LEAST: f64 = 0.5;

/// The rate of one region.
#[derive(Clone, Debug)]
pub(super) struct Pressure {
    /// People a second; 0 = not started.
    rate: f64,
    /// The part of the rate that gateways' reports leave; `gateways::LEAST` to 1.
    brake: f64,
    since_halving: Duration,
    silent: Duration,
    pub(super) why: Reason,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            rate: 0.0,
            brake: 1.0,
            since_halving: Duration::MAX,
            silent: Duration::ZERO,
            why: Reason::Presence,
        }
    }
}

// === impl Pressure ===

impl Pressure {
    /// Goes on from a rate.
    pub(super) fn start(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// The part of the rate that gateways' reports leave.
    pub(super) fn brake(&self) -> f64 {
        self.brake
    }

    /// Whether the last halving may still be felt.
    pub(super) fn halved_lately(&self) -> bool {
        self.since_halving < SETTLE * 10
    }

    /// People a second wanted now. `arriving` is how many come, `start` where a region begins.
    pub(super) fn next(
        &mut self,
        tick: &Tick,
        figures: Option<&Figures>,
        arriving: f64,
        start: f64,
        settings: &Settings,
    ) -> f64 {
        self.since_halving = self.since_halving.saturating_add(tick.followed);
        let settled = self.since_halving >= SETTLE;
        if self.rate <= 0.0 {
            self.rate = start;
        }
        self.silent = if figures.is_some() {
            Duration::ZERO
        } else {
            self.silent.saturating_add(tick.followed)
        };
        let say = gateways::weigh(&tick.gateways, settings);
        let growth = (1.0 + GROWTH).powf(tick.followed.as_secs_f64());
        let trouble = self.silent >= SETTLE
            || figures.is_some_and(|figures| self.region_trouble(figures, settings));
        if trouble && settled {
            self.rate = (self.rate / 2.0).max(LEAST.min(start));
            self.since_halving = Duration::ZERO;
        } else if self.brake > say.carried && settled {
            self.brake = (self.brake / 2.0).max(say.carried);
            self.since_halving = Duration::ZERO;
        } else if let Some(figures) = figures
            && settled
            && !trouble
            && say.growth
            && self.brake >= BRAKED
            && arriving >= self.rate * self.brake * USED
            && figures.commits_per_second >= arriving * USED
        {
            // As many would come if nothing braked.
            let unbraked = arriving / self.brake;
            let grown = self.rate * growth;
            self.rate = grown.min((unbraked * AHEAD_OF_ARRIVALS).max(self.rate));
        }
        if settled && !trouble && self.brake < say.carried {
            self.brake = (self.brake * growth).min(say.carried);
        }
        self.rate * self.brake
    }

    fn region_trouble(&self, figures: &Figures, settings: &Settings) -> bool {
        let backlog = (self.rate * BACKLOG.as_secs_f64()).max(10.0);
        figures.latency > settings.latency_max
            || figures.queued > settings.queued_max
            || figures.unserved as f64 > backlog
    }
}
