//! The draw of a round, and passing its offers on.

use domain::leftover::{PlaceState, RoundKey, Spot};
use domain::place::DrawTicket;
use domain::room::Bytes32;
use domain::{PersonId, RoundId, Timestamp};
use rusqlite::{Connection, params};

use super::reads::{from_json, round_of};
use super::wishes;
use crate::ledger::leftovers::{Candidate, DueDraw, place_word};
use crate::ledger::sqlite::unavailable;
use crate::ledger::sqlite::writing::Outcome;
use crate::ledger::{Fault, PassedOn, Round, RoundState};

/// Rounds in which something is to be done.
pub(in crate::ledger::sqlite) fn due(
    db: &Connection,
    now: Timestamp,
) -> rusqlite::Result<Vec<RoundId>> {
    db.prepare_cached(
        "SELECT r.round FROM leftover_round r
         WHERE r.state <> 'CLOSED' AND (
            r.closes_at <= ?1
            OR (r.state = 'ANNOUNCED' AND r.draws_at <= ?1)
            OR EXISTS (
                SELECT 1 FROM leftover_place p WHERE p.round = r.round AND p.state = 'OFFERED' AND (
                    p.deadline <= ?1
                    OR NOT EXISTS (SELECT 1 FROM leftover_wish w
                        WHERE w.campaign = p.campaign AND w.person = p.person AND w.joined_at < r.draws_at)))
            OR (EXISTS (SELECT 1 FROM leftover_place p WHERE p.round = r.round AND p.state = 'WAITING')
                AND r.doses > r.accepted + (
                    SELECT count(*) FROM leftover_place p WHERE p.round = r.round AND p.state = 'OFFERED')))
         ORDER BY r.round",
    )?
    .query_map([now.as_micros()], |row| Ok(RoundId(row.get(0)?)))?
    .collect()
}

/// Ends what is over and offers what is free to those whose turn it is.
pub(in crate::ledger::sqlite) fn pass_on(
    db: &Connection,
    at: Timestamp,
    round: RoundId,
) -> Result<Outcome<PassedOn>, Fault> {
    let passing = || -> rusqlite::Result<PassedOn> {
        let mut done = PassedOn::default();
        let Some(mut found) = round_of(db, round)?.filter(|r| r.state != RoundState::Closed) else {
            return Ok(done);
        };
        if found.state == RoundState::Announced && found.draws_at <= at {
            fix_list(db, &found)?;
            found.state = RoundState::Drawn;
            done.drawn = 1;
        }
        let expired = db
            .prepare_cached(
                "UPDATE leftover_place SET state = 'EXPIRED', ended_at = ?2
                 WHERE round = ?1 AND state = 'OFFERED' AND deadline <= ?2",
            )?
            .execute(params![round.0, at.as_micros()])?;
        done.expired = u64::try_from(expired).unwrap_or(u64::MAX);
        if found.closes_at <= at {
            done.expired += end(db, &found, at)?;
            done.closed = 1;
        } else if found.state == RoundState::Drawn {
            call_next(db, &found, at, &mut done)?;
        }
        Ok(done)
    };
    passing().map(Outcome::keep).map_err(unavailable)
}

fn fix_list(db: &Connection, round: &Round) -> rusqlite::Result<()> {
    let due = db
        .prepare_cached(
            "SELECT r.seed, c.district, c.latitude, c.longitude, r.from_minute, r.to_minute
             FROM leftover_round r JOIN clinic c ON c.clinic = r.clinic WHERE r.round = ?1",
        )?
        .query_row([round.round.0], |row| {
            Ok(DueDraw {
                key: RoundKey {
                    campaign: round.campaign.clone(),
                    clinic: round.clinic.clone(),
                    round: round.round,
                },
                seed: Bytes32(row.get(0)?),
                spot: Spot {
                    district: row.get(1)?,
                    latitude: row.get(2)?,
                    longitude: row.get(3)?,
                    vaccine: round.vaccine.clone(),
                    from_minute: row.get(4)?,
                    to_minute: row.get(5)?,
                },
            })
        })?;
    let asked = db
        .prepare_cached(
            "SELECT person, ticket, wish FROM leftover_wish WHERE campaign = ?1 AND joined_at < ?2
             ORDER BY joined_at, person",
        )?
        .query_map(
            params![round.campaign.as_str(), round.draws_at.as_micros()],
            |row| {
                Ok(Candidate {
                    person: PersonId::from_bytes(row.get(0)?),
                    ticket: DrawTicket(row.get(1)?),
                    wish: from_json(row, 2)?,
                })
            },
        )?
        .collect::<rusqlite::Result<_>>()?;
    let list = due.fix(asked);
    let mut insert = db.prepare_cached(
        "INSERT INTO leftover_place (round, rank, campaign, person, ticket, state)
         VALUES (?1, ?2, ?3, ?4, ?5, 'WAITING')",
    )?;
    for (at, (person, ticket)) in list.order.iter().enumerate() {
        insert.execute(params![
            round.round.0,
            i64::try_from(at + 1).unwrap_or(i64::MAX),
            round.campaign.as_str(),
            person.as_bytes(),
            ticket.0,
        ])?;
    }
    db.prepare_cached(
        "UPDATE leftover_round SET state = 'DRAWN', list_root = ?2, candidates = ?3 WHERE round = ?1",
    )?
    .execute(params![
        round.round.0,
        list.root.0,
        i64::try_from(list.order.len()).unwrap_or(i64::MAX)
    ])?;
    Ok(())
}

