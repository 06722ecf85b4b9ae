//! People with their devices: impatient, forgetful, sometimes two at once, and at times just wrong.

use std::sync::Arc;
use std::time::Duration;

use domain::campaign::{BookingRules, DoseInterval};
use domain::command::{BodyHash, Done};
use domain::refusal::Class;
use domain::{
    Action, BookingId, CampaignId, ClaimVersion, Claimant, Op, PersonId, Recorded, Serial, ShardId,
    SlotId, SlotPair, Verdict,
};

use crate::checker::request_id;
use crate::faults::Rng;
use crate::ledger::SideOp;
use crate::world::{Event, World};

pub(crate) type PersonIndex = usize;

#[derive(Clone)]
enum Intent {
    Op(ShardId, Op),
    Side(Option<ShardId>, SideOp),
}

struct Person {
    id: PersonId,
    version: ClaimVersion,
    last: Option<Recorded>,
    intent: Option<Intent>,
    /// Requests given up, which the network may still deliver.
    stray: Vec<Intent>,
}

pub(crate) struct People {
    campaign: CampaignId,
    rules: Arc<BookingRules>,
    persons: Vec<Person>,
    next_id: u64,
}

impl People {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let count = 6 + rng.below(12);
        let persons = (1..=count).map(|number| Person {
            id: PersonId::from_bytes([u8::try_from(number).expect("few people"); 16]),
            version: ClaimVersion(0),
            last: None,
            intent: None,
            stray: Vec::new(),
        });
        Self {
            campaign: "kr-2021".parse().expect("a slug"),
            rules: Arc::new(BookingRules {
                vaccines: std::iter::once("az".parse().expect("a slug")).collect(),
                dose_interval: DoseInterval {
                    min_days: 21,
                    max_days: 84,
                },
                hold_ttl_secs: 60,
            }),
            persons: persons.collect(),
            next_id: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.persons.len()
    }

    pub(crate) fn act(&mut self, index: PersonIndex, world: &mut World) {
        if world.closing() {
            return;
        }
        if self.persons[index].intent.is_none() {
            self.persons[index].intent = Some(self.decide(index, &mut world.rng));
        }
        if let Some(intent) = self.persons[index].intent.clone() {
            let copies = if world.rng.chance(150) { 2 } else { 1 };
            for _ in 0..copies {
                send(index, intent.clone(), world);
            }
        }
        let person = &mut self.persons[index];
        if !person.stray.is_empty() && world.rng.chance(200) {
            let stray = person.stray[world.rng.index(person.stray.len())].clone();
            send(index, stray, world);
        }
        // Tired of waiting: another intent, while the first may still arrive.
        if world.rng.chance(50)
            && let Some(intent) = person.intent.take()
        {
            person.stray.push(intent);
        }
        world.after(30, 600, Event::Person(index));
    }

    pub(crate) fn hear(&mut self, index: PersonIndex, verdict: &Verdict) {
        let person = &mut self.persons[index];
        match verdict {
            Verdict::Done(answer) | Verdict::Exists(answer) => {
                if answer.claim_version > person.version {
                    person.version = answer.claim_version;
                    person.last = Some(answer.clone());
                }
                person.intent = None;
            }
            Verdict::Refused {
                refusal,
                claim_version,
            } => {
                if let Some(version) = claim_version {
                    person.version = *version;
                }
                if refusal.class() != Class::Unavailable
                    && let Some(intent) = person.intent.take()
                {
                    person.stray.push(intent);
                }
            }
        }
    }

    fn decide(&mut self, index: PersonIndex, rng: &mut Rng) -> Intent {
        self.next_id += 1;
        let number = self.next_id;
        let person = &self.persons[index];
        let mut request = request_id(number);
        let mut hash = BodyHash([u8::try_from(number % 251).expect("small"); 16]);
        if rng.chance(30)
            && let Some(Intent::Op(_, old)) = person.stray.last()
        {
            // The same id for another body.
            request = old.request;
            hash.0[0] = 255;
        }
        let version = if rng.chance(40) {
            ClaimVersion(0)
        } else {
            person.version
        };
        let mut booking = [1; 16];
        booking[..8].copy_from_slice(&number.to_be_bytes());
        let fresh = BookingId::from_bytes(booking);
        let last = person.last.as_ref();
        let (shard, action) = match last.map(|it| (it.done, it.booking, it.slots.first)) {
            Some((Done::Held, hold, slot)) if rng.chance(700) => {
                let release = rng.chance(300);
                let action = if release {
                    Action::Release { hold }
                } else {
                    Action::Confirm { hold }
                };
                (shard_of(slot), action)
            }
            Some((Done::Booked | Done::Confirmed | Done::Moved, booking, _)) if rng.chance(800) => {
                let to = rng.chance(500).then(|| SlotId(1 + rng.below(9)));
                let op = SideOp {
                    person: (self.campaign.clone(), person.id),
                    request,
                    hash,
                    claim_version: version,
                    booking,
                    to,
                };
                return Intent::Side(to.map(shard_of), op);
            }
            _ => some_slots(rng, fresh),
        };
        let claimant = Claimant {
            campaign: self.campaign.clone(),
            person: person.id,
            serial: Serial(1),
        };
        let op = Op {
            claimant,
            request,
            body_hash: hash,
            claim_version: version,
            action,
            rules: Arc::clone(&self.rules),
        };
        Intent::Op(shard, op)
    }
}

/// Clinic 1 has slots 1 to 5, clinic 2 has 6 to 8; there is no slot 9. Those divisible by three are second doses.
fn some_slots(rng: &mut Rng, booking: BookingId) -> (ShardId, Action) {
    let slots = match rng.below(10) {
        0 => SlotPair::two(SlotId(1), SlotId(3)),
        1 => SlotPair::two(SlotId(2), SlotId(3)),
        2 => SlotPair::two(SlotId(7), SlotId(6)),
        3 => SlotPair::two(SlotId(1), SlotId(6)),
        4..=6 => SlotPair::one(SlotId(1 + rng.below(2))),
        _ => SlotPair::one(SlotId(1 + rng.below(9))),
    };
    let ttl = Duration::from_millis(20 + rng.below(1_500));
    let action = if rng.chance(500) {
        Action::Book { slots, booking }
    } else {
        Action::Hold {
            slots,
            booking,
            ttl,
        }
    };
    (shard_of(slots.first), action)
}

fn shard_of(slot: SlotId) -> ShardId {
    ShardId(u32::from(slot.0 > 5))
}

fn send(person: PersonIndex, intent: Intent, world: &mut World) {
    match intent {
        Intent::Op(shard, op) => {
            // A gateway with an old route asks the wrong shard at times.
            let shard = if world.rng.chance(10) {
                ShardId(1 - shard.0)
            } else {
                shard
            };
            if let Some(owner) = world.somebody_of(shard) {
                world.after(1, 40, Event::Ask { owner, person, op });
            }
        }
        Intent::Side(None, op) => {
            let mover = None;
            world.after(1, 40, Event::Side { mover, person, op });
        }
        Intent::Side(Some(shard), op) => {
            if let Some(owner) = world.somebody_of(shard) {
                world.after(1, 40, Event::Move { owner, person, op });
            }
        }
    }
}
