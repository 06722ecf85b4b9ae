//! One ownership of one shard: what is remembered, and the order in which an input is worked off.
//!
//! Invariant: at most one statement is under way; every ask is in exactly one place and answered exactly once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use domain::{Epoch, Op, Refusal, ShardId, SlotId, Timestamp, Verdict};

use crate::batch::{InFlight, Work};
use crate::effects::{Alarm, AskId, Effect, Effects, Input, SlotLeft, Stop};
use crate::limits::Limits;
use crate::pending::{Pending, PersonKey, Stage, Want};
use crate::slot::{Slot, SlotMemory, Tick};

mod ask;
mod epoch;
mod load;
mod look_up;
mod outside;

use load::Loads;

/// One shard's owner, from its first epoch to its stop.
#[derive(Debug)]
pub struct Shard {
    pub(crate) id: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) limits: Limits,
    pub(crate) phase: Phase,
    pub(crate) draining: bool,
    /// The last statement of this epoch known to be committed.
    pub(crate) committed: u64,
    /// Rises at each settling; see `slot`.
    pub(crate) tick: Tick,

    pub(crate) asks: BTreeMap<AskId, Pending>,
    /// Persons with an op under way, and their later asks.
    pub(crate) persons: BTreeMap<PersonKey, VecDeque<AskId>>,
    pub(crate) arrivals: VecDeque<AskId>,
    pub(crate) queue: VecDeque<AskId>,
    /// Ops of a statement whose capacity check fired: sent one by one.
    pub(crate) suspects: BTreeSet<AskId>,
    pub(crate) in_flight: Option<InFlight>,
    /// How long statements with ops take lately; zero before the first.
    pub(crate) statement_takes: Duration,
    pub(crate) lookups: VecDeque<(AskId, Refusal)>,
    pub(crate) looking: Vec<(AskId, Refusal)>,
    pub(crate) sweep_wanted: bool,

    pub(crate) slots: BTreeMap<SlotId, Slot>,
    /// Outlives an epoch, as the moves do.
    pub(crate) reserved: BTreeMap<SlotId, u32>,
    pub(crate) loads: Loads,
    /// Slots of which memory may be too pessimistic, and when the first of them may be read again.
    pub(crate) stale: BTreeSet<SlotId>,
    pub(crate) stale_due: Timestamp,

    /// Acknowledged ops, the oldest first.
    pub(crate) ring: VecDeque<Op>,
    pub(crate) reapply: Reapply,
}

/// What the shard is doing as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// A new epoch was asked for; the statement in `in_flight`, if any, is in doubt.
    Seizing(Doubt),
    /// The statement in `in_flight` committed under the previous epoch; its verdicts are being read.
    Reading,
    /// Acknowledged ops are applied again.
    Reapplying,
    Stopped,
}

/// Why a new epoch was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    Unknown,
    Constraint,
    Regressed,
}

/// Acknowledged ops that are applied again after the ledger went back in time.
#[derive(Debug, Default)]
pub(crate) struct Reapply {
    pub(crate) left: VecDeque<Op>,
    pub(crate) one_by_one: bool,
    pub(crate) kept: usize,
    pub(crate) lost: usize,
}

// === impl Shard ===

impl Shard {
    /// The owner of `shard` under an epoch that was just seized: nothing in memory, no statement sent.
    #[must_use]
    pub fn new(shard: ShardId, epoch: Epoch, limits: Limits) -> Self {
        limits.assert_positive();
        Self {
            id: shard,
            epoch,
            limits,
            phase: Phase::Serving,
            draining: false,
            committed: 0,
            tick: Tick::default(),
            asks: BTreeMap::new(),
            persons: BTreeMap::new(),
            arrivals: VecDeque::new(),
            queue: VecDeque::new(),
            suspects: BTreeSet::new(),
            in_flight: None,
            statement_takes: Duration::ZERO,
            lookups: VecDeque::new(),
            looking: Vec::new(),
            sweep_wanted: false,
            slots: BTreeMap::new(),
            reserved: BTreeMap::new(),
            loads: Loads::default(),
            stale: BTreeSet::new(),
            stale_due: Timestamp::default(),
            ring: VecDeque::new(),
            reapply: Reapply::default(),
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Effects) {
        if self.phase == Phase::Stopped {
            Self::turn_away(input, effects);
            return;
        }
        match input {
            Input::Ask { ask, op } => self.ask(now, ask, Want::Op(op), effects),
            Input::Reserve { ask, slot } => self.ask(now, ask, Want::Reserve(slot), effects),
            Input::Unreserve { slot, outcome } => self.unreserve(slot, outcome, effects),
            Input::SlotsLoaded { asked, found } => self.slots_loaded(now, &asked, found, effects),
            Input::LoadFailed { asked } => self.load_failed(now, &asked, effects),
            Input::BatchDone {
                seq,
                verdicts,
                slots,
            } => self.batch_done(now, seq, verdicts, &slots, effects),
            Input::Swept { seq, slots } => self.swept(now, seq, &slots, effects),
            Input::BatchFailed { seq, failure } | Input::SweepFailed { seq, failure } => {
                self.statement_failed(seq, failure, effects);
            }
            Input::Reseized {
                epoch,
                prev_epoch,
                prev_seq,
            } => self.reseized(epoch, prev_epoch, prev_seq, effects),
            Input::SeizeFailed { fenced } => self.seize_failed(fenced, effects),
            Input::LedgerLost => self.stop(Stop::CutOff, effects),
            Input::VerdictsRead { recorded } => self.verdicts_read(recorded, effects),
            Input::LookedUp { asks, recorded } => self.looked_up(&asks, recorded, effects),
            Input::LookupFailed { asks } => self.lookup_failed(&asks, effects),
            Input::SlotsChanged { slots } => self.slots_changed(&slots, effects),
            Input::Tick => {}
            Input::SweepDue => self.sweep_wanted = true,
            Input::Drain => self.draining = true,
        }
        self.proceed(now, effects);
        self.check_now_and_then();
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.id
    }

    /// The epoch it writes under.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Asks that wait for an answer, in all stages.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.asks.len()
    }

