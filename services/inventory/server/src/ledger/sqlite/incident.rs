//! Incidents: closing, plans, and what came of each line. By the rules of the functions in PostgreSQL.

use domain::{
    BookingId, ClaimVersion, ClinicId, IncidentId, PersonId, Refusal, RequestId, Serial, ShardId,
    SlotId, SlotState, Timestamp, VaccineId,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::reads::clinic;
use super::rows::{SLOT_COLUMNS, parsed, read_slot, slot_state, stored, visit_state};
use super::terminal::{restock, unlike};
use super::writing::Outcome;
use crate::ledger::{
    Affected, AppointmentState, ClinicRefusal, Closing, DueMove, Fault, IncidentChange,
    IncidentKind, IncidentOp, IncidentState, IncidentVerdict, IncidentView, LineAt, LineRow,
    LineState, PlanLine, Scene, Settled,
};

/// The incident and the slots that were closed, or why not.
type Changed = Result<Vec<SlotId>, ClinicRefusal>;

struct Desk<'a> {
    db: &'a Connection,
    op: &'a IncidentOp,
    clinic: &'a str,
    at: Timestamp,
}

pub(super) fn change(
    db: &Connection,
    at: Timestamp,
    op: &IncidentOp,
) -> Result<Outcome<IncidentVerdict>, Fault> {
    let desk = Desk {
        db,
        op,
        clinic: op.clinic.as_str(),
        at,
    };
    desk.run().map_err(super::unavailable)
}

