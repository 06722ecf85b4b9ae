//! Owners, a ledger, people and time. The shell around each core is simulated here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::{Epoch, Op, ShardId, SlotId, SlotPair, SlotState, Timestamp, Verdict};
use inventory_core::{
    Alarm, AskId, BatchFailure, Effect, Effects, Input, Limits, RequestKey, Shard, SlotCount,
};

use crate::checker::{Checker, OwnerId};
use crate::faults::{Fate, Faults, Rng};
use crate::ledger::{Ledger, SideOp, Written};
use crate::people::{People, PersonIndex};

pub(crate) const SHARDS: u32 = 2;
const TROUBLE_MS: u64 = 5_000;
const QUIET_MS: u64 = 25_000;
/// A world has a few thousand events; more means that something runs in circles.
const EVENTS_MAX: usize = 200_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) events: u64,
    pub(crate) answers: u64,
    pub(crate) done: u64,
    pub(crate) epochs: u64,
    pub(crate) regressions: u64,
    pub(crate) reapplied: u64,
}

pub(crate) enum Event {
    /// A person does the next thing.
    Person(PersonIndex),
    Ask { owner: OwnerId, person: PersonIndex, op: Op },
    Move { owner: OwnerId, person: PersonIndex, op: SideOp },
    Answer { person: PersonIndex, verdict: Verdict },
    Deliver { owner: OwnerId, input: Input },
    Seize { owner: OwnerId, expect: Epoch, nonce: u64 },
    Run { statement: usize, heard: bool },
    Load { owner: OwnerId, slots: Vec<SlotId> },
    Lookup { owner: OwnerId, asks: Vec<AskId>, keys: Vec<RequestKey> },
    ReadVerdicts { owner: OwnerId, keys: Vec<RequestKey> },
    Side { mover: Option<(OwnerId, Epoch)>, person: PersonIndex, op: SideOp },
    /// Every live owner's tail of the outbox, and its look for expired holds.
    Tick,
    Trouble,
    Calm,
}

struct Statement {
    owner: OwnerId,
    shard: ShardId,
    epoch: Epoch,
    seq: u64,
    ops: Option<Vec<Op>>,
    limit: u32,
    asks: Vec<(OwnerId, AskId)>,
    taken: BTreeMap<SlotId, u32>,
}

struct Owner {
    shard: ShardId,
    core: Option<Shard>,
    alive: bool,
    paused_until: Timestamp,
    next_ask: u64,
    nonce: u64,
    expect: Epoch,
    sent: Option<usize>,
    moves: BTreeMap<AskId, (PersonIndex, SideOp)>,
    callers: BTreeMap<AskId, PersonIndex>,
    /// Moves committed under this epoch whose end the core has not heard of.
    moved: BTreeMap<SlotId, u32>,
    outbox: usize,
    /// Its epoch was in force before the ledger went back in time.
    outdated: Option<Epoch>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Timestamp,
    pub(crate) ledger: Ledger,
    pub(crate) checker: Checker,
    faults: Faults,
    people: Option<People>,
    events: BTreeMap<(Timestamp, u64), Event>,
    scheduled: u64,
    owners: Vec<Owner>,
    statements: Vec<Statement>,
    floors: BTreeMap<ShardId, Epoch>,
    snapshot: Option<Ledger>,
    effects: Effects,
    report: Report,
}

/// Runs one world to its end; panics where something does not hold.
pub(crate) fn run(seed: u64) -> Report {
    let mut rng = Rng::new(seed);
    let faults = Faults::draw(&mut rng, seed);
    let mut world = World::new(rng, faults);
    while let Some(((now, _), event)) = world.events.pop_first() {
        world.now = now;
        world.ledger.now = now;
        world.report.events += 1;
        assert!(world.report.events < EVENTS_MAX as u64, "runs in circles");
        world.happen(event);
        Checker::ledger_holds(&world.ledger);
    }
    let owners = &world.owners;
    world.checker.at_the_end(&world.ledger, |owner| owners[owner].alive);
    world.report.answers = world.checker.answers;
    world.report.done = world.ledger.requests.len() as u64;
    world.report
}

