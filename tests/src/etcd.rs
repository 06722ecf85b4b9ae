//! A real etcd: one member or three, whose members can be killed, frozen and restarted.
//!
//! Invariant: a member keeps its ports and its data over restarts, and writes durably.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::await_until::await_ok;
use crate::ports::free_port;
use crate::processes::{Launch, Process, find_program};

/// An election takes a second or two; a busy two-core machine several times that.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// An etcd cluster of this test alone.
#[derive(Debug)]
pub struct Etcd {
    // Before the folder: members must be dead when their data goes.
    members: Vec<Member>,
    _folder: TempDir,
}

/// One member of the cluster.
#[derive(Debug)]
pub struct Member {
    process: Process,
    client: SocketAddr,
}

impl Etcd {
    /// Starts a cluster of `size` members and waits until each answers that it is healthy.
    ///
    /// # Errors
    /// When etcd is not installed or does not become healthy.
    pub async fn start(size: usize) -> anyhow::Result<Self> {
        if size == 0 {
            bail!("an etcd cluster has at least one member");
        }
        let program = find_program("etcd", &["/usr/local/bin", "/usr/bin"])?;
        let folder = tempfile::Builder::new()
            .prefix("doseline-etcd-")
            .tempdir()?;
        let ports = (0..size)
            .map(|_| Ok((free_port()?, free_port()?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(index, (_, peer))| format!("etcd-{index}=http://127.0.0.1:{peer}"))
            .collect();
        let mut members = Vec::with_capacity(size);
        for (index, (client, peer)) in ports.iter().enumerate() {
            let launch = launch(
                &program,
                folder.path(),
                index,
                *client,
                *peer,
                &peers.join(","),
            );
            let process = Process::start(launch)?;
            members.push(Member {
                process,
                client: SocketAddr::from(([127, 0, 0, 1], *client)),
            });
        }
        let mut etcd = Self {
            members,
            _folder: folder,
        };
        etcd.await_healthy(READY_WITHIN).await?;
        Ok(etcd)
    }

    /// Client addresses, as URLs.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| format!("http://{}", member.client))
            .collect()
    }

    /// Client addresses, for a proxy to stand before.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// The process of member `index`, to freeze, thaw, terminate, kill or restart it.
    ///
    /// # Panics
    /// When there is no such member.
    pub fn member(&mut self, index: usize) -> &mut Process {
        &mut self.members[index].process
    }

    /// Kills every member with SIGKILL.
    ///
    /// # Errors
    /// When one cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.members
            .iter_mut()
            .try_for_each(|member| member.process.kill().map(drop))
    }

    /// Restarts every member, on the same ports and data, and waits until all are healthy.
    ///
    /// # Errors
    /// When one cannot be started or does not become healthy.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        for member in &mut self.members {
            member.process.restart()?;
        }
        self.await_healthy(READY_WITHIN).await
    }

    /// Freezes every member.
    ///
    /// # Errors
    /// When one has ended.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.members
            .iter()
            .try_for_each(|member| member.process.freeze())
    }

    /// Wakes every member.
    ///
    /// # Errors
    /// When one has ended.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.members
            .iter()
            .try_for_each(|member| member.process.thaw())
    }

    /// Waits until each member answers that it is healthy, which takes a quorum.
    ///
    /// # Errors
    /// When the bound passes or a member has ended.
    pub async fn await_healthy(&mut self, bound: Duration) -> anyhow::Result<()> {
        for member in &mut self.members {
            let addr = member.client;
            let label = format!("{} to be healthy", member.process.name());
            let healthy = await_ok(&label, bound, || {
                let ended = member.process.expect_running();
                async move {
                    match ended {
                        // No use in waiting: told as a success of the wait, judged below.
                        Err(error) => Ok(Err(error)),
                        Ok(()) => healthy(addr).await.map(Ok),
                    }
                }
            });
            healthy.await??;
        }
        Ok(())
    }
}

fn launch(
    program: &Path,
    folder: &Path,
    index: usize,
    client: u16,
    peer: u16,
    cluster: &str,
) -> Launch {
    let (client, peer) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let name = format!("etcd-{index}");
    let flags = [
        ("name", name.as_str()),
        ("data-dir", &format!("{name}.data")),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", cluster),
        ("initial-cluster-state", "new"),
        ("heartbeat-interval", "100"),
        ("election-timeout", "1000"),
        ("logger", "zap"),
    ];
    let launch = Launch::new(&name, program, folder).args(
        flags
            .iter()
            .map(|(flag, value)| format!("--{flag}={value}")),
    );
    if cfg!(target_arch = "aarch64") {
        // Debian's 3.4 refuses to start on arm64 without this.
        return launch.env("ETCD_UNSUPPORTED_ARCH", "arm64");
    }
    launch
}

async fn healthy(addr: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer
        .rsplit("\r\n\r\n")
        .next()
        .context("no body")?
        .to_owned();
    if answer.starts_with("HTTP/1.1 200") && body.contains(r#""health":"true""#) {
        return Ok(());
    }
    bail!("not healthy: {body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    /// The JSON gateway of etcd: enough to write and read a key without its client library.
    async fn call(addr: SocketAddr, method: &str, body: &str) -> anyhow::Result<serde_json::Value> {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!(
            "POST /v3/kv/{method} HTTP/1.0\r\nHost: {addr}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
        if !head.contains(" 200 ") {
            bail!("{answer}");
        }
        serde_json::from_str(body).with_context(|| body.to_owned())
    }

    #[tokio::test]
    async fn one_member_keeps_what_was_written_over_a_kill() -> anyhow::Result<()> {
        let mut etcd = Etcd::start(1).await?;
        let addr = etcd.addrs()[0];
        call(addr, "put", r#"{"key":"a2V5","value":"dmFsdWU="}"#).await?;
        etcd.restart().await?;
        let found = call(addr, "range", r#"{"key":"a2V5"}"#).await?;
        assert_eq!(found["kvs"][0]["value"], "dmFsdWU=");
        Ok(())
    }

    #[tokio::test]
    async fn three_members_survive_one_and_not_two() -> anyhow::Result<()> {
        let mut etcd = Etcd::start(3).await?;
        let addr = etcd.addrs()[2];
        etcd.member(0).kill()?;
        await_ok("a write with two of three", BOUND, || {
            call(addr, "put", r#"{"key":"YQ==","value":"MQ=="}"#)
        })
        .await?;
        etcd.member(1).freeze()?;
        let short = Duration::from_secs(2);
        let alone = await_ok("a write by one of three", short, || {
            call(addr, "put", r#"{"key":"YQ=="}"#)
        })
        .await;
        assert!(
            alone.is_err(),
            "one of three members must not accept a write"
        );
        etcd.member(1).thaw()?;
        etcd.member(0).restart()?;
        etcd.await_healthy(BOUND).await
    }
}
