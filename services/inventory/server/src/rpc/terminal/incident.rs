//! What a clinic or an operator asks about an incident.

use std::sync::Arc;

use domain::command::BodyHash;
use domain::name::{ClinicName, IncidentName, SlotName};
use domain::{ClinicId, IncidentId, Refusal, RegionId, RequestId, SlotState};
use jiff::ToSpan as _;
use jiff::civil::{Date, date};
use proto::clinic as pb;
use proto::convert::{day_number, timestamp};
use proto::inventory::answer::Outcome;
use proto::inventory::{Answer, command::Action};
use proto::status::Refused;
use uuid::Uuid;

use super::Asked;
use super::parse::{Parsed, Reader};
use crate::incident;
use crate::ledger::{
    Closing, Fault, IncidentChange, IncidentKind, IncidentOp, IncidentState, IncidentVerdict,
    IncidentView, Ledger, LineRow, LineState,
};
use crate::rpc::{Shared, answer, side};

/// The last day of the calendar stands for no end.
const NO_END: Date = date(9_999, 12, 31);
/// In the hashes of requests, apart from those of terminals.
const OPEN: u8 = 64;
const PREVIEW: u8 = 65;
const APPLY: u8 = 66;
const PAGE_SIZE: u32 = 100;
const PAGE_SIZE_MAX: u32 = 1_000;

/// What is asked, well-formed.
pub(super) enum About {
    /// A change; a plan's lines are still to be made.
    Change(Box<IncidentOp>),
    View {
        incident: IncidentId,
        clinic: ClinicId,
    },
    Lines {
        incident: IncidentId,
        clinic: ClinicId,
        plan: Option<u32>,
        after: u32,
        limit: u32,
    },
}

impl About {
    pub(super) fn op(&self) -> &'static str {
        match self {
            Self::Change(op) => op.method(),
            Self::View { .. } => "get_incident",
            Self::Lines { .. } => "list_incident_lines",
        }
    }
}

/// Whether this is about an incident: operators may ask it of any clinic.
pub(super) const fn is_incidents(action: &Action) -> bool {
    matches!(
        action,
        Action::OpenIncident(_)
            | Action::PreviewPlan(_)
            | Action::ApplyPlan(_)
            | Action::GetIncident(_)
            | Action::ListIncidentLines(_)
    )
}

impl Reader<'_> {
    pub(super) fn open_incident(&mut self, mut r: pb::OpenIncidentRequest) -> Parsed {
        let id = std::mem::take(&mut r.request_id);
        let clinic = self.fields.parse::<ClinicName>("clinic", &r.clinic);
        let request = self.request(OPEN, &id, &r);
        let kind = match r.kind() {
            pb::incident::Kind::FridgeFailure => Some(IncidentKind::FridgeFailure),
            pb::incident::Kind::Closure => Some(IncidentKind::Closure),
            pb::incident::Kind::SupplyCut => Some(IncidentKind::SupplyCut),
            pb::incident::Kind::Unspecified => {
                self.fields.wrong("kind", "is required");
                None
            }
        };
        let vaccine = self.fields.parse_optional("vaccine", &r.vaccine);
        if kind == Some(IncidentKind::SupplyCut) && r.vaccine.is_empty() {
            self.fields.wrong("vaccine", "is required for a supply cut");
        }
        let from_day = match &r.from_day {
            None => clinic.as_ref().map(|clinic| self.today(&clinic.region)),
            Some(day) => self.day("from_day", day),
        };
        let to_day = match &r.to_day {
            None => number(NO_END),
            Some(day) => self.day("to_day", day),
        };
        let (from_day, to_day) = from_day.zip(to_day)?;
        if from_day > to_day {
            self.fields.wrong("to_day", "must not be before from_day");
        }
        let closing = Closing {
            kind: kind?,
            vaccine,
            from_day,
            to_day,
            now: self.shared.clock.wall(),
        };
        let name = IncidentName {
            clinic: clinic?,
            incident: IncidentId(Uuid::new_v4()),
        };
        Some(change_of(name, request?, IncidentChange::Open(closing)))
    }

    /// The first day that it is now anywhere in the region's campaigns; slots that have begun are left alone anyway.
    fn today(&self, region: &RegionId) -> i32 {
        let days = self.shared.admission.today(region);
        let utc = self.shared.clock.wall().as_secs().div_euclid(86_400);
        let utc = i32::try_from(utc).unwrap_or(0) - 1;
        days.values().copied().min().unwrap_or(utc)
    }

    fn day(&mut self, field: &str, day: &proto::common::Date) -> Option<i32> {
        let known = day_number(day);
        if known.is_none() {
            self.fields
                .wrong(field, "must be a day of the calendar, years 1 to 9999");
        }
        known
    }

    pub(super) fn preview_plan(&mut self, mut r: pb::PreviewPlanRequest) -> Parsed {
        let id = std::mem::take(&mut r.request_id);
        let name = self.fields.parse::<IncidentName>("incident", &r.incident);
        let request = self.request(PREVIEW, &id, &r);
        // The lines are made when its turn comes.
        let plan = IncidentChange::Plan(Vec::new());
        Some(change_of(name?, request?, plan))
    }

    pub(super) fn apply_plan(&mut self, mut r: pb::ApplyPlanRequest) -> Parsed {
        let id = std::mem::take(&mut r.request_id);
        let name = self.fields.parse::<IncidentName>("incident", &r.incident);
        let plan = self.within("plan", r.plan, 1, i32::MAX.unsigned_abs());
        let request = self.request(APPLY, &id, &r);
        let apply = IncidentChange::Apply { plan: plan? };
        Some(change_of(name?, request?, apply))
    }

    pub(super) fn get_incident(&mut self, r: &pb::GetIncidentRequest) -> Parsed {
        let name = self.fields.parse::<IncidentName>("incident", &r.incident)?;
        let about = About::View {
            incident: name.incident,
            clinic: name.clinic.clinic.clone(),
        };
        Some((Some(name.clinic), Asked::Incident(about)))
    }

    pub(super) fn list_lines(
        &mut self,
        r: &pb::ListIncidentLinesRequest,
    ) -> Result<Parsed, Refused> {
        let name = self.fields.parse::<IncidentName>("incident", &r.incident);
        let limit = match u32::try_from(r.page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => {
                self.fields.wrong("page_size", "must not be negative");
                PAGE_SIZE
            }
        };
        let after = match r.page_token.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| Refusal::PageTokenInvalid)?,
        };
        let plan = r.plan.map(|plan| {
            self.within("plan", plan, 0, i32::MAX.unsigned_abs())
                .unwrap_or(0)
        });
        Ok(name.map(|name| {
            let about = About::Lines {
                incident: name.incident,
                clinic: name.clinic.clinic.clone(),
                plan,
                after,
                limit,
            };
            (Some(name.clinic), Asked::Incident(about))
        }))
    }
}

