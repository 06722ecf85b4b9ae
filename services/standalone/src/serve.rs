//! All roles in one process on one data directory: nothing to install, nothing lost when it is killed.
//!
//! Invariant: the same code path as in cluster mode. Only the stores differ: SQLite instead of PostgreSQL, a key space
//! inside the process instead of etcd; gateway and services still speak gRPC to each other.

mod home;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::{RegionId, Timestamp};
use gateway::config::{CallerSettings, RawCallers, RawShedding, Shedding};
use gateway::{RawWeb, WebSettings};
use identity::development::Provider;
use inventory::ledger::Ledger;
use inventory::ledger::sqlite::SqliteLedger;
use inventory::{OpenRegion, Pace, Parts};
use runtime::boot::{Boot, HasProcess};
use runtime::config::{Args as ConfigArgs, Layers, Problems, Process, RawConfig, RawProcess};
use runtime::keyspace::Keyspace;
use runtime::transport::{Limits, Listener, RawServer, Server, ServerSettings, ServerTls};
use runtime::trusted_keys::TrustedKeysFile;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use home::Home;

/// Leases inside one process die with it; the time to live is only formal.
const SESSION_TTL: Duration = Duration::from_secs(5);

/// `doseline serve`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The data directory; made if it is not there.
    #[arg(long, default_value = "data")]
    pub data: PathBuf,
    /// Regions, comma-separated; without them, those that the data directory has ledgers of.
    #[arg(long, value_delimiter = ',')]
    pub regions: Vec<String>,
}

/// The whole file of `serve`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Raw {
    /// Settings every process has.
    pub process: RawProcess,
    /// The roles together.
    pub serve: RawServe,
}

/// The section `serve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawServe {
    /// The data directory.
    pub data: PathBuf,
    /// The regions served.
    pub regions: Vec<String>,
    /// Shards of each region.
    pub shards: u32,
    /// The public port.
    pub server: RawServer,
    /// The operators' port.
    pub admin: RawServer,
    /// How calling systems are recognised.
    pub callers: RawCallers,
    /// Bounds of what is served at once.
    pub shedding: RawShedding,
    /// Pages for people.
    pub web: RawWeb,
}

impl Default for RawServe {
    fn default() -> Self {
        let port = |port| {
            let listen = SocketAddr::from(([127, 0, 0, 1], port));
            RawServer {
                listen,
                ..RawServer::default()
            }
        };
        Self {
            data: PathBuf::from("data"),
            regions: vec!["seoul".to_owned()],
            shards: 1,
            server: port(7_700),
            admin: port(7_701),
            callers: RawCallers::default(),
            shedding: RawShedding::default(),
            web: RawWeb::default(),
        }
    }
}

/// The file, validated.
pub(crate) struct Config {
    process: Process,
    data: PathBuf,
    regions: Vec<RegionId>,
    shards: u32,
    server: ServerSettings,
    admin: ServerSettings,
    callers: CallerSettings,
    shedding: Shedding,
    web: Option<WebSettings>,
    dev: bool,
}

impl HasProcess for Config {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl RawConfig for Raw {
    type Config = Config;

