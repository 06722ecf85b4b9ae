//! Rows of the SQLite store, one statement each; transactions are the writer's.

use domain::{CampaignId, PersonId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::super::{BoxError, Columns, Corrupt, Placed, Stamp};

const SELECT: &str =
    "SELECT cohort, region, serial, bucket, ticket,
        (SELECT to_region FROM region_change WHERE campaign = ?1 AND person = ?2 AND outcome IS NULL)
     FROM place WHERE campaign = ?1 AND person = ?2";
const OPEN_BUCKET: &str =
    "SELECT id FROM room_bucket WHERE campaign = ?1 AND cohort = ?2 AND state = 'OPEN'";

pub(super) fn select(
    connection: &Connection,
    campaign: &CampaignId,
    person: PersonId,
) -> Result<Option<Placed>, BoxError> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let read = |row: &rusqlite::Row<'_>| {
        let columns = Columns {
            cohort: row.get_ref(0)?.as_str()?,
            region: row.get_ref(1)?.as_str()?,
            serial: row.get(2)?,
            bucket: row.get(3)?,
            ticket: row.get_ref(4)?.as_blob()?,
            moving_to: row.get_ref(5)?.as_str_or_null()?,
        };
        Ok(columns.placed())
    };
    let found = statement
        .query_row(
            params![campaign.as_str(), person.as_bytes().as_slice()],
            read,
        )
        .optional()?;
    Ok(found.transpose()?)
}

pub(super) fn insert(
    txn: &Transaction<'_>,
    stamp: &Stamp,
    now_micros: i64,
) -> Result<Placed, BoxError> {
    let room = (stamp.campaign.as_str(), stamp.cohort.as_str());
    let bucket = open_bucket(txn, room, now_micros)?;
    txn.prepare_cached(
        "INSERT INTO place
             (campaign, person, cohort, region, serial, bucket, ticket, first_caller, first_issued_at)
         VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        stamp.campaign.as_str(),
        stamp.person.as_bytes().as_slice(),
        stamp.cohort.as_str(),
        stamp.region.as_str(),
        bucket,
        stamp.ticket.0.as_slice(),
        stamp.caller.as_str(),
        now_micros,
    ])?;
    let columns = Columns {
        cohort: stamp.cohort.as_str(),
        region: stamp.region.as_str(),
        serial: 1,
        bucket,
        ticket: &stamp.ticket.0,
        moving_to: None,
    };
    Ok(columns.placed()?)
}

pub(super) fn open_bucket(
    txn: &Transaction<'_>,
    (campaign, cohort): (&str, &str),
    now_micros: i64,
) -> Result<i64, BoxError> {
    let find = |txn: &Transaction<'_>| {
        txn.prepare_cached(OPEN_BUCKET)?
            .query_row(params![campaign, cohort], |row| row.get::<_, i64>(0))
            .optional()
    };
    if let Some(id) = find(txn)? {
        return Ok(id);
    }
    txn.execute(
        "INSERT INTO room_bucket (campaign, cohort, id, opened_at)
         SELECT ?1, ?2, 0, ?3 WHERE NOT EXISTS (
             SELECT 1 FROM room_bucket WHERE campaign = ?1 AND cohort = ?2)",
        params![campaign, cohort, now_micros],
    )?;
    find(txn)?.ok_or_else(|| {
        Corrupt {
            what: "a room without an open bucket",
        }
        .into()
    })
}
