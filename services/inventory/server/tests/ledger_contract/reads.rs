//! What can be asked of a ledger, and what its outbox tells.

use std::collections::{BTreeMap, BTreeSet};

use domain::{CampaignId, PersonId, RequestId, ShardId, SlotId};
use inventory::ledger::{BucketSeen, OutboxCursor, RoomSeen};

use crate::desk::{done, one, two};
use crate::world::{AN_HOUR, AT_ONCE, BODY, World, clinic, offer};

async fn changes(world: &World, cursor: &mut OutboxCursor) -> BTreeMap<SlotId, u32> {
    let found = world
        .ledger
        .outside_changes(*cursor, 1_000)
        .await
        .expect("changes");
    assert!(found.cursor >= *cursor);
    *cursor = found.cursor;
    let count = found.slots.len();
    let slots: BTreeMap<_, _> = found.slots.iter().map(|s| (s.slot, s.booked)).collect();
    assert_eq!(slots.len(), count, "a slot is told twice");
    slots
}

pub async fn recorded_requests_are_answered_in_the_order_asked(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let ops: Vec<_> = (1..=3)
        .map(|n| world.book(&world.person(n), 0, one(slots[0])))
        .collect();
    let answer = desk.run(&ops).await;
    let key = |index: usize| -> (CampaignId, PersonId, RequestId) {
        let who = &ops[index].claimant;
        (who.campaign.clone(), who.person, ops[index].request)
    };
    let (campaign, person, _) = key(0);
    let asked = [
        key(2),
        (campaign.clone(), person, world.request()),
        key(0),
        key(1),
        key(2),
    ];
    let found = world.ledger.recorded(&asked).await.expect("requests");
    let expected: Vec<_> = [Some(2), None, Some(0), Some(1), Some(2)]
        .into_iter()
        .map(|index| index.map(|at: usize| (BODY, done(answer.verdicts[at].clone()))))
        .collect();
    assert_eq!(found, expected);
    assert!(
        world
            .ledger
            .recorded(&[])
            .await
            .expect("requests")
            .is_empty()
    );
}

pub async fn slots_that_do_not_exist_are_left_out(world: &World) {
    let slots = world
        .offers(2, &[offer(0, 4), offer(1, 0).closed().second_dose()])
        .await;
    let nowhere = [SlotId(999_999), SlotId(u64::MAX), SlotId(0)];
    let asked = [nowhere.as_slice(), &slots].concat();
    let mut found = world.ledger.slots(&asked).await.expect("slots");
    found.sort_by_key(|slot| slot.shard);
    assert_eq!(found.len(), 2);
    let open = &found[0];
    assert_eq!(
        (open.slot, open.shard, &open.clinic),
        (slots[0], ShardId(0), &clinic(0).clinic)
    );
    assert_eq!(
        (open.capacity, open.booked, open.open, open.dose),
        (4, 0, true, 1)
    );
    let asked = offer(0, 4).starting_at(0);
    assert_eq!((open.starts_at, open.day), (asked.starts_at, asked.day));
    assert_eq!(open.vaccine, asked.vaccine);
    assert_eq!(
        (found[1].open, found[1].dose, found[1].shard),
        (false, 2, ShardId(1))
    );
    assert!(world.ledger.slots(&[]).await.expect("slots").is_empty());
}

pub async fn a_catalogue_has_the_clinics_and_slots_of_its_shard(world: &World) {
    let slots = world
        .offers(
            2,
            &[offer(0, 4), offer(1, 3), offer(0, 2), offer(0, 1).closed()],
        )
        .await;
    let catalogue = world
        .ledger
        .catalogue(ShardId(0))
        .await
        .expect("a catalogue");
    assert_eq!(catalogue.clinics, vec![clinic(0)]);
    let found: Vec<_> = catalogue.slots.iter().map(|slot| slot.slot).collect();
    assert_eq!(found, vec![slots[0], slots[2], slots[3]]);
    assert!(catalogue.slots.iter().all(|slot| slot.shard == ShardId(0)));
    let empty = world
        .ledger
        .catalogue(ShardId(9))
        .await
        .expect("a catalogue");
    assert!(empty.clinics.is_empty() && empty.slots.is_empty());
}

