//! Buckets, seeds and documents of rooms. The one writer thread makes counting exact.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::place::DrawTicket;
use domain::{CampaignId, CohortId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::{BoxError, ClosedBucket, Corrupt, DrawSeed, KeptDocument, OpenBucket};
use super::begin;
use super::rows::open_bucket;

/// Which room.
pub(super) struct Room {
    campaign: String,
    cohort: String,
}

// === impl Room ===

impl Room {
    pub(super) fn of(campaign: &CampaignId, cohort: &CohortId) -> Self {
        Self {
            campaign: campaign.to_string(),
            cohort: cohort.to_string(),
        }
    }
}

pub(super) fn close(
    db: &mut Connection,
    room: &Room,
    id: u32,
    now: Timestamp,
) -> Result<Option<ClosedBucket>, BoxError> {
    let Room { campaign, cohort } = room;
    let txn = begin(db)?;
    let open = open_bucket(&txn, (campaign, cohort), now.as_micros())?;
    if open == i64::from(id) {
        txn.execute(
            "INSERT INTO room_bucket_region (campaign, cohort, id, region, n)
             SELECT ?1, ?2, ?3, region, count(*) FROM place
             WHERE campaign = ?1 AND cohort = ?2 AND bucket = ?3 GROUP BY region
             ON CONFLICT (campaign, cohort, id, region) DO UPDATE SET n = excluded.n",
            params![campaign, cohort, id],
        )?;
        txn.execute(
            "UPDATE room_bucket SET state = 'CLOSED', closed_at = ?4,
                 before_n = (SELECT coalesce(max(before_n + n), 0) FROM room_bucket
                             WHERE campaign = ?1 AND cohort = ?2 AND id = ?3 - 1),
                 n = (SELECT coalesce(sum(n), 0) FROM room_bucket_region
                      WHERE campaign = ?1 AND cohort = ?2 AND id = ?3)
             WHERE campaign = ?1 AND cohort = ?2 AND id = ?3",
            params![campaign, cohort, id, now.as_micros()],
        )?;
        txn.execute(
            "INSERT INTO room_bucket (campaign, cohort, id, opened_at) VALUES (?1, ?2, ?3 + 1, ?4)",
            params![campaign, cohort, id, now.as_micros()],
        )?;
    }
    let mut found = read_closed(&txn, room, id, 1)?;
    txn.commit()?;
    found.retain(|bucket| bucket.id == id);
    Ok(found.pop())
}

pub(super) fn closed(
    db: &mut Connection,
    room: &Room,
    from: u32,
    limit: u32,
) -> Result<Vec<ClosedBucket>, BoxError> {
    read_closed(db, room, from, limit)
}

fn read_closed(
    db: &Connection,
    room: &Room,
    from: u32,
    limit: u32,
) -> Result<Vec<ClosedBucket>, BoxError> {
    let Room { campaign, cohort } = room;
    let mut buckets = db.prepare_cached(
        "SELECT id, before_n, closed_at FROM room_bucket
         WHERE campaign = ?1 AND cohort = ?2 AND id >= ?3 AND state = 'CLOSED' ORDER BY id LIMIT ?4",
    )?;
    let mut regions = db.prepare_cached(
        "SELECT region, n FROM room_bucket_region
         WHERE campaign = ?1 AND cohort = ?2 AND id = ?3 AND n > 0",
    )?;
    let mut all = Vec::new();
    let mut rows = buckets.query(params![campaign, cohort, from, limit])?;
    while let Some(row) = rows.next()? {
        let id: u32 = row.get(0)?;
        let mut by_region = BTreeMap::new();
        let mut counts = regions.query(params![campaign, cohort, id])?;
        while let Some(row) = counts.next()? {
            let region: String = row.get(0)?;
            let region = region.parse().map_err(|_| Corrupt { what: "region" })?;
            by_region.insert(region, row.get::<_, i64>(1)?.try_into()?);
        }
        all.push(ClosedBucket {
            id,
            before: row.get::<_, i64>(1)?.try_into()?,
            regions: by_region,
            closed_at: Timestamp::from_micros(row.get(2)?),
        });
    }
    Ok(all)
}

pub(super) fn peek(
    db: &mut Connection,
    room: &Room,
    count_up_to: u64,
    now: Timestamp,
) -> Result<Option<OpenBucket>, BoxError> {
    let Room { campaign, cohort } = room;
    let most = i64::try_from(count_up_to).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(
        "SELECT b.id, b.opened_at, (SELECT count(*) FROM (
             SELECT 1 FROM place WHERE campaign = ?1 AND cohort = ?2 AND bucket = b.id LIMIT ?3))
         FROM room_bucket b WHERE b.campaign = ?1 AND b.cohort = ?2 AND b.state = 'OPEN'",
    )?;
    let read = |row: &Row<'_>| {
        let (id, opened_at, people): (u32, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let open_for = u64::try_from(now.as_micros().saturating_sub(opened_at)).unwrap_or(0);
        Ok(OpenBucket {
            id,
            people: u64::try_from(people).unwrap_or(0),
            open_for: Duration::from_micros(open_for),
        })
    };
    Ok(statement
        .query_row(params![campaign, cohort, most], read)
        .optional()?)
}

