//! Owners, a ledger, people and time.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{Epoch, Op, ShardId, SlotId, SlotState, Timestamp, Verdict};
use inventory_core::{AskId, Effects, Input, RequestKey};

use crate::checker::{Checker, OwnerId};
use crate::faults::{Faults, Rng};
use crate::ledger::{Ledger, SideOp};
use crate::people::{People, PersonIndex};
use crate::shell::Owner;
use crate::statements::Statement;

pub(crate) const SHARDS: u32 = 2;
pub(crate) const TROUBLE_MS: u64 = 5_000;
pub(crate) const QUIET_MS: u64 = 12_000;
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
    Ask {
        owner: OwnerId,
        person: PersonIndex,
        op: Op,
    },
    Move {
        owner: OwnerId,
        person: PersonIndex,
        op: SideOp,
    },
    Answer {
        person: PersonIndex,
        verdict: Verdict,
    },
    Deliver {
        owner: OwnerId,
        input: Input,
    },
    Seize {
        owner: OwnerId,
        expect: Epoch,
        nonce: u64,
    },
    Run {
        statement: usize,
        heard: bool,
    },
    Load {
        owner: OwnerId,
        slots: Vec<SlotId>,
    },
    Lookup {
        owner: OwnerId,
        asks: Vec<AskId>,
        keys: Vec<RequestKey>,
    },
    ReadVerdicts {
        owner: OwnerId,
        keys: Vec<RequestKey>,
    },
    Side {
        mover: Option<(OwnerId, Epoch)>,
        person: PersonIndex,
        op: SideOp,
    },
    Wake {
        owner: OwnerId,
    },
    /// Every live owner's tail of the outbox, and its look for expired holds.
    Tick,
    Trouble,
    Calm,
}
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Timestamp,
    pub(crate) ledger: Ledger,
    pub(crate) checker: Checker,
    pub(crate) faults: Faults,
    pub(crate) people: Option<People>,
    pub(crate) events: BTreeMap<(Timestamp, u64), Event>,
    pub(crate) scheduled: u64,
    pub(crate) owners: Vec<Owner>,
    pub(crate) statements: Vec<Statement>,
    pub(crate) floors: BTreeMap<ShardId, Epoch>,
    pub(crate) snapshot: Option<Ledger>,
    pub(crate) effects: Effects,
    pub(crate) report: Report,
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
        let reads = matches!(
            event,
            Event::Person(_) | Event::Answer { .. } | Event::Load { .. }
        );
        world.happen(event);
        if !reads {
            Checker::ledger_holds(&world.ledger);
        }
    }
    let owners = &world.owners;
    world
        .checker
        .at_the_end(&world.ledger, |owner| owners[owner].alive);
    world.compare_at_the_end();
    world.report.answers = world.checker.answers;
    world.report.done = world.ledger.requests.len() as u64;
    world.report
}

impl World {
    pub(crate) fn new(mut rng: Rng, faults: Faults) -> Self {
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

    pub(crate) fn at(&mut self, at: Timestamp, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    /// Reads take their time now and then: long enough to be overtaken by a new epoch.
    fn hear_read(&mut self, owner: OwnerId, input: Input) {
        let most = if self.rng.chance(self.faults.read_fails) {
            400
        } else {
            20
        };
        self.after(1, most, Event::Deliver { owner, input });
    }

    /// People act until shortly before the end, so that the last answers are heard.
    pub(crate) fn closing(&self) -> bool {
        self.now.since(Timestamp::default()) > Duration::from_millis(QUIET_MS - 5_000)
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Person(person) => self.with_people(|people, world| people.act(person, world)),
            Event::Answer { person, verdict } => {
                self.with_people(|people, _| people.hear(person, &verdict));
            }
            Event::Ask { owner, person, op } => self.ask(owner, person, op),
            Event::Move { owner, person, op } => self.ask_to_move(owner, person, op),
            Event::Deliver { owner, input } => self.deliver(owner, input),
            Event::Seize {
                owner,
                expect,
                nonce,
            } => self.seize(owner, expect, nonce),
            Event::Run { statement, heard } => self.run_statement(statement, heard),
            Event::Load { owner, slots } => {
                let input = if self.rng.chance(self.faults.read_fails) {
                    Input::LoadFailed { asked: slots }
                } else {
                    let found = self.ledger.read(&slots);
                    Input::SlotsLoaded {
                        asked: slots,
                        found,
                    }
                };
                self.hear_read(owner, input);
            }
            Event::Lookup { owner, asks, keys } => {
                let input = if self.rng.chance(self.faults.read_fails) {
                    Input::LookupFailed { asks }
                } else {
                    let recorded = self.ledger.recorded(&keys);
                    Input::LookedUp { asks, recorded }
                };
                self.hear_read(owner, input);
            }
            Event::ReadVerdicts { owner, keys } => {
                let recorded = self.ledger.recorded(&keys);
                let input = Input::VerdictsRead { recorded };
                self.after(1, 20, Event::Deliver { owner, input });
            }
            Event::Side { mover, person, op } => self.run_side(mover, person, op),
            Event::Wake { owner } => self.wake(owner),
            Event::Tick => self.tick(),
            Event::Trouble => self.trouble(),
            Event::Calm => self.calm(),
        }
    }

    pub(crate) fn with_people(&mut self, act: impl FnOnce(&mut People, &mut Self)) {
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
}
