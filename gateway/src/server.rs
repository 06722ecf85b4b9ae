//! Puts a gateway together, the same way for one role alone and for all roles in one process.

mod heard;
mod offered;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use domain::{InstanceId, RegionId};
use proto::Method;
use runtime::boot::Boot;
use runtime::keyspace::Keyspace;
use runtime::metrics::Registry;
use runtime::readiness::Latch;
use runtime::secret::Secret;
use runtime::transport::{
    ClientSettings, ClientTls, Drained, Listener, Server, ServerSettings, ServerTls,
};
use runtime::trusted_keys::TrustedKeysFile;
use runtime::{Clock, Drain, OnExit, Readiness, Tasks};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Layer as _;

use crate::availability::{Answers, Availability, Follow, PageKey, Supply, publish};
use crate::callers::{Callers, CallersLayer, JwtCallers};
use crate::config::{CallerSettings, Config, Settings, Shedding};
use crate::metrics::GatewayMetrics;
use crate::permits::{Permits, watch_identity};
use crate::report::report_load;
use crate::room::{Rooms, Streams, watch_rooms};
use crate::routing::{
    Connector, NotAHeader, Owners, Router, Routes as RegionsRoutes, watch_region,
};
use crate::rpc::Services;
use crate::shedding::{Class, Gates, SheddingLayer};
use crate::web::{self, Site, WebSettings};
use heard::Heard;
use offered::{follow_health, routes, set_health};

/// A gateway notices a frozen inventory by its silence: a ping each second, answered within two.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// What a gateway needs of the process it runs in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    /// Whether the process is stopping.
    pub drain: Drain,
    /// Where tasks belong.
    pub tasks: Tasks,
    /// Whether work may come.
    pub readiness: Readiness,
    /// Where metrics are registered.
    pub registry: Registry,
    /// The clocks.
    pub clock: Clock,
}

/// What a gateway is made of, wherever its parts come from.
pub struct Parts {
    /// Coordination; only read.
    pub keyspace: Keyspace,
    /// Who this process is, to identity.
    pub instance: InstanceId,
    /// The regions served.
    pub regions: Vec<RegionId>,
    /// The secret shared by all parts.
    pub internal_key: Secret,
    /// The key of page tokens.
    pub page_key: Secret,
    /// Public keys that permits are believed by.
    pub permit_keys: TrustedKeysFile,
    /// Public keys that room documents are believed by.
    pub room_keys: TrustedKeysFile,
    /// How calling systems are recognised.
    pub callers: Callers,
    /// How inventories and identity are reached.
    pub services: Option<ClientTls>,
    /// Connections to each inventory.
    pub channels_per_owner: usize,
    /// Bounds of what is served at once.
    pub shedding: Shedding,
    /// Callers that watch availability at once.
    pub watchers_max: usize,
    /// Verify the permits of people who ask for their place.
    pub verify_places: bool,
}

/// A gateway whose tasks run; it answers once it is served on a port.
pub struct Gateway {
    services: Services,
    callers: Callers,
    gates: Gates,
    host: Host,
    ready: Latch,
    regions: Vec<RegionId>,
    availability: Availability,
    routes: RegionsRoutes,
    owners: Owners,
    /// Pages sign with a key made from it.
    page_key: Secret,
    stop: CancellationToken,
    /// Ends the tasks when the gateway is gone.
    _stopped: DropGuard,
}

