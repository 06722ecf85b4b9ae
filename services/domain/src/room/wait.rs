//! What people who wait are told: how many stand before them, how long it may take, and when to ask again.
//!
//! Invariant: the latest time told for a person rises from one room version to a later one only with a reason whose
//! version lies between them. Source: design of the room, section 5, "Clients".

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Frontier, Phase, RegionState, Seen, admitted};
use crate::ids::RegionId;
use crate::place::Place;
use crate::time::Timestamp;

/// While the line moves nobody asks more often than this.
pub const POLL_MIN: Duration = Duration::from_secs(1);
/// People ask again after this part of their waiting time: `c` in the bound `λc(1 + ln(T/c))` on polls.
pub const POLLS_A_WAIT: u32 = 3;
/// While nothing moves nobody asks more often than this.
const STANDING_MIN: Duration = Duration::from_secs(10);
/// Where nothing is left, those in front still ask this often: places that come back shall find them.
const EXHAUSTED_MIN: Duration = Duration::from_secs(5);
/// Nothing will come any more.
const ENDED: Duration = Duration::from_secs(600);
/// The range told, around the time by the promised speed, in percent.
const RANGE_PERCENT: (u32, u32) = (80, 130);
/// A promise is kept as long as the line's speed is at most this far from it, in percent: the range covers it.
const KEPT_PERCENT: u128 = 115;
/// A wait beyond a year is no figure any more.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Why a waiting time is unknown, or rose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The doors are still closed.
    NotOpen,
    /// The person's bucket is still open: the order in it is drawn when it closes.
    BucketOpen,
    /// The back end takes fewer people than it did.
    Slowed,
    /// More of the people whose turn it is come than was assumed.
    Presence,
    /// An operator set a lower speed.
    Ceiling,
    /// What is left may be gone before.
    Supply,
    /// Nothing is left; places may come back.
    Exhausted,
    /// An operator stopped the room.
    Paused,
    /// The room is over.
    Ended,
}

/// The speed of a line that waiting times are told by. It lags the real one, so that times do not jump about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// Ordinals per 1,000 seconds; 0 = nothing promised yet.
    pub per_kilosecond: u64,
    /// The last time it was lowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed: Option<Slowed>,
}

/// A promise was lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slowed {
    /// Why.
    pub reason: Reason,
    /// In which version of the room.
    pub version: u64,
}

/// How many polls the gateways shall see while nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// All people together, per second; at least 1.
    pub polls_per_second: u64,
    /// People expected, for as long as nobody has counted them.
    pub expected_people: u64,
}

/// What a region's line looks like to those who wait, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The room's version.
    pub version: u64,
    /// What the room is doing.
    pub phase: Phase,
    /// The region's line.
    pub line: &'a Frontier,
    /// The region's frontier now.
    pub frontier: u64,
    /// People in closed buckets.
    pub people: u64,
    /// How many polls there may be.
    pub pace: Pace,
    /// When the doors are announced to open, if they are.
    pub opens_at: Option<Timestamp>,
}

/// One who waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The place in line; `None` while the bucket is open or nothing is drawn.
    pub ordinal: Option<u64>,
    /// The person's own part of every spread: see [`own`].
    pub own: u64,
}

/// From when to when it may be one's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eta {
    /// At the earliest.
    pub from: Duration,
    /// At the latest; `None` where nobody can say.
    pub to: Option<Duration>,
}

/// What one who waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The predicate's word.
    pub admitted: bool,
    /// People before this one who are not admitted yet (of closed buckets).
    pub position: u64,
    /// Waiting time; `None` where nobody can say.
    pub eta: Option<Eta>,
    /// Why there is no ETA, or why it rose last.
    pub reason: Option<Reason>,
    /// The room version the reason is from: an answer computed from an earlier one may have been lower.
    pub reason_version: u64,
    /// When to ask again.
    pub poll_after: Duration,
}

// === impl Promise ===

impl Promise {
    /// What to promise when the line moves by `per_kilosecond`: kept while it is close, raised freely, lowered with a
    /// reason. A line that stands still for another reason (`per_kilosecond` 0) keeps its promise.
    #[must_use]
    pub fn next(&self, per_kilosecond: u64, why: Reason, version: u64) -> Self {
        let (now, promised) = (u128::from(per_kilosecond), u128::from(self.per_kilosecond));
        let raised = now * 100 > promised * KEPT_PERCENT;
        let lowered = promised * 100 > now * KEPT_PERCENT;
        let slowed = if lowered && !raised {
            Some(Slowed {
                reason: why,
                version,
            })
        } else {
            self.slowed
        };
        if per_kilosecond == 0 || !(raised || lowered) {
            return self.clone();
        }
        Self {
            per_kilosecond,
            slowed,
        }
    }
}

// === impl View ===

impl<'a> View<'a> {
    /// The view of a region through what this process has seen, `elapsed` after the document was received; `None` for a
    /// region that is not in the room.
    #[must_use]
    pub fn of(
        seen: &'a Seen,
        region: &RegionId,
        elapsed: Duration,
        pace: Pace,
        opens_at: Option<Timestamp>,
    ) -> Option<Self> {
        let room = seen.room();
        Some(Self {
            version: room.version,
            phase: room.phase,
            line: room.regions.get(region)?,
            frontier: seen.frontier(region, elapsed)?,
            people: seen.buckets().people().max(room.draw.n0.unwrap_or(0)),
            pace,
            opens_at,
        })
    }

