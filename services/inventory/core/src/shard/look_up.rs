//! Before memory refuses, the ledger is asked: a recorded answer is given again whatever the slot has become.

use domain::command::BodyHash;
use domain::{Recorded, Refusal, Verdict};

use super::{Shard, refused};
use crate::effects::{AskId, Effect, Effects};
use crate::pending::{Stage, Want, request_key};

impl Shard {
    pub(super) fn flush_lookups(&mut self, effects: &mut Effects) {
        if !self.looking.is_empty() {
            return;
        }
        let (mut asks, mut keys) = (Vec::new(), Vec::new());
        while asks.len() < self.limits.lookup_keys_max
            && let Some((ask, refusal)) = self.lookups.pop_front()
        {
            if let Some(Want::Op(op)) = self.asks.get(&ask).map(|pending| &pending.want) {
                keys.push(request_key(op));
                asks.push(ask);
                self.looking.push((ask, refusal));
            }
        }
        if !asks.is_empty() {
            effects.push(Effect::Lookup { asks, keys });
        }
    }

    pub(super) fn looked_up(
        &mut self,
        asks: &[AskId],
        recorded: Vec<Option<(BodyHash, Recorded)>>,
        effects: &mut Effects,
    ) {
        let looking = std::mem::take(&mut self.looking);
        assert!(
            looking.iter().map(|(ask, _)| ask).eq(asks) && recorded.len() == asks.len(),
            "shard {}: a lookup was answered that nobody made",
            self.id
        );
        for ((ask, refusal), found) in looking.into_iter().zip(recorded) {
            let Some(pending) = self.asks.get_mut(&ask) else {
                continue;
            };
            let Want::Op(op) = &pending.want else {
                continue;
            };
            match found {
                Some((hash, answer)) => {
                    let verdict = repeat(op.body_hash, hash, answer, Verdict::Exists);
                    self.answer(ask, verdict, effects);
                }
                // Places may have come back while the ledger was asked.
                None if refusal == Refusal::SlotFull => {
                    pending.unrecorded = true;
                    pending.stage = Stage::Arrived;
                    self.arrivals.push_back(ask);
                }
                None => {
                    self.answer(ask, refused(refusal), effects);
                }
            }
        }
    }

    pub(super) fn lookup_failed(&mut self, asks: &[AskId], effects: &mut Effects) {
        self.looking.clear();
        for ask in asks {
            self.answer(*ask, refused(Refusal::Unavailable), effects);
        }
    }
}

/// The recorded answer, where it is the answer to the same question.
pub(crate) fn repeat(
    asked: BodyHash,
    recorded: BodyHash,
    answer: Recorded,
    as_verdict: fn(Recorded) -> Verdict,
) -> Verdict {
    if asked == recorded {
        as_verdict(answer)
    } else {
        refused(Refusal::RequestIdReused)
    }
}
