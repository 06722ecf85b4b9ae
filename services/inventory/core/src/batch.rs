//! The one statement under way: what it is made of, and what its end means.
//!
//! Invariant: replies leave here only after a commit, or after it is certain that nothing was written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::{Op, Refusal, SlotId, SlotPair, Timestamp, Verdict};

use crate::effects::{Alarm, AskId, BatchFailure, Effect, Effects, SlotCount, SlotLeft, Stop};
use crate::pending::{Stage, Want, person_key, request_key};
use crate::shard::{Doubt, Phase, Shard, publish, refused};
use crate::slot::Tick;

/// The statement under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) seq: u64,
    pub(crate) sent: Tick,
    /// When it was sent first, by the owner's clock.
    pub(crate) sent_at: Timestamp,
    /// How often it was sent.
    pub(crate) attempts: u32,
    pub(crate) work: Work,
}

/// What a statement does.
#[derive(Debug)]
pub(crate) enum Work {
    Ops(Vec<AskId>),
    Sweep,
    Reapply(Vec<Op>),
}

impl Shard {
    /// Sends the next statement where none is under way.
    pub(crate) fn send_next(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.in_flight.is_some() {
            return;
        }
        let work = match self.phase {
            Phase::Serving if self.sweep_wanted => {
                self.sweep_wanted = false;
                Work::Sweep
            }
            Phase::Serving if !self.queue.is_empty() => Work::Ops(self.next_asks()),
            Phase::Reapplying => Work::Reapply(self.next_reapplied()),
            Phase::Serving | Phase::Seizing(_) | Phase::Reading | Phase::Stopped => return,
        };
        let next = InFlight {
            seq: self.committed + 1,
            sent: self.tick,
            sent_at: now,
            attempts: 0,
            work,
        };
        self.send(next, effects);
    }

    fn send(&mut self, mut statement: InFlight, effects: &mut Effects) {
        statement.attempts += 1;
        let seq = statement.seq;
        effects.push(match &statement.work {
            Work::Sweep => Effect::Sweep {
                seq,
                limit: self.limits.sweep_holds_max,
            },
            Work::Reapply(ops) => Effect::Send {
                seq,
                ops: ops.clone(),
            },
            Work::Ops(asks) => {
                let mut ops = Vec::with_capacity(asks.len());
                for ask in asks {
                    if let Some(pending) = self.asks.get_mut(ask)
                        && let Want::Op(op) = &pending.want
                    {
                        pending.stage = Stage::InFlight;
                        pending.unrecorded = false;
                        ops.push(op.clone());
                    }
                }
                Effect::Send { seq, ops }
            }
        });
        self.in_flight = Some(statement);
    }

    fn next_asks(&mut self) -> Vec<AskId> {
        let mut asks = Vec::new();
        while asks.len() < self.limits.batch_ops_max
            && let Some(ask) = self.queue.front().copied()
        {
            let suspect = self.suspects.contains(&ask);
            if suspect && !asks.is_empty() {
                break;
            }
            self.queue.pop_front();
            self.suspects.remove(&ask);
            asks.push(ask);
            if suspect {
                break;
            }
        }
        asks
    }

    /// The next acknowledged ops, in their order, up to a second op of one person.
    fn next_reapplied(&mut self) -> Vec<Op> {
        let most = if self.reapply.one_by_one {
            1
        } else {
            self.limits.batch_ops_max
        };
        let (mut ops, mut persons) = (Vec::new(), BTreeSet::new());
        while ops.len() < most
            && let Some(op) = self.reapply.left.front()
            && persons.insert(person_key(op))
        {
            ops.extend(self.reapply.left.pop_front());
        }
        ops
    }