impl World {
    fn new(mut rng: Rng, faults: Faults) -> Self {
        let mut ledger = Ledger::default();
        for id in 1..=8_u64 {
            let shard = ShardId(u32::from(id > 5));
            let state = SlotState {
                slot: SlotId(id),
                shard,
                clinic: if id > 5 { "c2" } else { "c1" }.parse().expect("a slug"),
                vaccine: "az".parse().expect("a slug"),
                dose: if id.is_multiple_of(3) { 2 } else { 1 },
                starts_at: Timestamp::from_secs(1_000_000),
                day: if id.is_multiple_of(3) { 28 } else { 0 },
                capacity: 1 + u32::try_from(rng.below(4)).expect("small"),
                booked: 0,
                open: true,
            };
            ledger.slots.insert(SlotId(id), state);
        }
        let people = People::new(&mut rng);
        let count = people.len();
        let mut world = Self {
            rng,
            now: Timestamp::default(),
            ledger,
            checker: Checker::default(),
            faults,
            people: Some(people),
            events: BTreeMap::new(),
            scheduled: 0,
            owners: Vec::new(),
            statements: Vec::new(),
            floors: BTreeMap::new(),
            snapshot: None,
            effects: Effects::default(),
            report: Report::default(),
        };
        for shard in 0..SHARDS {
            world.take_over(ShardId(shard));
        }
        for person in 0..count {
            world.after(1, 60, Event::Person(person));
        }
        world.after(20, 20, Event::Tick);
        world.after(50, 50, Event::Trouble);
        world.after(TROUBLE_MS, TROUBLE_MS, Event::Calm);
        world
    }

    pub(crate) fn after(&mut self, from_ms: u64, to_ms: u64, event: Event) {
        let at = self.now.plus(self.rng.millis(from_ms, to_ms));
        self.at(at, event);
    }

    fn at(&mut self, at: Timestamp, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    /// People act until shortly before the end, so that the last answers are heard.
    pub(crate) fn closing(&self) -> bool {
        self.now.since(Timestamp::default()) > Duration::from_millis(QUIET_MS - 5_000)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Person(person) => self.with_people(|people, world| people.act(person, world)),
            Event::Answer { person, verdict } => {
                self.with_people(|people, _| people.hear(person, &verdict));
            }
            Event::Ask { owner, person, op } => self.ask(owner, person, op),
            Event::Move { owner, person, op } => self.ask_to_move(owner, person, op),
            Event::Deliver { owner, input } => self.deliver(owner, input),
            Event::Seize { owner, expect, nonce } => self.seize(owner, expect, nonce),
            Event::Run { statement, heard } => self.run_statement(statement, heard),
            Event::Load { owner, slots } => {
                let input = if self.rng.chance(self.faults.read_fails) {
                    Input::LoadFailed { asked: slots }
                } else {
                    let found = self.ledger.read(&slots);
                    Input::SlotsLoaded { asked: slots, found }
                };
                self.after(1, 20, Event::Deliver { owner, input });
            }
            Event::Lookup { owner, asks, keys } => {
                let input = if self.rng.chance(self.faults.read_fails) {
                    Input::LookupFailed { asks }
                } else {
                    let recorded = self.ledger.recorded(&keys);
                    Input::LookedUp { asks, recorded }
                };
                self.after(1, 20, Event::Deliver { owner, input });
            }
            Event::ReadVerdicts { owner, keys } => {
                let recorded = self.ledger.recorded(&keys);
                let input = Input::VerdictsRead { recorded };
                self.after(1, 20, Event::Deliver { owner, input });
            }
            Event::Side { mover, person, op } => self.run_side(mover, person, op),
            Event::Tick => self.tick(),
            Event::Trouble => self.trouble(),
            Event::Calm => self.calm(),
        }
    }

    fn with_people(&mut self, act: impl FnOnce(&mut People, &mut Self)) {
        let mut people = self.people.take().expect("put back each time");
        act(&mut people, self);
        self.people = Some(people);
    }

