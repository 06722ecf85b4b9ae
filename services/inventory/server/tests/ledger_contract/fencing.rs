//! Whose writes count.

use domain::{Epoch, Op, ShardId, Verdict};
use inventory::ledger::{BatchAnswer, Fault, Seized};

use crate::desk::{done, one};
use crate::world::{World, instance, offer};

#[track_caller]
fn fenced<T>(result: Result<T, Fault>, held: Epoch, found: Epoch) {
    match result {
        Err(Fault::Fenced {
            held: was,
            found: has,
            ..
        }) => assert_eq!((was, has), (held, found)),
        Err(other) => panic!("not fenced: {other:?}"),
        Ok(_) => panic!("not fenced"),
    }
}

pub async fn a_seizure_raises_the_epoch_and_tells_what_was_before(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let shard = ShardId(0);
    let first = world.seize(shard, Epoch(0)).await.expect("seized");
    assert_eq!(
        (first.epoch, first.prev_epoch, first.prev_seq),
        (Epoch(1), Epoch(0), 0)
    );
    let Seized { mut writer, .. } = first;
    for seq in 1..=3 {
        let op = world.book(&world.person(seq), 0, one(slots[0]));
        writer.batch(seq, &[op]).await.expect("the batch commits");
    }
    let second = world.seize(shard, Epoch(1)).await.expect("seized");
    assert_eq!(
        (second.epoch, second.prev_epoch, second.prev_seq),
        (Epoch(2), Epoch(1), 3)
    );
    let row = world.ledger.shards().await.expect("shards")[0].clone();
    assert_eq!((row.epoch, row.batch_seq), (Epoch(2), 0));
    assert_eq!(
        (row.owner.as_str(), row.addr.as_str()),
        ("inventory-1", "127.0.0.1:7001")
    );
}

pub async fn a_seizure_of_another_epoch_than_expected_is_fenced(world: &World) {
    world.offers(1, &[offer(0, 1)]).await;
    let shard = ShardId(0);
    fenced(world.seize(shard, Epoch(7)).await, Epoch(7), Epoch(0));
    let mut desk = world.desk(0).await;
    fenced(world.seize(shard, Epoch(0)).await, Epoch(0), desk.epoch);
    desk.run(&[]).await;
}

pub async fn the_epoch_lies_above_the_floor(world: &World) {
    world.offers(1, &[offer(0, 1)]).await;
    let mut request = world.seize_request(ShardId(0), Epoch(0));
    request.floor = Epoch(41);
    let seized = world.ledger.seize(request).await.expect("seized");
    assert_eq!((seized.epoch, seized.prev_epoch), (Epoch(42), Epoch(0)));
    let mut request = world.seize_request(ShardId(0), Epoch(42));
    request.floor = Epoch(5);
    assert_eq!(
        world.ledger.seize(request).await.expect("seized").epoch,
        Epoch(43)
    );
}

pub async fn a_seizure_repeated_with_its_nonce_has_the_same_result(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let mut before = world.desk(0).await;
    before.run(&[]).await;
    before.run(&[]).await;
    let request = world.seize_request(ShardId(0), before.epoch);
    let first = world.ledger.seize(request.clone()).await.expect("seized");
    // Its answer was lost.
    drop(first.writer);
    let again = world.ledger.seize(request.clone()).await.expect("seized");
    assert_eq!(again.epoch, first.epoch);
    assert_eq!((again.prev_epoch, again.prev_seq), (before.epoch, 2));
    let mut writer = again.writer;
    let op = world.book(&world.person(1), 0, one(slots[0]));
    writer.batch(1, &[op]).await.expect("the batch commits");
    let later = world.desk(0).await;
    fenced(world.ledger.seize(request).await, before.epoch, later.epoch);
}

pub async fn an_old_owner_writes_nothing(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let mut old = world.desk(0).await;
    old.does(&world.book(&world.person(1), 0, one(slots[0])))
        .await;
    let mut new = world.desk(0).await;
    let who = world.person(2);
    let op = world.book(&who, 0, one(slots[0]));
    let result: Result<BatchAnswer, Fault> = old.writer.batch(2, std::slice::from_ref(&op)).await;
    assert!(matches!(
        result,
        Err(Fault::Fenced { .. } | Fault::Unavailable { .. } | Fault::Unknown { .. })
    ));
    assert!(old.writer.sweep(2, 1).await.is_err());
    assert_eq!(world.recorded(&who, op.request).await, None);
    assert_eq!(world.claim(&who).await, None);
    assert_eq!(world.booked(slots[0]).await, 1);
    done(new.one(&op).await);
}

