//! What clinics' terminals change and read.

use std::time::{Duration, SystemTime};

use domain::{BookingId, ClinicId, Epoch, Refusal, ShardId, SlotId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::PostgresLedger;
use super::trouble::{DRY_RUN, Garbled, TERMINAL_REFUSED, Trouble};
use super::values::{
    column, dose, signed, signed_32, system_time, timestamp, unreadable, unsigned,
};
use crate::ledger::terminal::Candidate;
use crate::ledger::{
    AppointmentState, BoxError, ClinicAnswer, ClinicChange, ClinicOp, ClinicRefusal, ClinicVerdict,
    Fault, NewRound, SheetRow, StockChange, StockRow, SupplyRow, VisitChange,
};

const STOCK: &str = "SELECT * FROM clinic_stock_v1($1, $2, $3, $4, $5, $6, $7, $8)";
const OPEN: &str = "SELECT * FROM clinic_open_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const RESIZE: &str = "SELECT * FROM clinic_resize_v1($1, $2, $3, $4, $5, $6)";
const CLOSE: &str = "SELECT * FROM clinic_close_v1($1, $2, $3, $4)";
const OFFER_LEFTOVERS: &str =
    "SELECT * FROM leftover_offer_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
const CLOSE_LEFTOVERS: &str = "SELECT * FROM leftover_close_v1($1, $2, $3, $4)";
const VISIT: &str = "SELECT * FROM clinic_visit_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// A change of a clinic belongs to no owner; its unknown outcome names this shard, which no region has.
pub(super) const NO_SHARD: ShardId = ShardId(u32::MAX);

/// Somebody else changes an appointment between reading and writing once in a while; never so often.
const LOOKS_MAX: usize = 4;

pub(super) async fn change(ledger: &PostgresLedger, op: &ClinicOp) -> Result<ClinicVerdict, Fault> {
    match &op.change {
        ClinicChange::Stock { what, vaccine } => {
            let (doses, lot) = match what {
                StockChange::Deliver(doses)
                | StockChange::Waste(doses)
                | StockChange::SetWalkIns(doses) => (i64::from(*doses), None),
                StockChange::GiveWalkIn(lot) => (1, Some(lot.as_str())),
            };
            let (method, now) = (op.method(), system_time(op.now));
            let rest: [&(dyn ToSql + Sync); 5] = [&method, &vaccine.as_str(), &doses, &lot, &now];
            written(ledger, op, STOCK, &rest).await
        }
        ClinicChange::Open { slots } => {
            let Some(first) = slots.first() else {
                return Ok(ClinicVerdict::Refused(Refusal::Invalid.into()));
            };
            let starts: Vec<SystemTime> = slots.iter().map(|s| system_time(s.starts_at)).collect();
            let days: Vec<i32> = slots.iter().map(|slot| slot.day).collect();
            let (vaccine, now) = (first.vaccine.as_str(), system_time(op.now));
            let (dose, capacity) = (i32::from(first.dose), signed_32(first.capacity));
            let rest: [&(dyn ToSql + Sync); 7] = [
                &vaccine,
                &dose,
                &starts,
                &days,
                &capacity,
                &now,
                &op.dry_run,
            ];
            written(ledger, op, OPEN, &rest).await
        }
        ClinicChange::Resize { slot, capacity } => {
            let rest: [&(dyn ToSql + Sync); 3] =
                [&signed(slot.0), &signed_32(*capacity), &system_time(op.now)];
            written(ledger, op, RESIZE, &rest).await
        }
        ClinicChange::Close { slots } => {
            let slots: Vec<i64> = slots.iter().map(|slot| signed(slot.0)).collect();
            written(ledger, op, CLOSE, &[&slots]).await
        }
        ClinicChange::OfferLeftovers(round) => offer_leftovers(ledger, op, round).await,
        ClinicChange::CloseLeftovers { round } => {
            written(ledger, op, CLOSE_LEFTOVERS, &[&signed(round.0)]).await
        }
        ClinicChange::Visit { code, what, today } => {
            let days: Vec<i32> = today.values().copied().collect();
            for _ in 0..LOOKS_MAX {
                if let Some(verdict) = recorded(ledger, op).await? {
                    return Ok(verdict);
                }
                let (candidates, elsewhere) = candidates(ledger, op, code, &days).await?;
                let meant = match what.choose(&candidates, today, elsewhere) {
                    Ok(meant) => meant,
                    Err(refused) => return Ok(ClinicVerdict::Refused(refused)),
                };
                if let Some(verdict) = visit(ledger, op, what, meant).await? {
                    return Ok(verdict);
                }
            }
            Err(Fault::Unavailable {
                source: "the appointment changes all the time".into(),
            })
        }
    }
}

async fn offer_leftovers(
    ledger: &PostgresLedger,
    op: &ClinicOp,
    round: &NewRound,
) -> Result<ClinicVerdict, Fault> {
    let rest: [&(dyn ToSql + Sync); 10] = [
        &round.campaign.as_str(),
        &round.vaccine.as_str(),
        &signed_32(round.doses),
        &round.seed.0.as_slice(),
        &millis(round.notice),
        &millis(round.answer_within),
        &system_time(round.closes_at),
        &round.day,
        &signed_32(round.minutes.0),
        &signed_32(round.minutes.1),
    ];
    written(ledger, op, OFFER_LEFTOVERS, &rest).await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Runs a function whose first three parameters are clinic, request and hash.
async fn asked(
    ledger: &PostgresLedger,
    op: &ClinicOp,
    sql: &str,
    rest: &[&(dyn ToSql + Sync)],
) -> Result<Result<Vec<Row>, ClinicVerdict>, Fault> {
    let (clinic, hash) = (op.clinic.as_str(), op.body_hash.0.as_slice());
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&clinic, &op.request.0, &hash];
    params.extend_from_slice(rest);
    match ledger.ask(sql, &params).await {
        Ok(rows) => Ok(Ok(rows)),
        Err(Trouble::Undone(undone)) if undone.code.code() == TERMINAL_REFUSED => {
            let refused = refused(&undone.message, undone.detail()).map_err(unreadable)?;
            Ok(Err(ClinicVerdict::Refused(refused)))
        }
        Err(Trouble::Undone(undone)) if undone.code.code() == DRY_RUN => {
            let answer = answer(undone.detail()).map_err(unreadable)?;
            Ok(Err(ClinicVerdict::Done(answer)))
        }
        Err(trouble) => Err(trouble.of_write(NO_SHARD, Epoch(0))),
    }
}

/// What `refuse_v1` says.
pub(super) fn refused(message: &str, detail: &str) -> Result<ClinicRefusal, BoxError> {
    Ok(ClinicRefusal {
        refusal: Refusal::from_code(message).ok_or(Garbled("refusal"))?,
        notes: serde_json::from_str(detail)?,
    })
}

async fn written(
    ledger: &PostgresLedger,
    op: &ClinicOp,
    sql: &str,
    rest: &[&(dyn ToSql + Sync)],
) -> Result<ClinicVerdict, Fault> {
    let rows = match asked(ledger, op, sql, rest).await? {
        Ok(rows) => rows,
        Err(verdict) => return Ok(verdict),
    };
    // It was committed: what cannot be understood is to be asked for again.
    done(&rows).map_err(|source| Fault::Unknown {
        shard: NO_SHARD,
        source,
    })
}

fn done(rows: &[Row]) -> Result<ClinicVerdict, BoxError> {
    let row = rows.first().ok_or(Garbled("clinic"))?;
    let answer = answer(column(row, "o_answer")?)?;
    Ok(if column(row, "o_repeated")? {
        ClinicVerdict::Exists(answer)
    } else {
        ClinicVerdict::Done(answer)
    })
}

fn answer(text: &str) -> Result<ClinicAnswer, BoxError> {
    Ok(serde_json::from_str(text)?)
}

async fn recorded(ledger: &PostgresLedger, op: &ClinicOp) -> Result<Option<ClinicVerdict>, Fault> {
    let sql = "SELECT body_hash, answer FROM clinic_request WHERE clinic = $1 AND request_id = $2";
    let rows = ledger
        .read(sql, &[&op.clinic.as_str(), &op.request.0])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let read = || -> Result<ClinicVerdict, BoxError> {
        if column::<&[u8]>(row, "body_hash")? != op.body_hash.0 {
            return Ok(ClinicVerdict::Refused(Refusal::RequestIdReused.into()));
        }
        Ok(ClinicVerdict::Exists(answer(column(row, "answer")?)?))
    };
    read().map(Some).map_err(unreadable)
}

/// What the code may mean, today's appointments first; and whether it has one today at another clinic.
async fn candidates(
    ledger: &PostgresLedger,
    op: &ClinicOp,
    code: &str,
    today: &[i32],
) -> Result<(Vec<Candidate>, bool), Fault> {
    let sql = include_str!("../sql/postgres_candidates.sql");
    let mut found = Vec::new();
    // Nearly always it is today's; only then is it worth a look at all the clinic's days.
    for days in [Some(today), None] {
        let rows = ledger
            .read(sql, &[&op.clinic.as_str(), &code, &days])
            .await?;
        let rows: Result<Vec<_>, BoxError> = rows.iter().map(candidate).collect();
        found = rows.map_err(unreadable)?;
        if found
            .iter()
            .any(|one| one.state != AppointmentState::Cancelled)
        {
            return Ok((found, false));
        }
    }
    let elsewhere =
        "SELECT 1 FROM booking WHERE day = ANY ($1) AND code = $2 AND state = 'BOOKED' LIMIT 1";
    let rows = ledger.read(elsewhere, &[&today, &code]).await?;
    Ok((found, !rows.is_empty()))
}

fn candidate(row: &Row) -> Result<Candidate, BoxError> {
    Ok(Candidate {
        slot: SlotId(unsigned(column(row, "slot_id")?)),
        booking: BookingId(column::<Uuid>(row, "booking")?),
        campaign: column::<&str>(row, "campaign")?.parse()?,
        day: column(row, "day")?,
        vaccine: column::<&str>(row, "vaccine")?.parse()?,
        dose: dose(column(row, "dose")?)?,
        state: state(row)?,
    })
}

fn state(row: &Row) -> Result<AppointmentState, BoxError> {
    AppointmentState::from_word(column(row, "state")?).ok_or_else(|| Garbled("state").into())
}

/// Writes what became of an appointment; `None` = it changed since it was read.
async fn visit(
    ledger: &PostgresLedger,
    op: &ClinicOp,
    what: &VisitChange,
    meant: &Candidate,
) -> Result<Option<ClinicVerdict>, Fault> {
    let rest: [&(dyn ToSql + Sync); 6] = [
        &op.method(),
        &signed(meant.slot.0),
        &meant.booking.0,
        &meant.state.word(),
        &what.after().word(),
        &what.lot(),
    ];
    let rows = match asked(ledger, op, VISIT, &rest).await? {
        Ok(rows) => rows,
        Err(verdict) => return Ok(Some(verdict)),
    };
    let read = || -> Result<Option<ClinicVerdict>, BoxError> {
        let row = rows.first().ok_or(Garbled("visit"))?;
        if column::<Option<bool>>(row, "o_changed")?.unwrap_or(false) {
            return Ok(None);
        }
        done(&rows).map(Some)
    };
    read().map_err(|source| Fault::Unknown {
        shard: NO_SHARD,
        source,
    })
}

pub(super) async fn day_sheet(
    ledger: &PostgresLedger,
    clinic: &ClinicId,
    day: i32,
    after: Option<(Timestamp, String)>,
    limit: u32,
) -> Result<Vec<SheetRow>, Fault> {
    let sql = include_str!("../sql/postgres_day_sheet.sql");
    let (at, code) = after.unzip();
    let rows = ledger
        .read(
            sql,
            &[
                &clinic.as_str(),
                &day,
                &at.map(system_time),
                &code,
                &i64::from(limit),
            ],
        )
        .await?;
    let rows: Result<Vec<_>, BoxError> = rows
        .iter()
        .map(|row| {
            Ok(SheetRow {
                code: column(row, "code")?,
                starts_at: timestamp(column(row, "starts_at")?),
                vaccine: column::<&str>(row, "vaccine")?.parse()?,
                dose: dose(column(row, "dose")?)?,
                state: state(row)?,
            })
        })
        .collect();
    rows.map_err(unreadable)
}

pub(super) async fn supply(ledger: &PostgresLedger) -> Result<Vec<SupplyRow>, Fault> {
    let rows = ledger
        .read(include_str!("../sql/postgres_supply.sql"), &[])
        .await?;
    let rows: Result<Vec<_>, BoxError> = rows
        .iter()
        .map(|row| {
            let count = |name| column::<i64>(row, name).map(unsigned);
            Ok(SupplyRow {
                clinic: column::<&str>(row, "clinic")?.parse()?,
                district: column(row, "district")?,
                stock: StockRow {
                    vaccine: column::<&str>(row, "vaccine")?.parse()?,
                    received: count("received")?,
                    wasted: count("wasted")?,
                    walk_in: count("walk_in")?,
                    opened: count("opened")?,
                    given: count("given")?,
                    walk_in_given: count("walk_in_given")?,
                },
                held: count("held")?,
                booked: count("booked")?,
                left: count("places_left")?,
            })
        })
        .collect();
    rows.map_err(unreadable)
}
