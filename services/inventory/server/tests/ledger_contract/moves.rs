//! Moving an appointment, giving up one or both.

use domain::command::Done;
use domain::{Refusal, SlotId};
use inventory::ledger::{ClaimState, Fault};

use crate::desk::{done, one, refused, two};
use crate::world::{AN_HOUR, AT_ONCE, World, offer};

pub async fn a_move_takes_the_new_place_and_then_gives_the_old_one_up(world: &World) {
    let slots = world.offers(2, &[offer(0, 1), offer(1, 1)]).await;
    let (mut desk, target) = (world.desk(0).await, world.desk(1).await);
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let answer = world
        .moved(&target, &world.move_op(&who, 1, booking, 1, slots[1]))
        .await;
    let moved = done(answer.verdict);
    assert_eq!(
        (moved.done, moved.booking, moved.slots),
        (Done::Moved, booking, one(slots[1]))
    );
    assert_eq!(moved.claim_version.0, 2);
    let mut counts: Vec<_> = answer.slots.iter().map(|c| (c.slot, c.booked)).collect();
    counts.sort_unstable();
    assert_eq!(counts, vec![(slots[0], 0), (slots[1], 1)]);
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(
        (claim.state, claim.booking),
        (ClaimState::Booked, Some(booking))
    );
    assert_eq!(claim.appointments[0].slot.slot, slots[1]);
    // The place given up is free for others.
    desk.does(&world.book(&world.person(2), 0, one(slots[0])))
        .await;
}

