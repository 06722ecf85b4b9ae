//! What an identity process is told: where it listens, whom it believes, which keys it has.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use domain::InstanceId;
use runtime::boot::HasProcess;
use runtime::config::{HumanDuration, Problems, Process, RawConfig, RawProcess};
use runtime::keyspace::{EtcdConfig, RawEtcd};
use runtime::secret::{Secret, SecretFile};
use runtime::transport::{ClientTlsFiles, RawClientTls, RawServer, ServerSettings};
use serde::{Deserialize, Serialize};

use crate::development;
use crate::doorkeeper;
use crate::people::postgres;
use crate::person::Blinding;

/// The whole file of the role `identity`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// Settings every process has.
    pub process: RawProcess,
    /// Where etcd is.
    pub etcd: RawEtcd,
    /// The role itself.
    pub identity: RawIdentity,
}

/// The section `identity`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawIdentity {
    /// Unique among living processes; empty = made at start.
    pub instance: String,
    /// Where gateways reach this process, `host:port`; empty = the address listened on.
    pub advertise: String,
    /// For gateways.
    pub server: RawServer,
    /// For operators.
    pub admin: RawServer,
    /// The secret shared by all parts.
    pub internal_key_file: SecretFile,
    /// The secret that blinds person identifiers, at least 32 bytes. It must never change: people would be others.
    pub pepper_file: SecretFile,
    /// The secret behind draw tickets, at least 32 bytes. It must not change while a campaign runs.
    pub draw_key_file: SecretFile,
    /// Folder of the keys that sign permits.
    pub permit_keys_dir: PathBuf,
    /// Folder of the keys that sign room documents.
    pub room_keys_dir: PathBuf,
    /// Folder with the public keys of each region's receipts, `<region>.json`; empty = nobody changes the region.
    pub receipt_keys_dir: PathBuf,
    /// The store of people.
    pub people: RawPeople,
    /// What assertions must name as their audience.
    pub audience: String,
    /// Assertions issued longer ago are refused; 10 s to 24 h.
    pub assertion_max_age: HumanDuration,
    /// Threads that verify assertions and sign permits; 1 to 64.
    pub worker_threads: usize,
    /// Whose assertions are believed.
    pub providers: Vec<RawProvider>,
    /// How inventories are reached for figures.
    pub services: RawClientTls,
    /// How rooms are steered.
    pub doorkeeper: RawDoorkeeper,
}

/// The section `identity.doorkeeper`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDoorkeeper {
    /// People a second, in all regions together, to begin with; above 0.
    pub start_per_second: f64,
    /// Never more people a second, whatever the back end shows and operators set.
    pub ceiling_per_second: f64,
    /// The part of the admitted who come, before it was measured; 0.05 to 1.
    pub presence: f64,
    /// Commits slower than this are trouble.
    pub latency_max: HumanDuration,
    /// More ops waiting in a region than this are trouble.
    pub queued_max: u64,
    /// How long a plan may be followed without a newer one; 2 s to 60 s. Longer than a doorkeeper needs to be replaced.
    pub plan_ttl: HumanDuration,
}

/// The section `identity.people`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawPeople {
    /// File with the URL of the PostgreSQL database, `postgres://user:password@host:port/name`.
    pub url_file: SecretFile,
    /// PEM file: what the database's certificate is verified against; empty for no TLS, which needs `--dev`.
    pub ca: PathBuf,
    /// Sessions that write; 1 to 16.
    pub writers: usize,
    /// Start on a database without a synchronous standby.
    pub single_copy: bool,
}

/// One of `identity.providers`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawProvider {
    /// Its `iss`.
    pub issuer: String,
    /// File with its JWK set.
    pub jwks_file: PathBuf,
    /// It vouches for anybody; only with `--dev`.
    pub development: bool,
}

/// The file, validated.
#[derive(Debug)]
pub struct Config {
    /// Settings every process has.
    pub process: Process,
    /// Where etcd is, and how long this process's keys outlive it.
    pub etcd: (EtcdConfig, Duration),
    /// The role itself.
    pub identity: Settings,
}

