//! First and second dose in one op: both or none.

use domain::Refusal;

use crate::desk::{done, one, refused, two};
use crate::world::{AN_HOUR, AT_ONCE, World, offer};

pub async fn two_doses_are_taken_together_or_not_at_all(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 5), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let pair = two(slots[0], slots[1]);
    let recorded = desk.does(&world.book(&world.person(1), 0, pair)).await;
    assert_eq!(recorded.slots, pair);
    let claim = world.claim(&world.person(1)).await.expect("a claim");
    let visits: Vec<_> = claim
        .appointments
        .iter()
        .map(|a| (a.slot.dose, a.slot.slot))
        .collect();
    assert_eq!(visits, vec![(1, slots[0]), (2, slots[1])]);
    for op in [
        world.book(&world.person(2), 0, pair),
        world.hold(&world.person(2), 0, pair, AN_HOUR),
    ] {
        refused(&desk.one(&op).await, Refusal::SlotFull, 0);
    }
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (1, 1)
    );
}

pub async fn the_last_place_goes_to_the_first_op_of_a_batch(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 2), offer(0, 1).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let pair = two(slots[0], slots[1]);
    // Against the order of the people's ids, which is the order of the locks.
    let mut people = [
        world.person(1),
        world.person(2),
        world.person(3),
        world.person(4),
    ];
    people.sort_by_key(|who| std::cmp::Reverse(who.person));
    let ops = [
        world.book(&people[0], 0, pair),
        world.book(&people[1], 0, pair),
        world.book(&people[2], 0, one(slots[0])),
        world.book(&people[3], 0, one(slots[0])),
    ];
    let verdicts = desk.run(&ops).await.verdicts;
    done(verdicts[0].clone());
    refused(&verdicts[1], Refusal::SlotFull, 0);
    done(verdicts[2].clone());
    refused(&verdicts[3], Refusal::SlotFull, 0);
}

pub async fn a_refused_pair_leaves_its_first_place_to_the_next_op(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 1), offer(0, 0).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let ops = [
        world.book(&world.person(1), 0, two(slots[0], slots[1])),
        world.book(&world.person(2), 0, one(slots[0])),
    ];
    let verdicts = desk.run(&ops).await.verdicts;
    refused(&verdicts[0], Refusal::SlotFull, 0);
    done(verdicts[1].clone());
}

pub async fn a_pair_that_was_held_is_confirmed_or_expires_as_one(world: &World) {
    let slots = world
        .offers(1, &[offer(0, 2), offer(0, 2).second_dose()])
        .await;
    let mut desk = world.desk(0).await;
    let pair = two(slots[0], slots[1]);
    let (who, other) = (world.person(1), world.person(2));
    let hold = desk.does(&world.hold(&who, 0, pair, AN_HOUR)).await.booking;
    let confirmed = desk.does(&world.confirm(&who, 1, hold)).await;
    assert_eq!(confirmed.slots, pair);
    desk.does(&world.hold(&other, 0, pair, AT_ONCE)).await;
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (2, 2)
    );
    assert_eq!(desk.sweep(1).await.len(), 2);
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (1, 1)
    );
}
