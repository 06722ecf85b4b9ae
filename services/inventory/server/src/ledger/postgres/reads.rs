//! What is read besides batches: shards, slots, the outbox, holds past their end.

use domain::{Epoch, ShardId, SlotId, SlotState};

use super::PostgresLedger;
use super::values::{column, signed, signed_32, slot_state, unreadable, unsigned, unsigned_32};
use crate::ledger::{BoxError, Fault, OutboxCursor, OutsideChanges, ShardRow};

pub(super) async fn ensure_shards(ledger: &PostgresLedger, count: u32) -> Result<(), Fault> {
    let sql = include_str!("../sql/postgres_ensure_shards.sql");
    ledger.read(sql, &[&signed_32(count)]).await.map(drop)
}

pub(super) async fn shards(ledger: &PostgresLedger) -> Result<Vec<ShardRow>, Fault> {
    let sql = "SELECT shard_id, epoch, batch_seq, owner, addr FROM shard ORDER BY shard_id";
    let rows = ledger.read(sql, &[]).await?;
    let shards: Result<Vec<ShardRow>, BoxError> = rows
        .iter()
        .map(|row| {
            Ok(ShardRow {
                shard: ShardId(unsigned_32(column(row, "shard_id")?)),
                epoch: Epoch(unsigned(column(row, "epoch")?)),
                batch_seq: unsigned(column(row, "batch_seq")?),
                owner: column(row, "owner")?,
                addr: column(row, "addr")?,
            })
        })
        .collect();
    shards.map_err(unreadable)
}

pub(super) async fn slots(
    ledger: &PostgresLedger,
    slots: &[SlotId],
) -> Result<Vec<SlotState>, Fault> {
    let ids: Vec<i64> = slots.iter().map(|slot| signed(slot.0)).collect();
    let sql = include_str!("../sql/postgres_slots.sql");
    let rows = ledger.read(sql, &[&ids]).await?;
    let states: Result<Vec<SlotState>, BoxError> = rows.iter().map(slot_state).collect();
    states.map_err(unreadable)
}

pub(super) async fn has_expired_holds(
    ledger: &PostgresLedger,
    shard: ShardId,
) -> Result<bool, Fault> {
    let sql = include_str!("../sql/postgres_has_expired_holds.sql");
    let rows = ledger.read(sql, &[&signed_32(shard.0)]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Everything from the oldest transaction still running on comes after this.
pub(super) async fn outbox_cursor(ledger: &PostgresLedger) -> Result<OutboxCursor, Fault> {
    let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text";
    let rows = ledger.read(sql, &[]).await?;
    let read = || -> Result<OutboxCursor, BoxError> {
        let row = rows.first().ok_or("no answer")?;
        let xmin: &str = row.try_get(0)?;
        Ok(OutboxCursor(xmin.parse()?, 0))
    };
    read().map_err(unreadable)
}

pub(super) async fn outside_changes(
    ledger: &PostgresLedger,
    cursor: OutboxCursor,
    limit: u32,
) -> Result<OutsideChanges, Fault> {
    let sql = include_str!("../sql/postgres_outside_changes.sql");
    let rows = ledger
        .read(
            sql,
            &[&cursor.0.to_string(), &signed(cursor.1), &i64::from(limit)],
        )
        .await?;
    let read = || -> Result<OutsideChanges, BoxError> {
        let mut changes = OutsideChanges {
            slots: Vec::with_capacity(rows.len()),
            cursor,
        };
        for row in &rows {
            let xid: &str = column(row, "last_xid")?;
            changes.cursor = OutboxCursor(xid.parse()?, unsigned(column(row, "last_id")?));
            // A slot that is no more: its event still moves the cursor.
            if column::<Option<i64>>(row, "slot_id")?.is_some() {
                changes.slots.push(slot_state(row)?);
            }
        }
        Ok(changes)
    };
    read().map_err(unreadable)
}
