//! Doubt about a statement, the new epoch that ends it, and a ledger that went back in time.
//!
//! Invariant: nobody hears of a statement in doubt before a new epoch is in force: only then is it certain that it
//! will never commit later. Every new epoch starts with empty memory.

use std::collections::VecDeque;

use domain::command::BodyHash;
use domain::{Epoch, Recorded, Refusal, Timestamp, Verdict};

use super::look_up::repeat;
use super::{Doubt, Phase, Reapply, Shard, refused};
use crate::batch::{InFlight, Work};
use crate::effects::{Alarm, AskId, Effect, Effects, Stop};
use crate::pending::{Stage, Want, request_key};

impl Shard {
    /// Asks for a new epoch; the statement under way stays in doubt until it is there.
    pub(crate) fn lose_track(&mut self, doubt: Doubt, expect: Epoch, effects: &mut Effects) {
        self.phase = Phase::Seizing(doubt);
        self.loads.void_all();
        effects.push(Effect::Seize { expect });
    }

    pub(super) fn reseized(
        &mut self,
        epoch: Epoch,
        prev_epoch: Epoch,
        prev_seq: u64,
        effects: &mut Effects,
    ) {
        let Phase::Seizing(doubt) = self.phase else {
            return;
        };
        assert!(
            epoch > self.epoch,
            "shard {}: epoch {epoch} was given after {}",
            self.id,
            self.epoch
        );
        let went_back =
            prev_epoch < self.epoch || (prev_epoch == self.epoch && prev_seq < self.committed);
        if went_back && doubt != Doubt::Regressed {
            self.regressed(prev_epoch, Some(prev_seq), effects);
        }
        let doubtful = self.in_flight.take();
        let committed = !went_back
            && doubt == Doubt::Unknown
            && doubtful.as_ref().is_some_and(|it| it.seq <= prev_seq);
        self.begin_epoch(epoch);

        let reapplying = !self.reapply.left.is_empty()
            || matches!(
                doubtful,
                Some(InFlight {
                    work: Work::Reapply(_),
                    ..
                })
            );
        let mut again = Vec::new();
        if let Some(statement) = doubtful {
            match statement.work {
                Work::Ops(asks) if committed => {
                    self.read_verdicts(asks, statement.sent_at, effects)
                }
                Work::Ops(asks) if doubt == Doubt::Constraint => {
                    again = self.suspect(asks, effects);
                }
                Work::Ops(asks) => again = asks,
                // The culprit alone: it would fire the check again and again.
                Work::Reapply(ops) if doubt == Doubt::Constraint && ops.len() == 1 => {
                    ops.iter().for_each(|op| self.give_up(op));
                }
                Work::Sweep | Work::Reapply(_) => {}
            }
        }
        self.decide_again(again);
        if went_back || doubt == Doubt::Regressed || reapplying {
            self.start_reapplying(doubt, effects);
        } else if self.phase != Phase::Reading {
            self.phase = Phase::Serving;
        }
    }

    fn begin_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.committed = 0;
        self.slots.clear();
        self.stale.clear();
    }

    fn read_verdicts(&mut self, asks: Vec<AskId>, sent_at: Timestamp, effects: &mut Effects) {
        let keys = asks
            .iter()
            .filter_map(|ask| match &self.asks.get(ask)?.want {
                Want::Op(op) => Some(request_key(op)),
                Want::Reserve(_) => None,
            });
        effects.push(Effect::ReadVerdicts {
            keys: keys.collect(),
        });
        self.phase = Phase::Reading;
        self.in_flight = Some(InFlight {
            seq: 0,
            sent: self.tick,
            sent_at,
            attempts: 0,
            work: Work::Ops(asks),
        });
    }

    /// One op alone whose check fires is the culprit; several are sent one by one.
    fn suspect(&mut self, asks: Vec<AskId>, effects: &mut Effects) -> Vec<AskId> {
        if let [ask] = asks[..] {
            self.answer(ask, refused(Refusal::Unavailable), effects);
            return Vec::new();
        }
        self.suspects.extend(asks.iter().copied());
        asks
    }

    /// Memory is empty: these, and all that were queued, are considered anew, before later ones.
    fn decide_again(&mut self, asks: Vec<AskId>) {
        let later = std::mem::take(&mut self.arrivals);
        let mut order: VecDeque<AskId> = asks.into();
        order.append(&mut self.queue);
        for ask in &order {
            self.stage(*ask, Stage::Arrived);
        }
        order.extend(later);
        self.arrivals = order;
    }

    pub(super) fn seize_failed(&mut self, fenced: Option<Epoch>, effects: &mut Effects) {
        let (Phase::Seizing(doubt), Some(found)) = (self.phase, fenced) else {
            return;
        };
        let doubtful = self.in_flight.as_ref().map(|statement| &statement.work);
        if doubt == Doubt::Regressed || matches!(doubtful, Some(Work::Reapply(_))) {
            self.stop(Stop::Regressed, effects);
        } else if found < self.epoch {
            self.regressed(found, None, effects);
            self.lose_track(Doubt::Regressed, found, effects);
        } else {
            self.stop(Stop::Fenced, effects);
        }
    }

    pub(super) fn verdicts_read(
        &mut self,
        recorded: Vec<Option<(BodyHash, Recorded)>>,
        effects: &mut Effects,
    ) {
        if self.phase != Phase::Reading {
            return;
        }
        let Some(InFlight {
            work: Work::Ops(asks),
            ..
        }) = self.in_flight.take()
        else {
            return;
        };
        assert_eq!(
            asks.len(),
            recorded.len(),
            "shard {}: as many records as ops",
            self.id
        );
        let mut again = Vec::new();
        for (ask, found) in asks.into_iter().zip(recorded) {
            let Some(Want::Op(op)) = self.asks.get(&ask).map(|pending| &pending.want) else {
                continue;
            };
            match found {
                // Refused by that batch, which wrote nothing for it.
                None => again.push(ask),
                Some((hash, answer)) => {
                    let verdict = repeat(op.body_hash, hash, answer, Verdict::Done);
                    let done = matches!(verdict, Verdict::Done(_));
                    let op = self.answer(ask, verdict, effects);
                    self.acknowledged(op.filter(|_| done));
                }
            }
        }
        self.phase = Phase::Serving;
        self.decide_again(again);
    }

    pub(crate) fn regressed(&self, found: Epoch, found_seq: Option<u64>, effects: &mut Effects) {
        let what = Alarm::Regressed {
            held: self.epoch,
            committed: self.committed,
            found,
            found_seq,
        };
        Self::alarm(what, effects);
    }

    /// From the oldest remembered op on: those the ledger still has answer `EXISTS`.
    fn start_reapplying(&mut self, doubt: Doubt, effects: &mut Effects) {
        self.reapply = Reapply {
            left: self.ring.clone(),
            one_by_one: doubt == Doubt::Constraint || self.reapply.one_by_one,
            kept: 0,
            // What was given up has left the ring and is not counted a second time.
            lost: self.reapply.lost,
        };
        self.phase = Phase::Reapplying;
        self.reapplied(effects);
    }

    /// Serves again once all of them are applied.
    pub(crate) fn reapplied(&mut self, effects: &mut Effects) {
        if self.reapply.left.is_empty() {
            let Reapply { kept, lost, .. } = std::mem::take(&mut self.reapply);
            Self::alarm(Alarm::Reapplied { kept, lost }, effects);
            self.phase = Phase::Serving;
        }
    }
}