pub async fn a_person_without_a_change_has_no_claim(world: &World) {
    let slots = world.offers(1, &[offer(0, 0)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    assert_eq!(world.claim(&who).await, None);
    desk.one(&world.book(&who, 0, one(slots[0]))).await;
    desk.one(&world.confirm(&who, 0, world.booking())).await;
    world
        .cancelled(&world.cancel_op(&who, 0, world.booking(), None))
        .await;
    assert_eq!(world.claim(&who).await, None);
    let elsewhere: CampaignId = "kr-2021-sixties".parse().expect("a campaign");
    assert_eq!(
        world
            .ledger
            .claim(&elsewhere, who.person)
            .await
            .expect("a claim"),
        None
    );
}

pub async fn the_outbox_tells_what_owners_did_not_do_themselves(world: &World) {
    let offers = [
        offer(0, 9),
        offer(0, 9).second_dose(),
        offer(1, 9),
        offer(1, 9),
    ];
    let slots = world.offers(2, &offers).await;
    let (mut desk, mut neighbour) = (world.desk(0).await, world.desk(1).await);
    let mut cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    let (who, other) = (world.person(1), world.person(2));

    let booking = desk
        .does(&world.book(&who, 0, two(slots[0], slots[1])))
        .await
        .booking;
    let hold = neighbour
        .does(&world.hold(&other, 0, one(slots[2]), AN_HOUR))
        .await
        .booking;
    neighbour.does(&world.confirm(&other, 1, hold)).await;
    desk.does(&world.hold(&world.person(3), 0, one(slots[0]), AT_ONCE))
        .await;
    desk.sweep(9).await;
    assert!(
        changes(world, &mut cursor).await.is_empty(),
        "an owner's own batches"
    );

    let op = world.move_op(&other, 2, hold, 1, slots[0]);
    done(world.moved(&desk, &op).await.verdict);
    assert_eq!(
        changes(world, &mut cursor).await,
        [(slots[0], 2), (slots[2], 0)].into()
    );
    world.moved(&desk, &op).await;
    assert!(
        changes(world, &mut cursor).await.is_empty(),
        "a repetition changes nothing"
    );

    done(
        world
            .cancelled(&world.cancel_op(&who, 1, booking, Some(2)))
            .await
            .verdict,
    );
    assert_eq!(changes(world, &mut cursor).await, [(slots[1], 0)].into());
    done(
        world
            .cancelled(&world.cancel_op(&who, 2, booking, None))
            .await
            .verdict,
    );
    assert_eq!(changes(world, &mut cursor).await, [(slots[0], 1)].into());

    // A hold of one shard that another shard's batch meets.
    desk.does(&world.hold(&world.person(4), 0, one(slots[0]), AT_ONCE))
        .await;
    neighbour
        .does(&world.book(&world.person(4), 1, one(slots[3])))
        .await;
    assert_eq!(changes(world, &mut cursor).await, [(slots[0], 1)].into());

    // From the start: everything at once, each slot as it is now.
    let mut start = OutboxCursor::default();
    let all = changes(world, &mut start).await;
    assert_eq!(all, slots.iter().copied().zip([1, 0, 0, 1]).collect());
}

pub async fn the_outbox_is_read_in_pieces_without_loss(world: &World) {
    let offers = [offer(0, 9); 20];
    let slots = world.offers(1, &offers).await;
    let mut cursor = OutboxCursor::default();
    let mut seen = BTreeSet::new();
    let mut pieces = 0;
    loop {
        let found = world
            .ledger
            .outside_changes(cursor, 3)
            .await
            .expect("changes");
        if found.slots.is_empty() {
            assert_eq!(found.cursor, cursor);
            break;
        }
        assert!(found.cursor > cursor && found.slots.len() <= 3);
        cursor = found.cursor;
        seen.extend(found.slots.iter().map(|slot| slot.slot));
        pieces += 1;
    }
    assert!(pieces >= 7);
    assert_eq!(seen, slots.into_iter().collect());
}

pub async fn the_outbox_has_no_gap_while_many_write(world: &World) {
    const PEOPLE: u64 = 120;
    let slots = world.offers(2, &[offer(0, 1); PEOPLE as usize]).await;
    let mut desk = world.desk(0).await;
    let ops: Vec<_> = (1..=PEOPLE)
        .zip(&slots)
        .map(|(n, slot)| world.book(&world.person(n), 0, one(*slot)))
        .collect();
    let answer = desk.run(&ops).await;
    let mut cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    let mut cancellations = tokio::task::JoinSet::new();
    for (op, verdict) in ops.iter().zip(answer.verdicts) {
        let cancel = world.cancel_op(&op.claimant, 1, done(verdict).booking, None);
        let ledger = std::sync::Arc::clone(&world.ledger);
        cancellations
            .spawn(async move { ledger.cancel(&cancel).await.map(|answer| answer.verdict) });
    }
    let mut last_seen: BTreeMap<SlotId, u32> = BTreeMap::new();
    let tail = async {
        // Bounded: every look takes a round trip.
        for _ in 0..20_000 {
            let found = world
                .ledger
                .outside_changes(cursor, 7)
                .await
                .expect("changes");
            cursor = found.cursor;
            last_seen.extend(found.slots.iter().map(|slot| (slot.slot, slot.booked)));
            if last_seen.len() == slots.len() && last_seen.values().all(|booked| *booked == 0) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let (verdicts, ()) = tokio::join!(cancellations.join_all(), tail);
    for verdict in verdicts {
        done(verdict.expect("the cancellation is answered"));
    }
    assert_eq!(last_seen, slots.into_iter().map(|slot| (slot, 0)).collect());
}

pub async fn a_newer_room_replaces_an_older_one_and_never_the_reverse(world: &World) {
    let room = |cohort: &str, version, frontier| RoomSeen {
        campaign: world.campaign.clone(),
        cohort: cohort.parse().expect("a cohort"),
        version,
        document: format!("{cohort} v{version}"),
        frontier,
    };
    assert!(world.ledger.rooms().await.expect("rooms").is_empty());
    let save = async |rooms: &[RoomSeen]| world.ledger.save_rooms(rooms).await.expect("saved");
    let find = async || {
        let mut rooms = world.ledger.rooms().await.expect("rooms");
        rooms.sort_by(|a, b| a.cohort.cmp(&b.cohort));
        rooms
    };
    save(&[room("a", 3, 100), room("b", 1, 7)]).await;
    assert_eq!(find().await, vec![room("a", 3, 100), room("b", 1, 7)]);
    save(&[room("a", 2, 50)]).await;
    assert_eq!(find().await[0], room("a", 3, 100));
    save(&[room("a", 3, 150)]).await;
    assert_eq!(find().await[0], room("a", 3, 150));
    // A newer document with a lower frontier: the frontier stays where it was.
    save(&[room("a", 4, 120)]).await;
    assert_eq!(find().await[0], room("a", 4, 150));
    save(&[room("a", 5, u64::MAX), room("a", 4, 1)]).await;
    assert_eq!(find().await, vec![room("a", 5, u64::MAX), room("b", 1, 7)]);
    save(&[]).await;
}

pub async fn closed_buckets_are_kept_as_they_were_first_seen(world: &World) {
    let bucket = |cohort: &str, id, text: &str| BucketSeen {
        campaign: world.campaign.clone(),
        cohort: cohort.parse().expect("a cohort"),
        id,
        document: text.to_owned(),
    };
    let save = async |buckets: &[BucketSeen]| {
        let saved = world.ledger.save_buckets(buckets).await;
        saved.expect("saved");
    };
    let find = async || world.ledger.buckets().await.expect("buckets");
    save(&[]).await;
    assert!(find().await.is_empty());
    save(&[
        bucket("b", 0, "zero"),
        bucket("a", 10, "ten"),
        bucket("a", 9, "nine"),
    ])
    .await;
    save(&[bucket("a", 9, "another"), bucket("a", u32::MAX, "last")]).await;
    let all = [
        bucket("a", 9, "nine"),
        bucket("a", 10, "ten"),
        bucket("a", u32::MAX, "last"),
        bucket("b", 0, "zero"),
    ];
    assert_eq!(find().await, all);
}
