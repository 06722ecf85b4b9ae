//! The two backends under test, and their tables as seen without them.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use inventory::ledger::postgres::{PostgresConfig, PostgresLedger};
use inventory::ledger::sqlite::SqliteLedger;
use tempfile::TempDir;

use crate::postgres_server::{self, Postgres};
use crate::world::World;

/// What must find nothing: rows that contradict each other. Both backends have the same tables, columns and words.
const CONTRADICTIONS: [(&str, &str); 11] = [
    (
        "slots that count other people than those who have an appointment there",
        "SELECT count(*) FROM slot WHERE booked <> (SELECT count(*) FROM booking
            WHERE booking.slot_id = slot.slot_id AND booking.state <> 'CANCELLED')",
    ),
    (
        "slots with more people than places",
        "SELECT count(*) FROM slot WHERE booked > capacity OR booked < 0",
    ),
    (
        "people with appointments of two bookings",
        "SELECT count(*) FROM (SELECT campaign, person FROM booking WHERE state <> 'CANCELLED'
            GROUP BY campaign, person HAVING count(DISTINCT booking) > 1) AS twice",
    ),
    (
        "appointments whose claim does not have them in this state",
        "SELECT count(*) FROM booking LEFT JOIN claim ON claim.campaign = booking.campaign
            AND claim.person = booking.person AND claim.booking = booking.booking
            AND claim.state = booking.state
            WHERE booking.state <> 'CANCELLED' AND claim.booking IS NULL",
    ),
    (
        "claims that name other slots than those of their appointments",
        "SELECT count(*) FROM claim WHERE
            (SELECT count(*) FROM booking WHERE booking.booking = claim.booking
                AND booking.state <> 'CANCELLED'
                AND booking.slot_id IN (claim.first_slot, claim.second_slot))
            <> CASE WHEN first_slot IS NULL THEN 0 WHEN second_slot IS NULL THEN 1 ELSE 2 END",
    ),
    (
        "changes of a claim that no request recorded",
        "SELECT count(*) FROM claim WHERE version <> (SELECT count(*) FROM request
            WHERE request.campaign = claim.campaign AND request.person = claim.person)",
    ),
    (
        "doses given that no visit and no walk-in has",
        "SELECT count(*) FROM stock WHERE given - walk_in_given <> (SELECT count(*) FROM visit
            JOIN slot ON slot.slot_id = visit.slot_id WHERE visit.state = 'GIVEN'
            AND slot.clinic = stock.clinic AND slot.vaccine = stock.vaccine)",
    ),
    (
        "people who came to an appointment that is none",
        "SELECT count(*) FROM visit LEFT JOIN booking ON booking.slot_id = visit.slot_id
            AND booking.booking = visit.booking AND booking.state = 'BOOKED'
            WHERE visit.state <> 'NO_SHOW' AND booking.booking IS NULL",
    ),
    (
        "rounds that count other acceptances than their places have",
        "SELECT count(*) FROM leftover_round WHERE accepted <> (SELECT count(*) FROM leftover_place
            WHERE leftover_place.round = leftover_round.round AND leftover_place.state = 'ACCEPTED')",
    ),
    (
        "rounds with more people who have or can get a dose than doses",
        "SELECT count(*) FROM leftover_round WHERE doses < (SELECT count(*) FROM leftover_place
            WHERE leftover_place.round = leftover_round.round AND leftover_place.state IN ('ACCEPTED', 'OFFERED'))",
    ),
    (
        "stock that has other doses promised than its rounds do, or gives them otherwise",
        "SELECT count(*) FROM stock WHERE leftover > walk_in - walk_in_given OR leftover <>
            (SELECT coalesce(sum(doses - accepted), 0) FROM leftover_round WHERE leftover_round.state <> 'CLOSED'
            AND leftover_round.clinic = stock.clinic AND leftover_round.vaccine = stock.vaccine)",
    ),
];

/// The database beneath a ledger; stopped and deleted with it.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Fails where rows contradict each other.
    async fn check_rows(&self);
}

struct SqliteFile {
    path: PathBuf,
    _folder: TempDir,
}

struct PostgresDatabase {
    url: String,
    _server: Postgres,
}

/// A new SQLite file with a world in it.
pub async fn sqlite() -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).expect("the ledger opens");
    let file = SqliteFile {
        path,
        _folder: folder,
    };
    World::new(Arc::new(ledger), Box::new(file))
}

/// A new PostgreSQL server with a world in it.
pub async fn postgres() -> World {
    let server = tokio::task::spawn_blocking(postgres_server::start)
        .await
        .expect("PostgreSQL starts");
    let url = server.create_database();
    let ledger = PostgresLedger::connect(PostgresConfig::new(url.clone())).await;
    let ledger = ledger.expect("the ledger connects");
    ledger.migrate().await.expect("the schema is made");
    let database = PostgresDatabase {
        url,
        _server: server,
    };
    World::new(Arc::new(ledger), Box::new(database))
}

#[async_trait]
impl Backend for SqliteFile {
    async fn check_rows(&self) {
        let db = rusqlite::Connection::open(&self.path).expect("the file opens");
        for (what, sql) in CONTRADICTIONS {
            let found: i64 = db
                .query_row(sql, [], |row| row.get(0))
                .expect("the rows are counted");
            assert_eq!(found, 0, "{what}");
        }
        let intact: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("the file is checked");
        assert_eq!(intact, "ok");
    }
}

#[async_trait]
impl Backend for PostgresDatabase {
    async fn check_rows(&self) {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .expect("the database is reached");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        for (what, sql) in CONTRADICTIONS {
            let row = client
                .query_one(sql, &[])
                .await
                .expect("the rows are counted");
            assert_eq!(row.get::<_, i64>(0), 0, "{what}");
        }
    }
}
