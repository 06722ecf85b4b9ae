//! Clinics, stock and slots.

use std::time::SystemTime;

use domain::{Refusal, ShardId, SlotState};
use tokio_postgres::Row;

use super::PostgresLedger;
use super::trouble::{DRY_RUN, Garbled, SUPPLY_REFUSED, Trouble};
use super::values::{column, signed_32, slot_state, system_time, unreadable, unsigned_32};
use crate::ledger::{Applied, ApplyFault, BoxError, Clinic, ClinicSupply, Fault, ShardCatalogue};

const APPLY: &str = "SELECT * FROM apply_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
    $14, $15, $16, $17)";

pub(super) async fn catalogue(
    ledger: &PostgresLedger,
    shard: ShardId,
) -> Result<ShardCatalogue, Fault> {
    let id = signed_32(shard.0);
    let clinics = include_str!("../sql/postgres_catalogue_clinics.sql");
    let clinics = ledger.read(clinics, &[&id]).await?;
    let slots = include_str!("../sql/postgres_catalogue_slots.sql");
    let slots = ledger.read(slots, &[&id]).await?;
    let clinics: Result<Vec<Clinic>, BoxError> = clinics.iter().map(clinic).collect();
    let slots: Result<Vec<SlotState>, BoxError> = slots.iter().map(slot_state).collect();
    Ok(ShardCatalogue {
        clinics: clinics.map_err(unreadable)?,
        slots: slots.map_err(unreadable)?,
    })
}

pub(super) fn clinic(row: &Row) -> Result<Clinic, BoxError> {
    Ok(Clinic {
        clinic: column::<&str>(row, "clinic")?.parse()?,
        shard: ShardId(unsigned_32(column(row, "shard_id")?)),
        display_name: column(row, "display_name")?,
        district: column(row, "district")?,
        latitude: column(row, "latitude")?,
        longitude: column(row, "longitude")?,
    })
}

/// An application by columns; stock and slots name their clinic by its place, counted from 1.
#[derive(Default)]
struct Columns<'a> {
    clinic: Vec<&'a str>,
    shard: Vec<i32>,
    name: Vec<&'a str>,
    district: Vec<&'a str>,
    latitude: Vec<f64>,
    longitude: Vec<f64>,
    stock_clinic: Vec<i32>,
    stock_vaccine: Vec<&'a str>,
    received: Vec<i64>,
    slot_clinic: Vec<i32>,
    starts_at: Vec<SystemTime>,
    day: Vec<i32>,
    vaccine: Vec<&'a str>,
    dose: Vec<i32>,
    capacity: Vec<i32>,
    open: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn new(supply: &'a [ClinicSupply]) -> Self {
        let mut columns = Self::default();
        for supply in supply {
            columns.push(supply);
        }
        columns
    }

    fn push(&mut self, supply: &'a ClinicSupply) {
        let clinic = &supply.clinic;
        self.clinic.push(clinic.clinic.as_str());
        self.shard.push(signed_32(clinic.shard.0));
        self.name.push(&clinic.display_name);
        self.district.push(&clinic.district);
        self.latitude.push(clinic.latitude);
        self.longitude.push(clinic.longitude);
        let place = i32::try_from(self.clinic.len()).unwrap_or(i32::MAX);
        for (vaccine, received) in &supply.received {
            self.stock_clinic.push(place);
            self.stock_vaccine.push(vaccine.as_str());
            self.received.push(i64::from(*received));
        }
        for slot in &supply.slots {
            self.slot_clinic.push(place);
            self.starts_at.push(system_time(slot.starts_at));
            self.day.push(slot.day);
            self.vaccine.push(slot.vaccine.as_str());
            self.dose.push(i32::from(slot.dose));
            self.capacity.push(signed_32(slot.capacity));
            self.open.push(slot.open);
        }
    }
}

pub(super) async fn apply(
    ledger: &PostgresLedger,
    supply: &[ClinicSupply],
    dry_run: bool,
) -> Result<Applied, ApplyFault> {
    let all = Columns::new(supply);
    let answer = ledger
        .ask(
            APPLY,
            &[
                &dry_run,
                &all.clinic,
                &all.shard,
                &all.name,
                &all.district,
                &all.latitude,
                &all.longitude,
                &all.stock_clinic,
                &all.stock_vaccine,
                &all.received,
                &all.slot_clinic,
                &all.starts_at,
                &all.day,
                &all.vaccine,
                &all.dose,
                &all.capacity,
                &all.open,
            ],
        )
        .await;
    let figures = match answer {
        Ok(rows) => return Ok(applied(&rows).map_err(unreadable)?),
        Err(Trouble::Undone(undone)) if undone.code.code() == SUPPLY_REFUSED => {
            let refused = || -> Result<ApplyFault, BoxError> {
                Ok(ApplyFault::Refused {
                    clinic: undone.detail().parse()?,
                    refusal: Refusal::from_code(&undone.message).ok_or(Garbled("refusal"))?,
                })
            };
            return Err(refused().map_err(unreadable)?);
        }
        Err(Trouble::Undone(undone)) if undone.code.code() == DRY_RUN => undone,
        // Repeating an application is harmless.
        Err(trouble) => return Err(trouble.unavailable().into()),
    };
    let mut numbers = figures.detail().split(' ').map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok);
    match (next(), next(), next()) {
        (Some(clinics_added), Some(slots_added), Some(slots_changed)) => Ok(Applied {
            clinics_added,
            slots_added,
            slots_changed,
        }),
        _ => Err(unreadable(Garbled("dry run").into()).into()),
    }
}

fn applied(rows: &[Row]) -> Result<Applied, BoxError> {
    let row = rows.first().ok_or(Garbled("apply"))?;
    Ok(Applied {
        clinics_added: unsigned_32(column(row, "o_clinics")?),
        slots_added: unsigned_32(column(row, "o_added")?),
        slots_changed: unsigned_32(column(row, "o_changed")?),
    })
}
