//! Says no early and cheaply when more comes than can be answered in time.
//!
//! Two doors, one behind the other. The gate of a class is passed before a message is read: a refusal there allocates
//! next to nothing. The limit of a back end (`gradient`) is met where a call is handed to it, and adapts to how long its
//! answers take; what all of them take together narrows the class's gate, so that nearly all refusals are early ones.
//!
//! Invariant: what runs at once is bounded for each class, by configuration at least.

mod back_ends;
mod gradient;
mod layer;
mod limit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use domain::Refusal;
use proto::Method;
use proto::status::Refused;

pub(crate) use back_ends::{BackEnds, Heard, Limiter, Place, Spread};
pub use gradient::{Bounds, Gradient, Window};
pub use layer::{SheddingLayer, SheddingService};
pub use limit::Limit;

/// Those turned away together must not come back together: 1 to 3 s in steps.
const RETURN_AFTER_MS: [u64; 8] = [1_000, 1_300, 1_600, 1_900, 2_200, 2_500, 2_800, 3_000];

/// What competes for the same resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Goes to an inventory.
    Commands,
    /// Goes to identity.
    Permits,
    /// Is answered from memory.
    Reads,
}

/// The gates of all classes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gates(Arc<[Gate; 3]>);

/// One class's door.
#[derive(Debug)]
struct Gate {
    limit: Limit,
    /// None is ever known where answers come from memory.
    back_ends: BackEnds,
    calls: AtomicU64,
    in_flight: AtomicU32,
    age_us: AtomicU64,
    shed: AtomicU64,
}

/// What a class had to do, since the start and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Calls that came.
    pub(crate) calls: u64,
    /// Those refused for load, here or by a back end.
    pub(crate) shed: u64,
    /// Calls being served.
    pub(crate) in_flight: u32,
    /// How many may be served at once now.
    pub(crate) in_flight_max: u32,
    /// Answers of back ends that decided something, by `domain::spread`.
    pub(crate) answer_times: Vec<u64>,
}

/// A place among those that are served now; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Seat {
    gates: Gates,
    class: Class,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Commands, Self::Permits, Self::Reads];

    /// The class of a method.
    #[must_use]
    pub const fn of(method: Method) -> Self {
        match method {
            Method::HoldSlots
            | Method::ConfirmHold
            | Method::ReleaseHold
            | Method::Book
            | Method::MoveBooking
            | Method::CancelBooking
            | Method::GetBooking
            | Method::DeliverStock
            | Method::RecordWastage
            | Method::SetWalkIns
            | Method::RecordWalkIn
            | Method::OpenSlots
            | Method::ResizeSlot
            | Method::CloseSlots
            | Method::ListAppointments
            | Method::CheckIn
            | Method::RecordDoseGiven
            | Method::RecordNoShow
            | Method::OpenIncident
            | Method::PreviewPlan
            | Method::ApplyPlan
            | Method::GetIncident
            | Method::ListIncidentLines
            | Method::JoinLeftovers
            | Method::LeaveLeftovers
            | Method::ListLeftoverOffers
            | Method::AnswerLeftoverOffer
            | Method::OfferLeftovers
            | Method::CloseLeftovers
            | Method::ListLeftovers
            | Method::GetLeftovers => Self::Commands,
            Method::IssuePermit | Method::ChangeRegion => Self::Permits,
            Method::GetRoom
            | Method::GetPlace
            | Method::WatchRoom
            | Method::GetDraw
            | Method::ListTickets
            | Method::GetInclusionProof
            | Method::ListRoomVersions
            | Method::ListClinics
            | Method::ListSlots
            | Method::WatchAvailability
            | Method::QueryInventory
            | Method::WatchInventory
            | Method::GetSupply => Self::Reads,
        }
    }

    /// Its label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Permits => "permits",
            Self::Reads => "reads",
        }
    }
}

impl Gates {
    /// Gates with these limits; `back_end` bounds what each inventory and each member of identity gets.
    #[must_use]
    pub fn new(commands: Limit, permits: Limit, reads: Limit, back_end: Bounds) -> Self {
        let gate = |limit| Gate {
            limit,
            back_ends: BackEnds::new(back_end),
            calls: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            age_us: AtomicU64::new(0),
            shed: AtomicU64::new(0),
        };
        Self(Arc::new([gate(commands), gate(permits), gate(reads)]))
    }

    /// The back ends of a class.
    pub(crate) fn back_ends(&self, class: Class) -> &BackEnds {
        &self.gate(class).back_ends
    }

