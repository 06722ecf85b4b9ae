//! Rows as types: claims, appointments, requests, slots.

use domain::command::{BodyHash, Done};
use domain::{
    BookingId, ClaimVersion, Claimant, Recorded, Refusal, RequestId, Serial, ShardId, SlotId,
    SlotPair, SlotState, Timestamp, Verdict,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::{AppointmentState, ClaimState};

/// The columns that [`slot_state`] reads, in its order.
pub(super) const SLOT_COLUMNS: &str =
    "slot_id, shard_id, clinic, vaccine, dose, starts_at, day, capacity, booked, open";

/// A claim as the row has it; a missing row reads as free and never changed.
#[derive(Clone, Debug)]
pub(super) struct ClaimRow {
    pub(super) serial: Serial,
    pub(super) state: ClaimState,
    pub(super) version: ClaimVersion,
    pub(super) hold_until: Option<Timestamp>,
    pub(super) hold_shard: Option<ShardId>,
    pub(super) booking: Option<BookingId>,
    /// The slots of its active appointments.
    pub(super) slots: Option<SlotPair>,
}

// === impl ClaimRow ===

impl ClaimRow {
    /// Nobody's claim yet.
    pub(super) const FRESH: Self = Self {
        serial: Serial(0),
        state: ClaimState::Free,
        version: ClaimVersion(0),
        hold_until: None,
        hold_shard: None,
        booking: None,
        slots: None,
    };

    /// Whether this is a hold past its deadline.
    pub(super) fn expired(&self, now: Timestamp) -> bool {
        self.state == ClaimState::Held && self.hold_until.is_some_and(|until| until <= now)
    }

    /// The refusal of an op, with the version the client may need.
    pub(super) const fn refuse(&self, refusal: Refusal) -> Verdict {
        Verdict::Refused {
            refusal,
            claim_version: Some(self.version),
        }
    }
}

/// Whether a newer permit of the person is in force.
pub(super) fn superseded(who: &Claimant, claim: &ClaimRow) -> bool {
    who.serial < claim.serial
        || (claim.state == ClaimState::Surrendered && who.serial <= claim.serial)
}

pub(super) fn claim_row(db: &Connection, who: &Claimant) -> rusqlite::Result<Option<ClaimRow>> {
    db.prepare_cached(
        "SELECT serial, state, version, hold_until, hold_shard, booking, first_slot, second_slot FROM claim WHERE campaign = ?1 AND person = ?2",
    )?
    .query_row(params![who.campaign.as_str(), who.person.as_bytes()], |row| {
        Ok(ClaimRow {
            serial: Serial(row.get(0)?),
            state: claim_state(row.get_ref(1)?.as_str()?),
            version: ClaimVersion(row.get(2)?),
            hold_until: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros),
            hold_shard: row.get::<_, Option<u32>>(4)?.map(ShardId),
            booking: row.get::<_, Option<[u8; 16]>>(5)?.map(BookingId::from_bytes),
            slots: slot_pair(row, 6)?,
        })
    })
    .optional()
}

pub(super) fn recorded(
    db: &Connection,
    who: &Claimant,
    request: RequestId,
) -> rusqlite::Result<Option<(BodyHash, Recorded)>> {
    db.prepare_cached(
        "SELECT body_hash, verdict, booking, first_slot, second_slot, hold_until, version_after
         FROM request WHERE campaign = ?1 AND person = ?2 AND request_id = ?3",
    )?
    .query_row(
        params![
            who.campaign.as_str(),
            who.person.as_bytes(),
            request.as_bytes()
        ],
        |row| {
            let word = row.get_ref(1)?.as_str()?;
            let done = Done::from_code(word).ok_or(rusqlite::Error::InvalidQuery)?;
            let recorded = Recorded {
                done,
                booking: BookingId::from_bytes(row.get(2)?),
                slots: slot_pair(row, 3)?.ok_or(rusqlite::Error::InvalidQuery)?,
                hold_until: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
                claim_version: ClaimVersion(row.get(6)?),
            };
            Ok((BodyHash(row.get(0)?), recorded))
        },
    )
    .optional()
}

pub(super) fn slot_state(db: &Connection, slot: SlotId) -> rusqlite::Result<Option<SlotState>> {
    db.prepare_cached(&format!(
        "SELECT {SLOT_COLUMNS} FROM slot WHERE slot_id = ?1"
    ))?
    .query_row([stored(slot)], read_slot)
    .optional()
}

/// Reads [`SLOT_COLUMNS`].
pub(super) fn read_slot(row: &Row<'_>) -> rusqlite::Result<SlotState> {
    Ok(SlotState {
        slot: SlotId(row.get(0)?),
        shard: ShardId(row.get(1)?),
        clinic: parsed(row, 2)?,
        vaccine: parsed(row, 3)?,
        dose: row.get(4)?,
        starts_at: Timestamp::from_micros(row.get(5)?),
        day: row.get(6)?,
        capacity: row.get(7)?,
        booked: row.get(8)?,
        open: row.get(9)?,
    })
}

/// Reads two columns: the slots of a claim or request, the first dose's first.
fn slot_pair(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<SlotPair>> {
    let first: Option<u64> = row.get(column)?;
    let second: Option<u64> = row.get(column + 1)?;
    Ok(first.map(|first| SlotPair {
        first: SlotId(first),
        second: second.map(SlotId),
    }))
}

/// Reads text that had a type when it was written.
pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|malformed| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(malformed),
        )
    })
}

/// A slot id as SQLite can compare it; ids beyond its range belong to no slot.
pub(super) fn stored(slot: SlotId) -> i64 {
    i64::try_from(slot.0).unwrap_or(i64::MAX)
}

/// The slots of appointments that are sorted by dose.
pub(super) fn pair(slots: &[SlotId]) -> SlotPair {
    assert!(!slots.is_empty(), "a change always concerns a slot");
    SlotPair {
        first: slots[0],
        second: slots.get(1).copied(),
    }
}

pub(super) const fn claim_word(state: ClaimState) -> &'static str {
    match state {
        ClaimState::Free => "FREE",
        ClaimState::Held => "HELD",
        ClaimState::Booked => "BOOKED",
        ClaimState::Surrendered => "SURRENDERED",
    }
}

fn claim_state(word: &str) -> ClaimState {
    match word {
        "HELD" => ClaimState::Held,
        "BOOKED" => ClaimState::Booked,
        "SURRENDERED" => ClaimState::Surrendered,
        // The table's CHECK leaves only this one.
        _ => ClaimState::Free,
    }
}

/// What the clinic noted of an appointment; nothing while nobody came.
pub(super) fn visit_state(
    db: &Connection,
    slot: SlotId,
    booking: BookingId,
) -> rusqlite::Result<Option<AppointmentState>> {
    db.prepare_cached("SELECT state FROM visit WHERE slot_id = ?1 AND booking = ?2")?
        .query_row(params![stored(slot), booking.as_bytes()], |row| {
            appointment_state(row, 0)
        })
        .optional()
}

/// Reads an appointment's state.
pub(super) fn appointment_state(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<AppointmentState> {
    AppointmentState::from_word(row.get_ref(column)?.as_str()?).ok_or(rusqlite::Error::InvalidQuery)
}