pub async fn a_batch_with_another_number_than_the_next_is_refused_and_uses_none_up(world: &World) {
    let slots = world.offers(1, &[offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let op = world.book(&world.person(1), 0, one(slots[0]));
    let ops: &[Op] = std::slice::from_ref(&op);
    for wrong in [2, 0, 7] {
        fenced(desk.writer.batch(wrong, ops).await, desk.epoch, desk.epoch);
        fenced(desk.writer.sweep(wrong, 1).await, desk.epoch, desk.epoch);
    }
    assert_eq!(world.booked(slots[0]).await, 0);
    done(desk.one(&op).await);
    fenced(desk.writer.batch(1, ops).await, desk.epoch, desk.epoch);
    let answer = desk.run(ops).await;
    assert!(matches!(answer.verdicts[0], Verdict::Exists(_)));
    assert_eq!(world.ledger.shards().await.expect("shards")[0].batch_seq, 2);
}

pub async fn a_failed_batch_leaves_no_trace(world: &World) {
    let slots = world.offers(1, &[offer(0, 9), offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    let (who, holder) = (world.person(1), world.person(2));
    let hold = world.hold(&holder, 0, one(slots[1]), crate::world::AT_ONCE);
    desk.does(&hold).await;
    let ops = [
        world.book(&who, 0, one(slots[0])),
        world.book(&holder, 1, one(slots[0])),
    ];
    fenced(desk.writer.batch(9, &ops).await, desk.epoch, desk.epoch);
    for op in &ops {
        assert_eq!(world.recorded(&op.claimant, op.request).await, None);
    }
    assert_eq!(world.claim(&who).await, None);
    // Not even the expired hold was given back.
    assert_eq!(
        (world.booked(slots[0]).await, world.booked(slots[1]).await),
        (0, 1)
    );
    assert_eq!(world.ledger.shards().await.expect("shards")[0].batch_seq, 1);
    let changes = world
        .ledger
        .outside_changes(cursor, 100)
        .await
        .expect("changes");
    assert!(changes.slots.is_empty());
    for verdict in desk.run(&ops).await.verdicts {
        done(verdict);
    }
}

pub async fn a_takeover_under_load_counts_every_acknowledged_batch(world: &World) {
    let slots = world.offers(1, &[offer(0, 1_000)]).await;
    let mut expect = Epoch(0);
    let mut acknowledged = 0;
    let mut number = 0;
    for round in 0..10 {
        let seized = world.seize(ShardId(0), expect).await.expect("seized");
        expect = seized.epoch;
        let mut writer = seized.writer;
        let ops: Vec<Op> = (0..30)
            .map(|_| {
                number += 1;
                world.book(&world.person(number), 0, one(slots[0]))
            })
            .collect();
        let old_owner = async {
            let mut committed = 0;
            for (seq, op) in (1..).zip(&ops) {
                if writer.batch(seq, std::slice::from_ref(op)).await.is_err() {
                    break;
                }
                committed = seq;
            }
            committed
        };
        let mut request = world.seize_request(ShardId(0), expect);
        request.owner = instance("inventory-2");
        let new_owner = async {
            // A different moment in each round.
            for _ in 0..round * 20 {
                tokio::task::yield_now().await;
            }
            world.ledger.seize(request).await.expect("seized")
        };
        let (committed, seized) = tokio::join!(old_owner, new_owner);
        assert!(
            seized.prev_seq >= committed,
            "an acknowledged batch is missing"
        );
        acknowledged += u32::try_from(committed).expect("few batches");
        let found = world.booked(slots[0]).await;
        assert!(found >= acknowledged);
        acknowledged = found;
        expect = seized.epoch;
    }
}

pub async fn shards_are_added_and_never_reset(world: &World) {
    world.ledger.ensure_shards(2).await.expect("shards");
    let desk = world.desk(1).await;
    world.ledger.ensure_shards(4).await.expect("shards");
    world.ledger.ensure_shards(1).await.expect("shards");
    let rows = world.ledger.shards().await.expect("shards");
    let ids: Vec<u32> = rows.iter().map(|row| row.shard.0).collect();
    assert_eq!(ids, vec![0, 1, 2, 3]);
    assert_eq!(rows[1].epoch, desk.epoch);
    assert_eq!(
        (rows[2].epoch, rows[2].batch_seq, rows[2].owner.as_str()),
        (Epoch(0), 0, "")
    );
}

pub async fn a_shard_that_does_not_exist_cannot_be_seized(world: &World) {
    world.ledger.ensure_shards(1).await.expect("shards");
    let result = world.seize(ShardId(5), Epoch(0)).await;
    assert!(matches!(result, Err(Fault::Unavailable { .. })));
}
