//! Shards and who took them over.
//!
//! Invariant: an epoch never repeats for different owners.

use domain::{Epoch, ShardId};
use rusqlite::{Connection, OptionalExtension, params};

use super::writing::{Outcome, statement_fault};
use crate::ledger::{Fault, SeizeRequest, ShardRow};

/// What a seizure came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seizure {
    pub(super) epoch: Epoch,
    pub(super) prev_epoch: Epoch,
    pub(super) prev_seq: u64,
}

pub(super) fn ensure(db: &Connection, count: u32) -> Result<Outcome<()>, Fault> {
    let mut insert = db
        .prepare_cached("INSERT INTO shard (shard_id) VALUES (?1) ON CONFLICT DO NOTHING")
        .map_err(super::unavailable)?;
    for shard in 0..count {
        insert.execute([shard]).map_err(super::unavailable)?;
    }
    Ok(Outcome::keep(()))
}

pub(super) fn list(db: &Connection) -> rusqlite::Result<Vec<ShardRow>> {
    db.prepare_cached(
        "SELECT shard_id, epoch, batch_seq, owner, addr FROM shard ORDER BY shard_id",
    )?
    .query_map([], |row| {
        Ok(ShardRow {
            shard: ShardId(row.get(0)?),
            epoch: Epoch(row.get(1)?),
            batch_seq: row.get(2)?,
            owner: row.get(3)?,
            addr: row.get(4)?,
        })
    })?
    .collect()
}

pub(super) fn seize(db: &Connection, request: &SeizeRequest) -> Result<Outcome<Seizure>, Fault> {
    let shard = request.shard;
    let failed = |error| statement_fault(shard, error);
    let found = db
        .prepare_cached(
            "SELECT epoch, batch_seq, nonce, prev_epoch, prev_seq FROM shard WHERE shard_id = ?1",
        )
        .and_then(|mut select| {
            select
                .query_row([shard.0], |row| {
                    let nonce: Option<[u8; 16]> = row.get(2)?;
                    let stored = Seizure {
                        epoch: Epoch(row.get(0)?),
                        prev_epoch: Epoch(row.get(3)?),
                        prev_seq: row.get(4)?,
                    };
                    Ok((stored, row.get::<_, u64>(1)?, nonce))
                })
                .optional()
        })
        .map_err(failed)?;
    let Some((stored, batch_seq, nonce)) = found else {
        return Err(super::unavailable(format!("there is no shard {shard}")));
    };
    if nonce == Some(request.nonce) {
        return Ok(Outcome::keep(stored));
    }
    if stored.epoch != request.expect {
        return Err(Fault::Fenced {
            shard,
            held: request.expect,
            found: stored.epoch,
        });
    }
    let seizure = Seizure {
        epoch: Epoch(stored.epoch.max(request.floor).0 + 1),
        prev_epoch: stored.epoch,
        prev_seq: batch_seq,
    };
    db.prepare_cached(
        "UPDATE shard SET epoch = ?2, batch_seq = 0, nonce = ?3, prev_epoch = ?4, prev_seq = ?5, owner = ?6, addr = ?7
         WHERE shard_id = ?1",
    )
    .and_then(|mut update| {
        update.execute(params![
            shard.0,
            seizure.epoch.0,
            request.nonce,
            seizure.prev_epoch.0,
            seizure.prev_seq,
            request.owner.as_str(),
            request.addr,
        ])
    })
    .map_err(failed)?;
    Ok(Outcome::keep(seizure))
}
