//! The schema's versions. They are only ever added to.

use std::time::Duration;

use refinery::{Migration, Runner};

use super::session::Connector;
use super::trouble::Trouble;
use crate::ledger::Fault;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Any number nobody else uses: processes that start together migrate one after the other.
const LOCK: i64 = 0x646F_7365_6C69_6E65;

const VERSIONS: [(&str, &str); 10] = [
    (
        "V1__ledger",
        include_str!("../../../migrations/postgres/0001_ledger.sql"),
    ),
    (
        "V2__batch",
        include_str!("../../../migrations/postgres/0002_batch.sql"),
    ),
    (
        "V3__side",
        include_str!("../../../migrations/postgres/0003_side.sql"),
    ),
    (
        "V4__supply",
        include_str!("../../../migrations/postgres/0004_supply.sql"),
    ),
    (
        "V5__booking_pages",
        include_str!("../../../migrations/postgres/0005_booking_pages.sql"),
    ),
    (
        "V6__buckets",
        include_str!("../../../migrations/postgres/0006_buckets.sql"),
    ),
    (
        "V7__terminals",
        include_str!("../../../migrations/postgres/0007_terminals.sql"),
    ),
    (
        "V8__regions",
        include_str!("../../../migrations/postgres/0008_regions.sql"),
    ),
    (
        "V9__leftovers",
        include_str!("../../../migrations/postgres/0009_leftovers.sql"),
    ),
    (
        "V11__incident",
        include_str!("../../../migrations/postgres/0011_incident.sql"),
    ),
];

pub(super) async fn run(connector: &Connector) -> Result<(), Fault> {
    let mut session = connector
        .open(CONNECT_WITHIN)
        .await
        .map_err(Trouble::unavailable)?;
    // Let go of when the session ends.
    session
        .client
        .execute("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .map_err(|error| Trouble::unsent(error).unavailable())?;
    let versions: Result<Vec<Migration>, refinery::Error> = VERSIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect();
    let migrated = match versions {
        Ok(versions) => Runner::new(&versions).run_async(&mut session.client).await,
        Err(error) => Err(error),
    };
    migrated.map(drop).map_err(|error| Fault::Unavailable {
        source: Box::new(error),
    })
}
