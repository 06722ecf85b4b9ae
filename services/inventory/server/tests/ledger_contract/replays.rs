//! The same request again: at once, later, after everything changed.

use domain::{Refusal, Verdict};

use crate::desk::{done, one, refused, reused, two};
use crate::world::{AN_HOUR, AT_ONCE, OTHER_BODY, World, offer};

pub async fn a_repeated_request_gets_the_recorded_answer_and_changes_nothing(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 5), offer(0, 5).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let (one_of, two_of) = (world.person(1), world.person(2));
    let hold = world.hold(&one_of, 0, two(slots[0], slots[1]), AN_HOUR);
    let held = desk.does(&hold).await;
    let release = world.release(&one_of, 1, held.booking);
    let released = desk.does(&release).await;
    let hold_again = world.hold(&one_of, 2, one(slots[0]), AN_HOUR);
    let held_again = desk.does(&hold_again).await;
    let confirm = world.confirm(&one_of, 3, held_again.booking);
    let confirmed = desk.does(&confirm).await;
    let book = world.book(&two_of, 0, one(slots[0]));
    let booked = desk.does(&book).await;
    for _ in 0..2 {
        let pairs = [
            (&hold, &held),
            (&release, &released),
            (&hold_again, &held_again),
            (&confirm, &confirmed),
            (&book, &booked),
        ];
        for (op, recorded) in pairs {
            let answer = desk.run(std::slice::from_ref(op)).await;
            assert_eq!(answer.verdicts, vec![Verdict::Exists(recorded.clone())]);
            let wanted = op.action.wants().into_iter().flat_map(|pair| pair.iter());
            for slot in wanted {
                assert!(answer.slots.iter().any(|count| count.slot == slot));
            }
            let mut other = (*op).clone();
            other.body_hash = OTHER_BODY;
            reused(&desk.one(&other).await);
        }
    }
    assert_eq!(world.booked(slots[0]).await, 2);
    assert_eq!(world.booked(slots[1]).await, 0);
    assert_eq!(world.claim(&one_of).await.expect("a claim").version.0, 4);
}

pub async fn a_booking_repeated_after_its_cancellation_is_still_answered_as_made(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let op = world.book(&who, 0, one(slots[0]));
    let recorded = desk.does(&op).await;
    done(
        world
            .cancelled(&world.cancel_op(&who, 1, recorded.booking, None))
            .await
            .verdict,
    );
    assert_eq!(desk.one(&op).await, Verdict::Exists(recorded));
    assert_eq!(world.booked(slots[0]).await, 0);
}

pub async fn a_delayed_duplicate_after_a_cancellation_is_stale(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    done(
        world
            .cancelled(&world.cancel_op(&who, 1, booking, None))
            .await
            .verdict,
    );
    // Another device sent the same intent under its own id before it heard of the booking.
    let verdict = desk.one(&world.book(&who, 0, one(slots[0]))).await;
    refused(&verdict, Refusal::ClaimVersionStale, 2);
    assert_eq!(world.booked(slots[0]).await, 0);
    desk.does(&world.book(&who, 2, one(slots[0]))).await;
}

pub async fn a_repeated_move_or_cancellation_gets_the_recorded_answer(world: &World) {
    let slots = world.offers(1, &[offer(0, 5), offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let to = world.move_op(&who, 1, booking, 1, slots[1]);
    let moved = done(world.moved(&desk, &to).await.verdict);
    assert_eq!(
        world.moved(&desk, &to).await.verdict,
        Verdict::Exists(moved.clone())
    );
    let cancel = world.cancel_op(&who, 2, booking, None);
    let cancelled = done(world.cancelled(&cancel).await.verdict);
    assert_eq!(
        world.cancelled(&cancel).await.verdict,
        Verdict::Exists(cancelled)
    );
    assert_eq!(
        world.moved(&desk, &to).await.verdict,
        Verdict::Exists(moved)
    );
    let mut other = to.clone();
    other.body_hash = OTHER_BODY;
    reused(&world.moved(&desk, &other).await.verdict);
    let mut other = cancel.clone();
    other.body_hash = OTHER_BODY;
    reused(&world.cancelled(&other).await.verdict);
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (0, 0)
    );
}

pub async fn one_request_id_serves_one_intent_over_all_methods(world: &World) {
    let slots = world.offers(1, &[offer(0, 5), offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let op = world.book(&who, 0, one(slots[0]));
    let booking = desk.does(&op).await.booking;
    let mut cancel = world.cancel_op(&who, 1, booking, None);
    cancel.request = op.request;
    cancel.body_hash = OTHER_BODY;
    reused(&world.cancelled(&cancel).await.verdict);
    let mut to = world.move_op(&who, 1, booking, 1, slots[1]);
    to.request = op.request;
    to.body_hash = OTHER_BODY;
    reused(&world.moved(&desk, &to).await.verdict);
    let to = world.move_op(&who, 1, booking, 1, slots[1]);
    done(world.moved(&desk, &to).await.verdict);
    let mut book = world.book(&who, 2, one(slots[0]));
    book.request = to.request;
    book.body_hash = OTHER_BODY;
    reused(&desk.one(&book).await);
}

pub async fn a_hold_repeated_after_its_end_is_answered_as_made(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let op = world.hold(&who, 0, one(slots[0]), AT_ONCE);
    let recorded = desk.does(&op).await;
    assert_eq!(desk.one(&op).await, Verdict::Exists(recorded.clone()));
    desk.sweep(10).await;
    assert_eq!(desk.one(&op).await, Verdict::Exists(recorded));
    assert_eq!(world.booked(slots[0]).await, 0);
}
