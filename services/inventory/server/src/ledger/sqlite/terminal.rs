//! What clinics' terminals change and read.
//!
//! Invariant: a refusal takes back whatever was written before it was found.

mod leftovers;
mod reads;
mod visits;

use domain::{Refusal, ShardId, SlotId, Timestamp, VaccineId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{parsed, stored};
use super::writing::Outcome;
use crate::ledger::{
    ClinicAnswer, ClinicChange, ClinicOp, ClinicRefusal, ClinicSlot, ClinicVerdict, Fault, NewSlot,
    StockChange, StockRow,
};

pub(super) use reads::{day_sheet, supply};

/// A change of a clinic belongs to no owner; its unknown outcome names this shard, which no region has.
pub(super) const NO_SHARD: ShardId = ShardId(u32::MAX);

/// Codes named when a slot is to become smaller than the people it has.
const CODES_MAX: u32 = 200;

/// A change that went through, or why not.
type Changed = Result<ClinicAnswer, ClinicRefusal>;

struct Terminal<'a> {
    db: &'a Connection,
    op: &'a ClinicOp,
    clinic: &'a str,
    at: Timestamp,
}

pub(super) fn change(
    db: &Connection,
    at: Timestamp,
    op: &ClinicOp,
) -> Result<Outcome<ClinicVerdict>, Fault> {
    let terminal = Terminal {
        db,
        op,
        clinic: op.clinic.as_str(),
        at,
    };
    terminal.run().map_err(super::unavailable)
}

