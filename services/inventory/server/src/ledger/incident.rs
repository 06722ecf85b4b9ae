//! When a clinic cannot serve the people it has: what happened, who is concerned, and where each of them goes.
//!
//! Invariant: a line that says `Moved` is a move that the ledger has recorded under the line's own request id.

use domain::command::BodyHash;
use domain::{
    BookingId, CampaignId, ClaimVersion, ClinicId, IncidentId, PersonId, Refusal, RequestId,
    Serial, ShardId, SlotId, SlotState, Timestamp, VaccineId,
};
use serde::{Deserialize, Serialize};

use super::{Clinic, ClinicRefusal};

/// A change of an incident, asked for by the clinic or an operator.
#[derive(Clone, Debug)]
pub struct IncidentOp {
    /// The clinic that it happened to.
    pub clinic: ClinicId,
    /// The caller's id for this intent; shared with what terminals ask.
    pub request: RequestId,
    /// What was asked.
    pub body_hash: BodyHash,
    /// The incident; made by whoever asks, where it is opened.
    pub incident: IncidentId,
    /// What is to change.
    pub change: IncidentChange,
}

/// What can change about an incident.
#[derive(Clone, Debug)]
pub enum IncidentChange {
    /// Close the slots and note who is booked there.
    Open(Closing),
    /// Keep a plan: in the order in which people are to be moved.
    Plan(Vec<PlanLine>),
    /// Begin to move people as this plan says.
    Apply {
        /// Its number, which must be the last one's.
        plan: u32,
    },
}

/// Which slots are closed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// What happened.
    pub kind: IncidentKind,
    /// The vaccine concerned; `None` = all.
    pub vaccine: Option<VaccineId>,
    /// The first day concerned, in days since 1970-01-01.
    pub from_day: i32,
    /// The last day concerned.
    pub to_day: i32,
    /// By the server's clock: slots that start at it or before are left alone.
    pub now: Timestamp,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IncidentKind {
    /// Doses spoiled: people go to other clinics.
    FridgeFailure,
    /// The clinic is closed: people go to other clinics.
    Closure,
    /// Doses do not come: people get later days.
    SupplyCut,
}

/// How far an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IncidentState {
    /// Slots are closed; nothing is planned.
    Open,
    /// There is a plan to look at.
    Planned,
    /// People are being moved.
    Applying,
    /// Every line of the plan was tried.
    Applied,
}

/// What became of one appointment of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineState {
    /// Found when the incident was opened.
    Affected,
    /// To be moved.
    Planned,
    /// Moved.
    Moved,
    /// Could not be moved when its turn came.
    Failed,
    /// The plan found nothing for it.
    Unmovable,
}

/// An incident, as it is told and recorded. The counts are those of its last plan's lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentView {
    /// The incident.
    pub incident: IncidentId,
    /// What happened.
    pub kind: IncidentKind,
    /// The vaccine concerned; `None` = all.
    pub vaccine: Option<VaccineId>,
    /// The first day concerned.
    pub from_day: i32,
    /// The last day concerned.
    pub to_day: i32,
    /// How far it is.
    pub state: IncidentState,
    /// The last plan; 0 = none yet.
    pub plan: u32,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Lines in all.
    pub affected: u32,
    /// To be moved.
    pub planned: u32,
    /// Moved.
    pub moved: u32,
    /// Could not be moved.
    pub failed: u32,
    /// Nowhere to go.
    pub unmovable: u32,
    /// Appointments held, not booked, at the closed slots now.
    pub held: u32,
}

/// What came of a change of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentVerdict {
    /// It happened now; and the slots that were closed by it.
    Done(IncidentView, Vec<SlotId>),
    /// It had happened: the answer recorded then.
    Exists(IncidentView),
    /// Nothing was changed.
    Refused(ClinicRefusal),
}

/// An appointment at a slot that an incident closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// The booking.
    pub booking: BookingId,
    /// Its code.
    pub code: String,
    /// The campaign.
    pub campaign: CampaignId,
    /// Whose it is.
    pub person: PersonId,
    /// The serial of the permit it was last changed with.
    pub serial: Serial,
    /// The version of the person's claim.
    pub version: ClaimVersion,
    /// The slot.
    pub slot: SlotState,
    /// The person is there, or has had the dose.
    pub begun: bool,
    /// The day of the booking's other dose, if it has one.
    pub other_day: Option<i32>,
}

/// Everything that a plan is made from, read at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The incident.
    pub view: IncidentView,
    /// Who is booked at its slots now, by start, then code.
    pub affected: Vec<Affected>,
    /// All clinics of the region, by id.
    pub clinics: Vec<Clinic>,
    /// Open slots that have not begun and have places left, of the vaccines and doses concerned; by id.
    pub free: Vec<SlotState>,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanLine {
    /// The appointment.
    pub who: Affected,
    /// Where it goes and under which request id, or why nowhere.
    pub to: Result<(SlotId, RequestId), Refusal>,
    /// In which wave it is moved, from 1; 0 = it is not.
    pub wave: u32,
    /// The line of the same booking's other dose that is moved before, by its place in the plan from 1.
    pub after: Option<u32>,
}

/// A line as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRow {
    /// Its place in the plan, from 1.
    pub line: u32,
    /// The wave it is moved in.
    pub wave: u32,
    /// The booking's code.
    pub code: String,
    /// The old slot.
    pub from: SlotState,
    /// The new one.
    pub to: Option<SlotState>,
    /// What became of it.
    pub state: LineState,
    /// Why it was not moved.
    pub reason: Option<Refusal>,
}

/// A line whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueMove {
    /// Which line.
    pub at: LineAt,
    /// The shard of the target, whose owner moves.
    pub shard: ShardId,
    /// The campaign.
    pub campaign: CampaignId,
    /// Whose booking it is.
    pub person: PersonId,
    /// The serial of the permit it was last changed with.
    pub serial: Serial,
    /// The version that the claim has if nobody else changed it.
    pub version: ClaimVersion,
    /// The booking.
    pub booking: BookingId,
    /// Which appointment.
    pub dose: u8,
    /// Where it goes.
    pub to: SlotId,
    /// Under which request id, however often it is tried.
    pub request: RequestId,
}

/// A line of a plan of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineAt {
    /// The incident.
    pub incident: IncidentId,
    /// The plan.
    pub plan: u32,
    /// The line, from 1.
    pub line: u32,
}

/// What came of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which line.
    pub at: LineAt,
    /// The claim's version after the move, or why there was none.
    pub outcome: Result<ClaimVersion, Refusal>,
}

// === impl IncidentOp ===

impl IncidentOp {
    /// The name of the method, in the ledger and in traces.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match &self.change {
            IncidentChange::Open(_) => "open_incident",
            IncidentChange::Plan(_) => "preview_plan",
            IncidentChange::Apply { .. } => "apply_plan",
        }
    }
}

macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ }) => {
        impl $name {
            /// The word for it in the ledger.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// What a word means; `None` for any other.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|one| one.word() == word)
            }
        }
    };
}

words! { IncidentKind { FridgeFailure = "FRIDGE_FAILURE", Closure = "CLOSURE", SupplyCut = "SUPPLY_CUT" } }
words! { IncidentState { Open = "OPEN", Planned = "PLANNED", Applying = "APPLYING", Applied = "APPLIED" } }
words! {
    LineState {
        Affected = "AFFECTED", Planned = "PLANNED", Moved = "MOVED", Failed = "FAILED", Unmovable = "UNMOVABLE"
    }
}
