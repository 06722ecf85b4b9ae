//! From flags to an exit code: what a thin `main` needs.
//!
//! Invariant: nothing starts before the whole configuration is known to be good, and whatever happens afterwards,
//! stopping is bounded by the drain's deadline.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Args, Layers, Loaded, Process, RawConfig};
use crate::drain::{Cause, Drain};
use crate::fields;
use crate::metrics::{AdminPort, Registry};
use crate::readiness::Readiness;
use crate::tasks::{Joined, OnExit, Tasks};
use crate::telemetry::{self, LogFilter, Telemetry};
use crate::transport::Listener;

/// Nothing failed.
pub const EXIT_FINE: u8 = 0;
/// Something around us or in us broke.
pub const EXIT_FAULT: u8 = 1;
/// The command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 64;

/// How long the last traces may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// What is left over for tasks to end when the server has used up the whole deadline.
const JOIN_AT_LEAST: Duration = Duration::from_millis(500);

/// What a running process gets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Whether the process is stopping.
    pub drain: Drain,
    /// Where tasks belong.
    pub tasks: Tasks,
    /// Whether work may come; register every component before releasing the first latch.
    pub readiness: Readiness,
    /// Where metrics are registered.
    pub registry: Registry,
    /// The clocks.
    pub clock: Clock,
    /// Changes what is logged.
    pub log_filter: LogFilter,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered.
    pub admin: std::net::SocketAddr,
}

/// A configuration that carries the settings of the process it runs in.
pub trait HasProcess {
    /// The settings of the process.
    fn process(&self) -> &Process;
}

/// Why a process could not start or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The async runtime did not start.
    #[error("the async runtime cannot start")]
    Runtime(#[source] std::io::Error),
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    /// Logs and traces.
    #[error("telemetry cannot start")]
    Telemetry(#[source] telemetry::Fault),
    /// The admin port.
    #[error("the admin port cannot be opened")]
    Admin(#[source] crate::transport::Fault),
    /// A task ended that the process cannot do without.
    #[error("the task {0} ended")]
    TaskEnded(&'static str),
}

/// Runs a role: flags → configuration → telemetry → signals → `run` → drain → flush → exit code.
///
/// `run` returns when its work is done or the drain was obeyed; it binds, connects, claims, releases its latches,
/// and on the way out finishes what is in flight and resigns its leases, in that order.
///
/// ```no_run
/// # mod inventory {
/// #     use runtime::{boot::HasProcess, config::{Process, Problems, RawConfig, RawProcess}};
/// #     #[derive(Default, serde::Serialize, serde::Deserialize)]
/// #     #[serde(default, deny_unknown_fields)]
/// #     pub struct Raw { process: RawProcess }
/// #     pub struct Config { process: Process }
/// #     impl RawConfig for Raw {
/// #         type Config = Config;
/// #         fn validate(self, problems: &mut Problems) -> Option<Config> {
/// #             Some(Config { process: problems.section("process", |p| self.process.validate(p))? })
/// #         }
/// #     }
/// #     impl HasProcess for Config { fn process(&self) -> &Process { &self.process } }
/// #     pub async fn run(_: Config, _: runtime::Boot) -> anyhow::Result<()> { Ok(()) }
/// # }
/// fn main() -> std::process::ExitCode {
///     let args = runtime::config::Args::default();
///     runtime::boot::<inventory::Raw, _, _>("inventory", &args, inventory::run)
/// }
/// ```
pub fn boot<R, F, Fut>(role: &'static str, args: &Args, run: F) -> ExitCode
where
    R: RawConfig,
    R::Config: HasProcess,
    F: FnOnce(R::Config, Boot) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let loaded = match Layers::from_args(args).load::<R>() {
        Ok(loaded) => loaded,
        Err(invalid) => return usage(&invalid),
    };
    if args.print_config {
        return say(&loaded.printed);
    }
    if args.check_config {
        return say("the configuration is fine\n");
    }
    run_loaded(role, loaded, run)
}

/// Says what is wrong with the command line or the configuration, for roles that load their own.
pub fn usage(problem: &dyn std::error::Error) -> ExitCode {
    // Telemetry does not exist yet; if even this fails, the exit code still says it.
    let _ = writeln!(std::io::stderr(), "{problem}");
    ExitCode::from(EXIT_USAGE)
}

/// Runs a role whose configuration is loaded already.
pub fn run_loaded<R, F, Fut>(role: &'static str, loaded: Loaded<R>, run: F) -> ExitCode
where
    R: RawConfig,
    R::Config: HasProcess,
    F: FnOnce(R::Config, Boot) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let process = loaded.config.process().clone();
    // Fails only if a provider is installed already, and there is but one in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name(role);
    if let Some(threads) = process.worker_threads {
        builder.worker_threads(threads);
    }
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => return fault(&Fault::Runtime(error)),
    };
    let telemetry = {
        let _inside = runtime.enter();
        match telemetry::init(role, &process.telemetry) {
            Ok(telemetry) => telemetry,
            Err(error) => return fault(&Fault::Telemetry(error)),
        }
    };
    let ended = runtime.block_on(supervise(role, &process, &telemetry, loaded.config, run));
    let code = match &ended {
        Ok(()) => EXIT_FINE,
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the process ends with a fault"
            );
            EXIT_FAULT
        }
    };
    if let Err(error) = telemetry.flush(FLUSH_WITHIN) {
        tracing::warn!(error = fields::chain(&error), "telemetry was not flushed");
    }
    // Threads and blocking calls that never end must not keep the process.
    runtime.shutdown_timeout(JOIN_AT_LEAST);
    ExitCode::from(code)
}

