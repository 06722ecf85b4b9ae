//! Says no early and cheaply when more comes than can be answered in time.
//!
//! Invariant: what runs at once is bounded for each class, and a refusal allocates next to nothing.

mod layer;
mod limit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use proto::Method;

pub use layer::{SheddingLayer, SheddingService};
pub use limit::Limit;

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
    in_flight: AtomicU32,
    age_us: AtomicU64,
    shed: AtomicU64,
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
            | Method::RecordNoShow => Self::Commands,
            Method::IssuePermit => Self::Permits,
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
    /// Gates with these limits.
    #[must_use]
    pub fn new(commands: Limit, permits: Limit, reads: Limit) -> Self {
        let gate = |limit| Gate {
            limit,
            in_flight: AtomicU32::new(0),
            age_us: AtomicU64::new(0),
            shed: AtomicU64::new(0),
        };
        Self(Arc::new([gate(commands), gate(permits), gate(reads)]))
    }

    /// A seat, or none: then the caller is told when to return.
    pub fn enter(&self, class: Class) -> Option<Seat> {
        let gate = self.gate(class);
        let already = gate.in_flight.fetch_add(1, Ordering::Relaxed);
        if gate.limit.admits(already, self.age(class)) {
            return Some(Seat {
                gates: self.clone(),
                class,
            });
        }
        gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        gate.shed.fetch_add(1, Ordering::Relaxed);
        None
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
        Gates::new(limit, limit, limit)
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
