//! Terminals' commands from protobuf to the ledger's ops: every wrong field is told at once.

use domain::command::BodyHash;
use domain::name::{ClinicName, LeftoversName, SlotName};
use domain::{
    CallingSystem, CampaignId, Refusal, RegionId, RequestId, SlotId, Timestamp, VaccineId,
    booking_code,
};
use jiff::civil::{Date, DateTime, Time};
use prost::Message;
use proto::clinic as pb;
use proto::convert::{Fields, civil_date, day_number};
use proto::inventory::{Command, command::Action};
use proto::status::Refused;
use sha2::{Digest as _, Sha256};

use super::incident::is_incidents;
use super::{Asked, Kind, Shared};
use crate::ledger::{ClinicChange, ClinicOp, NewSlot, StockChange, VisitChange};
use crate::rpc::leftovers::{self, Public};

/// Doses in one entry; above it is a slip of the finger.
const DOSES_MAX: u32 = 1_000_000;
/// People one slot can take.
const CAPACITY_MAX: u32 = 100_000;
/// Two months of days.
const DAYS_MAX: usize = 62;
/// Slots of one template: a month of quarters of an hour. Their transaction takes well below a second.
const SLOTS_MAX: usize = 1_000;
/// Slots closed at once.
const CLOSED_MAX: usize = 200;
const MINUTES_OF_DAY: u32 = 1_440;
const LOT_LENGTH_MAX: usize = 40;
const PAGE_SIZE: u32 = 100;
const PAGE_SIZE_MAX: u32 = 1_000;

/// Whether a terminal asks, or a gateway for figures of terminals.
pub(super) const fn is_terminals(action: &Action) -> bool {
    match action {
        Action::HoldSlots(_)
        | Action::ConfirmHold(_)
        | Action::ReleaseHold(_)
        | Action::Book(_)
        | Action::MoveBooking(_)
        | Action::CancelBooking(_)
        | Action::GetBooking(_)
        | Action::Depart(_)
        | Action::JoinLeftovers(_)
        | Action::LeaveLeftovers(_)
        | Action::ListLeftoverOffers(_)
        | Action::AnswerLeftoverOffer(_) => false,
        Action::DeliverStock(_)
        | Action::RecordWastage(_)
        | Action::SetWalkIns(_)
        | Action::RecordWalkIn(_)
        | Action::OpenSlots(_)
        | Action::ResizeSlot(_)
        | Action::CloseSlots(_)
        | Action::ListAppointments(_)
        | Action::CheckIn(_)
        | Action::RecordDoseGiven(_)
        | Action::RecordNoShow(_)
        | Action::OpenIncident(_)
        | Action::PreviewPlan(_)
        | Action::ApplyPlan(_)
        | Action::GetIncident(_)
        | Action::ListIncidentLines(_)
        | Action::OfferLeftovers(_)
        | Action::CloseLeftovers(_)
        | Action::ListLeftovers(_)
        | Action::GetLeftovers(_)
        | Action::ReadSupply(_) => true,
    }
}

/// What every change of a clinic carries.
struct Intent {
    kind: Kind,
    clinic: ClinicName,
    request: RequestId,
    body_hash: BodyHash,
}

/// Reads one command.
pub(super) struct Reader<'a> {
    pub(super) shared: &'a Shared,
    pub(super) fields: Fields,
}

/// Parses one command: its region and what is asked of it.
pub(super) fn parse(shared: &Shared, command: Command) -> Result<(RegionId, Asked), Refused> {
    let mut fields = Fields::default();
    let caller = fields.parse::<CallingSystem>("caller", &command.caller);
    let region = fields.parse::<RegionId>("region", &command.region);
    let (caller, region) = fields.finish(caller.zip(region))?;
    let mut reader = Reader {
        shared,
        fields: Fields::default(),
    };
    let Some(action) = command.action else {
        return Err(Refusal::Invalid.into());
    };
    // Whoever oversees clinics does so where the method is for that; a terminal's is for its clinic.
    let oversees = command.oversees && is_incidents(&action);
    let asked = reader.asked(action)?;
    let Reader { fields, .. } = reader;
    let (named, asked) = fields.finish(asked)?;
    if asked.region().is_some_and(|named| *named != region) {
        return Err(Refusal::NotOwner.into());
    }
    if let Some(named) = named {
        if named.region != region {
            return Err(Refusal::NotOwner.into());
        }
        if !oversees && !named.is_served_by(&caller) {
            return Err(Refusal::ClinicForeign.into());
        }
    }
    Ok((region, asked))
}

