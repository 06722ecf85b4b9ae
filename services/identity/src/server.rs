//! Puts an identity process together, the same way for one role alone and for all roles in one process.

use std::sync::Arc;

use anyhow::Context as _;
use domain::InstanceId;
use proto::admin::campaign_admin_service_server::CampaignAdminServiceServer;
use proto::doorkeeper::doorkeeper_service_server::DoorkeeperServiceServer;
use proto::identity::identity_service_server::IdentityServiceServer;
use proto::regions::region_change_service_server::RegionChangeServiceServer;
use proto::room::room_service_server::RoomServiceServer;
use runtime::keyspace::{Keyspace, Session};
use runtime::readiness::Latch;
use runtime::reload::Reloading;
use runtime::secret::Secret;
use runtime::transport::{ClientTls, Listener, Server, ServerTls};
use runtime::{Boot, OnExit};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::assertion::jwks::KeySet;
use crate::assertion::{Provider, Verifier};
use crate::caller::{Callers, Operators};
use crate::campaigns::{self, Campaigns};
use crate::config::{Assertions, Config, Settings};
use crate::doorkeeper::figures::Inventories;
use crate::doorkeeper::history::{self, History};
use crate::doorkeeper::publish::{self, Publisher};
use crate::doorkeeper::reports::Reports;
use crate::doorkeeper::{self, control};
use crate::issue::Issuer;
use crate::keys::SigningKeys;
use crate::member;
use crate::metrics::Metrics;
use crate::people::People;
use crate::people::postgres::PostgresPeople;
use crate::person::Blinding;
use crate::region_changes::{ReceiptKeys, RegionChanges};
use crate::rooms::Rooms;
use crate::rpc::{CampaignAdminRpc, DoorkeeperRpc, IdentityRpc, RegionChangesRpc, RoomRecords};
use crate::workers::Workers;

/// A request for a permit with the longest assertion, and room for the rest.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// A campaign's document and its envelope.
const ADMIN_MESSAGE_BYTES_MAX: usize = campaigns::DOCUMENT_BYTES_MAX + 1024;
/// How often a component that is not ready is looked at again.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// What identity is made of, wherever its parts come from.
pub struct Parts {
    /// Who this process is.
    pub instance: InstanceId,
    /// Where gateways reach it.
    pub advertise: String,
    /// Coordination and documents.
    pub keyspace: Keyspace,
    /// This process's lease.
    pub session: Session,
    /// The store of people.
    pub people: Arc<dyn People>,
    /// The secret shared by all parts.
    pub internal_key: Secret,
    /// Whether gateways must show a certificate, too.
    pub gateway_certificates: bool,
    /// Whether operators must show a certificate.
    pub operator_certificates: bool,
    /// Makes people of identifiers.
    pub blinding: Blinding,
    /// Folder of the keys that sign permits.
    pub permit_keys_dir: std::path::PathBuf,
    /// Folder of the keys that sign room documents.
    pub room_keys_dir: std::path::PathBuf,
    /// Folder of the public keys that receipts of regions are believed by; `None` = nobody changes the region.
    pub receipt_keys_dir: Option<std::path::PathBuf>,
    /// Whom assertions are made for and by.
    pub assertions: Assertions,
    /// Threads that verify and sign.
    pub worker_threads: usize,
    /// How inventories are reached for figures.
    pub services: Option<ClientTls>,
    /// How rooms are steered.
    pub doorkeeper: doorkeeper::settings::Settings,
    /// What is counted.
    pub metrics: Metrics,
}

/// A running identity: its services, to be mounted on ports.
pub struct Identity {
    /// For gateways.
    pub service: IdentityServiceServer<IdentityRpc>,
    /// For gateways: what rooms can be checked by.
    pub records: RoomServiceServer<RoomRecords>,
    /// For gateways: the steps of a change of region.
    pub region_changes: RegionChangeServiceServer<RegionChangesRpc>,
    /// For gateways: what slows lines.
    pub doorkeeper: DoorkeeperServiceServer<DoorkeeperRpc>,
    /// For operators.
    pub admin: CampaignAdminServiceServer<CampaignAdminRpc>,
}

