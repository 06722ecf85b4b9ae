//! The limits of all back ends of one class, each fed by the answers of its own.
//!
//! Invariants: every place is given back; a call that was let in once is never refused for load later, because it may
//! have been decided already.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use domain::spread;
use tokio::time::Instant;

use super::gradient::{Bounds, Gradient, Window};

/// A window is at least so long, and has at least so many answers: fewer say little.
const WINDOW_LEAST: Duration = Duration::from_millis(100);
const ANSWERS_LEAST: u32 = 16;

/// The back ends of one class. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BackEnds(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    known: Mutex<Vec<Weak<Limiter>>>,
    /// Sum of the limits of all that are known.
    sum: AtomicI64,
    count: AtomicU32,
    /// Answers by which back ends refused for load.
    refused: AtomicU64,
    times: [AtomicU64; spread::CLASSES],
}

/// One back end's limit. Whoever drops the last of it has forgotten the back end.
#[derive(Debug)]
pub(crate) struct Limiter {
    shared: Arc<Shared>,
    limit: AtomicU32,
    in_flight: AtomicU32,
    /// The most at once since the window began.
    peak: AtomicU32,
    learning: Mutex<Learning>,
}

#[derive(Debug)]
struct Learning {
    gradient: Gradient,
    since: Instant,
    answers: u32,
    took: Duration,
    refused: u32,
}

/// A place among the calls that are with a back end; given back when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place {
    limiter: Arc<Limiter>,
    since: Instant,
    answered: bool,
}

/// What an answer says about the back end's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It decided something: how long that took counts.
    Decided,
    /// It refused for load.
    Refused,
    /// Nothing, such as "not mine" or a request that was wrong.
    Nothing,
}

/// Figures over all back ends of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) least: u32,
    pub(crate) most: u32,
    pub(crate) sum: u64,
}

// === impl BackEnds ===

