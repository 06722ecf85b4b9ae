//! What an inventory process is told: where it listens, which regions it serves, whom it believes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use domain::{InstanceId, RegionId};
use runtime::boot::HasProcess;
use runtime::config::{Problems, Process, RawConfig, RawProcess};
use runtime::keyspace::{EtcdConfig, RawEtcd};
use runtime::secret::{Secret, SecretFile};
use runtime::transport::{ClientTlsFiles, RawClientTls, RawServer, ServerSettings};
use serde::{Deserialize, Serialize};

/// The whole file of the role `inventory`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// Settings every process has.
    pub process: RawProcess,
    /// Where etcd is.
    pub etcd: RawEtcd,
    /// The role itself.
    pub inventory: RawInventory,
}

/// The section `inventory`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawInventory {
    /// Unique among living processes; empty = made at start.
    pub instance: String,
    /// Where gateways reach this process, `host:port`; empty = the address listened on.
    pub advertise: String,
    /// What fails together with this process, such as a rack.
    pub failure_domain: String,
    /// For gateways.
    pub server: RawServer,
    /// For operators.
    pub admin: RawServer,
    /// How other inventories are reached, to see whether they live.
    pub peers: RawClientTls,
    /// The secret shared by all parts.
    pub internal_key_file: SecretFile,
    /// Public keys that permits are believed by.
    pub permit_keys_file: PathBuf,
    /// Public keys that room documents are believed by.
    pub room_keys_file: PathBuf,
    /// Threads that verify permits; 1 to 64.
    pub verify_threads: usize,
    /// Changes (holds, bookings, confirmations) that this process writes in a second at most, to 1,000,000; 0 = as many
    /// as the databases take. More waits, and is turned away when it would wait too long.
    pub bookings_per_second_max: u32,
    /// Start on a database without a synchronous standby.
    pub single_copy: bool,
    /// The regions this process serves.
    pub regions: Vec<RawRegion>,
}

/// One of `inventory.regions`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRegion {
    /// The region's id.
    pub region: String,
    /// How many shards it has; 1 to 1,024. More may be added, never fewer.
    pub shards: u32,
    /// File with the URL of its PostgreSQL database, `postgres://user:password@host:port/name`.
    pub ledger_file: SecretFile,
    /// Connections for reads and side work, 1 to 256, a quarter of them (of two or more) for owners alone; 0 = 4.
    pub pool_size: usize,
    /// Folder of the keys that sign what became of people who leave for another region; empty = nobody can leave it.
    pub receipt_keys_dir: PathBuf,
}

/// The file, validated.
pub struct Config {
    /// Settings every process has.
    pub process: Process,
    /// Where etcd is, and how long this process's keys outlive it.
    pub etcd: (EtcdConfig, std::time::Duration),
    /// The role itself.
    pub inventory: Settings,
}

/// `inventory`, validated.
pub struct Settings {
    /// Unique among living processes.
    pub instance: Option<InstanceId>,
    /// Where gateways reach this process.
    pub advertise: Option<String>,
    /// What fails together with this process.
    pub failure_domain: String,
    /// For gateways.
    pub server: ServerSettings,
    /// For operators.
    pub admin: ServerSettings,
    /// How other inventories are reached.
    pub peers: Option<ClientTlsFiles>,
    /// The secret shared by all parts.
    pub internal_key: Secret,
    /// Public keys that permits are believed by.
    pub permit_keys_file: PathBuf,
    /// Public keys that room documents are believed by.
    pub room_keys_file: PathBuf,
    /// Threads that verify permits.
    pub verify_threads: usize,
    /// Changes a second at most; 0 = no bound.
    pub bookings_per_second_max: u32,
    /// Start on a database without a synchronous standby.
    pub single_copy: bool,
    /// The regions this process serves.
    pub regions: Vec<RegionSettings>,
}

