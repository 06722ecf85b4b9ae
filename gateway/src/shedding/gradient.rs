//! How many calls one back end may have at once: found from how long its answers take. Pure; time comes in windows.
//!
//! The idea is Gradient2 of Netflix's `concurrency-limits` (`Gradient2Limit`): the latency of now against the latency of
//! the long run says whether calls queue. The long run is a slow average and not the smallest latency ever seen, as in
//! Vegas or Envoy: against a minimum, a database that groups commits always looks loaded and sheds for nothing. What is
//! different here, and why:
//!
//! - *Calm*: answers below `calm` are early enough for any person, so they are never a reason to shrink, however much
//!   slower than usual they are. A disk's hiccup costs nobody their call.
//! - *Target*: answers above it are late for everybody, so the long run is not believed beyond it. Without this the
//!   average would follow a queue that stands for minutes, and the queue would grow with it.
//! - *Reach*: no more calls than the back end lately answered in the target's time, and a thousand that are always tried.
//!   By Little's law whoever is let in is then answered within the target, also in an overload's first second, before any
//!   latency has been seen. A back end that stands still for a moment (a take-over) keeps its reach, so that what it
//!   usually does is waited for and not refused; one that proves faster gets more in its next window.
//! - *Half use*: as in Gradient2 a limit of which less than half is used neither grows nor shrinks; only trouble beyond
//!   doubt (late answers, refusals of the back end itself) takes from it, at first down to twice what is in use.
//! - *Rest*: after half a minute of good answers a limit is at its reach again: what was learned in the night's backup says
//!   nothing about the opening at eight.

use std::time::Duration;

/// Half as slow again as in the long run is no sign of a queue.
const TOLERANCE: f64 = 1.5;
/// How much of a step is taken in a window.
const SMOOTHING: f64 = 0.2;
/// The steepest gradient: with the smoothing, a limit loses at most a tenth in a window.
const STEEPEST: f64 = 0.5;
/// Calls that may queue without being a queue, beside a tenth of the limit: what lets a limit grow again.
const ALLOWANCE: f64 = 4.0;
const ALLOWANCE_PART: f64 = 0.1;
/// Windows that the long run is an average of: about a minute under load.
const LONG_RUN: f64 = 600.0;
/// So much slower than now, the long run tells of something that is over.
const OUTDATED: f64 = 2.0;
const FORGOTTEN_PER_WINDOW: f64 = 0.95;
/// This part of the answers refused by the back end for load is trouble beyond doubt.
const REFUSED: f64 = 0.01;
/// So much good time brings the whole reach back.
const REST: Duration = Duration::from_secs(30);
/// What is tried before anything is known, in calls.
const TRIED: f64 = 1_024.0;
/// The best rate of answers is half forgotten in this time.
const RATE_HALF_LIFE: Duration = Duration::from_secs(60);

/// Between what a limit moves, in calls, and which answers are early and late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Never fewer; at least 1.
    pub floor: u32,
    /// Never more; at least the floor.
    pub ceiling: u32,
    /// Answers below this are no reason to shrink.
    pub calm: Duration,
    /// Answers above this are trouble; at least `calm`.
    pub target: Duration,
}

/// What a back end did for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Since the window before ended.
    pub lasted: Duration,
    /// Answers that decided something.
    pub answers: u32,
    /// How long those took on average.
    pub mean: Duration,
    /// Answers by which the back end itself refused for load.
    pub refused: u32,
    /// The most calls that it had at once.
    pub peak: u32,
}

/// A limit that adapts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    bounds: Bounds,
    limit: f64,
    /// The long run's latency in seconds, and how many windows it rests on.
    long: f64,
    windows: f64,
    /// The best rate of answers lately, a second.
    rate: f64,
    /// How long answers have been good.
    good_for: Duration,
}

// === impl Gradient ===

impl Gradient {
    /// Nothing is known.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let mut new = Self {
            bounds,
            limit: 0.0,
            long: 0.0,
            windows: 0.0,
            rate: 0.0,
            good_for: Duration::ZERO,
        };
        new.limit = new.reach();
        new
    }

    /// How many calls may be with the back end at once.
    #[must_use]
    pub fn limit(&self) -> u32 {
        // Between the bounds, which are of this type.
        self.limit as u32
    }

    /// The limit after one more window.
    #[must_use]
    pub fn next(&self, window: &Window) -> Self {
        let heard = f64::from(window.answers) + f64::from(window.refused);
        if heard == 0.0 {
            return *self;
        }
        let mut next = *self;
        let refused = f64::from(window.refused) / heard;
        let late = window.answers > 0 && window.mean > self.bounds.target;
        let gradient = self
            .of_latency(window)
            .min(1.0 - refused * (1.0 - STEEPEST));
        next.learn(window);
        next.good_for = if gradient < 1.0 {
            Duration::ZERO
        } else {
            self.good_for.saturating_add(window.lasted)
        };
        let twice_used = 2.0 * f64::from(window.peak);
        let at_reach = self.limit >= self.reach();
        if at_reach && gradient >= 1.0 {
            // Good news opens the way at once: an opening does not wait for small steps.
            next.limit = next.reach();
        } else if twice_used >= self.limit {
            let allowance = ALLOWANCE + self.limit * ALLOWANCE_PART;
            let aim = gradient * self.limit + allowance;
            next.limit += SMOOTHING * (aim - self.limit);
        } else if late || refused > REFUSED {
            next.limit -= SMOOTHING * (1.0 - gradient) * self.limit;
            next.limit = next.limit.max(twice_used);
        }
        if next.good_for >= REST {
            next.limit = next.reach();
        }
        next.limit = next.limit.clamp(f64::from(self.bounds.floor), next.reach());
        next
    }

    /// The most that the limit may be now.
    fn reach(&self) -> f64 {
        let in_time = self.rate * self.bounds.target.as_secs_f64();
        let (floor, ceiling) = (self.bounds.floor, self.bounds.ceiling);
        in_time
            .max(TRIED)
            .clamp(f64::from(floor), f64::from(ceiling))
    }

    /// 1 while nothing queues, less the longer answers take beyond what is tolerated.
    fn of_latency(&self, window: &Window) -> f64 {
        if window.answers == 0 || window.mean <= self.bounds.calm {
            return 1.0;
        }
        let long = if self.windows == 0.0 {
            window.mean.as_secs_f64()
        } else {
            self.long
        };
        let tolerated = (TOLERANCE * long)
            .max(self.bounds.calm.as_secs_f64())
            .min(self.bounds.target.as_secs_f64());
        (tolerated / window.mean.as_secs_f64()).clamp(STEEPEST, 1.0)
    }

    fn learn(&mut self, window: &Window) {
        let lasted = window.lasted.as_secs_f64();
        self.rate *= 0.5_f64.powf(lasted / RATE_HALF_LIFE.as_secs_f64());
        if window.answers == 0 {
            return;
        }
        if lasted > 0.0 {
            self.rate = self.rate.max(f64::from(window.answers) / lasted);
        }
        let short = window.mean.min(self.bounds.target).as_secs_f64();
        self.windows = (self.windows + 1.0).min(LONG_RUN);
        // The plain average at first, so that the first window is not believed for a minute.
        self.long += (short - self.long) / self.windows;
        if self.long > OUTDATED * short {
            self.long *= FORGOTTEN_PER_WINDOW;
        }
    }
}

#[cfg(test)]
mod tests;
