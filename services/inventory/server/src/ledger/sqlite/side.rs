//! What is not a batch: moves and cancellations. Every owner of a slot they change is told by an event.

use domain::command::Done;
use domain::{
    BookingId, ClaimVersion, Claimant, Epoch, Recorded, Refusal, ShardId, SlotId, SlotPair,
    SlotState, Timestamp, Verdict,
};
use rusqlite::{Connection, params};

use super::batch::epoch_in_force;
use super::rows::{ClaimRow, pair, superseded, visit_state};
use super::work::{Asked, Authority, Work};
use super::writing::{Outcome, statement_fault};
use crate::ledger::{AppointmentState, CancelOp, ClaimState, Fault, MoveOp, SideAnswer};

/// Moves an appointment under the epoch of the target's shard.
pub(super) fn move_booking(
    db: &Connection,
    now: Timestamp,
    shard: ShardId,
    epoch: Epoch,
    op: &MoveOp,
) -> Result<Outcome<SideAnswer>, Fault> {
    let failed = |error| statement_fault(shard, error);
    let found = epoch_in_force(db, shard).map_err(failed)?;
    if found != epoch {
        return Err(Fault::Fenced {
            shard,
            held: epoch,
            found,
        });
    }
    let mut work = Work::new(db, now, Authority::Side { shard, epoch });
    let verdict = decide_move(&mut work, op).map_err(failed)?;
    let slots = work.counts().map_err(failed)?;
    Ok(Outcome::keep(SideAnswer { verdict, slots }))
}

/// Gives up a booking or one dose of it, under no epoch.
pub(super) fn cancel(
    db: &Connection,
    now: Timestamp,
    op: &CancelOp,
) -> Result<Outcome<SideAnswer>, Fault> {
    // The shard of the first slot given up stands for the whole in the request row and in an unknown outcome.
    let shard = home_shard(db, &op.claimant).map_err(super::unavailable)?;
    let authority = Authority::Side {
        shard,
        epoch: Epoch(0),
    };
    let mut work = Work::new(db, now, authority);
    let failed = |error| statement_fault(shard, error);
    let verdict = decide_cancel(&mut work, op).map_err(failed)?;
    let slots = work.counts().map_err(failed)?;
    Ok(Outcome {
        value: SideAnswer { verdict, slots },
        keep: true,
        shard: Some(shard),
    })
}

pub(super) fn home_shard(db: &Connection, who: &Claimant) -> rusqlite::Result<ShardId> {
    let shard: Option<u32> = db
        .prepare_cached(
            "SELECT min(shard_id) FROM slot WHERE slot_id IN (
                SELECT first_slot FROM claim WHERE campaign = ?1 AND person = ?2
                UNION SELECT second_slot FROM claim WHERE campaign = ?1 AND person = ?2)",
        )?
        .query_row(
            params![who.campaign.as_str(), who.person.as_bytes()],
            |row| row.get(0),
        )?;
    Ok(ShardId(shard.unwrap_or(0)))
}

fn decide_move(work: &mut Work<'_>, op: &MoveOp) -> rusqlite::Result<Verdict> {
    let asked = Asked {
        claimant: &op.claimant,
        request: op.request,
        body_hash: op.body_hash,
        method: "move_booking",
    };
    if let Some(verdict) = work.replay(&asked)? {
        return Ok(verdict);
    }
    let mut claim = work.claim(&op.claimant)?;
    let active = match booked(work, &asked, &claim, op.booking, op.claim_version)? {
        Ok(active) => active,
        Err(refusal) => return Ok(claim.refuse(refusal)),
    };
    let Some(from) = active.iter().find(|slot| slot.dose == op.dose) else {
        return Ok(claim.refuse(Refusal::DoseUnknown));
    };
    if begun(work, op.booking, &[from.slot])? {
        return Ok(claim.refuse(Refusal::AppointmentBegun));
    }
    let target = match target_slot(work, op.to, from)? {
        Ok(target) => target,
        Err(refusal) => return Ok(claim.refuse(refusal)),
    };
    work.take(
        asked.claimant,
        op.booking,
        &target,
        AppointmentState::Booked,
    )?;
    work.give_back(op.booking, from.slot)?;
    let slots: Vec<SlotId> = active
        .iter()
        .map(|slot| {
            if slot.dose == op.dose {
                op.to
            } else {
                slot.slot
            }
        })
        .collect();
    claim.slots = Some(pair(&slots));
    let recorded = Recorded {
        done: Done::Moved,
        booking: op.booking,
        slots: pair(&slots),
        hold_until: None,
        claim_version: ClaimVersion(claim.version.0 + 1),
    };
    work.record(&asked, claim, recorded, &[op.to, from.slot])
}

