//! Incidents: closing, plans, and what came of each line.

use std::collections::BTreeMap;
use std::time::SystemTime;

use domain::{
    BookingId, ClaimVersion, ClinicId, Epoch, IncidentId, PersonId, Refusal, RequestId, Serial,
    ShardId, SlotId, SlotState, Timestamp,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::trouble::{Garbled, TERMINAL_REFUSED, Trouble};
use super::values::{
    column, dose, signed, signed_32, slot_state, system_time, unreadable, unsigned, unsigned_32,
};
use super::{PostgresLedger, reads, supply, terminal};
use crate::ledger::{
    Affected, AppointmentState, BoxError, Clinic, DueMove, Fault, IncidentChange, IncidentOp,
    IncidentVerdict, IncidentView, LineAt, LineRow, LineState, PlanLine, Scene, Settled,
};

const OPEN: &str = "SELECT * FROM incident_open_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const PLAN: &str = "SELECT * FROM incident_plan_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
const APPLY: &str = "SELECT * FROM incident_apply_v1($1, $2, $3, $4, $5)";
const SETTLE: &str = "SELECT incident_settle_v1($1, $2, $3, $4, $5)";

/// A change of an incident belongs to no owner; its unknown outcome names this shard, which no region has.
const NO_SHARD: ShardId = ShardId(u32::MAX);

pub(super) async fn change(
    ledger: &PostgresLedger,
    op: &IncidentOp,
) -> Result<IncidentVerdict, Fault> {
    match &op.change {
        IncidentChange::Open(closing) => {
            let vaccine = closing.vaccine.as_ref().map(|vaccine| vaccine.as_str());
            let (kind, now) = (closing.kind.word(), system_time(closing.now));
            let rest: [&(dyn ToSql + Sync); 5] =
                [&kind, &vaccine, &closing.from_day, &closing.to_day, &now];
            asked(ledger, op, OPEN, &rest).await
        }
        IncidentChange::Plan(lines) => {
            let columns = Columns::of(lines);
            asked(ledger, op, PLAN, &columns.params()).await
        }
        IncidentChange::Apply { plan } => asked(ledger, op, APPLY, &[&signed_32(*plan)]).await,
    }
}

/// Runs a function whose first four parameters are clinic, request, hash and incident.
async fn asked(
    ledger: &PostgresLedger,
    op: &IncidentOp,
    sql: &str,
    rest: &[&(dyn ToSql + Sync)],
) -> Result<IncidentVerdict, Fault> {
    let (clinic, hash) = (op.clinic.as_str(), op.body_hash.0.as_slice());
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&clinic, &op.request.0, &hash, &op.incident.0];
    params.extend_from_slice(rest);
    let rows = match ledger.ask(sql, &params).await {
        Ok(rows) => rows,
        Err(Trouble::Undone(undone)) if undone.code.code() == TERMINAL_REFUSED => {
            let refused =
                terminal::refused(&undone.message, undone.detail()).map_err(unreadable)?;
            return Ok(IncidentVerdict::Refused(refused));
        }
        Err(trouble) => return Err(trouble.of_write(NO_SHARD, Epoch(0))),
    };
    let read = || -> Result<IncidentVerdict, BoxError> {
        let row = rows.first().ok_or(Garbled("incident"))?;
        let view: IncidentView = serde_json::from_str(column(row, "o_answer")?)?;
        if column(row, "o_repeated")? {
            return Ok(IncidentVerdict::Exists(view));
        }
        let slots: Vec<i64> = column(row, "o_slots")?;
        let slots = slots.into_iter().map(|slot| SlotId(unsigned(slot)));
        Ok(IncidentVerdict::Done(view, slots.collect()))
    };
    // It was committed: what cannot be understood is to be asked for again.
    read().map_err(|source| Fault::Unknown {
        shard: NO_SHARD,
        source,
    })
}

/// A plan by columns.
#[derive(Default)]
struct Columns<'a> {
    campaign: Vec<&'a str>,
    person: Vec<&'a [u8]>,
    serial: Vec<i64>,
    version: Vec<i64>,
    booking: Vec<Uuid>,
    code: Vec<&'a str>,
    dose: Vec<i32>,
    from: Vec<i64>,
    to: Vec<Option<i64>>,
    request: Vec<Option<Uuid>>,
    reason: Vec<Option<&'a str>>,
    wave: Vec<i32>,
    after: Vec<Option<i32>>,
}

