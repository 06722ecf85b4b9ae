//! Drives everybody: a heap of who is due, a bounded number of calls under way, no task per person.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::acks::{Ack, Kind};
use super::permits::Store;
use super::person::{self, Acted, Plan};
use super::stats::{Call, STEP, Stats};
use super::{Rush, bar, group};
use crate::population::spread;

/// What a rush left behind, as its clients saw it.
pub(crate) struct Outcome {
    /// Counts and latencies.
    pub stats: Stats,
    /// Everything acknowledged, in the order of each person.
    pub acks: Vec<Ack>,
    /// From the opening to the last answer.
    pub took: Duration,
    /// The seconds in which most bookings were made.
    pub peak: u64,
}

impl Outcome {
    /// What the terminal shows.
    #[must_use]
    pub(crate) fn summary(&self, issuing: &Stats) -> String {
        let booked = self
            .acks
            .iter()
            .filter(|ack| ack.kind == Kind::Booked)
            .count() as u64;
        let rate = booked as f64 / self.took.as_secs_f64().max(0.001);
        let mut text = format!(
            "{} bookings acknowledged in {:.1} s ({rate:.0}/s, at most {} in a second), {} people found nothing left, {} gave up\n",
            group(booked),
            self.took.as_secs_f64(),
            group(self.peak),
            group(self.stats.sold_out),
            group(self.stats.gave_up),
        );
        let mut all = issuing.clone();
        all.add(&self.stats);
        text.push_str(&all.table());
        text.push_str(&self.stats.arrivals.table());
        for (what, count) in &self.stats.broken {
            text.push_str(&format!("a client saw a broken promise: {what}: {count}\n"));
        }
        text
    }
}

/// Runs everybody until nobody tries any more. The doors open at `opened`; from now on people come for the first time,
/// spread over `asks`.
pub(crate) async fn run(
    rush: Arc<Rush>,
    store: Arc<Store>,
    opened: Instant,
    asks: Duration,
) -> anyhow::Result<Outcome> {
    let drivers = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, 8);
    let people = rush.population.people();
    let bar = bar(people, "people")?;
    let mut running = JoinSet::new();
    for driver in 0..drivers {
        let driver = Driver {
            rush: Arc::clone(&rush),
            store: Arc::clone(&store),
            opened,
            bar: bar.clone(),
            due: BinaryHeap::new(),
            plans: HashMap::new(),
            stats: Stats::default(),
            acks: Vec::new(),
            in_flight_max: rush.args.in_flight.div_ceil(drivers),
        }
        .with_people(driver as u64, drivers as u64, people, asks);
        running.spawn(driver.run());
    }
    let (mut stats, mut acks) = (Stats::default(), Vec::new());
    while let Some(ended) = running.join_next().await {
        let (theirs, acked) = ended??;
        stats.add(&theirs);
        acks.extend(acked);
    }
    bar.finish();
    let took = opened.elapsed();
    let steps_a_second = 4;
    let seconds = stats.line.chunks(steps_a_second);
    let peak = seconds
        .map(|second| second.iter().map(|step| step.0).sum())
        .max()
        .unwrap_or(0);
    Ok(Outcome {
        stats,
        acks,
        took,
        peak,
    })
}

struct Driver {
    rush: Arc<Rush>,
    store: Arc<Store>,
    opened: Instant,
    bar: ProgressBar,
    due: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    plans: HashMap<u64, Plan>,
    stats: Stats,
    acks: Vec<Ack>,
    in_flight_max: usize,
}

impl Driver {
    /// Who comes when is drawn.
    fn with_people(mut self, driver: u64, drivers: u64, people: u64, asks: Duration) -> Self {
        let (seed, now) = (self.rush.args.seed, super::now());
        let mine = (driver..people).step_by(usize::try_from(drivers).unwrap_or(1));
        self.due = mine
            .map(|n| {
                let drawn = spread(n ^ seed);
                let at = now + asks.mul_f64((drawn >> 32) as f64 / f64::from(u32::MAX));
                Reverse((at, drawn, n))
            })
            .collect();
        self
    }

    async fn run(mut self) -> anyhow::Result<(Stats, Vec<Ack>)> {
        let give_up = self.opened + Duration::from_secs(self.rush.args.give_up_secs);
        let mut acting = FuturesUnordered::new();
        loop {
            let now = super::now();
            while acting.len() < self.in_flight_max {
                let Some(Reverse((due, _, _))) = self.due.peek() else {
                    break;
                };
                if *due > now {
                    break;
                }
                let Some(Reverse((due, _, number))) = self.due.pop() else {
                    break;
                };
                let plan = self.plans.remove(&number).unwrap_or_default();
                let (rush, store) = (Arc::clone(&self.rush), Arc::clone(&self.store));
                acting.push(person::act(rush, store, number, due, plan));
            }
            let next = self.due.peek().map(|Reverse((due, _, _))| *due);
            if acting.is_empty() && next.is_none() {
                return Ok((self.stats, self.acks));
            }
            let room = acting.len() < self.in_flight_max;
            tokio::select! {
                Some(acted) = acting.next() => self.acted(acted?, give_up),
                () = tokio::time::sleep_until(next.unwrap_or(give_up).into()), if room && next.is_some() => {}
            }
        }
    }

    fn acted(&mut self, acted: Acted, give_up: Instant) {
        let Acted {
            number,
            plan,
            calls,
            acks,
            again,
            region,
            arrived,
            told,
            absent,
            sold_out,
            broken,
        } = acted;
        if let Some((manner, at)) = arrived {
            let since = at.saturating_duration_since(self.opened);
            self.stats.arrivals.came(manner, region, since, STEP);
        }
        self.stats.arrivals.told += u64::from(told);
        self.stats.arrivals.absent += u64::from(absent);
        if sold_out && plan.arrived {
            self.stats.arrivals.empty_handed(region);
        }
        for call in calls {
            let from_due = call.answered.saturating_duration_since(call.due);
            let from_sent = call.answered.saturating_duration_since(call.sent);
            self.stats
                .call(call.call, call.outcome, from_due, from_sent);
            if matches!(call.call, Call::Book | Call::HoldSlots) {
                let since = call.answered.saturating_duration_since(self.opened);
                self.stats.mark(since, call.outcome == "OK");
            }
        }
        for what in broken {
            self.stats.broke(what);
        }
        self.acks.extend(acks);
        match again {
            Some(at) if at < give_up => {
                self.plans.insert(number, plan);
                self.due.push(Reverse((at, 0, number)));
            }
            Some(_) => {
                self.stats.gave_up += 1;
                self.bar.inc(1);
            }
            None => {
                self.stats.sold_out += u64::from(sold_out || told);
                self.bar.inc(1);
            }
        }
    }
}
