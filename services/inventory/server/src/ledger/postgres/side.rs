//! Moves, cancellations, and what is recorded of a person.

use domain::command::BodyHash;
use domain::{
    BookingId, CampaignId, ClaimVersion, Epoch, PersonId, Recorded, Refusal, RequestId, Serial,
    ShardId, SlotId, Verdict, booking_code,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::PostgresLedger;
use super::trouble::{Garbled, Trouble};
use super::values::{
    RequestRow, column, signed, signed_32, slot_state, timestamp, unreadable, unsigned, unsigned_32,
};
use crate::ledger::{
    Appointment, AppointmentState, BoxError, CancelOp, ClaimState, ClaimView, Fault, MoveOp,
    SideAnswer, SlotCount,
};

const MOVE: &str = "SELECT * FROM move_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

const CANCEL: &str = "SELECT * FROM cancel_v1($1, $2, $3, $4, $5, $6, $7, $8)";

/// A cancellation belongs to no shard; its unknown outcome names this one, which no region has.
pub(super) const NO_SHARD: ShardId = ShardId(u32::MAX);

pub(super) async fn move_booking(
    ledger: &PostgresLedger,
    shard: ShardId,
    epoch: Epoch,
    op: &MoveOp,
) -> Result<SideAnswer, Fault> {
    let rows = ledger
        .ask(
            MOVE,
            &[
                &signed_32(shard.0),
                &signed(epoch.0),
                &op.claimant.campaign.as_str(),
                &op.claimant.person.as_bytes().as_slice(),
                &signed(op.claimant.serial.0),
                &op.request.0,
                &op.body_hash.0.as_slice(),
                &signed(op.claim_version.0),
                &op.booking.0,
                &booking_code::of(op.booking),
                &i32::from(op.dose),
                &signed(op.to.0),
            ],
        )
        .await
        .map_err(|trouble| trouble.of_write(shard, epoch))?;
    // It was committed: what cannot be understood is to be asked for again.
    side_answer(&rows).map_err(|source| Fault::Unknown { shard, source })
}

pub(super) async fn cancel(ledger: &PostgresLedger, op: &CancelOp) -> Result<SideAnswer, Fault> {
    let rows = ledger
        .ask(
            CANCEL,
            &[
                &op.claimant.campaign.as_str(),
                &op.claimant.person.as_bytes().as_slice(),
                &signed(op.claimant.serial.0),
                &op.request.0,
                &op.body_hash.0.as_slice(),
                &signed(op.claim_version.0),
                &op.booking.0,
                &op.dose.map(i32::from),
            ],
        )
        .await
        .map_err(|trouble: Trouble| trouble.of_write(NO_SHARD, Epoch(0)))?;
    side_answer(&rows).map_err(|source| Fault::Unknown {
        shard: NO_SHARD,
        source,
    })
}

fn side_answer(rows: &[Row]) -> Result<SideAnswer, BoxError> {
    let row = rows.first().ok_or(Garbled("side"))?;
    let version: Option<i64> = column(row, "o_version")?;
    let done: Option<&str> = column(row, "o_done")?;
    let recorded: Option<&str> = column(row, "o_recorded")?;
    let refusal: Option<&str> = column(row, "o_refusal")?;
    let verdict = if let Some(code) = refusal {
        Verdict::Refused {
            refusal: Refusal::from_code(code).ok_or(Garbled("refusal"))?,
            claim_version: version.map(|version| ClaimVersion(unsigned(version))),
        }
    } else {
        let request = RequestRow {
            verdict: done.or(recorded).ok_or(Garbled("verdict"))?,
            booking: column(row, "o_booking")?,
            first: column(row, "o_first")?,
            second: column(row, "o_second")?,
            until: column(row, "o_until")?,
            version,
        };
        let answer = request.recorded()?;
        match done {
            Some(_) => Verdict::Done(answer),
            None => Verdict::Exists(answer),
        }
    };
    Ok(SideAnswer {
        verdict,
        slots: side_slots(row)?,
    })
}

pub(super) fn side_slots(row: &Row) -> Result<Vec<SlotCount>, BoxError> {
    let slots: Option<Vec<i64>> = column(row, "o_slot")?;
    let capacity: Option<Vec<i32>> = column(row, "o_capacity")?;
    let booked: Option<Vec<i32>> = column(row, "o_booked")?;
    let open: Option<Vec<bool>> = column(row, "o_open")?;
    let (Some(slots), Some(capacity), Some(booked), Some(open)) = (slots, capacity, booked, open)
    else {
        return Ok(Vec::new());
    };
    let all = slots.into_iter().zip(capacity).zip(booked).zip(open);
    Ok(all
        .map(|(((slot, capacity), booked), open)| SlotCount {
            slot: SlotId(unsigned(slot)),
            capacity: unsigned_32(capacity),
            booked: unsigned_32(booked),
            open,
        })
        .collect())
}

pub(super) async fn recorded(
    ledger: &PostgresLedger,
    requests: &[(CampaignId, PersonId, RequestId)],
) -> Result<Vec<Option<(BodyHash, Recorded)>>, Fault> {
    let campaigns: Vec<&str> = requests.iter().map(|(c, ..)| c.as_str()).collect();
    let people: Vec<&[u8]> = requests
        .iter()
        .map(|(_, person, _)| person.as_bytes().as_slice())
        .collect();
    let ids: Vec<Uuid> = requests.iter().map(|(.., request)| request.0).collect();
    let sql = include_str!("../sql/postgres_recorded.sql");
    let rows = ledger.read(sql, &[&campaigns, &people, &ids]).await?;
    let read = |row: &Row| -> Result<(usize, (BodyHash, Recorded)), BoxError> {
        let at: i64 = column(row, "at")?;
        let hash = column::<&[u8]>(row, "body_hash")?.try_into()?;
        let request = RequestRow {
            verdict: column(row, "verdict")?,
            booking: column(row, "booking")?,
            first: column(row, "first_slot")?,
            second: column(row, "second_slot")?,
            until: column(row, "hold_until")?,
            version: column(row, "version_after")?,
        };
        Ok((
            usize::try_from(at - 1)?,
            (BodyHash(hash), request.recorded()?),
        ))
    };
    let mut found = vec![None; requests.len()];
    for row in &rows {
        let (at, answer) = read(row).map_err(unreadable)?;
        if let Some(place) = found.get_mut(at) {
            *place = Some(answer);
        }
    }
    Ok(found)
}

pub(super) async fn claim(
    ledger: &PostgresLedger,
    campaign: &CampaignId,
    person: PersonId,
) -> Result<Option<ClaimView>, Fault> {
    let sql = include_str!("../sql/postgres_claim.sql");
    let person = person.as_bytes().as_slice();
    let rows = ledger.read(sql, &[&campaign.as_str(), &person]).await?;
    claim_view(&rows).map_err(unreadable)
}

/// One row for each appointment, at least one for a claim.
fn claim_view(rows: &[Row]) -> Result<Option<ClaimView>, BoxError> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let state = match column(row, "state")? {
        "FREE" => ClaimState::Free,
        "HELD" => ClaimState::Held,
        "BOOKED" => ClaimState::Booked,
        "SURRENDERED" => ClaimState::Surrendered,
        _ => return Err(Garbled("claim.state").into()),
    };
    let visits = match state {
        ClaimState::Held => AppointmentState::Held,
        ClaimState::Booked => AppointmentState::Booked,
        ClaimState::Free | ClaimState::Surrendered => AppointmentState::Cancelled,
    };
    let active = visits != AppointmentState::Cancelled;
    let mut view = ClaimView {
        state,
        serial: Serial(unsigned(column(row, "serial")?)),
        version: ClaimVersion(unsigned(column(row, "version")?)),
        booking: column::<Option<Uuid>>(row, "booking")?
            .filter(|_| active)
            .map(BookingId),
        hold_until: column::<Option<_>>(row, "hold_until")?
            .filter(|_| state == ClaimState::Held)
            .map(timestamp),
        appointments: Vec::new(),
    };
    for row in rows {
        if active && column::<Option<i64>>(row, "slot_id")?.is_some() {
            let visit = column::<Option<&str>>(row, "visit")?.map(AppointmentState::from_word);
            view.appointments.push(Appointment {
                slot: slot_state(row)?,
                state: visit.map_or(Ok(visits), |known| known.ok_or(Garbled("visit.state")))?,
            });
        }
    }
    Ok(Some(view))
}
