//! People in one SQLite file, written by one thread that commits whole groups.
//!
//! Invariant: the file is durable at every commit (WAL, `synchronous=FULL`), and nobody else writes it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use domain::{CampaignId, CohortId, PersonId};
use runtime::tasks::{OnExit, Tasks};
use runtime::{Clock, fields};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use self::rows::{insert, open_bucket, select};
use super::group::{self, Ask, GROUP_MAX, Group, QUEUE_DEPTH_MAX};
use super::{BoxError, BucketCount, Corrupt, Fault, People, Placed, Stamp};
use crate::metrics::Metrics;

mod rows;

mod migrations {
    refinery::embed_migrations!("migrations/sqlite");
}

/// Reads and counts are few; more waiting than this means that the disk is stuck.
const ERRANDS_MAX: usize = 256;

/// The store's handle.
pub struct SqlitePeople {
    asks: mpsc::Sender<Ask>,
    errands: mpsc::Sender<Errand>,
    wake: mpsc::Sender<()>,
    clock: Clock,
    metrics: Metrics,
}

enum Errand {
    Place(
        CampaignId,
        PersonId,
        oneshot::Sender<Result<Option<Placed>, Fault>>,
    ),
    Count(
        CampaignId,
        CohortId,
        oneshot::Sender<Result<BucketCount, Fault>>,
    ),
}

/// What the writer thread owns.
struct Writer {
    connection: Connection,
    asks: mpsc::Receiver<Ask>,
    errands: mpsc::Receiver<Errand>,
    wake: mpsc::Receiver<()>,
    clock: Clock,
    metrics: Metrics,
}

// === impl SqlitePeople ===

impl SqlitePeople {
    /// Opens or creates the file and starts its writer. Blocks while it opens.
    pub fn open(path: &Path, tasks: &Tasks, clock: Clock, metrics: Metrics) -> Result<Self, Fault> {
        let connection = open(path).map_err(|source| Fault::Unavailable { source })?;
        let (asks, asks_in) = mpsc::channel(QUEUE_DEPTH_MAX);
        let (errands, errands_in) = mpsc::channel(ERRANDS_MAX);
        // One place is enough: whoever wakes up looks into both queues.
        let (wake, wake_in) = mpsc::channel(1);
        let writer = Writer {
            connection,
            asks: asks_in,
            errands: errands_in,
            wake: wake_in,
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        tasks
            .spawn_thread("people_writer", OnExit::StopProcess, move || writer.run())
            .map_err(Fault::unavailable)?;
        Ok(Self {
            asks,
            errands,
            wake,
            clock,
            metrics,
        })
    }

    fn nudge(&self) {
        // Full means that the writer is about to look anyway.
        let _ = self.wake.try_send(());
    }

    async fn errand<T>(
        &self,
        errand: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Errand,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.errands
            .try_send(errand(reply))
            .map_err(|_| Fault::Overloaded)?;
        self.nudge();
        answer
            .await
            .map_err(|_| Fault::unavailable("the writer has stopped"))?
    }
}

#[async_trait]
impl People for SqlitePeople {
    async fn stamp(&self, ask: Stamp) -> Result<Placed, Fault> {
        let began = self.clock.monotonic();
        let answer = group::ask(&self.asks, ask);
        tokio::pin!(answer);
        // The ask is queued by the first poll, and only then is there something to wake up for.
        let outcome = match futures::poll!(answer.as_mut()) {
            std::task::Poll::Ready(outcome) => outcome,
            std::task::Poll::Pending => {
                self.nudge();
                answer.await
            }
        };
        self.metrics.store("stamp", self.clock.monotonic() - began);
        outcome
    }

    async fn place(
        &self,
        campaign: &CampaignId,
        person: PersonId,
    ) -> Result<Option<Placed>, Fault> {
        let began = self.clock.monotonic();
        let outcome = self
            .errand(|reply| Errand::Place(campaign.clone(), person, reply))
            .await;
        self.metrics.store("place", self.clock.monotonic() - began);
        outcome
    }

    async fn count_open_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<BucketCount, Fault> {
        let began = self.clock.monotonic();
        let (campaign, cohort) = (campaign.clone(), cohort.clone());
        let outcome = self
            .errand(|reply| Errand::Count(campaign, cohort, reply))
            .await;
        self.metrics
            .store("count_open_bucket", self.clock.monotonic() - began);
        outcome
    }

