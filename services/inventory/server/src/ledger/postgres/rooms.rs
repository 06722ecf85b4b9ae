//! Rooms as they were last seen.

use super::PostgresLedger;
use super::values::{column, unreadable};
use crate::ledger::{BoxError, Fault, RoomSeen};

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
