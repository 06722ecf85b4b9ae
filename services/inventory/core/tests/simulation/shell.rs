//! The shell around each core: seizing, asking, hearing, answering.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use domain::{Epoch, Op, ShardId, SlotId, Timestamp, Verdict};
use inventory_core::{Alarm, AskId, BatchFailure, Effect, Input, Limits, Shard};

use crate::checker::{Checker, OwnerId};
use crate::ledger::SideOp;
use crate::people::PersonIndex;
use crate::world::{Event, World};

pub(crate) struct Owner {
    pub(crate) shard: ShardId,
    pub(crate) core: Option<Shard>,
    pub(crate) alive: bool,
    pub(crate) paused_until: Timestamp,
    /// What it was told while it was paused.
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) next_ask: u64,
    pub(crate) nonce: u64,
    pub(crate) expect: Epoch,
    pub(crate) sent: Option<usize>,
    pub(crate) moves: BTreeMap<AskId, (PersonIndex, SideOp)>,
    pub(crate) callers: BTreeMap<AskId, PersonIndex>,
    /// Moves committed under this epoch whose end the core has not heard of.
    pub(crate) moved: BTreeMap<SlotId, u32>,
    pub(crate) outbox: usize,
    /// Its epoch was in force before the ledger went back in time.
    pub(crate) outdated: Option<Epoch>,
}

impl World {
    pub(crate) fn take_over(&mut self, shard: ShardId) {
        let expect = self
            .ledger
            .shards
            .get(&shard)
            .map_or(Epoch(0), |row| row.epoch);
        let nonce = self.rng.next() | 1;
        self.owners.push(Owner {
            shard,
            core: None,
            alive: true,
            paused_until: Timestamp::default(),
            inbox: VecDeque::new(),
            next_ask: 0,
            nonce,
            expect,
            sent: None,
            moves: BTreeMap::new(),
            callers: BTreeMap::new(),
            moved: BTreeMap::new(),
            outbox: self.ledger.outbox.len(),
            outdated: None,
        });
        let owner = self.owners.len() - 1;
        self.after(
            1,
            30,
            Event::Seize {
                owner,
                expect,
                nonce,
            },
        );
    }

    pub(crate) fn seize(&mut self, id: OwnerId, expect: Epoch, nonce: u64) {
        let owner = &self.owners[id];
        if !owner.alive || owner.nonce != nonce {
            // The statement of an attempt that is over; the ledger judges it all the same.
            let _ = self
                .ledger
                .seize(owner.shard, expect, self.floor(owner.shard), nonce);
            return;
        }
        if self.rng.chance(self.faults.read_fails) {
            // Cut off for so long that it gives up; its first seizure has nothing to give up yet.
            if owner.core.is_some() && self.rng.chance(200) {
                let input = Input::LedgerLost;
                return self.after(1, 20, Event::Deliver { owner: id, input });
            }
            self.after(
                10,
                60,
                Event::Seize {
                    owner: id,
                    expect,
                    nonce,
                },
            );
            return;
        }
        let (shard, floor) = (owner.shard, self.floor(owner.shard));
        let result = self.ledger.seize(shard, expect, floor, nonce);
        if self.rng.chance(self.faults.answer_lost) {
            // Unheard: asked again with the same nonce.
            self.after(
                10,
                60,
                Event::Seize {
                    owner: id,
                    expect,
                    nonce,
                },
            );
            if let Ok(row) = result {
                self.floors.insert(shard, floor.max(row.epoch));
                self.checker.epoch_given(shard, row.epoch, id);
            }
            return;
        }
        match result {
            Ok(row) => {
                self.floors.insert(shard, floor.max(row.epoch));
                self.checker.epoch_given(shard, row.epoch, id);
                self.report.epochs += 1;
                if self.owners[id].core.is_none() {
                    let core = Shard::new(shard, row.epoch, small_limits());
                    self.owners[id].core = Some(core);
                } else {
                    let input = Input::Reseized {
                        epoch: row.epoch,
                        prev_epoch: row.prev_epoch,
                        prev_seq: row.prev_seq,
                    };
                    self.after(1, 20, Event::Deliver { owner: id, input });
                }
            }
            Err(_) if self.owners[id].core.is_none() => self.owners[id].alive = false,
            Err(found) => {
                let input = Input::SeizeFailed {
                    fenced: Some(found),
                };
                self.after(1, 20, Event::Deliver { owner: id, input });
            }
        }
    }

