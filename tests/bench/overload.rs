//! More than can be served: goodput and the price of a refusal while the back end is held to a fixed rate.
//!
//! Open loop: calls are due by the clock, whatever becomes of earlier ones, and latency counts from when a call was
//! due. The generator is pinned to the last core, so that it can slow the product only there; how late it was itself is
//! reported beside it.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use proto::booking::BookRequest;
use proto::booking::booking_service_client::BookingServiceClient;
use system_tests::town::{Caller, Options, Town};
use tokio::sync::Semaphore;
use tonic::{Code, Request};
use uuid::Uuid;

use crate::load::{CONNECTIONS, IN_FLIGHT, closed_loop};

/// What the inventory is held to.
const HELD_TO: usize = 1_000;
/// What a device gives one call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Calls that may be open at once; more means that the generator, not the product, is at its end.
const OPEN_MAX: usize = 60_000;
/// Calls due together: a timer is no finer.
const TICK: Duration = Duration::from_millis(2);

/// Phases: how many times the held rate is offered, and for how long.
const PHASES: [(&str, usize, u64); 5] = [
    ("1x", 1, 10),
    ("10x", 10, 20),
    ("1x after 10x", 1, 20),
    ("33x", 33, 20),
    ("1x after 33x", 1, 20),
];

/// How a phase went.
#[derive(Debug)]
pub(crate) struct Phase {
    name: &'static str,
    seconds: usize,
    offered: f64,
    /// Bookings in each second.
    goodput: Vec<u64>,
    refused: u64,
    failed: u64,
    late_p99: Duration,
    refusal_p99: Duration,
    booking_p99: Duration,
}

#[derive(Default)]
struct Heard {
    goodput: Vec<u64>,
    refused: u64,
    failed: u64,
    late: Option<Histogram<u64>>,
    refusals: Option<Histogram<u64>>,
    bookings: Option<Histogram<u64>>,
    back: Vec<String>,
}

/// Runs all phases against a town whose inventory is held back.
pub(crate) async fn run(folder: &Path) -> anyhow::Result<Vec<Phase>> {
    let options = Options {
        shards: 2,
        clinics: 100,
        places: 100_000,
        people: 0,
        gateways: 1,
        trusting_gateways: 0,
        inventories: 1,
        identities: 1,
        bookings_per_second_max: HELD_TO as u64,
    };
    let mut town = Town::closed(folder, options).await?;
    let callers: Vec<Caller> = (0..CONNECTIONS)
        .map(|_| Caller::of(&town.cluster.gateways[0].addr))
        .collect::<anyhow::Result<_>>()?;
    let seconds: u64 = PHASES.iter().map(|(_, _, seconds)| seconds).sum();
    // Who is refused comes back with the same permit; who books does not.
    let people = HELD_TO * usize::try_from(seconds)? * 2 + OPEN_MAX;
    let requests = town.permit_requests(0..people)?;
    let asked = callers.clone();
    let (_, permits) = closed_loop(IN_FLIGHT, people, move |number| {
        let (caller, request) = (
            asked[number % asked.len()].clone(),
            requests[number].clone(),
        );
        async move { caller.permit(request).await }
    })
    .await?;
    town.permits = permits;
    town.open_doors().await?;
    pin()?;
    let slots = Arc::new(town.slots.concat());
    let mut phases = Vec::new();
    for (name, times, seconds) in PHASES {
        let phase = offer(&mut town, &callers, &slots, name, HELD_TO * times, seconds).await?;
        phases.push(phase);
    }
    Ok(phases)
}

/// Puts every thread of this process, and none of those that it started, on the last core.
fn pin() -> anyhow::Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let pinned = std::process::Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid"])
        .args([last.to_string(), std::process::id().to_string()])
        .stdout(std::process::Stdio::null())
        .status()
        .context("taskset")?;
    anyhow::ensure!(pinned.success(), "the generator is not pinned: {pinned}");
    Ok(())
}

