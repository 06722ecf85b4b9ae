//! What a clinic's terminal changes and reads: stock, slots and visits.
//!
//! Invariant: every change is recorded with its answer under the clinic's request id, in the transaction that makes it.

use std::collections::BTreeMap;

use domain::command::BodyHash;
use domain::{
    BookingId, CampaignId, ClinicId, Refusal, RequestId, RoundId, SlotId, Timestamp, VaccineId,
};
use serde::{Deserialize, Serialize};

use super::leftovers::{NewRound, Round};
use super::{AppointmentState, NewSlot};

/// A change that a clinic asks for.
#[derive(Clone, Debug)]
pub struct ClinicOp {
    /// Whose terminal asks.
    pub clinic: ClinicId,
    /// The terminal's id for this intent.
    pub request: RequestId,
    /// What was asked.
    pub body_hash: BodyHash,
    /// By the server's clock: slots that start at it or before are in the past.
    pub now: Timestamp,
    /// Only say what would happen; for [`ClinicChange::Open`] alone.
    pub dry_run: bool,
    /// What is to change.
    pub change: ClinicChange,
}

/// What a clinic can change.
#[derive(Clone, Debug)]
pub enum ClinicChange {
    /// Doses of a vaccine: come, spoiled, set aside or given without a booking.
    Stock {
        /// What becomes of them.
        what: StockChange,
        /// The vaccine.
        vaccine: VaccineId,
    },
    /// Open slots of one vaccine and dose, all or none. A closed slot that is there is opened again.
    Open {
        /// At least one; each with its own start.
        slots: Vec<NewSlot>,
    },
    /// Let a slot take so many people.
    Resize {
        /// The slot.
        slot: SlotId,
        /// People; at least those it has.
        capacity: u32,
    },
    /// Take nobody new at these slots.
    Close {
        /// The slots, each once.
        slots: Vec<SlotId>,
    },
    /// What becomes of an appointment.
    Visit {
        /// The booking's code in its canonical form.
        code: String,
        /// What happened.
        what: VisitChange,
        /// Days since 1970-01-01 of today, by each campaign's calendar.
        today: BTreeMap<CampaignId, i32>,
    },
    /// Offer doses that are left to people who asked to be called.
    OfferLeftovers(NewRound),
    /// End a round of leftovers at once.
    CloseLeftovers {
        /// The round.
        round: RoundId,
    },
}

/// What becomes of doses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StockChange {
    /// So many came.
    Deliver(u32),
    /// So many spoiled.
    Waste(u32),
    /// So many in all are for people without a booking.
    SetWalkIns(u32),
    /// One of those was given, from this lot.
    GiveWalkIn(String),
}

/// What happened to an appointment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitChange {
    /// The person is here.
    CheckIn,
    /// The dose was given.
    Give {
        /// Which dose of the series: 1 or 2.
        dose: u8,
        /// The vaccine that was given.
        vaccine: VaccineId,
        /// What is printed on the vial.
        lot: String,
    },
    /// The person did not come.
    NoShow,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClinicVerdict {
    /// It happened now; of a dry run, it would.
    Done(ClinicAnswer),
    /// It had happened: the answer recorded then.
    Exists(ClinicAnswer),
    /// Nothing was changed.
    Refused(ClinicRefusal),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClinicRefusal {
    /// The reason.
    pub refusal: Refusal,
    /// Fields, and what would be right.
    pub notes: Vec<(String, String)>,
}

/// What is told after a change, and recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClinicAnswer {
    /// The stock concerned, by vaccine.
    pub stock: Vec<StockRow>,
    /// The slots concerned, by start.
    pub slots: Vec<ClinicSlot>,
    /// The appointment concerned.
    pub appointment: Option<SheetRow>,
    /// Doses that people are booked for and that are not there.
    pub short: u64,
    /// The round of leftovers concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Round>,
}

/// A vaccine at a clinic, in doses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRow {
    /// The vaccine.
    pub vaccine: VaccineId,
    /// Received in all.
    pub received: u64,
    /// Spoiled.
    pub wasted: u64,
    /// Set aside for people without a booking.
    pub walk_in: u64,
    /// Places at open slots and booked ones at closed slots.
    pub opened: u64,
    /// Given, walk-ins too.
    pub given: u64,
    /// Given to people without a booking.
    pub walk_in_given: u64,
}

