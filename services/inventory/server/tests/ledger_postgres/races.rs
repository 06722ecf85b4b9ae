//! Many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::command::BodyHash;
use domain::{Action, ClaimVersion, Refusal, RequestId, ShardId, SlotPair, Verdict};
use futures::future::{join_all, try_join_all};
use inventory::ledger::postgres::PostgresConfig;
use inventory::ledger::{CancelOp, Ledger, OutboxCursor};

use crate::postgres;
use crate::world::{World, await_passing, book, booking, done, moving, op, person};

/// 1,000 people who book and 1,000 who move here from elsewhere, over 64 connections, want 500 places.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_thousand_attempts_at_five_hundred_places_fill_exactly_five_hundred() {
    let wide = |config: &mut PostgresConfig| {
        config.pool_size = 63;
        config.lock_timeout = Duration::from_secs(30);
        config.statement_timeout = Duration::from_secs(30);
        config.batch_timeout = Duration::from_secs(30);
    };
    let it = World::on(postgres::start(), wide, 2, 4, 500).await;
    let hot = it.slots(0).await[0];
    let elsewhere = it.slots(1).await;
    let mut other = it.seize(1, 0).await.expect("nobody has it");
    for (seq, from) in [(1, 0), (2, 500)] {
        let ops: Vec<_> = (from..from + 500)
            .map(|n| book(n, elsewhere[n as usize % 4]))
            .collect();
        let answer = other
            .writer
            .batch(seq, &ops)
            .await
            .expect("they are booked");
        assert_eq!(done(&answer.verdicts), 500);
    }
    let mut owner = it.seize(0, 0).await.expect("nobody has it");
    let epoch = owner.epoch;
    let booking = async {
        let mut won = 0;
        for seq in 1..=40 {
            let from = 1_000 + u32::try_from(seq - 1).expect("small") * 25;
            let ops: Vec<_> = (from..from + 25).map(|n| book(n, hot)).collect();
            let answer = owner.writer.batch(seq, &ops).await.expect("it is decided");
            won += done(&answer.verdicts);
        }
        won
    };
    let movers = (0..63).map(|lane| {
        let ledger = Arc::clone(&it.ledger);
        async move {
            let mut won = 0;
            for number in (lane..1_000).step_by(63) {
                let answer = ledger
                    .move_booking(ShardId(0), epoch, &moving(number, hot))
                    .await;
                match answer.expect("it is decided").verdict {
                    Verdict::Done(_) => won += 1,
                    Verdict::Refused { refusal, .. } => assert_eq!(refusal, Refusal::SlotFull),
                    Verdict::Exists(recorded) => panic!("never asked before: {recorded:?}"),
                }
            }
            won
        }
    });
    let (booked, moved) = tokio::join!(booking, join_all(movers));
    let moved: usize = moved.into_iter().sum();
    assert_eq!(booked + moved, 500, "{booked} booked, {moved} moved");
    let state = it.ledger.slots(&[hot]).await.expect("an answer");
    assert_eq!(state[0].booked, 500);
    let rows = format!(
        "SELECT count(*) FROM booking WHERE state = 'BOOKED' AND slot_id = {}",
        hot.0
    );
    assert_eq!(it.number(&rows).await, 500);
    assert_eq!(it.number(UNBALANCED).await, 0);
}

/// Slots whose count is not the number of appointments and of claims on them.
const UNBALANCED: &str = "SELECT count(*) FROM slot s WHERE s.booked <> \
    (SELECT count(*) FROM booking b WHERE b.slot_id = s.slot_id AND b.state <> 'CANCELLED') OR s.booked <> \
    (SELECT count(*) FROM claim c WHERE s.slot_id IN (c.first_slot, c.second_slot))";