/// `identity`, validated.
#[derive(Debug)]
pub struct Settings {
    /// Unique among living processes.
    pub instance: Option<InstanceId>,
    /// Where gateways reach this process.
    pub advertise: Option<String>,
    /// For gateways.
    pub server: ServerSettings,
    /// For operators.
    pub admin: ServerSettings,
    /// The secret shared by all parts.
    pub internal_key: Secret,
    /// Makes people of identifiers.
    pub blinding: Blinding,
    /// Folder of the keys that sign permits.
    pub permit_keys_dir: PathBuf,
    /// Folder of the keys that sign room documents.
    pub room_keys_dir: PathBuf,
    /// Folder of the public keys of regions' receipts.
    pub receipt_keys_dir: Option<PathBuf>,
    /// The store of people.
    pub people: postgres::Settings,
    /// Whom assertions are made for and by.
    pub assertions: Assertions,
    /// Threads that verify and sign.
    pub worker_threads: usize,
    /// How inventories are reached.
    pub services: Option<ClientTlsFiles>,
    /// How rooms are steered.
    pub doorkeeper: doorkeeper::settings::Settings,
}

/// Whom assertions are made for and by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertions {
    /// What they must name as their audience.
    pub audience: String,
    /// How old they may be.
    pub max_age: Duration,
    /// Issuers with the files of their keys.
    pub providers: Vec<(String, PathBuf)>,
}

impl Default for RawIdentity {
    fn default() -> Self {
        let port = |port| RawServer {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            ..RawServer::default()
        };
        Self {
            instance: String::new(),
            advertise: String::new(),
            server: port(7_730),
            admin: port(7_731),
            internal_key_file: SecretFile::default(),
            pepper_file: SecretFile::default(),
            draw_key_file: SecretFile::default(),
            permit_keys_dir: PathBuf::new(),
            room_keys_dir: PathBuf::new(),
            receipt_keys_dir: PathBuf::new(),
            people: RawPeople::default(),
            audience: development::AUDIENCE.to_owned(),
            assertion_max_age: HumanDuration::from_secs(600),
            worker_threads: 2,
            providers: Vec::new(),
            services: RawClientTls::default(),
            doorkeeper: RawDoorkeeper::default(),
        }
    }
}

impl Default for RawDoorkeeper {
    fn default() -> Self {
        Self {
            start_per_second: 50.0,
            ceiling_per_second: 5_000.0,
            presence: 0.9,
            latency_max: HumanDuration::from_millis(500),
            queued_max: 2_000,
            plan_ttl: HumanDuration::from_secs(10),
        }
    }
}

impl RawConfig for RawDoorkeeper {
    type Config = doorkeeper::settings::Settings;

    fn validate(self, problems: &mut Problems) -> Option<Self::Config> {
        let start = problems.within("start_per_second", self.start_per_second, 0.1..=1e6);
        let ceiling = problems.within("ceiling_per_second", self.ceiling_per_second, 0.1..=1e6);
        let presence = problems.within("presence", self.presence, 0.05..=1.0);
        let secs = HumanDuration::from_secs;
        let ttl = problems.within("plan_ttl", self.plan_ttl, secs(2)..=secs(60));
        let bounds = HumanDuration::from_millis(1)..=secs(60);
        let latency_max = problems.within("latency_max", self.latency_max, bounds);
        Some(doorkeeper::settings::Settings {
            start_per_second: start,
            ceiling_per_second: ceiling,
            presence,
            latency_max: latency_max.get(),
            queued_max: self.queued_max,
            ttl: ttl.get(),
        })
    }
}

impl Default for RawPeople {
    fn default() -> Self {
        Self {
            url_file: SecretFile::default(),
            ca: PathBuf::new(),
            writers: 2,
            single_copy: false,
        }
    }
}

impl RawConfig for Raw {
    type Config = Config;

    fn validate(self, problems: &mut Problems) -> Option<Config> {
        let process = problems.section("process", |problems| self.process.validate(problems));
        let etcd = problems.section("etcd", |problems| self.etcd.validate(problems));
        let identity = problems.section("identity", |problems| self.identity.validate(problems));
        Some(Config {
            process: process?,
            etcd: etcd?,
            identity: identity?,
        })
    }
}

