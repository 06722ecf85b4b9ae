//! Reading slots, at most once at a time each.
//!
//! Invariant: a read that began under an earlier epoch, or before its slot was forgotten, is never believed.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Refusal, SlotId, SlotState, Timestamp};

use super::{Phase, Shard, publish, refused};
use crate::effects::{AskId, Effect, Effects, SlotCount};
use crate::pending::Stage;
use crate::slot::{Slot, Tick};

/// Reads wanted and under way.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    wanted: BTreeSet<SlotId>,
    under_way: BTreeMap<SlotId, Ticket>,
    effects: usize,
    pub(crate) waiters: BTreeMap<SlotId, Vec<AskId>>,
}

/// What a read may be used for.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    asked: Tick,
    void: bool,
}

// === impl Loads ===

impl Loads {
    pub(super) fn want(&mut self, slot: SlotId) {
        if !self.under_way.contains_key(&slot) {
            self.wanted.insert(slot);
        }
    }

    /// Whatever is under way was asked before memory was emptied.
    pub(super) fn void_all(&mut self) {
        for ticket in self.under_way.values_mut() {
            ticket.void = true;
        }
    }

    pub(super) fn reading(&self, slot: SlotId) -> bool {
        self.under_way.contains_key(&slot)
    }

    pub(super) fn void(&mut self, slot: SlotId) {
        if let Some(ticket) = self.under_way.get_mut(&slot) {
            ticket.void = true;
        }
    }
}

// === impl Shard ===

impl Shard {
    pub(super) fn wait_for_slots(&mut self, ask: AskId, slots: &[SlotId]) {
        let Some(first) = slots.first() else {
            return;
        };
        self.stage(ask, Stage::Loading);
        self.loads.waiters.entry(*first).or_default().push(ask);
        for slot in slots {
            self.loads.want(*slot);
        }
    }

    pub(super) fn flush_loads(&mut self, effects: &mut Effects) {
        while self.phase == Phase::Serving
            && self.loads.effects < self.limits.loads_max
            && !self.loads.wanted.is_empty()
        {
            let mut slots = Vec::new();
            while slots.len() < self.limits.load_slots_max
                && let Some(slot) = self.loads.wanted.pop_first()
            {
                self.loads.under_way.insert(
                    slot,
                    Ticket {
                        asked: self.tick,
                        void: false,
                    },
                );
                slots.push(slot);
            }
            self.loads.effects += 1;
            effects.push(Effect::Load { slots });
        }
    }

    pub(super) fn slots_loaded(
        &mut self,
        now: Timestamp,
        asked: &[SlotId],
        found: Vec<SlotState>,
        effects: &mut Effects,
    ) {
        self.loads.effects = self.loads.effects.saturating_sub(1);
        let mut found: BTreeMap<SlotId, SlotState> =
            found.into_iter().map(|state| (state.slot, state)).collect();
        let mut news = Vec::new();
        for slot in asked {
            let ticket = self.loads.under_way.remove(slot);
            let waiters = self.loads.waiters.remove(slot).unwrap_or_default();
            let usable = self.phase == Phase::Serving && ticket.is_some_and(|ticket| !ticket.void);
            let (Some(ticket), true) = (ticket, usable) else {
                // Read too early: those who wait have it read again.
                self.arrive_again(waiters);
                continue;
            };
            let refusal = match found.remove(slot) {
                None => Some(Refusal::SlotUnknown),
                Some(state) if state.shard != self.id => Some(Refusal::WrongShard),
                Some(state) => {
                    self.remember(now, state, ticket.asked);
                    None
                }
            };
            if let Some(refusal) = refusal {
                self.forget(*slot);
                for ask in waiters {
                    self.refuse(ask, refusal, effects);
                }
            } else {
                news.extend(self.slots.get_mut(slot).and_then(Slot::news));
                self.arrive_again(waiters);
            }
        }
        publish(news, effects);
    }

    pub(super) fn load_failed(&mut self, now: Timestamp, asked: &[SlotId], effects: &mut Effects) {
        self.loads.effects = self.loads.effects.saturating_sub(1);
        for slot in asked {
            self.loads.under_way.remove(slot);
            if let Some(known) = self.slots.get_mut(slot) {
                known.read_at = now;
                self.mark_stale(*slot);
            }
            for ask in self.loads.waiters.remove(slot).unwrap_or_default() {
                self.answer(ask, refused(Refusal::Unavailable), effects);
            }
        }
    }

    /// Slots of which memory may be too pessimistic, when their time has come.
    pub(super) fn reread_stale(&mut self, now: Timestamp) {
        if self.stale.is_empty() || now < self.stale_due {
            return;
        }
        let again = self.limits.reread_after;
        let mut due = now.plus(again);
        let (slots, loads) = (&self.slots, &mut self.loads);
        self.stale.retain(|slot| match slots.get(slot) {
            // What is on its way may be older than what made the slot stale.
            _ if loads.under_way.contains_key(slot) => true,
            None => false,
            Some(known) if now.since(known.read_at) >= again => {
                loads.want(*slot);
                false
            }
            Some(known) => {
                due = due.min(known.read_at.plus(again));
                true
            }
        });
        self.stale_due = due;
    }

    pub(crate) fn mark_stale(&mut self, slot: SlotId) {
        let again = self.limits.reread_after;
        let known = self.slots.get(&slot);
        let due = known.map_or(Timestamp::default(), |known| known.read_at.plus(again));
        self.stale_due = if self.stale.is_empty() {
            due
        } else {
            self.stale_due.min(due)
        };
        self.stale.insert(slot);
    }

    fn remember(&mut self, now: Timestamp, state: SlotState, asked: Tick) {
        let slot = state.slot;
        let tick = self.next_tick();
        if let Some(known) = self.slots.get_mut(&slot) {
            known.loaded = tick;
            if !known.apply(SlotCount::of(&state), asked, now) {
                self.mark_stale(slot);
            }
        } else {
            self.slots.insert(slot, Slot::new(state, now));
        }
    }

    /// A slot that is not ours; kept, but closed, while ops with its places are under way.
    pub(super) fn forget(&mut self, slot: SlotId) {
        if let Some(known) = self.slots.get_mut(&slot) {
            if known.taken > 0 {
                known.state.open = false;
            } else {
                self.slots.remove(&slot);
                self.loads.void(slot);
            }
        }
    }

    pub(super) fn arrive_again(&mut self, asks: Vec<AskId>) {
        for ask in asks {
            self.stage(ask, Stage::Arrived);
            self.arrivals.push_back(ask);
        }
    }
}
