//! People in PostgreSQL: whole groups in one auto-committed statement each, on sessions of their own.
//!
//! Invariant: nobody is answered before the group's commit returned without a warning. Whatever went wrong, asking
//! again is right: a place is written once and read for ever.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use domain::place::DrawTicket;
use domain::region_change::Receipt;
use domain::{CampaignId, CohortId, PersonId};
use runtime::Clock;
use runtime::secret::Secret;
use runtime::tasks::{OnExit, Tasks};
use tokio::sync::mpsc;

use self::changes::Changers;
use self::session::{Connector, Session};
use super::group::{self, Ask, QUEUE_DEPTH_MAX};
use super::{
    BoxError, Change, ClosedBucket, Columns, DrawSeed, Fault, KeptDocument, OpenBucket, People,
    Placed, Stamp,
};
use crate::metrics::Metrics;

mod changes;
mod rooms;
mod session;
mod writer;

mod migrations {
    refinery::embed_migrations!("migrations/postgres");
}

/// Reads and counts only; permits go through the writers.
const READERS_MAX: usize = 4;
/// A reader that is not free by then would answer too late.
const READER_WITHIN: Duration = Duration::from_secs(3);
/// Any number; all copies of identity use the same, so that one migrates and the others wait.
const MIGRATION_LOCK: i64 = 0x0d05_e11e_1dee;

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://…`; a secret, because it may hold a password.
    pub url: Secret,
    /// Certificates of the authority behind the database (PEM); without it connections are plain.
    pub ca_file: Option<PathBuf>,
    /// Sessions that write; each has one group on its way.
    pub writers: usize,
    /// Accept a database that keeps no second copy before it acknowledges.
    pub single_copy: bool,
}

/// The database may lose acknowledged places when its machine is lost.
#[derive(Debug, thiserror::Error)]
#[error("the database has no synchronous standby; allow it with single_copy")]
pub struct SingleCopy;

/// The store's handle.
pub struct PostgresPeople {
    writers: Vec<mpsc::Sender<Ask>>,
    readers: Pool,
    connector: Connector,
    changers: Changers,
    clock: Clock,
    metrics: Metrics,
}

// === impl PostgresPeople ===

impl PostgresPeople {
    /// Connects, brings the schema up to date and starts the writers.
    pub async fn open(
        settings: Settings,
        tasks: &Tasks,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, Fault> {
        let unavailable = |source: BoxError| Fault::Unavailable { source };
        let connector = Connector::new(&settings, tasks).map_err(unavailable)?;
        prepare(&connector, settings.single_copy)
            .await
            .map_err(unavailable)?;
        let mut writers = Vec::new();
        for _ in 0..settings.writers.max(1) {
            let (asks, queue) = mpsc::channel(QUEUE_DEPTH_MAX / settings.writers.max(1));
            let writer = writer::run(connector.clone(), queue, metrics.clone());
            tasks.spawn("people_writer", OnExit::Log, writer);
            writers.push(asks);
        }
        let readers = pool(&connector).map_err(unavailable)?;
        Ok(Self {
            writers,
            readers,
            changers: Changers::new(connector.clone()),
            connector,
            clock,
            metrics,
        })
    }

    /// The same person always meets the same writer, so that two writers seldom wait for each other's rows.
    fn writer(&self, person: PersonId) -> &mpsc::Sender<Ask> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(person);
        let at = usize::try_from(hash % self.writers.len() as u64).unwrap_or(0);
        &self.writers[at]
    }

    async fn read_place(
        &self,
        campaign: &CampaignId,
        person: PersonId,
    ) -> Result<Option<Placed>, BoxError> {
        let client = self.readers.get().await?;
        let statement = client
            .prepare_cached(
                "SELECT cohort, region, serial, bucket::bigint, ticket,
                     (SELECT to_region FROM region_change WHERE person = $2 AND campaign = $1 AND outcome IS NULL)
                 FROM place WHERE campaign = $1 AND person = $2",
            )
            .await?;
        let person = person.as_bytes().as_slice();
        let row = client
            .query_opt(&statement, &[&campaign.as_str(), &person])
            .await?;
        row.map(|row| {
            let columns = Columns {
                cohort: row.try_get(0)?,
                region: row.try_get(1)?,
                serial: row.try_get(2)?,
                bucket: row.try_get(3)?,
                ticket: row.try_get(4)?,
                moving_to: row.try_get(5)?,
            };
            Ok(columns.placed()?)
        })
        .transpose()
    }

