//! People who leave for another region, and people who stay after all.

use std::collections::BTreeMap;

use domain::region_change::Departure;
use domain::{Claimant, Refusal, Serial, SlotId, Verdict};
use futures::future::join_all;
use inventory::ledger::{
    ClaimState, DepartureAnswer, OutboxCursor, OutsideChanges, SurrenderOp, VisitChange,
};

use crate::clinics::{DAY, does, visit, with_stock};
use crate::desk::{one, refused, two};
use crate::world::{AN_HOUR, AT_ONCE, World, offer, with_serial};

fn op(who: &Claimant, to: &str, give_up_booking: bool) -> SurrenderOp {
    SurrenderOp {
        claimant: who.clone(),
        to: to.parse().expect("a region"),
        give_up_booking,
    }
}

fn left(to: &str) -> Result<Departure, Refusal> {
    let to = to.parse().expect("a region");
    Ok(Departure::Left { to })
}

async fn leaves(world: &World, op: &SurrenderOp) -> DepartureAnswer {
    let answer = world.ledger.surrender(op).await;
    answer.expect("the surrender is answered")
}

async fn stays(world: &World, who: &Claimant) -> Result<Departure, Refusal> {
    let answer = world.ledger.restamp(who).await;
    let answer = answer.expect("the restamp is answered");
    assert!(answer.slots.is_empty());
    answer.decided
}

/// Slots that owners are told of after `cursor`.
async fn told(world: &World, cursor: OutboxCursor) -> Vec<SlotId> {
    let OutsideChanges { slots, .. } = world
        .ledger
        .outside_changes(cursor, 100)
        .await
        .expect("the outbox is read");
    slots.into_iter().map(|slot| slot.slot).collect()
}

pub async fn a_person_without_a_claim_leaves_once_for_ever(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    assert_eq!(
        leaves(world, &op(&who, "busan", false)).await.decided,
        left("busan")
    );
    let claim = world.claim(&who).await.expect("the tombstone");
    assert_eq!(
        (claim.state, claim.serial, claim.version.0),
        (ClaimState::Surrendered, Serial(1), 0)
    );
    // The old permit takes nothing, and where they went is not changed by asking again.
    let verdict = desk.one(&world.book(&who, 0, one(slots[0]))).await;
    refused(&verdict, Refusal::PermitSuperseded, 0);
    let verdict = desk.one(&world.hold(&who, 0, one(slots[0]), AN_HOUR)).await;
    refused(&verdict, Refusal::PermitSuperseded, 0);
    assert_eq!(
        leaves(world, &op(&who, "jeju", true)).await.decided,
        left("busan")
    );
    assert_eq!(stays(world, &who).await, left("busan"));
    // A permit of the same region after they came back books as if nothing had been.
    let back = with_serial(&who, 3);
    desk.does(&world.book(&back, 0, one(slots[0]))).await;
    assert_eq!(
        leaves(world, &op(&who, "jeju", true)).await.decided,
        left("busan")
    );
    assert_eq!(stays(world, &who).await, left("busan"));
    assert_eq!(world.booked(slots[0]).await, 1, "an old word moves nobody");
}

pub async fn a_hold_is_released_by_leaving_and_its_owner_is_told(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 1), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let (who, other) = (world.person(1), world.person(2));
    let pair = two(slots[0], slots[1]);
    let hold = desk.does(&world.hold(&who, 0, pair, AN_HOUR)).await.booking;
    let before = world.ledger.outbox_cursor().await.expect("a cursor");
    let answer = leaves(world, &op(&who, "busan", false)).await;
    assert_eq!(answer.decided, left("busan"));
    let freed: BTreeMap<_, _> = answer.slots.iter().map(|s| (s.slot, s.booked)).collect();
    assert_eq!(freed, BTreeMap::from([(slots[0], 0), (slots[1], 0)]));
    let mut heard = told(world, before).await;
    heard.sort_unstable();
    assert_eq!(heard, slots);
    let verdict = desk.one(&world.confirm(&who, 1, hold)).await;
    refused(&verdict, Refusal::PermitSuperseded, 1);
    desk.does(&world.book(&other, 0, pair)).await;
    // One whose end had come is given back just as well, once.
    let late = world.person(3);
    let slot = world.offers(2, &[offer(1, 1)]).await[0];
    let mut next_door = world.desk(1).await;
    next_door
        .does(&world.hold(&late, 0, one(slot), AT_ONCE))
        .await;
    leaves(world, &op(&late, "busan", false)).await;
    assert_eq!(world.booked(slot).await, 0);
    assert!(next_door.sweep(10).await.is_empty());
}

