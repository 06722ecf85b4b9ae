//! The local store over restarts: what is on disk, what is not, and revisions that only rise.

use std::time::Duration;

use runtime::keyspace::{Fault, Keyspace, Txn};

use super::soon;

#[tokio::test]
async fn unleased_keys_survive_a_restart_and_leased_ones_do_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("documents.db");
    let before = Keyspace::local(Some(&path)).expect("opens");
    let mut session = before.session(Duration::from_secs(5));
    soon("a lease", session.ready()).await;
    before
        .put("/campaign/one", "document")
        .await
        .expect("writes");
    let txn = Txn::new()
        .put_leased(&session, "/member/me", "x")
        .put("/floor", "7");
    let last = before
        .commit(txn)
        .await
        .expect("commits")
        .revision()
        .expect("no conflict");
    let written = before.list("").await.expect("lists");
    assert_eq!(written.len(), 3);
    before.close().await;
    assert!(matches!(
        before.get("/floor").await,
        Err(Fault::Store { .. })
    ));

    let after = Keyspace::local(Some(&path)).expect("opens again");
    let read = after.list("").await.expect("lists");
    let unleased: Vec<_> = written.into_iter().filter(|it| !it.leased).collect();
    assert_eq!(read, unleased, "the same values and revisions");
    let next = after
        .put("/campaign/two", "document")
        .await
        .expect("writes");
    assert!(next > last, "{next} after {last}");
    let stale = Txn::new()
        .expect_revision("/floor", last)
        .put("/floor", "8");
    assert!(
        after.commit(stale).await.expect("answers").committed(),
        "revisions still compare"
    );
}

#[tokio::test]
async fn store_without_a_file_starts_empty() {
    let keyspace = Keyspace::local(None).expect("opens");
    keyspace.put("/k", "x").await.expect("writes");
    assert!(
        Keyspace::local(None)
            .expect("opens")
            .list("")
            .await
            .expect("lists")
            .is_empty()
    );
}

#[tokio::test]
async fn folder_that_does_not_exist_is_a_fault_of_the_store() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let opened = Keyspace::local(Some(&folder.path().join("no/such/folder.db")));
    assert!(matches!(opened, Err(Fault::Store { .. })));
}