    /// A seat, or none: then the caller is told when to return.
    pub fn enter(&self, class: Class) -> Option<Seat> {
        let gate = self.gate(class);
        gate.calls.fetch_add(1, Ordering::Relaxed);
        let already = gate.in_flight.fetch_add(1, Ordering::Relaxed);
        if already < gate.bound() {
            return Some(Seat {
                gates: self.clone(),
                class,
            });
        }
        gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        gate.shed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Refuses a call of the class whose back end has enough to do.
    pub(crate) fn turn_away(&self, class: Class) -> Refused {
        self.gate(class).shed.fetch_add(1, Ordering::Relaxed);
        let after = RETURN_AFTER_MS[rand::random_range(0..RETURN_AFTER_MS.len())];
        Refused::from(Refusal::Overloaded).retry_in(Duration::from_millis(after))
    }

    /// What the class had to do.
    pub(crate) fn load(&self, class: Class) -> Load {
        let gate = self.gate(class);
        let shed = self.shed(class) + gate.back_ends.refused();
        Load {
            // A call that back ends refused more than once is one call; no more are shed than came.
            calls: gate.calls.load(Ordering::Relaxed).max(shed),
            shed,
            in_flight: self.in_flight(class),
            in_flight_max: gate.bound(),
            answer_times: gate.back_ends.times(),
        }
    }

    /// Notes how long something of the class waited for its answer.
    ///
    /// A moving average; two that note at once may lose one of both, which changes nothing.
    pub fn waited(&self, class: Class, age: Duration) {
        let gate = self.gate(class);
        let sample = u64::try_from(age.as_micros()).unwrap_or(u64::MAX / 16);
        let before = gate.age_us.load(Ordering::Relaxed);
        gate.age_us
            .store(before - before / 8 + sample / 8, Ordering::Relaxed);
    }

    /// How long things of the class wait for their answers lately.
    #[must_use]
    pub fn age(&self, class: Class) -> Duration {
        Duration::from_micros(self.gate(class).age_us.load(Ordering::Relaxed))
    }

    /// How many of the class are served now.
    #[must_use]
    pub fn in_flight(&self, class: Class) -> u32 {
        self.gate(class).in_flight.load(Ordering::Relaxed)
    }

    /// How many of the class were refused so far.
    #[must_use]
    pub fn shed(&self, class: Class) -> u64 {
        self.gate(class).shed.load(Ordering::Relaxed)
    }

    fn gate(&self, class: Class) -> &Gate {
        match class {
            Class::Commands => &self.0[0],
            Class::Permits => &self.0[1],
            Class::Reads => &self.0[2],
        }
    }
}

impl Gate {
    /// How many may be served at once now: the configured ceiling, and no more than the back ends take together.
    fn bound(&self) -> u32 {
        let age = Duration::from_micros(self.age_us.load(Ordering::Relaxed));
        self.limit.ceiling(age).min(self.back_ends.bound())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gates
            .gate(self.class)
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(in_flight_max: u32) -> Gates {
        let limit = Limit::new(in_flight_max, Duration::from_secs(1));
        Gates::new(limit, limit, limit, BOUNDS)
    }

    const BOUNDS: Bounds = Bounds {
        floor: 2,
        ceiling: 32,
        calm: Duration::from_millis(10),
        target: Duration::from_millis(100),
    };

    #[test]
    fn the_class_lets_in_what_its_back_ends_take_together() {
        let gates = gates(64);
        let seats = |class| {
            let seats: Vec<_> = std::iter::from_fn(|| gates.enter(class)).collect();
            seats.len()
        };
        assert_eq!(seats(Class::Commands), 64, "no back end is known yet");
        let one = gates.back_ends(Class::Commands).limiter();
        assert_eq!(seats(Class::Commands), 32);
        let other = gates.back_ends(Class::Commands).limiter();
        assert_eq!(seats(Class::Commands), 64);
        assert_eq!((seats(Class::Permits), seats(Class::Reads)), (64, 64));
        drop((one, other));
        assert_eq!(seats(Class::Commands), 64);
    }

    #[test]
    fn the_load_counts_every_call_and_every_refusal_of_its_class() {
        let gates = gates(1);
        let seat = gates.enter(Class::Commands);
        assert!(gates.enter(Class::Commands).is_none());
        assert!(gates.enter(Class::Commands).is_none());
        let refused = gates.turn_away(Class::Commands);
        assert_eq!(refused.refusal, Refusal::Overloaded);
        assert!(refused.retry_after >= Some(Duration::from_secs(1)));
        let load = gates.load(Class::Commands);
        assert_eq!((load.calls, load.shed), (3, 3));
        assert_eq!((load.in_flight, load.in_flight_max), (1, 1));
        assert_eq!(load.answer_times.len(), domain::spread::CLASSES);
        assert_eq!(gates.load(Class::Reads).calls, 0);
        drop(seat);
    }

    #[test]
    fn a_full_class_refuses_and_a_freed_seat_is_taken_again() {
        let gates = gates(2);
        let (first, second) = (gates.enter(Class::Commands), gates.enter(Class::Commands));
        assert!(first.is_some() && second.is_some());
        assert!(gates.enter(Class::Commands).is_none());
        assert!(
            gates.enter(Class::Reads).is_some(),
            "classes do not starve each other"
        );
        drop(first);
        assert!(gates.enter(Class::Commands).is_some());
        assert_eq!(
            (
                gates.in_flight(Class::Commands),
                gates.shed(Class::Commands)
            ),
            (1, 1)
        );
    }

    #[test]
    fn long_waits_narrow_the_gate_and_short_ones_open_it_again() {
        let gates = gates(64);
        for _ in 0..64 {
            gates.waited(Class::Commands, Duration::from_secs(4));
        }
        assert!(gates.age(Class::Commands) > Duration::from_secs(3));
        let seats: Vec<_> = (0..64)
            .filter_map(|_| gates.enter(Class::Commands))
            .collect();
        assert!((8..32).contains(&seats.len()), "{}", seats.len());
        drop(seats);
        for _ in 0..64 {
            gates.waited(Class::Commands, Duration::from_millis(5));
        }
        let seats: Vec<_> = (0..64)
            .filter_map(|_| gates.enter(Class::Commands))
            .collect();
        assert_eq!(seats.len(), 64);
    }
}