fn change_of(
    name: IncidentName,
    (request, body_hash): (RequestId, BodyHash),
    change: IncidentChange,
) -> (Option<ClinicName>, Asked) {
    let op = IncidentOp {
        clinic: name.clinic.clinic.clone(),
        request,
        body_hash,
        incident: name.incident,
        change,
    };
    let about = About::Change(Box::new(op));
    (Some(name.clinic), Asked::Incident(about))
}

/// Does what is asked.
pub(super) async fn run(
    shared: &Arc<Shared>,
    id: u64,
    region: &RegionId,
    ledger: Arc<dyn Ledger>,
    about: About,
) -> Option<Answer> {
    let done = match about {
        About::Change(op) => change(shared, id, region, ledger, *op).await,
        About::View { incident, clinic } => {
            view(id, &name_of(region, &clinic), ledger.as_ref(), incident).await
        }
        About::Lines {
            incident,
            clinic,
            plan,
            after,
            limit,
        } => {
            let clinic = name_of(region, &clinic);
            lines(id, &clinic, ledger.as_ref(), incident, (plan, after, limit)).await
        }
    };
    match done {
        Ok(answer) => Some(answer),
        Err(error) => side::unavailable(id, &error),
    }
}

fn name_of(region: &RegionId, clinic: &ClinicId) -> ClinicName {
    ClinicName {
        region: region.clone(),
        clinic: clinic.clone(),
    }
}

async fn change(
    shared: &Arc<Shared>,
    id: u64,
    region: &RegionId,
    ledger: Arc<dyn Ledger>,
    mut op: IncidentOp,
) -> Result<Answer, Fault> {
    if let IncidentChange::Plan(lines) = &mut op.change {
        let now = shared.clock.wall();
        let scene = ledger.incident_scene(&op.clinic, op.incident, now).await?;
        let Some(scene) = scene else {
            return Ok(answer::refused(id, Refusal::IncidentUnknown.into(), None));
        };
        let admission = shared.admission.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let interval = |campaign: &_| {
                let known = admission.campaign_named(campaign)?;
                Some(known.rules.dose_interval)
            };
            incident::plan(&scene, interval, || RequestId(Uuid::new_v4()))
        });
        *lines = planned.await.map_err(|error| Fault::Unavailable {
            source: Box::new(error),
        })?;
    }
    let verdict = ledger.incident(&op).await?;
    let (view, repeated_answer) = match verdict {
        IncidentVerdict::Done(view, closed) => {
            side::tell_owners(shared, region, ledger.as_ref(), &closed).await;
            (view, false)
        }
        IncidentVerdict::Exists(view) => (view, true),
        IncidentVerdict::Refused(why) => {
            let mut refused = Refused::from(why.refusal);
            refused.violations = why.notes;
            return Ok(answer::refused(id, refused, None));
        }
    };
    let incident = Some(told(&name_of(region, &op.clinic), view));
    let outcome = match &op.change {
        IncidentChange::Open(_) => Outcome::OpenIncident(pb::OpenIncidentResponse {
            incident,
            repeated_answer,
        }),
        IncidentChange::Plan(_) => Outcome::PreviewPlan(pb::PreviewPlanResponse {
            incident,
            repeated_answer,
        }),
        IncidentChange::Apply { .. } => Outcome::ApplyPlan(pb::ApplyPlanResponse {
            incident,
            repeated_answer,
        }),
    };
    Ok(said(id, outcome))
}