async fn supervise<C, F, Fut>(
    role: &'static str,
    process: &Process,
    telemetry: &Telemetry,
    config: C,
    run: F,
) -> anyhow::Result<()>
where
    F: FnOnce(C, Boot) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let readiness = Readiness::new();
    let drain = Drain::new(process.drain, readiness.clone());
    let tasks = Tasks::new(drain.clone());
    drain.on_signals(&tasks).map_err(Fault::Signals)?;
    let registry = Registry::new();
    let listener = Listener::bind(process.admin.listen)
        .await
        .map_err(Fault::Admin)?;
    let admin = listener.local_addr();
    let port = AdminPort {
        registry: registry.clone(),
        readiness: readiness.clone(),
        log_filter: process.admin.log_filter_changes.then(|| telemetry.filter()),
    };
    // Answers until the very end, so that a drain can be watched.
    let admin_task = tasks.spawn_detached("admin_port", OnExit::StopProcess, port.serve(listener));
    tracing::info!(role, version = env!("CARGO_PKG_VERSION"), admin = %admin, "starting");

    let boot = Boot {
        drain: drain.clone(),
        tasks: tasks.clone(),
        readiness,
        registry,
        clock: Clock::system(),
        log_filter: telemetry.filter(),
        admin,
    };
    let ended = tokio::select! {
        ended = run(config, boot) => ended,
        () = overdue(&drain) => Err(anyhow::anyhow!("the drain's deadline passed with work left")),
    };
    drain.start(Cause::Requested);
    let Joined { cut } = tasks.join(drain.remaining().max(JOIN_AT_LEAST)).await;
    admin_task.abort();
    if !cut.is_empty() {
        tracing::warn!(tasks = ?cut, "tasks were cut at the drain's deadline");
    }
    ended?;
    if let Some(Cause::TaskEnded(name)) = drain.cause() {
        return Err(Fault::TaskEnded(name).into());
    }
    tracing::info!(role, "stopped");
    Ok(())
}

/// A role that does not obey the drain is given up a moment after its deadline.
async fn overdue(drain: &Drain) {
    drain.expired().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(EXIT_FINE),
        Err(_) => ExitCode::from(EXIT_FAULT),
    }
}

fn fault(error: &Fault) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{}", fields::chain(error));
    ExitCode::from(EXIT_FAULT)
}