/// A slot after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClinicSlot {
    /// The slot; 0 where it would be new.
    pub slot: SlotId,
    /// When it starts.
    pub starts_at: Timestamp,
    /// The vaccine.
    pub vaccine: VaccineId,
    /// 1 or 2.
    pub dose: u8,
    /// People it can take.
    pub capacity: u32,
    /// People it has, holds included.
    pub booked: u32,
    /// Takes new people.
    pub open: bool,
}

/// One appointment on a day sheet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SheetRow {
    /// The booking's code.
    pub code: String,
    /// When the slot starts.
    pub starts_at: Timestamp,
    /// The vaccine.
    pub vaccine: VaccineId,
    /// 1 or 2.
    pub dose: u8,
    /// What became of it.
    pub state: AppointmentState,
}

/// What a clinic and vaccine have, in doses and places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupplyRow {
    /// The clinic.
    pub clinic: ClinicId,
    /// Its district.
    pub district: String,
    /// Its stock, `opened` as it is at this moment.
    pub stock: StockRow,
    /// Places held.
    pub held: u64,
    /// Places booked, whatever became of them at the clinic.
    pub booked: u64,
    /// Places left at open slots that have not begun.
    pub left: u64,
}

/// An appointment that a code may mean: one row for each slot of the clinic that the booking has or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) slot: SlotId,
    pub(super) booking: BookingId,
    pub(super) campaign: CampaignId,
    pub(super) day: i32,
    pub(super) vaccine: VaccineId,
    pub(super) dose: u8,
    pub(super) state: AppointmentState,
}

impl ClinicOp {
    /// The name of the method, in the ledger and in traces.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match &self.change {
            ClinicChange::Stock { what, .. } => match what {
                StockChange::Deliver(_) => "deliver_stock",
                StockChange::Waste(_) => "record_wastage",
                StockChange::SetWalkIns(_) => "set_walk_ins",
                StockChange::GiveWalkIn(_) => "record_walk_in",
            },
            ClinicChange::Open { .. } => "open_slots",
            ClinicChange::Resize { .. } => "resize_slot",
            ClinicChange::Close { .. } => "close_slots",
            ClinicChange::Visit { what, .. } => match what {
                VisitChange::CheckIn => "check_in",
                VisitChange::Give { .. } => "record_dose_given",
                VisitChange::NoShow => "record_no_show",
            },
            ClinicChange::OfferLeftovers(_) => "offer_leftovers",
            ClinicChange::CloseLeftovers { .. } => "close_leftovers",
        }
    }
}

impl ClinicRefusal {
    pub(super) fn noted(refusal: Refusal, field: &str, problem: impl Into<String>) -> Self {
        Self {
            refusal,
            notes: vec![(field.to_owned(), problem.into())],
        }
    }
}

impl From<Refusal> for ClinicRefusal {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            notes: Vec::new(),
        }
    }
}

impl VisitChange {
    /// The appointment that is meant, among all that the clinic knows under the code, today or ever.
    ///
    /// Both backends ask here, so that they cannot differ. `elsewhere`: the code has an appointment today at another
    /// clinic of the region.
    pub(super) fn choose<'a>(
        &self,
        candidates: &'a [Candidate],
        today: &BTreeMap<CampaignId, i32>,
        elsewhere: bool,
    ) -> Result<&'a Candidate, ClinicRefusal> {
        let active: Vec<&Candidate> = candidates
            .iter()
            .filter(|one| one.state != AppointmentState::Cancelled)
            .collect();
        if active.is_empty() {
            return Err(match (elsewhere, candidates.is_empty()) {
                (true, _) => Refusal::AppointmentElsewhere.into(),
                (false, false) => Refusal::AppointmentOver.into(),
                (false, true) => Refusal::CodeUnknown.into(),
            });
        }
        let mut days = Vec::with_capacity(active.len());
        for one in active {
            let today = today.get(&one.campaign).ok_or(Refusal::CampaignUnknown)?;
            days.push((one.day.cmp(today), one));
        }
        match self {
            Self::CheckIn => check_in(&days),
            Self::Give { dose, vaccine, .. } => give(&days, *dose, vaccine),
            Self::NoShow => no_show(&days),
        }
    }

    /// What the appointment is afterwards.
    pub(super) const fn after(&self) -> AppointmentState {
        match self {
            Self::CheckIn => AppointmentState::CheckedIn,
            Self::Give { .. } => AppointmentState::Given,
            Self::NoShow => AppointmentState::NoShow,
        }
    }

    /// What is printed on the vial.
    pub(super) fn lot(&self) -> Option<&str> {
        match self {
            Self::Give { lot, .. } => Some(lot),
            Self::CheckIn | Self::NoShow => None,
        }
    }
}

