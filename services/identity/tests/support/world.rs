//! A running identity with SQLite, coordination in memory, a development provider and a clock that stands still.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::Timestamp;
use identity::config::Assertions;
use identity::development::{self, Provider};
use identity::metrics::Metrics;
use identity::people::People;
use identity::person::Blinding;
use identity::{Identity, Parts, keys};
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::identity::identity_service_client::IdentityServiceClient;
use runtime::config::{LogFormat, TelemetrySettings};
use runtime::keyspace::Keyspace;
use runtime::metrics::Registry;
use runtime::secret::Secret;
use runtime::telemetry::{self, Telemetry};
use runtime::transport::{ClientSettings, Limits, Listener, Server, connect};
use runtime::{Boot, Clock, Drain, OnExit, Readiness, Tasks};
use tonic::service::Routes;
use tonic::transport::Channel;

pub(crate) const INTERNAL_KEY: &str = "open-sesame-0123456789";

/// 2021-07-12T09:00:00+09:00.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_626_048_000);

pub(crate) struct World {
    pub(crate) boot: Boot,
    pub(crate) provider: Provider,
    pub(crate) keyspace: Keyspace,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) identity: IdentityServiceClient<Channel>,
    pub(crate) admin: CampaignAdminServiceClient<Channel>,
}

/// Starts identity over this store.
pub(crate) async fn start(
    clock: Clock,
    workers: usize,
    people: impl AsyncFnOnce(&Path, &Boot, Metrics) -> Arc<dyn People>,
) -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let boot = boot(clock);
    let provider = Provider::load_or_create(at).expect("writable");
    for name in ["permit", "room"] {
        keys::generate(&at.join(name), NOW).expect("writable");
    }
    std::fs::create_dir(at.join("receipts")).expect("writable");
    for region in ["busan", "seoul"] {
        let signing = at.join(format!("receipt-signing-{region}"));
        keys::generate(&signing, NOW).expect("writable");
        let public = at.join("receipts").join(format!("{region}.json"));
        keys::publish(&signing, &public).expect("writable");
    }
    let metrics = Metrics::register(&boot.registry);
    let people = people(at, &boot, metrics.clone()).await;
    let keyspace = Keyspace::local(None).expect("in memory");
    let listener = Listener::bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    let address = listener.local_addr().to_string();
    let parts = Parts {
        instance: "identity-1".parse().expect("slug"),
        advertise: address.clone(),
        keyspace: keyspace.clone(),
        session: keyspace.session(Duration::from_secs(5)),
        people,
        internal_key: Secret::new(INTERNAL_KEY),
        gateway_certificates: false,
        operator_certificates: false,
        blinding: Blinding::new(Secret::new([1; 32]), Secret::new([2; 32])).expect("long enough"),
        permit_keys_dir: at.join("permit"),
        room_keys_dir: at.join("room"),
        receipt_keys_dir: Some(at.join("receipts")),
        assertions: Assertions {
            audience: development::AUDIENCE.to_owned(),
            max_age: Duration::from_secs(600),
            providers: vec![(
                development::ISSUER.to_owned(),
                provider.jwks_file().to_owned(),
            )],
        },
        worker_threads: workers,
        services: None,
        doorkeeper: identity::doorkeeper::settings::Settings::default(),
        metrics,
    };
    let identity = identity::start(parts, &boot).expect("started");
    let server = Server::new(
        "test",
        Limits::default(),
        boot.registry.rpc_metrics(identity::server::methods()),
    );
    let (routes, drain) = (routes(identity), boot.drain.clone());
    boot.tasks.spawn("serve", OnExit::Log, async move {
        let _ = server.serve(listener, routes, &drain).await;
    });
    boot.readiness.ready().await;
    let channel = connect(&address, None, &ClientSettings::default()).expect("an address");
    World {
        boot,
        provider,
        keyspace,
        folder,
        identity: IdentityServiceClient::new(channel.clone()),
        admin: CampaignAdminServiceClient::new(channel),
    }
}

fn routes(identity: Identity) -> Routes {
    Routes::new(identity.service)
        .add_service(identity.records)
        .add_service(identity.region_changes)
        .add_service(identity.doorkeeper)
        .add_service(identity.admin)
}

fn boot(clock: Clock) -> Boot {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    let settings = TelemetrySettings {
        format: LogFormat::Text,
        filter: "warn".to_owned(),
        otlp_endpoint: None,
        sample_ratio: 0.0,
    };
    let telemetry =
        TELEMETRY.get_or_init(|| telemetry::init("identity", &settings).expect("set up once"));
    let readiness = Readiness::new();
    let settings = runtime::drain::Settings {
        notice: Duration::ZERO,
        deadline: Duration::from_secs(5),
    };
    let drain = Drain::new(settings, readiness.clone());
    Boot {
        tasks: Tasks::new(drain.clone()),
        drain,
        readiness,
        registry: Registry::new(),
        clock,
        log_filter: telemetry.filter(),
        admin: ([127, 0, 0, 1], 0).into(),
    }
}