    /// Whether this is the end of the statement under way; a late word about another one is dropped.
    fn ends(&self, seq: u64) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Reapplying)
            && self.in_flight.as_ref().is_some_and(|it| it.seq == seq)
    }

    pub(crate) fn batch_done(
        &mut self,
        now: Timestamp,
        seq: u64,
        verdicts: Vec<Verdict>,
        counts: &[SlotCount],
        effects: &mut Effects,
    ) {
        if !self.ends(seq) {
            return;
        }
        let Some(statement) = self.in_flight.take() else {
            return;
        };
        self.committed = seq;
        match statement.work {
            Work::Sweep => {}
            Work::Ops(asks) => {
                assert_eq!(
                    asks.len(),
                    verdicts.len(),
                    "shard {} batch {seq}: as many verdicts as ops",
                    self.id
                );
                self.took(now.since(statement.sent_at));
                self.settle(now, statement.sent, &asks, &verdicts, counts, effects);
                for (ask, verdict) in asks.into_iter().zip(verdicts) {
                    let done = matches!(verdict, Verdict::Done(_));
                    let op = self.answer(ask, verdict, effects);
                    self.acknowledged(op.filter(|_| done));
                }
            }
            Work::Reapply(ops) => {
                let published = counts.iter().map(|count| count.left()).collect();
                publish(published, effects);
                for (op, verdict) in ops.iter().zip(verdicts) {
                    if matches!(verdict, Verdict::Refused { .. }) {
                        self.give_up(op);
                    } else {
                        self.reapply.kept += 1;
                    }
                }
                self.reapplied(effects);
            }
        }
    }

    /// Learns how long statements take: the first one as it is, then a quarter of each.
    fn took(&mut self, took: Duration) {
        self.statement_takes = if self.statement_takes.is_zero() {
            took
        } else {
            (self.statement_takes * 3 + took) / 4
        };
    }

    /// Whether who comes now would wait too long: for the statement under way, all full ones queued, and their own.
    pub(crate) fn too_late(&self, now: Timestamp) -> bool {
        let full = self.queue.len() / self.limits.batch_ops_max;
        if full == 0 {
            return false;
        }
        // A stampede's first full statement takes longer than all before it did: its own time counts while it lasts.
        let under_way = self.in_flight.as_ref().map(|it| now.since(it.sent_at));
        let takes = self.statement_takes.max(under_way.unwrap_or_default());
        let statements = u32::try_from(full + 1).unwrap_or(u32::MAX);
        takes.saturating_mul(statements) > self.limits.queue_wait_max
    }

    /// Replaces the places taken by a committed batch by the ledger's counts.
    fn settle(
        &mut self,
        now: Timestamp,
        sent: Tick,
        asks: &[AskId],
        verdicts: &[Verdict],
        counts: &[SlotCount],
        effects: &mut Effects,
    ) {
        let counted: BTreeSet<SlotId> = counts.iter().map(|count| count.slot).collect();
        let mut uncounted: BTreeMap<SlotId, u32> = BTreeMap::new();
        for (ask, verdict) in asks.iter().zip(verdicts) {
            let wants = self.wants_of(*ask);
            self.return_places(wants);
            if matches!(verdict, Verdict::Done(_)) {
                for slot in wants.into_iter().flat_map(SlotPair::iter) {
                    if !counted.contains(&slot) {
                        *uncounted.entry(slot).or_insert(0) += 1;
                    }
                }
            }
        }
        let tick = self.next_tick();
        for (slot, more) in uncounted {
            if let Some(known) = self.slots.get_mut(&slot) {
                known.state.booked = known.state.booked.saturating_add(more);
                known.settled = tick;
            }
            self.mark_stale(slot);
        }
        let news = self.take_counts(now, sent, tick, counts);
        publish(news, effects);
    }

    fn take_counts(
        &mut self,
        now: Timestamp,
        sent: Tick,
        tick: Tick,
        counts: &[SlotCount],
    ) -> Vec<SlotLeft> {
        let mut news = Vec::new();
        for count in counts {
            let Some(known) = self.slots.get_mut(&count.slot) else {
                news.push(count.left());
                continue;
            };
            // A read that came meanwhile may be the newer one of the two.
            let overtaken = known.loaded > sent;
            let believed = known.apply(*count, sent, now) && !overtaken;
            known.settled = tick;
            news.extend(known.news());
            if !believed {
                self.mark_stale(count.slot);
            }
        }
        news
    }

    pub(crate) fn swept(
        &mut self,
        now: Timestamp,
        seq: u64,
        counts: &[SlotCount],
        effects: &mut Effects,
    ) {
        if !self.ends(seq) {
            return;
        }
        if let Some(statement) = self.in_flight.take() {
            self.committed = seq;
            let tick = self.next_tick();
            let news = self.take_counts(now, statement.sent, tick, counts);
            publish(news, effects);
        }
    }

    pub(crate) fn statement_failed(
        &mut self,
        seq: u64,
        failure: BatchFailure,
        effects: &mut Effects,
    ) {
        if !self.ends(seq) {
            return;
        }
        match failure {
            BatchFailure::NotWritten => self.not_written(effects),
            BatchFailure::Unknown => self.lose_track(Doubt::Unknown, self.epoch, effects),
            // Another number is in force, not another owner: only the ledger can say what that means.
            BatchFailure::Fenced { found } if found == self.epoch => {
                self.lose_track(Doubt::Unknown, self.epoch, effects);
            }
            BatchFailure::Fenced { found } if found < self.epoch => {
                self.regressed(found, None, effects);
                self.lose_track(Doubt::Regressed, found, effects);
            }
            BatchFailure::Fenced { .. } => {
                let why = if self.phase == Phase::Reapplying {
                    Stop::Regressed
                } else {
                    Stop::Fenced
                };
                self.stop(why, effects);
            }
            BatchFailure::Constraint => {
                let ops = match self.in_flight.as_ref().map(|it| &it.work) {
                    Some(Work::Ops(asks)) => asks.len(),
                    Some(Work::Reapply(ops)) => ops.len(),
                    Some(Work::Sweep) | None => 0,
                };
                Self::alarm(Alarm::Constraint { ops }, effects);
                self.lose_track(Doubt::Constraint, self.epoch, effects);
            }
        }
    }

    /// Sends it again under the same number, a few times.
    fn not_written(&mut self, effects: &mut Effects) {
        let Some(statement) = self.in_flight.take() else {
            return;
        };
        let again = statement.attempts < self.limits.send_attempts_max;
        match statement.work {
            // Nobody waits for a sweep; the shell asks for the next one.
            Work::Sweep => {}
            Work::Ops(asks) if !again => {
                for ask in asks {
                    self.return_places(self.wants_of(ask));
                    self.answer(ask, refused(Refusal::Unavailable), effects);
                }
            }
            Work::Ops(_) | Work::Reapply(_) => self.send(statement, effects),
        }
    }

    pub(crate) fn wants_of(&self, ask: AskId) -> Option<SlotPair> {
        match &self.asks.get(&ask)?.want {
            Want::Op(op) => op.action.wants(),
            Want::Reserve(_) => None,
        }
    }

    /// An acknowledged op that the ledger does not take back: told to a person, and never tried again.
    pub(crate) fn give_up(&mut self, lost: &Op) {
        self.reapply.lost += 1;
        let key = request_key(lost);
        self.ring.retain(|op| request_key(op) != key);
    }

    /// Remembers an op whose success was told.
    pub(crate) fn acknowledged(&mut self, op: Option<Op>) {
        let Some(op) = op else {
            return;
        };
        while self.ring.len() >= self.limits.ring_ops_max {
            if self.ring.pop_front().is_none() {
                return;
            }
        }
        self.ring.push_back(op);
    }
}
