//! The local store: revisions, conditions and what survives a restart.

use bytes::Bytes;

use super::*;

fn put(key: &str, lease: Option<i64>) -> Plan {
    Plan {
        expect: Vec::new(),
        actions: vec![Action::Put {
            key: key.to_owned(),
            value: Bytes::from_static(b"x"),
            lease,
        }],
    }
}

fn on_disk(path: &std::path::Path) -> Store {
    let (disk, entries, revision) = Disk::open(path).expect("the file opens");
    Store::new(Some(disk), entries, revision)
}

#[test]
fn revisions_go_on_after_a_restart_even_past_leased_writes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("documents.db");
    let mut store = on_disk(&path);
    let lease = store.grant();
    let Ok(Outcome::Committed { revision }) = store.commit(put("leased", Some(lease))) else {
        panic!("the put commits");
    };
    drop(store);
    let mut store = on_disk(&path);
    assert!(store.get("leased").is_none());
    let Ok(Outcome::Committed { revision: later }) = store.commit(put("plain", None)) else {
        panic!("the put commits");
    };
    assert!(later > revision, "{later} after {revision}");
}

#[test]
fn key_that_becomes_leased_leaves_the_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("documents.db");
    let mut store = on_disk(&path);
    store.commit(put("a", None)).expect("commits");
    store.commit(put("b", None)).expect("commits");
    let lease = store.grant();
    store.commit(put("a", Some(lease))).expect("commits");
    drop(store);
    let store = on_disk(&path);
    assert_eq!(
        store
            .list("")
            .iter()
            .map(|it| it.key.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
}

#[test]
fn acknowledged_write_is_on_disk_before_the_file_is_closed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("documents.db");
    let mut store = on_disk(&path);
    store.commit(put("a", None)).expect("commits");
    // What a killed process leaves behind: the files as they are now.
    let after = tempfile::tempdir().expect("a temporary folder");
    for name in ["documents.db", "documents.db-wal"] {
        std::fs::copy(folder.path().join(name), after.path().join(name)).expect("copies");
    }
    let found = on_disk(&after.path().join("documents.db"));
    assert_eq!(found.get("a"), store.get("a"));
    assert!(found.get("a").is_some());
}

#[test]
fn feeds_nobody_reads_are_let_go() {
    let mut store = Store::new(None, Vec::new(), 0);
    let feed = Feed::new();
    store.follow(String::new(), Arc::clone(&feed));
    store.follow(String::new(), Feed::new());
    store.commit(put("a", None)).expect("commits");
    assert_eq!(store.feeds.len(), 1);
}

#[test]
fn foreign_file_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("other.db");
    let other = rusqlite::Connection::open(&path).expect("opens");
    other
        .execute_batch("CREATE TABLE mine (x INTEGER)")
        .expect("creates");
    drop(other);
    assert!(Disk::open(&path).is_err());
}