    pub(crate) fn floor(&self, shard: ShardId) -> Epoch {
        self.floors.get(&shard).copied().unwrap_or_default()
    }

    pub(crate) fn ask(&mut self, owner: OwnerId, person: PersonIndex, op: Op) {
        let Some(ask) = self.new_ask(owner) else {
            return;
        };
        let key = (op.claimant.campaign.clone(), op.claimant.person, op.request);
        self.checker.asked(owner, ask, key, op.body_hash);
        self.owners[owner].callers.insert(ask, person);
        self.deliver(owner, Input::Ask { ask, op });
    }

    pub(crate) fn ask_to_move(&mut self, owner: OwnerId, person: PersonIndex, op: SideOp) {
        let (Some(ask), Some(slot)) = (self.new_ask(owner), op.to) else {
            return;
        };
        self.owners[owner].moves.insert(ask, (person, op));
        self.deliver(owner, Input::Reserve { ask, slot });
    }

    pub(crate) fn new_ask(&mut self, owner: OwnerId) -> Option<AskId> {
        let owner = &mut self.owners[owner];
        owner.next_ask += 1;
        (owner.alive && owner.core.is_some()).then_some(AskId(owner.next_ask))
    }

    pub(crate) fn deliver(&mut self, id: OwnerId, input: Input) {
        let owner = &mut self.owners[id];
        if !owner.alive {
            return;
        }
        // What waits is heard in its order.
        if owner.paused_until > self.now || !owner.inbox.is_empty() {
            owner.inbox.push_back(input);
            return;
        }
        self.handle(id, input);
    }

    pub(crate) fn wake(&mut self, id: OwnerId) {
        let owner = &mut self.owners[id];
        if owner.paused_until > self.now {
            let until = owner.paused_until;
            self.at(until, Event::Wake { owner: id });
            return;
        }
        for input in std::mem::take(&mut owner.inbox) {
            if self.owners[id].alive {
                self.handle(id, input);
            }
        }
    }

    pub(crate) fn handle(&mut self, id: OwnerId, input: Input) {
        let owner = &mut self.owners[id];
        let Some(core) = &mut owner.core else {
            return;
        };
        let ended = matches!(
            &input,
            Input::BatchDone { .. }
                | Input::BatchFailed {
                    failure: BatchFailure::NotWritten,
                    ..
                }
                | Input::Swept { .. }
                | Input::SweepFailed {
                    failure: BatchFailure::NotWritten,
                    ..
                }
                | Input::Reseized { .. }
        );
        if ended {
            owner.sent = None;
        }
        if let Input::Unreserve {
            slot,
            outcome: Some(_),
        } = &input
            && let Some(moved) = owner.moved.get_mut(slot)
        {
            *moved = moved.saturating_sub(1);
        }
        let mut effects = std::mem::take(&mut self.effects);
        core.handle(self.now, input, &mut effects);
        core.assert_invariants();
        for effect in effects.drain() {
            self.apply(id, effect);
        }
        self.effects = effects;
        self.compare_memory(id);
    }

    /// When all is quiet an owner knows its slots as they are: nothing is lost to pessimism.
    pub(crate) fn compare_at_the_end(&self) {
        for owner in self.owners.iter().filter(|owner| owner.alive) {
            let in_force = self.ledger.shards.get(&owner.shard).map(|row| row.epoch);
            let core = owner.core.as_ref().filter(|core| !core.stopped());
            let Some(core) = core.filter(|core| in_force == Some(core.epoch())) else {
                continue;
            };
            assert!(core.idle(), "somebody still waits at {:?}", core.shard());
            if owner.outdated != in_force {
                Checker::memory_is_right(core, &self.ledger);
            }
        }
    }

