//! Private etcd processes: free ports, data in a temporary folder, killed when the test is over.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::await_until;

pub(crate) struct Etcd {
    members: Vec<Member>,
    scheme: &'static str,
    extra: Vec<String>,
    folder: TempDir,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        Self::start_cluster(1).await
    }

    pub(crate) async fn start_cluster(size: usize) -> Self {
        let mut etcd = Self::prepare(size);
        etcd.run_all();
        etcd.await_ready().await;
        etcd
    }

    /// Ports and folder, but no process yet.
    pub(crate) fn prepare(size: usize) -> Self {
        let member = |_| Member {
            client_port: free_port(),
            peer_port: free_port(),
            process: None,
        };
        Self {
            members: (0..size).map(member).collect(),
            scheme: "http",
            extra: Vec::new(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// Serves clients over TLS with these flags.
    pub(crate) fn with_tls(mut self, flags: impl IntoIterator<Item = String>) -> Self {
        self.scheme = "https";
        self.extra.extend(flags);
        self
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.client_port))
            .collect()
    }

    pub(crate) fn run_all(&mut self) {
        for index in 0..self.members.len() {
            self.run(index);
        }
    }

    pub(crate) fn run(&mut self, index: usize) {
        let port = self.members[index].client_port;
        self.run_on(index, port);
    }

    /// Runs a member where the clients under test do not look for it.
    pub(crate) fn run_on(&mut self, index: usize, client_port: u16) {
        assert!(self.members[index].process.is_none(), "already running");
        let cluster: Vec<_> = (0..self.members.len())
            .map(|n| format!("m{n}=http://127.0.0.1:{}", self.members[n].peer_port))
            .collect();
        let client = format!("{}://127.0.0.1:{client_port}", self.scheme);
        let peer = format!("http://127.0.0.1:{}", self.members[index].peer_port);
        let child = Command::new("etcd")
            .arg(format!("--name=m{index}"))
            .arg(format!(
                "--data-dir={}",
                self.folder.path().join(format!("m{index}")).display()
            ))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .args(["--logger=zap", "--log-level=error"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian: etcd-server) and starts");
        self.members[index].process = Some(child);
    }

    /// SIGKILL: what was not on disk is gone.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].process.take() {
            child.kill().expect("our child can be killed");
            child.wait().expect("our child can be waited for");
        }
    }

    pub(crate) fn freeze(&self, index: usize) {
        self.signal(index, "STOP");
    }

    pub(crate) fn thaw(&self, index: usize) {
        self.signal(index, "CONT");
    }

    fn signal(&self, index: usize, signal: &str) {
        let child = self.members[index].process.as_ref().expect("is running");
        let status = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    pub(crate) async fn await_ready(&self) {
        let client = client(&self.endpoints()).await;
        await_until("etcd answers", async || answers(&client).await).await;
    }

    /// A bare client, for what only an operator does.
    pub(crate) async fn operator(&self) -> etcd_client::Client {
        client(&self.endpoints()).await
    }

    /// As `operator`, on a port where clients under test do not look; waits until etcd answers there.
    pub(crate) async fn operator_on(port: u16) -> etcd_client::Client {
        let client = client(&[format!("127.0.0.1:{port}")]).await;
        await_until("etcd answers", async || answers(&client).await).await;
        client
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}

async fn client(endpoints: &[String]) -> etcd_client::Client {
    let options = etcd_client::ConnectOptions::new()
        .with_timeout(Duration::from_secs(2))
        .with_connect_timeout(Duration::from_secs(2));
    etcd_client::Client::connect(endpoints, Some(options))
        .await
        .expect("connects lazily")
}

async fn answers(client: &etcd_client::Client) -> bool {
    // Linearizable, so there is a leader.
    client.kv_client().get("/ready", None).await.is_ok()
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("is bound").port()
}
