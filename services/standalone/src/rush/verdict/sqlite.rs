//! Facts from ledger files of embedded mode, opened read only beside the running process.

use std::collections::HashMap;

use rusqlite::{Connection, OpenFlags};

use super::facts::{Appointment, Claim, Counts, Facts, Place, Request, sixteen};

fn open(path: &str) -> anyhow::Result<Connection> {
    Ok(Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )?)
}

pub(super) fn facts(path: &str, campaign: &str) -> anyhow::Result<Facts> {
    let db = open(path)?;
    // One snapshot for all reads.
    db.execute_batch("BEGIN")?;
    let mut facts = Facts::default();
    let mut slots = db.prepare("SELECT slot_id, capacity, booked FROM slot")?;
    let mut rows = slots.query([])?;
    while let Some(row) = rows.next()? {
        let counts = Counts {
            capacity: row.get(1)?,
            booked: row.get(2)?,
        };
        facts.slots.insert(row.get(0)?, counts);
    }
    let mut bookings =
        db.prepare("SELECT booking, slot_id, state, person, campaign = ?1 FROM booking")?;
    let mut rows = bookings.query([campaign])?;
    while let Some(row) = rows.next()? {
        facts.appointments.push(Appointment {
            booking: sixteen(row.get_ref(0)?.as_blob()?)?,
            slot: row.get(1)?,
            state: row.get(2)?,
            person: sixteen(row.get_ref(3)?.as_blob()?)?,
            ours: row.get(4)?,
        });
    }
    let mut claims = db
        .prepare("SELECT person, state, serial, version, booking FROM claim WHERE campaign = ?1")?;
    let mut rows = claims.query([campaign])?;
    while let Some(row) = rows.next()? {
        let booking = row
            .get_ref(4)?
            .as_blob_or_null()?
            .map(sixteen)
            .transpose()?;
        let claim = Claim {
            state: row.get(1)?,
            serial: row.get(2)?,
            version: row.get(3)?,
            booking,
        };
        facts
            .claims
            .insert(sixteen(row.get_ref(0)?.as_blob()?)?, claim);
    }
    let mut requests = db.prepare(
        "SELECT person, request_id, verdict, booking, first_slot, coalesce(second_slot, 0), version_after \
         FROM request WHERE campaign = ?1",
    )?;
    let mut rows = requests.query([campaign])?;
    while let Some(row) = rows.next()? {
        let key = (
            sixteen(row.get_ref(0)?.as_blob()?)?,
            sixteen(row.get_ref(1)?.as_blob()?)?,
        );
        let request = Request {
            verdict: row.get(2)?,
            booking: sixteen(row.get_ref(3)?.as_blob()?)?,
            slots: [row.get(4)?, row.get(5)?],
            version: row.get(6)?,
        };
        facts.requests.insert(key, request);
    }
    let mut events = db.prepare(
        "SELECT person, min(at) FROM event WHERE campaign = ?1 AND kind IN ('HELD', 'BOOKED') GROUP BY person",
    )?;
    let mut rows = events.query([campaign])?;
    while let Some(row) = rows.next()? {
        let person = sixteen(row.get_ref(0)?.as_blob()?)?;
        facts.taken.insert(person, row.get(1)?);
    }
    Ok(facts)
}

pub(super) fn places(path: &str, campaign: &str) -> anyhow::Result<HashMap<[u8; 16], Place>> {
    let db = open(path)?;
    let mut query =
        db.prepare("SELECT person, region, serial, bucket, ticket FROM place WHERE campaign = ?1")?;
    let mut rows = query.query([campaign])?;
    let mut places = HashMap::new();
    while let Some(row) = rows.next()? {
        let place = Place {
            region: row.get(1)?,
            serial: row.get(2)?,
            bucket: row.get(3)?,
            ticket: sixteen(row.get_ref(4)?.as_blob()?)?,
        };
        places.insert(sixteen(row.get_ref(0)?.as_blob()?)?, place);
    }
    Ok(places)
}
