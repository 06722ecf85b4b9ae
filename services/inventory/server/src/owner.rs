//! One task per owned shard: the pure core inside, the ledger, the callers and the watchers around it.
//!
//! Invariant: a caller hears of a change only after the ledger committed it under this owner's epoch.

mod exchange;
mod jobs;
mod pace;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::{ClinicId, Epoch, Op, Refusal, RegionId, ShardId, SlotState, Verdict};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use exchange::{Answered, Call, CallKind, CallNames, ReplyTo, SlotLine, Snapshot, Update};
pub use pace::Pace;
pub use task::OwnerExit;
pub(crate) use task::{OwnerParts, run};

use crate::ledger::MoveOp;

/// Commands that wait for the task itself; the core bounds its own queue below this.
const COMMANDS_MAX: usize = 16_384;

/// What is asked of an owner.
pub(crate) enum Ask {
    /// Change a person's claim.
    Op {
        op: Op,
        clinic: Option<ClinicId>,
        reply: ReplyTo,
    },
    /// Move an appointment to a slot of this shard.
    Move { op: Box<MoveOp>, reply: ReplyTo },
    /// Slots that something else changed.
    Outside(Vec<SlotState>),
    /// A watcher wants everything, then every change.
    Subscribe(oneshot::Sender<(Snapshot, broadcast::Receiver<Update>)>),
    /// A higher epoch was published: ask the ledger whose writes count.
    Doubt,
    /// Finish what is queued, then give the shard away.
    Drain,
}

/// A running owner. Cheap to clone.
#[derive(Clone)]
pub struct OwnerHandle {
    commands: mpsc::Sender<Ask>,
    epoch: watch::Receiver<Epoch>,
}

impl OwnerHandle {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Ask>, watch::Sender<Epoch>) {
        let (commands, asks) = mpsc::channel(COMMANDS_MAX);
        let (epoch_out, epoch) = watch::channel(Epoch(0));
        (Self { commands, epoch }, asks, epoch_out)
    }

    /// The epoch in force; 0 while the ledger has not said yes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        *self.epoch.borrow()
    }

    /// Asks for a change of a claim, at `clinic` if slots are named. The answer comes through `reply`, also when it
    /// is `Overloaded`.
    pub fn op(&self, op: Op, clinic: Option<ClinicId>, reply: ReplyTo) {
        self.send(Ask::Op { op, clinic, reply });
    }

    /// Asks for a move to a slot of this shard.
    pub fn move_booking(&self, op: MoveOp, reply: ReplyTo) {
        self.send(Ask::Move {
            op: Box::new(op),
            reply,
        });
    }

    /// Tells of slots that something else changed. Dropped when the owner is behind: it reads again by itself.
    pub fn outside(&self, slots: Vec<SlotState>) {
        let _ = self.commands.try_send(Ask::Outside(slots));
    }

    /// Everything of the shard, then every change; `None` when the owner is gone.
    pub async fn subscribe(&self) -> Option<(Snapshot, broadcast::Receiver<Update>)> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Ask::Subscribe(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Has the owner ask the ledger whether its epoch is still in force: one that nobody calls would never hear.
    pub(crate) fn doubt(&self) {
        // Full means that statements are on their way, which ask the same.
        let _ = self.commands.try_send(Ask::Doubt);
    }

    /// Has the owner finish and give the shard away.
    pub async fn drain(&self) {
        // A closed channel means that it has ended already.
        let _ = self.commands.send(Ask::Drain).await;
    }

    fn send(&self, ask: Ask) {
        let (ask, refusal) = match self.commands.try_send(ask) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(ask)) => (ask, Refusal::Overloaded),
            Err(mpsc::error::TrySendError::Closed(ask)) => (ask, Refusal::NotOwner),
        };
        if let Ask::Op { reply, .. } | Ask::Move { reply, .. } = ask {
            reply.send(
                Verdict::Refused {
                    refusal,
                    claim_version: None,
                },
                [None, None],
            );
        }
    }
}

/// The owners of this process, by region and shard. Cheap to clone.
#[derive(Clone)]
pub struct Owners {
    table: Arc<ArcSwap<BTreeMap<(RegionId, ShardId), OwnerHandle>>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            table: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
        }
    }
}

impl Owners {
    /// The owner of a shard, if it is in this process.
    #[must_use]
    pub fn get(&self, region: &RegionId, shard: ShardId) -> Option<OwnerHandle> {
        self.table.load().get(&(region.clone(), shard)).cloned()
    }

    /// The owners of a region in this process.
    #[must_use]
    pub fn of_region(&self, region: &RegionId) -> Vec<(ShardId, OwnerHandle)> {
        let table = self.table.load();
        let mine = table.iter().filter(|((of, _), _)| of == region);
        mine.map(|((_, shard), handle)| (*shard, handle.clone()))
            .collect()
    }

    /// Told at each change of the table.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn insert(&self, region: &RegionId, shard: ShardId, handle: OwnerHandle) {
        self.table.rcu(|table| {
            let mut table = BTreeMap::clone(table);
            table.insert((region.clone(), shard), handle.clone());
            table
        });
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn remove(&self, region: &RegionId, shard: ShardId) {
        self.table.rcu(|table| {
            let mut table = BTreeMap::clone(table);
            table.remove(&(region.clone(), shard));
            table
        });
        self.changed.send_modify(|version| *version += 1);
    }
}
