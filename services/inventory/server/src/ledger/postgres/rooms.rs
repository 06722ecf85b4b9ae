//! Rooms as they were last seen.

use super::PostgresLedger;
use super::values::{column, unreadable};
use crate::ledger::{BoxError, BucketSeen, Fault, RoomSeen};

pub(super) async fn save(ledger: &PostgresLedger, rooms: &[RoomSeen]) -> Result<(), Fault> {
    // One statement for each: the same room may be named twice, and rooms are few.
    for room in rooms {
        let sql = include_str!("../sql/postgres_save_room.sql");
        ledger
            .read(
                sql,
                &[
                    &room.campaign.as_str(),
                    &room.cohort.as_str(),
                    &room.version.to_string(),
                    &room.document,
                    &room.frontier.to_string(),
                ],
            )
            .await?;
    }
    Ok(())
}

pub(super) async fn all(ledger: &PostgresLedger) -> Result<Vec<RoomSeen>, Fault> {
    let sql = include_str!("../sql/postgres_rooms.sql");
    let rows = ledger.read(sql, &[]).await?;
    let rooms: Result<Vec<RoomSeen>, BoxError> = rows
        .iter()
        .map(|row| {
            Ok(RoomSeen {
                campaign: column::<&str>(row, "campaign")?.parse()?,
                cohort: column::<&str>(row, "cohort")?.parse()?,
                version: column::<&str>(row, "version")?.parse()?,
                document: column(row, "document")?,
                frontier: column::<&str>(row, "frontier")?.parse()?,
            })
        })
        .collect();
    rooms.map_err(unreadable)
}

pub(super) async fn save_buckets(
    ledger: &PostgresLedger,
    buckets: &[BucketSeen],
) -> Result<(), Fault> {
    let column = |of: fn(&BucketSeen) -> &str| buckets.iter().map(of).collect::<Vec<&str>>();
    let campaigns = column(|bucket| bucket.campaign.as_str());
    let cohorts = column(|bucket| bucket.cohort.as_str());
    let documents = column(|bucket| &bucket.document);
    let ids: Vec<i64> = buckets.iter().map(|bucket| bucket.id.into()).collect();
    let sql = "INSERT INTO bucket_seen (campaign, cohort, id, document)
               SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
               ON CONFLICT DO NOTHING";
    ledger
        .read(sql, &[&campaigns, &cohorts, &ids, &documents])
        .await
        .map(drop)
}

pub(super) async fn buckets(ledger: &PostgresLedger) -> Result<Vec<BucketSeen>, Fault> {
    let sql =
        "SELECT campaign, cohort, id, document FROM bucket_seen ORDER BY campaign, cohort, id";
    let rows = ledger.read(sql, &[]).await?;
    let buckets: Result<Vec<BucketSeen>, BoxError> = rows
        .iter()
        .map(|row| {
            Ok(BucketSeen {
                campaign: column::<&str>(row, "campaign")?.parse()?,
                cohort: column::<&str>(row, "cohort")?.parse()?,
                id: column::<i64>(row, "id")?.try_into()?,
                document: column(row, "document")?,
            })
        })
        .collect();
    buckets.map_err(unreadable)
}