    async fn timed<T>(
        &self,
        op: &'static str,
        work: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, Fault> {
        let began = self.clock.monotonic();
        let outcome = work.await;
        self.metrics.store(op, self.clock.monotonic() - began);
        outcome.map_err(|source| Fault::Unavailable { source })
    }
}

#[async_trait]
impl People for PostgresPeople {
    async fn stamp(&self, ask: Stamp) -> Result<Placed, Fault> {
        let began = self.clock.monotonic();
        let outcome = group::ask(self.writer(ask.person), ask).await;
        self.metrics.store("stamp", self.clock.monotonic() - began);
        outcome
    }

    async fn place(
        &self,
        campaign: &CampaignId,
        person: PersonId,
    ) -> Result<Option<Placed>, Fault> {
        self.timed("place", self.read_place(campaign, person)).await
    }

    async fn begin_change(&self, change: &Change) -> Result<Option<Placed>, Fault> {
        let work = async {
            if change.from != change.to {
                self.changers.begin(change).await?;
            }
            self.read_place(&change.campaign, change.person).await
        };
        self.timed("begin_change", work).await
    }

    async fn complete_change(&self, receipt: &Receipt) -> Result<Option<Placed>, Fault> {
        let work = async {
            if !self.changers.complete(receipt).await? {
                return Ok(None);
            }
            self.read_place(&receipt.campaign, receipt.person).await
        };
        self.timed("complete_change", work).await
    }

    async fn close_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        id: u32,
    ) -> Result<Option<ClosedBucket>, Fault> {
        let work = rooms::close(&self.connector, campaign, cohort, id);
        self.timed("close_bucket", work).await
    }

    async fn open_bucket(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        count_up_to: u64,
    ) -> Result<Option<OpenBucket>, Fault> {
        let work = rooms::peek(&self.readers, campaign, cohort, count_up_to);
        self.timed("open_bucket", work).await
    }

    async fn closed_buckets(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        from: u32,
        limit: u32,
    ) -> Result<Vec<ClosedBucket>, Fault> {
        let work = rooms::closed(&self.readers, campaign, cohort, from, limit);
        self.timed("closed_buckets", work).await
    }

    async fn tickets(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        bucket: u32,
    ) -> Result<Vec<DrawTicket>, Fault> {
        let work = rooms::tickets(&self.connector, campaign, cohort, bucket);
        self.timed("tickets", work).await
    }

    async fn keep_seed(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        seed: DrawSeed,
    ) -> Result<DrawSeed, Fault> {
        let work = rooms::keep_seed(&self.connector, campaign, cohort, seed);
        self.timed("keep_seed", work).await
    }

    async fn seed(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<DrawSeed>, Fault> {
        self.timed("seed", rooms::seed(&self.readers, campaign, cohort))
            .await
    }

    async fn keep_documents(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        documents: &[KeptDocument],
    ) -> Result<(), Fault> {
        let work = rooms::keep_documents(&self.readers, campaign, cohort, documents);
        self.timed("keep_documents", work).await
    }

    async fn newest_document(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<KeptDocument>, Fault> {
        let work = rooms::newest_document(&self.readers, campaign, cohort);
        self.timed("newest_document", work).await
    }

    async fn documents(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<KeptDocument>, Fault> {
        let work = rooms::documents(&self.readers, campaign, cohort, after, limit);
        self.timed("documents", work).await
    }

    async fn check(&self) -> Result<(), Fault> {
        let client = self.readers.get().await.map_err(Fault::unavailable)?;
        client
            .simple_query("SELECT 1")
            .await
            .map(|_| ())
            .map_err(Fault::unavailable)
    }
}

/// Schema and durability, before anything is believed of this database.
async fn prepare(connector: &Connector, single_copy: bool) -> Result<(), BoxError> {
    let Session { mut client, .. } = connector.plain_session().await?;
    let standbys: String = client
        .query_one("SELECT current_setting('synchronous_standby_names')", &[])
        .await?
        .try_get(0)?;
    if standbys.is_empty() && !single_copy {
        return Err(SingleCopy.into());
    }
    // Held until this session ends.
    client
        .execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])
        .await?;
    // A newer copy may have been here before us during a rolling upgrade: migrations only add.
    migrations::migrations::runner()
        .set_abort_missing(false)
        .run_async(&mut client)
        .await?;
    Ok(())
}

fn pool(connector: &Connector) -> Result<Pool, BoxError> {
    let settings = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match connector.tls() {
        Some(tls) => Manager::from_config(connector.config().clone(), tls.clone(), settings),
        None => Manager::from_config(connector.config().clone(), tokio_postgres::NoTls, settings),
    };
    let timeouts = Timeouts {
        wait: Some(READER_WITHIN),
        create: Some(READER_WITHIN),
        recycle: Some(READER_WITHIN),
    };
    Ok(Pool::builder(manager)
        .max_size(READERS_MAX)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .build()?)
}
