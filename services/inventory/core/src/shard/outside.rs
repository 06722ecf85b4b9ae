//! What others do to our slots: moves into them, cancellations, operators.

use domain::{SlotId, SlotState};

use super::{Phase, Shard, publish};
use crate::effects::{Effects, SlotCount};

impl Shard {
    /// A move is over. Its count may be older than what is known, so it can only raise `booked`; when the slot then
    /// looks fuller than it is, it is read again.
    pub(super) fn unreserve(
        &mut self,
        slot: SlotId,
        outcome: Option<SlotCount>,
        effects: &mut Effects,
    ) {
        match self.reserved.get_mut(&slot) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.reserved.remove(&slot);
            }
            None => panic!("shard {}: slot {slot} was not reserved", self.id),
        }
        let Some(outcome) = outcome else {
            return;
        };
        let tick = self.next_tick();
        let Some(known) = self.slots.get_mut(&slot) else {
            self.loads.void(slot);
            return;
        };
        known.settled = tick;
        known.apply_pessimistically(outcome);
        publish(known.news().into_iter().collect(), effects);
        if known.differs(outcome) {
            self.mark_stale(slot);
        }
    }

    /// The ledger's state at some moment, which may be long ago: it can only make memory more pessimistic, and counts
    /// under way since before are then no longer believed in full either. Whatever else differs is read again, with
    /// a ticket. A slot that is not in memory stays out of it: this may have been read before our epoch began.
    pub(super) fn slots_changed(&mut self, slots: &[SlotState], effects: &mut Effects) {
        let mut news = Vec::new();
        for state in slots {
            let count = SlotCount::of(state);
            if state.shard != self.id {
                self.forget(state.slot);
                continue;
            }
            if self.loads.reading(state.slot) {
                // The read under way may be older than this.
                self.mark_stale(state.slot);
            }
            let Some(known) = self.slots.get_mut(&state.slot) else {
                if self.phase == Phase::Serving {
                    news.push(count.left());
                }
                continue;
            };
            if !known.differs(count) {
                continue;
            }
            if known.apply_pessimistically(count) {
                self.tick.0 += 1;
                known.settled = self.tick;
                news.extend(known.news());
            }
            self.mark_stale(state.slot);
        }
        publish(news, effects);
    }
}