    /// An owner that callers may believe to be in charge: mostly the newest, at times an older one that still runs.
    pub(crate) fn somebody_of(&mut self, shard: ShardId) -> Option<OwnerId> {
        let running = |owner: &Owner| owner.alive && owner.core.is_some() && owner.shard == shard;
        let ids = self.owners.iter().enumerate().filter(|(_, it)| running(it));
        let ids: Vec<OwnerId> = ids.map(|(id, _)| id).collect();
        if ids.len() > 1 && self.rng.chance(250) {
            let older = self.rng.index(ids.len() - 1);
            return Some(ids[older]);
        }
        ids.last().copied()
    }

    fn take_over(&mut self, shard: ShardId) {
        let expect = self.ledger.shards.get(&shard).map_or(Epoch(0), |row| row.epoch);
        let nonce = self.rng.next() | 1;
        self.owners.push(Owner {
            shard,
            core: None,
            alive: true,
            paused_until: Timestamp::default(),
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
        self.after(1, 30, Event::Seize { owner, expect, nonce });
    }

    fn seize(&mut self, id: OwnerId, expect: Epoch, nonce: u64) {
        let owner = &self.owners[id];
        if !owner.alive || owner.nonce != nonce {
            // The statement of an attempt that is over; the ledger judges it all the same.
            let _ = self.ledger.seize(owner.shard, expect, self.floor(owner.shard), nonce);
            return;
        }
        if self.rng.chance(self.faults.read_fails) {
            self.after(10, 60, Event::Seize { owner: id, expect, nonce });
            return;
        }
        let (shard, floor) = (owner.shard, self.floor(owner.shard));
        let result = self.ledger.seize(shard, expect, floor, nonce);
        if self.rng.chance(self.faults.answer_lost) {
            // Unheard: asked again with the same nonce.
            self.after(10, 60, Event::Seize { owner: id, expect, nonce });
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
                let input = Input::SeizeFailed { fenced: Some(found) };
                self.after(1, 20, Event::Deliver { owner: id, input });
            }
        }
    }

    fn floor(&self, shard: ShardId) -> Epoch {
        self.floors.get(&shard).copied().unwrap_or_default()
    }

    fn ask(&mut self, owner: OwnerId, person: PersonIndex, op: Op) {
        let Some(ask) = self.new_ask(owner) else {
            return;
        };
        let key = (op.claimant.campaign.clone(), op.claimant.person, op.request);
        self.checker.asked(owner, ask, key, op.body_hash);
        self.owners[owner].callers.insert(ask, person);
        self.deliver(owner, Input::Ask { ask, op });
    }

    fn ask_to_move(&mut self, owner: OwnerId, person: PersonIndex, op: SideOp) {
        let (Some(ask), Some(slot)) = (self.new_ask(owner), op.to) else {
            return;
        };
        self.owners[owner].moves.insert(ask, (person, op));
        self.deliver(owner, Input::Reserve { ask, slot });
    }

    fn new_ask(&mut self, owner: OwnerId) -> Option<AskId> {
        let owner = &mut self.owners[owner];
        owner.next_ask += 1;
        (owner.alive && owner.core.is_some()).then_some(AskId(owner.next_ask))
    }

    fn deliver(&mut self, id: OwnerId, input: Input) {
        let owner = &mut self.owners[id];
        if !owner.alive {
            return;
        }
        if owner.paused_until > self.now {
            let wakes = owner.paused_until;
            self.at(wakes, Event::Deliver { owner: id, input });
            return;
        }
        let Some(core) = &mut owner.core else {
            return;
        };
        match &input {
            Input::BatchDone { .. }
            | Input::BatchFailed { failure: BatchFailure::NotWritten, .. }
            | Input::Swept { .. }
            | Input::SweepFailed { failure: BatchFailure::NotWritten, .. }
            | Input::Reseized { .. } => owner.sent = None,
            Input::Unreserve { slot, outcome: Some(_) } => {
                if let Some(moved) = owner.moved.get_mut(slot) {
                    *moved = moved.saturating_sub(1);
                }
            }
            _ => {}
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

    fn compare_memory(&self, id: OwnerId) {
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

    fn apply(&mut self, id: OwnerId, effect: Effect) {
        let (shard, epoch) = {
            let owner = &self.owners[id];
            (owner.shard, owner.core.as_ref().expect("it acts").epoch())
        };
        match effect {
            Effect::Load { slots } => self.after(1, 20, Event::Load { owner: id, slots }),
            Effect::Lookup { asks, keys } => {
                self.after(1, 20, Event::Lookup { owner: id, asks, keys });
            }
            Effect::ReadVerdicts { keys } => {
                self.after(1, 20, Event::ReadVerdicts { owner: id, keys });
            }
            Effect::Send { seq, ops } => self.send(id, shard, epoch, seq, Some(ops), 0),
            Effect::Sweep { seq, limit } => self.send(id, shard, epoch, seq, None, limit),
            Effect::Seize { expect } => {
                let nonce = self.rng.next() | 1;
                (self.owners[id].nonce, self.owners[id].expect) = (nonce, expect);
                self.after(1, 40, Event::Seize { owner: id, expect, nonce });
            }
            Effect::Reply { ask, verdict } => self.reply(id, ask, verdict),
            Effect::Reserved { ask } => {
                if let Some((person, op)) = self.owners[id].moves.remove(&ask) {
                    let mover = Some((id, epoch));
                    self.after(1, 30, Event::Side { mover, person, op });
                }
            }
            Effect::Alarm { what: Alarm::Regressed { .. } } => self.report.regressions += 1,
            Effect::Alarm { what: Alarm::Reapplied { lost, .. } } => {
                self.report.reapplied += 1;
                self.checker.reapplied(id, lost, &self.ledger);
            }
            Effect::Alarm { what: Alarm::Constraint { .. } } | Effect::Publish { .. } => {}
            Effect::Stop { .. } => {
                if self.somebody_newer(id).is_none() {
                    self.take_over(shard);
                }
            }
        }
    }

    fn somebody_newer(&self, id: OwnerId) -> Option<OwnerId> {
        let shard = self.owners[id].shard;
        let newer = |other: &OwnerId| self.owners[*other].shard == shard && self.owners[*other].alive;
        (id + 1..self.owners.len()).find(newer)
    }

    fn reply(&mut self, id: OwnerId, ask: AskId, verdict: Verdict) {
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

    fn send(
        &mut self,
        owner: OwnerId,
        shard: ShardId,
        epoch: Epoch,
        seq: u64,
        ops: Option<Vec<Op>>,
        limit: u32,
    ) {
        assert!(self.owners[owner].sent.is_none(), "two statements under way");
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
        match fate {
            Fate::Fine => self.after(1, 15, Event::Run { statement, heard: true }),
            Fate::Twice => {
                self.after(1, 15, Event::Run { statement, heard: true });
                self.after(5, 400, Event::Run { statement, heard: false });
            }
            Fate::Late => self.after(100, 900, Event::Run { statement, heard: false }),
            Fate::Unheard => self.after(1, 15, Event::Run { statement, heard: false }),
            Fate::Lost | Fate::NotWritten | Fate::Constraint => {}
        }
        if let Some(failure) = given_up {
            let input = self.failed(statement, failure);
            self.after(20, 120, Event::Deliver { owner, input });
        }
    }

    fn failed(&self, statement: usize, failure: BatchFailure) -> Input {
        let Statement { seq, ops, .. } = &self.statements[statement];
        let seq = *seq;
        match ops {
            Some(_) => Input::BatchFailed { seq, failure },
            None => Input::SweepFailed { seq, failure },
        }
    }

    fn run_statement(&mut self, index: usize, heard: bool) {
        let it = &self.statements[index];
        let (owner, shard, epoch, seq) = (it.owner, it.shard, it.epoch, it.seq);
        let result = match &it.ops {
            Some(ops) => self.ledger.batch(shard, epoch, seq, ops).map(|(verdicts, slots)| {
                let taken = taken_by(&verdicts, ops);
                (Input::BatchDone { seq, verdicts, slots }, taken)
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
                self.checker.committed(owner, Written { shard, epoch, seq }, asks);
                input
            }
            Err(failure) => self.failed(index, failure),
        };
        if heard {
            self.after(1, 15, Event::Deliver { owner, input });
        }
    }

    fn run_side(&mut self, mover: Option<(OwnerId, Epoch)>, person: PersonIndex, op: SideOp) {
        let under = mover.map(|(owner, epoch)| (self.owners[owner].shard, epoch));
        let Ok((verdict, counts)) = self.ledger.side(&op, under) else {
            if let (Some((owner, _)), Some(slot)) = (mover, op.to) {
                let input = Input::Unreserve { slot, outcome: None };
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
                self.after(50, 200, Event::Deliver {
                    owner,
                    input: Input::Unreserve { slot, outcome },
                });
                return;
            }
            let outcome = counts.into_iter().find(|count| count.slot == slot);
            let outcome = outcome.filter(|_| wrote);
            self.after(1, 30, Event::Deliver { owner, input: Input::Unreserve { slot, outcome } });
        }
        if !self.rng.chance(self.faults.answer_lost) {
            self.after(1, 30, Event::Answer { person, verdict });
        }
    }

    fn count_of(&self, slot: SlotId) -> Option<SlotCount> {
        self.ledger.slots.get(&slot).map(|state| SlotCount {
            slot,
            capacity: state.capacity,
            booked: state.booked,
            open: state.open,
        })
    }

    fn tick(&mut self) {
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
            if holds {
                self.after(1, 30, Event::Deliver { owner: id, input: Input::SweepDue });
            }
        }
        if self.now.since(Timestamp::default()) < Duration::from_millis(QUIET_MS) {
            self.after(80, 120, Event::Tick);
        }
    }

    fn trouble(&mut self) {
        let id = self.rng.index(self.owners.len());
        if self.rng.chance(self.faults.crash) && self.owners[id].alive {
            self.owners[id].alive = false;
            self.take_over(self.owners[id].shard);
        }
        if self.rng.chance(self.faults.pause) {
            self.owners[id].paused_until = self.now.plus(self.rng.millis(10, 1_500));
        }
        if self.rng.chance(self.faults.take_over) {
            let shard = ShardId(u32::try_from(self.rng.below(u64::from(SHARDS))).expect("small"));
            self.take_over(shard);
        }
        if self.rng.chance(self.faults.drain) {
            self.after(1, 1, Event::Deliver { owner: id, input: Input::Drain });
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
    fn operate(&mut self) {
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

    fn maybe_regress(&mut self) {
        if self.snapshot.is_none() || self.rng.chance(100) {
            self.snapshot = Some(self.ledger.clone());
        } else if self.rng.chance(self.faults.regress)
            && let Some(earlier) = self.snapshot.take()
        {
            let outbox = std::mem::take(&mut self.ledger.outbox);
            self.ledger = Ledger { outbox, now: self.now, ..earlier };
            self.checker.went_back();
            for owner in &mut self.owners {
                owner.outdated = owner.core.as_ref().map(Shard::epoch);
                owner.moved.clear();
            }
        }
    }

    /// From now on everything works; each shard has somebody, and everybody wakes.
    fn calm(&mut self) {
        self.faults = Faults::NONE;
        for shard in 0..SHARDS {
            self.take_over(ShardId(shard));
        }
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

/// Small enough that every limit is met.
fn small_limits() -> Limits {
    Limits {
        batch_ops_max: 4,
        queue_ops_max: 12,
        reread_after: Duration::from_millis(150),
        send_attempts_max: 2,
        load_slots_max: 2,
        loads_max: 2,
        lookup_keys_max: 3,
        sweep_holds_max: 2,
        ring_ops_max: 4_096,
    }
}