/// One region, validated.
pub struct RegionSettings {
    /// The region's id.
    pub region: RegionId,
    /// How many shards it has.
    pub shards: u32,
    /// The URL of its database.
    pub ledger: Secret,
    /// Connections for reads and side work.
    pub pool_size: usize,
    /// Folder of the keys that sign receipts.
    pub receipt_keys_dir: Option<PathBuf>,
}

impl Default for RawInventory {
    fn default() -> Self {
        let port = |port| RawServer {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            ..RawServer::default()
        };
        Self {
            instance: String::new(),
            advertise: String::new(),
            failure_domain: String::new(),
            server: port(7_720),
            admin: port(7_721),
            peers: RawClientTls::default(),
            internal_key_file: SecretFile::default(),
            permit_keys_file: PathBuf::new(),
            room_keys_file: PathBuf::new(),
            verify_threads: 1,
            bookings_per_second_max: 0,
            single_copy: false,
            regions: Vec::new(),
        }
    }
}

impl RawConfig for Raw {
    type Config = Config;

    fn validate(self, problems: &mut Problems) -> Option<Config> {
        let process = problems.section("process", |problems| self.process.validate(problems));
        let etcd = problems.section("etcd", |problems| self.etcd.validate(problems));
        let inventory = problems.section("inventory", |problems| self.inventory.validate(problems));
        Some(Config {
            process: process?,
            etcd: etcd?,
            inventory: inventory?,
        })
    }
}

impl HasProcess for Config {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl RawConfig for RawInventory {
    type Config = Settings;

    fn validate(self, problems: &mut Problems) -> Option<Settings> {
        let instance = match self.instance.as_str() {
            "" => Some(None),
            name => problems.take("instance", name.parse()).map(Some),
        };
        let server = problems.section("server", |problems| self.server.validate(problems));
        let admin = problems.section("admin", |problems| self.admin.validate(problems));
        let peers = problems.section("peers", |problems| self.peers.validate(problems));
        let internal_key = problems.take("internal_key_file", self.internal_key_file.read());
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
        let verify_threads = problems.within("verify_threads", self.verify_threads, 1..=64);
        let bookings_per_second_max = problems.within(
            "bookings_per_second_max",
            self.bookings_per_second_max,
            0..=1_000_000,
        );
        problems.check(
            !self.regions.is_empty(),
            "regions",
            "must have at least one region",
        );
        let mut names = BTreeSet::new();
        let mut regions = Vec::new();
        for (at, region) in self.regions.into_iter().enumerate() {
            let again = !names.insert(region.region.clone());
            problems.check(!again, format!("regions[{at}].region"), "is named twice");
            let region = problems.section(format!("regions[{at}]"), |problems| {
                region.validate(problems)
            });
            regions.extend(region);
        }
        Some(Settings {
            instance: instance?,
            advertise: (!self.advertise.is_empty()).then_some(self.advertise),
            failure_domain: self.failure_domain,
            server: server?,
            admin: admin?,
            peers: peers?,
            internal_key: internal_key?,
            permit_keys_file: self.permit_keys_file,
            room_keys_file: self.room_keys_file,
            verify_threads,
            bookings_per_second_max,
            single_copy: self.single_copy,
            regions,
        })
    }
}

impl RawConfig for RawRegion {
    type Config = RegionSettings;

    fn validate(self, problems: &mut Problems) -> Option<RegionSettings> {
        let region = problems.take("region", self.region.parse());
        let shards = problems.within("shards", self.shards, 1..=1_024);
        let ledger = problems.take("ledger_file", self.ledger_file.read());
        let pool_size = problems.within("pool_size", self.pool_size, 0..=256);
        Some(RegionSettings {
            region: region?,
            shards,
            ledger: ledger?,
            pool_size: if pool_size == 0 { 4 } else { pool_size },
            receipt_keys_dir: Some(self.receipt_keys_dir)
                .filter(|folder| !folder.as_os_str().is_empty()),
        })
    }
}
