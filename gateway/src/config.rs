//! What a gateway is told: where it listens, whom it believes, how much it takes on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use domain::RegionId;
use runtime::boot::HasProcess;
use runtime::config::{HumanDuration, Problems, Process, RawConfig, RawProcess};
use runtime::keyspace::{EtcdConfig, RawEtcd};
use runtime::secret::{Secret, SecretFile};
use runtime::transport::{ClientTlsFiles, RawClientTls, RawServer, ServerSettings};
use serde::{Deserialize, Serialize};

use crate::shedding::{Bounds, Limit};
use crate::web::{RawWeb, WebSettings};

/// The whole file of the role `gateway`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// Settings every process has.
    pub process: RawProcess,
    /// Where etcd is.
    pub etcd: RawEtcd,
    /// The role itself.
    pub gateway: RawGateway,
}

/// The section `gateway`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawGateway {
    /// For the public.
    pub server: RawServer,
    /// How inventories and identity are reached.
    pub services: RawClientTls,
    /// Connections to each inventory; 1 to 16.
    pub channels_per_owner: usize,
    /// The secret shared by all parts.
    pub internal_key_file: SecretFile,
    /// The key of page tokens, shared by all gateways.
    pub page_key_file: SecretFile,
    /// Public keys that permits are believed by.
    pub permit_keys_file: PathBuf,
    /// Public keys that room documents are believed by.
    pub room_keys_file: PathBuf,
    /// The regions served.
    pub regions: Vec<String>,
    /// Calling systems that present a JWT.
    pub callers: RawCallers,
    /// When callers are told to return later.
    pub shedding: RawShedding,
    /// Callers that watch availability at once; 1 to 100,000.
    pub watchers_max: usize,
    /// Verify the permits of people who ask for their place. Without it an answer costs a tenth; all it says can be
    /// computed from public documents, and nobody books by it.
    pub verify_places: bool,
    /// Pages for people, on a port of their own.
    pub web: RawWeb,
}

/// `gateway.callers`, as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCallers {
    /// JSON Web Key Set of calling systems; empty = client certificates only.
    pub jwks_file: PathBuf,
    /// The audience their JWTs must name.
    pub audience: String,
}

/// `gateway.shedding`, as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawShedding {
    /// Booking commands served at once.
    pub commands_max: u32,
    /// Permit requests served at once.
    pub permits_max: u32,
    /// Reads served at once.
    pub reads_max: u32,
    /// When answers take longer than this, fewer are let in; 10 ms to 10 s.
    pub answer_age_target: HumanDuration,
    /// Answers below this are no reason to give a back end less; 1 ms to `answer_age_target`.
    pub answer_age_calm: HumanDuration,
    /// Calls that each inventory, and each member of identity, may always have at once; 1 to `back_end_max`.
    pub back_end_min: u32,
    /// Calls that each of them may have at once as long as its answers come in time; 1 to 1,000,000.
    pub back_end_max: u32,
}

/// The file, validated.
pub struct Config {
    /// Settings every process has.
    pub process: Process,
    /// Where etcd is, and how long sessions live (a gateway has none).
    pub etcd: (EtcdConfig, Duration),
    /// The role itself.
    pub gateway: Settings,
}

/// `gateway`, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the public.
    pub server: ServerSettings,
    /// How inventories and identity are reached; `None` only with `--dev`.
    pub services: Option<ClientTlsFiles>,
    /// Connections to each inventory.
    pub channels_per_owner: usize,
    /// The secret shared by all parts.
    pub internal_key: Secret,
    /// The key of page tokens.
    pub page_key: Secret,
    /// Public keys that permits are believed by.
    pub permit_keys_file: PathBuf,
    /// Public keys that room documents are believed by.
    pub room_keys_file: PathBuf,
    /// The regions served.
    pub regions: Vec<RegionId>,
    /// How calling systems are recognised.
    pub callers: CallerSettings,
    /// Bounds of what is served at once.
    pub shedding: Shedding,
    /// Callers that watch availability at once.
    pub watchers_max: usize,
    /// Verify the permits of people who ask for their place.
    pub verify_places: bool,
    /// Pages for people; `None` = none.
    pub web: Option<WebSettings>,
}

/// How calling systems are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerSettings {
    /// By what they say (`--dev` without TLS).
    Believed,
    /// By client certificate.
    Certificates,
    /// By client certificate, or by a JWT signed with a key of this set for this audience.
    CertificatesAndJwt {
        /// The key set.
        jwks_file: PathBuf,
        /// The audience.
        audience: String,
    },
}

/// Bounds of what is served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shedding {
    /// Booking commands.
    pub commands: Limit,
    /// Permit requests.
    pub permits: Limit,
    /// Reads.
    pub reads: Limit,
    /// What each inventory and each member of identity gets.
    pub back_end: Bounds,
}

impl Default for RawGateway {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7_700));
        Self {
            server: RawServer {
                listen,
                ..RawServer::default()
            },
            services: RawClientTls::default(),
            channels_per_owner: 2,
            internal_key_file: SecretFile::default(),
            page_key_file: SecretFile::default(),
            permit_keys_file: PathBuf::new(),
            room_keys_file: PathBuf::new(),
            regions: Vec::new(),
            callers: RawCallers::default(),
            shedding: RawShedding::default(),
            watchers_max: 1_000,
            verify_places: true,
            web: RawWeb::default(),
        }
    }
}

