//! Threads for work that would hold up everybody else: verifying assertions and signing permits.
//!
//! Invariant: what waits is bounded; beyond that the caller is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::Refusal;
use runtime::tasks::{OnExit, Tasks};
use tokio::sync::{mpsc, oneshot};

/// About half a second of work for one thread; whoever comes beyond that does better to return later.
const QUEUE_DEPTH_MAX: usize = 4_096;

type Job = Box<dyn FnOnce() + Send>;

/// A handle on the threads. Cheap to clone; they end when the last handle is gone.
#[derive(Clone)]
pub struct Workers {
    queues: Arc<[mpsc::Sender<Job>]>,
    next: Arc<AtomicUsize>,
}

// === impl Workers ===

impl Workers {
    /// Starts so many threads, at least one.
    pub fn start(threads: usize, tasks: &Tasks) -> std::io::Result<Self> {
        let mut queues = Vec::new();
        for _ in 0..threads.max(1) {
            let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_DEPTH_MAX);
            tasks.spawn_thread("permit_worker", OnExit::StopProcess, move || {
                while let Some(job) = queue.blocking_recv() {
                    job();
                }
            })?;
            queues.push(jobs);
        }
        Ok(Self {
            queues: queues.into(),
            next: Arc::default(),
        })
    }

    /// Runs work on one of the threads.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let job: Job = Box::new(move || {
            // Whoever has gone away needs no answer, and no work.
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        self.queues[at]
            .try_send(job)
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => Refusal::Overloaded,
                mpsc::error::TrySendError::Closed(_) => Refusal::Unavailable,
            })?;
        answer.await.map_err(|_| Refusal::Unavailable)
    }
}