impl<'a> Columns<'a> {
    fn of(lines: &'a [PlanLine]) -> Self {
        let mut all = Self::default();
        for PlanLine {
            who,
            to,
            wave,
            after,
        } in lines
        {
            all.campaign.push(who.campaign.as_str());
            all.person.push(who.person.as_bytes());
            all.serial.push(signed(who.serial.0));
            all.version.push(signed(who.version.0));
            all.booking.push(who.booking.0);
            all.code.push(&who.code);
            all.dose.push(i32::from(who.slot.dose));
            all.from.push(signed(who.slot.slot.0));
            all.to.push(to.ok().map(|(slot, _)| signed(slot.0)));
            all.request.push(to.ok().map(|(_, request)| request.0));
            all.reason.push(to.err().map(Refusal::code));
            all.wave.push(signed_32(*wave));
            all.after.push(after.map(signed_32));
        }
        all
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 13] {
        [
            &self.campaign,
            &self.person,
            &self.serial,
            &self.version,
            &self.booking,
            &self.code,
            &self.dose,
            &self.from,
            &self.to,
            &self.request,
            &self.reason,
            &self.wave,
            &self.after,
        ]
    }
}

pub(super) async fn view(
    ledger: &PostgresLedger,
    clinic: &ClinicId,
    incident: IncidentId,
) -> Result<Option<IncidentView>, Fault> {
    let sql = "SELECT incident_view_v1(incident) AS view FROM incident WHERE incident = $1 AND clinic = $2";
    let rows = ledger.read(sql, &[&incident.0, &clinic.as_str()]).await?;
    let read = |row: &Row| -> Result<IncidentView, BoxError> {
        Ok(serde_json::from_str(column(row, "view")?)?)
    };
    rows.first().map(read).transpose().map_err(unreadable)
}

pub(super) async fn lines(
    ledger: &PostgresLedger,
    incident: IncidentId,
    plan: u32,
    after: u32,
    limit: u32,
) -> Result<Vec<LineRow>, Fault> {
    let sql = "SELECT line, wave, code, from_slot, to_slot, state, reason FROM incident_line
        WHERE incident = $1 AND plan = $2 AND line > $3 ORDER BY line LIMIT $4";
    let (plan, after) = (signed_32(plan), signed_32(after));
    let rows = ledger
        .read(sql, &[&incident.0, &plan, &after, &i64::from(limit)])
        .await?;
    let ids = rows.iter().flat_map(|row| {
        let of = |name| column::<Option<i64>>(row, name).ok().flatten();
        [of("from_slot"), of("to_slot")]
    });
    let ids: Vec<SlotId> = ids.flatten().map(|id| SlotId(unsigned(id))).collect();
    let slots = reads::slots(ledger, &ids).await?;
    let slots: BTreeMap<SlotId, SlotState> = slots.into_iter().map(|s| (s.slot, s)).collect();
    let lines: Result<Vec<_>, BoxError> = rows.iter().map(|row| line(row, &slots)).collect();
    lines.map_err(unreadable)
}

fn line(row: &Row, slots: &BTreeMap<SlotId, SlotState>) -> Result<LineRow, BoxError> {
    let slot = |id: i64| slots.get(&SlotId(unsigned(id))).cloned();
    let reason: Option<&str> = column(row, "reason")?;
    Ok(LineRow {
        line: unsigned_32(column(row, "line")?),
        wave: unsigned_32(column(row, "wave")?),
        code: column(row, "code")?,
        from: slot(column(row, "from_slot")?).ok_or(Garbled("from_slot"))?,
        to: column::<Option<i64>>(row, "to_slot")?.and_then(slot),
        state: LineState::from_word(column(row, "state")?).ok_or(Garbled("line.state"))?,
        reason: reason
            .map(|code| Refusal::from_code(code).ok_or(Garbled("line.reason")))
            .transpose()?,
    })
}

pub(super) async fn scene(
    ledger: &PostgresLedger,
    clinic: &ClinicId,
    incident: IncidentId,
    now: Timestamp,
) -> Result<Option<Scene>, Fault> {
    let Some(view) = view(ledger, clinic, incident).await? else {
        return Ok(None);
    };
    let now = system_time(now);
    let sql = include_str!("../sql/postgres_incident_scene.sql");
    let rows = ledger.read(sql, &[&incident.0, &now]).await?;
    let affected: Result<Vec<Affected>, BoxError> = rows.iter().map(affected).collect();
    let affected = affected.map_err(unreadable)?;
    let mut vaccines: Vec<&str> = Vec::new();
    let mut doses: Vec<i32> = Vec::new();
    for one in &affected {
        vaccines.push(one.slot.vaccine.as_str());
        doses.push(i32::from(one.slot.dose));
    }
    vaccines.sort_unstable();
    vaccines.dedup();
    doses.sort_unstable();
    doses.dedup();
    let free = free(ledger, now, &vaccines, &doses).await?;
    let all = "SELECT clinic, shard_id, display_name, district, latitude, longitude FROM clinic ORDER BY clinic";
    let clinics = ledger.read(all, &[]).await?;
    let clinics: Result<Vec<Clinic>, BoxError> = clinics.iter().map(supply::clinic).collect();
    Ok(Some(Scene {
        view,
        clinics: clinics.map_err(unreadable)?,
        free,
        affected,
    }))
}

