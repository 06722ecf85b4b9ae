//! Clinics, stock and slots as an operator applies them.

use domain::{Refusal, ShardId, VaccineId};
use inventory::ledger::{Applied, ApplyFault, ClinicSupply, NewSlot};

use crate::desk::{done, one, refused};
use crate::world::{AN_HOUR, Offer, World, clinic, offer};

fn supply(shard: u32, received: u32, slots: &[Offer]) -> ClinicSupply {
    let vaccine: VaccineId = "mrna".parse().expect("a vaccine");
    ClinicSupply {
        clinic: clinic(shard),
        received: [(vaccine, received)].into(),
        slots: slots
            .iter()
            .enumerate()
            .map(|(hour, o)| o.starting_at(hour))
            .collect(),
    }
}

async fn apply(world: &World, supply: &[ClinicSupply]) -> Result<Applied, ApplyFault> {
    world.ledger.apply(supply, false).await
}

#[track_caller]
fn refused_at(result: Result<Applied, ApplyFault>, shard: u32, expected: Refusal) {
    match result {
        Err(ApplyFault::Refused {
            clinic: at,
            refusal,
        }) => {
            assert_eq!((at, refusal), (clinic(shard).clinic, expected));
        }
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn an_application_repeated_changes_nothing(world: &World) {
    world.ledger.ensure_shards(2).await.expect("shards");
    let both = [
        supply(0, 10, &[offer(0, 4), offer(0, 6)]),
        supply(1, 3, &[offer(1, 3)]),
    ];
    let applied = apply(world, &both).await.expect("applied");
    let expected = Applied {
        clinics_added: 2,
        slots_added: 3,
        slots_changed: 0,
    };
    assert_eq!(applied, expected);
    let before = world.all_slots().await;
    let cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    assert_eq!(
        apply(world, &both).await.expect("applied"),
        Applied::default()
    );
    assert_eq!(world.all_slots().await, before);
    let changes = world
        .ledger
        .outside_changes(cursor, 100)
        .await
        .expect("changes");
    assert!(changes.slots.is_empty());
}

pub async fn places_cannot_be_opened_beyond_stock(world: &World) {
    world.ledger.ensure_shards(2).await.expect("shards");
    refused_at(
        apply(world, &[supply(0, 9, &[offer(0, 10)])]).await,
        0,
        Refusal::StockExceeded,
    );
    assert!(world.all_slots().await.is_empty());
    let good = supply(0, 10, &[offer(0, 10)]);
    let bad = supply(1, 0, &[offer(1, 1)]);
    refused_at(
        apply(world, &[good.clone(), bad]).await,
        1,
        Refusal::StockExceeded,
    );
    assert!(world.all_slots().await.is_empty(), "all or nothing");
    apply(world, &[good]).await.expect("applied");
    refused_at(
        apply(world, &[supply(0, 10, &[offer(0, 10), offer(0, 1)])]).await,
        0,
        Refusal::StockExceeded,
    );
    // Slots that are not named count as well.
    let mut later = supply(0, 10, &[]);
    later.slots.push(offer(0, 1).starting_at(7));
    refused_at(
        apply(world, std::slice::from_ref(&later)).await,
        0,
        Refusal::StockExceeded,
    );
    later.received.values_mut().for_each(|doses| *doses = 11);
    apply(world, &[later]).await.expect("applied");
}

pub async fn a_vaccine_that_never_came_opens_nothing(world: &World) {
    world.ledger.ensure_shards(1).await.expect("shards");
    let slot = offer(0, 1).of_vaccine("vector");
    refused_at(
        apply(world, &[supply(0, 9, &[slot])]).await,
        0,
        Refusal::StockExceeded,
    );
    let closed = supply(0, 9, &[slot.closed()]);
    assert_eq!(
        apply(world, &[closed]).await.expect("applied").slots_added,
        1
    );
}

pub async fn doses_received_only_rise(world: &World) {
    world.ledger.ensure_shards(1).await.expect("shards");
    apply(world, &[supply(0, 10, &[offer(0, 5)])])
        .await
        .expect("applied");
    apply(world, &[supply(0, 2, &[offer(0, 10)])])
        .await
        .expect("applied");
}

pub async fn a_capacity_is_never_set_below_the_people_booked(world: &World) {
    let slots = world.offers(1, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    desk.does(&world.book(&world.person(1), 0, one(slots[0])))
        .await;
    desk.does(&world.hold(&world.person(2), 0, one(slots[0]), AN_HOUR))
        .await;
    for shape in [offer(0, 1), offer(0, 1).closed()] {
        refused_at(
            apply(world, &[supply(0, 9, &[shape])]).await,
            0,
            Refusal::BelowBooked,
        );
    }
    let applied = apply(world, &[supply(0, 9, &[offer(0, 2)])])
        .await
        .expect("applied");
    assert_eq!(applied.slots_changed, 1);
    let verdict = desk
        .one(&world.book(&world.person(3), 0, one(slots[0])))
        .await;
    refused(&verdict, Refusal::SlotFull, 0);
}

pub async fn the_first_clinic_that_breaks_a_rule_is_named(world: &World) {
    let slots = world.offers(3, &[offer(2, 5)]).await;
    let mut desk = world.desk(2).await;
    desk.does(&world.book(&world.person(1), 0, one(slots[0])))
        .await;
    let broken = [
        supply(0, 5, &[offer(0, 5)]),
        supply(1, 5, &[offer(1, 6)]),
        supply(2, 5, &[offer(2, 0)]),
    ];
    refused_at(apply(world, &broken).await, 1, Refusal::StockExceeded);
    refused_at(apply(world, &broken[2..]).await, 2, Refusal::BelowBooked);
    let reversed: Vec<_> = broken.iter().rev().cloned().collect();
    refused_at(apply(world, &reversed).await, 2, Refusal::BelowBooked);
}

pub async fn a_dry_run_says_what_would_happen_and_writes_nothing(world: &World) {
    world.ledger.ensure_shards(1).await.expect("shards");
    let cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    let wanted = [supply(0, 9, &[offer(0, 4), offer(0, 5)])];
    let said = world.ledger.apply(&wanted, true).await.expect("a dry run");
    assert_eq!(
        (said.clinics_added, said.slots_added, said.slots_changed),
        (1, 2, 0)
    );
    assert!(world.all_slots().await.is_empty());
    let catalogue = world
        .ledger
        .catalogue(ShardId(0))
        .await
        .expect("a catalogue");
    assert!(catalogue.clinics.is_empty());
    let changes = world
        .ledger
        .outside_changes(cursor, 9)
        .await
        .expect("changes");
    assert!(changes.slots.is_empty());
    let bad = [supply(0, 8, &[offer(0, 4), offer(0, 5)])];
    refused_at(
        world.ledger.apply(&bad, true).await,
        0,
        Refusal::StockExceeded,
    );
    assert_eq!(apply(world, &wanted).await.expect("applied"), said);
    let smaller = [supply(0, 9, &[offer(0, 3), offer(0, 5)])];
    let said = world.ledger.apply(&smaller, true).await.expect("a dry run");
    assert_eq!((said.slots_added, said.slots_changed), (0, 1));
    assert_eq!(world.all_slots().await[0].capacity, 4);
}

pub async fn a_closed_slot_keeps_its_people_and_takes_no_more(world: &World) {
    let slots = world.offers(1, &[offer(0, 3), offer(0, 3)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    apply(world, &[supply(0, 9, &[offer(0, 3).closed()])])
        .await
        .expect("applied");
    let changes = world
        .ledger
        .outside_changes(cursor, 9)
        .await
        .expect("changes");
    assert_eq!(changes.slots.len(), 1);
    assert!(!changes.slots[0].open && changes.slots[0].booked == 1);
    let answer = desk
        .run(&[world.book(&world.person(2), 0, one(slots[0]))])
        .await;
    refused(&answer.verdicts[0], Refusal::SlotClosed, 0);
    assert!(!answer.slots[0].open);
    done(
        world
            .moved(&desk, &world.move_op(&who, 1, booking, 1, slots[1]))
            .await
            .verdict,
    );
    let back = world
        .moved(&desk, &world.move_op(&who, 2, booking, 1, slots[0]))
        .await;
    refused(&back.verdict, Refusal::SlotClosed, 2);
    apply(world, &[supply(0, 9, &[offer(0, 3)])])
        .await
        .expect("applied");
    done(
        world
            .moved(&desk, &world.move_op(&who, 2, booking, 1, slots[0]))
            .await
            .verdict,
    );
}

pub async fn closing_frees_stock_that_nobody_booked(world: &World) {
    world.ledger.ensure_shards(1).await.expect("shards");
    apply(world, &[supply(0, 10, &[offer(0, 6), offer(0, 4)])])
        .await
        .expect("applied");
    let slot = world.all_slots().await[0].slot;
    let mut desk = world.desk(0).await;
    desk.does(&world.book(&world.person(1), 0, one(slot))).await;
    // Of the closed slot only the one person counts: 1 + 9 = 10.
    let wanted = [supply(0, 10, &[offer(0, 6).closed(), offer(0, 10)])];
    refused_at(apply(world, &wanted).await, 0, Refusal::StockExceeded);
    let wanted = [supply(0, 10, &[offer(0, 6).closed(), offer(0, 9)])];
    assert_eq!(
        apply(world, &wanted).await.expect("applied").slots_changed,
        2
    );
}

pub async fn a_clinic_keeps_its_shard_and_changes_its_name(world: &World) {
    world.offers(2, &[offer(0, 3)]).await;
    let mut moved = supply(0, 9, &[offer(0, 3), offer(0, 3)]);
    moved.clinic.shard = ShardId(1);
    moved.clinic.display_name = "이전한 보건소".to_owned();
    let applied = apply(world, &[moved]).await.expect("applied");
    assert_eq!((applied.clinics_added, applied.slots_added), (0, 1));
    let catalogue = world
        .ledger
        .catalogue(ShardId(0))
        .await
        .expect("a catalogue");
    assert_eq!(catalogue.clinics[0].display_name, "이전한 보건소");
    assert_eq!(catalogue.slots.len(), 2);
}

pub async fn an_application_does_not_disturb_the_owner(world: &World) {
    let slots = world.offers(1, &[offer(0, 1)]).await;
    let mut desk = world.desk(0).await;
    desk.does(&world.book(&world.person(1), 0, one(slots[0])))
        .await;
    let more: Vec<NewSlot> = vec![offer(0, 2).starting_at(0)];
    let mut wanted = supply(0, 9, &[]);
    wanted.slots = more;
    apply(world, &[wanted]).await.expect("applied");
    desk.does(&world.book(&world.person(2), 0, one(slots[0])))
        .await;
}