    fn validate(self, problems: &mut Problems) -> Option<Config> {
        let process = problems.section("process", |problems| self.process.validate(problems));
        let serve = self.serve;
        problems.section("serve", |problems| {
            let server = problems.section("server", |problems| serve.server.validate(problems));
            let admin = problems.section("admin", |problems| serve.admin.validate(problems));
            let plain = server.as_ref().is_some_and(|server| server.tls.is_none());
            let callers = problems.section("callers", |problems| {
                serve.callers.settings(problems, plain)
            });
            let shedding =
                problems.section("shedding", |problems| serve.shedding.validate(problems));
            let mut web = serve.web;
            web.enabled.get_or_insert(true);
            let web = problems.section("web", |problems| web.validate(problems));
            let shards = problems.within("shards", serve.shards, 1..=64);
            problems.check(
                !serve.regions.is_empty(),
                "regions",
                "must name at least one region",
            );
            let regions = serve
                .regions
                .iter()
                .enumerate()
                .filter_map(|(at, name)| problems.take(format!("regions[{at}]"), name.parse()))
                .collect();
            Some(Config {
                process: process?,
                data: serve.data,
                regions,
                shards,
                server: server?,
                admin: admin?,
                callers,
                shedding: shedding?,
                web: web?,
                dev: problems.dev(),
            })
        })
    }
}

/// Loads the configuration and serves.
pub(crate) fn main(args: Args) -> ExitCode {
    let layers = layers(&args);
    if args.config.print_config || args.config.check_config {
        // The generic path prints or checks and leaves.
        return runtime::boot::<Raw, _, _>("doseline", &args.config, run);
    }
    match layers.load::<Raw>() {
        Ok(loaded) => runtime::boot::run_loaded("doseline", loaded, run),
        Err(invalid) => runtime::boot::usage(&invalid),
    }
}

/// The layers of a command line: flags of `serve` lie above everything else.
pub(crate) fn layers(args: &Args) -> Layers {
    let mut layers = Layers::from_args(&args.config).set(format!(
        "serve.data={}",
        serde_json::json!(args.data.display().to_string())
    ));
    let regions = if args.regions.is_empty() {
        known(&args.data)
    } else {
        args.regions.clone()
    };
    if !regions.is_empty() {
        layers = layers.set(format!("serve.regions={}", serde_json::json!(regions)));
    }
    layers
}

/// The regions that a data directory has ledgers of; none where it is new.
fn known(data: &std::path::Path) -> Vec<String> {
    let Ok(ledgers) = std::fs::read_dir(data.join("ledger")) else {
        return Vec::new();
    };
    let names = ledgers.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut regions: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".sqlite").map(str::to_owned))
        .collect();
    regions.sort();
    regions
}

/// Serves until the process is told to stop.
pub(crate) async fn run(config: Config, boot: Boot) -> anyhow::Result<()> {
    let begun = boot.clock.monotonic();
    let ready = boot.readiness.register("serve");
    let listener = Listener::bind(config.server.listen).await?;
    let admin_listener = Listener::bind(config.admin.listen).await?;
    // The roles speak to each other over loopback, on ports of their own.
    let loopback = || Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (to_inventory, to_identity) = (loopback().await?, loopback().await?);
    let home = Home::open(&config.data, boot.clock.wall())?;
    if config.dev {
        Provider::load_or_create(&home.development())?;
    }
    let keyspace = Keyspace::local(Some(&home.keyspace()))?;
    let session = keyspace.session(SESSION_TTL);
    let permit_keys = TrustedKeysFile::open(home.permit_keys())?;
    let room_keys = TrustedKeysFile::open(home.room_keys())?;

    let inventory = inventory::start(
        Parts {
            instance: "embedded".parse()?,
            advertise: to_inventory.local_addr().to_string(),
            failure_domain: String::new(),
            keyspace: keyspace.clone(),
            session: session.clone(),
            regions: open_ledgers(&home, &config.regions, config.shards, boot.clock.wall())?,
            internal_key: home.internal_key()?,
            certificates: false,
            permit_keys: permit_keys.clone(),
            room_keys: room_keys.clone(),
            verify_threads: 1,
            pace: Pace::default(),
            peers: None,
        },
        &boot,
    )
    .await?;
    let identity = home.start_identity(
        keyspace.clone(),
        session.clone(),
        &to_identity,
        config.dev,
        &boot,
    )?;
    let host = gateway::Host::from(&boot);
    let parts = gateway_parts(&home, &config, keyspace, (permit_keys, room_keys), &host)?;
    let gateway = gateway::start(parts, &host)?;
    let web = pages(&gateway, &config, &host).await?;

    let tls = tls(&config.server, &boot)?;
    let admin_tls = self::tls(&config.admin, &boot)?;
    let rpc = boot.registry.rpc_metrics(inventory::server::methods());
    let inside = |name| Server::new(name, Limits::default(), rpc.clone());
    let admin_routes = Routes::new(inventory.admin).add_service(identity.admin);
    let identity_routes = Routes::new(identity.service)
        .add_service(identity.records)
        .add_service(identity.region_changes)
        .add_service(identity.doorkeeper);
    let admin = Server::new("admin", config.admin.limits, rpc.clone()).tls(admin_tls);
    ready.release();
    let ports = (listener.local_addr(), admin_listener.local_addr());
    announce(&boot, &config, (ports, web), begun);
    let (gateway, _, _, _) = tokio::join!(
        gateway.serve(listener, &config.server, tls),
        inside("inventory").serve(to_inventory, Routes::new(inventory.service), &boot.drain),
        inside("identity").serve(to_identity, identity_routes, &boot.drain),
        admin.serve(admin_listener, admin_routes, &boot.drain),
    );
    let drained = gateway?;
    tracing::debug!(cut = drained.cut, "the gateway's port is closed");
    session.end().await;
    drop(home);
    Ok(())
}

