//! `./dev bench`: the product beside floors that do nothing but what the transport or the database must do anyway.
//!
//! Floors and product run in one go on one machine, in turns, each as processes of their own under the same load
//! generator with the same connections, messages and calls in flight. What counts are the ratios.

mod floors;
mod load;
mod overload;
mod reads;
mod rounds;
mod sql;
mod table;
mod waiters;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use system_tests::town::{Options, Town};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `./dev bench` is asked for.
struct Ask {
    rounds: usize,
    kills: usize,
    calls: usize,
    out: std::path::PathBuf,
}

const USAGE: &str = "usage: ./dev bench [--rounds N] [--kills N] [--calls N] [--out FOLDER]
       ./dev bench --overload    goodput at 10 and 33 times what the back end is held to
       ./dev bench --waiters [N] memory of gateways with 10,000 and N people waiting (1000000), and no place lost

  --rounds N     rounds, each with every series once; medians are of these (3)
  --kills N      owners killed with -9 (100)
  --calls N      bookings in a series (30000)
  --out FOLDER   where bench.json goes (report)";

/// A kill after which nothing books for so long is a failure of the bench.
const KILL_BOUND: Duration = Duration::from_secs(20);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match args.first().map(String::as_str) {
        Some("--floor") => runtime.block_on(floors::serve(&args[1..])),
        Some("--overload") => runtime.block_on(overload()),
        Some("--waiters") => runtime.block_on(waiting(&args[1..])),
        Some("--help" | "-h") => say(USAGE),
        _ => runtime.block_on(run(ask(&args)?)),
    }
}

fn ask(args: &[String]) -> anyhow::Result<Ask> {
    let mut ask = Ask {
        rounds: 3,
        kills: 100,
        calls: 30_000,
        out: "report".into(),
    };
    for pair in args.chunks(2) {
        let [name, value] = pair else {
            anyhow::bail!("{} needs a value\n{USAGE}", pair[0]);
        };
        let number = || {
            value
                .parse::<usize>()
                .with_context(|| format!("{name} {value}"))
        };
        match name.as_str() {
            "--rounds" => ask.rounds = number()?.max(1),
            "--kills" => ask.kills = number()?,
            "--calls" => ask.calls = number()?.max(1_000),
            "--out" => ask.out = value.into(),
            _ => anyhow::bail!("unknown: {name}\n{USAGE}"),
        }
    }
    Ok(ask)
}

async fn run(ask: Ask) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    say(
        "starting etcd, PostgreSQL with fsync, an identity, an inventory, a gateway, and the floors",
    )?;
    let mut bench = rounds::Bench::start(folder.path(), &ask).await?;
    for round in 0..ask.rounds {
        say(&format!("round {} of {}", round + 1, ask.rounds))?;
        bench.round(round).await?;
    }
    let mut results = bench.finish();
    if ask.kills > 0 {
        say(&format!("killing {} owners", ask.kills))?;
        results.kills = kills(ask.kills).await?;
    }
    say(&results.table())?;
    std::fs::create_dir_all(&ask.out)?;
    let file = ask.out.join("bench.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&results.json())?)?;
    say(&format!("figures: {}", file.display()))
}

async fn overload() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    say("an inventory held to a fixed rate, and more offered than it takes")?;
    let phases = overload::run(folder.path()).await?;
    say(&overload::table(&phases))
}

async fn waiting(args: &[String]) -> anyhow::Result<()> {
    let most = args.first().map_or(Ok(1_000_000), |most| most.parse())?;
    let mut crowds = Vec::new();
    for people in [10_000, most] {
        say(&format!("{people} people wait at two gateways"))?;
        let folder = tempfile::tempdir()?;
        crowds.push(waiters::run(folder.path(), people).await?);
    }
    say(&waiters::table(&crowds))?;
    let lost = crowds.iter().any(waiters::Waited::lost_any);
    anyhow::ensure!(!lost, "somebody lost a place");
    Ok(())
}

/// In a cluster of its own: two gateways, three inventories.
async fn kills(count: usize) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), Options::with_people(count + 8)).await?;
    let mut took = Vec::with_capacity(count);
    for kill in 0..count {
        let shard = u32::try_from(kill)? % town.shards();
        took.push(town.kill_owner(shard, kill, KILL_BOUND).await?);
    }
    took.sort_unstable();
    Ok(took)
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