    /// Whether nobody waits and no statement is under way.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.asks.is_empty() && self.in_flight.is_none() && self.reserved.is_empty()
    }

    /// Whether it admits nobody any more.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Whether it is over.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// What is remembered of a slot; `None` when it is not loaded. For checks.
    #[must_use]
    pub fn memory(&self, slot: SlotId) -> Option<SlotMemory> {
        self.slots
            .get(&slot)
            .map(|known| known.memory(self.reserved_of(slot)))
    }

    /// Everything that has become possible by an input, in an order that lets one statement carry all of it.
    fn proceed(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.phase == Phase::Serving {
            while let Some(ask) = self.arrivals.pop_front() {
                self.consider(now, ask, effects);
            }
            self.reread_stale(now);
        }
        self.send_next(now, effects);
        self.flush_loads(effects);
        self.flush_lookups(effects);
        if self.draining && self.phase == Phase::Serving && self.idle() {
            self.phase = Phase::Stopped;
            effects.push(Effect::Stop { why: Stop::Drained });
        }
    }

    /// Whoever comes after the stop.
    fn turn_away(input: Input, effects: &mut Effects) {
        if let Input::Ask { ask, .. } | Input::Reserve { ask, .. } = input {
            effects.push(Effect::Reply {
                ask,
                verdict: refused(Refusal::NotOwner),
            });
        }
    }

    /// Answers everybody `NOT_OWNER` and stops. Of a statement in doubt only its outcome can be told: not known.
    pub(crate) fn stop(&mut self, why: Stop, effects: &mut Effects) {
        let in_doubt = match (self.phase, self.in_flight.take().map(|it| it.work)) {
            (Phase::Seizing(Doubt::Unknown) | Phase::Reading, Some(Work::Ops(asks))) => asks,
            // On its way, and nobody will hear of it here.
            (Phase::Serving, Some(Work::Ops(asks))) if why == Stop::CutOff => asks,
            _ => Vec::new(),
        };
        self.phase = Phase::Stopped;
        for ask in std::mem::take(&mut self.asks).into_keys() {
            let refusal = if in_doubt.contains(&ask) {
                Refusal::OutcomeUnknown
            } else {
                Refusal::NotOwner
            };
            effects.push(Effect::Reply {
                ask,
                verdict: refused(refusal),
            });
        }
        self.persons.clear();
        self.arrivals.clear();
        self.queue.clear();
        self.suspects.clear();
        self.lookups.clear();
        self.looking.clear();
        self.slots.clear();
        self.loads = Loads::default();
        effects.push(Effect::Stop { why });
    }

    pub(crate) fn stage(&mut self, ask: AskId, stage: Stage) {
        let shard = self.id;
        let pending = self.asks.get_mut(&ask);
        let pending = pending.unwrap_or_else(|| panic!("shard {shard} lost sight of {ask:?}"));
        pending.stage = stage;
    }

    pub(crate) fn reserved_of(&self, slot: SlotId) -> u32 {
        self.reserved.get(&slot).copied().unwrap_or(0)
    }

    pub(crate) fn next_tick(&mut self) -> Tick {
        self.tick.0 += 1;
        self.tick
    }

    pub(crate) fn alarm(what: Alarm, effects: &mut Effects) {
        effects.push(Effect::Alarm { what });
    }
}

/// A refusal without a look at the claim.
pub(crate) fn refused(refusal: Refusal) -> Verdict {
    Verdict::Refused {
        refusal,
        claim_version: None,
    }
}

pub(crate) fn publish(slots: Vec<SlotLeft>, effects: &mut Effects) {
    if !slots.is_empty() {
        effects.push(Effect::Publish { slots });
    }
}
