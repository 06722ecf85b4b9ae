//! Holds: kept, confirmed, released, forgotten.

use domain::command::Done;
use domain::{Refusal, ShardId};
use inventory::ledger::ClaimState;

use crate::desk::{one, refused, two};
use crate::world::{AN_HOUR, AT_ONCE, World, offer, with_serial};

pub async fn a_held_place_is_taken_until_it_is_released(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let (who, other) = (world.person(1), world.person(2));
    let held = desk
        .does(&world.hold(&who, 0, one(slots[0]), AN_HOUR))
        .await;
    assert_eq!(held.done, Done::Held);
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(
        (claim.state, claim.hold_until),
        (ClaimState::Held, held.hold_until)
    );
    let verdict = desk.one(&world.book(&other, 0, one(slots[0]))).await;
    refused(&verdict, Refusal::SlotFull, 0);
    let answer = desk.run(&[world.release(&who, 1, held.booking)]).await;
    assert_eq!(
        answer.slots.iter().map(|c| c.booked).collect::<Vec<_>>(),
        vec![0]
    );
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!((claim.state, claim.version.0), (ClaimState::Free, 2));
    desk.does(&world.book(&other, 0, one(slots[0]))).await;
}

pub async fn a_confirmed_hold_is_a_booking_of_the_same_id(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let hold = desk
        .does(&world.hold(&who, 0, one(slots[0]), AN_HOUR))
        .await
        .booking;
    refused(
        &desk.one(&world.confirm(&who, 0, hold)).await,
        Refusal::ClaimVersionStale,
        1,
    );
    let confirmed = desk.does(&world.confirm(&who, 1, hold)).await;
    assert_eq!((confirmed.done, confirmed.booking), (Done::Confirmed, hold));
    assert_eq!(
        (confirmed.slots, confirmed.claim_version.0),
        (one(slots[0]), 2)
    );
    assert_eq!(
        world.claim(&who).await.expect("a claim").state,
        ClaimState::Booked
    );
    assert_eq!(world.booked(slots[0]).await, 1);
    for version in [1, 2] {
        let verdict = desk.one(&world.confirm(&who, version, hold)).await;
        refused(&verdict, Refusal::AlreadyBooked, 2);
        let verdict = desk.one(&world.release(&who, version, hold)).await;
        refused(&verdict, Refusal::AlreadyBooked, 2);
    }
    let verdict = desk.one(&world.confirm(&who, 2, world.booking())).await;
    refused(&verdict, Refusal::BookingUnknown, 2);
}

pub async fn a_hold_that_never_was_is_unknown(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let stranger = world.booking();
    refused(
        &desk.one(&world.confirm(&who, 0, stranger)).await,
        Refusal::BookingUnknown,
        0,
    );
    refused(
        &desk.one(&world.release(&who, 0, stranger)).await,
        Refusal::BookingUnknown,
        0,
    );
    assert_eq!(world.claim(&who).await, None);
    desk.does(&world.hold(&who, 0, one(slots[0]), AN_HOUR))
        .await;
    refused(
        &desk.one(&world.confirm(&who, 1, stranger)).await,
        Refusal::BookingUnknown,
        1,
    );
    refused(
        &desk.one(&world.release(&who, 0, stranger)).await,
        Refusal::BookingUnknown,
        1,
    );
}

pub async fn a_released_hold_is_unknown_afterwards(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 1), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let hold = desk
        .does(&world.hold(&who, 0, two(slots[0], slots[1]), AN_HOUR))
        .await
        .booking;
    refused(
        &desk.one(&world.release(&who, 0, hold)).await,
        Refusal::ClaimVersionStale,
        1,
    );
    let released = desk.does(&world.release(&who, 1, hold)).await;
    assert_eq!(
        (released.done, released.slots),
        (Done::Released, two(slots[0], slots[1]))
    );
    for version in [1, 2] {
        let verdict = desk.one(&world.confirm(&who, version, hold)).await;
        refused(&verdict, Refusal::BookingUnknown, 2);
    }
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (0, 0)
    );
}

pub async fn an_expired_hold_cannot_be_confirmed_or_released(world: &World) {
    let slots = world.offers(1, &[offer(0, 2)]).await;
    let mut desk = world.desk(0).await;
    for (number, release) in [(1, false), (2, true)] {
        let who = world.person(number);
        let hold = desk
            .does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
            .await
            .booking;
        for version in [1, 0, 7] {
            let op = if release {
                world.release(&who, version, hold)
            } else {
                world.confirm(&who, version, hold)
            };
            refused(&desk.one(&op).await, Refusal::HoldExpired, 1);
            assert_eq!(world.booked(slots[0]).await, 0);
        }
        let stranger = world.booking();
        let verdict = desk.one(&world.confirm(&who, 1, stranger)).await;
        refused(&verdict, Refusal::BookingUnknown, 1);
    }
}

pub async fn whoever_meets_an_expired_hold_gives_it_back_even_when_refused(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 1), offer(0, 0), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let pair = two(slots[0], slots[2]);
    let hold = desk.does(&world.hold(&who, 0, pair, AT_ONCE)).await.booking;
    let op = world.book(&who, 1, one(slots[1]));
    let answer = desk.run(std::slice::from_ref(&op)).await;
    refused(&answer.verdicts[0], Refusal::SlotFull, 1);
    let mut counts: Vec<_> = answer.slots.iter().map(|c| (c.slot, c.booked)).collect();
    counts.sort_unstable();
    assert_eq!(counts, vec![(slots[0], 0), (slots[1], 0), (slots[2], 0)]);
    assert_eq!(world.recorded(&who, op.request).await, None);
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!((claim.state, claim.version.0), (ClaimState::Free, 1));
    // Its id is still known to have expired.
    refused(
        &desk.one(&world.confirm(&who, 1, hold)).await,
        Refusal::HoldExpired,
        1,
    );
}