/// An appointment and where its day lies from today.
type Dated<'a> = (std::cmp::Ordering, &'a Candidate);

fn check_in<'a>(days: &[Dated<'a>]) -> Result<&'a Candidate, ClinicRefusal> {
    let of_today = days.iter().filter(|(day, _)| day.is_eq());
    let open = of_today
        .min_by_key(|(_, one)| (one.state == AppointmentState::Given, one.dose))
        .map(|(_, one)| *one);
    let found = open.ok_or_else(|| other_day(days))?;
    if found.state == AppointmentState::Given {
        return Err(Refusal::AppointmentOver.into());
    }
    Ok(found)
}

fn give<'a>(
    days: &[Dated<'a>],
    dose: u8,
    vaccine: &VaccineId,
) -> Result<&'a Candidate, ClinicRefusal> {
    // Today's appointment before others, that of the dose before the other.
    let nearest = days
        .iter()
        .min_by_key(|(day, one)| (!day.is_eq(), one.dose != dose, one.day));
    let Some((day, found)) = nearest else {
        return Err(Refusal::CodeUnknown.into());
    };
    if found.vaccine != *vaccine {
        let booked = format!("the appointment is for {}", found.vaccine);
        return Err(ClinicRefusal::noted(
            Refusal::VaccineMismatch,
            "vaccine",
            booked,
        ));
    }
    if found.dose != dose {
        let booked = format!("the appointment is for dose {}", found.dose);
        return Err(ClinicRefusal::noted(Refusal::DoseMismatch, "dose", booked));
    }
    if day.is_lt() {
        return Err(ClinicRefusal::noted(
            Refusal::InThePast,
            "code",
            on(found.day),
        ));
    }
    if day.is_gt() {
        return Err(other_day(days));
    }
    match found.state {
        AppointmentState::CheckedIn => Ok(found),
        AppointmentState::Given => Err(Refusal::AppointmentOver.into()),
        AppointmentState::Held
        | AppointmentState::Booked
        | AppointmentState::Cancelled
        | AppointmentState::NoShow => Err(Refusal::NotCheckedIn.into()),
    }
}

fn no_show<'a>(days: &[Dated<'a>]) -> Result<&'a Candidate, ClinicRefusal> {
    let begun = days.iter().filter(|(day, _)| day.is_le());
    let latest = begun
        .max_by_key(|(_, one)| (one.state != AppointmentState::Given, one.day))
        .map(|(_, one)| *one);
    let found = latest.ok_or_else(|| other_day(days))?;
    if found.state == AppointmentState::Given {
        return Err(Refusal::AppointmentOver.into());
    }
    Ok(found)
}

fn other_day(days: &[Dated<'_>]) -> ClinicRefusal {
    // The next one, or the last one if none is to come.
    let next = days
        .iter()
        .min_by_key(|(day, one)| (day.is_lt(), if day.is_lt() { -one.day } else { one.day }));
    next.map_or_else(
        || Refusal::CodeUnknown.into(),
        |(_, one)| ClinicRefusal::noted(Refusal::AppointmentOtherDay, "code", on(one.day)),
    )
}

fn on(day: i32) -> String {
    let date = jiff::civil::date(1970, 1, 1)
        .checked_add(jiff::Span::new().try_days(day).unwrap_or_default());
    match date {
        Ok(date) => format!("the appointment is on {date}"),
        Err(_) => "the appointment is on another day".to_owned(),
    }
}
