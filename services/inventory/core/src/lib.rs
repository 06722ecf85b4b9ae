//! The decisions of one shard's owner: a state machine that never waits, reads no time, draws nothing and does no I/O.
//!
//! Invariant: an answer leaves only after the ledger has committed what it says, and memory never has more places
//! left than the ledger: it may be pessimistic, never optimistic.
//!
//! The shell turns every [`Effect`] into work and every end of that work into an [`Input`]. It promises:
//! - each `Load`, `Send`, `Sweep`, `Lookup`, `ReadVerdicts` gets exactly one answer; `Seize` is repeated by the shell until it is
//!   `Reseized` or fenced;
//! - after `BatchFailed` or `SweepFailed` nothing else is said about that statement;
//! - each `Reserved` is followed by exactly one `Unreserve`, once the outcome of the move is *known* (the shell repeats
//!   a move without a known outcome under its request id; the reserved place stays taken meanwhile).

mod batch;
mod effects;
mod invariants;
mod limits;
mod pending;
mod shard;
mod slot;

pub use effects::{
    Alarm, AskId, BatchFailure, Effect, Effects, Input, RequestKey, SlotCount, SlotLeft, Stop,
};
pub use limits::Limits;
pub use shard::Shard;
pub use slot::SlotMemory;
