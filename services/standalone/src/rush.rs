//! Replays an opening against running gateways: real people by district, permits before the doors, then all at once.
//!
//! Invariant: the verdict comes from the ledgers, read by code that shares nothing with the services.

mod acks;
mod driver;
mod fairness;
mod habits;
mod history;
mod manners;
mod permits;
mod person;
pub(crate) mod plan;
pub(crate) mod report;
mod setup;
mod stats;
mod verdict;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::client::Tls;
use crate::population::Population;

/// `doseline rush`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Gateways, HOST:PORT; people spread over them.
    #[arg(
        long = "gateway",
        value_delimiter = ',',
        default_value = "127.0.0.1:7700"
    )]
    pub gateways: Vec<String>,
    #[command(flatten)]
    pub tls: Tls,
    /// Identity's admin port, for the campaign and the room.
    #[arg(long, default_value = "127.0.0.1:7701")]
    pub identity_admin: String,
    /// An inventory's admin port, for clinics and slots.
    #[arg(long, default_value = "127.0.0.1:7701")]
    pub inventory_admin: String,
    /// The data directory with the development identity provider.
    #[arg(long, default_value = "data")]
    pub data: PathBuf,
    /// The part of the country's people of 50 to 59 who take part.
    #[arg(long, default_value_t = 0.01)]
    pub scale: f64,
    /// Places for every person who wants one.
    #[arg(long, default_value_t = 0.7)]
    pub supply: f64,
    /// Only these regions.
    #[arg(long, value_delimiter = ',')]
    pub regions: Vec<String>,
    /// The campaign's id; a new one each time keeps rushes apart.
    #[arg(long, default_value = "demo-fifties")]
    pub campaign: String,
    /// People whose calls are under way at once.
    #[arg(long, default_value_t = 1_024)]
    pub in_flight: usize,
    /// Behaviour follows from it.
    #[arg(long, default_value_t = 20_210_719)]
    pub seed: u64,
    /// People let in per second, in all regions together; 0 = everybody at once.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// The part of people with a permit who never come.
    #[arg(long, default_value_t = 0.0)]
    pub absent: f64,
    /// Seconds until those who leave come back.
    #[arg(long, default_value_t = 20)]
    pub leave_secs: u64,
    /// Seconds after the opening at which those still trying give up.
    #[arg(long, default_value_t = 600)]
    pub give_up_secs: u64,
    /// Ledgers to judge from, `REGION=postgres://…` or `REGION=sqlite:FILE`; read only.
    #[arg(long = "ledger")]
    pub ledgers: Vec<String>,
    /// The database of people and places, `postgres://…` or `sqlite:FILE`; read only.
    #[arg(long)]
    pub people: Option<String>,
    /// Where the report goes.
    #[arg(long, default_value = "report")]
    pub report: PathBuf,
}

/// Runs the rush; the exit status says the verdict.
pub(crate) fn main(args: Args) -> ExitCode {
    // Fails only if a provider is installed already, and there is but one in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return crate::client::done(Err(error.into())),
    };
    match runtime.block_on(run(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => crate::client::done(Err(error)),
    }
}

/// What every part of a rush knows.
pub(crate) struct Rush {
    /// The command line.
    pub args: Args,
    /// The people.
    pub population: Population,
    /// Channels to the gateways.
    pub channels: Vec<crate::client::Called>,
    /// The regions, in the order of the statistics.
    pub regions: Vec<String>,
}