pub async fn after_an_expired_hold_the_person_may_hold_or_book_again(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let first = desk
        .does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
        .await;
    // The place of the dead hold is the one taken again: it has to be back before the slot is looked at.
    refused(
        &desk.one(&world.hold(&who, 0, one(slots[0]), AT_ONCE)).await,
        Refusal::ClaimVersionStale,
        1,
    );
    let second = desk
        .does(&world.hold(&who, 1, one(slots[0]), AT_ONCE))
        .await;
    assert_eq!(second.claim_version.0, 2);
    let verdict = desk.one(&world.confirm(&who, 2, first.booking)).await;
    refused(&verdict, Refusal::BookingUnknown, 2);
    let booked = desk.does(&world.book(&who, 2, one(slots[0]))).await;
    assert_eq!(booked.claim_version.0, 3);
    let verdict = desk.one(&world.confirm(&who, 3, second.booking)).await;
    refused(&verdict, Refusal::BookingUnknown, 3);
    assert_eq!(world.booked(slots[0]).await, 1);
}

pub async fn an_expired_hold_in_the_same_slot_makes_room_for_its_own_person(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let (who, other) = (world.person(1), world.person(2));
    desk.does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
        .await;
    // Only the person's own op or a sweep meets a hold; to others its place stays taken until then.
    let verdict = desk.one(&world.book(&other, 0, one(slots[0]))).await;
    refused(&verdict, Refusal::SlotFull, 0);
    let answer = desk
        .run(&[
            world.book(&who, 1, one(slots[0])),
            world.book(&other, 0, one(slots[0])),
        ])
        .await;
    crate::desk::done(answer.verdicts[0].clone());
    refused(&answer.verdicts[1], Refusal::SlotFull, 0);
}

pub async fn a_place_given_back_in_a_batch_goes_to_a_later_op_of_it(world: &World) {
    let slots = world.offers(1, &[offer(0, 1), offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let (who, other) = (world.person(1), world.person(2));
    desk.does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
        .await;
    let ops = [
        world.book(&who, 1, one(slots[1])),
        world.book(&other, 0, one(slots[0])),
    ];
    for verdict in desk.run(&ops).await.verdicts {
        crate::desk::done(verdict);
    }
}

pub async fn an_expired_hold_reads_as_free_before_anyone_gave_it_back(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    desk.does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
        .await;
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!((claim.state, claim.version.0), (ClaimState::Free, 1));
    assert!(claim.appointments.is_empty() && claim.hold_until.is_none());
    assert_eq!(world.booked(slots[0]).await, 1);
}

pub async fn a_sweep_gives_back_expired_holds_of_its_shard_up_to_a_limit(world: &World) {
    let slots = world.offers(2, &[offer(0, 9), offer(1, 9)]).await;
    let (mut desk, mut neighbour) = (world.desk(0).await, world.desk(1).await);
    assert!(
        !world
            .ledger
            .has_expired_holds(ShardId(0))
            .await
            .expect("holds")
    );
    for number in 0..3 {
        let op = world.hold(&world.person(number), 0, one(slots[0]), AT_ONCE);
        desk.does(&op).await;
    }
    let live = world.hold(&world.person(10), 0, one(slots[0]), AN_HOUR);
    desk.does(&live).await;
    let op = world.hold(&world.person(11), 0, one(slots[1]), AT_ONCE);
    neighbour.does(&op).await;
    let mut left = 4;
    for swept in [2, 1, 0] {
        assert_eq!(
            world
                .ledger
                .has_expired_holds(ShardId(0))
                .await
                .expect("holds"),
            swept > 0
        );
        let counts = desk.sweep(2).await;
        left -= swept;
        assert_eq!(counts.len(), usize::from(swept > 0));
        assert!(
            counts
                .iter()
                .all(|c| c.slot == slots[0] && c.booked == left)
        );
        assert_eq!(world.booked(slots[0]).await, left);
    }
    assert_eq!(world.booked(slots[1]).await, 1);
    assert!(
        world
            .ledger
            .has_expired_holds(ShardId(1))
            .await
            .expect("holds")
    );
    assert_eq!(neighbour.sweep(9).await.len(), 1);
}

pub async fn a_hold_is_settled_by_the_shard_of_its_slots(world: &World) {
    let slots = world.offers(2, &[offer(0, 1)]).await;
    let (mut desk, mut neighbour) = (world.desk(0).await, world.desk(1).await);
    let who = world.person(1);
    let hold = desk
        .does(&world.hold(&who, 0, one(slots[0]), AN_HOUR))
        .await
        .booking;
    refused(
        &neighbour.one(&world.confirm(&who, 1, hold)).await,
        Refusal::WrongShard,
        1,
    );
    refused(
        &neighbour.one(&world.release(&who, 1, hold)).await,
        Refusal::WrongShard,
        1,
    );
    refused(
        &neighbour.one(&world.confirm(&who, 9, hold)).await,
        Refusal::ClaimVersionStale,
        1,
    );
    desk.does(&world.confirm(&who, 1, hold)).await;
}

pub async fn an_older_permit_does_not_end_an_expired_hold(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = with_serial(&world.person(1), 3);
    desk.does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
        .await;
    let verdict = desk
        .one(&world.book(&with_serial(&who, 2), 1, one(slots[0])))
        .await;
    refused(&verdict, Refusal::PermitSuperseded, 1);
    assert_eq!(world.booked(slots[0]).await, 1);
}
