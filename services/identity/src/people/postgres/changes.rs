//! Changes of region: one function call each, on a few sessions of their own.
//!
//! Invariant: a change counts only when its commit came without a warning; repeating each step is safe.

use std::time::Duration;

use domain::region_change::{Departure, Receipt};
use tokio::sync::{Mutex, Semaphore};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::{BoxError, Change, Corrupt};
use super::session::{Connector, Session, Warned};

/// A change takes a millisecond; a storm of them must not take the database's sessions from permits.
const SESSIONS_MAX: usize = 4;
/// The caller's whole deadline.
const WITHIN: Duration = Duration::from_secs(5);
const LIMITS: &str = "SET statement_timeout = '5s'; SET lock_timeout = '2s'";

/// The sessions, made when they are needed.
pub(super) struct Changers {
    connector: Connector,
    turns: Semaphore,
    idle: Mutex<Vec<Session>>,
}

// === impl Changers ===

impl Changers {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            turns: Semaphore::new(SESSIONS_MAX),
            idle: Mutex::default(),
        }
    }

    pub(super) async fn begin(&self, change: &Change) -> Result<(), BoxError> {
        let serial = i64::try_from(change.serial.0)?;
        self.run(
            "SELECT begin_region_change($1, $2, $3, $4, $5)",
            &[
                &change.campaign.as_str(),
                &change.person.as_bytes().as_slice(),
                &serial,
                &change.from.as_str(),
                &change.to.as_str(),
            ],
        )
        .await
        .map(drop)
    }

    /// Whether the receipt is about the newest change, ended by it now or before.
    pub(super) async fn complete(&self, receipt: &Receipt) -> Result<bool, BoxError> {
        let serial = i64::try_from(receipt.serial.0)?;
        let left_for = match &receipt.departure {
            Departure::Left { to } => Some(to.as_str()),
            Departure::Stayed => None,
        };
        let rows = self
            .run(
                "SELECT complete_region_change($1, $2, $3, $4, $5)",
                &[
                    &receipt.campaign.as_str(),
                    &receipt.person.as_bytes().as_slice(),
                    &serial,
                    &receipt.region.as_str(),
                    &left_for,
                ],
            )
            .await?;
        let row = rows.first().ok_or(Corrupt { what: "change" })?;
        Ok(row.try_get(0)?)
    }

    async fn run(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, BoxError> {
        let work = async {
            let _turn = self.turns.acquire().await?;
            let idle = self.idle.lock().await.pop();
            let session = match idle.filter(|session| !session.client.is_closed()) {
                Some(session) => session,
                None => {
                    let session = self.connector.plain_session().await?;
                    session.client.batch_execute(LIMITS).await?;
                    session
                }
            };
            let rows = session.client.query(sql, params).await?;
            if session.take_warning() {
                return Err(Warned.into());
            }
            self.idle.lock().await.push(session);
            Ok(rows)
        };
        tokio::time::timeout(WITHIN, work).await?
    }
}
