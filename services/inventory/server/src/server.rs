//! Puts an inventory process together, the same way for one role alone and for all roles in one process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::{InstanceId, RegionId, Timestamp};
use proto::admin::clinic_admin_service_server::ClinicAdminServiceServer;
use proto::inventory::inventory_service_server::InventoryServiceServer;
use runtime::keyspace::{Keyspace, Session};
use runtime::reload::Reloading;
use runtime::secret::Secret;
use runtime::signing_keys::SigningKeys;
use runtime::transport::{ClientSettings, ClientTls, Listener, Server, ServerTls};
use runtime::trusted_keys::TrustedKeysFile;
use runtime::{Boot, OnExit};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::admission::Admission;
use crate::config::{Config, RegionSettings, Settings};
use crate::figures::Figures;
use crate::incident::apply_plans;
use crate::internal::InternalKey;
use crate::lease::Leases;
use crate::ledger::Ledger;
use crate::ledger::postgres::{PostgresConfig, PostgresLedger};
use crate::metrics::Metrics;
use crate::owner::{Owners, Pace};
use crate::permits::Verifier;
use crate::probe::{Connector, Probes};
use crate::region::{self, RegionParts};
use crate::rpc::{ClinicAdmin, InventoryRpc, RegionAccess, Shared, SideWork, SupplyKept};
use crate::tail;

/// Messages between gateways and inventories: 256 commands of at most 16 KiB, the usual one below 1 KiB.
const MESSAGE_MAX: usize = 4 << 20;
/// A call to the operators' port: 20,000 slots.
const ADMIN_MESSAGE_MAX: usize = 8 << 20;

/// How long late callers are answered after the last shard was given away.
const LATE_CALLERS: Duration = Duration::from_secs(1);

/// A region with its open ledger.
pub struct OpenRegion {
    /// The region.
    pub region: RegionId,
    /// How many shards it has.
    pub shards: u32,
    /// Its ledger, migrated.
    pub ledger: Arc<dyn Ledger>,
    /// Reads, moves and cancellations at once; the ledger must have sessions for its owners besides.
    pub side_width: usize,
    /// The keys that sign its receipts; `None` = nobody leaves it for another region.
    pub receipt_keys: Option<Reloading<SigningKeys>>,
}

/// What an inventory is made of, wherever its parts come from.
pub struct Parts {
    /// Who this process is.
    pub instance: InstanceId,
    /// Where gateways reach it.
    pub advertise: String,
    /// What fails together with it.
    pub failure_domain: String,
    /// Coordination.
    pub keyspace: Keyspace,
    /// This process's lease.
    pub session: Session,
    /// The regions it serves.
    pub regions: Vec<OpenRegion>,
    /// The secret shared by all parts.
    pub internal_key: Secret,
    /// Whether gateways must show a certificate too.
    pub certificates: bool,
    /// Public keys that permits are believed by.
    pub permit_keys: TrustedKeysFile,
    /// Public keys that room documents are believed by.
    pub room_keys: TrustedKeysFile,
    /// Threads that verify permits.
    pub verify_threads: usize,
    /// The process's bound of changes a second.
    pub pace: Pace,
    /// How other inventories are reached.
    pub peers: Option<ClientTls>,
}

/// A running inventory: its services, to be mounted on a port.
pub struct Inventory {
    /// For gateways.
    pub service: InventoryServiceServer<InventoryRpc>,
    /// For operators.
    pub admin: ClinicAdminServiceServer<ClinicAdmin>,
}

