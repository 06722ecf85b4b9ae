//! The contract of keys and transactions, in sentences. Each runs on both backends.

use runtime::keyspace::{Fault, Outcome, Txn};
use tokio::task::JoinSet;

use super::{World, absent, soon};

pub(crate) async fn written_keys_are_read_back_in_order(world: &World) {
    for key in ["/a/2", "/a/10", "/a/1", "/b/1", "/a"] {
        world
            .keyspace
            .put(key, key.to_owned())
            .await
            .expect("writes");
    }
    let listed = world.other.list("/a/").await.expect("lists");
    let keys: Vec<_> = listed.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(keys, ["/a/1", "/a/10", "/a/2"]);
    assert!(listed.iter().all(|it| it.value == it.key && !it.leased));
    assert_eq!(world.other.list("").await.expect("lists").len(), 5);
    assert!(world.other.list("/c").await.expect("lists").is_empty());
    assert!(absent(&world.other, "/a/3").await);
}

pub(crate) async fn revisions_rise_and_creation_is_remembered(world: &World) {
    let created = world.keyspace.put("/k", "1").await.expect("writes");
    let changed = world.keyspace.put("/k", "2").await.expect("writes");
    assert!(changed > created);
    let entry = world
        .other
        .get("/k")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (entry.create_revision, entry.mod_revision),
        (created, changed)
    );
    assert_eq!(entry.value, "2");
    world.keyspace.delete("/k").await.expect("deletes");
    let again = world.keyspace.put("/k", "3").await.expect("writes");
    let entry = world
        .other
        .get("/k")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!((entry.create_revision, entry.mod_revision), (again, again));
    assert!(
        again > changed + 1,
        "the deletion has a revision of its own"
    );
}

pub(crate) async fn delete_removes_and_repeats_harmlessly(world: &World) {
    world.keyspace.put("/k", "1").await.expect("writes");
    let deleted = world.keyspace.delete("/k").await.expect("deletes");
    assert!(absent(&world.other, "/k").await);
    let repeated = world.keyspace.delete("/k").await.expect("deletes nothing");
    assert_eq!(repeated, deleted, "deleting nothing is no change");
}

pub(crate) async fn expectation_of_absence_is_met_once(world: &World) {
    let claim = || Txn::new().expect_absent("/k").put("/k", "mine");
    let first = world.keyspace.commit(claim()).await.expect("commits");
    assert!(first.committed());
    let second = world.other.commit(claim()).await.expect("is answered");
    assert_eq!(second, Outcome::Conflict);
    let entry = world
        .other
        .get("/k")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(Some(entry.mod_revision), first.revision());
}

pub(crate) async fn expectation_of_a_revision_fails_when_stale(world: &World) {
    let first = world.keyspace.put("/k", "1").await.expect("writes");
    let change = |value: &'static str| Txn::new().expect_revision("/k", first).put("/k", value);
    assert!(
        world
            .keyspace
            .commit(change("2"))
            .await
            .expect("commits")
            .committed()
    );
    assert_eq!(
        world.other.commit(change("3")).await.expect("is answered"),
        Outcome::Conflict
    );
    world.keyspace.delete("/k").await.expect("deletes");
    assert_eq!(
        world.other.commit(change("4")).await.expect("is answered"),
        Outcome::Conflict
    );
}

pub(crate) async fn conflict_writes_nothing(world: &World) {
    world.keyspace.put("/kept", "1").await.expect("writes");
    let txn = Txn::new()
        .expect_absent("/new")
        .expect_absent("/kept")
        .put("/new", "x")
        .delete("/kept");
    assert_eq!(
        world.keyspace.commit(txn).await.expect("is answered"),
        Outcome::Conflict
    );
    assert!(absent(&world.other, "/new").await);
    assert!(!absent(&world.other, "/kept").await);
}

pub(crate) async fn race_of_32_has_one_winner(world: &World) {
    let mut racers = JoinSet::new();
    for racer in 0..32 {
        let keyspace = if racer % 2 == 0 {
            &world.keyspace
        } else {
            &world.other
        }
        .clone();
        racers.spawn(async move {
            let txn = Txn::new()
                .expect_absent("/prize")
                .put("/prize", racer.to_string());
            (racer, keyspace.commit(txn).await.expect("is answered"))
        });
    }
    let won: Vec<_> = racers
        .join_all()
        .await
        .into_iter()
        .filter(|(_, it)| it.committed())
        .collect();
    let [(winner, outcome)] = won[..] else {
        panic!("{} winners", won.len());
    };
    let entry = world
        .keyspace
        .get("/prize")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(entry.value, winner.to_string());
    assert_eq!(outcome.revision(), Some(entry.mod_revision));
}

pub(crate) async fn counter_under_contention_loses_no_step(world: &World) {
    world.keyspace.put("/count", "0").await.expect("writes");
    let mut counters = JoinSet::new();
    for counter in 0..8 {
        let keyspace = if counter % 2 == 0 {
            &world.keyspace
        } else {
            &world.other
        }
        .clone();
        counters.spawn(async move {
            let mut steps = 0;
            while steps < 5 {
                let now = keyspace
                    .get("/count")
                    .await
                    .expect("reads")
                    .expect("is there");
                let text = std::str::from_utf8(&now.value).expect("is text");
                let next = text.parse::<u32>().expect("is a number") + 1;
                let txn = Txn::new()
                    .expect_revision("/count", now.mod_revision)
                    .put("/count", next.to_string());
                steps += u32::from(keyspace.commit(txn).await.expect("is answered").committed());
            }
        });
    }
    soon("all steps", counters.join_all()).await;
    let entry = world
        .keyspace
        .get("/count")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(entry.value, "40");
}

pub(crate) async fn malformed_requests_are_refused(world: &World) {
    let twice = Txn::new().put("/k", "1").delete("/k");
    let long = "k".repeat(2_000);
    let many = (0..200).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x"));
    let large = Txn::new().put("/k", vec![0; 2 << 20]);
    for txn in [
        twice,
        many,
        large,
        Txn::new().put("", "x"),
        Txn::new().put(long, "x"),
    ] {
        let answer = world.keyspace.commit(txn).await;
        assert!(matches!(answer, Err(Fault::Invalid { .. })), "{answer:?}");
    }
    assert!(world.keyspace.list("").await.expect("lists").is_empty());
    let full = (0..128).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x"));
    assert!(
        world
            .keyspace
            .commit(full)
            .await
            .expect("commits")
            .committed()
    );
    let nothing = world
        .keyspace
        .commit(Txn::new())
        .await
        .expect("is answered");
    assert!(nothing.committed());
}