/// The pages' port, where there are any.
async fn pages(
    gateway: &gateway::Gateway,
    config: &Config,
    host: &gateway::Host,
) -> anyhow::Result<Option<SocketAddr>> {
    Ok(match &config.web {
        Some(web) => Some(gateway.pages(web).start(web, host).await?),
        None => None,
    })
}

fn gateway_parts(
    home: &Home,
    config: &Config,
    keyspace: Keyspace,
    (permit_keys, room_keys): (TrustedKeysFile, TrustedKeysFile),
    host: &gateway::Host,
) -> anyhow::Result<gateway::Parts> {
    Ok(gateway::Parts {
        keyspace,
        instance: "embedded".parse()?,
        regions: config.regions.clone(),
        internal_key: home.internal_key()?,
        page_key: home.page_key()?,
        permit_keys,
        room_keys,
        callers: gateway::recognise_callers(&config.callers, host)?,
        services: None,
        channels_per_owner: 2,
        shedding: config.shedding,
        watchers_max: 1_000,
        verify_places: true,
    })
}

/// A port's certificates, followed while the process lives.
fn tls(server: &ServerSettings, boot: &Boot) -> anyhow::Result<Option<ServerTls>> {
    let tls = server.tls.clone().map(ServerTls::load).transpose()?;
    if let Some(tls) = &tls {
        tls.watch(&boot.tasks, &boot.drain);
    }
    Ok(tls)
}

/// A ledger in one file has one writer, whose groups this fills well.
const SIDE_WIDTH: usize = 64;

fn open_ledgers(
    home: &Home,
    regions: &[RegionId],
    shards: u32,
    now: Timestamp,
) -> anyhow::Result<Vec<OpenRegion>> {
    let open = |region: &RegionId| {
        let path = home.ledger(region);
        let ledger = SqliteLedger::open(&path).with_context(|| format!("ledger of {region}"))?;
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        Ok(OpenRegion {
            region: region.clone(),
            shards,
            ledger,
            side_width: SIDE_WIDTH,
            receipt_keys: Some(home.receipt_keys(region, now)?),
        })
    };
    regions.iter().map(open).collect()
}

/// Says where everything is once the process is ready.
fn announce(
    boot: &Boot,
    config: &Config,
    ((public, admin), web): ((SocketAddr, SocketAddr), Option<SocketAddr>),
    begun: std::time::Instant,
) {
    let (readiness, clock, metrics) = (boot.readiness.clone(), boot.clock.clone(), boot.admin);
    let (data, regions) = (config.data.clone(), config.regions.len());
    let web = web.map(|web| web.to_string());
    boot.tasks
        .spawn("announce", runtime::OnExit::Ignore, async move {
            readiness.ready().await;
            let took = clock.monotonic().saturating_duration_since(begun);
            tracing::info!(
                gateway = %public, %admin, %metrics, web, regions, data = %data.display(),
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(0), "ready"
            );
        });
}
