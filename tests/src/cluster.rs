//! A whole Doseline on one machine: real etcd, real PostgreSQL, gateways, inventories and identities as processes.
//!
//! Invariant: everything listens on loopback, on free ports, and is gone when this value is dropped.

mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::await_until::await_until;
use crate::etcd::Etcd;
use crate::ports::free_port;
use crate::postgres::{Options as PostgresOptions, Postgres};
use crate::processes::{Launch, Process};
use crate::scrape::metrics;
use crate::tcp_proxy::TcpProxy;

/// How long all parts may take to be ready together.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The regions; each has a database.
    pub regions: Vec<String>,
    /// Shards of each region.
    pub shards: u32,
    /// Gateways.
    pub gateways: usize,
    /// The last so many of them tell places without looking at permits' signatures.
    pub trusting_gateways: usize,
    /// Inventories; each serves every region.
    pub inventories: usize,
    /// Identities.
    pub identities: usize,
    /// Changes a second that each inventory is held to; 0 = none.
    pub bookings_per_second_max: u64,
    /// How long a room's plan is followed without a new one, in seconds: 2 to 60.
    pub plan_ttl_secs: u64,
    /// Put a proxy that can be cut between the first inventory and etcd, and between it and PostgreSQL.
    pub proxies: bool,
    /// Where logs and keys go.
    pub folder: PathBuf,
}

impl Options {
    /// Two gateways, three inventories, two identities.
    #[must_use]
    pub fn new(regions: &[&str], folder: &Path) -> Self {
        Self {
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            shards: 2,
            gateways: 2,
            trusting_gateways: 0,
            inventories: 3,
            identities: 2,
            bookings_per_second_max: 0,
            plan_ttl_secs: 10,
            proxies: false,
            folder: folder.to_owned(),
        }
    }
}

/// One process of ours with its ports.
#[derive(Debug)]
pub struct Part {
    /// The process.
    pub process: Process,
    /// Where it serves.
    pub addr: String,
    /// Where operators reach it; gateways have none.
    pub admin: String,
    /// Where it shows metrics and readiness.
    pub metrics: String,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The public faces.
    pub gateways: Vec<Part>,
    /// The owners of shards.
    pub inventories: Vec<Part>,
    /// Who somebody is.
    pub identities: Vec<Part>,
    /// Between the first inventory and etcd, if asked for.
    pub to_etcd: Option<TcpProxy>,
    /// Between the first inventory and PostgreSQL, if asked for.
    pub to_postgres: Option<TcpProxy>,
    /// Coordination.
    pub etcd: Etcd,
    /// All databases.
    pub postgres: Postgres,
    options: Options,
}