/// A parsed action and the clinic it is about; none where figures of the whole region are read.
pub(super) type Parsed = Option<(Option<ClinicName>, Asked)>;

impl Reader<'_> {
    /// `None` = a field is wrong and noted.
    #[expect(clippy::too_many_lines, reason = "one arm for each method of the API")]
    fn asked(&mut self, action: Action) -> Result<Parsed, Refused> {
        let parsed = match action {
            Action::DeliverStock(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::DeliverStock, &id, &r.clinic, &r);
                let what = self.doses(r.doses, 1).map(StockChange::Deliver);
                self.stock(intent, &r.vaccine, what)
            }
            Action::RecordWastage(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::RecordWastage, &id, &r.clinic, &r);
                let what = self.doses(r.doses, 1).map(StockChange::Waste);
                self.stock(intent, &r.vaccine, what)
            }
            Action::SetWalkIns(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::SetWalkIns, &id, &r.clinic, &r);
                let what = self.doses(r.doses, 0).map(StockChange::SetWalkIns);
                self.stock(intent, &r.vaccine, what)
            }
            Action::RecordWalkIn(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::RecordWalkIn, &id, &r.clinic, &r);
                let what = self.lot(&r.lot).map(StockChange::GiveWalkIn);
                self.stock(intent, &r.vaccine, what)
            }
            Action::OpenSlots(r) => return self.open(r),
            Action::ResizeSlot(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let slot = self.fields.parse::<SlotName>("slot", &r.slot);
                let capacity = self.within("capacity", r.capacity, 1, CAPACITY_MAX);
                let clinic = slot.as_ref().map(|slot| slot.clinic.clone());
                let intent = self.named(Kind::ResizeSlot, &id, clinic, &r);
                intent
                    .zip(slot.zip(capacity))
                    .map(|(intent, (slot, capacity))| {
                        let slot = slot.slot;
                        self.change(intent, ClinicChange::Resize { slot, capacity })
                    })
            }
            Action::CloseSlots(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::CloseSlots, &id, &r.clinic, &r);
                let slots = self.slots(intent.as_ref(), &r.slots);
                intent
                    .zip(slots)
                    .map(|(intent, slots)| self.change(intent, ClinicChange::Close { slots }))
            }
            Action::CheckIn(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::CheckIn, &id, &r.clinic, &r);
                self.visit(intent, &r.code, Some(VisitChange::CheckIn))
            }
            Action::RecordDoseGiven(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::RecordDoseGiven, &id, &r.clinic, &r);
                let dose = self.dose(r.dose);
                let vaccine = self.fields.parse("vaccine", &r.vaccine);
                let lot = self.lot(&r.lot);
                let what = dose.zip(vaccine).zip(lot);
                let what =
                    what.map(|((dose, vaccine), lot)| VisitChange::Give { dose, vaccine, lot });
                self.visit(intent, &r.code, what)
            }
            Action::RecordNoShow(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let intent = self.intent(Kind::RecordNoShow, &id, &r.clinic, &r);
                self.visit(intent, &r.code, Some(VisitChange::NoShow))
            }
            Action::OfferLeftovers(r) => return self.offer_leftovers(r),
            Action::CloseLeftovers(mut r) => {
                let id = std::mem::take(&mut r.request_id);
                let name = self
                    .fields
                    .parse::<LeftoversName>("leftovers", &r.leftovers);
                let clinic = name.as_ref().map(|name| name.clinic.clone());
                let intent = self.named(Kind::CloseLeftovers, &id, clinic, &r);
                intent.zip(name).map(|(intent, name)| {
                    let round = name.round;
                    self.change(intent, ClinicChange::CloseLeftovers { round })
                })
            }
            Action::ListLeftovers(r) => {
                let name = self.fields.parse::<ClinicName>("clinic", &r.clinic);
                name.map(|name| (None, Asked::Leftovers(Public::Rounds(name))))
            }
            Action::GetLeftovers(r) => {
                let name = self
                    .fields
                    .parse::<LeftoversName>("leftovers", &r.leftovers);
                name.map(|name| (None, Asked::Leftovers(Public::Round(name))))
            }
            Action::ListAppointments(r) => return self.sheet(&r),
            Action::OpenIncident(r) => self.open_incident(r),
            Action::PreviewPlan(r) => self.preview_plan(r),
            Action::ApplyPlan(r) => self.apply_plan(r),
            Action::GetIncident(r) => self.get_incident(&r),
            Action::ListIncidentLines(r) => return self.list_lines(&r),
            Action::ReadSupply(_) => Some((None, Asked::Supply)),
            Action::HoldSlots(_)
            | Action::ConfirmHold(_)
            | Action::ReleaseHold(_)
            | Action::Book(_)
            | Action::MoveBooking(_)
            | Action::CancelBooking(_)
            | Action::GetBooking(_)
            | Action::Depart(_)
            | Action::JoinLeftovers(_)
            | Action::LeaveLeftovers(_)
            | Action::ListLeftoverOffers(_)
            | Action::AnswerLeftoverOffer(_) => return Err(Refusal::Invalid.into()),
        };
        Ok(parsed)
    }

    fn intent(
        &mut self,
        kind: Kind,
        id: &str,
        clinic: &str,
        rest: &impl Message,
    ) -> Option<Intent> {
        let clinic = self.fields.parse("clinic", clinic);
        self.named(kind, id, clinic, rest)
    }

    fn named(
        &mut self,
        kind: Kind,
        id: &str,
        clinic: Option<ClinicName>,
        rest: &impl Message,
    ) -> Option<Intent> {
        let (request, body_hash) = self.request(kind as u8, id, rest)?;
        Some(Intent {
            kind,
            clinic: clinic?,
            request,
            body_hash,
        })
    }

    /// The hash is of everything but the id: the same body means the same intent.
    pub(super) fn request(
        &mut self,
        method: u8,
        id: &str,
        rest: &impl Message,
    ) -> Option<(RequestId, BodyHash)> {
        let request = self.fields.parse("request_id", id);
        let digest = Sha256::new()
            .chain_update([method])
            .chain_update(rest.encode_to_vec())
            .finalize();
        let mut half = [0u8; 16];
        half.copy_from_slice(&digest[..16]);
        Some((request?, BodyHash(half)))
    }

    fn change(&self, intent: Intent, change: ClinicChange) -> (Option<ClinicName>, Asked) {
        let op = ClinicOp {
            clinic: intent.clinic.clinic.clone(),
            request: intent.request,
            body_hash: intent.body_hash,
            now: self.shared.clock.wall(),
            dry_run: false,
            change,
        };
        let asked = Asked::Change {
            kind: intent.kind,
            op: Box::new(op),
        };
        (Some(intent.clinic), asked)
    }

    fn stock(
        &mut self,
        intent: Option<Intent>,
        vaccine: &str,
        what: Option<StockChange>,
    ) -> Parsed {
        let vaccine = self.fields.parse("vaccine", vaccine);
        let (intent, (vaccine, what)) = intent.zip(vaccine.zip(what))?;
        Some(self.change(intent, ClinicChange::Stock { what, vaccine }))
    }

    fn visit(&mut self, intent: Option<Intent>, code: &str, what: Option<VisitChange>) -> Parsed {
        let canonical = self.fields.booking_code("code", code);
        let (intent, (code, what)) = intent.zip(canonical.zip(what))?;
        let today = self.shared.admission.today(&intent.clinic.region);
        Some(self.change(intent, ClinicChange::Visit { code, what, today }))
    }

    fn sheet(&mut self, r: &pb::ListAppointmentsRequest) -> Result<Parsed, Refused> {
        let clinic = self.fields.parse::<ClinicName>("clinic", &r.clinic);
        let day = r.day.as_ref().and_then(day_number);
        if day.is_none() {
            self.fields
                .wrong("day", "must be a day of the calendar, years 1 to 9999");
        }
        let limit = match u32::try_from(r.page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => {
                self.fields.wrong("page_size", "must not be negative");
                PAGE_SIZE
            }
        };
        let after = match r.page_token.as_str() {
            "" => None,
            text => Some(page_start(text).ok_or(Refusal::PageTokenInvalid)?),
        };
        Ok(clinic.zip(day).map(|(name, day)| {
            let clinic = name.clinic.clone();
            let asked = Asked::Sheet {
                clinic,
                day,
                after,
                limit,
            };
            (Some(name), asked)
        }))
    }

    fn offer_leftovers(
        &mut self,
        mut r: proto::leftover::OfferLeftoversRequest,
    ) -> Result<Parsed, Refused> {
        let id = std::mem::take(&mut r.request_id);
        let intent = self.intent(Kind::OfferLeftovers, &id, &r.clinic, &r);
        let region = intent.as_ref().map(|intent| &intent.clinic.region);
        let campaign = |id: &CampaignId| self.shared.admission.campaign_named(id);
        let now = self.shared.clock.wall();
        let round = leftovers::offered(&mut self.fields, &r, region, campaign, now)?;
        Ok(intent.zip(round).map(|(intent, round)| {
            let round = leftovers::with_seed(round);
            self.change(intent, ClinicChange::OfferLeftovers(round))
        }))
    }

    fn open(&mut self, mut r: pb::OpenSlotsRequest) -> Result<Parsed, Refused> {
        let id = std::mem::take(&mut r.request_id);
        let intent = self.intent(Kind::OpenSlots, &id, &r.clinic, &r);
        let campaign = self.fields.parse::<CampaignId>("campaign", &r.campaign);
        let vaccine = self.fields.parse::<VaccineId>("vaccine", &r.vaccine);
        let dose = self.dose(r.dose);
        let capacity = self.within("capacity", r.capacity, 1, CAPACITY_MAX);
        let from = self.within("from_minute", r.from_minute, 0, MINUTES_OF_DAY - 1);
        let to = self.within("to_minute", r.to_minute, r.from_minute + 1, MINUTES_OF_DAY);
        let step = self.within("step_minutes", r.step_minutes, 1, MINUTES_OF_DAY);
        let days = self.days(&r.days);
        let Some((((from, to), step), days)) = from.zip(to).zip(step).zip(days) else {
            return Ok(None);
        };
        let minutes: Vec<u32> = (from..to).step_by(step as usize).collect();
        if minutes.len() * days.len() > SLOTS_MAX {
            self.fields
                .wrong("days", format!("must make at most {SLOTS_MAX} slots"));
        }
        let (Some(intent), Some(campaign), Some((vaccine, (dose, capacity)))) =
            (intent, campaign, vaccine.zip(dose.zip(capacity)))
        else {
            return Ok(None);
        };
        let view = self.shared.admission.campaign_named(&campaign);
        let view = view.ok_or(Refusal::CampaignUnknown)?;
        if !view.regions.contains(&intent.clinic.region) {
            return Err(Refusal::RegionNotInCampaign.into());
        }
        if !view.rules.vaccines.contains(&vaccine) {
            self.fields
                .wrong("vaccine", "must be one of the campaign's vaccines");
        }
        if days.iter().any(|(date, _)| *date > view.last_appointment) {
            let last = view.last_appointment;
            self.fields.wrong(
                "days",
                format!("must not be after the campaign's last appointment, {last}"),
            );
        }
        let mut slots = Vec::with_capacity(minutes.len() * days.len());
        for (date, day) in days {
            for minute in &minutes {
                let Some(starts_at) = start(date, *minute, &view.time_zone) else {
                    let gone = format!("{date} has no minute {minute}: the clocks change");
                    self.fields.wrong("days", gone);
                    continue;
                };
                slots.push(NewSlot {
                    starts_at,
                    day,
                    vaccine: vaccine.clone(),
                    dose,
                    capacity,
                    open: true,
                });
            }
        }
        slots.sort_by_key(|slot| slot.starts_at);
        let (name, mut asked) = self.change(intent, ClinicChange::Open { slots });
        if let Asked::Change { op, .. } = &mut asked {
            op.dry_run = r.validate_only;
        }
        Ok(Some((name, asked)))
    }

    /// The days, each with its number.
    fn days(&mut self, days: &[proto::common::Date]) -> Option<Vec<(Date, i32)>> {
        if !(1..=DAYS_MAX).contains(&days.len()) {
            self.fields
                .wrong("days", format!("must be 1 to {DAYS_MAX} days"));
            return None;
        }
        let mut found = Vec::with_capacity(days.len());
        for (at, day) in days.iter().enumerate() {
            let known = civil_date(day).zip(day_number(day));
            match known {
                None => self.fields.wrong(
                    format!("days[{at}]"),
                    "must be a day of the calendar, years 1 to 9999",
                ),
                Some(day) if found.contains(&day) => {
                    self.fields.wrong(format!("days[{at}]"), "is named twice");
                }
                Some(day) => found.push(day),
            }
        }
        (found.len() == days.len()).then_some(found)
    }

    fn slots(&mut self, intent: Option<&Intent>, names: &[String]) -> Option<Vec<SlotId>> {
        if !(1..=CLOSED_MAX).contains(&names.len()) {
            self.fields
                .wrong("slots", format!("must be 1 to {CLOSED_MAX} slots"));
            return None;
        }
        let mut found: Vec<SlotId> = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let field = format!("slots[{at}]");
            let Some(name) = self.fields.parse::<SlotName>(&field, name) else {
                continue;
            };
            if intent.is_some_and(|intent| intent.clinic != name.clinic) {
                self.fields.wrong(field, "must be a slot of the clinic");
            } else if found.contains(&name.slot) {
                self.fields.wrong(field, "is named twice");
            } else {
                found.push(name.slot);
            }
        }
        (found.len() == names.len()).then_some(found)
    }

    fn doses(&mut self, doses: u32, least: u32) -> Option<u32> {
        self.within("doses", doses, least, DOSES_MAX)
    }

    fn dose(&mut self, dose: u32) -> Option<u8> {
        let dose = self.within("dose", dose, 1, 2)?;
        u8::try_from(dose).ok()
    }

    fn lot(&mut self, lot: &str) -> Option<String> {
        let printed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        let fits = (1..=LOT_LENGTH_MAX).contains(&lot.len()) && lot.bytes().all(printed);
        if !fits {
            let problem = format!("must be 1 to {LOT_LENGTH_MAX} letters, digits, dashes and dots");
            self.fields.wrong("lot", problem);
        }
        fits.then(|| lot.to_owned())
    }

    pub(super) fn within(&mut self, field: &str, value: u32, least: u32, most: u32) -> Option<u32> {
        let fits = (least..=most).contains(&value);
        if !fits {
            self.fields
                .wrong(field, format!("must be {least} to {most}"));
        }
        fits.then_some(value)
    }
}

/// When a minute of a day is; `None` for one that the clocks leave out.
fn start(date: Date, minute: u32, zone: &jiff::tz::TimeZone) -> Option<Timestamp> {
    let hour = i8::try_from(minute / 60).ok()?;
    let time = Time::new(hour, i8::try_from(minute % 60).ok()?, 0, 0).ok()?;
    let ambiguous = zone.to_ambiguous_timestamp(DateTime::from_parts(date, time));
    let at = ambiguous.unambiguous().ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()))
}

/// Where a page of the day sheet begins: after this start and code.
fn page_start(text: &str) -> Option<(Timestamp, String)> {
    let (micros, code) = text.split_once(' ')?;
    Some((
        Timestamp::from_micros(micros.parse().ok()?),
        booking_code::parse(code)?,
    ))
}