impl Desk<'_> {
    fn run(&self) -> rusqlite::Result<Outcome<IncidentVerdict>> {
        let refuse = |why| Ok(Outcome::undo(IncidentVerdict::Refused(why)));
        let known = self
            .db
            .prepare_cached("SELECT 1 FROM clinic WHERE clinic = ?1")?
            .exists([self.clinic])?;
        if !known {
            return refuse(Refusal::ClinicUnknown.into());
        }
        if let Some((hash, answer)) = self.recorded()? {
            if hash != self.op.body_hash.0 {
                return refuse(Refusal::RequestIdReused.into());
            }
            let view = serde_json::from_str(&answer).map_err(unlike(1))?;
            return Ok(Outcome::undo(IncidentVerdict::Exists(view)));
        }
        let changed = match &self.op.change {
            IncidentChange::Open(closing) => Ok(self.open(closing)?),
            IncidentChange::Plan(lines) => self.plan(lines)?,
            IncidentChange::Apply { plan } => self.apply(*plan)?,
        };
        match changed {
            Err(refused) => refuse(refused),
            Ok(slots) => {
                let view = view(self.db, &self.op.clinic, self.op.incident)?;
                let view = view.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                self.record(&view)?;
                Ok(Outcome::keep(IncidentVerdict::Done(view, slots)))
            }
        }
    }

    fn recorded(&self) -> rusqlite::Result<Option<([u8; 16], String)>> {
        self.db
            .prepare_cached(
                "SELECT body_hash, answer FROM clinic_request WHERE clinic = ?1 AND request_id = ?2",
            )?
            .query_row(params![self.clinic, self.op.request.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
    }

    fn record(&self, view: &IncidentView) -> rusqlite::Result<()> {
        let answer = serde_json::to_string(view)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.db
            .prepare_cached(
                "INSERT INTO clinic_request (clinic, request_id, method, body_hash, answer, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.clinic,
                self.op.request.as_bytes(),
                self.op.method(),
                self.op.body_hash.0,
                answer,
                self.at.as_micros(),
            ])?;
        Ok(())
    }

    fn open(&self, closing: &Closing) -> rusqlite::Result<Vec<SlotId>> {
        let vaccine = closing.vaccine.as_ref().map(VaccineId::as_str);
        let closed: Vec<SlotId> = self
            .db
            .prepare_cached(
                "UPDATE slot SET open = 0 WHERE clinic = ?1 AND day BETWEEN ?2 AND ?3 AND starts_at > ?4
                    AND (?5 IS NULL OR vaccine = ?5) AND open
                 RETURNING slot_id",
            )?
            .query_map(
                params![
                    self.clinic,
                    closing.from_day,
                    closing.to_day,
                    closing.now.as_micros(),
                    vaccine
                ],
                |row| Ok(SlotId(row.get(0)?)),
            )?
            .collect::<rusqlite::Result<_>>()?;
        let mut stocked = self.db.prepare_cached(
            "SELECT vaccine FROM stock WHERE clinic = ?1 AND (?2 IS NULL OR vaccine = ?2)",
        )?;
        let stocked: Vec<VaccineId> = stocked
            .query_map(params![self.clinic, vaccine], |row| parsed(row, 0))?
            .collect::<rusqlite::Result<_>>()?;
        for vaccine in &stocked {
            restock(self.db, self.clinic, vaccine)?;
        }
        self.db
            .prepare_cached(
                "INSERT INTO incident (incident, clinic, kind, vaccine, from_day, to_day, state, opened_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'OPEN', ?7)",
            )?
            .execute(params![
                self.op.incident.as_bytes(),
                self.clinic,
                closing.kind.word(),
                vaccine,
                closing.from_day,
                closing.to_day,
                closing.now.as_micros(),
            ])?;
        let everybody = affected(self.db, self.op.incident, closing.now)?;
        for (who, line) in everybody.iter().zip(1u32..) {
            self.line(0, line, LineState::Affected, who, None)?;
        }
        for slot in &closed {
            self.db
                .prepare_cached(
                    "INSERT INTO event (at, kind, side, shard_id, slot_id)
                     SELECT ?1, 'SUPPLY', 1, shard_id, slot_id FROM slot WHERE slot_id = ?2",
                )?
                .execute(params![self.at.as_micros(), slot.0])?;
        }
        Ok(closed)
    }

    /// The state of the incident and its last plan.
    fn locked(&self) -> rusqlite::Result<Option<(IncidentState, u32)>> {
        let found = view(self.db, &self.op.clinic, self.op.incident)?;
        Ok(found.map(|view| (view.state, view.plan)))
    }

    fn plan(&self, lines: &[PlanLine]) -> rusqlite::Result<Changed> {
        let Some((state, last)) = self.locked()? else {
            return Ok(Err(Refusal::IncidentUnknown.into()));
        };
        if state == IncidentState::Applying {
            return Ok(Err(Refusal::PlanInProgress.into()));
        }
        self.db
            .prepare_cached("UPDATE incident SET plan = ?2, state = 'PLANNED' WHERE incident = ?1")?
            .execute(params![self.op.incident.as_bytes(), last + 1])?;
        for (planned, line) in lines.iter().zip(1u32..) {
            let state = match planned.to {
                Ok(_) => LineState::Planned,
                Err(_) => LineState::Unmovable,
            };
            self.line(last + 1, line, state, &planned.who, Some(planned))?;
        }
        Ok(Ok(Vec::new()))
    }

    fn line(
        &self,
        plan: u32,
        line: u32,
        state: LineState,
        who: &Affected,
        planned: Option<&PlanLine>,
    ) -> rusqlite::Result<()> {
        let to = planned.and_then(|planned| planned.to.ok());
        self.db
            .prepare_cached(
                "INSERT INTO incident_line (incident, plan, line, wave, state, reason, campaign, person, serial, version,
                    booking, code, dose, from_slot, to_slot, request, after_line)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            )?
            .execute(params![
                self.op.incident.as_bytes(),
                plan,
                line,
                planned.map_or(0, |planned| planned.wave),
                state.word(),
                planned.and_then(|planned| planned.to.err()).map(Refusal::code),
                who.campaign.as_str(),
                who.person.as_bytes(),
                who.serial.0,
                who.version.0,
                who.booking.as_bytes(),
                who.code,
                who.slot.dose,
                who.slot.slot.0,
                to.map(|(slot, _)| stored(slot)),
                to.as_ref().map(|(_, request)| request.as_bytes()),
                planned.and_then(|planned| planned.after),
            ])?;
        Ok(())
    }

    fn apply(&self, plan: u32) -> rusqlite::Result<Changed> {
        let Some((state, last)) = self.locked()? else {
            return Ok(Err(Refusal::IncidentUnknown.into()));
        };
        if last == 0 || last != plan {
            let problem = format!("the last one is {last}");
            return Ok(Err(ClinicRefusal::noted(
                Refusal::PlanStale,
                "plan",
                problem,
            )));
        }
        match state {
            IncidentState::Applying => return Ok(Err(Refusal::PlanInProgress.into())),
            IncidentState::Applied => return Ok(Err(Refusal::PlanApplied.into())),
            IncidentState::Open | IncidentState::Planned => {}
        }
        self.db
            .prepare_cached("UPDATE incident SET state = 'APPLYING' WHERE incident = ?1")?
            .execute([self.op.incident.as_bytes()])?;
        finish(self.db, self.op.incident)?;
        Ok(Ok(Vec::new()))
    }
}

/// An incident whose lines were all tried is applied.
fn finish(db: &Connection, incident: IncidentId) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE incident SET state = 'APPLIED' WHERE incident = ?1 AND state = 'APPLYING' AND NOT EXISTS (
            SELECT 1 FROM incident_line l
            WHERE l.incident = incident.incident AND l.plan = incident.plan AND l.state = 'PLANNED')",
    )?
    .execute([incident.as_bytes()])?;
    Ok(())
}

