//! An owner at work, and what is expected of its answers.

use std::collections::BTreeSet;

use domain::command::Done;
use domain::{ClaimVersion, Epoch, Op, Recorded, Refusal, ShardId, SlotId, SlotPair, Verdict};
use inventory::ledger::{BatchAnswer, SlotCount, Writer};

/// An owner: a writer that numbers its batches.
pub struct Desk {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub seq: u64,
    pub writer: Box<dyn Writer>,
}

// === impl Desk ===

impl Desk {
    /// Runs the ops as the next batch.
    pub async fn run(&mut self, ops: &[Op]) -> BatchAnswer {
        self.seq += 1;
        let answer = self
            .writer
            .batch(self.seq, ops)
            .await
            .expect("the batch commits");
        assert_eq!(answer.verdicts.len(), ops.len());
        let slots: BTreeSet<SlotId> = answer.slots.iter().map(|count| count.slot).collect();
        assert_eq!(slots.len(), answer.slots.len(), "a slot is answered twice");
        answer
    }

    /// Runs one op as the next batch.
    pub async fn one(&mut self, op: &Op) -> Verdict {
        let answer = self.run(std::slice::from_ref(op)).await;
        answer.verdicts.into_iter().next().expect("one verdict")
    }

    /// Runs an op that must succeed.
    pub async fn does(&mut self, op: &Op) -> Recorded {
        done(self.one(op).await)
    }

    pub async fn sweep(&mut self, limit: u32) -> Vec<SlotCount> {
        self.seq += 1;
        self.writer
            .sweep(self.seq, limit)
            .await
            .expect("the sweep commits")
    }
}

/// The record of a verdict that must be a success of this very transaction.
#[track_caller]
pub fn done(verdict: Verdict) -> Recorded {
    match verdict {
        Verdict::Done(recorded) => {
            assert_eq!(recorded.hold_until.is_some(), recorded.done == Done::Held);
            recorded
        }
        other @ (Verdict::Exists(_) | Verdict::Refused { .. }) => panic!("not done: {other:?}"),
    }
}

/// The verdict must be this refusal, with this version of the claim.
#[track_caller]
pub fn refused(verdict: &Verdict, refusal: Refusal, version: u64) {
    let expected = Verdict::Refused {
        refusal,
        claim_version: Some(ClaimVersion(version)),
    };
    assert_eq!(*verdict, expected);
}

/// The verdict must be this refusal, decided before any claim was looked at.
#[track_caller]
pub fn reused(verdict: &Verdict) {
    let expected = Verdict::Refused {
        refusal: Refusal::RequestIdReused,
        claim_version: None,
    };
    assert_eq!(*verdict, expected);
}

pub fn one(slot: SlotId) -> SlotPair {
    SlotPair::one(slot)
}

pub fn two(first: SlotId, second: SlotId) -> SlotPair {
    SlotPair::two(first, second)
}