/// Starts everything that runs by itself; the services answer from then on. The latch `identity` of the readiness is
/// released when the campaigns are known and the people store answers.
pub fn start(parts: Parts, boot: &Boot) -> anyhow::Result<Identity> {
    let latch = boot.readiness.register("identity");
    let now = boot.clock.wall();
    let permit_keys = SigningKeys::follow(&parts.permit_keys_dir, now).context("permit keys")?;
    permit_keys.watch("watch_permit_signing_keys", &boot.tasks, &boot.drain);
    let room_keys = SigningKeys::follow(&parts.room_keys_dir, now).context("room keys")?;
    room_keys.watch("watch_room_signing_keys", &boot.tasks, &boot.drain);
    let verifier = Arc::new(verifier(parts.assertions.clone(), boot)?);
    let workers =
        Workers::start(parts.worker_threads, &boot.tasks).context("threads for permits")?;

    let receipt_keys = receipt_keys(&parts, boot)?;
    let campaigns = follow_campaigns(&parts, latch, boot);
    announce(&parts, boot);
    let reports = Reports::default();
    let rooms = start_doorkeeper(&parts, room_keys, &campaigns, reports.clone(), boot)?;
    let issuer = Issuer {
        campaigns,
        verifier,
        blinding: parts.blinding,
        people: Arc::clone(&parts.people),
        keys: permit_keys,
        workers,
        clock: boot.clock.clone(),
        metrics: parts.metrics,
    };
    let callers = Callers::new(&parts.internal_key, parts.gateway_certificates);
    let operators = Operators {
        certificates: parts.operator_certificates,
    };
    let records = RoomRecords::new(callers.clone(), parts.people);
    let records = RoomServiceServer::new(records).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let clock = boot.clock.clone();
    let doorkeeper = DoorkeeperRpc {
        callers: callers.clone(),
        reports,
        clock,
    };
    let region_changes = RegionChangesRpc {
        callers: callers.clone(),
        changes: RegionChanges {
            issuer: issuer.clone(),
            receipt_keys,
        },
    };
    let service = IdentityServiceServer::new(IdentityRpc { issuer, callers })
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let admin = CampaignAdminServiceServer::new(CampaignAdminRpc {
        keyspace: parts.keyspace,
        rooms,
        operators,
    })
    .max_decoding_message_size(ADMIN_MESSAGE_BYTES_MAX);
    Ok(Identity {
        service,
        records,
        region_changes: RegionChangeServiceServer::new(region_changes)
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
        doorkeeper: DoorkeeperServiceServer::new(doorkeeper)
            .max_decoding_message_size(MESSAGE_BYTES_MAX),
        admin,
    })
}

/// Follows the campaigns; the latch is released when they are known and the people store answers.
fn follow_campaigns(parts: &Parts, latch: Latch, boot: &Boot) -> Campaigns {
    let campaigns = Campaigns::new(parts.blinding.clone());
    let mirror = parts.keyspace.mirror(campaigns::PREFIX);
    let mut listed = mirror.clone();
    let follow = campaigns.clone().follow(mirror, boot.drain.clone());
    boot.tasks
        .spawn("follow_campaigns", OnExit::StopProcess, follow);
    let (people, ready_campaigns) = (Arc::clone(&parts.people), campaigns.clone());
    let drain = boot.drain.clone();
    boot.tasks.spawn("identity_ready", OnExit::Log, async move {
        drain
            .interrupt(async {
                listed.ready().await;
                ready_campaigns.take(&listed.snapshot());
                while people.check().await.is_err() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                latch.release();
            })
            .await;
    });
    campaigns
}

/// The public keys of regions' receipts, followed; `None` = nobody changes the region.
fn receipt_keys(parts: &Parts, boot: &Boot) -> anyhow::Result<Option<Reloading<ReceiptKeys>>> {
    let folder = parts.receipt_keys_dir.as_deref();
    let keys = folder.map(ReceiptKeys::follow).transpose();
    let keys = keys.context("receipt keys")?;
    if let Some(keys) = &keys {
        keys.watch("watch_receipt_keys", &boot.tasks, &boot.drain);
    }
    Ok(keys)
}

/// Tells gateways where this process is.
fn announce(parts: &Parts, boot: &Boot) {
    let register = member::register(
        parts.keyspace.clone(),
        parts.session.clone(),
        parts.instance.clone(),
        parts.advertise.clone(),
        boot.drain.clone(),
    );
    boot.tasks
        .spawn("identity_member", OnExit::StopProcess, register);
}