pub(super) fn settle(db: &Connection, settled: &[Settled]) -> rusqlite::Result<()> {
    for Settled { at, outcome } in settled {
        db.prepare_cached(
            "UPDATE incident_line SET state = ?4, reason = ?5, version_after = ?6
             WHERE incident = ?1 AND plan = ?2 AND line = ?3 AND state = 'PLANNED'",
        )?
        .execute(params![
            at.incident.as_bytes(),
            at.plan,
            at.line,
            if outcome.is_ok() { "MOVED" } else { "FAILED" },
            outcome.err().map(Refusal::code),
            outcome.ok().map(|version| version.0),
        ])?;
        finish(db, at.incident)?;
    }
    Ok(())
}

pub(super) fn view(
    db: &Connection,
    clinic: &ClinicId,
    incident: IncidentId,
) -> rusqlite::Result<Option<IncidentView>> {
    db.prepare_cached(
        "SELECT i.kind, i.vaccine, i.from_day, i.to_day, i.state, i.plan, i.opened_at, count(l.line),
            coalesce(sum(l.state = 'PLANNED'), 0), coalesce(sum(l.state = 'MOVED'), 0),
            coalesce(sum(l.state = 'FAILED'), 0), coalesce(sum(l.state = 'UNMOVABLE'), 0),
            (SELECT count(*) FROM slot s JOIN booking b ON b.slot_id = s.slot_id
             WHERE s.clinic = i.clinic AND s.day BETWEEN i.from_day AND i.to_day AND NOT s.open
                AND s.starts_at > i.opened_at AND (i.vaccine IS NULL OR s.vaccine = i.vaccine) AND b.state = 'HELD')
         FROM incident i LEFT JOIN incident_line l ON l.incident = i.incident AND l.plan = i.plan
         WHERE i.incident = ?1 AND i.clinic = ?2 GROUP BY i.incident",
    )?
    .query_row(params![incident.as_bytes(), clinic.as_str()], |row| {
        Ok(IncidentView {
            incident,
            kind: word(row, 0, IncidentKind::from_word)?,
            vaccine: row
                .get::<_, Option<String>>(1)?
                .map(|_| parsed(row, 1))
                .transpose()?,
            from_day: row.get(2)?,
            to_day: row.get(3)?,
            state: word(row, 4, IncidentState::from_word)?,
            plan: row.get(5)?,
            opened_at: Timestamp::from_micros(row.get(6)?),
            affected: row.get(7)?,
            planned: row.get(8)?,
            moved: row.get(9)?,
            failed: row.get(10)?,
            unmovable: row.get(11)?,
            held: row.get(12)?,
        })
    })
    .optional()
}

fn word<T>(row: &Row<'_>, column: usize, of: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    of(row.get_ref(column)?.as_str()?).ok_or(rusqlite::Error::InvalidQuery)
}

pub(super) fn lines(
    db: &Connection,
    incident: IncidentId,
    plan: u32,
    after: u32,
    limit: u32,
) -> rusqlite::Result<Vec<LineRow>> {
    db.prepare_cached(
        "SELECT line, wave, code, from_slot, to_slot, state, reason FROM incident_line
         WHERE incident = ?1 AND plan = ?2 AND line > ?3 ORDER BY line LIMIT ?4",
    )?
    .query_map(params![incident.as_bytes(), plan, after, limit], |row| {
        let to: Option<u64> = row.get(4)?;
        let reason: Option<String> = row.get(6)?;
        let reason =
            reason.map(|code| Refusal::from_code(&code).ok_or(rusqlite::Error::InvalidQuery));
        Ok(LineRow {
            line: row.get(0)?,
            wave: row.get(1)?,
            code: row.get(2)?,
            from: slot_state(db, SlotId(row.get(3)?))?.ok_or(rusqlite::Error::InvalidQuery)?,
            to: to
                .map(|slot| slot_state(db, SlotId(slot)))
                .transpose()?
                .flatten(),
            state: word(row, 5, LineState::from_word)?,
            reason: reason.transpose()?,
        })
    })?
    .collect()
}

