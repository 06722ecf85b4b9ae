//! A region's bookings in its database: whose writes count, and what is true.
//!
//! Invariant: nothing of a superseded epoch commits, and no slot ever has more people than its capacity; both are
//! held by the database itself. Two real backends, one contract suite over both.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::command::BodyHash;
use domain::leftover::Place;
use domain::{
    BookingId, CampaignId, ClaimVersion, Claimant, ClinicId, CohortId, Epoch, IncidentId,
    InstanceId, Op, PersonId, Recorded, Refusal, RequestId, RoundId, Serial, ShardId, SlotId,
    SlotState, Timestamp, VaccineId, Verdict,
};

mod departure;
mod incident;
mod leftovers;
pub mod postgres;
pub mod sqlite;
mod terminal;

pub use departure::{DepartureAnswer, SurrenderOp};
pub use incident::{
    Affected, Closing, DueMove, IncidentChange, IncidentKind, IncidentOp, IncidentState,
    IncidentVerdict, IncidentView, LineAt, LineRow, LineState, PlanLine, Scene, Settled,
};
pub use leftovers::{
    Accepted, CANDIDATES_MAX, Called, LeftoverAnswer, LeftoverChange, LeftoverOp, LeftoverVerdict,
    NewRound, Offer, PassedOn, Round, RoundState,
};
pub use terminal::{
    ClinicAnswer, ClinicChange, ClinicOp, ClinicRefusal, ClinicSlot, ClinicVerdict, SheetRow,
    StockChange, StockRow, SupplyRow, VisitChange,
};

/// The cause of a fault, kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong around a ledger.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another epoch or sequence is in force; this write did not happen and never will.
    #[error("epoch {held} of shard {shard} is not in force, the ledger has {found}")]
    Fenced {
        /// The shard.
        shard: ShardId,
        /// The epoch that was presented.
        held: Epoch,
        /// The epoch that the ledger has. Below `held` means that the ledger went back in time.
        found: Epoch,
    },
    /// The capacity check fired: memory and ledger disagree. Nothing was written.
    #[error("capacity check of shard {shard} fired")]
    Constraint {
        /// The shard.
        shard: ShardId,
    },
    /// The write may or may not have happened.
    #[error("a write of shard {shard} has no known outcome")]
    Unknown {
        /// The shard.
        shard: ShardId,
        /// Why it is not known.
        #[source]
        source: BoxError,
    },
    /// Nothing was written, or nothing was to be written; may be tried again.
    #[error("the ledger is not available")]
    Unavailable {
        /// Why.
        #[source]
        source: BoxError,
    },
}

/// Takes over a shard.
#[derive(Clone, Debug)]
pub struct SeizeRequest {
    /// The shard.
    pub shard: ShardId,
    /// Only if the ledger has this epoch.
    pub expect: Epoch,
    /// The highest epoch ever published; the new one lies above it, even if the ledger went back in time.
    pub floor: Epoch,
    /// Names this attempt: a repetition with the same nonce gets the same result.
    pub nonce: [u8; 16],
    /// Who takes over.
    pub owner: InstanceId,
    /// Where the new owner listens, `host:port`.
    pub addr: String,
}

/// A shard taken over.
pub struct Seized {
    /// The epoch in force from now on.
    pub epoch: Epoch,
    /// The epoch before.
    pub prev_epoch: Epoch,
    /// The last batch committed under it.
    pub prev_seq: u64,
    /// The session that may write under the new epoch; its batches number from 1.
    pub writer: Box<dyn Writer>,
}

/// A shard's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The shard.
    pub shard: ShardId,
    /// The epoch in force; 0 = never owned.
    pub epoch: Epoch,
    /// The last batch committed under it.
    pub batch_seq: u64,
    /// Who took over last; empty = nobody.
    pub owner: String,
    /// Where that owner listens.
    pub addr: String,
}

/// A slot's counts after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCount {
    /// The slot.
    pub slot: SlotId,
    /// People it can take.
    pub capacity: u32,
    /// People it has, holds included.
    pub booked: u32,
    /// Takes new people.
    pub open: bool,
}

/// A committed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAnswer {
    /// One for each op, in their order.
    pub verdicts: Vec<Verdict>,
    /// Every slot that an op named or that an expired hold gave back to, once each.
    pub slots: Vec<SlotCount>,
}

