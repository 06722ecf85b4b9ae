//! Verifies permits in batches, off the shards' tasks: whatever waits when a thread is free is one batch.
//!
//! Invariant: here is where verification counts; nothing a gateway said replaces it.

use std::sync::Arc;

use domain::Refusal;
use domain::permit::batch;
use domain::permit::{Permit, Unusable};
use runtime::trusted_keys::TrustedKeysFile;
use runtime::{Clock, OnExit, Tasks};
use tokio::sync::{mpsc, oneshot};

/// Beyond this, bisecting one bad permit out costs more than the batch saves.
const BATCH_MAX: usize = 128;
/// Two seconds of work of one core; beyond it callers do better to come back.
const QUEUE_MAX: usize = 65_536;

/// What came of one permit.
pub type Verified = Result<Permit, Refusal>;

struct Job {
    texts: Vec<String>,
    reply: oneshot::Sender<Vec<Verified>>,
}

/// Hands permits to the verifying threads. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<tokio::sync::Semaphore>,
}

impl Verifier {
    /// Starts `threads` verifying threads.
    pub fn start(
        tasks: &Tasks,
        keys: &TrustedKeysFile,
        clock: &Clock,
        threads: usize,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE_MAX / 16);
        let queue = Arc::new(tokio::sync::Mutex::new(queue));
        for _ in 0..threads.max(1) {
            let (queue, keys, clock) = (Arc::clone(&queue), keys.clone(), clock.clone());
            tasks.spawn_thread("verify_permits", OnExit::StopProcess, move || {
                while let Some(batch) = take(&queue) {
                    verify(batch, &keys, &clock);
                }
            })?;
        }
        Ok(Self {
            jobs,
            waiting: Arc::new(tokio::sync::Semaphore::new(QUEUE_MAX)),
        })
    }

    /// Verifies permits that arrived together; one verdict for each, in their order.
    pub async fn verify(&self, texts: Vec<String>) -> Vec<Verified> {
        let count = texts.len();
        let overloaded = || vec![Err(Refusal::Overloaded); count];
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(_waiting) = self.waiting.try_acquire_many(wanted) else {
            return overloaded();
        };
        let (reply, verdicts) = oneshot::channel();
        if self.jobs.send(Job { texts, reply }).await.is_err() {
            return overloaded();
        }
        verdicts.await.unwrap_or_else(|_| overloaded())
    }
}

/// Waits for work, then takes what else is there, up to one batch.
fn take(queue: &tokio::sync::Mutex<mpsc::Receiver<Job>>) -> Option<Vec<Job>> {
    let mut queue = queue.blocking_lock();
    let mut batch = vec![queue.blocking_recv()?];
    let mut permits = batch[0].texts.len();
    while permits < BATCH_MAX {
        let Ok(job) = queue.try_recv() else { break };
        permits += job.texts.len();
        batch.push(job);
    }
    Some(batch)
}

fn verify(batch: Vec<Job>, keys: &TrustedKeysFile, clock: &Clock) {
    let keys = keys.current();
    let texts: Vec<&str> = batch
        .iter()
        .flat_map(|job| job.texts.iter().map(String::as_str))
        .collect();
    let mut verdicts = Vec::with_capacity(texts.len());
    for part in texts.chunks(BATCH_MAX) {
        verdicts.extend(batch::verify_all(&keys, part, clock.wall()));
    }
    let mut verdicts = verdicts.into_iter().map(|verdict| {
        verdict.map_err(|why| match why {
            Unusable::Untrusted(_) => Refusal::PermitInvalid,
            Unusable::Expired => Refusal::PermitExpired,
        })
    });
    for job in batch {
        let mine = verdicts.by_ref().take(job.texts.len()).collect();
        // The stream that asked may be gone; nothing was decided yet.
        let _ = job.reply.send(mine);
    }
}
