//! A real PostgreSQL with a data folder of its own, that can be stopped in every way a database stops.
//!
//! Invariant: `fsync` is on unless a test says otherwise; what a session saw committed survives every stop.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

use crate::await_until::await_ok;
use crate::ports::free_port;
use crate::processes::{Launch, Process, User, find_program};

/// The superuser of every test database; connections from this machine need no password.
pub const USER: &str = "doseline";

/// Recovery after a crash included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Where Debian keeps the servers, the version of production first.
const FOLDERS: [&str; 4] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/18/bin",
];

/// How a database is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a commit reaches the disk before it is acknowledged.
    pub fsync: bool,
    /// Enough for two gateways, three inventories and two identities with a database per region.
    pub connections_max: u32,
    /// Further settings, name and value, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: true,
            connections_max: 300,
            settings: Vec::new(),
        }
    }
}

/// How a running database is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, what they have not committed is rolled back, the state is written out.
    Fast,
    /// Everything ends at once; the next start recovers from the log.
    Immediate,
    /// SIGKILL: the machine's power is cut, as far as the database can tell.
    Kill,
}

/// A PostgreSQL server of this test alone.
#[derive(Debug)]
pub struct Postgres {
    // Before the folder: the server must be dead when its data goes.
    process: Process,
    port: u16,
    folder: TempDir,
}

/// A session: a client together with the task that drives its connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    _driver: AbortOnDropHandle<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Postgres {
    /// Makes a data folder, starts a server on it and waits until it answers.
    ///
    /// # Errors
    /// When PostgreSQL 15 or later is not installed or does not start.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("doseline-postgres-")
            .tempdir()?;
        let user = User::for_servers_that_refuse_root()?;
        if let Some(user) = &user {
            user.own(folder.path())?;
        }
        let data = folder.path().join("data");
        let initdb = Launch::new("initdb", program("initdb")?, folder.path()).user(user.clone());
        initdb
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"])
            .args(["--locale", "C", "--no-sync", "--pgdata"])
            .arg(&data)
            .run()?;
        let port = free_port()?;
        let server = Launch::new("postgres", program("postgres")?, folder.path())
            .user(user)
            .arg("-D")
            .arg(&data)
            .args(settings(&options, folder.path(), port));
        let process = Process::start(server)?;
        let mut postgres = Self {
            process,
            port,
            folder,
        };
        postgres.await_ready().await?;
        Ok(postgres)
    }

    /// Where it listens, for a proxy to stand before.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The folder of its Unix socket, also its log's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of a database of this server.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(self.addr(), database)
    }

    /// Makes an empty database and answers its URL.
    ///
    /// # Errors
    /// When the name is not made of small letters, digits and `_`, or exists.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        ensure!(
            !name.is_empty() && name.bytes().all(plain),
            "not a database name: {name:?}"
        );
        let session = self.session("postgres").await?;
        session
            .batch_execute(&format!("CREATE DATABASE \"{name}\""))
            .await?;
        Ok(self.url(name))
    }

    /// Opens a session on a database.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn session(&self, database: &str) -> anyhow::Result<Session> {
        session(&self.url(database)).await
    }

    /// Stops the server and waits for its end. Its port stays reserved for [`Postgres::resume`].
    ///
    /// # Errors
    /// When it had ended already or does not stop.
    pub async fn stop(&mut self, how: Stop) -> anyhow::Result<()> {
        match how {
            Stop::Kill => {
                self.process.kill()?;
                return Ok(());
            }
            // What PostgreSQL's own control program sends.
            Stop::Fast => self.process.signal(Signal::INT)?,
            Stop::Immediate => self.process.signal(Signal::QUIT)?,
        }
        let status = self.process.await_exit(READY_WITHIN).await?;
        if how == Stop::Fast && !status.success() {
            bail!(
                "PostgreSQL did not stop cleanly: {status}\n{}",
                self.process.log_tail()
            );
        }
        Ok(())
    }

    /// Starts a stopped server again, on the same port and data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        self.process.restart()?;
        self.await_ready().await
    }

    /// [`Postgres::stop`] and [`Postgres::resume`].
    ///
    /// # Errors
    /// As those.
    pub async fn restart(&mut self, how: Stop) -> anyhow::Result<()> {
        self.stop(how).await?;
        self.resume().await
    }

    /// The server's process, to freeze and thaw it with all its sessions.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn await_ready(&mut self) -> anyhow::Result<()> {
        let url = self.url("postgres");
        let ready = await_ok("PostgreSQL to answer", READY_WITHIN, || {
            let (running, url) = (self.process.expect_running(), url.clone());
            async move {
                match running {
                    // No use in waiting: told as a success of the wait, judged below.
                    Err(ended) => Ok(Err(ended)),
                    Ok(()) => session(&url).await.map(|_| Ok(())),
                }
            }
        });
        ready.await?
    }
}

/// The URL of a database behind `addr`, which may be a proxy's.
#[must_use]
pub fn url(addr: SocketAddr, database: &str) -> String {
    format!("postgres://{USER}@{addr}/{database}")
}

/// Opens a session by URL.
///
/// # Errors
/// When nobody listens there or the server refuses.
pub async fn session(url: &str) -> anyhow::Result<Session> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let driver = tokio::task::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a test's database session ended");
        }
    });
    Ok(Session {
        client,
        _driver: AbortOnDropHandle::new(driver),
    })
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    find_program(name, &FOLDERS).context("PostgreSQL 15 or later is needed")
}

fn settings(options: &Options, folder: &Path, port: u16) -> Vec<String> {
    let fixed = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        ("unix_socket_directories", folder.display().to_string()),
        ("max_connections", options.connections_max.to_string()),
        ("fsync", if options.fsync { "on" } else { "off" }.to_owned()),
        ("timezone", "UTC".to_owned()),
        ("log_min_messages", "warning".to_owned()),
    ];
    let fixed = fixed
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let all = fixed.chain(options.settings.iter().cloned());
    all.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
        .collect()
}

#[cfg(test)]
mod tests;