/// The session of a shard's owner. Dropping it closes the session.
#[async_trait]
pub trait Writer: Send {
    /// Runs ops in their order as one atomic, durable statement, number `seq` of this writer's epoch (1, 2, …).
    ///
    /// At most one op per person, at most 512 ops. `Fenced`, `Constraint` and `Unavailable` wrote nothing and did not
    /// use up the number; after `Unknown` the writer is useless: seize again.
    async fn batch(&mut self, seq: u64, ops: &[Op]) -> Result<BatchAnswer, Fault>;

    /// Gives back at most `limit` expired holds of the shard, as batch number `seq`.
    async fn sweep(&mut self, seq: u64, limit: u32) -> Result<Vec<SlotCount>, Fault>;
}

/// Moves one appointment of a booking to another slot of the region.
#[derive(Clone, Debug)]
pub struct MoveOp {
    /// Who asks.
    pub claimant: Claimant,
    /// The end device's id for this intent.
    pub request: RequestId,
    /// What was asked.
    pub body_hash: BodyHash,
    /// The version the client saw last.
    pub claim_version: ClaimVersion,
    /// The booking.
    pub booking: BookingId,
    /// Which appointment: 1 or 2.
    pub dose: u8,
    /// The slot wanted; it belongs to the shard under whose epoch this runs.
    pub to: SlotId,
}

/// Gives up a booking or one dose of it.
#[derive(Clone, Debug)]
pub struct CancelOp {
    /// Who asks.
    pub claimant: Claimant,
    /// The end device's id for this intent.
    pub request: RequestId,
    /// What was asked.
    pub body_hash: BodyHash,
    /// The version the client saw last.
    pub claim_version: ClaimVersion,
    /// The booking.
    pub booking: BookingId,
    /// Which appointment; `None` = all of them.
    pub dose: Option<u8>,
}

/// What came of a move or a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideAnswer {
    /// The verdict.
    pub verdict: Verdict,
    /// The slots whose counts changed.
    pub slots: Vec<SlotCount>,
}

/// The state of a person's claim. A hold past its deadline reads as `Free`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Nothing is claimed.
    Free,
    /// Slots are held.
    Held,
    /// Slots are booked.
    Booked,
    /// The person left this region.
    Surrendered,
}

/// What became of an appointment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AppointmentState {
    /// Held until the claim's deadline.
    Held,
    /// Booked.
    Booked,
    /// Given up or moved away from.
    Cancelled,
    /// Booked, and the person is at the clinic.
    CheckedIn,
    /// Booked, and the dose was given.
    Given,
    /// Booked, and the person did not come.
    NoShow,
}

impl AppointmentState {
    /// The word for it in the ledger.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Booked => "BOOKED",
            Self::Cancelled => "CANCELLED",
            Self::CheckedIn => "CHECKED_IN",
            Self::Given => "GIVEN",
            Self::NoShow => "NO_SHOW",
        }
    }

    /// The state of a word; `None` for any other.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Held,
            Self::Booked,
            Self::Cancelled,
            Self::CheckedIn,
            Self::Given,
            Self::NoShow,
        ]
        .into_iter()
        .find(|state| state.word() == word)
    }
}

/// One visit of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appointment {
    /// The slot as it is now.
    pub slot: SlotState,
    /// What became of it.
    pub state: AppointmentState,
}

/// A person's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// Its state.
    pub state: ClaimState,
    /// The permit serial it was last changed with.
    pub serial: Serial,
    /// How often it changed.
    pub version: ClaimVersion,
    /// The hold or booking it has.
    pub booking: Option<BookingId>,
    /// When the hold dies.
    pub hold_until: Option<Timestamp>,
    /// Its active appointments, by dose.
    pub appointments: Vec<Appointment>,
}

/// A clinic.
#[derive(Clone, Debug, PartialEq)]
pub struct Clinic {
    /// Its id.
    pub clinic: ClinicId,
    /// The shard that decides it.
    pub shard: ShardId,
    /// The name on the door, 1 to 200 bytes.
    pub display_name: String,
    /// The district inside the region, up to 100 bytes.
    pub district: String,
    /// WGS 84 degrees, -90 to 90.
    pub latitude: f64,
    /// WGS 84 degrees, -180 to 180.
    pub longitude: f64,
}

/// A slot to be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSlot {
    /// When it starts.
    pub starts_at: Timestamp,
    /// Days since 1970-01-01 at the clinic.
    pub day: i32,
    /// The vaccine.
    pub vaccine: VaccineId,
    /// 1 or 2.
    pub dose: u8,
    /// People it can take.
    pub capacity: u32,
    /// Takes new people.
    pub open: bool,
}

