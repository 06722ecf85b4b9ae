//! Owners that are replaced, frozen, cut off, or told something that is not quite so.

use std::sync::Arc;
use std::time::Duration;

use domain::{Epoch, ShardId};
use inventory::ledger::postgres::{PostgresConfig, PostgresLedger};
use inventory::ledger::{Fault, Ledger};

use crate::postgres;
use crate::world::{World, await_passing, book, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_fences_an_owner_in_the_middle_of_its_batches() {
    let it = World::new(1, 10, 10_000).await;
    let slots = it.slots(0).await;
    let mut first = it.seize(0, 0).await.expect("nobody has it");
    let owner = async {
        let mut seq = 0;
        loop {
            let from = u32::try_from(seq).expect("small") * 50;
            let ops: Vec<_> = (from..from + 50)
                .map(|n| book(n, slots[n as usize % 10]))
                .collect();
            match first.writer.batch(seq + 1, &ops).await {
                Ok(_) => seq += 1,
                Err(fault) => return (seq, fault),
            }
        }
    };
    let successor = async {
        await_passing(Duration::from_millis(200)).await;
        it.seize(0, 1).await.expect("it can be taken over")
    };
    let ((committed, fault), second) = tokio::join!(owner, successor);
    assert!(
        matches!(
            fault,
            Fault::Fenced {
                held: Epoch(1),
                found: Epoch(2),
                ..
            }
        ),
        "{fault:?}"
    );
    assert_eq!((second.prev_epoch, second.prev_seq), (Epoch(1), committed));
    assert_eq!(
        it.number("SELECT sum(booked) FROM slot").await,
        i64::try_from(committed * 50).expect("small")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_that_holds_the_row_is_ended() {
    let patient = |config: &mut PostgresConfig| {
        config.lock_timeout = Duration::from_secs(60);
        config.batch_timeout = Duration::from_secs(60);
    };
    let it = World::on(postgres::start(), patient, 1, 1, 10).await;
    let slot = it.slots(0).await[0];
    let mut first = it.seize(0, 0).await.expect("nobody has it");
    // The batch has the shard's row and waits for the slot's.
    let mut stranger = it.stranger().await;
    let blocking = stranger.client.transaction().await.expect("a transaction");
    blocking
        .execute("UPDATE slot SET open = open", &[])
        .await
        .expect("a lock");
    let ops = [book(1, slot)];
    let batch = first.writer.batch(1, &ops);
    let successor = async {
        it.await_waiting("Lock").await;
        tokio::time::timeout(Duration::from_secs(10), it.seize(0, 1)).await
    };
    let (fault, second) = tokio::join!(batch, successor);
    assert!(matches!(fault, Err(Fault::Unknown { .. })), "{fault:?}");
    let second = second
        .expect("it is bounded")
        .expect("it can be taken over");
    assert_eq!((second.epoch, second.prev_seq), (Epoch(2), 0));
    let again = first.writer.batch(1, &ops).await;
    assert!(
        matches!(again, Err(Fault::Unknown { .. })),
        "a lost writer is useless: {again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_session_is_killed_is_unknown_and_the_next_seizure_tells() {
    let it = World::new(1, 1, 10).await;
    let slot = it.slots(0).await[0];
    let mut first = it.seize(0, 0).await.expect("nobody has it");
    first
        .writer
        .batch(1, &[book(1, slot)])
        .await
        .expect("it is booked");
    let mut stranger = it.stranger().await;
    let blocking = stranger.client.transaction().await.expect("a transaction");
    blocking
        .execute("UPDATE slot SET open = open", &[])
        .await
        .expect("a lock");
    let ops = [book(2, slot)];
    let kill = async {
        it.await_waiting("Lock").await;
        it.end_owner(0).await;
    };
    let (fault, ()) = tokio::join!(first.writer.batch(2, &ops), kill);
    assert!(matches!(fault, Err(Fault::Unknown { .. })), "{fault:?}");
    blocking.rollback().await.expect("it lets go");
    let mut second = it.seize(0, 1).await.expect("it can be taken over");
    assert_eq!(second.prev_seq, 1, "the second batch never happened");
    let answer = second
        .writer
        .batch(1, &ops)
        .await
        .expect("it is booked now");
    assert_eq!(answer.slots[0].booked, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_no_standby_has_is_unknown_though_the_server_says_commit() {
    let it = World::new(1, 1, 10).await;
    let slot = it.slots(0).await[0];
    let mut first = it.seize(0, 0).await.expect("nobody has it");
    let admin = it.stranger().await;
    let standby = async |name: &str| {
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        admin.client.batch_execute(&sql).await.expect("it is set");
        admin
            .client
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .expect("it is read");
        await_passing(Duration::from_millis(300)).await;
    };
    standby("nobody").await;
    let ops = [book(1, slot)];
    let cancel = async {
        it.await_waiting("SyncRep").await;
        let sql = "SELECT pg_cancel_backend(backend_pid) FROM shard";
        admin
            .client
            .batch_execute(sql)
            .await
            .expect("it is cancelled");
    };
    let (fault, ()) = tokio::join!(first.writer.batch(1, &ops), cancel);
    assert!(matches!(fault, Err(Fault::Unknown { .. })), "{fault:?}");
    standby("").await;
    let second = it.seize(0, 1).await.expect("it can be taken over");
    assert_eq!(second.prev_seq, 1, "it had been committed");
    let key = (
        ops[0].claimant.campaign.clone(),
        ops[0].claimant.person,
        ops[0].request,
    );
    let recorded = it.ledger.recorded(&[key]).await.expect("an answer");
    assert!(recorded[0].is_some(), "its verdicts are in the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_an_answer_in_time_is_unknown_and_is_not_cancelled() {
    let hasty = |config: &mut PostgresConfig| config.batch_timeout = Duration::from_millis(300);
    let it = World::on(postgres::start(), hasty, 1, 1, 10).await;
    let slot = it.slots(0).await[0];
    let mut first = it.seize(0, 0).await.expect("nobody has it");
    let mut stranger = it.stranger().await;
    let blocking = stranger.client.transaction().await.expect("a transaction");
    blocking
        .execute("UPDATE slot SET open = open", &[])
        .await
        .expect("a lock");
    let fault = first.writer.batch(1, &[book(1, slot)]).await;
    assert!(matches!(fault, Err(Fault::Unknown { .. })), "{fault:?}");
    assert_eq!(
        it.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            .await,
        1,
        "the server still works on it"
    );
    blocking.rollback().await.expect("it lets go");
    let second = it.seize(0, 1).await.expect("it can be taken over");
    let booked = it.number("SELECT count(*) FROM request").await;
    assert_eq!(
        i64::try_from(second.prev_seq),
        Ok(booked),
        "either before the seizure or never"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_nonce_gets_the_same_epoch_and_a_floor_is_risen_above() {
    let it = World::new(1, 1, 10).await;
    let first = it
        .ledger
        .seize(request(0, 0, [1; 16]))
        .await
        .expect("nobody has it");
    let again = it
        .ledger
        .seize(request(0, 0, [1; 16]))
        .await
        .expect("the answer was lost");
    assert_eq!((first.epoch, again.epoch), (Epoch(1), Epoch(1)));
    let other = it.ledger.seize(request(0, 0, [2; 16])).await.err();
    assert!(
        matches!(
            other,
            Some(Fault::Fenced {
                held: Epoch(0),
                found: Epoch(1),
                ..
            })
        ),
        "{other:?}"
    );
    let mut above = request(0, 1, [3; 16]);
    above.floor = Epoch(41);
    let third = it.ledger.seize(above).await.expect("it can be taken over");
    assert_eq!((third.epoch, third.prev_epoch), (Epoch(42), Epoch(1)));
    let missing = it.seize(9, 0).await.err();
    assert!(
        matches!(missing, Some(Fault::Unavailable { .. })),
        "{missing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_a_standby_is_refused_where_one_is_asked_for() {
    let server = postgres::start();
    let config = PostgresConfig::new(server.create_database()).single_copy(false);
    let refused = PostgresLedger::connect(config).await.err();
    assert!(
        matches!(refused, Some(Fault::Unavailable { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_finds_back_after_all_its_sessions_were_ended() {
    let it = World::new(2, 1, 10).await;
    let reads = (0..8).map(|_| it.ledger.shards());
    futures::future::try_join_all(reads)
        .await
        .expect("several sessions");
    it.end_all().await;
    let mut failed = 0;
    for _ in 0..4 {
        failed += u32::from(it.ledger.shards().await.is_err());
    }
    assert!(
        failed <= 1,
        "{failed} reads failed after the sessions were ended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_may_migrate_at_once() {
    let server = postgres::start();
    let url = server.create_database();
    let migrate = |url: String| async move {
        let ledger = Arc::new(PostgresLedger::connect(PostgresConfig::new(url)).await?);
        ledger.migrate().await?;
        ledger.ensure_shards(2).await?;
        ledger.shards().await
    };
    let all = futures::future::try_join_all((0..4).map(|_| migrate(url.clone()))).await;
    for shards in all.expect("all migrate") {
        assert_eq!(shards.last().map(|row| row.shard), Some(ShardId(1)));
    }
}