impl Cluster {
    /// Starts everything and waits until every gateway is ready.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.folder)?;
        let etcd = Etcd::start(1).await.context("etcd")?;
        let postgres = Postgres::start(PostgresOptions::default())
            .await
            .context("PostgreSQL")?;
        postgres.create_database("people").await?;
        for region in &options.regions {
            postgres.create_database(&database(region)).await?;
        }
        let program = program()?;
        files::secrets(&options.folder)?;
        files::keys(&program, &options.folder, &options.regions)?;
        let (mut to_etcd, mut to_postgres) = (None, None);
        if options.proxies {
            to_etcd = Some(TcpProxy::start(etcd.addrs()[0]).await?);
            to_postgres = Some(TcpProxy::start(postgres.addr()).await?);
        }
        let mut cluster = Self {
            gateways: Vec::new(),
            inventories: Vec::new(),
            identities: Vec::new(),
            to_etcd,
            to_postgres,
            etcd,
            postgres,
            options,
        };
        cluster.start_parts(&program)?;
        cluster.await_ready(READY_WITHIN).await?;
        Ok(cluster)
    }

    fn start_parts(&mut self, program: &Path) -> anyhow::Result<()> {
        for number in 0..self.options.identities {
            let part = self.start_part(program, "identity", number)?;
            self.identities.push(part);
        }
        for number in 0..self.options.inventories {
            let part = self.start_part(program, "inventory", number)?;
            self.inventories.push(part);
        }
        for number in 0..self.options.gateways {
            let part = self.start_part(program, "gateway", number)?;
            self.gateways.push(part);
        }
        Ok(())
    }

    fn start_part(&self, program: &Path, role: &str, number: usize) -> anyhow::Result<Part> {
        let local = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        let (addr, admin, metrics) = (local()?, local()?, local()?);
        let name = format!("{role}-{number}");
        let folder = &self.options.folder;
        let config = folder.join(format!("{name}.toml"));
        let etcd = match (&self.to_etcd, role, number) {
            (Some(proxy), "inventory", 0) => vec![proxy.addr().to_string()],
            _ => self.etcd.endpoints(),
        };
        let ports = files::Ports {
            addr: &addr,
            admin: &admin,
            metrics: &metrics,
        };
        let text = match role {
            "gateway" => files::gateway(&self.options, &etcd, &ports, number),
            "inventory" => {
                let url = |name: &str| match (&self.to_postgres, number) {
                    (Some(proxy), 0) => crate::postgres::url(proxy.addr(), name),
                    _ => self.postgres.url(name),
                };
                files::inventory(&self.options, &etcd, &ports, &name, url)?
            }
            _ => files::identity(&self.options, &etcd, &ports, &self.postgres.url("people"))?,
        };
        std::fs::write(&config, text)?;
        let launch = Launch::new(name, program, folder)
            .args([role, "--dev", "--config"])
            .arg(&config);
        Ok(Part {
            process: Process::start(launch)?,
            addr,
            admin,
            metrics,
        })
    }

    /// Waits until every process says that it is ready.
    pub async fn await_ready(&mut self, bound: Duration) -> anyhow::Result<()> {
        let parts = self
            .gateways
            .iter_mut()
            .chain(&mut self.inventories)
            .chain(&mut self.identities);
        for part in parts {
            let metrics = part.metrics.clone();
            let name = part.process.name().to_owned();
            part.process.expect_running()?;
            let ready = await_until(&format!("{name} is ready"), bound, || {
                ready(metrics.clone())
            })
            .await;
            ready.with_context(|| part.process.log_tail())?;
        }
        Ok(())
    }

    /// The identity that says it is the doorkeeper, if one does now.
    pub async fn doorkeeper(&self) -> Option<usize> {
        for (at, part) in self.identities.iter().enumerate() {
            let page = metrics(&part.metrics).await.unwrap_or_default();
            if page.contains("doseline_identity_doorkeeper 1") {
                return Some(at);
            }
        }
        None
    }

    /// Arguments that make `doseline rush` run against this cluster and judge from its databases.
    #[must_use]
    pub fn rush_args(&self, regions: &[String], scale: f64, report: &Path) -> Vec<String> {
        let gateways: Vec<_> = self
            .gateways
            .iter()
            .map(|part| part.addr.as_str())
            .collect();
        let mut args = vec![
            "rush".to_owned(),
            format!("--gateway={}", gateways.join(",")),
            format!("--identity-admin={}", self.identities[0].admin),
            format!(
                "--inventory-admin={}",
                self.inventories[self.inventories.len() - 1].admin
            ),
            format!("--data={}", self.options.folder.display()),
            format!("--scale={scale}"),
            format!("--report={}", report.display()),
            format!("--people={}", self.postgres.url("people")),
        ];
        for region in regions {
            args.push(format!("--regions={region}"));
            args.push(format!(
                "--ledger={region}={}",
                self.postgres.url(&database(region))
            ));
        }
        args
    }

    /// Starts a rush as a process of its own.
    pub fn start_rush(&self, name: &str, scale: f64) -> anyhow::Result<Process> {
        self.start_rush_in(&self.options.regions, name, scale)
    }

    /// Starts a rush in some of the regions: clinics that an earlier rush sold out are of no use to a later one.
    pub fn start_rush_in(
        &self,
        regions: &[String],
        name: &str,
        scale: f64,
    ) -> anyhow::Result<Process> {
        let report = self.options.folder.join(format!("{name}-report"));
        let mut args = self.rush_args(regions, scale, &report);
        args.push(format!("--campaign={name}"));
        Process::start(Launch::new(name, program()?, &self.options.folder).args(args))
    }

    /// The folder with keys, configurations and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.options.folder
    }
}

/// The database of a region.
#[must_use]
pub fn database(region: &str) -> String {
    format!("ledger_{}", region.replace('-', "_"))
}

/// The program under test, built beside the test that runs.
pub fn program() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let folders = me.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join("doseline"))
        .find(|path| path.is_file());
    found.context("the program `doseline` is not built: cargo build -p standalone")
}

async fn ready(metrics: String) -> bool {
    asked(&metrics).await.unwrap_or(false)
}

async fn asked(metrics: &str) -> std::io::Result<bool> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(metrics).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: doseline\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