impl HasProcess for Config {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl RawConfig for RawIdentity {
    type Config = Settings;

    fn validate(self, problems: &mut Problems) -> Option<Settings> {
        let instance = match self.instance.as_str() {
            "" => Some(None),
            name => problems.take("instance", name.parse()).map(Some),
        };
        let server = problems.section("server", |problems| self.server.validate(problems));
        let admin = problems.section("admin", |problems| self.admin.validate(problems));
        let people = problems.section("people", |problems| self.people.validate(problems));
        let internal_key = problems.take("internal_key_file", self.internal_key_file.read());
        let pepper = problems.take("pepper_file", self.pepper_file.read());
        let draw_key = problems.take("draw_key_file", self.draw_key_file.read());
        let blinding = pepper.zip(draw_key).and_then(|(pepper, draw_key)| {
            problems.take("pepper_file", Blinding::new(pepper, draw_key))
        });
        for (key, path) in [
            ("permit_keys_dir", &self.permit_keys_dir),
            ("room_keys_dir", &self.room_keys_dir),
        ] {
            problems.check(
                !path.as_os_str().is_empty(),
                key,
                "must name a folder of signing keys",
            );
        }
        let secs = HumanDuration::from_secs;
        let max_age = problems.within(
            "assertion_max_age",
            self.assertion_max_age,
            secs(10)..=secs(86_400),
        );
        problems.check(!self.audience.is_empty(), "audience", "must not be empty");
        let worker_threads = problems.within("worker_threads", self.worker_threads, 1..=64);
        let services = problems.section("services", |problems| self.services.validate(problems));
        let doorkeeper =
            problems.section("doorkeeper", |problems| self.doorkeeper.validate(problems));
        let assertions = Assertions {
            audience: self.audience,
            max_age: max_age.get(),
            providers: providers(self.providers, problems),
        };
        Some(Settings {
            instance: instance?,
            advertise: (!self.advertise.is_empty()).then_some(self.advertise),
            server: server?,
            admin: admin?,
            internal_key: internal_key?,
            blinding: blinding?,
            permit_keys_dir: self.permit_keys_dir,
            room_keys_dir: self.room_keys_dir,
            receipt_keys_dir: Some(self.receipt_keys_dir)
                .filter(|folder| !folder.as_os_str().is_empty()),
            people: people?,
            assertions,
            worker_threads,
            services: services?,
            doorkeeper: doorkeeper?,
        })
    }
}

impl RawConfig for RawPeople {
    type Config = postgres::Settings;

    fn validate(self, problems: &mut Problems) -> Option<postgres::Settings> {
        let url = problems.take("url_file", self.url_file.read());
        let tls = !self.ca.as_os_str().is_empty();
        if !tls {
            problems.unsafe_choice("ca", "no CA means no TLS to the database");
        }
        let writers = problems.within("writers", self.writers, 1..=16);
        Some(postgres::Settings {
            url: url?,
            ca_file: tls.then_some(self.ca),
            writers,
            single_copy: self.single_copy,
        })
    }
}

fn providers(raw: Vec<RawProvider>, problems: &mut Problems) -> Vec<(String, PathBuf)> {
    problems.check(
        !raw.is_empty(),
        "providers",
        "must have at least one provider",
    );
    let mut issuers = BTreeSet::new();
    for (at, provider) in raw.iter().enumerate() {
        problems.section(format!("providers[{at}]"), |problems| {
            let named = problems.check(!provider.issuer.is_empty(), "issuer", "must not be empty");
            let first = issuers.insert(provider.issuer.clone());
            problems.check(!named || first, "issuer", "is named twice");
            let set = !provider.jwks_file.as_os_str().is_empty();
            problems.check(set, "jwks_file", "must name a file with a JWK set");
            // Its issuer gives it away even where the mark is missing.
            if provider.development || provider.issuer == development::ISSUER {
                problems.unsafe_choice("development", "this provider vouches for anybody");
            }
        });
    }
    raw.into_iter()
        .map(|provider| (provider.issuer, provider.jwks_file))
        .collect()
}

#[cfg(test)]
mod tests;