/// Starts everything that runs by itself; the services answer from then on.
#[expect(
    clippy::too_many_lines,
    reason = "the list of what runs, read from top to bottom"
)]
pub async fn start(parts: Parts, boot: &Boot) -> anyhow::Result<Inventory> {
    let metrics = Arc::new(Metrics::register(&boot.registry));
    let owners = Owners::default();
    let admission = Admission::new(boot.clock.clone(), metrics.refused_documents.clone());
    let rooms = parts.keyspace.mirror("/doseline/room/");
    let served = parts.regions.iter().map(|open| open.region.clone());
    let figures = Figures::new(served);
    let verifier = Verifier::start(
        &boot.tasks,
        &parts.permit_keys,
        &boot.clock,
        parts.verify_threads,
    )?;
    let connector = Connector::new(parts.peers, ClientSettings::default());
    let probes = Probes::start(&boot.tasks, &boot.drain, connector);
    let mut access = BTreeMap::new();
    let mut admin = BTreeMap::new();
    let over = CancellationToken::new();
    let (managing, managed) = mpsc::channel::<()>(1);
    boot.tasks.spawn(
        "end_streams",
        OnExit::Log,
        end_streams(managed, over.clone()),
    );
    for OpenRegion {
        region,
        shards,
        ledger,
        side_width,
        receipt_keys,
    } in parts.regions
    {
        ledger
            .ensure_shards(shards)
            .await
            .with_context(|| format!("shards of {region}"))?;
        let stored = ledger
            .rooms()
            .await
            .with_context(|| format!("rooms of {region}"))?;
        let buckets = ledger
            .buckets()
            .await
            .with_context(|| format!("buckets of {region}"))?;
        admission.restore(&region, (&stored, &buckets), &parts.room_keys);
        let leases = Leases::new(
            parts.keyspace.clone(),
            parts.session.clone(),
            region.clone(),
            parts.instance.clone(),
            parts.advertise.clone(),
            parts.failure_domain.clone(),
        );
        let manager = RegionParts {
            region: region.clone(),
            shards,
            ledger: Arc::clone(&ledger),
            leases: leases.clone(),
            owners: owners.clone(),
            probes: probes.clone(),
            clock: boot.clock.clone(),
            metrics: Arc::clone(&metrics),
            figures: figures.clone(),
            pace: parts.pace.clone(),
            tasks: boot.tasks.clone(),
        };
        let (manage, mine) = (region::run(manager, boot.drain.clone()), managing.clone());
        boot.tasks
            .spawn("manage_region", OnExit::StopProcess, async move {
                manage.await;
                drop(mine);
            });
        let outbox = tail::follow_outbox(
            region.clone(),
            Arc::clone(&ledger),
            owners.clone(),
            boot.drain.clone(),
        );
        boot.tasks
            .spawn("follow_outbox", OnExit::StopProcess, outbox);
        let pass_on = tail::pass_on_leftovers(
            region.clone(),
            Arc::clone(&ledger),
            Arc::clone(&metrics),
            boot.drain.clone(),
        );
        boot.tasks
            .spawn("pass_on_leftovers", OnExit::StopProcess, pass_on);
        let remember = tail::remember_rooms(
            region.clone(),
            Arc::clone(&ledger),
            admission.clone(),
            rooms.clone(),
            boot.drain.clone(),
        );
        boot.tasks
            .spawn("remember_rooms", OnExit::StopProcess, remember);
        let sums = figures.clone().follow(
            region.clone(),
            owners.clone(),
            (boot.clock.clone(), boot.tasks.clone()),
            over.clone(),
        );
        boot.tasks.spawn("follow_figures", OnExit::Log, sums);
        admin.insert(region.clone(), (Arc::clone(&ledger), shards));
        let side = SideWork::new(side_width);
        if let Some(keys) = &receipt_keys {
            keys.watch("watch_receipt_keys", &boot.tasks, &boot.drain);
        }
        access.insert(
            region,
            RegionAccess {
                ledger,
                leases,
                side,
                supply: SupplyKept::default(),
                receipt_keys,
            },
        );
    }
    drop(managing);
    let campaigns = parts.keyspace.mirror("/doseline/campaign/");
    let follow = admission
        .clone()
        .follow(rooms, campaigns, parts.room_keys.clone());
    let drain = boot.drain.clone();
    boot.tasks
        .spawn("follow_rooms", OnExit::StopProcess, async move {
            drain.interrupt(follow).await;
        });
    let shared = Arc::new(Shared {
        regions: access,
        owners,
        admission,
        figures,
        metrics,
        verifier,
        permit_keys: parts.permit_keys,
        internal: InternalKey::new(&parts.internal_key, parts.certificates),
        clock: boot.clock.clone(),
        tasks: boot.tasks.clone(),
        over,
    });
    for region in shared.regions.keys() {
        let apply = apply_plans(Arc::clone(&shared), region.clone(), boot.drain.clone());
        boot.tasks.spawn("apply_plans", OnExit::StopProcess, apply);
    }
    let service = InventoryServiceServer::new(InventoryRpc(shared))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let admin = ClinicAdminServiceServer::new(ClinicAdmin {
        regions: Arc::new(admin),
    })
    .max_decoding_message_size(ADMIN_MESSAGE_MAX);
    Ok(Inventory { service, admin })
}

/// Ends the streams of gateways a moment after the last region was given away: late callers are told where to go.
async fn end_streams(mut managed: mpsc::Receiver<()>, over: CancellationToken) {
    // Nothing is ever sent: this waits until every region's manager has ended.
    managed.recv().await;
    tokio::time::sleep(LATE_CALLERS).await;
    over.cancel();
}