/// Runs the rush; `true` when everything held.
pub(crate) async fn run(args: Args) -> anyhow::Result<bool> {
    let population = Population::load(args.scale, &args.regions)?;
    let mut channels = Vec::new();
    for gateway in &args.gateways {
        // Several connections to each: one connection is one lock.
        for _ in 0..4 {
            let caller = args.tls.interceptor()?;
            let channel = args.tls.channel(gateway)?;
            channels.push(tonic::service::interceptor::InterceptedService::new(
                channel, caller,
            ));
        }
    }
    let regions = population.regions();
    let rush = Arc::new(Rush {
        args,
        population,
        channels,
        regions,
    });
    say(&format!(
        "{} people of 50 to 59 in {} districts of {} regions",
        group(rush.population.people()),
        rush.population.districts.len(),
        rush.regions.len()
    ))?;
    let plan = setup::apply(&rush).await?;
    setup::wait_for_slots(&rush, &plan).await?;
    let (store, issuing) = permits::issue(&rush).await?;
    let store = Arc::new(store);
    let outcome = if rush.args.rate == 0 {
        let opened = setup::open_room(&rush).await?;
        say(&format!("doors open for {} people", group(opened)))?;
        driver::run(Arc::clone(&rush), Arc::clone(&store), now(), Duration::ZERO).await?
    } else {
        let doors = setup::draw(&rush).await?;
        say("the order is drawn; everybody asks for their place before the opening")?;
        let asks = setup::asks_over(&rush);
        let people = driver::run(Arc::clone(&rush), Arc::clone(&store), doors, asks);
        tokio::try_join!(people, setup::open_doors(&rush, doors))?.0
    };
    say(&outcome.summary(&issuing))?;
    // Owners answer after the commit; nothing is on its way any more.
    let history = history::read(&rush)
        .await
        .context("the room's history could not be read")?;
    let verdict = verdict::judge(&rush, &outcome, &history)
        .await
        .context("the ledgers could not be judged")?;
    say(&line(&rush, &outcome, &history))?;
    let fairness =
        fairness::judge(&rush, &store, &history).context("turns could not be compared")?;
    say(&fairness.told())?;
    report::write(&rush, &issuing, &outcome, (&verdict, &fairness))?;
    say(&verdict.told())?;
    say(&format!(
        "report: {}",
        rush.args.report.join("rush.html").display()
    ))?;
    Ok(verdict.holds())
}

/// How the line moved and how people came, against what was set.
fn line(rush: &Rush, outcome: &driver::Outcome, history: &history::History) -> String {
    let moved = history.moved();
    if moved.windows == 0 {
        return "line: none of ten seconds to compare with its set speed".to_owned();
    }
    let mut text = format!(
        "line, from the room's history: frontiers moved within {:.2} % of their set speed over any 10 s ({} windows)",
        100.0 * moved.worst,
        moved.windows
    );
    if let (Some((worst, windows)), true) = (came(rush, outcome, history), rush.args.rate > 0) {
        text.push_str(&format!(
            "; people came within {:.1} % of {}/s over any 10 s ({windows} windows)",
            100.0 * worst,
            rush.args.rate
        ));
    }
    text
}

/// The largest difference from the set rate over ten seconds, while every region has people and places; not the first
/// seconds, in which people only hear that it is their turn.
fn came(
    rush: &Rush,
    outcome: &driver::Outcome,
    history: &history::History,
) -> Option<(f64, usize)> {
    const SETTLED: usize = 15;
    const WINDOW: usize = 10;
    let steps = 4;
    let (from, to) = history.steady()?;
    let seconds: Vec<u64> = outcome
        .stats
        .arrivals
        .line
        .chunks(steps)
        .map(|second| second.iter().sum())
        .collect();
    let until = usize::try_from((to - from) / 1_000_000).ok()?;
    let steady = seconds.get(SETTLED..until.min(seconds.len()))?;
    let set = (rush.args.rate * WINDOW as u64) as f64;
    let parts = steady
        .windows(WINDOW)
        .map(|window| (window.iter().sum::<u64>() as f64 / set - 1.0).abs());
    let worst = parts.max_by(f64::total_cmp)?;
    Some((worst, steady.len() + 1 - WINDOW))
}

/// The instant that latencies are counted by.
fn now() -> std::time::Instant {
    runtime::Clock::system().monotonic()
}

/// A bar for `total` steps; silent where nobody looks at a terminal.
fn bar(total: u64, what: &'static str) -> anyhow::Result<indicatif::ProgressBar> {
    let bar = indicatif::ProgressBar::new(total);
    let style = indicatif::ProgressStyle::with_template(
        "{prefix:>10} [{bar:36}] {human_pos}/{human_len} {per_sec} {msg}",
    )?;
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// A number with its thousands apart.
#[must_use]
pub(crate) fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
