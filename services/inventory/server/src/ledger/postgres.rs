//! The ledger in PostgreSQL.
//!
//! Invariant: every write is one auto-committed statement, so nothing is ever half decided while a client is frozen; and
//! a session on which the server warned about anything counts as lost, because a warning may hide a commit that no
//! standby has.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use domain::command::BodyHash;
use domain::leftover::Place;
use domain::{
    CampaignId, Claimant, ClinicId, Epoch, IncidentId, PersonId, Recorded, RequestId, RoundId,
    ShardId, SlotId, SlotState, Timestamp,
};
use tokio_postgres::config::TargetSessionAttrs;

use super::{
    Applied, ApplyFault, BucketSeen, Called, CancelOp, ClaimView, ClinicOp, ClinicSupply,
    ClinicVerdict, DepartureAnswer, DueMove, Fault, IncidentOp, IncidentVerdict, IncidentView,
    Ledger, LeftoverOp, LeftoverVerdict, LineRow, MoveOp, OutboxCursor, OutsideChanges, PassedOn,
    RoomSeen, Round, Scene, SeizeRequest, Seized, Settled, ShardCatalogue, ShardRow, SheetRow,
    SideAnswer, SupplyRow, SurrenderOp,
};

mod batch;
mod departure;
mod incident;
mod leftovers;
mod migrations;
mod reads;
mod rooms;
mod seize;
mod session;
mod side;
mod supply;
mod terminal;
mod trouble;
mod values;
mod writer;

use session::{Connector, Settings};
use trouble::Trouble;

/// Older sessions are replaced, so that load finds its way to a new primary and memory of old plans goes.
const SESSION_AGE_MAX: Duration = Duration::from_secs(1_800);

/// How the database is reached. It may hold a password and therefore does not print.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://…` or `key=value …`; several hosts may be named, the one that takes writes is used.
    pub url: String,
    /// Sessions for reads, moves and cancellations; each owned shard has one more of its own.
    pub pool_size: usize,
    /// Encrypts and verifies every session; without it the URL's `sslmode` decides and only plain text works.
    pub tls: Option<rustls::ClientConfig>,
    /// The longest a statement of the pool may run.
    pub statement_timeout: Duration,
    /// The longest any statement waits for one row that somebody else has locked.
    pub lock_timeout: Duration,
    /// How long an owner waits for the answer to a batch before its outcome counts as unknown. Nothing is cancelled.
    pub batch_timeout: Duration,
    /// Refuse a database that commits without a second copy.
    pub require_synchronous_standby: bool,
}

impl PostgresConfig {
    /// Bounds that suit a database in the same region, and no standby demanded.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 16,
            tls: None,
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            batch_timeout: Duration::from_secs(5),
            require_synchronous_standby: false,
        }
    }

    /// With another number of pooled sessions.
    #[must_use]
    pub fn pool_size(mut self, sessions: usize) -> Self {
        self.pool_size = sessions;
        self
    }

    /// Whether a database without a second copy is good enough.
    #[must_use]
    pub fn single_copy(mut self, enough: bool) -> Self {
        self.require_synchronous_standby = !enough;
        self
    }
}

/// A region's ledger in PostgreSQL.
pub struct PostgresLedger {
    connector: Connector,
    pool: Pool,
    bounds: Bounds,
}

#[derive(Clone, Copy)]
struct Bounds {
    statement: Duration,
    lock: Duration,
    batch: Duration,
}