/// Starts what keeps rooms, and returns what operators do with them.
fn start_doorkeeper(
    parts: &Parts,
    room_keys: Reloading<SigningKeys>,
    campaigns: &Campaigns,
    reports: Reports,
    boot: &Boot,
) -> anyhow::Result<Rooms> {
    let clock = boot.clock.clone();
    let (history, versions) = History::new();
    let keep = history::keep(Arc::clone(&parts.people), versions, boot.drain.clone());
    boot.tasks.spawn("keep_history", OnExit::Log, keep);
    let publisher = Publisher::new(
        parts.keyspace.clone(),
        room_keys,
        clock.clone(),
        (Arc::clone(&parts.people), history),
    );
    let rooms = Rooms::new(
        parts.keyspace.clone(),
        publisher.clone(),
        Arc::clone(&parts.people),
        parts.doorkeeper.ttl,
        clock.clone(),
        parts.metrics.clone(),
    );
    let inventories = Inventories::new(
        parts.keyspace.clone(),
        parts.services.clone(),
        &parts.internal_key,
        clock.clone(),
    )
    .context("the internal key")?;
    let keeping = doorkeeper::Parts {
        publisher,
        operators: rooms.clone(),
        people: Arc::clone(&parts.people),
        campaigns: campaigns.clone(),
        rooms: parts.keyspace.mirror(publish::PREFIX),
        controls: parts.keyspace.mirror(control::PREFIX),
        gathered: inventories.gathered().clone(),
        reports,
        settings: parts.doorkeeper,
        clock,
        metrics: parts.metrics.clone(),
    };
    let candidate = doorkeeper::Candidate {
        instance: parts.instance.clone(),
        keyspace: parts.keyspace.clone(),
        session: parts.session.clone(),
        inventories,
        tasks: boot.tasks.clone(),
    };
    let doorkeeping = doorkeeper::run(candidate, Arc::new(keeping), boot.drain.clone());
    boot.tasks
        .spawn("doorkeeper", OnExit::StopProcess, doorkeeping);
    Ok(rooms)
}

/// The role alone, in cluster mode.
pub async fn run(config: Config, boot: Boot) -> anyhow::Result<()> {
    let Config {
        etcd: (etcd, ttl),
        identity: settings,
        ..
    } = config;
    let listener = Listener::bind(settings.server.listen).await?;
    let admin_listener = Listener::bind(settings.admin.listen).await?;
    let keyspace = Keyspace::etcd(etcd).await?;
    let metrics = Metrics::register(&boot.registry);
    let people = PostgresPeople::open(
        settings.people.clone(),
        &boot.tasks,
        boot.clock.clone(),
        metrics.clone(),
    )
    .await
    .context("people store")?;
    let tls = settings
        .server
        .tls
        .clone()
        .map(ServerTls::load)
        .transpose()?;
    let admin_tls = settings
        .admin
        .tls
        .clone()
        .map(ServerTls::load)
        .transpose()?;
    for tls in [&tls, &admin_tls].into_iter().flatten() {
        tls.watch(&boot.tasks, &boot.drain);
    }
    let session = keyspace.session(ttl);
    let address = listener.local_addr().to_string();
    let certificates = (tls.is_some(), admin_tls.is_some());
    let parts = parts(
        &settings,
        address,
        keyspace,
        session.clone(),
        Arc::new(people),
        certificates,
        metrics,
    )?;
    let identity = start(parts, &boot)?;

    let (health, health_service) = tonic_health::server::health_reporter();
    report_not_serving(&health).await;
    let reporting = report_health(health, boot.clone());
    boot.tasks.spawn("identity_health", OnExit::Log, reporting);
    let routes = Routes::new(identity.service)
        .add_service(identity.records)
        .add_service(identity.region_changes)
        .add_service(identity.doorkeeper)
        .add_service(health_service.clone());
    let admin_routes = Routes::new(identity.admin).add_service(health_service);
    let rpc = boot.registry.rpc_metrics(methods());
    let server = Server::new("identity", settings.server.limits, rpc.clone()).tls(tls);
    let admin = Server::new("identity_admin", settings.admin.limits, rpc).tls(admin_tls);
    let _ = tokio::join!(
        server.serve(listener, routes, &boot.drain),
        admin.serve(admin_listener, admin_routes, &boot.drain),
    );
    session.end().await;
    Ok(())
}