pub(super) fn scene(
    db: &Connection,
    clinic_id: &ClinicId,
    incident: IncidentId,
    now: Timestamp,
) -> rusqlite::Result<Option<Scene>> {
    let Some(view) = view(db, clinic_id, incident)? else {
        return Ok(None);
    };
    let affected = affected(db, incident, now)?;
    let mut free: Vec<SlotState> = db
        .prepare_cached(&format!(
            "SELECT {SLOT_COLUMNS} FROM slot WHERE open AND booked < capacity AND starts_at > ?1 ORDER BY slot_id"
        ))?
        .query_map([now.as_micros()], read_slot)?
        .collect::<rusqlite::Result<_>>()?;
    free.retain(|slot| {
        let vaccine = affected.iter().any(|one| one.slot.vaccine == slot.vaccine);
        vaccine && affected.iter().any(|one| one.slot.dose == slot.dose)
    });
    let clinics = db
        .prepare_cached(
            "SELECT clinic, shard_id, display_name, district, latitude, longitude FROM clinic ORDER BY clinic",
        )?
        .query_map([], clinic)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Scene {
        view,
        affected,
        clinics,
        free,
    }))
}

/// Who is booked at the slots of an incident that have not begun.
fn affected(
    db: &Connection,
    incident: IncidentId,
    now: Timestamp,
) -> rusqlite::Result<Vec<Affected>> {
    let mut query = db.prepare_cached(
        "SELECT b.booking, b.code, b.campaign, b.person, c.serial, c.version, s.slot_id,
            (SELECT x.day FROM slot x WHERE x.slot_id IN (c.first_slot, c.second_slot) AND x.slot_id <> s.slot_id)
         FROM incident i
         JOIN slot s ON s.clinic = i.clinic AND s.day BETWEEN i.from_day AND i.to_day AND s.starts_at > ?2
            AND (i.vaccine IS NULL OR s.vaccine = i.vaccine) AND NOT s.open
         JOIN booking b ON b.slot_id = s.slot_id AND b.state = 'BOOKED'
         JOIN claim c ON c.campaign = b.campaign AND c.person = b.person AND c.state = 'BOOKED' AND c.booking = b.booking
         WHERE i.incident = ?1
         ORDER BY s.starts_at, b.code, b.dose",
    )?;
    let rows = query.query_map(params![incident.as_bytes(), now.as_micros()], |row| {
        let booking = BookingId::from_bytes(row.get(0)?);
        let slot = SlotId(row.get(6)?);
        let visit = visit_state(db, slot, booking)?;
        Ok(Affected {
            booking,
            code: row.get(1)?,
            campaign: parsed(row, 2)?,
            person: PersonId::from_bytes(row.get(3)?),
            serial: Serial(row.get(4)?),
            version: ClaimVersion(row.get(5)?),
            slot: slot_state(db, slot)?.ok_or(rusqlite::Error::InvalidQuery)?,
            begun: matches!(
                visit,
                Some(AppointmentState::CheckedIn | AppointmentState::Given)
            ),
            other_day: row.get(7)?,
        })
    })?;
    rows.collect()
}

pub(super) fn due_moves(
    db: &Connection,
    shards: &[ShardId],
    limit: u32,
) -> rusqlite::Result<Vec<DueMove>> {
    let mut query = db.prepare_cached(
        "SELECT l.incident, l.plan, l.line, s.shard_id, l.campaign, l.person, l.serial, l.booking, l.dose, l.to_slot,
            l.request, CASE WHEN p.state = 'MOVED' THEN p.version_after ELSE l.version END
         FROM incident i
         JOIN incident_line l ON l.incident = i.incident AND l.plan = i.plan AND l.state = 'PLANNED' AND l.wave = (
            SELECT min(w.wave) FROM incident_line w
            WHERE w.incident = i.incident AND w.plan = i.plan AND w.state = 'PLANNED')
         LEFT JOIN incident_line p ON p.incident = l.incident AND p.plan = l.plan AND p.line = l.after_line
         JOIN slot s ON s.slot_id = l.to_slot
         WHERE i.state = 'APPLYING'
         ORDER BY i.opened_at, l.incident, l.line",
    )?;
    let rows = query.query_map([], |row| {
        Ok(DueMove {
            at: LineAt {
                incident: IncidentId::from_bytes(row.get(0)?),
                plan: row.get(1)?,
                line: row.get(2)?,
            },
            shard: ShardId(row.get(3)?),
            campaign: parsed(row, 4)?,
            person: PersonId::from_bytes(row.get(5)?),
            serial: Serial(row.get(6)?),
            booking: BookingId::from_bytes(row.get(7)?),
            dose: row.get(8)?,
            to: SlotId(row.get(9)?),
            request: RequestId::from_bytes(row.get(10)?),
            version: ClaimVersion(row.get(11)?),
        })
    })?;
    let mine = |due: &rusqlite::Result<DueMove>| match due {
        Ok(due) => shards.contains(&due.shard),
        Err(_) => true,
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    rows.filter(mine).take(most).collect()
}
