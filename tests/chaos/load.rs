//! A steady stream of bookings and cancellations, about a hundred calls a second, by people who never call twice.
//!
//! Invariant: a call is made once. Whatever its caller was told is counted as told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use uuid::Uuid;

use crate::town::{Caller, Town};

/// From one call to the next.
const EVERY: Duration = Duration::from_millis(10);
/// What a device gives one call.
const DEADLINE: Duration = Duration::from_secs(10);

/// What callers were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) calls: usize,
    pub(crate) slowest: Duration,
    pub(crate) errors: Vec<String>,
}

/// The stream; it ends with this value.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    answered: Arc<AtomicU64>,
    task: AbortOnDropHandle<Told>,
}

struct Person {
    permit: String,
    slot: String,
    caller: Caller,
    version: u64,
    booking: Option<String>,
}

// === impl Load ===

impl Load {
    /// Starts it with everybody the town has left, on all shards and gateways.
    pub(crate) fn start(town: &mut Town) -> Self {
        let slots: Vec<_> = town.slots.concat();
        let permits = std::mem::take(&mut town.permits).into_iter().enumerate();
        let people = permits.map(|(number, permit)| Person {
            permit,
            slot: slots[number % slots.len()].clone(),
            caller: town.callers[(number / slots.len()) % town.callers.len()].clone(),
            version: 0,
            booking: None,
        });
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicU64::new(0));
        let task = tokio::task::spawn(run(people.collect(), stopped, Arc::clone(&answered)));
        Self { stop, answered, task: AbortOnDropHandle::new(task) }
    }

    /// Calls answered well so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it and waits for the calls under way.
    pub(crate) async fn stop(self) -> anyhow::Result<Told> {
        self.stop.send_replace(true);
        Ok(self.task.await?)
    }
}

async fn run(mut people: VecDeque<Person>, mut stopped: watch::Receiver<bool>, answered: Arc<AtomicU64>) -> Told {
    let mut told = Told::default();
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(ended) = calls.join_next() => told.add(ended, &mut people, &answered),
            _ = tick.tick() => {
                if let Some(person) = people.pop_front() {
                    calls.spawn(call(person));
                }
            }
        }
    }
    while let Some(ended) = calls.join_next().await {
        told.add(ended, &mut people, &answered);
    }
    told
}

type Ended = (Person, Duration, Result<(), Status>);

/// Books, or gives back what is booked.
async fn call(mut person: Person) -> Ended {
    let began = Instant::now();
    let answer = match person.booking.take() {
        None => {
            let booked =
                person.caller.book(&person.permit, Uuid::new_v4(), person.version, &person.slot, DEADLINE).await;
            booked.map(|booked| {
                person.version = booked.claim_version;
                person.booking = booked.booking.map(|booking| booking.name);
            })
        }
        Some(booking) => {
            let cancelled = person.caller.cancel(&person.permit, person.version, &booking, DEADLINE).await;
            cancelled.map(|version| person.version = version)
        }
    };
    (person, began.elapsed(), answer)
}

// === impl Told ===

impl Told {
    fn add(
        &mut self,
        ended: Result<Ended, tokio::task::JoinError>,
        people: &mut VecDeque<Person>,
        answered: &AtomicU64,
    ) {
        self.calls += 1;
        match ended {
            Ok((person, took, Ok(()))) => {
                self.slowest = self.slowest.max(took);
                answered.fetch_add(1, Ordering::Relaxed);
                people.push_back(person);
            }
            // Who met an error does not come back: what they have is not known here.
            Ok((_, took, Err(status))) => {
                let reason = proto::status::read(&status).map(|refused| refused.refusal.code());
                self.errors.push(format!("{:?} {reason:?} after {took:?}: {}", status.code(), status.message()));
            }
            Err(error) => self.errors.push(error.to_string()),
        }
    }
}
