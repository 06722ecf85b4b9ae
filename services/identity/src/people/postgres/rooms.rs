//! Buckets, seeds and documents of rooms.
//!
//! Invariant: what must never be taken back (a closed bucket, a seed) counts only when its commit came without a
//! warning; repeating either is safe.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use deadpool_postgres::Pool;
use domain::place::DrawTicket;
use domain::{CampaignId, CohortId, Timestamp};
use futures::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::{BoxError, ClosedBucket, Corrupt, DrawSeed, KeptDocument, OpenBucket};
use super::session::{Connector, Session, Warned};

/// Counting ten million people takes seconds; those who come meanwhile wait as long.
const LIMITS: &str = "SET statement_timeout = '60s'; SET lock_timeout = '5s'";

/// On a session of its own: this is seldom, and its warnings must be told from those of others.
async fn alone(
    connector: &Connector,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, BoxError> {
    let session = connector.plain_session().await?;
    session.client.batch_execute(LIMITS).await?;
    let rows = session.client.query(sql, params).await?;
    if session.take_warning() {
        return Err(Warned.into());
    }
    Ok(rows)
}

pub(super) async fn close(
    connector: &Connector,
    campaign: &CampaignId,
    cohort: &CohortId,
    id: u32,
) -> Result<Option<ClosedBucket>, BoxError> {
    let sql = "SELECT $3::int AS id, o_before AS before_n, o_closed_at AS closed_at, o_region AS region, o_n AS n
               FROM close_bucket($1, $2, $3)";
    let id = i32::try_from(id)?;
    let rows = alone(connector, sql, &[&campaign.as_str(), &cohort.as_str(), &id]).await?;
    Ok(buckets(&rows)?.pop())
}

pub(super) async fn closed(
    readers: &Pool,
    campaign: &CampaignId,
    cohort: &CohortId,
    from: u32,
    limit: u32,
) -> Result<Vec<ClosedBucket>, BoxError> {
    let client = readers.get().await?;
    let statement = client
        .prepare_cached(
            "SELECT b.id, b.before_n, b.closed_at, r.region, r.n
             FROM (SELECT * FROM room_bucket
                   WHERE campaign = $1 AND cohort = $2 AND id >= $3 AND state = 'CLOSED' ORDER BY id LIMIT $4) b
             LEFT JOIN room_bucket_region r ON r.campaign = b.campaign AND r.cohort = b.cohort AND r.id = b.id
             ORDER BY b.id, r.region",
        )
        .await?;
    let (from, limit) = (i32::try_from(from)?, i64::from(limit));
    let params: [&(dyn ToSql + Sync); 4] = [&campaign.as_str(), &cohort.as_str(), &from, &limit];
    buckets(&client.query(&statement, &params).await?)
}

/// One row a region, at least one a bucket, in the order of ids.
fn buckets(rows: &[Row]) -> Result<Vec<ClosedBucket>, BoxError> {
    let mut all: Vec<ClosedBucket> = Vec::new();
    for row in rows {
        let id =
            u32::try_from(row.try_get::<_, i32>("id")?).map_err(|_| Corrupt { what: "bucket" })?;
        if all.last().is_none_or(|last| last.id != id) {
            let before = row.try_get::<_, Option<i64>>("before_n")?;
            let before = before.ok_or(Corrupt {
                what: "a closed bucket that knows nothing of those before it",
            })?;
            all.push(ClosedBucket {
                id,
                before: u64::try_from(before).map_err(|_| Corrupt { what: "before_n" })?,
                regions: BTreeMap::new(),
                closed_at: timestamp(row.try_get("closed_at")?)?,
            });
        }
        let region: Option<&str> = row.try_get("region")?;
        if let (Some(region), Some(last)) = (region, all.last_mut()) {
            let region = region.parse().map_err(|_| Corrupt { what: "region" })?;
            let people =
                u64::try_from(row.try_get::<_, i64>("n")?).map_err(|_| Corrupt { what: "n" })?;
            if people > 0 {
                last.regions.insert(region, people);
            }
        }
    }
    Ok(all)
}

pub(super) async fn peek(
    readers: &Pool,
    campaign: &CampaignId,
    cohort: &CohortId,
    count_up_to: u64,
) -> Result<Option<OpenBucket>, BoxError> {
    let client = readers.get().await?;
    let statement = client
        .prepare_cached("SELECT o_id, o_open_for_us, o_people FROM peek_bucket($1, $2, $3)")
        .await?;
    let most = i64::try_from(count_up_to).unwrap_or(i64::MAX);
    let row = client
        .query_opt(&statement, &[&campaign.as_str(), &cohort.as_str(), &most])
        .await?;
    row.map(|row| {
        let number = |at| u64::try_from(row.try_get::<_, i64>(at)?).map_err(BoxError::from);
        Ok(OpenBucket {
            id: u32::try_from(row.try_get::<_, i32>(0)?)?,
            // A clock that was set back makes the bucket young, not the answer wrong.
            open_for: Duration::from_micros(number(1).unwrap_or(0)),
            people: number(2)?,
        })
    })
    .transpose()
}

pub(super) async fn tickets(
    connector: &Connector,
    campaign: &CampaignId,
    cohort: &CohortId,
    bucket: u32,
) -> Result<Vec<DrawTicket>, BoxError> {
    let Session { client, .. } = connector.plain_session().await?;
    client.batch_execute(LIMITS).await?;
    let sql = "SELECT ticket FROM place WHERE campaign = $1 AND cohort = $2 AND bucket = $3 ORDER BY ticket";
    let bucket = i32::try_from(bucket)?;
    let params: [&(dyn ToSql + Sync); 3] = [&campaign.as_str(), &cohort.as_str(), &bucket];
    let rows = client.query_raw(sql, params).await?;
    let tickets = rows.map_err(BoxError::from).and_then(async |row| {
        let ticket: &[u8] = row.try_get(0)?;
        let ticket = ticket.try_into().map_err(|_| Corrupt { what: "ticket" })?;
        Ok(DrawTicket(ticket))
    });
    tickets.try_collect().await
}

pub(super) async fn keep_seed(
    connector: &Connector,
    campaign: &CampaignId,
    cohort: &CohortId,
    seed: DrawSeed,
) -> Result<DrawSeed, BoxError> {
    let sql = "INSERT INTO room_seed AS kept (campaign, cohort, seed) VALUES ($1, $2, $3)
               ON CONFLICT (campaign, cohort) DO UPDATE SET seed = kept.seed RETURNING seed";
    let secret = seed.0.as_slice();
    let rows = alone(
        connector,
        sql,
        &[&campaign.as_str(), &cohort.as_str(), &secret],
    )
    .await?;
    let row = rows.first().ok_or(Corrupt { what: "no seed" })?;
    read_seed(row)
}

pub(super) async fn seed(
    readers: &Pool,
    campaign: &CampaignId,
    cohort: &CohortId,
) -> Result<Option<DrawSeed>, BoxError> {
    let client = readers.get().await?;
    let sql = "SELECT seed FROM room_seed WHERE campaign = $1 AND cohort = $2";
    let row = client
        .query_opt(sql, &[&campaign.as_str(), &cohort.as_str()])
        .await?;
    row.as_ref().map(read_seed).transpose()
}

fn read_seed(row: &Row) -> Result<DrawSeed, BoxError> {
    let seed: &[u8] = row.try_get(0)?;
    Ok(DrawSeed(
        seed.try_into().map_err(|_| Corrupt { what: "seed" })?,
    ))
}

pub(super) async fn keep_documents(
    readers: &Pool,
    campaign: &CampaignId,
    cohort: &CohortId,
    documents: &[KeptDocument],
) -> Result<(), BoxError> {
    let client = readers.get().await?;
    let statement = client
        .prepare_cached(
            "INSERT INTO room_document (campaign, cohort, version, document, written_at)
             SELECT $1, $2, * FROM unnest($3::bigint[], $4::text[], $5::timestamptz[])
             ON CONFLICT DO NOTHING",
        )
        .await?;
    let versions: Result<Vec<i64>, _> =
        documents.iter().map(|one| one.version.try_into()).collect();
    let texts: Vec<&str> = documents.iter().map(|one| one.document.as_str()).collect();
    let times: Vec<SystemTime> = documents
        .iter()
        .map(|one| system_time(one.written_at))
        .collect();
    let params: [&(dyn ToSql + Sync); 5] = [
        &campaign.as_str(),
        &cohort.as_str(),
        &versions?,
        &texts,
        &times,
    ];
    client.execute(&statement, &params).await?;
    Ok(())
}

pub(super) async fn documents(
    readers: &Pool,
    campaign: &CampaignId,
    cohort: &CohortId,
    after: u64,
    limit: u32,
) -> Result<Vec<KeptDocument>, BoxError> {
    let client = readers.get().await?;
    let statement = client
        .prepare_cached(
            "SELECT version, document, written_at FROM room_document
             WHERE campaign = $1 AND cohort = $2 AND version > $3 ORDER BY version LIMIT $4",
        )
        .await?;
    let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::from(limit));
    let params: [&(dyn ToSql + Sync); 4] = [&campaign.as_str(), &cohort.as_str(), &after, &limit];
    let rows = client.query(&statement, &params).await?;
    rows.iter().map(read_document).collect()
}

pub(super) async fn newest_document(
    readers: &Pool,
    campaign: &CampaignId,
    cohort: &CohortId,
) -> Result<Option<KeptDocument>, BoxError> {
    let client = readers.get().await?;
    let statement = client
        .prepare_cached(
            "SELECT version, document, written_at FROM room_document
             WHERE campaign = $1 AND cohort = $2 ORDER BY version DESC LIMIT 1",
        )
        .await?;
    let row = client
        .query_opt(&statement, &[&campaign.as_str(), &cohort.as_str()])
        .await?;
    row.as_ref().map(read_document).transpose()
}

fn read_document(row: &Row) -> Result<KeptDocument, BoxError> {
    Ok(KeptDocument {
        version: u64::try_from(row.try_get::<_, i64>(0)?)?,
        document: row.try_get(1)?,
        written_at: timestamp(row.try_get(2)?)?,
    })
}

fn timestamp(time: SystemTime) -> Result<Timestamp, BoxError> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(Timestamp::from_micros(i64::try_from(since.as_micros())?))
}

fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(0))
}
