//! Thousands of random requests of a few people for a few slots, each answer held against the model.
//!
//! What is asked depends on the seed and the model alone: where a backend passes, its verdicts and its final state are
//! those of the other one.

use std::collections::BTreeMap;

use domain::command::Done;
use domain::{
    ClaimVersion, Claimant, Op, Recorded, Refusal, Serial, ShardId, SlotId, SlotPair, Verdict,
};
use inventory::ledger::{
    ApplyFault, CancelOp, ClaimState, ClinicSupply, MoveOp, OutboxCursor, SlotCount,
};

use crate::desk::Desk;
use crate::dice::Dice;
use crate::model::{Model, ModelSlot, ModelState};
use crate::world::{AN_HOUR, AT_ONCE, OTHER_BODY, Offer, World, clinic, offer};

const SHARDS: u32 = 2;
const PEOPLE: u64 = 7;
const STEPS: usize = 1_500;
/// Give another one to look elsewhere, or the one of a failure to see it again.
const SEED_VARIABLE: &str = "DOSELINE_TEST_SEED";

enum Sent {
    Op(Op),
    Move(ShardId, MoveOp),
    Cancel(CancelOp),
}

struct Play<'a> {
    world: &'a World,
    dice: Dice,
    model: Model,
    desks: Vec<Desk>,
    people: Vec<Claimant>,
    slots: Vec<SlotId>,
    sent: Vec<Sent>,
    done: BTreeMap<&'static str, u32>,
    outbox: OutboxCursor,
    steps: usize,
}

pub async fn random_requests_are_answered_as_the_model_says(world: &World) {
    #[expect(clippy::disallowed_methods, reason = "a test takes its seed back")]
    let seed = std::env::var(SEED_VARIABLE)
        .ok()
        .map_or(20_210_712, |text| {
            text.parse().expect("the seed is a number")
        });
    #[expect(clippy::print_stderr, reason = "a random test prints its seed")]
    {
        eprintln!("{SEED_VARIABLE}={seed}");
    }
    let mut play = Play::new(world, seed).await;
    for _ in 0..STEPS {
        play.step().await;
        if play.steps % 100 == 0 {
            play.compare().await;
        }
    }
    play.compare().await;
    let kinds: Vec<_> = play.done.iter().collect();
    assert!(play.done.len() >= 18, "the dice left rules out: {kinds:?}");
}

impl<'a> Play<'a> {
    async fn new(world: &'a World, seed: u64) -> Self {
        let shapes = |shard| {
            [
                offer(shard, 1),
                offer(shard, 2),
                offer(shard, 3),
                offer(shard, 1).second_dose(),
                offer(shard, 2).second_dose(),
                offer(shard, 2).of_vaccine("vector"),
                offer(shard, 2).closed(),
            ]
        };
        let offers: Vec<Offer> = (0..SHARDS).flat_map(shapes).collect();
        let slots = world.offers(SHARDS, &offers).await;
        let mut model = Model::default();
        for (slot, offer) in slots.iter().zip(&offers) {
            let slot_of_model = ModelSlot {
                offer: *offer,
                booked: 0,
            };
            model.slots.insert(*slot, slot_of_model);
        }
        let mut desks = Vec::new();
        for shard in 0..SHARDS {
            desks.push(world.desk(shard).await);
        }
        Self {
            world,
            dice: Dice(seed),
            model,
            desks,
            people: (1..=PEOPLE).map(|number| world.person(number)).collect(),
            slots,
            sent: Vec::new(),
            done: BTreeMap::new(),
            outbox: OutboxCursor::default(),
            steps: 0,
        }
    }

    async fn step(&mut self) {
        self.steps += 1;
        match self.dice.below(100) {
            0..60 => self.batch().await,
            60..72 => self.move_booking().await,
            72..84 => self.cancel().await,
            84..90 => self.repeat().await,
            90..94 => self.sweep().await,
            94..98 => self.apply().await,
            _ => {
                let shard = self.dice.below(self.desks.len());
                let number = u32::try_from(shard).expect("few shards");
                self.desks[shard] = self.world.desk(number).await;
            }
        }
    }

    /// The person with a permit that is mostly the one in force.
    fn claimant(&mut self, person: usize) -> Claimant {
        let mut who = self.people[person].clone();
        let Serial(serial) = self.model.claim(who.person).permit();
        who.serial = Serial(match self.dice.below(100) {
            0..3 => serial + 1,
            3..6 => serial.saturating_sub(1).max(1),
            _ => serial,
        });
        who
    }

    fn version(&mut self, who: &Claimant) -> u64 {
        let ClaimVersion(version) = ClaimVersion(self.model.claim(who.person).version);
        match self.dice.below(100) {
            0..4 => version + 1,
            4..9 => version.saturating_sub(1),
            _ => version,
        }
    }