pub async fn a_booking_is_given_up_only_when_that_is_said(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 5), offer(0, 5).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let book = world.book(&who, 0, two(slots[0], slots[1]));
    let booking = desk.does(&book).await.booking;
    let before = world.claim(&who).await;
    let answer = leaves(world, &op(&who, "busan", false)).await;
    assert_eq!(answer.decided, Err(Refusal::BookingActive));
    assert!(answer.slots.is_empty());
    assert_eq!(world.claim(&who).await, before, "a refusal wrote nothing");
    let cancel = world.cancel_op(&who, 1, booking, Some(2));
    let cancelled = world.cancelled(&cancel).await.verdict;
    assert!(matches!(cancelled, Verdict::Done(_)));
    let answer = leaves(world, &op(&who, "busan", true)).await;
    assert_eq!(answer.decided, left("busan"));
    assert_eq!(answer.slots.len(), 1);
    assert_eq!(world.booked(slots[0]).await, 0);
    // What was answered under a request id stays answered; everything new is refused.
    let repeated = desk.one(&book).await;
    assert!(matches!(repeated, Verdict::Exists(_)), "{repeated:?}");
    let cancel = world.cancel_op(&who, 2, booking, None);
    let cancelled = world.cancelled(&cancel).await.verdict;
    refused(&cancelled, Refusal::PermitSuperseded, 2);
    let moved = world.move_op(&who, 2, booking, 1, slots[0]);
    let moved = world.moved(&desk, &moved).await.verdict;
    refused(&moved, Refusal::PermitSuperseded, 2);
}

pub async fn an_appointment_that_has_begun_is_never_given_up(world: &World) {
    let slots = with_stock(world, 10, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    does(world, &visit(world, booking, DAY, VisitChange::CheckIn)).await;
    let before = world.claim(&who).await;
    for give_up in [false, true] {
        let answer = leaves(world, &op(&who, "busan", give_up)).await;
        assert_eq!(answer.decided, Err(Refusal::AppointmentBegun));
    }
    assert_eq!(world.claim(&who).await, before);
}

pub async fn a_change_taken_back_keeps_what_the_person_has(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let first = world.person(1);
    let hold = desk
        .does(&world.hold(&first, 0, one(slots[0]), AN_HOUR))
        .await
        .booking;
    assert_eq!(stays(world, &first).await, Ok(Departure::Stayed));
    let verdict = desk.one(&world.confirm(&first, 1, hold)).await;
    refused(&verdict, Refusal::PermitSuperseded, 1);
    let second = with_serial(&first, 2);
    desk.does(&world.confirm(&second, 1, hold)).await;
    // The decision stands, whoever repeats which step and when.
    assert_eq!(stays(world, &first).await, Ok(Departure::Stayed));
    let late = leaves(world, &op(&first, "busan", true)).await;
    assert_eq!(late.decided, Ok(Departure::Stayed));
    assert_eq!(world.booked(slots[0]).await, 1);
    assert_eq!(
        leaves(world, &op(&second, "jeju", true)).await.decided,
        left("jeju")
    );
    let late = leaves(world, &op(&first, "busan", true)).await;
    assert_eq!(late.decided, Ok(Departure::Stayed), "about serial 1");
    assert_eq!(stays(world, &second).await, left("jeju"), "about serial 2");
}

pub async fn a_change_taken_back_without_a_claim_bars_the_old_permit_alone(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let first = world.person(1);
    assert_eq!(stays(world, &first).await, Ok(Departure::Stayed));
    let verdict = desk.one(&world.book(&first, 0, one(slots[0]))).await;
    refused(&verdict, Refusal::PermitSuperseded, 0);
    let second = with_serial(&first, 2);
    desk.does(&world.book(&second, 0, one(slots[0]))).await;
}

pub async fn an_earlier_departure_does_not_bar_one_who_came_back_and_stays(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    leaves(world, &op(&who, "busan", false)).await;
    // Back with serial 3, not used here, and a change from there taken back.
    assert_eq!(
        stays(world, &with_serial(&who, 3)).await,
        Ok(Departure::Stayed)
    );
    let verdict = desk
        .one(&world.book(&with_serial(&who, 3), 0, one(slots[0])))
        .await;
    refused(&verdict, Refusal::PermitSuperseded, 0);
    desk.does(&world.book(&with_serial(&who, 4), 0, one(slots[0])))
        .await;
}

/// One step of a person with serials 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Leave(u64),
    Stay(u64),
    Book(u64),
}

const STEPS: [Step; 7] = [
    Step::Leave(1),
    Step::Stay(1),
    Step::Leave(2),
    Step::Stay(2),
    Step::Book(1),
    Step::Book(2),
    Step::Book(3),
];
/// Every sequence of so many steps.
const LONG: u32 = 4;

/// What must hold of a person's ledger, whatever order messages come in.
#[derive(Default)]
struct Rules {
    decided: BTreeMap<u64, Departure>,
    booked_with: Option<u64>,
}