pub(super) fn tickets(
    db: &mut Connection,
    room: &Room,
    bucket: u32,
) -> Result<Vec<DrawTicket>, BoxError> {
    let mut statement = db.prepare_cached(
        "SELECT ticket FROM place WHERE campaign = ?1 AND cohort = ?2 AND bucket = ?3 ORDER BY ticket",
    )?;
    let mut rows = statement.query(params![room.campaign, room.cohort, bucket])?;
    let mut tickets = Vec::new();
    while let Some(row) = rows.next()? {
        let ticket = row.get_ref(0)?.as_blob()?.try_into();
        tickets.push(DrawTicket(ticket.map_err(|_| Corrupt { what: "ticket" })?));
    }
    Ok(tickets)
}

pub(super) fn keep_seed(
    db: &mut Connection,
    room: &Room,
    new: DrawSeed,
    now: Timestamp,
) -> Result<DrawSeed, BoxError> {
    db.execute(
        "INSERT INTO room_seed (campaign, cohort, seed, made_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![room.campaign, room.cohort, new.0.as_slice(), now.as_micros()],
    )?;
    seed(db, room)?.ok_or_else(|| Corrupt { what: "no seed" }.into())
}

pub(super) fn seed(db: &mut Connection, room: &Room) -> Result<Option<DrawSeed>, BoxError> {
    let sql = "SELECT seed FROM room_seed WHERE campaign = ?1 AND cohort = ?2";
    let kept: Option<Vec<u8>> = db
        .query_row(sql, params![room.campaign, room.cohort], |row| row.get(0))
        .optional()?;
    let read = |kept: Vec<u8>| kept.try_into().map(DrawSeed);
    let kept = kept.map(read).transpose();
    Ok(kept.map_err(|_| Corrupt { what: "seed" })?)
}

pub(super) fn keep_documents(
    db: &mut Connection,
    room: &Room,
    documents: &[KeptDocument],
) -> Result<(), BoxError> {
    let txn = begin(db)?;
    for one in documents {
        txn.prepare_cached(
            "INSERT INTO room_document (campaign, cohort, version, document, written_at)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            room.campaign,
            room.cohort,
            i64::try_from(one.version)?,
            one.document,
            one.written_at.as_micros(),
        ])?;
    }
    txn.commit()?;
    Ok(())
}

pub(super) fn documents(
    db: &mut Connection,
    room: &Room,
    after: u64,
    limit: u32,
) -> Result<Vec<KeptDocument>, BoxError> {
    let mut statement = db.prepare_cached(
        "SELECT version, document, written_at FROM room_document
         WHERE campaign = ?1 AND cohort = ?2 AND version > ?3 ORDER BY version LIMIT ?4",
    )?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let params = params![room.campaign, room.cohort, after, limit];
    let rows = statement.query_map(params, read_document)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn newest_document(
    db: &mut Connection,
    room: &Room,
) -> Result<Option<KeptDocument>, BoxError> {
    let sql = "SELECT version, document, written_at FROM room_document
               WHERE campaign = ?1 AND cohort = ?2 ORDER BY version DESC LIMIT 1";
    let params = params![room.campaign, room.cohort];
    Ok(db.query_row(sql, params, read_document).optional()?)
}

fn read_document(row: &Row<'_>) -> rusqlite::Result<KeptDocument> {
    let version: i64 = row.get(0)?;
    Ok(KeptDocument {
        version: u64::try_from(version).unwrap_or(0),
        document: row.get(1)?,
        written_at: Timestamp::from_micros(row.get(2)?),
    })
}
