//! The contract of sessions, in sentences. Each runs on both backends.

use runtime::keyspace::{Fault, Keyspace, Session, Txn, Write};

use super::{TTL, World, absent, await_until, mirror, put_leased, session, soon};

pub(crate) async fn ended_session_takes_its_keys_along(world: &World) {
    let session = session(&world.keyspace).await;
    assert_eq!((session.alive(), session.generation()), (true, 1));
    put_leased(&world.keyspace, &session, "/leased/a").await;
    put_leased(&world.keyspace, &session, "/leased/b").await;
    assert!(
        world
            .other
            .list("/leased/")
            .await
            .expect("lists")
            .iter()
            .all(|it| it.leased)
    );
    let watching = mirror(&world.other, "/leased/").await;
    soon("the end", session.end()).await;
    assert!(!session.alive());
    assert!(
        world
            .other
            .list("/leased/")
            .await
            .expect("lists")
            .is_empty()
    );
    await_until("the mirror is empty", async || {
        watching.snapshot().is_empty()
    })
    .await;
    soon("ending again", session.end()).await;
}

pub(crate) async fn dropped_session_takes_its_keys_along(world: &World) {
    let session = session(&world.keyspace).await;
    put_leased(&world.keyspace, &session, "/leased").await;
    let clone = session.clone();
    drop(session);
    assert!(clone.alive() && !absent(&world.other, "/leased").await);
    drop(clone);
    await_until("the key is gone", async || {
        absent(&world.other, "/leased").await
    })
    .await;
}

pub(crate) async fn dead_session_writes_nothing(world: &World) {
    let session = session(&world.keyspace).await;
    session.end().await;
    let txn = Txn::new()
        .put("/plain", "x")
        .put_leased(&session, "/leased", "x");
    assert!(matches!(
        world.keyspace.commit(txn).await,
        Err(Fault::SessionLost)
    ));
    assert!(world.other.list("/").await.expect("lists").is_empty());
}

pub(crate) async fn key_put_without_lease_outlives_the_session(world: &World) {
    let session = session(&world.keyspace).await;
    put_leased(&world.keyspace, &session, "/k").await;
    world.keyspace.put("/k", "to stay").await.expect("writes");
    session.end().await;
    let entry = world
        .other
        .get("/k")
        .await
        .expect("reads")
        .expect("is there");
    assert!(entry.value == "to stay" && !entry.leased);
}

pub(crate) async fn key_moves_from_one_session_to_another(world: &World) {
    let (old, new) = (session(&world.keyspace).await, session(&world.other).await);
    put_leased(&world.keyspace, &old, "/owner").await;
    put_leased(&world.other, &new, "/owner").await;
    old.end().await;
    assert!(!absent(&world.keyspace, "/owner").await);
    new.end().await;
    assert!(absent(&world.keyspace, "/owner").await);
}

pub(crate) async fn sessions_are_independent(world: &World) {
    let (one, two) = (
        session(&world.keyspace).await,
        session(&world.keyspace).await,
    );
    put_leased(&world.keyspace, &one, "/one").await;
    put_leased(&world.keyspace, &two, "/two").await;
    one.end().await;
    assert!(absent(&world.keyspace, "/one").await);
    assert!(two.alive() && !absent(&world.keyspace, "/two").await);
}

pub(crate) async fn successor_takes_over_when_the_session_ends(world: &World) {
    let (first, second) = (session(&world.keyspace).await, session(&world.other).await);
    let stand = |session: &Session, name: &'static str| {
        Txn::new()
            .expect_absent("/doorkeeper")
            .put_leased(session, "/doorkeeper", name)
    };
    assert!(
        world
            .keyspace
            .commit(stand(&first, "first"))
            .await
            .expect("answers")
            .committed()
    );
    let mut watching = mirror(&world.other, "/doorkeeper").await;
    assert!(
        !world
            .other
            .commit(stand(&second, "second"))
            .await
            .expect("answers")
            .committed()
    );
    first.end().await;
    while !watching.snapshot().is_empty() {
        soon("the seat to be free", watching.changed()).await;
    }
    assert!(
        world
            .other
            .commit(stand(&second, "second"))
            .await
            .expect("answers")
            .committed()
    );
}

pub(crate) async fn foreign_session_is_refused(world: &World) {
    let elsewhere = Keyspace::local(None).expect("opens");
    let mut session = elsewhere.session(TTL);
    soon("a lease", session.ready()).await;
    let txn = Txn {
        expect: Vec::new(),
        writes: vec![Write::Put {
            key: "/k".to_owned(),
            value: "x".into(),
            session: Some(session),
        }],
    };
    assert!(matches!(
        world.keyspace.commit(txn).await,
        Err(Fault::Invalid { .. })
    ));
}
