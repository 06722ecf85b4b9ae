//! What becomes of statements and moves on their way to the ledger and back.

use std::collections::BTreeMap;

use domain::{Epoch, Op, ShardId, SlotId, SlotPair, Verdict};
use inventory_core::{AskId, BatchFailure, Input, RequestKey, SlotCount};

use crate::checker::OwnerId;
use crate::faults::Fate;
use crate::ledger::{SideOp, Written};
use crate::people::PersonIndex;
use crate::world::{Event, World};

pub(crate) struct Statement {
    pub(crate) owner: OwnerId,
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) ops: Option<Vec<Op>>,
    pub(crate) limit: u32,
    pub(crate) asks: Vec<(OwnerId, AskId)>,
    pub(crate) taken: BTreeMap<SlotId, u32>,
}

impl World {
    pub(crate) fn send(
        &mut self,
        owner: OwnerId,
        shard: ShardId,
        epoch: Epoch,
        seq: u64,
        ops: Option<Vec<Op>>,
        limit: u32,
    ) {
        assert!(
            self.owners[owner].sent.is_none(),
            "two statements under way"
        );
        let keys: Vec<RequestKey> = ops.iter().flatten().map(key_of).collect();
        let asks = self.checker.carried(owner, &keys);
        self.statements.push(Statement {
            owner,
            shard,
            epoch,
            seq,
            ops,
            limit,
            asks,
            taken: BTreeMap::new(),
        });
        let statement = self.statements.len() - 1;
        self.owners[owner].sent = Some(statement);
        let fate = self.faults.fate(&mut self.rng);
        let given_up = match fate {
            Fate::Fine | Fate::Twice => None,
            Fate::Lost | Fate::Late | Fate::Unheard => Some(BatchFailure::Unknown),
            Fate::NotWritten => Some(BatchFailure::NotWritten),
            Fate::Constraint => Some(BatchFailure::Constraint),
        };
        let run = |heard| Event::Run { statement, heard };
        match fate {
            Fate::Fine => self.after(1, 15, run(true)),
            Fate::Twice => {
                self.after(1, 15, run(true));
                self.after(5, 400, run(false));
            }
            Fate::Late => self.after(100, 900, run(false)),
            Fate::Unheard => self.after(1, 15, run(false)),
            Fate::Lost | Fate::NotWritten | Fate::Constraint => {}
        }
        if let Some(failure) = given_up {
            let input = self.failed(statement, failure);
            self.after(20, 120, Event::Deliver { owner, input });
        }
    }

    pub(crate) fn failed(&self, statement: usize, failure: BatchFailure) -> Input {
        let Statement { seq, ops, .. } = &self.statements[statement];
        let seq = *seq;
        match ops {
            Some(_) => Input::BatchFailed { seq, failure },
            None => Input::SweepFailed { seq, failure },
        }
    }

    pub(crate) fn run_statement(&mut self, index: usize, heard: bool) {
        let it = &self.statements[index];
        let (owner, shard, epoch, seq) = (it.owner, it.shard, it.epoch, it.seq);
        let result = match &it.ops {
            Some(ops) => self
                .ledger
                .batch(shard, epoch, seq, ops)
                .map(|(verdicts, slots)| {
                    let taken = taken_by(&verdicts, ops);
                    (
                        Input::BatchDone {
                            seq,
                            verdicts,
                            slots,
                        },
                        taken,
                    )
                }),
            None => self
                .ledger
                .sweep(shard, epoch, seq, it.limit)
                .map(|slots| (Input::Swept { seq, slots }, BTreeMap::new())),
        };
        let input = match result {
            Ok((input, taken)) => {
                let asks = self.statements[index].asks.clone();
                self.statements[index].taken = taken;
                self.checker
                    .committed(owner, Written { shard, epoch, seq }, asks);
                input
            }
            Err(failure) => self.failed(index, failure),
        };
        if heard {
            self.after(1, 15, Event::Deliver { owner, input });
        }
    }

    pub(crate) fn run_side(
        &mut self,
        mover: Option<(OwnerId, Epoch)>,
        person: PersonIndex,
        op: SideOp,
    ) {
        let under = mover.map(|(owner, epoch)| (self.owners[owner].shard, epoch));
        let Ok((verdict, counts)) = self.ledger.side(&op, under) else {
            if let (Some((owner, _)), Some(slot)) = (mover, op.to) {
                let input = Input::Unreserve {
                    slot,
                    outcome: None,
                };
                self.after(1, 20, Event::Deliver { owner, input });
            }
            return;
        };
        if let (Some((owner, epoch)), Some(slot)) = (mover, op.to) {
            let wrote = matches!(verdict, Verdict::Done(_));
            let core = self.owners[owner].core.as_ref();
            if wrote && core.is_some_and(|core| core.epoch() == epoch) {
                *self.owners[owner].moved.entry(slot).or_insert(0) += 1;
            }
            if self.rng.chance(self.faults.answer_lost) && wrote {
                // The outcome is found out by asking again, in the end.
                let outcome = self.count_of(slot);
                self.after(
                    50,
                    200,
                    Event::Deliver {
                        owner,
                        input: Input::Unreserve { slot, outcome },
                    },
                );
                return;
            }
            let outcome = counts.into_iter().find(|count| count.slot == slot);
            let outcome = outcome.filter(|_| wrote);
            self.after(
                1,
                30,
                Event::Deliver {
                    owner,
                    input: Input::Unreserve { slot, outcome },
                },
            );
        }
        if !self.rng.chance(self.faults.answer_lost) {
            self.after(1, 30, Event::Answer { person, verdict });
        }
    }

    pub(crate) fn count_of(&self, slot: SlotId) -> Option<SlotCount> {
        self.ledger.slots.get(&slot).map(|state| SlotCount {
            slot,
            capacity: state.capacity,
            booked: state.booked,
            open: state.open,
        })
    }
}

fn key_of(op: &Op) -> RequestKey {
    (op.claimant.campaign.clone(), op.claimant.person, op.request)
}

fn taken_by(verdicts: &[Verdict], ops: &[Op]) -> BTreeMap<SlotId, u32> {
    let mut taken = BTreeMap::new();
    for (op, verdict) in ops.iter().zip(verdicts) {
        if matches!(verdict, Verdict::Done(_)) {
            for slot in op.action.wants().into_iter().flat_map(SlotPair::iter) {
                *taken.entry(slot).or_insert(0) += 1;
            }
        }
    }
    taken
}