/// A clinic with its supply.
#[derive(Clone, Debug, PartialEq)]
pub struct ClinicSupply {
    /// The clinic.
    pub clinic: Clinic,
    /// Doses received in all, by vaccine; absolute, may only rise.
    pub received: BTreeMap<VaccineId, u32>,
    /// Its slots; one is known by start, vaccine and dose, and changed where it exists.
    pub slots: Vec<NewSlot>,
}

/// What an application changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// New clinics.
    pub clinics_added: u32,
    /// New slots.
    pub slots_added: u32,
    /// Slots whose capacity or openness changed.
    pub slots_changed: u32,
}

/// Why an application was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    /// A rule of supply says no.
    #[error("{clinic} was refused: {}", refusal.code())]
    Refused {
        /// The first clinic that breaks the rule.
        clinic: ClinicId,
        /// `StockExceeded` or `BelowBooked`.
        refusal: Refusal,
    },
    /// Something broke.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Everything of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardCatalogue {
    /// Its clinics, by id.
    pub clinics: Vec<Clinic>,
    /// Its slots, by clinic and start.
    pub slots: Vec<SlotState>,
}

/// Where a reader of the outbox stands; opaque but ordered. The default is before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboxCursor(pub u64, pub u64);

/// Slots that something other than their owner's batches changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideChanges {
    /// The slots as they are now, once each.
    pub slots: Vec<SlotState>,
    /// Continue after this.
    pub cursor: OutboxCursor,
}

/// A room as this region's inventories last saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSeen {
    /// The campaign.
    pub campaign: CampaignId,
    /// The cohort.
    pub cohort: CohortId,
    /// The document's version.
    pub version: u64,
    /// The signed document.
    pub document: String,
    /// The highest frontier of this region ever computed.
    pub frontier: u64,
}

/// A closed bucket of a room as this region's inventories saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSeen {
    /// The campaign.
    pub campaign: CampaignId,
    /// The cohort.
    pub cohort: CohortId,
    /// The bucket.
    pub id: u32,
    /// The signed document.
    pub document: String,
}