/// A place counts for as long as the person's wish from before the draw does.
fn call_next(
    db: &Connection,
    round: &Round,
    at: Timestamp,
    done: &mut PassedOn,
) -> rusqlite::Result<()> {
    let in_state = |state: PlaceState| -> rusqlite::Result<Vec<(u32, PersonId)>> {
        db.prepare_cached(
            "SELECT rank, person FROM leftover_place WHERE round = ?1 AND state = ?2 ORDER BY rank",
        )?
        .query_map(params![round.round.0, place_word(state)], |row| {
            Ok((row.get(0)?, PersonId::from_bytes(row.get(1)?)))
        })?
        .collect()
    };
    let ended = |rank: u32, state: PlaceState| {
        db.prepare_cached(
            "UPDATE leftover_place SET state = ?3, ended_at = ?4 WHERE round = ?1 AND rank = ?2",
        )?
        .execute(params![
            round.round.0,
            rank,
            place_word(state),
            at.as_micros()
        ])
    };
    let mut free = u64::from(round.doses.saturating_sub(round.accepted));
    for (rank, person) in in_state(PlaceState::Offered)? {
        if wishes(db, round, person)? {
            free = free.saturating_sub(1);
        } else {
            ended(rank, PlaceState::Left)?;
            done.left += 1;
        }
    }
    if free == 0 {
        return Ok(());
    }
    let deadline = db
        .prepare_cached(
            "SELECT min(?2 + answer_ms * 1000, closes_at) FROM leftover_round WHERE round = ?1",
        )?
        .query_row(params![round.round.0, at.as_micros()], |row| {
            row.get::<_, i64>(0)
        })?;
    for (rank, person) in in_state(PlaceState::Waiting)? {
        if free == 0 {
            break;
        }
        if !wishes(db, round, person)? {
            ended(rank, PlaceState::Left)?;
        } else if has_claim(db, round, person)? {
            ended(rank, PlaceState::Passed)?;
            done.passed += 1;
        } else {
            db.prepare_cached(
                "UPDATE leftover_place SET state = 'OFFERED', offered_at = ?3, deadline = ?4
                 WHERE round = ?1 AND rank = ?2",
            )?
            .execute(params![round.round.0, rank, at.as_micros(), deadline])?;
            done.offered += 1;
            free -= 1;
        }
    }
    Ok(())
}

/// Whether the person has a booking or has left the region.
fn has_claim(db: &Connection, round: &Round, person: PersonId) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM claim WHERE campaign = ?1 AND person = ?2 AND state IN ('BOOKED', 'SURRENDERED')",
    )?
    .exists(params![round.campaign.as_str(), person.as_bytes()])
}

/// Ends a round: what nobody accepted is the clinic's again. Answers how many offers died with it.
pub(in crate::ledger::sqlite) fn end(
    db: &Connection,
    round: &Round,
    at: Timestamp,
) -> rusqlite::Result<u64> {
    let expired = db
        .prepare_cached(
            "UPDATE leftover_place SET state = 'EXPIRED', deadline = min(deadline, ?2), ended_at = ?2
             WHERE round = ?1 AND state = 'OFFERED'",
        )?
        .execute(params![round.round.0, at.as_micros()])?;
    db.prepare_cached(
        "UPDATE leftover_round SET state = 'CLOSED', closes_at = min(closes_at, ?2) WHERE round = ?1",
    )?
    .execute(params![round.round.0, at.as_micros()])?;
    db.prepare_cached(
        "UPDATE stock SET walk_in = walk_in - ?3, leftover = leftover - ?3 WHERE clinic = ?1 AND vaccine = ?2",
    )?
    .execute(params![
        round.clinic.as_str(),
        round.vaccine.as_str(),
        round.doses - round.accepted
    ])?;
    Ok(u64::try_from(expired).unwrap_or(u64::MAX))
}
