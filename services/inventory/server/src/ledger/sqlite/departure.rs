//! People who leave, and people who stay after all.

use domain::region_change::Departure;
use domain::{Claimant, Epoch, Refusal, RegionId, Serial, SlotId, SlotPair, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{ClaimRow, claim_row};
use super::side::{begun, home_shard};
use super::work::{Authority, Work};
use super::writing::{Outcome, statement_fault};
use crate::ledger::{ClaimState, DepartureAnswer, Fault, SurrenderOp};

/// Bars the serial and every lower one for ever.
pub(super) fn surrender(
    db: &Connection,
    now: Timestamp,
    op: &SurrenderOp,
) -> Result<Outcome<DepartureAnswer>, Fault> {
    let shard = home_shard(db, &op.claimant).map_err(super::unavailable)?;
    let authority = Authority::Side {
        shard,
        epoch: Epoch(0),
    };
    let mut work = Work::new(db, now, authority);
    let failed = |error| statement_fault(shard, error);
    let decided = decide_surrender(&mut work, op).map_err(failed)?;
    let slots = work.counts().map_err(failed)?;
    Ok(Outcome {
        value: DepartureAnswer { decided, slots },
        keep: true,
        shard: Some(shard),
    })
}

/// Raises the claim's serial, unless the person had left with it.
pub(super) fn restamp(
    db: &Connection,
    now: Timestamp,
    who: &Claimant,
) -> Result<Outcome<DepartureAnswer>, Fault> {
    let shard = home_shard(db, who).map_err(super::unavailable)?;
    let authority = Authority::Side {
        shard,
        epoch: Epoch(0),
    };
    let work = Work::new(db, now, authority);
    let departure = decide_restamp(&work, who).map_err(|error| statement_fault(shard, error))?;
    Ok(Outcome {
        value: DepartureAnswer {
            decided: Ok(departure),
            slots: Vec::new(),
        },
        keep: true,
        shard: Some(shard),
    })
}

fn decide_surrender(
    work: &mut Work<'_>,
    op: &SurrenderOp,
) -> rusqlite::Result<Result<Departure, Refusal>> {
    let who = &op.claimant;
    let mut claim = claim_row(work.db, who)?.unwrap_or(ClaimRow::FRESH);
    if let Some(departure) = decided_before(work.db, who, &claim)? {
        return Ok(Ok(departure));
    }
    let slots: Vec<SlotId> = claim.slots.into_iter().flat_map(SlotPair::iter).collect();
    if let (ClaimState::Booked, Some(booking)) = (claim.state, claim.booking) {
        if begun(work, booking, &slots)? {
            return Ok(Err(Refusal::AppointmentBegun));
        }
        if !op.give_up_booking {
            return Ok(Err(Refusal::BookingActive));
        }
    }
    let gave_up = match claim.state {
        ClaimState::Booked => "BOOKING",
        ClaimState::Held => "HOLD",
        ClaimState::Free | ClaimState::Surrendered => "NOTHING",
    };
    if let Some(booking) = claim.booking {
        for slot in &slots {
            work.give_back(booking, *slot)?;
            work.event("SURRENDERED", *slot, who, booking, claim.version)?;
        }
    }
    claim = ClaimRow {
        serial: who.serial,
        state: ClaimState::Surrendered,
        version: claim.version,
        ..ClaimRow::FRESH
    };
    work.write_claim(who, &claim)?;
    work.db
        .prepare_cached(
            "INSERT INTO surrender (campaign, person, serial, to_region, gave_up, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            who.campaign.as_str(),
            who.person.as_bytes(),
            who.serial.0,
            op.to.as_str(),
            gave_up,
            work.now.as_micros(),
        ])?;
    Ok(Ok(Departure::Left { to: op.to.clone() }))
}

fn decide_restamp(work: &Work<'_>, who: &Claimant) -> rusqlite::Result<Departure> {
    let mut claim = claim_row(work.db, who)?.unwrap_or(ClaimRow::FRESH);
    if let Some(departure) = decided_before(work.db, who, &claim)? {
        return Ok(departure);
    }
    claim.serial = Serial(who.serial.0 + 1);
    // A surrender of an earlier serial barred that one; it must not bar the one that is issued now.
    if claim.state == ClaimState::Surrendered {
        claim.state = ClaimState::Free;
    }
    work.write_claim(who, &claim)?;
    Ok(Departure::Stayed)
}

/// What became of the serial before; `None` = nothing yet.
fn decided_before(
    db: &Connection,
    who: &Claimant,
    claim: &ClaimRow,
) -> rusqlite::Result<Option<Departure>> {
    let to: Option<String> = db
        .prepare_cached(
            "SELECT to_region FROM surrender WHERE campaign = ?1 AND person = ?2 AND serial = ?3",
        )?
        .query_row(
            params![who.campaign.as_str(), who.person.as_bytes(), who.serial.0],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(to) = to {
        let to: RegionId = to.parse().map_err(|_| rusqlite::Error::InvalidQuery)?;
        return Ok(Some(Departure::Left { to }));
    }
    Ok((claim.serial > who.serial).then_some(Departure::Stayed))
}