    async fn check(&self) -> Result<(), Fault> {
        let nobody: CampaignId = "check".parse().map_err(Fault::unavailable)?;
        self.place(&nobody, PersonId::from_bytes([0; 16]))
            .await
            .map(|_| ())
    }
}

// === impl Writer ===

impl Writer {
    /// Ends when every handle is gone.
    fn run(mut self) {
        while self.wake.blocking_recv().is_some() {
            loop {
                let group = self.next_group();
                let idle = group.is_empty();
                if !idle {
                    let group = Group::new(group);
                    let outcome = self.write(group.stamps());
                    if let Err(error) = &outcome {
                        tracing::error!(
                            error = fields::chain(error.as_ref()),
                            "people were not written"
                        );
                    }
                    group.answer(outcome, &self.metrics);
                }
                let mut errands = 0;
                while let Ok(errand) = self.errands.try_recv() {
                    self.do_errand(errand);
                    errands += 1;
                }
                if idle && errands == 0 {
                    break;
                }
            }
        }
    }

    fn next_group(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        while asks.len() < GROUP_MAX {
            match self.asks.try_recv() {
                Ok(ask) => asks.push(ask),
                Err(_) => break,
            }
        }
        asks
    }

    fn do_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Place(campaign, person, reply) => {
                let outcome = select(&self.connection, &campaign, person).map_err(to_fault);
                let _ = reply.send(outcome);
            }
            Errand::Count(campaign, cohort, reply) => {
                let outcome = self.count(&campaign, &cohort).map_err(to_fault);
                let _ = reply.send(outcome);
            }
        }
    }

    fn write(&mut self, stamps: &[Stamp]) -> Result<Vec<Placed>, BoxError> {
        let now = self.clock.wall().as_micros();
        let txn = begin(&mut self.connection)?;
        let mut all = Vec::with_capacity(stamps.len());
        for stamp in stamps {
            let placed = match select(&txn, &stamp.campaign, stamp.person)? {
                Some(placed) => placed,
                None => insert(&txn, stamp, now)?,
            };
            all.push(placed);
        }
        // Where this says no, nothing was written or the next start says what was: asking again is always right.
        txn.commit()?;
        Ok(all)
    }

    fn count(&mut self, campaign: &CampaignId, cohort: &CohortId) -> Result<BucketCount, BoxError> {
        let (campaign, cohort) = (campaign.as_str(), cohort.as_str());
        let txn = begin(&mut self.connection)?;
        let id = open_bucket(&txn, campaign, cohort)?;
        txn.execute(
            "INSERT INTO room_bucket_region (campaign, cohort, id, region, n)
             SELECT ?1, ?2, ?3, region, count(*) FROM place
             WHERE campaign = ?1 AND cohort = ?2 AND bucket = ?3 GROUP BY region
             ON CONFLICT (campaign, cohort, id, region) DO UPDATE SET n = excluded.n",
            params![campaign, cohort, id],
        )?;
        txn.execute(
            "UPDATE room_bucket SET n = (
                 SELECT coalesce(sum(n), 0) FROM room_bucket_region
                 WHERE campaign = ?1 AND cohort = ?2 AND id = ?3)
             WHERE campaign = ?1 AND cohort = ?2 AND id = ?3",
            params![campaign, cohort, id],
        )?;
        let mut count = BucketCount {
            id: u32::try_from(id).map_err(|_| Corrupt { what: "bucket" })?,
            regions: std::collections::BTreeMap::new(),
        };
        {
            let mut rows = txn.prepare_cached(
                "SELECT region, n FROM room_bucket_region WHERE campaign = ?1 AND cohort = ?2 AND id = ?3",
            )?;
            let mut rows = rows.query(params![campaign, cohort, id])?;
            while let Some(row) = rows.next()? {
                let region: String = row.get(0)?;
                let people =
                    u64::try_from(row.get::<_, i64>(1)?).map_err(|_| Corrupt { what: "n" })?;
                count.regions.insert(
                    region.parse().map_err(|_| Corrupt { what: "region" })?,
                    people,
                );
            }
        }
        txn.commit()?;
        Ok(count)
    }
}

fn open(path: &Path) -> Result<Connection, BoxError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(32);
    migrations::migrations::runner().run(&mut connection)?;
    Ok(connection)
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn to_fault(source: BoxError) -> Fault {
    Fault::Unavailable { source }
}
