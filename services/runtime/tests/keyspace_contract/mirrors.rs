//! The contract of mirrors, in sentences. Each runs on both backends.

use std::collections::BTreeSet;
use std::time::Duration;

use runtime::keyspace::Txn;
use tokio::task::JoinSet;

use super::{World, await_until, mirror, soon};

pub(crate) async fn mirror_follows_puts_and_deletes(world: &World) {
    world.keyspace.put("/m/before", "1").await.expect("writes");
    let mirror = mirror(&world.other, "/m/").await;
    assert_eq!(mirror.snapshot()["/m/before"].value, "1");
    let revision = world.keyspace.put("/m/after", "2").await.expect("writes");
    await_until("the put", async || {
        mirror.snapshot().contains_key("/m/after")
    })
    .await;
    assert_eq!(mirror.snapshot()["/m/after"].mod_revision, revision);
    world.keyspace.delete("/m/before").await.expect("deletes");
    await_until("the removal", async || {
        !mirror.snapshot().contains_key("/m/before")
    })
    .await;
    assert_eq!(
        mirror.snapshot().values().cloned().collect::<Vec<_>>(),
        world.keyspace.list("/m/").await.expect("lists")
    );
}

pub(crate) async fn mirror_of_a_prefix_shows_nothing_else(world: &World) {
    let mirror = mirror(&world.other, "/m/").await;
    for key in ["/m", "/l/x", "/m0", "/n/x", "/m/x"] {
        world.keyspace.put(key, "1").await.expect("writes");
    }
    await_until("the key", async || !mirror.snapshot().is_empty()).await;
    assert_eq!(mirror.snapshot().keys().collect::<Vec<_>>(), ["/m/x"]);
}

pub(crate) async fn mirror_sees_revisions_in_order(world: &World) {
    let mut mirror = mirror(&world.other, "/m/").await;
    let keyspace = world.keyspace.clone();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        let mut last = 0;
        for round in 0..60 {
            last = keyspace
                .put(format!("/m/{}", round % 3), "x")
                .await
                .expect("writes");
        }
        last
    });
    let [last] = writer.join_all().await[..] else {
        panic!("one writer, one last revision");
    };
    let mut seen = BTreeSet::from([0]);
    while seen.last() != Some(&last) {
        soon("a change", mirror.changed()).await;
        let copy = mirror.snapshot();
        let newest = copy
            .values()
            .map(|it| it.mod_revision)
            .max()
            .expect("not empty");
        assert!(seen.last() <= Some(&newest));
        seen.insert(newest);
    }
}

pub(crate) async fn transaction_is_seen_whole(world: &World) {
    let mut mirror = mirror(&world.other, "/pair/").await;
    let keyspace = world.keyspace.clone();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        for round in 1..=40 {
            let value = round.to_string();
            let txn = Txn::new()
                .put("/pair/left", value.clone())
                .put("/pair/right", value);
            assert!(keyspace.commit(txn).await.expect("commits").committed());
        }
    });
    loop {
        soon("a change", mirror.changed()).await;
        let copy = mirror.snapshot();
        let (left, right) = (copy.get("/pair/left"), copy.get("/pair/right"));
        assert_eq!(left.map(|it| &it.value), right.map(|it| &it.value));
        assert_eq!(
            left.map(|it| it.mod_revision),
            right.map(|it| it.mod_revision)
        );
        if left.is_some_and(|it| it.value == "40") {
            break;
        }
    }
    writer.join_all().await;
}

pub(crate) async fn fresh_mirror_is_not_stale(world: &World) {
    let mirror = mirror(&world.other, "/quiet/").await;
    // Longer than the silence after which a watch is opened anew: proofs must come without changes.
    let watched = tokio::time::Instant::now();
    await_until("four seconds of freshness", async || {
        assert!(
            mirror.stale_for() < Duration::from_millis(1_500),
            "{:?}",
            mirror.stale_for()
        );
        watched.elapsed() > Duration::from_secs(4)
    })
    .await;
}