impl BackEnds {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            bounds,
            known: Mutex::default(),
            sum: AtomicI64::new(0),
            count: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            times: Default::default(),
        }))
    }

    /// A limit for a back end that was just heard of.
    pub(crate) fn limiter(&self) -> Arc<Limiter> {
        let gradient = Gradient::new(self.0.bounds);
        let limiter = Arc::new(Limiter {
            shared: Arc::clone(&self.0),
            limit: AtomicU32::new(gradient.limit()),
            in_flight: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            learning: Mutex::new(Learning {
                gradient,
                since: Instant::now(),
                answers: 0,
                took: Duration::ZERO,
                refused: 0,
            }),
        });
        self.0
            .sum
            .fetch_add(i64::from(gradient.limit()), Ordering::Relaxed);
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let mut known = self.0.known();
        known.retain(|one| one.strong_count() > 0);
        known.push(Arc::downgrade(&limiter));
        limiter
    }

    /// What all of them take together; no bound while none is known.
    pub(crate) fn bound(&self) -> u32 {
        if self.0.count.load(Ordering::Relaxed) == 0 {
            return u32::MAX;
        }
        let sum = self.0.sum.load(Ordering::Relaxed).max(1);
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Answers so far by which back ends refused for load.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Answers so far that decided something, by the class of time they took.
    pub(crate) fn times(&self) -> Vec<u64> {
        let times = self.0.times.iter();
        times.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Limits and calls in flight; `None` while no back end is known.
    pub(crate) fn spreads(&self) -> Option<(Spread, Spread)> {
        let known: Vec<Arc<Limiter>> = self.0.known().iter().filter_map(Weak::upgrade).collect();
        let spread = |of: fn(&Limiter) -> &AtomicU32| {
            let values = || known.iter().map(|one| of(one).load(Ordering::Relaxed));
            Some(Spread {
                least: values().min()?,
                most: values().max()?,
                sum: values().map(u64::from).sum(),
            })
        };
        spread(|one| &one.limit).zip(spread(|one| &one.in_flight))
    }
}

// === impl Shared ===

impl Shared {
    fn known(&self) -> MutexGuard<'_, Vec<Weak<Limiter>>> {
        // A list of pointers: a panic elsewhere leaves none half made.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Limiter ===

impl Limiter {
    /// A place, or none. `again`: the call was let in before, here or elsewhere, and is not refused now.
    pub(crate) fn enter(self: &Arc<Self>, again: bool) -> Option<Place> {
        let already = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if !again && already >= self.limit.load(Ordering::Relaxed) {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.peak
            .fetch_max(already.saturating_add(1), Ordering::Relaxed);
        Some(Place {
            limiter: Arc::clone(self),
            since: Instant::now(),
            answered: false,
        })
    }

    fn heard(&self, heard: Heard, took: Duration, now: Instant) {
        match heard {
            Heard::Nothing => return,
            Heard::Refused => self.shared.refused.fetch_add(1, Ordering::Relaxed),
            Heard::Decided => {
                self.shared.times[spread::class(took)].fetch_add(1, Ordering::Relaxed)
            }
        };
        // Counters of one back end: a panic elsewhere costs a sample.
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if heard == Heard::Refused {
            learning.refused += 1;
        } else {
            learning.answers += 1;
            learning.took += took;
        }
        let enough = learning.answers + learning.refused >= ANSWERS_LEAST;
        let lasted = now.saturating_duration_since(learning.since);
        if enough && lasted >= WINDOW_LEAST {
            self.end_window(&mut learning, now, lasted);
        }
    }

    fn end_window(&self, learning: &mut Learning, now: Instant, lasted: Duration) {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let window = Window {
            lasted,
            answers: learning.answers,
            mean: learning.took / learning.answers.max(1),
            refused: learning.refused,
            peak: self.peak.swap(in_flight, Ordering::Relaxed).max(in_flight),
        };
        let gradient = learning.gradient.next(&window);
        *learning = Learning {
            gradient,
            since: now,
            answers: 0,
            took: Duration::ZERO,
            refused: 0,
        };
        let before = self.limit.swap(gradient.limit(), Ordering::Relaxed);
        let change = i64::from(gradient.limit()) - i64::from(before);
        self.shared.sum.fetch_add(change, Ordering::Relaxed);
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        let limit = i64::from(self.limit.load(Ordering::Relaxed));
        self.shared.sum.fetch_sub(limit, Ordering::Relaxed);
        self.shared.count.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Place ===

impl Place {
    /// Notes the back end's answer, asked at `began`, and gives the place back.
    pub(crate) fn answered(mut self, heard: Heard, began: Instant) {
        let now = Instant::now();
        self.answered = true;
        self.limiter
            .heard(heard, now.saturating_duration_since(began), now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Whoever gave up waiting waited at least so long: without them a back end that answers everybody too late would
        // never be heard to be late. Broken streams and take-overs are over before the target.
        let waited = self.since.elapsed();
        if !self.answered && waited > self.limiter.shared.bounds.target {
            self.limiter.heard(Heard::Decided, waited, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        floor: 2,
        ceiling: 32,
        calm: Duration::from_millis(10),
        target: Duration::from_millis(100),
    };

    /// As many calls as there is room for, all answered after so long, long after all that was before.
    fn round(limiter: &Arc<Limiter>, heard: Heard, took: Duration) -> usize {
        let places: Vec<_> = std::iter::from_fn(|| limiter.enter(false))
            .take(64)
            .collect();
        let before = limiter.learning.lock().expect("not poisoned").since;
        for place in &places {
            place
                .limiter
                .heard(heard, took, before + WINDOW_LEAST + took);
        }
        places.len()
    }

    #[test]
    fn late_answers_shrink_one_back_end_and_not_the_other() {
        let all = BackEnds::new(BOUNDS);
        assert_eq!(all.bound(), u32::MAX, "nobody known, nobody bounds");
        let (one, other) = (all.limiter(), all.limiter());
        assert_eq!(all.bound(), 64);
        for _ in 0..40 {
            round(&one, Heard::Decided, Duration::from_secs(1));
            round(&other, Heard::Decided, Duration::from_millis(5));
        }
        assert!(round(&one, Heard::Nothing, Duration::ZERO) < 16);
        assert_eq!(round(&other, Heard::Nothing, Duration::ZERO), 32);
        let (limits, in_flight) = all.spreads().expect("two");
        assert_eq!(limits.most, 32);
        assert_eq!(limits.sum, u64::from(limits.least) + 32);
        assert_eq!(u64::from(all.bound()), limits.sum);
        assert_eq!(in_flight, Spread::default(), "all places were given back");
        drop(one);
        assert_eq!(all.bound(), 32, "forgotten");
        drop(other);
        assert_eq!((all.bound(), all.spreads()), (u32::MAX, None));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_gave_up_waiting_are_heard_and_short_waits_say_nothing() {
        let all = BackEnds::new(BOUNDS);
        let one = all.limiter();
        let crowd = || -> Vec<_> { std::iter::from_fn(|| one.enter(false)).take(64).collect() };
        let early = crowd();
        tokio::time::advance(BOUNDS.target).await;
        drop(early);
        assert_eq!(all.bound(), 32, "a stream that broke is no load");
        for _ in 0..20 {
            let late = crowd();
            tokio::time::advance(BOUNDS.target * 5).await;
            drop(late);
        }
        assert!(all.bound() < 16, "{}", all.bound());
    }

    #[test]
    fn what_says_nothing_about_load_changes_nothing() {
        let all = BackEnds::new(BOUNDS);
        let one = all.limiter();
        for _ in 0..40 {
            round(&one, Heard::Nothing, Duration::from_secs(9));
        }
        assert_eq!(all.bound(), 32);
        assert!(all.times().iter().all(|count| *count == 0));
        round(&one, Heard::Refused, Duration::from_millis(200));
        assert_eq!(all.refused(), 32);
        assert!(all.bound() < 32, "the back end itself said so");
    }

    #[test]
    fn who_was_let_in_once_is_let_in_again() {
        let all = BackEnds::new(BOUNDS);
        let one = all.limiter();
        let places: Vec<_> = std::iter::from_fn(|| one.enter(false)).take(64).collect();
        assert_eq!(places.len(), 32);
        assert!(one.enter(false).is_none());
        assert!(one.enter(true).is_some());
    }
}
