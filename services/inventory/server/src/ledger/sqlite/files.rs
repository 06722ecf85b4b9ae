//! Opening a ledger file, to write and to read.

use std::path::Path;
use std::time::Duration;

use refinery::{Migration, Runner};
use rusqlite::{Connection, OpenFlags};

use super::unavailable;
use crate::ledger::Fault;

const MIGRATIONS: [(&str, &str); 6] = [
    (
        "V1__ledger",
        include_str!("../../../migrations/sqlite/0001_ledger.sql"),
    ),
    (
        "V2__buckets",
        include_str!("../../../migrations/sqlite/0002_buckets.sql"),
    ),
    (
        "V3__terminals",
        include_str!("../../../migrations/sqlite/0003_terminals.sql"),
    ),
    (
        "V4__regions",
        include_str!("../../../migrations/sqlite/0004_regions.sql"),
    ),
    (
        "V5__leftovers",
        include_str!("../../../migrations/sqlite/0005_leftovers.sql"),
    ),
    (
        "V7__incident",
        include_str!("../../../migrations/sqlite/0007_incident.sql"),
    ),
];

/// Someone else writes the file only while it is inspected by hand; longer than this is an error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than the statements of this module.
const STATEMENTS_CACHED: usize = 128;

/// 64 MiB of log: a page that many commits change is written back once, and reading the log at a start takes a moment.
const CHECKPOINT_PAGES: i64 = 16_384;
/// The pages of a big region's busy day.
const CACHE_KIB: i64 = 131_072;

/// Brings the tables up to date.
pub(super) fn migrate(db: &mut Connection) -> Result<(), Fault> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unavailable)?;
    Runner::new(&migrations)
        .run(db)
        .map(drop)
        .map_err(unavailable)
}

/// Every commit is on disk before it is answered.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    prepare(&db)?;
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(db)
}

/// Sees every commit that was answered before a statement starts.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    prepare(&db)?;
    Ok(db)
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}