    pub(crate) fn compare_memory(&self, id: OwnerId) {
        let owner = &self.owners[id];
        let Some(core) = &owner.core else {
            return;
        };
        let in_force = self.ledger.shards.get(&owner.shard).map(|row| row.epoch);
        if in_force != Some(core.epoch()) || owner.outdated == in_force || core.stopped() {
            return;
        }
        let taken = owner.sent.map(|sent| &self.statements[sent].taken);
        Checker::memory_is_not_optimistic(core, &self.ledger, |slot| {
            let taken = taken.and_then(|it| it.get(&slot)).copied().unwrap_or(0);
            (taken, owner.moved.get(&slot).copied().unwrap_or(0))
        });
    }

    pub(crate) fn apply(&mut self, id: OwnerId, effect: Effect) {
        let (shard, epoch) = {
            let owner = &self.owners[id];
            (owner.shard, owner.core.as_ref().expect("it acts").epoch())
        };
        match effect {
            Effect::Load { slots } => self.after(1, 20, Event::Load { owner: id, slots }),
            Effect::Lookup { asks, keys } => {
                self.after(
                    1,
                    20,
                    Event::Lookup {
                        owner: id,
                        asks,
                        keys,
                    },
                );
            }
            Effect::ReadVerdicts { keys } => {
                self.after(1, 20, Event::ReadVerdicts { owner: id, keys });
            }
            Effect::Send { seq, ops } => self.send(id, shard, epoch, seq, Some(ops), 0),
            Effect::Sweep { seq, limit } => self.send(id, shard, epoch, seq, None, limit),
            Effect::Seize { expect } => {
                let nonce = self.rng.next() | 1;
                (self.owners[id].nonce, self.owners[id].expect) = (nonce, expect);
                self.after(
                    1,
                    40,
                    Event::Seize {
                        owner: id,
                        expect,
                        nonce,
                    },
                );
            }
            Effect::Reply { ask, verdict } => self.reply(id, ask, verdict),
            Effect::Reserved { ask } => {
                if let Some((person, op)) = self.owners[id].moves.remove(&ask) {
                    let mover = Some((id, epoch));
                    self.after(1, 30, Event::Side { mover, person, op });
                }
            }
            Effect::Alarm {
                what: Alarm::Regressed { .. },
            } => self.report.regressions += 1,
            Effect::Alarm {
                what: Alarm::Reapplied { lost, .. },
            } => {
                self.report.reapplied += 1;
                self.checker.reapplied(id, lost, &self.ledger);
            }
            Effect::Alarm {
                what: Alarm::Constraint { .. },
            }
            | Effect::Publish { .. } => {}
            Effect::Stop { .. } => {
                if self.somebody_newer(id).is_none() {
                    self.take_over(shard);
                }
            }
        }
    }

    pub(crate) fn somebody_newer(&self, id: OwnerId) -> Option<OwnerId> {
        let shard = self.owners[id].shard;
        let newer =
            |other: &OwnerId| self.owners[*other].shard == shard && self.owners[*other].alive;
        (id + 1..self.owners.len()).find(newer)
    }

    pub(crate) fn reply(&mut self, id: OwnerId, ask: AskId, verdict: Verdict) {
        let owner = &mut self.owners[id];
        let person = if let Some((person, _)) = owner.moves.remove(&ask) {
            person
        } else {
            self.checker.replied(id, ask, &verdict, &self.ledger);
            owner.callers[&ask]
        };
        if !self.rng.chance(self.faults.answer_lost) {
            self.after(1, 30, Event::Answer { person, verdict });
        }
    }
}

/// Small enough that every limit is met.
fn small_limits() -> Limits {
    Limits {
        batch_ops_max: 4,
        queue_ops_max: 12,
        queue_wait_max: Duration::from_millis(50),
        reread_after: Duration::from_millis(150),
        send_attempts_max: 2,
        load_slots_max: 2,
        loads_max: 2,
        lookup_keys_max: 3,
        sweep_holds_max: 2,
        ring_ops_max: 4_096,
    }
}