/// The role alone, in cluster mode.
pub async fn run(config: Config, boot: Boot) -> anyhow::Result<()> {
    let Config {
        etcd: (etcd, ttl),
        inventory: settings,
        ..
    } = config;
    let ready = boot.readiness.register("inventory");
    let listener = Listener::bind(settings.server.listen).await?;
    let admin_listener = Listener::bind(settings.admin.listen).await?;
    let keyspace = Keyspace::etcd(etcd).await?;
    let session = keyspace.session(ttl);
    let regions = open_regions(&settings, boot.clock.wall()).await?;
    let [tls, admin_tls] = [&settings.server, &settings.admin]
        .map(|server| server.tls.clone().map(ServerTls::load).transpose());
    let (tls, admin_tls) = (tls?, admin_tls?);
    let peers = settings.peers.clone().map(ClientTls::load).transpose()?;
    for tls in [&tls, &admin_tls].into_iter().flatten() {
        tls.watch(&boot.tasks, &boot.drain);
    }
    if let Some(peers) = &peers {
        peers.watch(&boot.tasks, &boot.drain);
    }
    let permit_keys = TrustedKeysFile::open(&settings.permit_keys_file)?;
    permit_keys.watch("watch_permit_keys", &boot.tasks, &boot.drain);
    let room_keys = TrustedKeysFile::open(&settings.room_keys_file)?;
    room_keys.watch("watch_room_keys", &boot.tasks, &boot.drain);
    let made = || format!("inventory-{:08x}", rand::random::<u32>()).parse();
    let instance = settings.instance.clone().map_or_else(made, Ok)?;
    let address = listener.local_addr().to_string();
    let parts = Parts {
        instance,
        advertise: settings.advertise.clone().unwrap_or(address),
        failure_domain: settings.failure_domain.clone(),
        keyspace,
        session: session.clone(),
        regions,
        internal_key: settings.internal_key.clone(),
        certificates: tls.is_some(),
        permit_keys,
        room_keys,
        verify_threads: settings.verify_threads,
        pace: Pace::per_second(settings.bookings_per_second_max),
        peers,
    };
    let inventory = start(parts, &boot).await?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<InventoryServiceServer<InventoryRpc>>()
        .await;
    let routes = Routes::new(inventory.service).add_service(health_service);
    let rpc = boot.registry.rpc_metrics(methods());
    let server = Server::new("inventory", settings.server.limits, rpc.clone()).tls(tls);
    let admin = Server::new("inventory_admin", settings.admin.limits, rpc).tls(admin_tls);
    ready.release();
    let admin_routes = Routes::new(inventory.admin);
    // The port for gateways closes only when every shard is given away: late callers are told where to go.
    let _ = tokio::join!(
        server.serve(listener, routes, &boot.drain),
        admin.serve(admin_listener, admin_routes, &boot.drain),
    );
    session.end().await;
    Ok(())
}

/// Opens and migrates the ledger of each region.
async fn open_regions(settings: &Settings, now: Timestamp) -> anyhow::Result<Vec<OpenRegion>> {
    let mut open = Vec::new();
    for RegionSettings {
        region,
        shards,
        ledger,
        pool_size,
        receipt_keys_dir,
    } in &settings.regions
    {
        let url = ledger
            .expose_str()
            .context("a ledger file is not text")?
            .trim()
            .to_owned();
        let mut config = PostgresConfig::new(url);
        config.pool_size = *pool_size;
        config.require_synchronous_standby = !settings.single_copy;
        let ledger = PostgresLedger::connect(config)
            .await
            .with_context(|| format!("ledger of {region}"))?;
        ledger
            .migrate()
            .await
            .with_context(|| format!("migrations of {region}"))?;
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        open.push(OpenRegion {
            region: region.clone(),
            shards: *shards,
            ledger,
            // A quarter of the pool is left to owners: loading, recorded requests, the outbox.
            side_width: *pool_size - pool_size.div_ceil(4),
            receipt_keys: receipt_keys_dir
                .as_deref()
                .map(|folder| SigningKeys::follow(folder, now))
                .transpose()
                .with_context(|| format!("receipt keys of {region}"))?,
        });
    }
    Ok(open)
}

/// The methods whose calls are counted by name.
#[must_use]
pub fn methods() -> [&'static str; 4] {
    [
        "doseline.inventory.v1.InventoryService/Execute",
        "doseline.inventory.v1.InventoryService/WatchShards",
        "doseline.inventory.v1.InventoryService/GetFigures",
        "doseline.admin.v1.ClinicAdminService/ApplyClinics",
    ]
}
