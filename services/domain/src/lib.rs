//! The words of the field, as types: what a permit, a place, a room, a booking and a refusal are.
//!
//! Invariant: nothing here waits, reads a clock, draws randomness or does I/O. Time and ids are arguments.

pub mod booking_code;
pub mod campaign;
pub mod command;
pub mod headcount;
pub mod ids;
pub mod leftover;
pub mod name;
pub mod paseto;
pub mod permit;
pub mod place;
pub mod refusal;
pub mod region_change;
pub mod room;
pub mod spread;
pub mod time;

pub use command::{Action, Claimant, Op, Recorded, SlotPair, SlotState, Verdict};
pub use ids::{
    BookingId, CallingSystem, CampaignId, ClaimVersion, ClinicId, CohortId, Epoch, IncidentId,
    InstanceId, PersonId, RegionId, RequestId, RoundId, Serial, ShardId, SlotId, VaccineId,
};
pub use refusal::Refusal;
pub use time::Timestamp;
