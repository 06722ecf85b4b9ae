//! Values as the database has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::command::Done;
use domain::{BookingId, ClaimVersion, Recorded, ShardId, SlotId, SlotPair, SlotState, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::trouble::Garbled;
use crate::ledger::{BoxError, Fault, SlotCount};

/// A number that only grows from 0 and never comes near the edge; one beyond it names nothing.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn signed_32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn unsigned_32(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    })
}

pub(super) fn system_time(time: Timestamp) -> SystemTime {
    let micros = Duration::from_micros(time.as_micros().unsigned_abs());
    if time.as_micros() < 0 {
        UNIX_EPOCH - micros
    } else {
        UNIX_EPOCH + micros
    }
}

/// A column of a row of our own statements.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, BoxError> {
    row.try_get(name).map_err(Into::into)
}

pub(super) fn unreadable(source: BoxError) -> Fault {
    Fault::Unavailable { source }
}

/// The columns of `slot`.
pub(super) fn slot_state(row: &Row) -> Result<SlotState, BoxError> {
    Ok(SlotState {
        slot: SlotId(unsigned(column(row, "slot_id")?)),
        shard: ShardId(unsigned_32(column(row, "shard_id")?)),
        clinic: column::<&str>(row, "clinic")?.parse()?,
        vaccine: column::<&str>(row, "vaccine")?.parse()?,
        dose: dose(column(row, "dose")?)?,
        starts_at: timestamp(column(row, "starts_at")?),
        day: column(row, "day")?,
        capacity: unsigned_32(column(row, "capacity")?),
        booked: unsigned_32(column(row, "booked")?),
        open: column(row, "open")?,
    })
}

pub(super) fn dose(number: i32) -> Result<u8, BoxError> {
    u8::try_from(number).map_err(|_| Garbled("dose").into())
}

pub(super) fn slot_pair(first: i64, second: Option<i64>) -> SlotPair {
    SlotPair {
        first: SlotId(unsigned(first)),
        second: second.map(|slot| SlotId(unsigned(slot))),
    }
}

/// One row for each slot: `o_slot`, `o_capacity`, `o_booked`, `o_open`.
pub(super) fn slot_count(row: &Row) -> Result<SlotCount, BoxError> {
    Ok(SlotCount {
        slot: SlotId(unsigned(column(row, "o_slot")?)),
        capacity: unsigned_32(column(row, "o_capacity")?),
        booked: unsigned_32(column(row, "o_booked")?),
        open: column(row, "o_open")?,
    })
}

/// The columns of a request row, as far as they answer it.
pub(super) struct RequestRow<'a> {
    pub(super) verdict: &'a str,
    pub(super) booking: Option<Uuid>,
    pub(super) first: Option<i64>,
    pub(super) second: Option<i64>,
    pub(super) until: Option<SystemTime>,
    pub(super) version: Option<i64>,
}

impl RequestRow<'_> {
    pub(super) fn recorded(self) -> Result<Recorded, BoxError> {
        let (Some(booking), Some(first), Some(version)) = (self.booking, self.first, self.version)
        else {
            return Err(Garbled("request").into());
        };
        Ok(Recorded {
            done: Done::from_code(self.verdict).ok_or(Garbled("request.verdict"))?,
            booking: BookingId(booking),
            slots: slot_pair(first, self.second),
            hold_until: self.until.map(timestamp),
            claim_version: ClaimVersion(unsigned(version)),
        })
    }
}