/// Pages whose board is rendered while somebody looks; they answer once they are served on a port.
pub struct Pages {
    site: Site,
    server: Server,
    drain: Drain,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The shared secret cannot travel in a header.
    #[error("the internal key cannot be used")]
    InternalKey(#[source] NotAHeader),
    /// Reflection cannot be offered.
    #[error("the API's descriptors cannot be served")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl From<&Boot> for Host {
    fn from(boot: &Boot) -> Self {
        Self {
            drain: boot.drain.clone(),
            tasks: boot.tasks.clone(),
            readiness: boot.readiness.clone(),
            registry: boot.registry.clone(),
            clock: boot.clock.clone(),
        }
    }
}

fn gates(shedding: Shedding) -> Gates {
    let Shedding {
        commands,
        permits,
        reads,
        back_end,
    } = shedding;
    Gates::new(commands, permits, reads, back_end)
}

/// How inventories and identity are called.
fn connector(services: Option<ClientTls>, key: &Secret) -> Result<Connector, Fault> {
    let settings = ClientSettings {
        connect_timeout: CONNECT_WITHIN,
        keep_alive_every: KEEP_ALIVE_EVERY,
        keep_alive_within: KEEP_ALIVE_WITHIN,
        ..ClientSettings::default()
    };
    Connector::new(services, settings, key).map_err(Fault::InternalKey)
}

/// Starts everything that runs by itself, until the gateway is dropped. The process is ready when every region has been heard.
pub fn start(parts: Parts, host: &Host) -> Result<Gateway, Fault> {
    let connector = connector(parts.services, &parts.internal_key)?;
    let gates = gates(parts.shedding);
    let availability = Availability::new(parts.regions.iter().cloned());
    let routes = RegionsRoutes::new(parts.regions.iter().cloned());
    let stop = CancellationToken::new();
    let owners = Owners::new(
        connector.clone(),
        parts.channels_per_owner,
        gates.back_ends(Class::Commands).clone(),
        host.tasks.clone(),
        stop.clone(),
    );
    let rooms = Rooms::new(
        &parts.keyspace,
        parts.permit_keys,
        parts.room_keys,
        parts.verify_places,
        host.clock.clone(),
    );
    let metrics =
        GatewayMetrics::register(&host.registry, &gates, &availability, &rooms, &host.clock);
    let permits = Permits::new(connector.clone(), gates.clone(), metrics.clone());
    let router = Router::new(
        routes.clone(),
        owners.clone(),
        availability.clone(),
        rooms.clone(),
        gates.clone(),
        metrics.clone(),
    );
    let page_key = PageKey::new(parts.page_key.expose());
    let supply = Supply::new(
        parts.regions.iter().cloned(),
        router.clone(),
        page_key.clone(),
    );
    let answers = Answers::new(
        availability.clone(),
        page_key,
        parts.watchers_max,
        host.drain.clone(),
    );
    let gateway = Gateway {
        services: Services {
            router,
            permits: permits.clone(),
            answers,
            supply,
            rooms: rooms.clone(),
            streams: Streams::new(parts.watchers_max, host.drain.clone()),
            refusals: metrics.refusals,
        },
        callers: parts.callers,
        gates,
        host: host.clone(),
        ready: host.readiness.register("gateway"),
        regions: parts.regions,
        availability,
        routes,
        owners,
        page_key: parts.page_key,
        _stopped: stop.clone().drop_guard(),
        stop,
    };
    gateway.follow(&parts.keyspace, &connector);
    gateway.spawn("watch_rooms", watch_rooms(rooms));
    let report = report_load(permits.clone(), gateway.gates.clone(), parts.instance);
    gateway.spawn("report_load", report);
    gateway.spawn("watch_identity", watch_identity(permits, parts.keyspace));
    Ok(gateway)
}

impl Gateway {
    /// Follows every region: its members and owners, what they say, and the views made of it.
    fn follow(&self, keyspace: &Keyspace, connector: &Connector) {
        for id in &self.regions {
            let (Some(region), Some(routes)) =
                (self.availability.region(id), self.routes.region(id))
            else {
                continue;
            };
            let follow = Follow::new(region.clone(), routes.clone(), connector.clone());
            let watch = watch_region(
                keyspace.clone(),
                id.clone(),
                routes.clone(),
                self.owners.clone(),
                follow,
                self.host.tasks.clone(),
            );
            self.spawn("watch_region_owners", watch);
            self.spawn("publish_availability", publish(region.clone()));
        }
    }

    /// Runs something as long as the gateway: also while it drains, because what is in flight may need another route.
    fn spawn(&self, name: &'static str, work: impl Future<Output = Infallible> + Send + 'static) {
        let stop = self.stop.clone();
        self.host
            .tasks
            .spawn(name, OnExit::StopProcess, async move {
                stop.run_until_cancelled(work).await;
            });
    }

    /// Makes the pages; once in a process. They answer from what this gateway knows, as long as it is there.
    #[must_use]
    pub fn pages(&self, settings: &WebSettings) -> Pages {
        let parts = web::Parts {
            services: self.services.clone(),
            callers: self.callers.clone(),
            gates: self.gates.clone(),
            regions: self.regions.clone(),
            clock: self.host.clock.clone(),
            drain: self.host.drain.clone(),
            shared_key: self.page_key.expose().to_vec(),
            streams_max: settings.streams_max,
            tls: settings.server.tls.is_some(),
        };
        let site = Site::new(parts, &self.host.registry);
        self.spawn("render_board", site.render());
        let rpc = self.host.registry.rpc_metrics(methods());
        Pages {
            site,
            server: Server::new("web", settings.server.limits, rpc),
            drain: self.host.drain.clone(),
        }
    }