    /// What `who` is told at `now`.
    #[must_use]
    pub fn tell(&self, who: &Waiter, now: Timestamp) -> Waiting {
        if admitted(self.phase, who.ordinal, Some(self.frontier)).is_ok() {
            return Waiting {
                admitted: true,
                position: 0,
                eta: Some(Eta {
                    from: Duration::ZERO,
                    to: Some(Duration::ZERO),
                }),
                reason: None,
                reason_version: self.version,
                poll_after: POLL_MIN,
            };
        }
        let position = who
            .ordinal
            .unwrap_or(self.people)
            .saturating_sub(self.frontier);
        let (eta, reason, reason_version) = self.eta(who, position);
        Waiting {
            admitted: false,
            position,
            eta,
            reason,
            reason_version,
            poll_after: self.poll_after(who, position, now),
        }
    }

    fn eta(&self, who: &Waiter, position: u64) -> (Option<Eta>, Option<Reason>, u64) {
        let none = |reason| (None, Some(reason), self.version);
        match self.phase {
            Phase::Lobby | Phase::Frozen | Phase::Drawn => return none(Reason::NotOpen),
            Phase::Paused => return none(Reason::Paused),
            Phase::Ended => return none(Reason::Ended),
            Phase::Open | Phase::Exhausted => {}
        }
        if self.line.state == RegionState::Exhausted {
            return none(Reason::Exhausted);
        }
        let promise = &self.line.promise;
        if promise.per_kilosecond == 0 {
            return none(
                promise
                    .slowed
                    .map_or(Reason::NotOpen, |slowed| slowed.reason),
            );
        }
        let by_promise = time_for(position, promise.per_kilosecond);
        let percent = |percent| by_promise * percent / 100;
        let from = percent(RANGE_PERCENT.0);
        let open = |reason| (Some(Eta { from, to: None }), Some(reason), self.version);
        match who.ordinal {
            None => open(Reason::BucketOpen),
            Some(ordinal) if ordinal >= self.line.f_end => open(Reason::Supply),
            Some(_) => {
                let to = Some(percent(RANGE_PERCENT.1));
                let slowed = promise.slowed;
                let version = slowed.map_or(0, |slowed| slowed.version);
                (
                    Some(Eta { from, to }),
                    slowed.map(|slowed| slowed.reason),
                    version,
                )
            }
        }
    }

    fn poll_after(&self, who: &Waiter, position: u64, now: Timestamp) -> Duration {
        let speed = self
            .line
            .per_kilosecond
            .max(self.line.promise.per_kilosecond);
        let third = || time_for(position, speed) / POLLS_A_WAIT;
        match self.phase {
            Phase::Open | Phase::Exhausted if speed > 0 && self.line.state == RegionState::Open => {
                jittered(third().max(POLL_MIN), who.own, now)
            }
            Phase::Open | Phase::Exhausted if speed > 0 => {
                let whole = time_for(position, speed);
                jittered(whole.max(EXHAUSTED_MIN), who.own, now)
            }
            Phase::Open | Phase::Exhausted | Phase::Paused => self.spread(who, STANDING_MIN, now),
            Phase::Lobby | Phase::Frozen => self.spread(who, POLL_MIN, now),
            Phase::Drawn => {
                let spread = self.spread(who, POLL_MIN, now);
                let Some(opens_at) = self.opens_at.filter(|_| speed > 0 && who.ordinal.is_some())
                else {
                    return spread;
                };
                // The order is known: who stands in front is there when the doors open, the others as if they were open.
                let until = opens_at.since(now);
                if spread < until {
                    return spread;
                }
                until + jittered(third().max(POLL_MIN), who.own, now)
            }
            Phase::Ended => jittered(ENDED, who.own, now),
        }
    }

    /// A moment of each person's own in a round that is long enough for everybody.
    fn spread(&self, who: &Waiter, least: Duration, now: Timestamp) -> Duration {
        let people = self.people.max(self.pace.expected_people);
        let round = Duration::from_micros(
            people.saturating_mul(1_000_000) / self.pace.polls_per_second.max(1),
        );
        let round = micros(round.clamp(least, LONGEST));
        let mine = mixed(who.own) % round;
        let at = u64::try_from(now.as_micros().max(0)).unwrap_or(0) % round;
        let after = Duration::from_micros((mine + round - at) % round);
        if after < POLL_MIN {
            after + Duration::from_micros(round)
        } else {
            after
        }
    }
}

/// A person's own number, the same at each asking: nobody gains by asking again.
#[must_use]
pub fn own(place: &Place) -> u64 {
    let mut last = [0u8; 8];
    last.copy_from_slice(&place.ticket.0[8..]);
    u64::from_be_bytes(last)
}

/// How long `ordinals` take at a speed; at most a year.
fn time_for(ordinals: u64, per_kilosecond: u64) -> Duration {
    if per_kilosecond == 0 {
        return LONGEST;
    }
    // Milliseconds in 64 bits where they fit: this runs hundreds of millions of times in a simulation.
    let ms = ordinals.checked_mul(1_000_000).map_or_else(
        || u128::from(ordinals) * 1_000_000 / u128::from(per_kilosecond),
        |scaled| u128::from(scaled / per_kilosecond),
    );
    u64::try_from(ms)
        .map_or(LONGEST, Duration::from_millis)
        .min(LONGEST)
}

/// ±10 % by person and second.
fn jittered(wait: Duration, own: u64, now: Timestamp) -> Duration {
    let slice = u64::try_from(now.as_secs()).unwrap_or(0);
    let part = mixed(own ^ slice.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 54;
    // 900 to 1,100 thousandths.
    let thousandths = 900 + part * 201 / 1_024;
    Duration::from_micros(micros(wait) / 1_000 * thousandths)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Spreads the bits of a number (SplitMix64's finisher); no secret depends on it.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