async fn offer(
    town: &mut Town,
    callers: &[Caller],
    slots: &Arc<Vec<String>>,
    name: &'static str,
    per_second: usize,
    seconds: u64,
) -> anyhow::Result<Phase> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let open = Arc::new(Semaphore::new(OPEN_MAX));
    let calls = per_second * usize::try_from(seconds)?;
    let began = Instant::now();
    let mut made = 0;
    let mut tick = tokio::time::interval(TICK);
    while made < calls {
        tick.tick().await;
        let due_now = (began.elapsed().as_secs_f64() * per_second as f64) as usize;
        while made < due_now.min(calls) {
            let due = began + Duration::from_secs_f64(made as f64 / per_second as f64);
            let number = made;
            made += 1;
            let Ok(place) = Arc::clone(&open).try_acquire_owned() else {
                note(&heard).failed += 1;
                continue;
            };
            let Some(permit) = town.permits.pop().or_else(|| note(&heard).back.pop()) else {
                anyhow::bail!("permits are used up");
            };
            let caller = callers[number % callers.len()].clone();
            let (slots, heard) = (Arc::clone(slots), Arc::clone(&heard));
            tokio::task::spawn(async move {
                let _place = place;
                call(
                    &caller,
                    permit,
                    slots[number % slots.len()].clone(),
                    began,
                    due,
                    &heard,
                )
                .await;
            });
        }
    }
    // Until every call has its answer: they belong to this phase.
    let all = u32::try_from(OPEN_MAX)?;
    drop(open.acquire_many(all).await?);
    let mut heard = std::mem::take(&mut *note(&heard));
    town.permits.append(&mut heard.back);
    let p99 = |histogram: &Option<Histogram<u64>>| {
        let micros = histogram
            .as_ref()
            .map_or(0, |all| all.value_at_quantile(0.99));
        Duration::from_micros(micros)
    };
    heard.goodput.resize(usize::try_from(seconds)?, 0);
    Ok(Phase {
        name,
        seconds: usize::try_from(seconds)?,
        offered: made as f64 / seconds as f64,
        refused: heard.refused,
        failed: heard.failed,
        late_p99: p99(&heard.late),
        refusal_p99: p99(&heard.refusals),
        booking_p99: p99(&heard.bookings),
        goodput: heard.goodput,
    })
}

fn note(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn call(
    caller: &Caller,
    permit: String,
    slot: String,
    began: Instant,
    due: Instant,
    heard: &Mutex<Heard>,
) {
    let mut request = Request::new(BookRequest {
        permit: permit.clone(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: 0,
        slots: vec![slot],
    });
    request.set_timeout(DEADLINE);
    let late = due.elapsed();
    let answer = BookingServiceClient::new(caller.service())
        .book(request)
        .await;
    let took = due.elapsed();
    let mut heard = note(heard);
    record(&mut heard.late, late);
    match answer {
        Ok(_) => {
            let second = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX);
            if heard.goodput.len() <= second {
                heard.goodput.resize(second + 1, 0);
            }
            heard.goodput[second] += 1;
            record(&mut heard.bookings, took);
        }
        Err(status) if status.code() == Code::Unavailable => {
            heard.refused += 1;
            record(&mut heard.refusals, took);
            heard.back.push(permit);
        }
        // Its outcome is not known: the permit is not used again.
        Err(_) => heard.failed += 1,
    }
}

fn record(histogram: &mut Option<Histogram<u64>>, took: Duration) {
    let histogram = histogram.get_or_insert_with(|| {
        Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds and precision are in range")
    });
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

// === impl Phase ===

impl Phase {
    /// Bookings a second, without the first second, in which the phase before ends, and the answers after the last.
    fn goodput(&self) -> f64 {
        let inner = &self.goodput[1..self.seconds];
        inner.iter().sum::<u64>() as f64 / inner.len() as f64
    }

    /// Seconds until no second books less than 97 % of `peak`: single seconds scatter more than 1 %.
    fn recovered(&self, peak: f64) -> usize {
        let last_low = self
            .goodput
            .iter()
            .rposition(|one| (*one as f64) < 0.97 * peak);
        last_low.map_or(0, |at| at + 1)
    }
}

/// All phases as a table.
pub(crate) fn table(phases: &[Phase]) -> String {
    use std::fmt::Write as _;
    let mut out = format!(
        "back end held to {HELD_TO} bookings/s\n{:<14}{:>11}{:>11}{:>9}{:>10}{:>8}{:>14}{:>14}{:>12}{:>11}\n",
        "offered",
        "offered/s",
        "goodput/s",
        "of peak",
        "refused",
        "failed",
        "refusal p99",
        "booking p99",
        "late p99",
        "even after"
    );
    let peak = phases.iter().map(Phase::goodput).fold(1.0, f64::max);
    let ms = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1_000.0);
    for phase in phases {
        let goodput = phase.goodput();
        let _ = writeln!(
            out,
            "{:<14}{:>11.0}{:>11.0}{:>8.1}%{:>10}{:>8}{:>14}{:>14}{:>12}{:>11}",
            phase.name,
            phase.offered,
            goodput,
            100.0 * goodput / peak,
            phase.refused,
            phase.failed,
            ms(phase.refusal_p99),
            ms(phase.booking_p99),
            ms(phase.late_p99),
            format!("{} s", phase.recovered(peak.min(HELD_TO as f64))),
        );
    }
    out
}
