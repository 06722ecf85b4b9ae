//! The one thread that writes: everything that waits is committed together.
//!
//! Invariant: nobody is answered before the commit that holds their write, and nobody is told that a write failed
//! when its commit may have happened.

use std::path::PathBuf;
use std::sync::Arc;

use domain::{ShardId, Timestamp};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::clock::LedgerClock;
use super::{files, unavailable};
use crate::ledger::{BoxError, Fault};

/// Units that may wait: two seconds of single bookings, and callers are better shed before that.
const QUEUE_DEPTH_MAX: usize = 8_192;
/// Ops in one commit: about 0.2 s of work, so that the first in a group does not wait for long.
const GROUP_OPS_MAX: usize = 4_096;

/// What a unit's work came to.
pub(super) struct Outcome<T> {
    /// The answer once the commit happened.
    pub(super) value: T,
    /// Whether its writes stay.
    pub(super) keep: bool,
    /// The shard to name if the commit has no known outcome.
    pub(super) shard: Option<ShardId>,
}

impl<T> Outcome<T> {
    /// Its writes stay.
    pub(super) const fn keep(value: T) -> Self {
        Self {
            value,
            keep: true,
            shard: None,
        }
    }

    /// Its writes are taken back.
    pub(super) const fn undo(value: T) -> Self {
        Self {
            value,
            keep: false,
            shard: None,
        }
    }
}

/// Hands units to the thread. The thread ends when the last handle is gone and the queue is empty.
#[derive(Clone)]
pub(super) struct Queue {
    units: mpsc::Sender<Box<dyn Unit>>,
}

/// How the commit of a group went.
enum GroupEnd {
    Committed,
    /// Nothing of the group was written.
    Nothing(Arc<rusqlite::Error>),
    /// The group may have been written.
    Unknown(Arc<rusqlite::Error>),
}

trait Unit: Send {
    fn ops(&self) -> usize;
    /// Runs inside the unit's own savepoint; says whether its writes stay.
    fn run(&mut self, db: &Connection, now: Timestamp) -> bool;
    fn answer(self: Box<Self>, end: &GroupEnd);
}

struct Call<T, W> {
    ops: usize,
    shard: Option<ShardId>,
    work: Option<W>,
    result: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

// === impl Queue ===

impl Queue {
    /// Starts the thread on an open file.
    pub(super) fn start(
        path: PathBuf,
        db: Connection,
        clock: Arc<LedgerClock>,
    ) -> Result<Self, Fault> {
        let (units, waiting) = mpsc::channel(QUEUE_DEPTH_MAX);
        let thread = WriterThread {
            path,
            db: Some(db),
            clock,
        };
        std::thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || thread.serve(waiting))
            .map_err(unavailable)?;
        Ok(Self { units })
    }

    /// Runs `work` in the next commit and returns after it. What was handed over runs even if the caller leaves.
    pub(super) async fn run<T, W>(
        &self,
        ops: usize,
        shard: Option<ShardId>,
        work: W,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        W: FnOnce(&Connection, Timestamp) -> Result<Outcome<T>, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            ops,
            shard,
            work: Some(work),
            result: None,
            reply,
        };
        self.units
            .send(Box::new(call))
            .await
            .map_err(|_| unavailable("the writer thread has ended"))?;
        answer
            .await
            .unwrap_or_else(|gone| Err(unknown(shard, gone.into())))
    }
}

// === impl Call ===

impl<T, W> Unit for Call<T, W>
where
    T: Send,
    W: FnOnce(&Connection, Timestamp) -> Result<Outcome<T>, Fault> + Send,
{
    fn ops(&self) -> usize {
        self.ops
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let (result, keep) = match work(db, now) {
            Ok(outcome) => {
                self.shard = outcome.shard.or(self.shard);
                (Ok(outcome.value), outcome.keep)
            }
            Err(fault) => (Err(fault), false),
        };
        self.result = Some(result);
        keep
    }

    fn answer(self: Box<Self>, end: &GroupEnd) {
        let result = match (end, self.result) {
            (GroupEnd::Committed, Some(result)) => result,
            (GroupEnd::Committed, None) => Err(unavailable("the unit did not run")),
            (GroupEnd::Nothing(cause), _) => Err(unavailable(Arc::clone(cause))),
            // Also for a unit that wrote nothing: what it read may have been written by a unit of the same group.
            (GroupEnd::Unknown(cause), _) => Err(unknown(self.shard, Arc::clone(cause).into())),
        };
        // A caller who left does not need the answer.
        let _ = self.reply.send(result);
    }
}

// === impl WriterThread ===

struct WriterThread {
    path: PathBuf,
    db: Option<Connection>,
    clock: Arc<LedgerClock>,
}

impl WriterThread {
    fn serve(mut self, mut waiting: mpsc::Receiver<Box<dyn Unit>>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut ops = first.ops();
            let mut group = vec![first];
            while ops < GROUP_OPS_MAX {
                let Ok(unit) = waiting.try_recv() else { break };
                ops += unit.ops();
                group.push(unit);
            }
            let end = self.commit(&mut group);
            if let GroupEnd::Nothing(error) | GroupEnd::Unknown(error) = &end {
                tracing::warn!(%error, units = group.len(), "ledger file closed after a failed commit");
                self.db = None;
            }
            for unit in group {
                unit.answer(&end);
            }
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Unit>]) -> GroupEnd {
        let db = match self
            .db
            .take()
            .map_or_else(|| files::open_writer(&self.path), Ok)
        {
            Ok(db) => self.db.insert(db),
            Err(cause) => return GroupEnd::Nothing(Arc::new(cause)),
        };
        if let Err(cause) = run_group(db, group, &self.clock) {
            // Closing the connection takes back what the group wrote.
            return GroupEnd::Nothing(Arc::new(cause));
        }
        match execute(db, "COMMIT") {
            Ok(()) => GroupEnd::Committed,
            Err(cause) => GroupEnd::Unknown(Arc::new(cause)),
        }
    }
}

fn run_group(
    db: &Connection,
    group: &mut [Box<dyn Unit>],
    clock: &LedgerClock,
) -> rusqlite::Result<()> {
    execute(db, "BEGIN IMMEDIATE")?;
    for unit in group {
        execute(db, "SAVEPOINT unit")?;
        if !unit.run(db, clock.now()) {
            // Where a broken disk made the engine roll everything back, this fails and the group with it.
            execute(db, "ROLLBACK TO unit")?;
        }
        execute(db, "RELEASE unit")?;
    }
    Ok(())
}

fn execute(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(drop)
}

fn unknown(shard: Option<ShardId>, source: BoxError) -> Fault {
    match shard {
        Some(shard) => Fault::Unknown { shard, source },
        // Only calls that may be repeated at any time have no shard.
        None => Fault::Unavailable { source },
    }
}

/// The fault of a failed statement. Whatever it wrote is taken back with its savepoint.
pub(super) fn statement_fault(shard: ShardId, error: rusqlite::Error) -> Fault {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        Fault::Constraint { shard }
    } else {
        unavailable(error)
    }
}

#[cfg(test)]
mod tests;