    fn wanted(&mut self, shard: usize) -> SlotPair {
        let mine = if self.dice.percent(95) {
            shard
        } else {
            1 - shard
        };
        let of_shard = &self.slots[mine * 7..mine * 7 + 7];
        let first = match self.dice.below(100) {
            0..2 => SlotId(1_000_000),
            2..70 => self.dice.pick(&of_shard[..3]),
            _ => self.dice.pick(of_shard),
        };
        let second = self.dice.pick(&of_shard[3..5]);
        match self.dice.below(100) {
            0..25 if of_shard[..3].contains(&first) => SlotPair::two(first, second),
            25..27 => SlotPair::two(first, first),
            _ => SlotPair::one(first),
        }
    }

    fn op(&mut self, shard: usize, person: usize) -> Op {
        let who = self.claimant(person);
        let version = self.version(&who);
        let known = self.model.claim(who.person).id();
        let id = known
            .filter(|_| self.dice.percent(95))
            .unwrap_or_else(|| self.world.booking());
        let wanted = self.wanted(shard);
        match self.dice.below(100) {
            0..35 => self.world.book(&who, version, wanted),
            35..70 => {
                let ttl = if self.dice.percent(40) {
                    AT_ONCE
                } else {
                    AN_HOUR
                };
                self.world.hold(&who, version, wanted, ttl)
            }
            70..90 => self.world.confirm(&who, version, id),
            _ => self.world.release(&who, version, id),
        }
    }

    async fn batch(&mut self) {
        let shard = self.dice.below(self.desks.len());
        let mut people: Vec<usize> = (0..self.people.len()).collect();
        for at in (1..people.len()).rev() {
            people.swap(at, self.dice.below(at + 1));
        }
        people.truncate(1 + self.dice.below(people.len()));
        let ops: Vec<Op> = people
            .into_iter()
            .map(|person| self.op(shard, person))
            .collect();
        self.sent.extend(ops.iter().cloned().map(Sent::Op));
        self.run(shard, &ops).await;
    }

    async fn run(&mut self, shard: usize, ops: &[Op]) {
        let desk = &mut self.desks[shard];
        let expected = self.model.batch(desk.shard, ops);
        let answer = desk.run(ops).await;
        for ((op, verdict), expected) in ops.iter().zip(answer.verdicts).zip(expected) {
            self.judge(
                &format!("{:?} v{}", op.action, op.claim_version),
                verdict,
                expected,
            );
        }
        self.judge_counts(&answer.slots);
        for slot in ops
            .iter()
            .filter_map(|op| op.action.wants())
            .flat_map(SlotPair::iter)
        {
            let known = self.model.slots.contains_key(&slot);
            assert_eq!(answer.slots.iter().any(|count| count.slot == slot), known);
        }
    }

    async fn move_booking(&mut self) {
        let person = self.dice.below(self.people.len());
        let who = self.claimant(person);
        let version = self.version(&who);
        let known = self.model.claim(who.person).id();
        let booking = known.unwrap_or_else(|| self.world.booking());
        let dose = self.dice.pick(&[1, 1, 1, 1, 2, 2, 3]);
        let at = self.dice.below(self.slots.len());
        let to = if self.dice.percent(97) {
            self.slots[at]
        } else {
            SlotId(1_000_000)
        };
        let owner = if self.dice.percent(95) {
            at / 7
        } else {
            1 - at / 7
        };
        let op = self.world.move_op(&who, version, booking, dose, to);
        let shard = self.desks[owner].shard;
        self.sent.push(Sent::Move(shard, op.clone()));
        self.run_move(owner, &op).await;
    }

    async fn run_move(&mut self, owner: usize, op: &MoveOp) {
        let desk = &self.desks[owner];
        let expected = self.model.move_booking(desk.shard, op);
        let answer = self.world.moved(desk, op).await;
        self.judge("move", answer.verdict, expected);
        self.judge_counts(&answer.slots);
    }

    async fn cancel(&mut self) {
        let person = self.dice.below(self.people.len());
        let who = self.claimant(person);
        let version = self.version(&who);
        let known = self.model.claim(who.person).id();
        let booking = known.unwrap_or_else(|| self.world.booking());
        let dose = self.dice.pick(&[None, None, Some(1), Some(2)]);
        let op = self.world.cancel_op(&who, version, booking, dose);
        self.sent.push(Sent::Cancel(op.clone()));
        self.run_cancel(&op).await;
    }

    async fn run_cancel(&mut self, op: &CancelOp) {
        let expected = self.model.cancel(op);
        let answer = self.world.cancelled(op).await;
        self.judge("cancel", answer.verdict, expected);
        self.judge_counts(&answer.slots);
    }

    /// A device sends again what it sent once, or something else under the same id.
    async fn repeat(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let at = self.dice.below(self.sent.len());
        let other = self.dice.percent(20);
        let shard = self.dice.below(self.desks.len());
        match &self.sent[at] {
            Sent::Op(op) => {
                let mut op = op.clone();
                if other {
                    op.body_hash = OTHER_BODY;
                }
                self.run(shard, &[op]).await;
            }
            Sent::Move(shard, op) => {
                let (owner, mut op) = (usize::try_from(shard.0).expect("few"), op.clone());
                if other {
                    op.body_hash = OTHER_BODY;
                }
                self.run_move(owner, &op).await;
            }
            Sent::Cancel(op) => {
                let mut op = op.clone();
                if other {
                    op.body_hash = OTHER_BODY;
                }
                self.run_cancel(&op).await;
            }
        }
    }