impl Default for RawCallers {
    fn default() -> Self {
        Self {
            jwks_file: PathBuf::new(),
            audience: "doseline".to_owned(),
        }
    }
}

impl Default for RawShedding {
    fn default() -> Self {
        Self {
            // Two seconds of work of the fastest owner seen, by Little's law at a second's answer age.
            commands_max: 16_384,
            permits_max: 8_192,
            reads_max: 16_384,
            answer_age_target: HumanDuration::from_secs(1),
            answer_age_calm: HumanDuration::from_millis(100),
            // A hand-over's worth of calls: fewer than this would be no load to shed.
            back_end_min: 64,
            // A second of work of the fastest owner seen.
            back_end_max: 8_192,
        }
    }
}

impl RawConfig for Raw {
    type Config = Config;

    fn validate(self, problems: &mut Problems) -> Option<Config> {
        let process = problems.section("process", |problems| self.process.validate(problems));
        let etcd = problems.section("etcd", |problems| self.etcd.validate(problems));
        let gateway = problems.section("gateway", |problems| self.gateway.validate(problems));
        Some(Config {
            process: process?,
            etcd: etcd?,
            gateway: gateway?,
        })
    }
}

impl HasProcess for Config {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl RawConfig for RawGateway {
    type Config = Settings;

    fn validate(self, problems: &mut Problems) -> Option<Settings> {
        let server = problems.section("server", |problems| self.server.validate(problems));
        let services = problems.section("services", |problems| self.services.validate(problems));
        let channels = problems.within("channels_per_owner", self.channels_per_owner, 1..=16);
        let internal_key = problems.take("internal_key_file", self.internal_key_file.read());
        let page_key = problems.take("page_key_file", self.page_key_file.read());
        for (key, path) in [
            ("permit_keys_file", &self.permit_keys_file),
            ("room_keys_file", &self.room_keys_file),
        ] {
            problems.check(
                !path.as_os_str().is_empty(),
                key,
                "must name a file of public keys",
            );
        }
        let regions = regions(problems, &self.regions);
        let plain = server.as_ref().is_some_and(|server| server.tls.is_none());
        let callers =
            problems.section("callers", |problems| self.callers.settings(problems, plain));
        let shedding = problems.section("shedding", |problems| self.shedding.validate(problems));
        let watchers_max = problems.within("watchers_max", self.watchers_max, 1..=100_000);
        let web = problems.section("web", |problems| self.web.validate(problems));
        Some(Settings {
            server: server?,
            services: services?,
            channels_per_owner: channels,
            internal_key: internal_key?,
            page_key: page_key?,
            permit_keys_file: self.permit_keys_file,
            room_keys_file: self.room_keys_file,
            regions,
            callers,
            shedding: shedding?,
            watchers_max,
            verify_places: self.verify_places,
            web: web?,
        })
    }
}

impl RawCallers {
    /// Without TLS there are no certificates, and a JWT would be readable on the wire.
    /// How callers are recognised; `plain` says that the public port has no TLS.
    pub fn settings(self, problems: &mut Problems, plain: bool) -> CallerSettings {
        let jwt = !self.jwks_file.as_os_str().is_empty();
        problems.check(
            !jwt || !self.audience.is_empty(),
            "audience",
            "is needed with a key set",
        );
        match (jwt, plain) {
            (true, _) => CallerSettings::CertificatesAndJwt {
                jwks_file: self.jwks_file,
                audience: self.audience,
            },
            (false, false) => CallerSettings::Certificates,
            (false, true) => {
                problems.unsafe_choice("jwks_file", "without TLS and JWT callers are believed");
                CallerSettings::Believed
            }
        }
    }
}

impl RawConfig for RawShedding {
    type Config = Shedding;

    fn validate(self, problems: &mut Problems) -> Option<Shedding> {
        let ms = HumanDuration::from_millis;
        let key = "answer_age_target";
        let target = problems
            .within(key, self.answer_age_target, ms(10)..=ms(10_000))
            .get();
        let calm = self.answer_age_calm;
        let calm = problems
            .within("answer_age_calm", calm, ms(1)..=self.answer_age_target)
            .get();
        let ceiling = problems.within("back_end_max", self.back_end_max, 1..=1_000_000);
        let floor = problems.within("back_end_min", self.back_end_min, 1..=ceiling);
        let mut limit =
            |key: &str, most: u32| Limit::new(problems.within(key, most, 1..=1_000_000), target);
        Some(Shedding {
            commands: limit("commands_max", self.commands_max),
            permits: limit("permits_max", self.permits_max),
            reads: limit("reads_max", self.reads_max),
            back_end: Bounds {
                floor,
                ceiling,
                calm,
                target,
            },
        })
    }
}

fn regions(problems: &mut Problems, names: &[String]) -> Vec<RegionId> {
    problems.check(
        !names.is_empty(),
        "regions",
        "must name at least one region",
    );
    let mut seen = BTreeSet::new();
    for (at, name) in names.iter().enumerate() {
        let region = problems.take(format!("regions[{at}]"), name.parse::<RegionId>());
        let again = region.is_some_and(|region| !seen.insert(region));
        problems.check(!again, format!("regions[{at}]"), "is named twice");
    }
    seen.into_iter().collect()
}

#[cfg(test)]
mod tests;
