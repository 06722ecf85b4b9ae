//! Serve and rush in one go: the first thing a newcomer sees.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::client::{Tls, done};
use crate::population::Population;
use crate::rush;

/// `doseline demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory: new, empty, or left by an earlier demo.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// The part of the country's people of 50 to 59 who take part.
    #[arg(long, default_value_t = 0.01)]
    scale: f64,
    /// People let in per second, in all regions together; 0 = everybody at once.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Where the report goes.
    #[arg(long, default_value = "report")]
    report: PathBuf,
}

fn now() -> Instant {
    runtime::Clock::system().monotonic()
}

/// Says that a folder holds nothing but an earlier demo.
const MARK: &str = "demo";

/// Removes what an earlier demo left; anything else is not ours to remove.
fn clear(data: &Path) -> anyhow::Result<()> {
    if !data.exists() {
        return Ok(());
    }
    let empty = std::fs::read_dir(data)?.next().is_none();
    let place = data.display();
    anyhow::ensure!(
        empty || data.join(MARK).exists(),
        "{place} holds data that no demo made; name another folder with --data"
    );
    if let Ok(held) = std::fs::File::open(data.join("in-use")) {
        held.try_lock()
            .with_context(|| format!("{place} is in use by another process"))?;
    }
    std::fs::remove_dir_all(data).with_context(|| format!("{place} is in the way"))
}

/// How long serving may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Starts `serve` as a process of its own, rushes at it, judges, and stops it.
pub(crate) fn main(args: Args) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(error) => done(Err(error)),
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        data,
        scale,
        rate,
        report,
    } = args;
    let regions = Population::load(scale, &[])?.regions();
    clear(&data)?;
    std::fs::create_dir_all(&data)?;
    std::fs::write(
        data.join(MARK),
        "made by doseline demo, which may remove it\n",
    )?;
    let log = std::fs::File::create(data.join("serve.log"))?;
    let serve = Command::new(std::env::current_exe()?)
        .args(["serve", "--dev", "--data"])
        .arg(&data)
        .args(["--regions", &regions.join(",")])
        .args(["--set", "process.admin.listen=\"127.0.0.1:7702\""])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut serve = Serving(serve);
    serve.wait_until_ready("127.0.0.1:7702")?;
    let ledgers = regions.iter().map(|region| {
        format!(
            "{region}=sqlite:{}",
            data.join("ledger")
                .join(format!("{region}.sqlite"))
                .display()
        )
    });
    let rush = rush::Args {
        gateways: vec!["127.0.0.1:7700".to_owned()],
        tls: Tls {
            caller: "demo-app".to_owned(),
            ..Tls::default()
        },
        identity_admin: "127.0.0.1:7701".to_owned(),
        inventory_admin: "127.0.0.1:7701".to_owned(),
        scale,
        supply: 0.7,
        rate,
        absent: 0.0,
        leave_secs: 20,
        regions: Vec::new(),
        campaign: "demo-fifties".to_owned(),
        in_flight: 1_024,
        seed: 20_210_719,
        give_up_secs: 600,
        ledgers: ledgers.collect(),
        people: Some(format!("sqlite:{}", data.join("people.sqlite").display())),
        report,
        data,
    };
    Ok(rush::main(rush))
}

/// The serving process; stopped in order when the rush is over, whatever came of it.
struct Serving(std::process::Child);

impl Serving {
    fn wait_until_ready(&mut self, admin: &str) -> anyhow::Result<()> {
        let begun = now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                anyhow::bail!("serving ended with {status}; see serve.log in the data directory");
            }
            if ready(admin).unwrap_or(false) {
                return Ok(());
            }
            anyhow::ensure!(
                begun.elapsed() < READY_WITHIN,
                "not ready; see serve.log in the data directory"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Asks `/readyz` on the admin port.
fn ready(admin: &str) -> anyhow::Result<bool> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: doseline\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

impl Drop for Serving {
    fn drop(&mut self) {
        // SIGTERM, so that it drains; killed if it does not.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let begun = now();
        while begun.elapsed() < Duration::from_secs(10) {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
