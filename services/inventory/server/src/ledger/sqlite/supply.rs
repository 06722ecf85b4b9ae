//! Clinics, their stock and their slots, as an operator applies them.
//!
//! Invariant: no more places are open than there is stock for.

use std::collections::BTreeSet;

use domain::{ClinicId, Refusal, ShardId, SlotId, Timestamp, VaccineId};
use rusqlite::{Connection, OptionalExtension, params};

use super::writing::Outcome;
use crate::ledger::{Applied, ClinicSupply, Fault, NewSlot};

/// An application, or the first clinic that breaks a rule.
pub(super) type Application = Result<Applied, (ClinicId, Refusal)>;

struct Applying<'a> {
    db: &'a Connection,
    now: Timestamp,
    applied: Applied,
}

pub(super) fn apply(
    db: &Connection,
    now: Timestamp,
    supply: &[ClinicSupply],
    dry_run: bool,
) -> Result<Outcome<Application>, Fault> {
    let mut applying = Applying {
        db,
        now,
        applied: Applied::default(),
    };
    for one in supply {
        if let Err(refusal) = applying.clinic_supply(one).map_err(super::unavailable)? {
            return Ok(Outcome::undo(Err((one.clinic.clinic.clone(), refusal))));
        }
    }
    let applied = Ok(applying.applied);
    Ok(if dry_run {
        Outcome::undo(applied)
    } else {
        Outcome::keep(applied)
    })
}

impl Applying<'_> {
    fn clinic_supply(&mut self, supply: &ClinicSupply) -> rusqlite::Result<Result<(), Refusal>> {
        let clinic = supply.clinic.clinic.as_str();
        let shard = self.clinic(supply)?;
        let mut vaccines: BTreeSet<&VaccineId> = supply.slots.iter().map(|s| &s.vaccine).collect();
        vaccines.extend(supply.received.keys());
        for vaccine in &vaccines {
            let received = supply.received.get(*vaccine).copied().unwrap_or(0);
            self.db
                .prepare_cached(
                    "INSERT INTO stock (clinic, vaccine, received) VALUES (?1, ?2, ?3)
                     ON CONFLICT (clinic, vaccine) DO UPDATE SET received = max(received, excluded.received)",
                )?
                .execute(params![clinic, vaccine.as_str(), received])?;
        }
        for slot in &supply.slots {
            if let Err(refusal) = self.slot(clinic, shard, slot)? {
                return Ok(Err(refusal));
            }
        }
        for vaccine in vaccines {
            if !self.stock_suffices(clinic, vaccine)? {
                return Ok(Err(Refusal::StockExceeded));
            }
        }
        Ok(Ok(()))
    }

    /// Writes the clinic and returns its shard. A clinic that exists stays with its shard: moving it takes both epochs.
    fn clinic(&mut self, supply: &ClinicSupply) -> rusqlite::Result<ShardId> {
        let clinic = &supply.clinic;
        let shard: Option<u32> = self
            .db
            .prepare_cached("SELECT shard_id FROM clinic WHERE clinic = ?1")?
            .query_row([clinic.clinic.as_str()], |row| row.get(0))
            .optional()?;
        if shard.is_none() {
            self.applied.clinics_added += 1;
        }
        let shard = shard.map_or(clinic.shard, ShardId);
        self.db
            .prepare_cached(
                "INSERT INTO clinic (clinic, shard_id, display_name, district, latitude, longitude)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (clinic) DO UPDATE SET display_name = excluded.display_name,
                    district = excluded.district, latitude = excluded.latitude, longitude = excluded.longitude",
            )?
            .execute(params![
                clinic.clinic.as_str(),
                shard.0,
                clinic.display_name,
                clinic.district,
                clinic.latitude,
                clinic.longitude,
            ])?;
        Ok(shard)
    }

    fn slot(
        &mut self,
        clinic: &str,
        shard: ShardId,
        slot: &NewSlot,
    ) -> rusqlite::Result<Result<(), Refusal>> {
        let key = params![
            clinic,
            slot.starts_at.as_micros(),
            slot.vaccine.as_str(),
            slot.dose
        ];
        let known = self
            .db
            .prepare_cached(
                "SELECT slot_id, capacity, booked, open FROM slot
                 WHERE clinic = ?1 AND starts_at = ?2 AND vaccine = ?3 AND dose = ?4",
            )?
            .query_row(key, |row| {
                let counts: (u32, u32, bool) = (row.get(1)?, row.get(2)?, row.get(3)?);
                Ok((SlotId(row.get(0)?), counts))
            })
            .optional()?;
        match known {
            None => {
                self.db
                    .prepare_cached(
                        "INSERT INTO slot (shard_id, clinic, starts_at, vaccine, dose, day, capacity, open)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?
                    .execute(params![
                        shard.0,
                        clinic,
                        slot.starts_at.as_micros(),
                        slot.vaccine.as_str(),
                        slot.dose,
                        slot.day,
                        slot.capacity,
                        slot.open,
                    ])?;
                self.applied.slots_added += 1;
                self.event("SLOT_ADDED", self.db.last_insert_rowid())?;
            }
            Some((_, (_, booked, _))) if slot.capacity < booked => {
                return Ok(Err(Refusal::BelowBooked));
            }
            Some((_, (capacity, _, open))) if capacity == slot.capacity && open == slot.open => {}
            Some((id, _)) => {
                self.db
                    .prepare_cached("UPDATE slot SET capacity = ?2, open = ?3 WHERE slot_id = ?1")?
                    .execute(params![id.0, slot.capacity, slot.open])?;
                self.applied.slots_changed += 1;
                self.event("SLOT_CHANGED", id.0.cast_signed())?;
            }
        }
        Ok(Ok(()))
    }

    /// Counts what is open and compares it with what is there.
    fn stock_suffices(&self, clinic: &str, vaccine: &VaccineId) -> rusqlite::Result<bool> {
        self.db
            .prepare_cached(
                "UPDATE stock SET opened = (
                    SELECT coalesce(sum(CASE WHEN open THEN capacity ELSE booked END), 0)
                    FROM slot WHERE slot.clinic = ?1 AND slot.vaccine = ?2)
                 WHERE clinic = ?1 AND vaccine = ?2
                 RETURNING opened <= received - wasted - walk_in",
            )?
            .query_row(params![clinic, vaccine.as_str()], |row| row.get(0))
    }

    fn event(&self, kind: &str, slot: i64) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO event (at, kind, side, shard_id, slot_id)
                 SELECT ?1, ?2, 1, shard_id, slot_id FROM slot WHERE slot_id = ?3",
            )?
            .execute(params![self.now.as_micros(), kind, slot])?;
        Ok(())
    }
}
