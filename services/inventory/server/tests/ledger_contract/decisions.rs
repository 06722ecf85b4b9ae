//! Every refusal of a booking or hold, in order of precedence.

use domain::command::Done;
use domain::{Refusal, SlotId, Verdict};
use inventory::ledger::{ClaimState, SlotCount};

use crate::desk::{done, one, refused, reused, two};
use crate::world::{AN_HOUR, BODY, OTHER_BODY, World, offer, with_serial};

pub async fn a_booking_takes_a_place_and_is_recorded(world: &World) {
    let slots = world.offers(1, &[offer(0, 3)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let op = world.book(&who, 0, one(slots[0]));
    let answer = desk.run(std::slice::from_ref(&op)).await;
    let recorded = done(answer.verdicts[0].clone());
    assert_eq!(
        (recorded.done, recorded.slots),
        (Done::Booked, one(slots[0]))
    );
    assert_eq!(recorded.claim_version.0, 1);
    let count = SlotCount {
        slot: slots[0],
        capacity: 3,
        booked: 1,
        open: true,
    };
    assert_eq!(answer.slots, vec![count]);
    assert_eq!(
        world.recorded(&who, op.request).await,
        Some(recorded.clone())
    );
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!((claim.state, claim.version.0), (ClaimState::Booked, 1));
    assert_eq!(claim.booking, Some(recorded.booking));
    assert_eq!(claim.appointments[0].slot.slot, slots[0]);
}

pub async fn the_request_id_is_looked_up_before_everything_else(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = with_serial(&world.person(1), 5);
    let op = world.book(&who, 0, one(slots[0]));
    let recorded = desk.does(&op).await;
    let mut again = op.clone();
    again.claimant.serial.0 = 1;
    again.claim_version.0 = 99;
    assert_eq!(desk.one(&again).await, Verdict::Exists(recorded));
    again.body_hash = OTHER_BODY;
    reused(&desk.one(&again).await);
}

pub async fn an_older_permit_is_refused_before_the_state_of_the_claim(world: &World) {
    let slots = world.offers(1, &[offer(0, 2), offer(0, 2)]).await;
    let mut desk = world.desk(0).await;
    let old = world.person(1);
    let new = with_serial(&old, 2);
    let booking = desk.does(&world.book(&new, 0, one(slots[0]))).await.booking;
    for version in [0, 1] {
        let verdict = desk.one(&world.book(&old, version, one(slots[0]))).await;
        refused(&verdict, Refusal::PermitSuperseded, 1);
    }
    let verdict = desk.one(&world.confirm(&old, 1, booking)).await;
    refused(&verdict, Refusal::PermitSuperseded, 1);
    let moved = world
        .moved(&desk, &world.move_op(&old, 1, booking, 1, slots[1]))
        .await;
    refused(&moved.verdict, Refusal::PermitSuperseded, 1);
    let cancelled = world
        .cancelled(&world.cancel_op(&old, 1, booking, None))
        .await;
    refused(&cancelled.verdict, Refusal::PermitSuperseded, 1);
    assert_eq!(world.booked(slots[0]).await, 1);
}

pub async fn a_newer_permit_raises_the_serial_only_when_its_op_succeeds(world: &World) {
    let slots = world.offers(1, &[offer(0, 1), offer(0, 0)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let hold = desk
        .does(&world.hold(&who, 0, one(slots[0]), AN_HOUR))
        .await
        .booking;
    let newer = with_serial(&who, 7);
    let verdict = desk.one(&world.book(&newer, 1, one(slots[1]))).await;
    refused(&verdict, Refusal::AlreadyHeld, 1);
    assert_eq!(world.claim(&who).await.expect("a claim").serial.0, 1);
    desk.does(&world.confirm(&newer, 1, hold)).await;
    assert_eq!(world.claim(&who).await.expect("a claim").serial.0, 7);
    let verdict = desk.one(&world.confirm(&who, 2, hold)).await;
    refused(&verdict, Refusal::PermitSuperseded, 2);
}

pub async fn an_existing_booking_is_told_before_a_stale_version(world: &World) {
    let slots = world.offers(1, &[offer(0, 2)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    desk.does(&world.book(&who, 0, one(slots[0]))).await;
    for version in [0, 1, 2] {
        let verdict = desk.one(&world.book(&who, version, one(slots[0]))).await;
        refused(&verdict, Refusal::AlreadyBooked, 1);
        let verdict = desk
            .one(&world.hold(&who, version, one(slots[0]), AN_HOUR))
            .await;
        refused(&verdict, Refusal::AlreadyBooked, 1);
    }
}

pub async fn a_live_hold_is_told_before_a_stale_version(world: &World) {
    let slots = world.offers(1, &[offer(0, 2)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    desk.does(&world.hold(&who, 0, one(slots[0]), AN_HOUR))
        .await;
    for version in [0, 1, 2] {
        let verdict = desk
            .one(&world.hold(&who, version, one(slots[0]), AN_HOUR))
            .await;
        refused(&verdict, Refusal::AlreadyHeld, 1);
        let verdict = desk.one(&world.book(&who, version, one(slots[0]))).await;
        refused(&verdict, Refusal::AlreadyHeld, 1);
    }
}

pub async fn a_stale_version_is_told_before_anything_about_slots(world: &World) {
    world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let nowhere = one(SlotId(999_999));
    let verdict = desk.one(&world.book(&world.person(1), 3, nowhere)).await;
    refused(&verdict, Refusal::ClaimVersionStale, 0);
    assert_eq!(world.claim(&world.person(1)).await, None);
}

pub async fn slots_are_judged_unknown_then_wrong_shard_then_closed_then_full(world: &World) {
    let offers = [
        offer(1, 0).closed(),
        offer(0, 0).closed(),
        offer(0, 0),
        offer(0, 5),
        offer(0, 5).second_dose(),
    ];
    let slots = world.offers(2, &offers).await;
    let mut desk = world.desk(0).await;
    let nowhere = SlotId(999_999);
    let cases = [
        (one(nowhere), Refusal::SlotUnknown),
        (one(SlotId(u64::MAX)), Refusal::SlotUnknown),
        (one(SlotId(0)), Refusal::SlotUnknown),
        (one(slots[0]), Refusal::WrongShard),
        (one(slots[1]), Refusal::SlotClosed),
        (one(slots[2]), Refusal::SlotFull),
        // Slot by slot: the first one's reason, however grave the second one's is.
        (two(slots[2], nowhere), Refusal::SlotFull),
        (two(nowhere, slots[2]), Refusal::SlotUnknown),
        (two(slots[3], slots[0]), Refusal::WrongShard),
        (two(slots[3], slots[1]), Refusal::SlotClosed),
        (two(slots[1], slots[4]), Refusal::SlotClosed),
        (two(slots[3], slots[3]), Refusal::SlotsMismatch),
    ];
    let who = world.person(1);
    for (wanted, refusal) in cases {
        refused(&desk.one(&world.book(&who, 0, wanted)).await, refusal, 0);
        refused(
            &desk.one(&world.hold(&who, 0, wanted, AN_HOUR)).await,
            refusal,
            0,
        );
    }
    for slot in [slots[3], slots[4]] {
        assert_eq!(world.booked(slot).await, 0);
    }
}

pub async fn a_refusal_writes_nothing_and_its_request_id_may_still_succeed(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let (first, second) = (world.person(1), world.person(2));
    let booking = desk
        .does(&world.book(&first, 0, one(slots[0])))
        .await
        .booking;
    let op = world.book(&second, 0, one(slots[0]));
    refused(&desk.one(&op).await, Refusal::SlotFull, 0);
    assert_eq!(world.recorded(&second, op.request).await, None);
    assert_eq!(world.claim(&second).await, None);
    assert_eq!(world.booked(slots[0]).await, 1);
    world
        .cancelled(&world.cancel_op(&first, 1, booking, None))
        .await;
    done(desk.one(&op).await);
}

pub async fn a_batch_is_answered_op_by_op_and_each_slot_once(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 2), offer(0, 9).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let ops = vec![
        world.book(&world.person(9), 0, one(slots[0])),
        world.book(&world.person(3), 0, one(SlotId(999_999))),
        world.hold(&world.person(7), 0, one(slots[1]), AN_HOUR),
        world.book(&world.person(1), 0, one(slots[0])),
        world.book(&world.person(2), 0, one(slots[0])),
    ];
    let answer = desk.run(&ops).await;
    assert_eq!(done(answer.verdicts[0].clone()).done, Done::Booked);
    refused(&answer.verdicts[1], Refusal::SlotUnknown, 0);
    assert_eq!(done(answer.verdicts[2].clone()).done, Done::Held);
    done(answer.verdicts[3].clone());
    refused(&answer.verdicts[4], Refusal::SlotFull, 0);
    let mut counts: Vec<_> = answer.slots.iter().map(|c| (c.slot, c.booked)).collect();
    counts.sort_unstable();
    assert_eq!(counts, vec![(slots[0], 2), (slots[1], 1)]);
}

pub async fn an_empty_batch_uses_its_number_and_changes_nothing(world: &World) {
    world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let answer = desk.run(&[]).await;
    assert!(answer.verdicts.is_empty() && answer.slots.is_empty());
    assert_eq!(world.ledger.shards().await.expect("shards")[0].batch_seq, 1);
}

pub async fn people_and_campaigns_do_not_share_request_ids(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let first = world.book(&world.person(1), 0, one(slots[0]));
    let mut second = world.book(&world.person(2), 0, one(slots[0]));
    second.request = first.request;
    second.body_hash = OTHER_BODY;
    assert_ne!(BODY, OTHER_BODY);
    let answer = desk.run(&[first.clone(), second]).await;
    for verdict in answer.verdicts {
        done(verdict);
    }
    let mut elsewhere = world.book(&world.person(1), 0, one(slots[0]));
    elsewhere.claimant.campaign = "kr-2021-sixties".parse().expect("a campaign");
    elsewhere.request = first.request;
    let booking = desk.does(&elsewhere).await.booking;
    let mut cancel = world.cancel_op(&elsewhere.claimant, 1, booking, None);
    cancel.claimant = elsewhere.claimant.clone();
    done(world.cancelled(&cancel).await.verdict);
}
