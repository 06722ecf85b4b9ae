//! From the arrival of an ask to its place in the queue, and its answer.
//!
//! Invariant: a refusal about slots leaves only after the ledger was asked for a recorded answer of that request, and
//! the person had nothing under way meanwhile.

use std::collections::VecDeque;
use std::collections::btree_map::Entry;

use domain::{Op, Refusal, SlotId, SlotPair, SlotState, Timestamp, Verdict};

use super::{Phase, Shard, refused};
use crate::effects::{AskId, Effect, Effects};
use crate::pending::{Pending, Stage, Want, person_key};

/// What memory says to an op.
enum Opinion {
    /// Its places are there.
    Take,
    /// These must be read first; it waits for the first of them.
    Read(Vec<SlotId>),
    Refuse(Refusal),
}

impl Shard {
    pub(super) fn ask(&mut self, now: Timestamp, ask: AskId, want: Want, effects: &mut Effects) {
        assert!(
            !self.asks.contains_key(&ask),
            "shard {}: {ask:?} was asked twice",
            self.id
        );
        let refusal = if self.draining {
            Some(Refusal::NotOwner)
        } else if self.asks.len() >= self.limits.queue_ops_max || self.too_late(now) {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            effects.push(Effect::Reply {
                ask,
                verdict: refused(refusal),
            });
            return;
        }
        let mut stage = Stage::Arrived;
        if let Want::Op(op) = &want {
            match self.persons.entry(person_key(op)) {
                Entry::Vacant(free) => {
                    free.insert(VecDeque::new());
                }
                Entry::Occupied(mut busy) => {
                    busy.get_mut().push_back(ask);
                    stage = Stage::Parked;
                }
            }
        }
        if stage == Stage::Arrived {
            self.arrivals.push_back(ask);
        }
        self.asks.insert(
            ask,
            Pending {
                want,
                stage,
                unrecorded: false,
            },
        );
    }

    /// Decides from memory what happens to an ask next.
    pub(super) fn consider(&mut self, now: Timestamp, ask: AskId, effects: &mut Effects) {
        debug_assert_eq!(self.phase, Phase::Serving);
        // Stopped or answered in the meantime.
        let Some(pending) = self.asks.get(&ask) else {
            return;
        };
        match &pending.want {
            Want::Reserve(slot) => {
                let slot = *slot;
                match self.opinion_of_place(now, slot) {
                    Opinion::Take => {
                        *self.reserved.entry(slot).or_insert(0) += 1;
                        self.asks.remove(&ask);
                        effects.push(Effect::Reserved { ask });
                    }
                    Opinion::Read(slots) => self.wait_for_slots(ask, &slots),
                    Opinion::Refuse(refusal) => {
                        self.answer(ask, refused(refusal), effects);
                    }
                }
            }
            Want::Op(op) => {
                let opinion = self.opinion(now, op);
                let wants = op.action.wants();
                match opinion {
                    Opinion::Take => {
                        self.take_places(wants);
                        self.stage(ask, Stage::Queued);
                        self.queue.push_back(ask);
                    }
                    Opinion::Read(slots) => self.wait_for_slots(ask, &slots),
                    Opinion::Refuse(refusal) => self.refuse(ask, refusal, effects),
                }
            }
        }
    }

    fn opinion(&self, now: Timestamp, op: &Op) -> Opinion {
        let Some(wants) = op.action.wants() else {
            return Opinion::Take;
        };
        let unread: Vec<SlotId> = wants
            .iter()
            .filter(|slot| !self.slots.contains_key(slot))
            .collect();
        if !unread.is_empty() {
            return Opinion::Read(unread);
        }
        let states: Vec<&SlotState> = wants
            .iter()
            .filter_map(|slot| self.slots.get(&slot).map(|known| &known.state))
            .collect();
        if let Err(refusal) = op.rules.allow(&states, now) {
            return Opinion::Refuse(refusal);
        }
        for slot in wants.iter() {
            let opinion = self.opinion_of_place(now, slot);
            if !matches!(opinion, Opinion::Take) {
                return opinion;
            }
        }
        Opinion::Take
    }

    /// Whether one place is there. What was not read for a while is read again before anybody is refused.
    fn opinion_of_place(&self, now: Timestamp, slot: SlotId) -> Opinion {
        let Some(known) = self.slots.get(&slot) else {
            return Opinion::Read(vec![slot]);
        };
        if known.left(self.reserved_of(slot)) > 0 {
            Opinion::Take
        } else if now.since(known.read_at) >= self.limits.reread_after {
            Opinion::Read(vec![slot])
        } else if known.state.open {
            Opinion::Refuse(Refusal::SlotFull)
        } else {
            Opinion::Refuse(Refusal::SlotClosed)
        }
    }

    fn take_places(&mut self, wants: Option<SlotPair>) {
        for slot in wants.into_iter().flat_map(SlotPair::iter) {
            if let Some(known) = self.slots.get_mut(&slot) {
                known.taken += 1;
            }
        }
    }

    pub(crate) fn return_places(&mut self, wants: Option<SlotPair>) {
        for slot in wants.into_iter().flat_map(SlotPair::iter) {
            if let Some(known) = self.slots.get_mut(&slot) {
                assert!(
                    known.taken > 0,
                    "slot {slot} got a place back that nobody took"
                );
                known.taken -= 1;
            }
        }
    }

    /// A refusal by memory: final once the ledger said that nothing is recorded.
    pub(super) fn refuse(&mut self, ask: AskId, refusal: Refusal, effects: &mut Effects) {
        match self.asks.get(&ask) {
            None => {}
            Some(Pending {
                want: Want::Op(_),
                unrecorded: false,
                ..
            }) => {
                self.stage(ask, Stage::Looking);
                self.lookups.push_back((ask, refusal));
            }
            Some(_) => {
                self.answer(ask, refused(refusal), effects);
            }
        }
    }

    /// The one answer of an ask; lets the person's next ask proceed. Gives the op back.
    pub(crate) fn answer(
        &mut self,
        ask: AskId,
        verdict: Verdict,
        effects: &mut Effects,
    ) -> Option<Op> {
        let pending = self.asks.remove(&ask)?;
        self.suspects.remove(&ask);
        effects.push(Effect::Reply { ask, verdict });
        let Want::Op(op) = pending.want else {
            return None;
        };
        if let Entry::Occupied(mut busy) = self.persons.entry(person_key(&op)) {
            if let Some(next) = busy.get_mut().pop_front() {
                self.stage_arrived(next);
            } else {
                busy.remove();
            }
        }
        Some(op)
    }

    fn stage_arrived(&mut self, ask: AskId) {
        self.stage(ask, Stage::Arrived);
        self.arrivals.push_back(ask);
    }
}