pub async fn a_move_is_refused_by_the_claim_before_the_slots(world: &World) {
    let slots = world.offers(1, &[offer(0, 9), offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let nowhere = SlotId(999_999);
    let (who, holder, nobody) = (world.person(1), world.person(2), world.person(3));
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let hold = desk
        .does(&world.hold(&holder, 0, one(slots[0]), AN_HOUR))
        .await
        .booking;
    let cases = [
        (
            world.move_op(&nobody, 0, booking, 1, nowhere),
            Refusal::BookingUnknown,
            0,
        ),
        (
            world.move_op(&holder, 1, hold, 1, slots[1]),
            Refusal::BookingUnknown,
            1,
        ),
        (
            world.move_op(&who, 9, world.booking(), 1, nowhere),
            Refusal::BookingUnknown,
            1,
        ),
        (
            world.move_op(&who, 9, booking, 2, nowhere),
            Refusal::ClaimVersionStale,
            1,
        ),
        (
            world.move_op(&who, 1, booking, 2, nowhere),
            Refusal::DoseUnknown,
            1,
        ),
        (
            world.move_op(&who, 1, booking, 1, nowhere),
            Refusal::SlotUnknown,
            1,
        ),
        (
            world.move_op(&who, 1, booking, 1, SlotId(u64::MAX)),
            Refusal::SlotUnknown,
            1,
        ),
    ];
    for (op, refusal, version) in cases {
        let answer = world.moved(&desk, &op).await;
        refused(&answer.verdict, refusal, version);
        assert_eq!(world.recorded(&op.claimant, op.request).await, None);
    }
    assert_eq!(world.claim(&nobody).await, None);
}

pub async fn a_move_is_refused_by_its_target_in_order(world: &World) {
    let offers = [
        offer(0, 1),
        offer(1, 0).closed().of_vaccine("vector"),
        offer(0, 0).closed().of_vaccine("vector"),
        offer(0, 0).of_vaccine("vector"),
        offer(0, 0).second_dose(),
        offer(0, 0),
    ];
    let slots = world.offers(2, &offers).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let cases = [
        (slots[1], Refusal::WrongShard),
        (slots[2], Refusal::SlotClosed),
        // Full with the person themselves, but that is not the reason.
        (slots[0], Refusal::SlotsMismatch),
        (slots[3], Refusal::SlotsMismatch),
        (slots[4], Refusal::SlotsMismatch),
        (slots[5], Refusal::SlotFull),
    ];
    for (to, refusal) in cases {
        let answer = world
            .moved(&desk, &world.move_op(&who, 1, booking, 1, to))
            .await;
        refused(&answer.verdict, refusal, 1);
    }
    assert_eq!(world.booked(slots[0]).await, 1);
}

pub async fn one_dose_moves_and_the_other_stays(world: &World) {
    let offers = [
        offer(0, 1),
        offer(0, 1).second_dose(),
        offer(0, 1),
        offer(0, 1).second_dose(),
    ];
    let slots = world.offers(1, &offers).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk
        .does(&world.book(&who, 0, two(slots[0], slots[1])))
        .await
        .booking;
    let op = world.move_op(&who, 1, booking, 2, slots[3]);
    assert_eq!(
        done(world.moved(&desk, &op).await.verdict).slots,
        two(slots[0], slots[3])
    );
    let op = world.move_op(&who, 2, booking, 1, slots[2]);
    assert_eq!(
        done(world.moved(&desk, &op).await.verdict).slots,
        two(slots[2], slots[3])
    );
    let mut booked = Vec::new();
    for slot in &slots {
        booked.push(world.booked(*slot).await);
    }
    assert_eq!(booked, vec![0, 0, 1, 1]);
    let claim = world.claim(&who).await.expect("a claim");
    let visits: Vec<_> = claim.appointments.iter().map(|a| a.slot.slot).collect();
    assert_eq!(visits, vec![slots[2], slots[3]]);
}

pub async fn an_appointment_may_return_to_a_slot_it_left(world: &World) {
    let slots = world.offers(1, &[offer(0, 1), offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    for (version, to) in [(1, slots[1]), (2, slots[0]), (3, slots[1]), (4, slots[0])] {
        done(
            world
                .moved(&desk, &world.move_op(&who, version, booking, 1, to))
                .await
                .verdict,
        );
    }
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (1, 0)
    );
}

pub async fn a_move_needs_the_epoch_in_force(world: &World) {
    let slots = world.offers(1, &[offer(0, 1), offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let successor = world.desk(0).await;
    let op = world.move_op(&who, 1, booking, 1, slots[1]);
    let answer = world.ledger.move_booking(desk.shard, desk.epoch, &op).await;
    match answer {
        Err(Fault::Fenced { held, found, .. }) => {
            assert_eq!((held, found), (desk.epoch, successor.epoch));
        }
        other => panic!("not fenced: {other:?}"),
    }
    assert_eq!(world.recorded(&who, op.request).await, None);
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (1, 0)
    );
    done(world.moved(&successor, &op).await.verdict);
}

pub async fn a_cancelled_booking_gives_every_place_back(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 1), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let pair = two(slots[0], slots[1]);
    let booking = desk.does(&world.book(&who, 0, pair)).await.booking;
    let op = world.cancel_op(&who, 1, booking, None);
    let answer = world.cancelled(&op).await;
    let recorded = done(answer.verdict);
    assert_eq!((recorded.done, recorded.slots), (Done::Cancelled, pair));
    assert_eq!(recorded.claim_version.0, 2);
    assert_eq!(world.recorded(&who, op.request).await, Some(recorded));
    assert_eq!(
        answer.slots.iter().map(|c| c.booked).collect::<Vec<_>>(),
        vec![0, 0]
    );
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(
        (claim.state, claim.version.0, claim.booking),
        (ClaimState::Free, 2, None)
    );
    let verdict = world
        .cancelled(&world.cancel_op(&who, 2, booking, None))
        .await
        .verdict;
    refused(&verdict, Refusal::BookingUnknown, 2);
    refused(
        &desk.one(&world.confirm(&who, 2, booking)).await,
        Refusal::BookingUnknown,
        2,
    );
    desk.does(&world.book(&who, 2, pair)).await;
}

pub async fn one_dose_is_cancelled_and_the_other_stays(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 1), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk
        .does(&world.book(&who, 0, two(slots[0], slots[1])))
        .await
        .booking;
    let first = done(
        world
            .cancelled(&world.cancel_op(&who, 1, booking, Some(1)))
            .await
            .verdict,
    );
    assert_eq!(first.slots, one(slots[1]));
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(
        (claim.state, claim.appointments.len()),
        (ClaimState::Booked, 1)
    );
    let verdict = world
        .cancelled(&world.cancel_op(&who, 2, booking, Some(1)))
        .await
        .verdict;
    refused(&verdict, Refusal::DoseUnknown, 2);
    let verdict = desk.one(&world.book(&who, 2, one(slots[0]))).await;
    refused(&verdict, Refusal::AlreadyBooked, 2);
    let last = done(
        world
            .cancelled(&world.cancel_op(&who, 2, booking, Some(2)))
            .await
            .verdict,
    );
    assert_eq!((last.slots, last.claim_version.0), (one(slots[1]), 3));
    assert_eq!(
        world.claim(&who).await.expect("a claim").state,
        ClaimState::Free
    );
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (0, 0)
    );
}

pub async fn a_cancellation_is_refused_by_booking_then_version_then_dose(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let (who, holder, nobody) = (world.person(1), world.person(2), world.person(3));
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let hold = desk
        .does(&world.hold(&holder, 0, one(slots[0]), AN_HOUR))
        .await
        .booking;
    let cases = [
        (
            world.cancel_op(&nobody, 0, booking, None),
            Refusal::BookingUnknown,
            0,
        ),
        (
            world.cancel_op(&holder, 1, hold, None),
            Refusal::BookingUnknown,
            1,
        ),
        (
            world.cancel_op(&who, 9, world.booking(), Some(2)),
            Refusal::BookingUnknown,
            1,
        ),
        (
            world.cancel_op(&who, 0, booking, Some(2)),
            Refusal::ClaimVersionStale,
            1,
        ),
        (
            world.cancel_op(&who, 1, booking, Some(2)),
            Refusal::DoseUnknown,
            1,
        ),
    ];
    for (op, refusal, version) in cases {
        refused(&world.cancelled(&op).await.verdict, refusal, version);
        assert_eq!(world.recorded(&op.claimant, op.request).await, None);
    }
    assert_eq!(world.claim(&nobody).await, None);
    assert_eq!(world.booked(slots[0]).await, 2);
}

pub async fn a_move_or_cancellation_that_meets_an_expired_hold_gives_it_back(world: &World) {
    let slots = world.offers(1, &[offer(0, 9), offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let (first, second) = (world.person(1), world.person(2));
    let hold = desk
        .does(&world.hold(&first, 0, one(slots[0]), AT_ONCE))
        .await
        .booking;
    let answer = world
        .moved(&desk, &world.move_op(&first, 1, hold, 1, slots[1]))
        .await;
    refused(&answer.verdict, Refusal::BookingUnknown, 1);
    assert_eq!(
        answer
            .slots
            .iter()
            .map(|c| (c.slot, c.booked))
            .collect::<Vec<_>>(),
        vec![(slots[0], 0)]
    );
    let hold = desk
        .does(&world.hold(&second, 0, one(slots[0]), AT_ONCE))
        .await
        .booking;
    let answer = world
        .cancelled(&world.cancel_op(&second, 1, hold, None))
        .await;
    refused(&answer.verdict, Refusal::BookingUnknown, 1);
    assert_eq!(world.booked(slots[0]).await, 0);
    refused(
        &desk.one(&world.confirm(&first, 1, hold)).await,
        Refusal::BookingUnknown,
        1,
    );
    refused(
        &desk.one(&world.confirm(&second, 1, hold)).await,
        Refusal::HoldExpired,
        1,
    );
}
