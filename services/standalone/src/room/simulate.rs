//! An opening in virtual time: millions wait, and the code that decides is the code that serves.
//!
//! Place, frontier, waiting time, admission and steering are called, not rebuilt. People and their habits, and a back
//! end with a capacity, are made up here.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use runtime::Clock;

mod calendar;
mod crowd;
mod fairness;
mod figures;
mod kdca;
mod plot;
mod report;
mod world;

use crowd::Habits;
use world::{Scene, World};

/// What to simulate.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// People with a permit before the freeze.
    #[arg(long, default_value_t = 10_000_000)]
    people: u32,
    /// People who come later, in the first hour.
    #[arg(long, default_value_t = 500_000)]
    late: u32,
    /// How many hours after the opening to follow.
    #[arg(long, default_value_t = 2.0)]
    hours: f64,
    /// People to admit per second, all regions together; without it everybody present is through at the end.
    #[arg(long)]
    rate: Option<f64>,
    /// Let the back end's figures decide the rate, from a tenth of it up to --rate.
    #[arg(long)]
    adaptive: bool,
    /// People per second the back end can serve, all regions together; without it, a quarter more than the rate.
    #[arg(long)]
    capacity: Option<f64>,
    /// Units to give out, all regions together; without it, one for everybody.
    #[arg(long)]
    supply: Option<u64>,
    /// The share of people who come when it is their turn.
    #[arg(long, default_value_t = 0.9)]
    presence: f64,
    /// The share of people who wait with ten devices.
    #[arg(long, default_value_t = 0.01)]
    ten_devices: f64,
    /// The share of people who reload every second.
    #[arg(long, default_value_t = 0.000_5)]
    reloaders: f64,
    /// The share of people who leave and come back an hour later.
    #[arg(long, default_value_t = 0.02)]
    returners: f64,
    /// Polls per second the gateways shall see while nothing moves.
    #[arg(long, default_value_t = 50_000)]
    polls_per_second: u64,
    /// Smaller openings in which the groups are compared.
    #[arg(long, default_value_t = 40)]
    trials: u32,
    /// Leave out the comparison with July 2021.
    #[arg(long)]
    no_comparison: bool,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for simulation.html and simulation.csv.
    #[arg(long, default_value = "report")]
    out: PathBuf,
}

/// How long something took, by a real clock.
struct Took {
    main_secs: f64,
    events: u64,
}

/// Runs the simulation and writes its report.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let scene = scene(args)?;
    let clock = Clock::system();
    let began = clock.monotonic();
    let main = World::new(&scene).run();
    let took = Took {
        main_secs: secs_since(&clock, began),
        events: main.events,
    };
    let fairness = fairness::measure(args.trials, args.seed);
    let comparison = if args.no_comparison {
        Vec::new()
    } else {
        kdca::compare(args.seed)
    };
    std::fs::create_dir_all(&args.out)?;
    let page = report::page(&scene, &main, &took, &fairness, &comparison)?;
    let html = args.out.join("simulation.html");
    std::fs::write(&html, page).with_context(|| format!("{}", html.display()))?;
    let csv = args.out.join("simulation.csv");
    std::fs::write(&csv, report::csv(&main)).with_context(|| format!("{}", csv.display()))?;
    crate::client::print(&report::json(&scene, &main, &took, &fairness, &comparison))
}

fn secs_since(clock: &Clock, began: Instant) -> f64 {
    clock
        .monotonic()
        .saturating_duration_since(began)
        .as_secs_f64()
}

fn scene(args: &Args) -> anyhow::Result<Scene> {
    let share = |name: &str, value: f64| {
        anyhow::ensure!((0.0..=1.0).contains(&value), "--{name} must be 0 to 1");
        Ok(value)
    };
    anyhow::ensure!(args.people > 0, "--people must be above 0");
    anyhow::ensure!(
        args.hours > 0.0 && args.hours <= 48.0,
        "--hours must be above 0 and at most 48"
    );
    let everybody = f64::from(args.people) + f64::from(args.late);
    let presence = share("presence", args.presence)?.max(0.02);
    let rate = args
        .rate
        .unwrap_or(everybody * presence / (args.hours * 3_600.0) * 1.02);
    anyhow::ensure!(rate > 0.0 && rate.is_finite(), "--rate must be above 0");
    let population = crate::population::Population::load(1.0, &[])?;
    let habits = Habits {
        presence,
        ten_devices: share("ten-devices", args.ten_devices)?,
        reloaders: share("reloaders", args.reloaders)?,
        returners: share("returners", args.returners)?,
        devices: 1.0,
    };
    Ok(Scene {
        people: args.people,
        late: args.late,
        open_for_secs: (args.hours * 3_600.0) as u64,
        rate,
        adaptive: args.adaptive,
        capacity: args.capacity.unwrap_or(rate * 1.25),
        supply: args.supply.unwrap_or(everybody as u64 + 1),
        habits,
        regions: crowd::shares(&population),
        polls_per_second: args.polls_per_second.max(1),
        seed: args.seed,
    })
}

#[cfg(test)]
mod tests;