/// Two devices of each of 100 people ask two shards at the same instant, over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_shards_that_name_the_same_people_neither_deadlock_nor_book_twice() {
    let it = World::new(2, 5, 100_000).await;
    let (left, right) = (it.slots(0).await, it.slots(1).await);
    let mut a = it.seize(0, 0).await.expect("nobody has it");
    let mut b = it.seize(1, 0).await.expect("nobody has it");
    let mut wins = [0, 0];
    for round in 0..30_u32 {
        let people = round * 100..(round + 1) * 100;
        let ops: Vec<_> = people
            .clone()
            .map(|n| book(n, left[n as usize % 5]))
            .collect();
        let mut mirrored: Vec<_> = people.map(|n| book(n, right[n as usize % 5])).collect();
        mirrored.reverse();
        let seq = u64::from(round) + 1;
        let (one, two) = tokio::join!(a.writer.batch(seq, &ops), b.writer.batch(seq, &mirrored));
        let (one, mut two) = (
            one.expect("no deadlock").verdicts,
            two.expect("no deadlock").verdicts,
        );
        two.reverse();
        for (x, y) in one.iter().zip(&two) {
            let loser = match (x, y) {
                (Verdict::Done(_), loser) | (loser, Verdict::Done(_)) => loser,
                both => panic!("nobody won: {both:?}"),
            };
            let refused = Verdict::Refused {
                refusal: Refusal::AlreadyBooked,
                claim_version: Some(ClaimVersion(1)),
            };
            assert_eq!(*loser, refused);
        }
        wins[0] += done(&one);
        wins[1] += done(&two);
    }
    assert_eq!(wins[0] + wins[1], 3_000);
    assert_eq!(it.number("SELECT sum(booked) FROM slot").await, 3_000);
    assert_eq!(it.number(UNBALANCED).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_of_the_outbox_misses_nothing_though_transactions_commit_out_of_order() {
    let it = World::new(1, 200, 1).await;
    let slots = it.slots(0).await;
    let mut owner = it.seize(0, 0).await.expect("nobody has it");
    let ops: Vec<_> = (0..200).map(|n| book(n, slots[n as usize])).collect();
    owner.writer.batch(1, &ops).await.expect("they are booked");
    let mut cursor = it.ledger.outbox_cursor().await.expect("a cursor");
    let seen = it
        .ledger
        .outside_changes(cursor, 1_000)
        .await
        .expect("an answer");
    assert!(
        seen.slots.is_empty(),
        "an owner's own batches are not told: {:?}",
        seen.slots
    );

    // The first cancellation has its place in the outbox and does not commit yet.
    let mut stranger = it.stranger().await;
    let late = stranger.client.transaction().await.expect("a transaction");
    let claimant = person(0);
    let sql = "SELECT o_done FROM cancel_v1($1, $2, 1, gen_random_uuid(), '\\x01', 1, $3, NULL)";
    let bytes = claimant.person.as_bytes().as_slice();
    let row = late
        .query_one(sql, &[&claimant.campaign.as_str(), &bytes, &booking(0).0])
        .await;
    assert_eq!(row.expect("it is cancelled").get::<_, &str>(0), "CANCELLED");

    let cancels = (0..16).map(|lane| {
        let ledger = Arc::clone(&it.ledger);
        async move {
            for number in (1..200).filter(|n| n % 16 == lane) {
                let answer = ledger.cancel(&cancel(number)).await.expect("it is decided");
                assert!(
                    matches!(answer.verdict, Verdict::Done(_)),
                    "{:?}",
                    answer.verdict
                );
            }
        }
    });
    let mut told = BTreeSet::new();
    let reading = async {
        for _ in 0..20 {
            follow(&it, &mut cursor, 7, &mut told).await;
            await_passing(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(join_all(cancels), reading);
    assert!(!told.contains(&slots[0]), "it has not happened yet");
    late.commit().await.expect("it commits at last");
    for _ in 0..1_000 {
        follow(&it, &mut cursor, 7, &mut told).await;
        if told.len() == 200 {
            break;
        }
        await_passing(Duration::from_millis(5)).await;
    }
    assert_eq!(told, slots.into_iter().collect());
    assert_eq!(it.number("SELECT sum(booked) FROM slot").await, 0);
}

async fn follow(
    it: &World,
    cursor: &mut OutboxCursor,
    limit: u32,
    told: &mut BTreeSet<domain::SlotId>,
) {
    let news = it
        .ledger
        .outside_changes(*cursor, limit)
        .await
        .expect("an answer");
    assert!(news.cursor >= *cursor);
    *cursor = news.cursor;
    for slot in news.slots {
        assert_eq!(slot.booked, 0, "as it is now");
        told.insert(slot.slot);
    }
}

fn cancel(number: u32) -> CancelOp {
    CancelOp {
        claimant: person(number),
        request: RequestId::from_bytes(rand::random()),
        body_hash: BodyHash([1; 16]),
        claim_version: ClaimVersion(1),
        booking: booking(number),
        dose: None,
    }
}

/// A hold of one shard is met after its end by the other: given back there, and its owner is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_hold_of_another_shard_is_given_back_and_told() {
    let it = World::new(2, 1, 1).await;
    let (here, there) = (it.slots(0).await[0], it.slots(1).await[0]);
    let mut a = it.seize(0, 0).await.expect("nobody has it");
    let mut b = it.seize(1, 0).await.expect("nobody has it");
    let hold = Action::Hold {
        slots: SlotPair::one(there),
        booking: booking(1),
        ttl: Duration::from_millis(1),
    };
    b.writer
        .batch(1, &[op(1, 0, hold)])
        .await
        .expect("it is held");
    await_passing(Duration::from_millis(20)).await;
    let cursor = it.ledger.outbox_cursor().await.expect("a cursor");
    let take = Action::Book {
        slots: SlotPair::one(here),
        booking: booking(2),
    };
    let answer = a
        .writer
        .batch(1, &[op(1, 1, take)])
        .await
        .expect("it is decided");
    assert_eq!(done(&answer.verdicts), 1);
    assert_eq!(
        answer.slots.len(),
        2,
        "both slots are told: {:?}",
        answer.slots
    );
    let news = it
        .ledger
        .outside_changes(cursor, 10)
        .await
        .expect("an answer");
    let told: Vec<_> = news
        .slots
        .iter()
        .map(|slot| (slot.slot, slot.booked))
        .collect();
    assert_eq!(told, [(there, 0)]);
    assert_eq!(it.number(UNBALANCED).await, 0);
}

/// The plans are made while the tables are empty: none of them may read a whole table later.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_the_booking_path_reads_a_whole_table() {
    let it = World::new(1, 40, 100).await;
    let slots = it.slots(0).await;
    // What the sessions so far did is told when they end, and then forgotten.
    it.end_all().await;
    await_passing(Duration::from_millis(300)).await;
    let reset = it.stranger().await;
    reset
        .client
        .batch_execute("SELECT pg_stat_reset()")
        .await
        .expect("counted from here");
    let mut owner = it.seize(0, 0).await.expect("nobody has it");
    let ttl = Duration::from_secs(60);
    for seq in 0..10_u32 {
        let hold = |n: u32| Action::Hold {
            slots: SlotPair::one(slots[n as usize % 40]),
            booking: booking(n),
            ttl,
        };
        let people = seq * 100..(seq + 1) * 100;
        let held: Vec<_> = people.clone().map(|n| op(n, 0, hold(n))).collect();
        let numbered = u64::from(seq) * 3;
        let answer = owner.writer.batch(numbered + 1, &held).await.expect("held");
        assert_eq!(done(&answer.verdicts), 100);
        let confirm = |n: u32| op(n, 1, Action::Confirm { hold: booking(n) });
        let confirmed: Vec<_> = people.map(confirm).collect();
        let answer = owner
            .writer
            .batch(numbered + 2, &confirmed)
            .await
            .expect("confirmed");
        assert_eq!(done(&answer.verdicts), 100);
        owner.writer.sweep(numbered + 3, 100).await.expect("swept");
    }
    try_join_all((0..20).map(|n| {
        let ledger = Arc::clone(&it.ledger);
        async move {
            let mut cancel = cancel(n);
            cancel.claim_version = ClaimVersion(2);
            ledger.cancel(&cancel).await
        }
    }))
    .await
    .expect("cancelled");
    drop(owner);
    // A session reports the last of what it did when it ends.
    it.end_all().await;
    let rows = "SELECT coalesce(sum(n_tup_ins), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'request'";
    for _ in 0..500 {
        if it.number(rows).await == 2_020 {
            break;
        }
        await_passing(Duration::from_millis(10)).await;
    }
    assert_eq!(
        it.number(rows).await,
        2_020,
        "the figures are those of this test"
    );
    let scans = "SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables \
        WHERE relname IN ('claim', 'request', 'slot', 'event') OR relname LIKE 'booking%'";
    assert_eq!(it.number(scans).await, 0);
    // And no index from end to end: a plan that walks one costs more with every booking.
    let walked = "SELECT coalesce(max(idx_tup_read / greatest(idx_scan, 1)), 0)::bigint \
        FROM pg_stat_user_indexes WHERE relname IN ('claim', 'request', 'slot') OR relname LIKE 'booking%'";
    assert!(it.number(walked).await <= 40, "an index is walked");
}
