//! People in one SQLite file, written by one thread that commits whole groups.
//!
//! Invariant: the file is durable at every commit (WAL, `synchronous=FULL`), and nobody else writes it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use domain::place::DrawTicket;
use domain::region_change::Receipt;
use domain::{CampaignId, CohortId, PersonId};
use runtime::tasks::{OnExit, Tasks};
use runtime::{Clock, fields};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use self::rows::{insert, select};
use super::group::{self, Ask, GROUP_MAX, Group, QUEUE_DEPTH_MAX};
use super::{
    BoxError, Change, ClosedBucket, DrawSeed, Fault, KeptDocument, OpenBucket, People, Placed,
    Stamp,
};
use crate::metrics::Metrics;

mod changes;
mod rooms;
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

/// Work on the connection, which answers by itself.
type Errand = Box<dyn FnOnce(&mut Connection) + Send>;

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

    async fn errand<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, Fault> {
        let began = self.clock.monotonic();
        let (reply, answer) = oneshot::channel();
        let errand: Errand = Box::new(move |connection| {
            // Whoever has gone away needs no answer.
            let _ = reply.send(work(connection));
        });
        self.errands
            .try_send(errand)
            .map_err(|_| Fault::Overloaded)?;
        self.nudge();
        let outcome = answer
            .await
            .map_err(|_| Fault::unavailable("the writer has stopped"))?;
        self.metrics.store(op, self.clock.monotonic() - began);
        outcome.map_err(|source| Fault::Unavailable { source })
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
        let campaign = campaign.clone();
        let work = move |db: &mut Connection| select(db, &campaign, person);
        self.errand("place", work).await
    }

    async fn begin_change(&self, change: &Change) -> Result<Option<Placed>, Fault> {
        let (change, clock) = (change.clone(), self.clock.clone());
        let work = move |db: &mut Connection| changes::begin_change(db, &change, clock.wall());
        self.errand("begin_change", work).await
    }

    async fn complete_change(&self, receipt: &Receipt) -> Result<Option<Placed>, Fault> {
        let (receipt, clock) = (receipt.clone(), self.clock.clone());
        let work = move |db: &mut Connection| changes::complete_change(db, &receipt, clock.wall());
        self.errand("complete_change", work).await
    }

    async fn close_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        id: u32,
    ) -> Result<Option<ClosedBucket>, Fault> {
        let (room, clock) = (rooms::Room::of(campaign, cohort), self.clock.clone());
        let work = move |db: &mut Connection| rooms::close(db, &room, id, clock.wall());
        self.errand("close_bucket", work).await
    }

    async fn open_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        count_up_to: u64,
    ) -> Result<Option<OpenBucket>, Fault> {
        let (room, clock) = (rooms::Room::of(campaign, cohort), self.clock.clone());
        let work = move |db: &mut Connection| rooms::peek(db, &room, count_up_to, clock.wall());
        self.errand("open_bucket", work).await
    }

    async fn closed_buckets(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        from: u32,
        limit: u32,
    ) -> Result<Vec<ClosedBucket>, Fault> {
        let room = rooms::Room::of(campaign, cohort);
        let work = move |db: &mut Connection| rooms::closed(db, &room, from, limit);
        self.errand("closed_buckets", work).await
    }

    async fn tickets(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        bucket: u32,
    ) -> Result<Vec<DrawTicket>, Fault> {
        let room = rooms::Room::of(campaign, cohort);
        let work = move |db: &mut Connection| rooms::tickets(db, &room, bucket);
        self.errand("tickets", work).await
    }

    async fn keep_seed(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        seed: DrawSeed,
    ) -> Result<DrawSeed, Fault> {
        let (room, clock) = (rooms::Room::of(campaign, cohort), self.clock.clone());
        let work = move |db: &mut Connection| rooms::keep_seed(db, &room, seed, clock.wall());
        self.errand("keep_seed", work).await
    }

    async fn seed(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<DrawSeed>, Fault> {
        let room = rooms::Room::of(campaign, cohort);
        let work = move |db: &mut Connection| rooms::seed(db, &room);
        self.errand("seed", work).await
    }

    async fn keep_documents(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        documents: &[KeptDocument],
    ) -> Result<(), Fault> {
        let (room, documents) = (rooms::Room::of(campaign, cohort), documents.to_vec());
        let work = move |db: &mut Connection| rooms::keep_documents(db, &room, &documents);
        self.errand("keep_documents", work).await
    }

    async fn newest_document(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<KeptDocument>, Fault> {
        let room = rooms::Room::of(campaign, cohort);
        let work = move |db: &mut Connection| rooms::newest_document(db, &room);
        self.errand("newest_document", work).await
    }

    async fn documents(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<KeptDocument>, Fault> {
        let room = rooms::Room::of(campaign, cohort);
        let work = move |db: &mut Connection| rooms::documents(db, &room, after, limit);
        self.errand("documents", work).await
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
                    errand(&mut self.connection);
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