impl Rules {
    fn decides(&mut self, serial: u64, departure: &Departure, leaving: bool) {
        let known = self
            .decided
            .entry(serial)
            .or_insert_with(|| departure.clone());
        assert_eq!(known, departure, "a decision about {serial} changed");
        if leaving && matches!(departure, Departure::Left { .. }) {
            self.booked_with = self.booked_with.filter(|with| *with > serial);
        }
    }

    /// Whether a permit of this serial may take anything.
    fn barred(&self, serial: u64) -> bool {
        self.decided.keys().any(|decided| serial <= *decided)
    }
}

pub async fn whatever_order_messages_come_in_each_serial_is_decided_once(world: &World) {
    let sequences = STEPS.len().pow(LONG);
    let slots = world.offers(1, &[offer(0, 100_000)]).await;
    let mut desk = world.desk(0).await;
    let mut people: Vec<(Claimant, Rules)> = (0..sequences)
        .map(|number| {
            let number = u64::try_from(number).expect("few");
            (world.person(number + 1), Rules::default())
        })
        .collect();
    for at in 0..LONG {
        let step_of = |number: usize| STEPS[number / STEPS.len().pow(at) % STEPS.len()];
        let mut bookings = Vec::new();
        let mut others = Vec::new();
        for (number, (who, _)) in people.iter().enumerate() {
            match step_of(number) {
                Step::Book(serial) => {
                    let op = world.book(&with_serial(who, serial), 0, one(slots[0]));
                    bookings.push((number, serial, op));
                }
                Step::Leave(serial) | Step::Stay(serial) => {
                    let (who, step) = (with_serial(who, serial), step_of(number));
                    others.push(async move {
                        let answer = match step {
                            Step::Leave(_) => leaves(world, &op(&who, "busan", true)).await.decided,
                            Step::Stay(_) | Step::Book(_) => stays(world, &who).await,
                        };
                        (number, serial, step, answer.expect("nothing has begun"))
                    });
                }
            }
        }
        let mut others = others.into_iter();
        loop {
            let some: Vec<_> = others.by_ref().take(64).collect();
            if some.is_empty() {
                break;
            }
            for (number, serial, step, departure) in join_all(some).await {
                let leaving = matches!(step, Step::Leave(_));
                people[number].1.decides(serial, &departure, leaving);
            }
        }
        for some in bookings.chunks(512) {
            let ops: Vec<_> = some.iter().map(|(.., op)| op.clone()).collect();
            let answer = desk.run(&ops).await;
            for ((number, serial, _), verdict) in some.iter().zip(answer.verdicts) {
                let rules = &mut people[*number].1;
                if matches!(verdict, Verdict::Done(_)) {
                    assert!(!rules.barred(*serial), "serial {serial} of {number}");
                    assert_eq!(rules.booked_with, None, "a second booking of {number}");
                    rules.booked_with = Some(*serial);
                }
            }
        }
    }
    let mut booked = 0;
    for (who, rules) in &people {
        let claim = world.claim(who).await.expect("everybody did something");
        let has = claim.state == ClaimState::Booked;
        assert_eq!(has, rules.booked_with.is_some(), "{claim:?}");
        booked += u32::from(has);
    }
    assert_eq!(world.booked(slots[0]).await, booked);
}

pub async fn who_books_leaves_and_stays_at_once_gets_one_decision(world: &World) {
    let slots = world.offers(1, &[offer(0, 1_000)]).await;
    let mut desk = world.desk(0).await;
    for round in 0..20 {
        let people: Vec<_> = (0..32)
            .map(|number| world.person(round * 32 + number + 1))
            .collect();
        let ops: Vec<_> = people
            .iter()
            .map(|who| world.book(who, 0, one(slots[0])))
            .collect();
        let leaving = join_all(people.iter().map(async |who| {
            let op = op(who, "busan", true);
            leaves(world, &op).await.decided
        }));
        let staying = join_all(people.iter().map(async |who| stays(world, who).await));
        let (leaving, staying, answer) = tokio::join!(leaving, staying, desk.run(&ops));
        let both = leaving.into_iter().zip(staying).zip(answer.verdicts);
        for (who, ((leaving, staying), verdict)) in people.iter().zip(both) {
            assert_eq!(leaving, staying, "two decisions about one serial");
            let claim = world.claim(who).await.expect("a claim");
            match leaving.expect("nothing has begun") {
                Departure::Left { .. } => assert_eq!(claim.state, ClaimState::Surrendered),
                Departure::Stayed => {
                    let booked = matches!(verdict, Verdict::Done(_));
                    assert_eq!(claim.state == ClaimState::Booked, booked);
                    assert_eq!(claim.serial, Serial(2));
                }
            }
        }
    }
}
