//! The SQLite file behind the local store: unleased keys, and a number that no revision has passed yet.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::super::Entry;

/// Marks the file as ours and says which tables it has.
const APPLICATION_ID: i32 = 0x646F_7365;
const SCHEMA_VERSION: i32 = 1;

/// Revisions are reserved on disk in blocks, so that leased writes need no disk access and revisions still never
/// go back over a restart. A million restarts use up one part in eight million of what 63 bits hold.
const REVISION_BLOCK: i64 = 1 << 20;

/// A predecessor in this process may be closing the file still.
const BUSY_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Disk {
    connection: Connection,
    ceiling: i64,
}

/// What one revision changes on disk.
pub(super) enum Row<'a> {
    Set(&'a Entry),
    Unset(&'a str),
}

/// Why a write failed, and whether it may be there all the same.
pub(super) enum DiskFault {
    NotWritten(rusqlite::Error),
    Unknown(rusqlite::Error),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenFault {
    #[error("the coordination file cannot be opened")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the file is not a coordination file of schema version {SCHEMA_VERSION}")]
    Foreign,
}

// === impl Disk ===

impl Disk {
    /// Opens or creates the file; returns its keys and the revision to go on from.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Entry>, i64), OpenFault> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_WAIT)?;
        // Exclusive: a second process here would hand out the same revisions again.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        prepare(&mut connection)?;
        let entries = read_entries(&connection)?;
        let ceiling = read_ceiling(&connection)?;
        let disk = Self {
            connection,
            ceiling,
        };
        Ok((disk, entries, ceiling))
    }

    /// Whether writing at this revision needs the disk even if no row changes.
    pub(super) fn must_reserve(&self, revision: i64) -> bool {
        revision > self.ceiling
    }

    pub(super) fn write(&mut self, revision: i64, rows: &[Row<'_>]) -> Result<(), DiskFault> {
        let ceiling = if self.must_reserve(revision) {
            revision + REVISION_BLOCK
        } else {
            self.ceiling
        };
        let txn = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(DiskFault::NotWritten)?;
        write_rows(&txn, ceiling, rows).map_err(DiskFault::NotWritten)?;
        txn.commit().map_err(DiskFault::Unknown)?;
        self.ceiling = ceiling;
        Ok(())
    }
}

fn prepare(connection: &mut Connection) -> Result<(), OpenFault> {
    let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let application: i32 = txn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = txn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match (application, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => {}
        (0, 0) if is_empty(&txn)? => {
            txn.execute_batch(
                "CREATE TABLE entry (
                     key TEXT PRIMARY KEY,
                     value BLOB NOT NULL,
                     create_revision INTEGER NOT NULL,
                     mod_revision INTEGER NOT NULL
                 ) STRICT, WITHOUT ROWID;
                 CREATE TABLE ceiling (
                     only INTEGER PRIMARY KEY CHECK (only = 1),
                     revision INTEGER NOT NULL
                 ) STRICT;
                 INSERT INTO ceiling VALUES (1, 0);",
            )?;
            txn.pragma_update(None, "application_id", APPLICATION_ID)?;
            txn.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        _ => return Err(OpenFault::Foreign),
    }
    txn.commit()?;
    Ok(())
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let first: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(first.is_none())
}

fn read_entries(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut select =
        connection.prepare("SELECT key, value, create_revision, mod_revision FROM entry")?;
    let rows = select.query_map([], |row| {
        Ok(Entry {
            key: row.get(0)?,
            value: row.get::<_, Vec<u8>>(1)?.into(),
            create_revision: row.get(2)?,
            mod_revision: row.get(3)?,
            leased: false,
        })
    })?;
    rows.collect()
}

fn read_ceiling(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT revision FROM ceiling", [], |row| row.get(0))
}

fn write_rows(connection: &Connection, ceiling: i64, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    connection.execute("UPDATE ceiling SET revision = ?1", params![ceiling])?;
    for row in rows {
        match row {
            Row::Set(entry) => connection.execute(
                "INSERT INTO entry (key, value, create_revision, mod_revision) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value,
                     create_revision = excluded.create_revision, mod_revision = excluded.mod_revision",
                params![entry.key, entry.value.as_ref(), entry.create_revision, entry.mod_revision],
            )?,
            Row::Unset(key) => connection.execute("DELETE FROM entry WHERE key = ?1", params![key])?,
        };
    }
    Ok(())
}