    async fn sweep(&mut self) {
        let at = self.dice.below(self.desks.len());
        let desk = &mut self.desks[at];
        let dead = self
            .world
            .ledger
            .has_expired_holds(desk.shard)
            .await
            .expect("holds");
        assert_eq!(dead, self.model.has_dead_holds(desk.shard));
        self.model.sweep(desk.shard);
        let counts = desk.sweep(100).await;
        assert_eq!(counts.is_empty(), !dead);
        self.judge_counts(&counts);
    }

    /// The operator resizes, opens or closes a slot.
    async fn apply(&mut self) {
        let at = self.dice.below(self.slots.len());
        let slot = self.model.slots.get_mut(&self.slots[at]).expect("a slot");
        let mut wanted = slot.offer;
        wanted.capacity = u32::try_from(self.dice.below(4)).expect("small");
        wanted.open = self.dice.percent(80);
        let supply = ClinicSupply {
            clinic: clinic(wanted.shard),
            received: BTreeMap::new(),
            slots: vec![wanted.starting_at(at)],
        };
        let dry_run = self.dice.percent(20);
        let applied = self.world.ledger.apply(&[supply], dry_run).await;
        if wanted.capacity < slot.booked {
            let refused = matches!(
                applied,
                Err(ApplyFault::Refused {
                    refusal: Refusal::BelowBooked,
                    ..
                })
            );
            assert!(refused, "{applied:?}");
            return;
        }
        let changes = (wanted.capacity, wanted.open) != (slot.offer.capacity, slot.offer.open);
        assert_eq!(applied.expect("applied").slots_changed, u32::from(changes));
        if !dry_run {
            slot.offer = wanted;
        }
    }

    fn judge(&mut self, what: &str, verdict: Verdict, expected: Verdict) {
        let kind = match &expected {
            Verdict::Done(recorded) => recorded.done.code(),
            Verdict::Exists(_) => "EXISTS",
            Verdict::Refused { refusal, .. } => refusal.code(),
        };
        *self.done.entry(kind).or_default() += 1;
        assert_eq!(timeless(verdict), expected, "step {}: {what}", self.steps);
    }

    fn judge_counts(&self, counts: &[SlotCount]) {
        for count in counts {
            let slot = &self.model.slots[&count.slot];
            let expected = (slot.offer.capacity, slot.booked, slot.offer.open);
            assert_eq!(
                (count.capacity, count.booked, count.open),
                expected,
                "step {}",
                self.steps
            );
        }
    }

    /// Everything that can be read is as the model has it.
    async fn compare(&mut self) {
        for slot in self.world.all_slots().await {
            let model = &self.model.slots[&slot.slot];
            let found = (slot.capacity, slot.booked, slot.open);
            assert_eq!(
                found,
                (model.offer.capacity, model.booked, model.offer.open)
            );
        }
        for who in &self.people {
            let model = self.model.claim(who.person);
            let Some(claim) = self.world.claim(who).await else {
                assert_eq!(model.version, 0);
                continue;
            };
            assert_eq!(
                (claim.version.0, claim.serial.0),
                (model.version, model.serial)
            );
            let (state, booking, slots) = match &model.state {
                ModelState::Free { .. } | ModelState::Held { dead: true, .. } => {
                    (ClaimState::Free, None, Vec::new())
                }
                ModelState::Held { booking, slots, .. } => {
                    (ClaimState::Held, Some(*booking), slots.clone())
                }
                ModelState::Booked { booking, slots } => {
                    (ClaimState::Booked, Some(*booking), slots.clone())
                }
            };
            let found: Vec<SlotId> = claim.appointments.iter().map(|a| a.slot.slot).collect();
            assert_eq!((claim.state, claim.booking, found), (state, booking, slots));
        }
        let found = self
            .world
            .ledger
            .outside_changes(self.outbox, 10_000)
            .await
            .expect("changes");
        self.outbox = found.cursor;
        for slot in found.slots {
            assert_eq!(slot.booked, self.model.slots[&slot.slot].booked);
        }
    }
}

/// The model has no clock.
fn timeless(verdict: Verdict) -> Verdict {
    let strip = |recorded: Recorded| {
        assert_eq!(recorded.hold_until.is_some(), recorded.done == Done::Held);
        Recorded {
            hold_until: None,
            ..recorded
        }
    };
    match verdict {
        Verdict::Done(recorded) => Verdict::Done(strip(recorded)),
        Verdict::Exists(recorded) => Verdict::Exists(strip(recorded)),
        refused @ Verdict::Refused { .. } => refused,
    }
}
