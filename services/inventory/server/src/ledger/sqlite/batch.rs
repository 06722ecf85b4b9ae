//! A batch of a shard's owner: decided op by op, in their order, behind the fence.

use domain::command::Done;
use domain::{
    Action, BookingId, ClaimVersion, Epoch, Op, Recorded, Refusal, ShardId, SlotId, SlotPair,
    SlotState, Timestamp, Verdict,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{ClaimRow, claim_row, parsed, superseded};
use super::work::{Asked, Authority, Work};
use super::writing::{Outcome, statement_fault};
use crate::ledger::{AppointmentState, BatchAnswer, ClaimState, Fault, SlotCount};

/// Runs a batch; a fault takes all of it back.
pub(super) fn run(
    db: &Connection,
    now: Timestamp,
    shard: ShardId,
    epoch: Epoch,
    seq: u64,
    ops: &[Op],
) -> Result<Outcome<BatchAnswer>, Fault> {
    fence(db, shard, epoch, seq)?;
    let mut work = Work::new(db, now, Authority::Batch { shard, epoch, seq });
    decide_all(&mut work, ops)
        .map(Outcome::keep)
        .map_err(|error| statement_fault(shard, error))
}

/// Gives back expired holds of the shard as a batch of its own.
pub(super) fn sweep(
    db: &Connection,
    now: Timestamp,
    shard: ShardId,
    epoch: Epoch,
    seq: u64,
    limit: u32,
) -> Result<Outcome<Vec<SlotCount>>, Fault> {
    fence(db, shard, epoch, seq)?;
    let mut work = Work::new(db, now, Authority::Batch { shard, epoch, seq });
    give_back_expired(&mut work, shard, limit)
        .map(Outcome::keep)
        .map_err(|error| statement_fault(shard, error))
}

/// Lets a batch pass only as the next one of the epoch in force.
fn fence(db: &Connection, shard: ShardId, epoch: Epoch, seq: u64) -> Result<(), Fault> {
    let passed = db
        .prepare_cached(
            "UPDATE shard SET batch_seq = ?3 WHERE shard_id = ?1 AND epoch = ?2 AND batch_seq = ?3 - 1",
        )
        .and_then(|mut update| update.execute(params![shard.0, epoch.0, seq]))
        .map_err(|error| statement_fault(shard, error))?;
    if passed == 1 {
        return Ok(());
    }
    let found = epoch_in_force(db, shard).map_err(|error| statement_fault(shard, error))?;
    Err(Fault::Fenced {
        shard,
        held: epoch,
        found,
    })
}

/// The epoch that the ledger has; 0 where there is no such shard.
pub(super) fn epoch_in_force(db: &Connection, shard: ShardId) -> rusqlite::Result<Epoch> {
    let epoch = db
        .prepare_cached("SELECT epoch FROM shard WHERE shard_id = ?1")?
        .query_row([shard.0], |row| row.get(0))
        .optional()?;
    Ok(Epoch(epoch.unwrap_or(0)))
}

fn decide_all(work: &mut Work<'_>, ops: &[Op]) -> rusqlite::Result<BatchAnswer> {
    let verdicts = ops
        .iter()
        .map(|op| decide(work, op))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(BatchAnswer {
        verdicts,
        slots: work.counts()?,
    })
}

fn decide(work: &mut Work<'_>, op: &Op) -> rusqlite::Result<Verdict> {
    if let Some(slots) = op.action.wants() {
        work.touched.extend(slots.iter());
    }
    let asked = Asked {
        claimant: &op.claimant,
        request: op.request,
        body_hash: op.body_hash,
        method: op.action.op(),
    };
    if let Some(verdict) = work.replay(&asked)? {
        return Ok(verdict);
    }
    let claim = work.claim(&op.claimant)?;
    if superseded(&op.claimant, &claim) {
        return Ok(claim.refuse(Refusal::PermitSuperseded));
    }
    match op.action {
        Action::Book { slots, booking } => {
            take_slots(work, &asked, op.claim_version, claim, slots, booking, None)
        }
        Action::Hold {
            slots,
            booking,
            ttl,
        } => {
            let until = work.now.plus(ttl);
            take_slots(
                work,
                &asked,
                op.claim_version,
                claim,
                slots,
                booking,
                Some(until),
            )
        }
        Action::Confirm { hold } => settle_hold(work, &asked, op.claim_version, claim, hold, true),
        Action::Release { hold } => settle_hold(work, &asked, op.claim_version, claim, hold, false),
    }
}

fn take_slots(
    work: &mut Work<'_>,
    asked: &Asked<'_>,
    seen: ClaimVersion,
    mut claim: ClaimRow,
    slots: SlotPair,
    booking: BookingId,
    hold_until: Option<Timestamp>,
) -> rusqlite::Result<Verdict> {
    match claim.state {
        ClaimState::Booked => return Ok(claim.refuse(Refusal::AlreadyBooked)),
        ClaimState::Held => return Ok(claim.refuse(Refusal::AlreadyHeld)),
        ClaimState::Free | ClaimState::Surrendered => {}
    }
    if seen != claim.version {
        return Ok(claim.refuse(Refusal::ClaimVersionStale));
    }
    let wanted = match free_slots(work, slots)? {
        Ok(wanted) => wanted,
        Err(refusal) => return Ok(claim.refuse(refusal)),
    };
    let (state, appointment, done) = match hold_until {
        Some(_) => (ClaimState::Held, AppointmentState::Held, Done::Held),
        None => (ClaimState::Booked, AppointmentState::Booked, Done::Booked),
    };
    for slot in &wanted {
        work.take(asked.claimant, booking, slot, appointment)?;
    }
    let concerned: Vec<SlotId> = slots.iter().collect();
    let recorded = Recorded {
        done,
        booking,
        slots,
        hold_until,
        claim_version: ClaimVersion(claim.version.0 + 1),
    };
    claim.state = state;
    claim.hold_until = hold_until;
    claim.hold_shard = hold_until.map(|_| work.authority.shard());
    claim.booking = Some(booking);
    claim.slots = Some(slots);
    work.record(asked, claim, recorded, &concerned)
}

/// All slots wanted, or why the first one that cannot be had cannot be had.
fn free_slots(
    work: &Work<'_>,
    slots: SlotPair,
) -> rusqlite::Result<Result<Vec<SlotState>, Refusal>> {
    let mut wanted: Vec<SlotState> = Vec::with_capacity(2);
    for slot in slots.iter() {
        let Some(slot) = work.slot(slot)? else {
            return Ok(Err(Refusal::SlotUnknown));
        };
        if slot.shard != work.authority.shard() {
            return Ok(Err(Refusal::WrongShard));
        }
        if !slot.open {
            return Ok(Err(Refusal::SlotClosed));
        }
        if slot.booked >= slot.capacity {
            return Ok(Err(Refusal::SlotFull));
        }
        // Owners check this before; a booking with two appointments of one dose could not be taken apart again.
        if wanted.iter().any(|other| other.dose == slot.dose) {
            return Ok(Err(Refusal::SlotsMismatch));
        }
        wanted.push(slot);
    }
    Ok(Ok(wanted))
}

fn settle_hold(
    work: &mut Work<'_>,
    asked: &Asked<'_>,
    seen: ClaimVersion,
    mut claim: ClaimRow,
    hold: BookingId,
    confirm: bool,
) -> rusqlite::Result<Verdict> {
    if claim.booking != Some(hold) {
        return Ok(claim.refuse(Refusal::BookingUnknown));
    }
    match claim.state {
        ClaimState::Held => {}
        ClaimState::Booked => return Ok(claim.refuse(Refusal::AlreadyBooked)),
        // Only an expired hold leaves its id behind.
        ClaimState::Free => return Ok(claim.refuse(Refusal::HoldExpired)),
        ClaimState::Surrendered => return Ok(claim.refuse(Refusal::BookingUnknown)),
    }
    if seen != claim.version {
        return Ok(claim.refuse(Refusal::ClaimVersionStale));
    }
    let Some(slots) = claim.slots else {
        return Ok(claim.refuse(Refusal::BookingUnknown));
    };
    for slot in slots.iter() {
        let slot = work.slot(slot)?;
        if slot.is_none_or(|slot| slot.shard != work.authority.shard()) {
            return Ok(claim.refuse(Refusal::WrongShard));
        }
    }
    for slot in slots.iter() {
        if confirm {
            work.confirm(hold, slot)?;
        } else {
            work.give_back(hold, slot)?;
        }
    }
    let done = if confirm {
        claim.state = ClaimState::Booked;
        Done::Confirmed
    } else {
        claim.state = ClaimState::Free;
        claim.booking = None;
        claim.slots = None;
        Done::Released
    };
    claim.hold_until = None;
    claim.hold_shard = None;
    let recorded = Recorded {
        done,
        booking: hold,
        slots,
        hold_until: None,
        claim_version: ClaimVersion(claim.version.0 + 1),
    };
    work.touched.extend(slots.iter());
    let concerned: Vec<SlotId> = slots.iter().collect();
    work.record(asked, claim, recorded, &concerned)
}

fn give_back_expired(
    work: &mut Work<'_>,
    shard: ShardId,
    limit: u32,
) -> rusqlite::Result<Vec<SlotCount>> {
    let expired = work
        .db
        .prepare_cached(
            "SELECT campaign, person, serial FROM claim WHERE hold_shard = ?1 AND hold_until <= ?2
             ORDER BY hold_until LIMIT ?3",
        )?
        .query_map(params![shard.0, work.now.as_micros(), limit], |row| {
            Ok(domain::Claimant {
                campaign: parsed(row, 0)?,
                person: domain::PersonId::from_bytes(row.get(1)?),
                serial: domain::Serial(row.get(2)?),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for who in expired {
        if let Some(claim) = claim_row(work.db, &who)? {
            work.expire(&who, claim)?;
        }
    }
    work.counts()
}
