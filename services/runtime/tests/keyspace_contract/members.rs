//! Three members: the one in use dies or freezes, and everything goes on with another.

use std::time::Duration;

use runtime::keyspace::{Fault, Keyspace, Txn};

use super::launcher::Etcd;
use super::{await_until, connect, soon};

/// Writes until it works: an election takes a second or two, and a write that met it has no known outcome.
async fn put(keyspace: &Keyspace, key: &str) {
    soon("a write", async {
        loop {
            match keyspace.put(key, "x").await {
                Ok(_) => break,
                Err(Fault::Unknown { .. } | Fault::Unavailable { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_of_the_member_in_use_is_outlived() {
    let mut etcd = Etcd::start_cluster(3).await;
    let keyspace = connect(&etcd).await;
    let mirror = keyspace.mirror("/m/");
    let mut session = keyspace.session(Duration::from_secs(15));
    soon("a lease", session.ready()).await;
    let member = Txn::new().put_leased(&session, "/m/member", "x");
    assert!(keyspace.commit(member).await.expect("commits").committed());

    // The first endpoint is the one in use.
    etcd.kill(0);
    put(&keyspace, "/m/after-kill").await;
    await_until("the mirror follows", async || {
        mirror.snapshot().contains_key("/m/after-kill")
    })
    .await;
    assert!(session.alive());

    etcd.run(0);
    etcd.await_ready().await;
    etcd.freeze(1);
    put(&keyspace, "/m/after-freeze").await;
    await_until("the mirror follows", async || {
        mirror.snapshot().contains_key("/m/after-freeze")
    })
    .await;
    await_until("the lease is renewed elsewhere", async || session.alive()).await;
    assert_eq!(session.generation(), 1);
    assert!(mirror.snapshot().contains_key("/m/member"));
    etcd.thaw(1);
}
