//! A single etcd that dies, freezes, forgets history or forgets a lease.

use std::time::Duration;

use runtime::keyspace::{Fault, Keyspace, Txn};
use tokio::time::Instant;

use super::launcher::{Etcd, free_port};
use super::{await_until, config, connect, put_leased, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirror_resumes_after_kill_and_restart_with_the_changes_it_missed() {
    let mut etcd = Etcd::start().await;
    let keyspace = connect(&etcd).await;
    let mut mirror = keyspace.mirror("/m/");
    for key in ["/m/stays", "/m/changes", "/m/goes"] {
        keyspace.put(key, "1").await.expect("writes");
    }
    await_until("three keys", async || mirror.snapshot().len() == 3).await;

    etcd.kill(0);
    let elsewhere = free_port();
    etcd.run_on(0, elsewhere);
    let mut operator = Etcd::operator_on(elsewhere).await;
    operator.put("/m/changes", "2", None).await.expect("writes");
    operator.delete("/m/goes", None).await.expect("deletes");
    operator.put("/m/comes", "1", None).await.expect("writes");
    assert_eq!(mirror.snapshot().len(), 3, "the mirror cannot know yet");
    etcd.kill(0);
    await_until("the copy is known to be old", async || {
        mirror.stale_for() > Duration::from_secs(1)
    })
    .await;

    etcd.run(0);
    soon("a change", mirror.changed()).await;
    await_until("what was missed", async || {
        mirror.snapshot().contains_key("/m/comes")
    })
    .await;
    let copy = mirror.snapshot();
    assert_eq!(
        copy.keys().collect::<Vec<_>>(),
        ["/m/changes", "/m/comes", "/m/stays"]
    );
    assert_eq!(copy["/m/changes"].value, "2");
    keyspace.put("/m/later", "1").await.expect("writes");
    await_until("it goes on", async || {
        mirror.snapshot().contains_key("/m/later")
    })
    .await;
    assert!(mirror.stale_for() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirror_lists_again_after_compaction_past_its_revision() {
    let mut etcd = Etcd::start().await;
    let keyspace = connect(&etcd).await;
    let mirror = keyspace.mirror("/m/");
    for key in ["/m/stays", "/m/changes", "/m/goes"] {
        keyspace.put(key, "1").await.expect("writes");
    }
    await_until("three keys", async || mirror.snapshot().len() == 3).await;

    etcd.kill(0);
    let elsewhere = free_port();
    etcd.run_on(0, elsewhere);
    let mut operator = Etcd::operator_on(elsewhere).await;
    operator.delete("/m/goes", None).await.expect("deletes");
    operator.put("/m/changes", "2", None).await.expect("writes");
    let last = operator.put("/other", "x", None).await.expect("writes");
    let revision = last.header().expect("has a header").revision();
    operator.compact(revision, None).await.expect("compacts");
    etcd.kill(0);

    etcd.run(0);
    await_until("the key that vanished unseen is dropped", async || {
        !mirror.snapshot().contains_key("/m/goes")
    })
    .await;
    let copy = mirror.snapshot();
    assert_eq!(copy.keys().collect::<Vec<_>>(), ["/m/changes", "/m/stays"]);
    assert_eq!(copy["/m/changes"].value, "2");
    keyspace.put("/m/later", "1").await.expect("writes");
    await_until("it goes on", async || {
        mirror.snapshot().contains_key("/m/later")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_survives_a_restart_shorter_than_its_ttl() {
    let mut etcd = Etcd::start().await;
    let keyspace = connect(&etcd).await;
    let mut session = keyspace.session(Duration::from_secs(12));
    soon("a lease", session.ready()).await;
    put_leased(&keyspace, &session, "/member").await;

    etcd.kill(0);
    etcd.run(0);
    etcd.await_ready().await;
    let lease = session.lease_id().expect("holds a lease");
    let operator = etcd.operator().await;
    let mut least = i64::MAX;
    await_until("a renewal after the restart", async || {
        assert!(session.alive(), "never lapsed");
        let left = operator
            .lease_client()
            .time_to_live(lease, None)
            .await
            .expect("answers")
            .ttl();
        least = least.min(left);
        left > least
    })
    .await;
    assert_eq!(session.generation(), 1);
    assert!(
        keyspace
            .get("/member")
            .await
            .expect("reads")
            .is_some_and(|it| it.leased)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_lapses_on_our_clock_and_is_granted_anew_when_etcd_was_frozen_past_the_ttl() {
    let etcd = Etcd::start().await;
    let keyspace = connect(&etcd).await;
    let mut session = keyspace.session(Duration::from_secs(2));
    soon("a lease", session.ready()).await;
    put_leased(&keyspace, &session, "/member").await;

    etcd.freeze(0);
    let frozen = Instant::now();
    soon("the lapse", session.changed()).await;
    assert!(!session.alive());
    assert!(
        frozen.elapsed() <= Duration::from_millis(2_200),
        "{:?}",
        frozen.elapsed()
    );
    assert_eq!(
        session.generation(),
        1,
        "nobody has said that the lease is gone"
    );
    let txn = Txn::new().put_leased(&session, "/late", "x");
    assert!(matches!(
        keyspace.commit(txn).await,
        Err(Fault::SessionLost)
    ));
    // Not a wait for a state: this is how long the fault lasts.
    tokio::time::sleep_until(frozen + Duration::from_secs(4)).await;
    etcd.thaw(0);

    soon("a new lease", async {
        while session.generation() < 2 || !session.alive() {
            session.changed().await;
        }
    })
    .await;
    await_until("the old key is gone", async || {
        keyspace.get("/member").await.expect("reads").is_none()
    })
    .await;
    put_leased(&keyspace, &session, "/member").await;
    assert!(keyspace.get("/late").await.expect("reads").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_revoked_by_hand_is_replaced() {
    let etcd = Etcd::start().await;
    let keyspace = connect(&etcd).await;
    let mut session = keyspace.session(Duration::from_secs(60));
    soon("a lease", session.ready()).await;
    put_leased(&keyspace, &session, "/member").await;
    let lease = session.lease_id().expect("holds a lease");
    etcd.operator()
        .await
        .lease_revoke(lease)
        .await
        .expect("revokes");

    // Long before the next renewal: the write that finds the lease missing makes the session ask.
    let txn = Txn::new()
        .put("/plain", "x")
        .put_leased(&session, "/late", "x");
    assert!(matches!(
        keyspace.commit(txn).await,
        Err(Fault::SessionLost)
    ));
    soon("a new lease", async {
        while session.generation() < 2 {
            session.changed().await;
        }
    })
    .await;
    assert!(
        keyspace.list("").await.expect("lists").is_empty(),
        "nothing of the txn was written"
    );
    put_leased(&keyspace, &session, "/member").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_etcd_gives_unknown_writes_and_unavailable_reads_within_bounds() {
    let etcd = Etcd::start().await;
    let keyspace = connect(&etcd).await;
    let mirror = keyspace.mirror("/");
    keyspace.put("/k", "1").await.expect("writes");
    await_until("the put", async || !mirror.snapshot().is_empty()).await;

    etcd.freeze(0);
    let started = Instant::now();
    assert!(matches!(
        keyspace.put("/k", "2").await,
        Err(Fault::Unknown { .. })
    ));
    assert!(matches!(
        keyspace.get("/k").await,
        Err(Fault::Unavailable { .. })
    ));
    assert!(
        started.elapsed() < Duration::from_secs(7),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(mirror.snapshot()["/k"].value, "1");
    await_until("the copy is known to be old", async || {
        mirror.stale_for() > Duration::from_secs(3)
    })
    .await;
    etcd.thaw(0);

    let revision = soon("writes again", async {
        loop {
            match keyspace.put("/after", "1").await {
                Ok(revision) => break revision,
                Err(Fault::Unknown { .. } | Fault::Unavailable { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    })
    .await;
    await_until("the mirror has caught up", async || {
        mirror
            .snapshot()
            .get("/after")
            .is_some_and(|it| it.mod_revision >= revision)
    })
    .await;
    await_until("the copy is fresh", async || {
        mirror.stale_for() < Duration::from_secs(1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_starts_while_etcd_is_away_and_finds_it_later() {
    let mut etcd = Etcd::prepare(1);
    let keyspace = Keyspace::etcd(config(&etcd))
        .await
        .expect("needs no answer");
    let mut mirror = keyspace.mirror("/m/");
    let mut session = keyspace.session(Duration::from_secs(5));
    let refused = keyspace.put("/m/k", "1").await;
    assert!(
        matches!(refused, Err(Fault::Unavailable { .. })),
        "surely not written: {refused:?}"
    );
    assert!(matches!(
        keyspace.get("/m/k").await,
        Err(Fault::Unavailable { .. })
    ));
    assert!(!mirror.listed() && !session.alive());

    etcd.run(0);
    soon("the first listing", mirror.ready()).await;
    soon("a lease", session.ready()).await;
    put_leased(&keyspace, &session, "/m/k").await;
    await_until("the put", async || mirror.snapshot().contains_key("/m/k")).await;
    etcd.kill(0);
    let started = Instant::now();
    soon("an end without etcd", session.end()).await;
    assert!(started.elapsed() < Duration::from_secs(11));
}
