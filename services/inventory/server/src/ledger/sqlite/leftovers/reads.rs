//! Rounds, places and wishes as rows.

use domain::leftover::{Place, ticket_text};
use domain::place::DrawTicket;
use domain::room::Bytes32;
use domain::{CampaignId, ClinicId, PersonId, RoundId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use crate::ledger::leftovers::{OFFERS_MAX, ROUNDS_MAX, place_state};
use crate::ledger::sqlite::rows::parsed;
use crate::ledger::{Called, Offer, Round, RoundState};

/// What [`read_round`] reads, in its order.
const ROUND_COLUMNS: &str = "r.round, r.clinic, r.campaign, r.vaccine, r.doses, r.accepted, r.state, r.commitment,
    CASE WHEN r.list_root IS NOT NULL THEN r.seed END, r.list_root, r.candidates, r.offered_at, r.draws_at, r.closes_at";
/// What [`read_place`] reads, in its order.
pub(super) const PLACE_COLUMNS: &str = "p.ticket, p.state, p.offered_at, p.deadline, p.ended_at";

pub(in crate::ledger::sqlite) fn called(
    db: &Connection,
    campaign: &CampaignId,
    person: PersonId,
) -> rusqlite::Result<Called> {
    let wish = db
        .prepare_cached("SELECT wish FROM leftover_wish WHERE campaign = ?1 AND person = ?2")?
        .query_row(params![campaign.as_str(), person.as_bytes()], |row| {
            from_json(row, 0)
        })
        .optional()?;
    let offers = db
        .prepare_cached(&format!(
            "SELECT {ROUND_COLUMNS}, {PLACE_COLUMNS} FROM leftover_place p JOIN leftover_round r ON r.round = p.round
             WHERE p.campaign = ?1 AND p.person = ?2 AND p.offered_at IS NOT NULL ORDER BY p.round DESC LIMIT ?3"
        ))?
        .query_map(
            params![campaign.as_str(), person.as_bytes(), OFFERS_MAX],
            |row| {
                Ok(Offer {
                    round: read_round(row)?,
                    place: read_place(row, 14)?,
                })
            },
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Called { wish, offers })
}

pub(in crate::ledger::sqlite) fn rounds(
    db: &Connection,
    clinic: &ClinicId,
    round: Option<RoundId>,
) -> rusqlite::Result<Vec<Round>> {
    db.prepare_cached(&format!(
        "SELECT {ROUND_COLUMNS} FROM leftover_round r WHERE r.clinic = ?1 AND (?2 IS NULL OR r.round = ?2)
         ORDER BY r.round DESC LIMIT ?3"
    ))?
    .query_map(
        params![clinic.as_str(), round.map(stored), ROUNDS_MAX],
        read_round,
    )?
    .collect()
}

pub(in crate::ledger::sqlite) fn places(
    db: &Connection,
    round: RoundId,
) -> rusqlite::Result<Vec<Place>> {
    db.prepare_cached(&format!(
        "SELECT {PLACE_COLUMNS} FROM leftover_place p WHERE p.round = ?1 ORDER BY p.rank"
    ))?
    .query_map([stored(round)], |row| read_place(row, 0))?
    .collect()
}

pub(in crate::ledger::sqlite) fn round_of(
    db: &Connection,
    round: RoundId,
) -> rusqlite::Result<Option<Round>> {
    db.prepare_cached(&format!(
        "SELECT {ROUND_COLUMNS} FROM leftover_round r WHERE r.round = ?1"
    ))?
    .query_row([stored(round)], read_round)
    .optional()
}

/// A round's id as SQLite can compare it; ids beyond its range belong to no round.
fn stored(round: RoundId) -> i64 {
    i64::try_from(round.0).unwrap_or(i64::MAX)
}

fn read_round(row: &Row<'_>) -> rusqlite::Result<Round> {
    let time = |column| row.get(column).map(Timestamp::from_micros);
    let state = match row.get_ref(6)?.as_str()? {
        "ANNOUNCED" => RoundState::Announced,
        "DRAWN" => RoundState::Drawn,
        // The table's CHECK leaves only this one.
        _ => RoundState::Closed,
    };
    Ok(Round {
        round: RoundId(row.get(0)?),
        clinic: parsed(row, 1)?,
        campaign: parsed(row, 2)?,
        vaccine: parsed(row, 3)?,
        doses: row.get(4)?,
        accepted: row.get(5)?,
        state,
        commitment: Bytes32(row.get(7)?),
        seed: row.get::<_, Option<[u8; 32]>>(8)?.map(Bytes32),
        list_root: row.get::<_, Option<[u8; 32]>>(9)?.map(Bytes32),
        candidates: row.get(10)?,
        offered_at: time(11)?,
        draws_at: time(12)?,
        closes_at: time(13)?,
    })
}

pub(super) fn read_place(row: &Row<'_>, from: usize) -> rusqlite::Result<Place> {
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|at| at.map(Timestamp::from_micros))
    };
    Ok(Place {
        ticket: ticket_text(&DrawTicket(row.get(from)?)),
        state: place_state(row.get_ref(from + 1)?.as_str()?)
            .ok_or(rusqlite::Error::InvalidQuery)?,
        offered_at: time(from + 2)?,
        deadline: time(from + 3)?,
        ended_at: time(from + 4)?,
    })
}

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = rusqlite::types::Type::Text;
    serde_json::from_str(row.get_ref(column)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, text, Box::new(error)))
}