async fn free(
    ledger: &PostgresLedger,
    now: SystemTime,
    vaccines: &[&str],
    doses: &[i32],
) -> Result<Vec<SlotState>, Fault> {
    let sql = include_str!("../sql/postgres_incident_free.sql");
    let rows = ledger.read(sql, &[&now, &vaccines, &doses]).await?;
    let slots: Result<Vec<SlotState>, BoxError> = rows.iter().map(slot_state).collect();
    slots.map_err(unreadable)
}

fn affected(row: &Row) -> Result<Affected, BoxError> {
    let visit: Option<&str> = column(row, "o_visit")?;
    let visit = visit.map(|word| AppointmentState::from_word(word).ok_or(Garbled("visit.state")));
    let begun = matches!(
        visit.transpose()?,
        Some(AppointmentState::CheckedIn | AppointmentState::Given)
    );
    Ok(Affected {
        booking: BookingId(column(row, "o_booking")?),
        code: column(row, "o_code")?,
        campaign: column::<&str>(row, "o_campaign")?.parse()?,
        person: person(row, "o_person")?,
        serial: Serial(unsigned(column(row, "o_serial")?)),
        version: ClaimVersion(unsigned(column(row, "o_version")?)),
        slot: slot_state(row)?,
        begun,
        other_day: column(row, "o_other_day")?,
    })
}

fn person(row: &Row, name: &str) -> Result<PersonId, BoxError> {
    Ok(PersonId::from_bytes(
        column::<&[u8]>(row, name)?.try_into()?,
    ))
}

pub(super) async fn due_moves(
    ledger: &PostgresLedger,
    shards: &[ShardId],
    limit: u32,
) -> Result<Vec<DueMove>, Fault> {
    let shards: Vec<i32> = shards.iter().map(|shard| signed_32(shard.0)).collect();
    let sql = include_str!("../sql/postgres_due_moves.sql");
    let rows = ledger.read(sql, &[&shards, &i64::from(limit)]).await?;
    let due: Result<Vec<DueMove>, BoxError> = rows.iter().map(due).collect();
    due.map_err(unreadable)
}

fn due(row: &Row) -> Result<DueMove, BoxError> {
    Ok(DueMove {
        at: LineAt {
            incident: IncidentId(column(row, "incident")?),
            plan: unsigned_32(column(row, "plan")?),
            line: unsigned_32(column(row, "line")?),
        },
        shard: ShardId(unsigned_32(column(row, "shard_id")?)),
        campaign: column::<&str>(row, "campaign")?.parse()?,
        person: person(row, "person")?,
        serial: Serial(unsigned(column(row, "serial")?)),
        version: ClaimVersion(unsigned(column(row, "version")?)),
        booking: BookingId(column(row, "booking")?),
        dose: dose(column(row, "dose")?)?,
        to: SlotId(unsigned(column(row, "to_slot")?)),
        request: RequestId(column(row, "request")?),
    })
}

pub(super) async fn settle(ledger: &PostgresLedger, settled: &[Settled]) -> Result<(), Fault> {
    let incidents: Vec<Uuid> = settled.iter().map(|one| one.at.incident.0).collect();
    let plans: Vec<i32> = settled.iter().map(|one| signed_32(one.at.plan)).collect();
    let lines: Vec<i32> = settled.iter().map(|one| signed_32(one.at.line)).collect();
    let reasons: Vec<Option<&str>> = settled
        .iter()
        .map(|one| one.outcome.err().map(Refusal::code))
        .collect();
    let versions: Vec<Option<i64>> = settled
        .iter()
        .map(|one| one.outcome.ok().map(|version| signed(version.0)))
        .collect();
    let rows = ledger
        .ask(SETTLE, &[&incidents, &plans, &lines, &reasons, &versions])
        .await;
    rows.map(drop)
        .map_err(|trouble| trouble.of_write(NO_SHARD, Epoch(0)))
}