fn said(call_id: u64, outcome: Outcome) -> Answer {
    Answer {
        call_id,
        outcome: Some(outcome),
    }
}

async fn view(
    id: u64,
    clinic: &ClinicName,
    ledger: &dyn Ledger,
    incident: IncidentId,
) -> Result<Answer, Fault> {
    let Some(view) = ledger.incident_view(&clinic.clinic, incident).await? else {
        return Ok(answer::refused(id, Refusal::IncidentUnknown.into(), None));
    };
    let incident = Some(told(clinic, view));
    Ok(said(
        id,
        Outcome::GetIncident(pb::GetIncidentResponse { incident }),
    ))
}

async fn lines(
    id: u64,
    clinic: &ClinicName,
    ledger: &dyn Ledger,
    incident: IncidentId,
    (plan, after, limit): (Option<u32>, u32, u32),
) -> Result<Answer, Fault> {
    let Some(view) = ledger.incident_view(&clinic.clinic, incident).await? else {
        return Ok(answer::refused(id, Refusal::IncidentUnknown.into(), None));
    };
    let plan = plan.unwrap_or(view.plan);
    if plan > view.plan {
        return Ok(answer::refused(id, Refusal::PlanStale.into(), None));
    }
    let mut rows = ledger
        .incident_lines(incident, plan, after, limit + 1)
        .await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    let next_page_token = rows
        .last()
        .filter(|_| more)
        .map(|last| last.line.to_string())
        .unwrap_or_default();
    let page = pb::ListIncidentLinesResponse {
        lines: rows
            .into_iter()
            .map(|row| line(&clinic.region, row))
            .collect(),
        plan,
        next_page_token,
    };
    Ok(said(id, Outcome::ListIncidentLines(page)))
}

fn line(region: &RegionId, row: LineRow) -> pb::IncidentLine {
    use pb::incident_line::State;
    let slot_name = |slot: &SlotState| {
        let name = SlotName {
            clinic: name_of(region, &slot.clinic),
            slot: slot.slot,
        };
        name.to_string()
    };
    let state = match row.state {
        LineState::Affected => State::Affected,
        LineState::Planned => State::Planned,
        LineState::Moved => State::Moved,
        LineState::Failed => State::Failed,
        LineState::Unmovable => State::Unmovable,
    };
    pb::IncidentLine {
        code: row.code,
        dose: u32::from(row.from.dose),
        vaccine: row.from.vaccine.to_string(),
        start_time: Some(timestamp(row.from.starts_at)),
        to_slot: row.to.as_ref().map(slot_name).unwrap_or_default(),
        to_start_time: row.to.as_ref().map(|slot| timestamp(slot.starts_at)),
        state: state.into(),
        reason: row.reason.map(Refusal::code).unwrap_or_default().to_owned(),
        wave: row.wave,
    }
}

fn told(clinic: &ClinicName, view: IncidentView) -> pb::Incident {
    use pb::incident::{Kind, State};
    let name = IncidentName {
        clinic: clinic.clone(),
        incident: view.incident,
    };
    let kind = match view.kind {
        IncidentKind::FridgeFailure => Kind::FridgeFailure,
        IncidentKind::Closure => Kind::Closure,
        IncidentKind::SupplyCut => Kind::SupplyCut,
    };
    let state = match view.state {
        IncidentState::Open => State::Open,
        IncidentState::Planned => State::Planned,
        IncidentState::Applying => State::Applying,
        IncidentState::Applied => State::Applied,
    };
    pb::Incident {
        name: name.to_string(),
        kind: kind.into(),
        vaccine: view
            .vaccine
            .map(|vaccine| vaccine.to_string())
            .unwrap_or_default(),
        from_day: calendar(view.from_day),
        to_day: calendar(view.to_day).filter(|_| Some(view.to_day) != number(NO_END)),
        state: state.into(),
        plan: view.plan,
        open_time: Some(timestamp(view.opened_at)),
        affected: view.affected,
        planned: view.planned,
        moved: view.moved,
        failed: view.failed,
        unmovable: view.unmovable,
        held: view.held,
    }
}

const FIRST: Date = date(1970, 1, 1);

fn number(day: Date) -> Option<i32> {
    Some(day.since(FIRST).ok()?.get_days())
}

fn calendar(day: i32) -> Option<proto::common::Date> {
    let day = FIRST.checked_add(day.days()).ok()?;
    Some(proto::common::Date {
        year: day.year().into(),
        month: day.month().into(),
        day: day.day().into(),
    })
}
