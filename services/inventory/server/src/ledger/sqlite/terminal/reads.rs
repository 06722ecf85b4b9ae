//! Day sheets and supply figures.

use domain::{ClinicId, Timestamp};
use rusqlite::{Connection, params};

use super::super::rows::{appointment_state, parsed};
use super::read_stock;
use crate::ledger::{SheetRow, SupplyRow};

pub(in super::super) fn day_sheet(
    db: &Connection,
    clinic: &ClinicId,
    day: i32,
    after: Option<&(Timestamp, String)>,
    limit: u32,
) -> rusqlite::Result<Vec<SheetRow>> {
    let (at, code) = after.map_or((i64::MIN, ""), |(at, code)| (at.as_micros(), code));
    db.prepare_cached(
        "SELECT b.code, s.starts_at, s.vaccine, b.dose, coalesce(v.state, b.state)
         FROM slot s JOIN booking b ON b.slot_id = s.slot_id
         LEFT JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking
         WHERE s.clinic = ?1 AND s.day = ?2 AND b.state = 'BOOKED' AND (s.starts_at, b.code) > (?3, ?4)
         ORDER BY s.starts_at, b.code LIMIT ?5",
    )?
    .query_map(params![clinic.as_str(), day, at, code, limit], |row| {
        Ok(SheetRow {
            code: row.get(0)?,
            starts_at: Timestamp::from_micros(row.get(1)?),
            vaccine: parsed(row, 2)?,
            dose: row.get(3)?,
            state: appointment_state(row, 4)?,
        })
    })?
    .collect()
}

pub(in super::super) fn supply(
    db: &Connection,
    now: Timestamp,
) -> rusqlite::Result<Vec<SupplyRow>> {
    db.prepare_cached(
        "SELECT t.clinic, c.district, t.vaccine, t.received, t.wasted, t.walk_in, coalesce(s.opened, 0), t.given,
            t.walk_in_given, coalesce(h.held, 0), coalesce(s.taken, 0) - coalesce(h.held, 0), coalesce(s.places_left, 0)
         FROM stock t JOIN clinic c ON c.clinic = t.clinic
         LEFT JOIN (
            SELECT clinic, vaccine, sum(booked) AS taken, sum(CASE WHEN open THEN capacity ELSE booked END) AS opened,
                sum(CASE WHEN open AND starts_at > ?1 THEN capacity - booked ELSE 0 END) AS places_left
            FROM slot GROUP BY clinic, vaccine
         ) s ON s.clinic = t.clinic AND s.vaccine = t.vaccine
         LEFT JOIN (
            SELECT s.clinic, s.vaccine, count(*) AS held
            FROM claim k JOIN slot s ON s.slot_id IN (k.first_slot, k.second_slot)
            WHERE k.hold_shard IS NOT NULL GROUP BY s.clinic, s.vaccine
         ) h ON h.clinic = t.clinic AND h.vaccine = t.vaccine
         ORDER BY t.clinic, t.vaccine",
    )?
    .query_map([now.as_micros()], |row| {
        Ok(SupplyRow {
            clinic: parsed(row, 0)?,
            district: row.get(1)?,
            stock: read_stock(row, 2)?,
            held: row.get(9)?,
            booked: row.get(10)?,
            left: row.get(11)?,
        })
    })?
    .collect()
}
