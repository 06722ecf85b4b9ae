//! One slot as its owner remembers it.
//!
//! Invariant: `booked` in memory plus the places taken and reserved whose statements may have committed is never
//! below `booked` in the ledger.
//!
//! Why that holds. Every count that arrives was true at a moment inside its window, from the effect that asked for it
//! to its arrival. Only our own batches and moves raise `booked`, and each is counted in `taken` or `reserved` until
//! its own count arrives ("settles"). A count whose window saw no settling of the slot may therefore replace what is
//! known: whatever raised `booked` after it is still counted. Any other count may only make memory more pessimistic.

use domain::{SlotState, Timestamp};

use crate::effects::{SlotCount, SlotLeft};

/// A position in the order of a shard's settlings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

/// What is remembered of a slot, for checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMemory {
    /// People it can take.
    pub capacity: u32,
    /// People it has, by what is committed.
    pub booked: u32,
    /// Places taken by ops that are queued or on their way.
    pub taken: u32,
    /// Places kept for moves into it.
    pub reserved: u32,
    /// Takes new people.
    pub open: bool,
    /// Places for new asks.
    pub left: u32,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) state: SlotState,
    pub(crate) taken: u32,
    pub(crate) settled: Tick,
    /// When a read was applied last, in that order.
    pub(crate) loaded: Tick,
    pub(crate) read_at: Timestamp,
    published: Option<SlotLeft>,
}

// === impl Slot ===

impl Slot {
    pub(crate) fn new(state: SlotState, now: Timestamp) -> Self {
        Self {
            state,
            taken: 0,
            settled: Tick::default(),
            loaded: Tick::default(),
            read_at: now,
            published: None,
        }
    }

    /// Places for new asks.
    pub(crate) fn left(&self, reserved: u32) -> u32 {
        self.state
            .left()
            .saturating_sub(self.taken)
            .saturating_sub(reserved)
    }

    pub(crate) fn memory(&self, reserved: u32) -> SlotMemory {
        SlotMemory {
            capacity: self.state.capacity,
            booked: self.state.booked,
            taken: self.taken,
            reserved,
            open: self.state.open,
            left: self.left(reserved),
        }
    }

    /// Takes over a count that was asked for at `asked`. Says whether it could be believed in full.
    pub(crate) fn apply(&mut self, count: SlotCount, asked: Tick, now: Timestamp) -> bool {
        self.read_at = now;
        if self.settled <= asked {
            self.state.capacity = count.capacity;
            self.state.booked = count.booked;
            self.state.open = count.open;
            true
        } else {
            self.apply_pessimistically(count);
            false
        }
    }

    /// Takes over only what leaves fewer places. Says whether anything changed.
    pub(crate) fn apply_pessimistically(&mut self, count: SlotCount) -> bool {
        let state = &mut self.state;
        let before = (state.capacity, state.booked, state.open);
        state.capacity = state.capacity.min(count.capacity);
        state.booked = state.booked.max(count.booked);
        state.open &= count.open;
        before != (state.capacity, state.booked, state.open)
    }

    pub(crate) fn differs(&self, count: SlotCount) -> bool {
        let state = &self.state;
        (state.capacity, state.booked, state.open) != (count.capacity, count.booked, count.open)
    }

    /// What readers shall be told, where it is news.
    pub(crate) fn news(&mut self) -> Option<SlotLeft> {
        let left = SlotLeft {
            slot: self.state.slot,
            capacity: self.state.capacity,
            left: self.state.left(),
            open: self.state.open,
        };
        (self.published != Some(left)).then(|| {
            self.published = Some(left);
            left
        })
    }
}

// === impl SlotCount ===

impl SlotCount {
    pub(crate) fn of(state: &SlotState) -> Self {
        Self {
            slot: state.slot,
            capacity: state.capacity,
            booked: state.booked,
            open: state.open,
        }
    }

    pub(crate) fn left(self) -> SlotLeft {
        SlotLeft {
            slot: self.slot,
            capacity: self.capacity,
            left: if self.open {
                self.capacity.saturating_sub(self.booked)
            } else {
                0
            },
            open: self.open,
        }
    }
}