/// A region's ledger. Cheap to share; every method may be called at any time.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Creates the shards `0..count` that do not exist yet; never removes one.
    async fn ensure_shards(&self, count: u32) -> Result<(), Fault>;
    /// All shards, by id.
    async fn shards(&self) -> Result<Vec<ShardRow>, Fault>;
    /// Takes over a shard on a session of its own. Refused `Fenced` where the epoch is not the expected one.
    /// Commits before anything is loaded. Bounded: an old owner's session that holds the row is ended.
    async fn seize(&self, request: SeizeRequest) -> Result<Seized, Fault>;

    /// The slots that exist among those named.
    async fn slots(&self, slots: &[SlotId]) -> Result<Vec<SlotState>, Fault>;
    /// Everything of a shard.
    async fn catalogue(&self, shard: ShardId) -> Result<ShardCatalogue, Fault>;
    /// Slots changed after `cursor` by moves, cancellations or operators: complete, without gaps under concurrency.
    async fn outside_changes(
        &self,
        cursor: OutboxCursor,
        limit: u32,
    ) -> Result<OutsideChanges, Fault>;
    /// The cursor of now, to be taken before a catalogue is read.
    async fn outbox_cursor(&self) -> Result<OutboxCursor, Fault>;
    /// Whether the shard has holds past their deadline.
    async fn has_expired_holds(&self, shard: ShardId) -> Result<bool, Fault>;

    /// What was recorded under request ids, in their order.
    async fn recorded(
        &self,
        requests: &[(CampaignId, PersonId, RequestId)],
    ) -> Result<Vec<Option<(BodyHash, Recorded)>>, Fault>;
    /// A person's claim, read strictly; `None` = never had one.
    async fn claim(
        &self,
        campaign: &CampaignId,
        person: PersonId,
    ) -> Result<Option<ClaimView>, Fault>;
    /// Moves an appointment under the epoch of the target slot's shard: the new slot is taken first.
    async fn move_booking(
        &self,
        shard: ShardId,
        epoch: Epoch,
        op: &MoveOp,
    ) -> Result<SideAnswer, Fault>;
    /// Gives up a booking; needs no epoch, because giving back is always safe.
    async fn cancel(&self, op: &CancelOp) -> Result<SideAnswer, Fault>;

    /// Lets a person go for good with the serial they have: it and every lower one is refused here from then on, a hold
    /// is released in the same transaction. Idempotent by person and serial, also where the person never had a claim; a
    /// person who had stayed is answered `Stayed`. Needs no epoch, because giving back is always safe.
    async fn surrender(&self, op: &SurrenderOp) -> Result<DepartureAnswer, Fault>;
    /// Keeps a person who wanted to leave with the serial named: their claim's serial rises by one. A person who had
    /// left is answered `Left`. Idempotent by person and serial.
    async fn restamp(&self, who: &Claimant) -> Result<DepartureAnswer, Fault>;

    /// Adds or changes clinics, stock and slots, all or nothing. With `dry_run` only says what would happen.
    async fn apply(&self, supply: &[ClinicSupply], dry_run: bool) -> Result<Applied, ApplyFault>;

    /// Does what a clinic's terminal asks, or refuses, or tells what was recorded under its request id.
    async fn clinic(&self, op: &ClinicOp) -> Result<ClinicVerdict, Fault>;
    /// A clinic's appointments of one day that were not cancelled, by start, then code; at most `limit` after `after`.
    async fn day_sheet(
        &self,
        clinic: &ClinicId,
        day: i32,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> Result<Vec<SheetRow>, Fault>;
    /// What the region's clinics have, all of it at one moment, by clinic, then vaccine.
    async fn supply(&self) -> Result<Vec<SupplyRow>, Fault>;

    /// Opens an incident, keeps a plan for it or begins to apply one; or refuses, or tells what was recorded.
    async fn incident(&self, op: &IncidentOp) -> Result<IncidentVerdict, Fault>;
    /// An incident of a clinic as it is now.
    async fn incident_view(
        &self,
        clinic: &ClinicId,
        incident: IncidentId,
    ) -> Result<Option<IncidentView>, Fault>;
    /// Lines of a plan of an incident, in their order; at most `limit` after line `after`.
    async fn incident_lines(
        &self,
        incident: IncidentId,
        plan: u32,
        after: u32,
        limit: u32,
    ) -> Result<Vec<LineRow>, Fault>;
    /// What a plan for an incident of a clinic is made from; slots that start at `now` or before are past.
    async fn incident_scene(
        &self,
        clinic: &ClinicId,
        incident: IncidentId,
        now: Timestamp,
    ) -> Result<Option<Scene>, Fault>;
    /// Lines whose turn it is and whose targets are in these shards: of each incident that is being applied, those of
    /// the first wave that is not settled; at most `limit`.
    async fn due_moves(&self, shards: &[ShardId], limit: u32) -> Result<Vec<DueMove>, Fault>;
    /// Notes what came of lines. What was settled before stays as it is.
    async fn settle_moves(&self, settled: &[Settled]) -> Result<(), Fault>;
    /// Does what a person asks about leftovers, or refuses, or tells what was recorded under their request id.
    async fn leftover(&self, op: &LeftoverOp) -> Result<LeftoverVerdict, Fault>;
    /// Whether a person is to be called, and their offers of the campaign's rounds.
    async fn called(&self, campaign: &CampaignId, person: PersonId) -> Result<Called, Fault>;
    /// A clinic's rounds, newest first, at most 100; or the one named.
    async fn rounds(&self, clinic: &ClinicId, round: Option<RoundId>) -> Result<Vec<Round>, Fault>;
    /// The places of a round's order; none before its draw.
    async fn places(&self, round: RoundId) -> Result<Vec<Place>, Fault>;
    /// Draws the rounds that are due, ends what is over by the ledger's clock, and offers what is free to those whose
    /// turn it is. May run anywhere at any time, also in several places at once.
    async fn pass_on_leftovers(&self) -> Result<PassedOn, Fault>;

    /// Stores what this process saw of rooms; an older version or lower frontier never replaces a newer or higher one.
    async fn save_rooms(&self, rooms: &[RoomSeen]) -> Result<(), Fault>;
    /// All rooms stored.
    async fn rooms(&self) -> Result<Vec<RoomSeen>, Fault>;
    /// Stores closed buckets; one that is stored already stays as it is.
    async fn save_buckets(&self, buckets: &[BucketSeen]) -> Result<(), Fault>;
    /// All buckets stored, those of a room by id.
    async fn buckets(&self) -> Result<Vec<BucketSeen>, Fault>;
}
