//! A steady stream of bookings and cancellations, about a hundred calls a second, by people who never call twice.
//!
//! Invariant: a call is made once. Whatever its caller was told is counted as told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use system_tests::await_until::await_until;
use system_tests::town::{Caller, Town};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use uuid::Uuid;

/// From one call to the next.
const EVERY: Duration = Duration::from_millis(10);
/// What a device gives one call.
const DEADLINE: Duration = Duration::from_secs(10);

/// Even on a machine that does much else.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// What callers were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) calls: usize,
    pub(crate) slowest: Duration,
    pub(crate) errors: Vec<String>,
}

// === impl Heard ===

impl Heard {
    fn errors(&self) -> Vec<String> {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The first say why; the others only follow.
    fn first_errors(&self) -> String {
        const SHOWN: usize = 20;
        let errors = self.errors();
        format!(
            "{} errors, first {:#?}",
            errors.len(),
            &errors[..errors.len().min(SHOWN)]
        )
    }

    fn failed(&self, error: String) {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(error);
    }
}

/// The stream; it ends with this value.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    heard: Arc<Heard>,
    task: AbortOnDropHandle<Told>,
}

/// What is known while it goes on.
#[derive(Debug, Default)]
struct Heard {
    answered: AtomicU64,
    errors: Mutex<Vec<String>>,
}

struct Person {
    permit: String,
    slot: String,
    caller: Caller,
    version: u64,
    booking: Option<String>,
    cancels: bool,
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
            cancels: false,
        });
        let (stop, stopped) = watch::channel(false);
        let heard = Arc::new(Heard::default());
        let task = tokio::task::spawn(run(people.collect(), stopped, Arc::clone(&heard)));
        Self {
            stop,
            heard,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Calls answered well so far.
    pub(crate) fn answered(&self) -> u64 {
        self.heard.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more calls are answered well.
    pub(crate) async fn more_answers(&self, more: u64) -> anyhow::Result<()> {
        let enough = self.answered() + more;
        let waited = await_until("calls are answered", ANSWERS_WITHIN, || {
            std::future::ready(self.answered() >= enough)
        });
        waited.await.with_context(|| self.heard.first_errors())?;
        Ok(())
    }

    /// Ends it and waits for the calls under way.
    pub(crate) async fn stop(self) -> anyhow::Result<Told> {
        self.stop.send_replace(true);
        Ok(self.task.await?)
    }
}

async fn run(
    mut people: VecDeque<Person>,
    mut stopped: watch::Receiver<bool>,
    heard: Arc<Heard>,
) -> Told {
    let mut told = Told::default();
    let mut calls = JoinSet::new();
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(ended) = calls.join_next() => told.add(ended, &mut people, &heard),
            _ = tick.tick() => {
                if let Some(person) = people.pop_front() {
                    calls.spawn(call(person));
                }
            }
        }
    }
    while let Some(ended) = calls.join_next().await {
        told.add(ended, &mut people, &heard);
    }
    told.errors = heard.errors();
    told
}

type Ended = (Person, Duration, Result<(), Status>);

/// Books, or gives back what is booked.
async fn call(mut person: Person) -> Ended {
    let began = Instant::now();
    person.cancels = person.booking.is_some();
    let answer = match person.booking.take() {
        None => {
            let booked = person
                .caller
                .book(
                    &person.permit,
                    Uuid::new_v4(),
                    person.version,
                    &person.slot,
                    DEADLINE,
                )
                .await;
            booked.map(|booked| {
                person.version = booked.claim_version;
                person.booking = booked.booking.map(|booking| booking.name);
            })
        }
        Some(booking) => {
            let cancelled = person
                .caller
                .cancel(&person.permit, person.version, &booking, DEADLINE)
                .await;
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
        heard: &Heard,
    ) {
        self.calls += 1;
        match ended {
            Ok((person, took, Ok(()))) => {
                self.slowest = self.slowest.max(took);
                heard.answered.fetch_add(1, Ordering::Relaxed);
                people.push_back(person);
            }
            // Who met an error does not come back: what they have is not known here.
            Ok((person, took, Err(status))) => {
                let what = if person.cancels { "cancel" } else { "book" };
                let reason = proto::status::read(&status).map(|refused| refused.refusal.code());
                heard.failed(format!(
                    "{what} {:?} {reason:?} after {took:?}",
                    status.code()
                ));
            }
            Err(error) => heard.failed(error.to_string()),
        }
    }
}