    /// Serves the public API until the drain has ended.
    pub async fn serve(
        self,
        listener: Listener,
        server: &ServerSettings,
        tls: Option<ServerTls>,
    ) -> Result<Drained, Fault> {
        let (health, health_service) = tonic_health::server::health_reporter();
        set_health(&health, false).await;
        let follow_health =
            follow_health(health, self.host.readiness.clone(), self.host.drain.clone());
        self.host
            .tasks
            .spawn("follow_health", OnExit::Log, follow_health);
        let heard = Heard {
            ready: self.ready,
            regions: self.regions,
            availability: self.availability,
            routes: self.routes,
        };
        let drain = self.host.drain.clone();
        self.host
            .tasks
            .spawn("hear_regions", OnExit::Ignore, async move {
                drain.interrupt(heard.wait()).await;
            });
        let callers = CallersLayer::new(self.callers, self.services.refusals.clone());
        let routes = routes(self.services, health_service)?;
        let service = SheddingLayer::new(self.gates).layer(routes);
        let service = callers.layer(service);
        let rpc = self.host.registry.rpc_metrics(methods());
        let server = Server::new("gateway", server.limits, rpc).tls(tls);
        Ok(server.serve(listener, service, &self.host.drain).await)
    }
}

impl Pages {
    /// Binds the port and says which, and serves browsers until the drain has ended. Certificates are followed while the process lives.
    pub async fn start(self, settings: &WebSettings, host: &Host) -> anyhow::Result<SocketAddr> {
        let listener = Listener::bind(settings.server.listen).await?;
        let address = listener.local_addr();
        let tls = settings.server.tls.clone();
        let tls = tls.map(ServerTls::load_for_browsers).transpose()?;
        if let Some(tls) = &tls {
            tls.watch(&host.tasks, &host.drain);
        }
        let Self {
            site,
            server,
            drain,
        } = self;
        host.tasks.spawn("web", OnExit::StopProcess, async move {
            let drained = site.serve(listener, (server, tls), &drain).await;
            tracing::debug!(cut = drained.cut, "the port for browsers is closed");
        });
        Ok(address)
    }
}

/// The role alone, in cluster mode.
pub async fn run(config: Config, boot: Boot) -> anyhow::Result<()> {
    let Config {
        etcd: (etcd, _),
        gateway: settings,
        ..
    } = config;
    let host = Host::from(&boot);
    let listener = Listener::bind(settings.server.listen).await?;
    let keyspace = Keyspace::etcd(etcd).await?;
    let tls = settings
        .server
        .tls
        .clone()
        .map(ServerTls::load)
        .transpose()?;
    if let Some(tls) = &tls {
        tls.watch(&host.tasks, &host.drain);
    }
    let parts = parts(&settings, keyspace, &host)?;
    let gateway = start(parts, &host)?;
    if let Some(web) = &settings.web {
        gateway.pages(web).start(web, &host).await?;
    }
    let drained = gateway.serve(listener, &settings.server, tls).await?;
    tracing::debug!(cut = drained.cut, "the gateway's port is closed");
    Ok(())
}

/// Reads the files that the settings name.
fn parts(settings: &Settings, keyspace: Keyspace, host: &Host) -> anyhow::Result<Parts> {
    let Host { tasks, drain, .. } = host;
    let permit_keys = TrustedKeysFile::open(&settings.permit_keys_file)?;
    permit_keys.watch("watch_permit_keys", tasks, drain);
    let room_keys = TrustedKeysFile::open(&settings.room_keys_file)?;
    room_keys.watch("watch_room_keys", tasks, drain);
    let services = settings.services.clone().map(ClientTls::load).transpose()?;
    if let Some(services) = &services {
        services.watch(tasks, drain);
    }
    let callers = callers(&settings.callers, host)?;
    Ok(Parts {
        keyspace,
        instance: format!("gateway-{:08x}", rand::random::<u32>()).parse()?,
        regions: settings.regions.clone(),
        internal_key: settings.internal_key.clone(),
        page_key: settings.page_key.clone(),
        permit_keys,
        room_keys,
        callers,
        services,
        channels_per_owner: settings.channels_per_owner,
        shedding: settings.shedding,
        watchers_max: settings.watchers_max,
        verify_places: settings.verify_places,
    })
}

/// How calling systems are recognised, with the files that the settings name.
pub fn callers(settings: &CallerSettings, host: &Host) -> anyhow::Result<Callers> {
    Ok(match settings {
        CallerSettings::Believed => Callers::believed(),
        CallerSettings::Certificates => Callers::proven(None),
        CallerSettings::CertificatesAndJwt {
            jwks_file,
            audience,
        } => {
            let jwt = JwtCallers::load(jwks_file.clone(), audience.clone(), host.clock.clone())?;
            jwt.watch(&host.tasks, &host.drain);
            Callers::proven(Some(jwt))
        }
    })
}

/// The methods whose calls are counted by name.
pub fn methods() -> impl Iterator<Item = &'static str> {
    Method::ALL.iter().map(|method| method.path())
}