impl Terminal<'_> {
    fn run(&self) -> rusqlite::Result<Outcome<ClinicVerdict>> {
        let refuse = |why| Ok(Outcome::undo(ClinicVerdict::Refused(why)));
        let known = self
            .db
            .prepare_cached("SELECT 1 FROM clinic WHERE clinic = ?1")?
            .exists([self.clinic])?;
        if !known {
            return refuse(Refusal::ClinicUnknown.into());
        }
        if let Some((hash, answer)) = self.recorded()? {
            if hash != self.op.body_hash.0 {
                return refuse(Refusal::RequestIdReused.into());
            }
            return Ok(Outcome::undo(ClinicVerdict::Exists(answer)));
        }
        let changed = match &self.op.change {
            ClinicChange::Stock { what, vaccine } => self.stock(what, vaccine)?,
            ClinicChange::Open { slots } => self.open(slots)?,
            ClinicChange::Resize { slot, capacity } => self.resize(*slot, *capacity)?,
            ClinicChange::Close { slots } => self.close(slots)?,
            ClinicChange::OfferLeftovers(round) => self.offer_leftovers(round)?,
            ClinicChange::CloseLeftovers { round } => self.close_leftovers(*round)?,
            ClinicChange::Visit { code, what, today } => {
                let days: Vec<i32> = today.values().copied().collect();
                let (candidates, elsewhere) = self.candidates(code, &days)?;
                match what.choose(&candidates, today, elsewhere) {
                    Ok(meant) => Ok(self.visit(what, meant, code)?),
                    Err(refused) => Err(refused),
                }
            }
        };
        match changed {
            Err(refused) => refuse(refused),
            Ok(answer) if self.op.dry_run => Ok(Outcome::undo(ClinicVerdict::Done(answer))),
            Ok(answer) => {
                self.record(&answer)?;
                Ok(Outcome::keep(ClinicVerdict::Done(answer)))
            }
        }
    }

    fn recorded(&self) -> rusqlite::Result<Option<([u8; 16], ClinicAnswer)>> {
        self.db
            .prepare_cached(
                "SELECT body_hash, answer FROM clinic_request WHERE clinic = ?1 AND request_id = ?2",
            )?
            .query_row(params![self.clinic, self.op.request.as_bytes()], |row| {
                let answer = serde_json::from_str(row.get_ref(1)?.as_str()?);
                Ok((row.get(0)?, answer.map_err(unlike(1))?))
            })
            .optional()
    }

    fn record(&self, answer: &ClinicAnswer) -> rusqlite::Result<()> {
        let lot = match &self.op.change {
            ClinicChange::Stock {
                what: StockChange::GiveWalkIn(lot),
                ..
            } => Some(lot.as_str()),
            ClinicChange::Visit { what, .. } => what.lot(),
            ClinicChange::Stock { .. }
            | ClinicChange::Open { .. }
            | ClinicChange::Resize { .. }
            | ClinicChange::Close { .. }
            | ClinicChange::OfferLeftovers(_)
            | ClinicChange::CloseLeftovers { .. } => None,
        };
        let answer = serde_json::to_string(answer)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.db
            .prepare_cached(
                "INSERT INTO clinic_request (clinic, request_id, method, body_hash, answer, lot, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                self.clinic,
                self.op.request.as_bytes(),
                self.op.method(),
                self.op.body_hash.0,
                answer,
                lot,
                self.at.as_micros(),
            ])?;
        Ok(())
    }

    // === Stock ===

    fn stock(&self, what: &StockChange, vaccine: &VaccineId) -> rusqlite::Result<Changed> {
        let mut row = self.stock_row(vaccine)?;
        let mut raised = false;
        match what {
            StockChange::Deliver(doses) => row.received += u64::from(*doses),
            StockChange::Waste(doses) => row.wasted += u64::from(*doses),
            StockChange::SetWalkIns(doses) => {
                let doses = u64::from(*doses);
                if doses < row.walk_in_given {
                    let problem = format!("{} were given", row.walk_in_given);
                    return Ok(refused(Refusal::WalkInsExceeded, "doses", problem));
                }
                raised = doses > row.walk_in;
                row.walk_in = doses;
            }
            StockChange::GiveWalkIn(_) => {
                if row.walk_in_given >= row.walk_in {
                    let problem = format!("{} are set aside", row.walk_in);
                    return Ok(refused(Refusal::WalkInsExceeded, "vaccine", problem));
                }
                row.walk_in_given += 1;
                row.given += 1;
            }
        }
        if let Some(promised) = self.promised_of(&row)? {
            let problem = format!("{promised} are promised as leftovers");
            return Ok(refused(Refusal::WalkInsExceeded, "vaccine", problem));
        }
        self.db
            .prepare_cached(
                "UPDATE stock SET received = ?3, wasted = ?4, walk_in = ?5, given = ?6, walk_in_given = ?7
                 WHERE clinic = ?1 AND vaccine = ?2",
            )?
            .execute(params![
                self.clinic,
                vaccine.as_str(),
                row.received,
                row.wasted,
                row.walk_in,
                row.given,
                row.walk_in_given,
            ])?;
        let (mut short, mut changed) = (0, Vec::new());
        if let StockChange::Waste(_) | StockChange::SetWalkIns(_) = what {
            let exceeded = exceeded(&self.restock(vaccine)?);
            if raised && exceeded > 0 {
                let problem = format!("{exceeded} too many");
                return Ok(refused(Refusal::StockExceeded, "doses", problem));
            }
            if let StockChange::Waste(_) = what
                && exceeded > 0
            {
                (short, changed) = self.close_unbooked(vaccine, exceeded)?;
            }
        }
        Ok(Ok(ClinicAnswer {
            stock: vec![self.stock_row(vaccine)?],
            slots: self.slots(&changed)?,
            short,
            ..ClinicAnswer::default()
        }))
    }

    /// Doses promised as leftovers, where fewer would stay set aside.
    fn promised_of(&self, row: &StockRow) -> rusqlite::Result<Option<u64>> {
        let promised: u64 = self
            .db
            .prepare_cached("SELECT leftover FROM stock WHERE clinic = ?1 AND vaccine = ?2")?
            .query_row(params![self.clinic, row.vaccine.as_str()], |row| row.get(0))?;
        let set_aside = row.walk_in.saturating_sub(row.walk_in_given);
        Ok((set_aside < promised).then_some(promised))
    }

    /// Takes free places away until so many are gone; says how many could not be, and which slots changed.
    fn close_unbooked(
        &self,
        vaccine: &VaccineId,
        mut short: u64,
    ) -> rusqlite::Result<(u64, Vec<SlotId>)> {
        let free: Vec<(SlotId, u64)> = self
            .db
            .prepare_cached(
                "SELECT slot_id, capacity - booked FROM slot
                 WHERE clinic = ?1 AND vaccine = ?2 AND open AND booked < capacity
                 ORDER BY starts_at > ?3, starts_at DESC, slot_id DESC",
            )?
            .query_map(
                params![self.clinic, vaccine.as_str(), self.op.now.as_micros()],
                |row| Ok((SlotId(row.get(0)?), row.get(1)?)),
            )?
            .collect::<rusqlite::Result<_>>()?;
        let mut changed = Vec::new();
        for (slot, free) in free {
            if short == 0 {
                break;
            }
            let step = free.min(short);
            // Emptied of free places it is closed, and keeps its size.
            let smaller = step < free;
            self.db
                .prepare_cached(
                    "UPDATE slot SET open = ?2, capacity = CASE WHEN ?2 THEN capacity - ?3 ELSE capacity END
                     WHERE slot_id = ?1",
                )?
                .execute(params![slot.0, smaller, step])?;
            short -= step;
            changed.push(slot);
        }
        self.restock(vaccine)?;
        self.events("SHORTFALL", &changed)?;
        self.db
            .prepare_cached(
                "INSERT INTO event (at, kind, side, shard_id, slot_id, clinic, vaccine, doses)
                 SELECT ?1, 'SHORTFALL', 0, shard_id, 0, clinic, ?3, ?4 FROM clinic WHERE clinic = ?2",
            )?
            .execute(params![
                self.at.as_micros(),
                self.clinic,
                vaccine.as_str(),
                short
            ])?;
        Ok((short, changed))
    }

    /// The vaccine's figures; a vaccine that never came has a row of noughts from now on.
    fn stock_row(&self, vaccine: &VaccineId) -> rusqlite::Result<StockRow> {
        self.db
            .prepare_cached(
                "INSERT INTO stock (clinic, vaccine) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?
            .execute(params![self.clinic, vaccine.as_str()])?;
        self.db
            .prepare_cached(
                "SELECT vaccine, received, wasted, walk_in, opened, given, walk_in_given FROM stock
                 WHERE clinic = ?1 AND vaccine = ?2",
            )?
            .query_row(params![self.clinic, vaccine.as_str()], |row| {
                read_stock(row, 0)
            })
    }

    /// Counts what is open.
    fn restock(&self, vaccine: &VaccineId) -> rusqlite::Result<StockRow> {
        restock(self.db, self.clinic, vaccine)?;
        self.stock_row(vaccine)
    }

    // === Slots ===

    fn open(&self, slots: &[NewSlot]) -> rusqlite::Result<Changed> {
        let Some(vaccine) = slots.first().map(|slot| &slot.vaccine) else {
            return Ok(Err(Refusal::Invalid.into()));
        };
        if slots.iter().any(|slot| slot.starts_at <= self.op.now) {
            let problem = "the first slot would start in the past".to_owned();
            return Ok(refused(Refusal::InThePast, "days", problem));
        }
        let (mut there, mut open, mut below) = (Vec::new(), 0, 0);
        for slot in slots {
            if let Some((id, booked, is_open)) = self.at_start(slot)? {
                open += u32::from(is_open);
                below += u32::from(booked > slot.capacity);
                there.push((slot.starts_at, id));
            }
        }
        if open > 0 {
            let problem = format!("{open} of the slots are open already");
            return Ok(refused(Refusal::SlotExists, "days", problem));
        }
        if below > 0 {
            let problem = format!("{below} closed slots have more people");
            return Ok(refused(Refusal::BelowBooked, "capacity", problem));
        }
        let mut all = Vec::with_capacity(slots.len());
        let mut made = Vec::new();
        for slot in slots {
            if let Some((_, id)) = there.iter().find(|(start, _)| *start == slot.starts_at) {
                self.db
                    .prepare_cached("UPDATE slot SET capacity = ?2, open = 1 WHERE slot_id = ?1")?
                    .execute(params![id.0, slot.capacity])?;
                all.push(*id);
            } else {
                let id = self.add(slot)?;
                made.push(id);
                all.push(id);
            }
        }
        let exceeded = exceeded(&self.restock(vaccine)?);
        if exceeded > 0 {
            let problem = format!("{exceeded} doses too many");
            return Ok(refused(Refusal::StockExceeded, "capacity", problem));
        }
        self.events("SUPPLY", &all)?;
        let mut told = self.slots(&all)?;
        if self.op.dry_run {
            for slot in told.iter_mut().filter(|slot| made.contains(&slot.slot)) {
                slot.slot = SlotId(0);
            }
        }
        Ok(Ok(ClinicAnswer {
            stock: vec![self.stock_row(vaccine)?],
            slots: told,
            ..ClinicAnswer::default()
        }))
    }

    /// The slot of this start, vaccine and dose, its people, and whether it is open.
    fn at_start(&self, slot: &NewSlot) -> rusqlite::Result<Option<(SlotId, u32, bool)>> {
        self.db
            .prepare_cached(
                "SELECT slot_id, booked, open FROM slot
                 WHERE clinic = ?1 AND starts_at = ?2 AND vaccine = ?3 AND dose = ?4",
            )?
            .query_row(
                params![
                    self.clinic,
                    slot.starts_at.as_micros(),
                    slot.vaccine.as_str(),
                    slot.dose
                ],
                |row| Ok((SlotId(row.get(0)?), row.get(1)?, row.get(2)?)),
            )
            .optional()
    }

    fn add(&self, slot: &NewSlot) -> rusqlite::Result<SlotId> {
        self.db
            .prepare_cached(
                "INSERT INTO slot (shard_id, clinic, starts_at, vaccine, dose, day, capacity, open)
                 SELECT shard_id, clinic, ?2, ?3, ?4, ?5, ?6, 1 FROM clinic WHERE clinic = ?1",
            )?
            .execute(params![
                self.clinic,
                slot.starts_at.as_micros(),
                slot.vaccine.as_str(),
                slot.dose,
                slot.day,
                slot.capacity,
            ])?;
        Ok(SlotId(self.db.last_insert_rowid().unsigned_abs()))
    }

    fn resize(&self, slot: SlotId, capacity: u32) -> rusqlite::Result<Changed> {
        let Some(before) = self.own(slot)? else {
            return Ok(Err(Refusal::SlotUnknown.into()));
        };
        if before.starts_at <= self.op.now {
            let problem = "the slot has begun".to_owned();
            return Ok(refused(Refusal::InThePast, "slot", problem));
        }
        if before.booked > capacity {
            let booked = format!("{} people are booked", before.booked);
            let mut why = ClinicRefusal::noted(Refusal::BelowBooked, "capacity", booked);
            let codes = self.codes(slot)?.join(", ");
            why.notes.push(("booking_codes".to_owned(), codes));
            return Ok(Err(why));
        }
        self.db
            .prepare_cached("UPDATE slot SET capacity = ?2 WHERE slot_id = ?1")?
            .execute(params![slot.0, capacity])?;
        let stock = self.restock(&before.vaccine)?;
        let exceeded = exceeded(&stock);
        if capacity > before.capacity && exceeded > 0 {
            let problem = format!("{exceeded} doses too many");
            return Ok(refused(Refusal::StockExceeded, "capacity", problem));
        }
        self.events("SUPPLY", &[slot])?;
        Ok(Ok(ClinicAnswer {
            stock: vec![stock],
            slots: self.slots(&[slot])?,
            ..ClinicAnswer::default()
        }))
    }

    fn close(&self, slots: &[SlotId]) -> rusqlite::Result<Changed> {
        let (mut vaccines, mut changed) = (std::collections::BTreeSet::new(), Vec::new());
        for slot in slots {
            let Some(before) = self.own(*slot)? else {
                return Ok(Err(Refusal::SlotUnknown.into()));
            };
            if before.open {
                self.db
                    .prepare_cached("UPDATE slot SET open = 0 WHERE slot_id = ?1")?
                    .execute([slot.0])?;
                changed.push(*slot);
            }
            vaccines.insert(before.vaccine);
        }
        self.events("SUPPLY", &changed)?;
        Ok(Ok(ClinicAnswer {
            stock: vaccines
                .iter()
                .map(|vaccine| self.restock(vaccine))
                .collect::<rusqlite::Result<_>>()?,
            slots: self.slots(slots)?,
            ..ClinicAnswer::default()
        }))
    }

    /// A slot of this clinic.
    fn own(&self, slot: SlotId) -> rusqlite::Result<Option<ClinicSlot>> {
        self.db
            .prepare_cached(
                "SELECT slot_id, starts_at, vaccine, dose, capacity, booked, open FROM slot
                 WHERE slot_id = ?1 AND clinic = ?2",
            )?
            .query_row(params![stored(slot), self.clinic], |row| {
                Ok(ClinicSlot {
                    slot: SlotId(row.get(0)?),
                    starts_at: Timestamp::from_micros(row.get(1)?),
                    vaccine: parsed(row, 2)?,
                    dose: row.get(3)?,
                    capacity: row.get(4)?,
                    booked: row.get(5)?,
                    open: row.get(6)?,
                })
            })
            .optional()
    }

    fn slots(&self, slots: &[SlotId]) -> rusqlite::Result<Vec<ClinicSlot>> {
        let mut found = Vec::with_capacity(slots.len());
        for slot in slots {
            found.extend(self.own(*slot)?);
        }
        found.sort_by_key(|slot| (slot.starts_at, slot.slot));
        Ok(found)
    }

    fn codes(&self, slot: SlotId) -> rusqlite::Result<Vec<String>> {
        self.db
            .prepare_cached(
                "SELECT code FROM booking WHERE slot_id = ?1 AND state <> 'CANCELLED' ORDER BY code LIMIT ?2",
            )?
            .query_map(params![slot.0, CODES_MAX], |row| row.get(0))?
            .collect()
    }

    fn events(&self, kind: &str, slots: &[SlotId]) -> rusqlite::Result<()> {
        for slot in slots {
            self.db
                .prepare_cached(
                    "INSERT INTO event (at, kind, side, shard_id, slot_id)
                     SELECT ?1, ?2, 1, shard_id, slot_id FROM slot WHERE slot_id = ?3",
                )?
                .execute(params![self.at.as_micros(), kind, slot.0])?;
        }
        Ok(())
    }
}