/// The target if the appointment may go there.
fn target_slot(
    work: &Work<'_>,
    to: SlotId,
    from: &SlotState,
) -> rusqlite::Result<Result<SlotState, Refusal>> {
    let Some(target) = work.slot(to)? else {
        return Ok(Err(Refusal::SlotUnknown));
    };
    if target.shard != work.authority.shard() {
        return Ok(Err(Refusal::WrongShard));
    }
    if !target.open {
        return Ok(Err(Refusal::SlotClosed));
    }
    if to == from.slot || target.vaccine != from.vaccine || target.dose != from.dose {
        return Ok(Err(Refusal::SlotsMismatch));
    }
    if target.booked >= target.capacity {
        return Ok(Err(Refusal::SlotFull));
    }
    Ok(Ok(target))
}

fn decide_cancel(work: &mut Work<'_>, op: &CancelOp) -> rusqlite::Result<Verdict> {
    let asked = Asked {
        claimant: &op.claimant,
        request: op.request,
        body_hash: op.body_hash,
        method: "cancel_booking",
    };
    if let Some(verdict) = work.replay(&asked)? {
        return Ok(verdict);
    }
    let mut claim = work.claim(&op.claimant)?;
    let active = match booked(work, &asked, &claim, op.booking, op.claim_version)? {
        Ok(active) => active,
        Err(refusal) => return Ok(claim.refuse(refusal)),
    };
    let (given_up, kept): (Vec<_>, Vec<_>) = active
        .into_iter()
        .partition(|slot| op.dose.is_none_or(|dose| dose == slot.dose));
    if given_up.is_empty() {
        return Ok(claim.refuse(Refusal::DoseUnknown));
    }
    let slots_of = |rows: &[SlotState]| rows.iter().map(|row| row.slot).collect::<Vec<_>>();
    let concerned = slots_of(&given_up);
    if begun(work, op.booking, &concerned)? {
        return Ok(claim.refuse(Refusal::AppointmentBegun));
    }
    for slot in &concerned {
        work.give_back(op.booking, *slot)?;
    }
    let slots = if kept.is_empty() {
        claim.state = ClaimState::Free;
        claim.booking = None;
        claim.slots = None;
        pair(&concerned)
    } else {
        let slots = pair(&slots_of(&kept));
        claim.slots = Some(slots);
        slots
    };
    let recorded = Recorded {
        done: Done::Cancelled,
        booking: op.booking,
        slots,
        hold_until: None,
        claim_version: ClaimVersion(claim.version.0 + 1),
    };
    work.record(&asked, claim, recorded, &concerned)
}

/// Who has come, or had the dose, has no appointment to give up.
pub(super) fn begun(
    work: &Work<'_>,
    booking: BookingId,
    slots: &[SlotId],
) -> rusqlite::Result<bool> {
    for slot in slots {
        let visit = visit_state(work.db, *slot, booking)?;
        if matches!(
            visit,
            Some(AppointmentState::CheckedIn | AppointmentState::Given)
        ) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The active appointments of the booking, if the claim has it at the version the client saw.
fn booked(
    work: &Work<'_>,
    asked: &Asked<'_>,
    claim: &ClaimRow,
    booking: BookingId,
    seen: ClaimVersion,
) -> rusqlite::Result<Result<Vec<SlotState>, Refusal>> {
    if superseded(asked.claimant, claim) {
        return Ok(Err(Refusal::PermitSuperseded));
    }
    if claim.state != ClaimState::Booked || claim.booking != Some(booking) {
        return Ok(Err(Refusal::BookingUnknown));
    }
    if seen != claim.version {
        return Ok(Err(Refusal::ClaimVersionStale));
    }
    let mut active = Vec::with_capacity(2);
    for slot in claim.slots.into_iter().flat_map(SlotPair::iter) {
        active.extend(work.slot(slot)?);
    }
    active.sort_by_key(|slot| slot.dose);
    Ok(Ok(active))
}
