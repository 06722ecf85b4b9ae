//! What happens by itself: the outbox's tail, crashes, pauses, take-overs, operators, a ledger that goes back.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::{ShardId, SlotId, Timestamp};
use inventory_core::{Input, Shard};

use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::world::{Event, QUIET_MS, SHARDS, TROUBLE_MS, World};

impl World {
    pub(crate) fn tick(&mut self) {
        let holds = self.ledger.has_expired_holds();
        for id in 0..self.owners.len() {
            let owner = &mut self.owners[id];
            if !owner.alive || owner.core.is_none() {
                continue;
            }
            let from = owner.outbox.min(self.ledger.outbox.len());
            let changed: BTreeSet<SlotId> = self.ledger.outbox[from..].iter().copied().collect();
            owner.outbox = self.ledger.outbox.len();
            let shard = owner.shard;
            let changed: Vec<SlotId> = changed.into_iter().collect();
            let mut slots = self.ledger.read(&changed);
            slots.retain(|state| state.shard == shard);
            if !slots.is_empty() {
                let input = Input::SlotsChanged { slots };
                self.after(1, 300, Event::Deliver { owner: id, input });
            }
            let input = Input::Tick;
            self.after(1, 30, Event::Deliver { owner: id, input });
            if holds {
                self.after(
                    1,
                    30,
                    Event::Deliver {
                        owner: id,
                        input: Input::SweepDue,
                    },
                );
            }
        }
        if self.now.since(Timestamp::default()) < Duration::from_millis(QUIET_MS) {
            self.after(80, 120, Event::Tick);
        }
    }

    pub(crate) fn trouble(&mut self) {
        let id = self.rng.index(self.owners.len());
        if self.rng.chance(self.faults.crash) && self.owners[id].alive {
            self.owners[id].alive = false;
            self.take_over(self.owners[id].shard);
        }
        if self.rng.chance(self.faults.pause) {
            let until = self.now.plus(self.rng.millis(10, 1_500));
            self.owners[id].paused_until = self.owners[id].paused_until.max(until);
            self.at(until, Event::Wake { owner: id });
        }
        if self.rng.chance(self.faults.take_over) {
            let shard = ShardId(u32::try_from(self.rng.below(u64::from(SHARDS))).expect("small"));
            self.take_over(shard);
        }
        if self.rng.chance(self.faults.drain) {
            self.after(
                1,
                1,
                Event::Deliver {
                    owner: id,
                    input: Input::Drain,
                },
            );
        }
        if self.rng.chance(self.faults.operator) {
            self.operate();
        }
        if self.faults.regress > 0 {
            self.maybe_regress();
        }
        if self.now.since(Timestamp::default()) < Duration::from_millis(TROUBLE_MS) {
            self.after(10, 60, Event::Trouble);
        }
    }

    /// An operator closes, opens or enlarges a slot.
    pub(crate) fn operate(&mut self) {
        let slot = SlotId(1 + self.rng.below(self.ledger.slots.len() as u64));
        let close = self.rng.chance(500);
        if let Some(state) = self.ledger.slots.get_mut(&slot) {
            if close {
                state.open = !state.open;
            } else if state.capacity < 6 {
                state.capacity += 1;
            } else {
                state.capacity = state.booked;
            }
            self.ledger.outbox.push(slot);
        }
    }

    /// Once in a world: what one regression means is hard enough to tell.
    pub(crate) fn maybe_regress(&mut self) {
        if self.owners.iter().any(|owner| owner.outdated.is_some()) {
            return;
        }
        if self.snapshot.is_none() || self.rng.chance(100) {
            self.snapshot = Some(self.ledger.clone());
        } else if self.rng.chance(self.faults.regress)
            && let Some(earlier) = self.snapshot.take()
        {
            let outbox = std::mem::take(&mut self.ledger.outbox);
            self.ledger = Ledger {
                outbox,
                now: self.now,
                ..earlier
            };
            self.checker.went_back();
            for owner in &mut self.owners {
                owner.outdated = owner.core.as_ref().map(Shard::epoch);
                owner.moved.clear();
            }
        }
    }

    /// From now on everything works; each shard has somebody, and everybody wakes.
    pub(crate) fn calm(&mut self) {
        self.faults = Faults::NONE;
        for shard in 0..SHARDS {
            self.take_over(ShardId(shard));
        }
    }
}
