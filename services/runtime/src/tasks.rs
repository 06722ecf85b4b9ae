//! Named, owned tasks: each has a name, someone who waits for it, and a policy for its end.
//!
//! Invariant: nothing else in the product spawns; a panic in a task is always seen.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::drain::{Cause, Drain};
use crate::fields;

/// An error of any kind, as the source of another.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long aborted tasks get to unwind before they are given up.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// Owns tasks and threads; the process's, or those of one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Inner>);

/// What happens when a task ends although the process is not stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// The process cannot do without it: however it ends, the process drains and exits with a fault.
    StopProcess,
    /// A failure or panic is logged as an error.
    Log,
    /// Ending is normal; only a panic is logged.
    Ignore,
}

/// What a task's future may return: `()` or a `Result<(), E>`.
pub trait Ending: Send {
    /// The failure, if it failed.
    fn failure(self) -> Option<BoxError>;
}

/// A running task. Dropping the handle leaves the task running and owned by its [`Tasks`].
#[derive(Debug)]
pub struct TaskHandle(JoinHandle<()>);

/// What was left when waiting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Joined {
    /// Names of tasks that had to be aborted and threads that were left behind, sorted.
    pub cut: Vec<&'static str>,
}

#[derive(Debug)]
struct Inner {
    drain: Drain,
    tracker: TaskTracker,
    running: Mutex<HashMap<u64, (&'static str, Option<AbortHandle>)>>,
    next_id: AtomicU64,
}

enum End {
    Done,
    Failed(BoxError),
    Panicked,
}

// === impl Ending ===

impl Ending for () {
    fn failure(self) -> Option<BoxError> {
        None
    }
}

impl<E: Into<BoxError> + Send> Ending for Result<(), E> {
    fn failure(self) -> Option<BoxError> {
        self.err().map(Into::into)
    }
}

// === impl Tasks ===

impl Tasks {
    /// No tasks yet. A task that the process cannot do without starts `drain` when it ends.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self(Arc::new(Inner {
            drain,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            next_id: AtomicU64::new(0),
        }))
    }

    /// Spawns a task in a span with its name; [`Tasks::join`] waits for it.
    pub fn spawn<F>(&self, name: &'static str, on_exit: OnExit, future: F) -> TaskHandle
    where
        F: Future + Send + 'static,
        F::Output: Ending + 'static,
    {
        let entry = self.enter(name);
        let token = self.0.tracker.token();
        let id = entry.id;
        let tasks = self.clone();
        let handle = spawn(in_task_span(name, async move {
            let (_token, _entry) = (token, entry);
            tasks.settle(name, on_exit, run(future).await);
        }));
        // A task that ended meanwhile has taken its entry away; do not bring it back.
        if let Some(entry) = self.running().get_mut(&id) {
            entry.1 = Some(handle.abort_handle());
        }
        TaskHandle(handle)
    }

    /// Like [`Tasks::spawn`], for the few tasks that live as long as the process and that nobody waits for.
    pub fn spawn_detached<F>(&self, name: &'static str, on_exit: OnExit, future: F) -> TaskHandle
    where
        F: Future + Send + 'static,
        F::Output: Ending + 'static,
    {
        let tasks = self.clone();
        TaskHandle(spawn(in_task_span(name, async move {
            tasks.settle(name, on_exit, run(future).await);
        })))
    }

    /// Runs blocking work in a thread of its own, such as the one writer of a database file.
    /// A thread cannot be aborted: it must end when its channel closes.
    pub fn spawn_thread<F, R>(
        &self,
        name: &'static str,
        on_exit: OnExit,
        work: F,
    ) -> std::io::Result<()>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Ending + 'static,
    {
        let entry = self.enter(name);
        let token = self.0.tracker.token();
        let tasks = self.clone();
        let span = tracing::info_span!(parent: None, "task", { fields::TASK } = name);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let (_token, _entry) = (token, entry);
                let _span = span.entered();
                let end = match std::panic::catch_unwind(AssertUnwindSafe(work)) {
                    Ok(output) => output.failure().map_or(End::Done, End::Failed),
                    Err(_) => End::Panicked,
                };
                tasks.settle(name, on_exit, end);
            })?;
        Ok(())
    }

    /// Names of the tasks and threads that run now, sorted.
    #[must_use]
    pub fn running_names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.running().values().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    /// Waits for all tasks; after `deadline` aborts those left and names them.
    pub async fn join(&self, deadline: Duration) -> Joined {
        self.0.tracker.close();
        if tokio::time::timeout(deadline, self.0.tracker.wait())
            .await
            .is_ok()
        {
            return Joined { cut: Vec::new() };
        }
        let cut = self.running_names();
        for (_, abort) in self.running().values() {
            if let Some(abort) = abort {
                abort.abort();
            }
        }
        if tokio::time::timeout(ABORT_GRACE, self.0.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(tasks = ?self.running_names(), "tasks did not end when aborted");
        }
        Joined { cut }
    }

    fn settle(&self, name: &'static str, on_exit: OnExit, end: End) {
        let draining = self.0.drain.is_draining();
        match (&end, on_exit) {
            // The panic hook wrote the error with its place, inside the task's span.
            (End::Panicked, _) => tracing::warn!(task = name, draining, "task ended by a panic"),
            (End::Failed(error), OnExit::StopProcess | OnExit::Log) => {
                let error = fields::chain(error.as_ref());
                tracing::error!(task = name, error, draining, "task failed");
            }
            (End::Done, OnExit::StopProcess) if !draining => {
                tracing::error!(task = name, "task ended that the process cannot do without");
            }
            (End::Failed(_) | End::Done, _) => tracing::debug!(task = name, "task ended"),
        }
        if on_exit == OnExit::StopProcess && !draining {
            self.0.drain.start(Cause::TaskEnded(name));
        }
    }

    fn enter(&self, name: &'static str) -> Entry {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.running().insert(id, (name, None));
        Entry {
            id,
            tasks: self.clone(),
        }
    }

    fn running(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<u64, (&'static str, Option<AbortHandle>)>> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl TaskHandle ===

impl TaskHandle {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until it has ended, in whatever way.
    pub async fn ended(self) {
        // An error here means aborted; panics were settled inside.
        let _ = self.0.await;
    }
}

/// Takes the task off the list however it ends, also when it is aborted.
struct Entry {
    id: u64,
    tasks: Tasks,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tasks.running().remove(&self.id);
    }
}

/// Runs the streams of one server's connections, thousands a second: without names, but owned and cut together.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamExecutor {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl StreamExecutor {
    /// Spawns work that ends early when the executor is cut.
    pub(crate) fn spawn<F: Future + Send + 'static>(&self, future: F) {
        let cut = self.cut.clone();
        spawn(self.tracker.track_future(async move {
            cut.run_until_cancelled(future).await;
        }));
    }

    /// Waits until nothing runs any more, then cuts what is left at `until`. Returns how many were cut.
    pub(crate) async fn finish(&self, until: impl Future<Output = ()>) -> usize {
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => return 0,
            () = until => {}
        }
        let left = self.tracker.len();
        self.cut.cancel();
        let _ = tokio::time::timeout(ABORT_GRACE, self.tracker.wait()).await;
        left
    }
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

async fn run<F>(future: F) -> End
where
    F: Future,
    F::Output: Ending,
{
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => output.failure().map_or(End::Done, End::Failed),
        Err(_) => End::Panicked,
    }
}

/// A task is the root of its own trace: it outlives whoever started it.
fn in_task_span<F: Future>(name: &'static str, future: F) -> tracing::instrument::Instrumented<F> {
    future.instrument(tracing::info_span!(parent: None, "task", { fields::TASK } = name))
}

#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> JoinHandle<()> {
    tokio::spawn(future)
}

#[cfg(test)]
mod tests;