/// Counts what is open.
pub(super) fn restock(db: &Connection, clinic: &str, vaccine: &VaccineId) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE stock SET opened = (
            SELECT coalesce(sum(CASE WHEN open THEN capacity ELSE booked END), 0)
            FROM slot WHERE slot.clinic = ?1 AND slot.vaccine = ?2)
         WHERE clinic = ?1 AND vaccine = ?2",
    )?
    .execute(params![clinic, vaccine.as_str()])?;
    Ok(())
}

fn refused(refusal: Refusal, field: &str, problem: String) -> Changed {
    Err(ClinicRefusal::noted(refusal, field, problem))
}

/// Open places that there is no stock for.
fn exceeded(stock: &StockRow) -> u64 {
    (stock.opened + stock.wasted + stock.walk_in).saturating_sub(stock.received)
}

pub(super) fn unlike(column: usize) -> impl FnOnce(serde_json::Error) -> rusqlite::Error {
    move |error| {
        let text = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, text, Box::new(error))
    }
}

/// Reads seven columns: the vaccine and its figures.
fn read_stock(row: &Row<'_>, from: usize) -> rusqlite::Result<StockRow> {
    Ok(StockRow {
        vaccine: parsed(row, from)?,
        received: row.get(from + 1)?,
        wasted: row.get(from + 2)?,
        walk_in: row.get(from + 3)?,
        opened: row.get(from + 4)?,
        given: row.get(from + 5)?,
        walk_in_given: row.get(from + 6)?,
    })
}