/// The methods whose calls are counted by name.
#[must_use]
pub fn methods() -> [&'static str; 20] {
    [
        "doseline.identity.v1.IdentityService/IssuePermit",
        "doseline.regions.v1.RegionChangeService/BeginChange",
        "doseline.regions.v1.RegionChangeService/CompleteChange",
        "doseline.doorkeeper.v1.DoorkeeperService/ReportLoad",
        "doseline.room.v1.RoomService/ListTickets",
        "doseline.room.v1.RoomService/GetInclusionProof",
        "doseline.room.v1.RoomService/ListRoomVersions",
        "doseline.admin.v1.CampaignAdminService/ApplyCampaign",
        "doseline.admin.v1.CampaignAdminService/GetCampaign",
        "doseline.admin.v1.CampaignAdminService/OpenRoom",
        "doseline.admin.v1.CampaignAdminService/PauseRoom",
        "doseline.admin.v1.CampaignAdminService/ResumeRoom",
        "doseline.admin.v1.CampaignAdminService/CommitDraw",
        "doseline.admin.v1.CampaignAdminService/FreezeDraw",
        "doseline.admin.v1.CampaignAdminService/RevealDraw",
        "doseline.admin.v1.CampaignAdminService/EnterBeacon",
        "doseline.admin.v1.CampaignAdminService/OpenDoors",
        "doseline.admin.v1.CampaignAdminService/SetRoomCeiling",
        "doseline.admin.v1.CampaignAdminService/SetRoomRate",
        "doseline.admin.v1.CampaignAdminService/GetRoomStatus",
    ]
}

fn parts(
    settings: &Settings,
    address: String,
    keyspace: Keyspace,
    session: Session,
    people: Arc<dyn People>,
    (gateway_certificates, operator_certificates): (bool, bool),
    metrics: Metrics,
) -> anyhow::Result<Parts> {
    let made = || format!("identity-{:08x}", rand::random::<u32>()).parse();
    Ok(Parts {
        instance: settings.instance.clone().map_or_else(made, Ok)?,
        advertise: settings.advertise.clone().unwrap_or(address),
        keyspace,
        session,
        people,
        internal_key: settings.internal_key.clone(),
        gateway_certificates,
        operator_certificates,
        blinding: settings.blinding.clone(),
        permit_keys_dir: settings.permit_keys_dir.clone(),
        room_keys_dir: settings.room_keys_dir.clone(),
        receipt_keys_dir: settings.receipt_keys_dir.clone(),
        assertions: settings.assertions.clone(),
        worker_threads: settings.worker_threads,
        services: settings.services.clone().map(ClientTls::load).transpose()?,
        doorkeeper: settings.doorkeeper,
        metrics,
    })
}

fn verifier(assertions: Assertions, boot: &Boot) -> anyhow::Result<Verifier> {
    let mut providers = Vec::new();
    for (issuer, jwks_file) in assertions.providers {
        let keys = KeySet::follow(&jwks_file).with_context(|| format!("keys of {issuer}"))?;
        keys.watch("watch_provider_keys", &boot.tasks, &boot.drain);
        providers.push(Provider { issuer, keys });
    }
    Ok(Verifier::new(
        providers,
        assertions.audience,
        assertions.max_age,
    ))
}

async fn report_not_serving(health: &HealthReporter) {
    health
        .set_not_serving::<IdentityServiceServer<IdentityRpc>>()
        .await;
    health
        .set_not_serving::<CampaignAdminServiceServer<CampaignAdminRpc>>()
        .await;
    health
        .set_service_status("", ServingStatus::NotServing)
        .await;
}

/// SERVING exactly while the process is ready.
async fn report_health(health: HealthReporter, boot: Boot) {
    let mut ready = boot.readiness.watch();
    loop {
        if *ready.borrow_and_update() {
            health
                .set_serving::<IdentityServiceServer<IdentityRpc>>()
                .await;
            health
                .set_serving::<CampaignAdminServiceServer<CampaignAdminRpc>>()
                .await;
            health.set_service_status("", ServingStatus::Serving).await;
        } else {
            report_not_serving(&health).await;
        }
        if boot.drain.is_draining() || ready.changed().await.is_err() {
            return;
        }
    }
}