impl PostgresLedger {
    /// Connects, and checks that the database takes writes and has the standby that was asked for.
    pub async fn connect(config: PostgresConfig) -> Result<Self, Fault> {
        let bounds = Bounds {
            statement: config.statement_timeout,
            lock: config.lock_timeout,
            batch: config.batch_timeout,
        };
        let parsed = parse(&config).map_err(|error| Trouble::unsent(error).unavailable())?;
        let connector = Connector::new(parsed.clone(), config.tls);
        let pooled = connector.clone().with(Settings::pooled(bounds));
        let manager = Manager::from_connect(
            parsed,
            pooled,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(config.pool_size.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(bounds.statement))
            .create_timeout(Some(bounds.statement))
            .recycle_timeout(Some(bounds.statement))
            .pre_recycle(Hook::sync_fn(|_, metrics| {
                if metrics.age() > SESSION_AGE_MAX {
                    return Err(HookError::message("the session is old"));
                }
                Ok(())
            }))
            .build()
            .map_err(|error| Trouble::Unreachable(Box::new(error)).unavailable())?;
        let ledger = Self {
            connector,
            pool,
            bounds,
        };
        if config.require_synchronous_standby {
            ledger.expect_standby().await?;
        }
        Ok(ledger)
    }

    /// Brings the schema up to this build. Several processes may do so at once.
    pub async fn migrate(&self) -> Result<(), Fault> {
        migrations::run(&self.connector).await
    }

    async fn expect_standby(&self) -> Result<(), Fault> {
        let rows = self
            .read(
                "SELECT current_setting('synchronous_standby_names') <> ''",
                &[],
            )
            .await?;
        let named = rows.first().is_some_and(|row| row.get(0));
        if named {
            return Ok(());
        }
        Err(Fault::Unavailable {
            source: "synchronous_standby_names is empty: a commit would have one copy only".into(),
        })
    }
}

fn parse(config: &PostgresConfig) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
    let mut parsed: tokio_postgres::Config = config.url.parse()?;
    // After a failover the old primary lives on as a standby that answers reads and refuses every write.
    parsed.target_session_attrs(TargetSessionAttrs::ReadWrite);
    if parsed.get_connect_timeout().is_none() {
        parsed.connect_timeout(Duration::from_secs(2));
    }
    // A cut cable is silent: without these a session would wait for a quarter of an hour.
    if parsed.get_tcp_user_timeout().is_none() {
        parsed.tcp_user_timeout(Duration::from_secs(2));
    }
    if parsed.get_keepalives_interval().is_none() {
        parsed
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3);
    }
    if parsed.get_application_name().is_none() {
        parsed.application_name("doseline-inventory");
    }
    if config.tls.is_some() {
        parsed.ssl_mode(tokio_postgres::config::SslMode::Require);
    }
    Ok(parsed)
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn ensure_shards(&self, count: u32) -> Result<(), Fault> {
        reads::ensure_shards(self, count).await
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, Fault> {
        reads::shards(self).await
    }

    async fn seize(&self, request: SeizeRequest) -> Result<Seized, Fault> {
        seize::seize(self, request).await
    }

    async fn slots(&self, slots: &[SlotId]) -> Result<Vec<SlotState>, Fault> {
        reads::slots(self, slots).await
    }

    async fn catalogue(&self, shard: ShardId) -> Result<ShardCatalogue, Fault> {
        supply::catalogue(self, shard).await
    }

    async fn outside_changes(
        &self,
        cursor: OutboxCursor,
        limit: u32,
    ) -> Result<OutsideChanges, Fault> {
        reads::outside_changes(self, cursor, limit).await
    }

    async fn outbox_cursor(&self) -> Result<OutboxCursor, Fault> {
        reads::outbox_cursor(self).await
    }

    async fn has_expired_holds(&self, shard: ShardId) -> Result<bool, Fault> {
        reads::has_expired_holds(self, shard).await
    }

    async fn recorded(
        &self,
        requests: &[(CampaignId, PersonId, RequestId)],
    ) -> Result<Vec<Option<(BodyHash, Recorded)>>, Fault> {
        side::recorded(self, requests).await
    }

    async fn claim(
        &self,
        campaign: &CampaignId,
        person: PersonId,
    ) -> Result<Option<ClaimView>, Fault> {
        side::claim(self, campaign, person).await
    }

    async fn move_booking(
        &self,
        shard: ShardId,
        epoch: Epoch,
        op: &MoveOp,
    ) -> Result<SideAnswer, Fault> {
        side::move_booking(self, shard, epoch, op).await
    }

    async fn cancel(&self, op: &CancelOp) -> Result<SideAnswer, Fault> {
        side::cancel(self, op).await
    }

    async fn surrender(&self, op: &SurrenderOp) -> Result<DepartureAnswer, Fault> {
        departure::surrender(self, op).await
    }

    async fn restamp(&self, who: &Claimant) -> Result<DepartureAnswer, Fault> {
        departure::restamp(self, who).await
    }

    async fn apply(&self, supply: &[ClinicSupply], dry_run: bool) -> Result<Applied, ApplyFault> {
        supply::apply(self, supply, dry_run).await
    }

    async fn clinic(&self, op: &ClinicOp) -> Result<ClinicVerdict, Fault> {
        terminal::change(self, op).await
    }

    async fn day_sheet(
        &self,
        clinic: &ClinicId,
        day: i32,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> Result<Vec<SheetRow>, Fault> {
        terminal::day_sheet(self, clinic, day, after, limit).await
    }

    async fn supply(&self) -> Result<Vec<SupplyRow>, Fault> {
        terminal::supply(self).await
    }

    async fn incident(&self, op: &IncidentOp) -> Result<IncidentVerdict, Fault> {
        incident::change(self, op).await
    }

    async fn incident_view(
        &self,
        clinic: &ClinicId,
        incident: IncidentId,
    ) -> Result<Option<IncidentView>, Fault> {
        incident::view(self, clinic, incident).await
    }

    async fn incident_lines(
        &self,
        incident: IncidentId,
        plan: u32,
        after: u32,
        limit: u32,
    ) -> Result<Vec<LineRow>, Fault> {
        incident::lines(self, incident, plan, after, limit).await
    }

    async fn incident_scene(
        &self,
        clinic: &ClinicId,
        incident: IncidentId,
        now: Timestamp,
    ) -> Result<Option<Scene>, Fault> {
        incident::scene(self, clinic, incident, now).await
    }

    async fn due_moves(&self, shards: &[ShardId], limit: u32) -> Result<Vec<DueMove>, Fault> {
        incident::due_moves(self, shards, limit).await
    }

    async fn settle_moves(&self, settled: &[Settled]) -> Result<(), Fault> {
        incident::settle(self, settled).await
    }

    async fn leftover(&self, op: &LeftoverOp) -> Result<LeftoverVerdict, Fault> {
        leftovers::change(self, op).await
    }

    async fn called(&self, campaign: &CampaignId, person: PersonId) -> Result<Called, Fault> {
        leftovers::called(self, campaign, person).await
    }

    async fn rounds(&self, clinic: &ClinicId, round: Option<RoundId>) -> Result<Vec<Round>, Fault> {
        leftovers::rounds(self, clinic, round).await
    }

    async fn places(&self, round: RoundId) -> Result<Vec<Place>, Fault> {
        leftovers::places(self, round).await
    }

    async fn pass_on_leftovers(&self) -> Result<PassedOn, Fault> {
        leftovers::pass_on(self).await
    }

    async fn save_rooms(&self, rooms: &[RoomSeen]) -> Result<(), Fault> {
        rooms::save(self, rooms).await
    }

    async fn rooms(&self) -> Result<Vec<RoomSeen>, Fault> {
        rooms::all(self).await
    }

    async fn save_buckets(&self, buckets: &[BucketSeen]) -> Result<(), Fault> {
        rooms::save_buckets(self, buckets).await
    }

    async fn buckets(&self) -> Result<Vec<BucketSeen>, Fault> {
        rooms::buckets(self).await
    }
}
