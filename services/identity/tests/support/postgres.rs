//! A PostgreSQL server of a test's own, in a folder that goes with it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

const FOLDERS: [&str; 4] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/18/bin",
];

/// A running server; stopped when dropped.
pub(crate) struct Postgres {
    // Before the folder: the server must be dead when its data goes.
    server: Child,
    port: u16,
    fsync: bool,
    folder: TempDir,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a data folder and starts a server on it.
    pub(crate) fn start(fsync: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("doseline-people-")
            .tempdir()
            .expect("a folder for the database");
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(folder.path()));
        }
        run(server_command("initdb")
            .args(["--username=doseline", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(folder.path().join("data")));
        let port = free_port();
        let server = launch(folder.path(), port, fsync);
        let mut postgres = Self {
            server,
            port,
            fsync,
            folder,
            databases: AtomicU32::new(0),
        };
        postgres.await_ready();
        postgres
    }

    /// Makes an empty database and answers its URL.
    pub(crate) fn create_database(&self) -> String {
        let name = format!("people_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        run(Command::new(program("createdb"))
            .args(["-h", "127.0.0.1", "-U", "doseline", "-p"])
            .arg(self.port.to_string())
            .arg(&name));
        format!("postgres://doseline@127.0.0.1:{}/{name}", self.port)
    }

    /// Ends the server at once, with all its sessions, as a crash does.
    pub(crate) fn crash(&mut self) {
        let quit = Command::new("kill")
            .args(["-QUIT", &self.server.id().to_string()])
            .status();
        if !quit.is_ok_and(|status| status.success()) {
            // The server is gone already or cannot be signalled: nothing else to try.
            drop(self.server.kill());
        }
        drop(self.server.wait());
    }

    /// Starts a crashed server again, on the same port and data.
    pub(crate) fn resume(&mut self) {
        self.server = launch(self.folder.path(), self.port, self.fsync);
        self.await_ready();
    }

    fn await_ready(&mut self) {
        for _ in 0..600 {
            let status = Command::new(program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-d", "postgres", "-p"])
                .arg(self.port.to_string())
                .status()
                .expect("pg_isready runs");
            if status.success() {
                return;
            }
            let ended = self
                .server
                .try_wait()
                .expect("the server can be waited for");
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL ended: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL did not answer");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

fn launch(folder: &Path, port: u16, fsync: bool) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log file");
    server_command("postgres")
        .arg("-D")
        .arg(folder.join("data"))
        .args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "max_connections=100",
        ])
        .args(["-c", &format!("port={port}")])
        .args(["-c", &format!("fsync={}", if fsync { "on" } else { "off" })])
        .args([
            "-c",
            &format!("unix_socket_directories={}", folder.display()),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("PostgreSQL starts")
}

/// The server refuses to run as root.
fn server_command(name: &str) -> Command {
    if !is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(program(name))
        .current_dir("/");
    command
}

fn is_root() -> bool {
    let me = Command::new("id").arg("-u").output().expect("id runs");
    me.stdout.trim_ascii() == b"0"
}

fn program(name: &str) -> PathBuf {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
