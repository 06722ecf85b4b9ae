//! The writer thread: units that fail alone, commits that fail together.

use std::path::Path;
use std::sync::mpsc;

use runtime::Clock;

use super::*;

fn start(path: &Path) -> Queue {
    let mut db = files::open_writer(path).expect("the file opens");
    files::migrate(&mut db).expect("the tables are made");
    let clock = Arc::new(LedgerClock::new(Clock::system()));
    Queue::start(path.to_owned(), db, clock).expect("the thread starts")
}

fn add_shard(db: &Connection, shard: u32) -> Result<Outcome<u32>, Fault> {
    db.execute("INSERT INTO shard (shard_id) VALUES (?1)", [shard])
        .map_err(|error| statement_fault(ShardId(shard), error))?;
    Ok(Outcome::keep(shard))
}

/// A reference to nothing that is looked at only when the commit comes: it fails, as on a broken disk.
fn break_commit(db: &Connection) -> Result<Outcome<u32>, Fault> {
    db.execute_batch(
        "PRAGMA defer_foreign_keys = ON;
         INSERT INTO clinic VALUES ('nowhere', 99, '', '', 0, 0)",
    )
    .map_err(unavailable)?;
    Ok(Outcome::keep(0))
}

fn shards(path: &Path) -> u32 {
    files::open_reader(path)
        .and_then(|db| db.query_row("SELECT count(*) FROM shard", [], |row| row.get(0)))
        .expect("the shards are counted")
}

/// Starts a unit that keeps the thread busy until the sender is dropped, so that what follows is one group.
fn occupy(queue: &Queue) -> (mpsc::Sender<()>, impl Future<Output = Result<(), Fault>>) {
    let (release, wait) = mpsc::channel::<()>();
    let busy = queue.clone();
    let unit = async move {
        let work = move |_: &Connection, _| {
            // An error is the signal: the sender is gone.
            let _ = wait.recv();
            Ok(Outcome::undo(()))
        };
        busy.run(1, None, work).await
    };
    (release, unit)
}

#[tokio::test]
async fn a_unit_that_fails_takes_back_its_own_writes_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let queue = start(&path);
    let (release, busy) = occupy(&queue);
    let good = queue.run(1, None, |db, _| add_shard(db, 1));
    let twice = queue.run(1, Some(ShardId(2)), |db, _| {
        add_shard(db, 2)?;
        add_shard(db, 2)
    });
    let also_good = queue.run(1, None, |db, _| add_shard(db, 3));
    let release = async move { drop(release) };
    let (_, good, twice, also_good, ()) = tokio::join!(busy, good, twice, also_good, release);
    assert!(good.is_ok() && also_good.is_ok());
    assert!(matches!(
        twice,
        Err(Fault::Constraint { shard: ShardId(2) })
    ));
    assert_eq!(shards(&path), 2);
}

#[tokio::test]
async fn nobody_of_a_group_whose_commit_failed_hears_yes_or_no() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let queue = start(&path);
    let (release, busy) = occupy(&queue);
    let written = queue.run(1, Some(ShardId(1)), |db, _| add_shard(db, 1));
    let refused = queue.run(1, Some(ShardId(4)), |db, _| {
        add_shard(db, 4)?;
        add_shard(db, 4)
    });
    let poison = queue.run(1, None, |db, _| break_commit(db));
    let release = async move { drop(release) };
    let (_, written, refused, poison, ()) = tokio::join!(busy, written, refused, poison, release);
    assert!(matches!(
        written,
        Err(Fault::Unknown {
            shard: ShardId(1),
            ..
        })
    ));
    assert!(matches!(
        refused,
        Err(Fault::Unknown {
            shard: ShardId(4),
            ..
        })
    ));
    assert!(matches!(poison, Err(Fault::Unavailable { .. })));
    assert_eq!(shards(&path), 0);
    // The file is opened again by the next call.
    queue
        .run(1, None, |db, _| add_shard(db, 7))
        .await
        .expect("the ledger goes on");
    assert_eq!(shards(&path), 1);
}

#[tokio::test]
async fn what_was_handed_over_is_written_even_if_the_caller_leaves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let queue = start(&path);
    let (release, busy) = occupy(&queue);
    let mut busy = Box::pin(busy);
    assert!(futures::poll!(&mut busy).is_pending());
    {
        let mut leaving = Box::pin(queue.run(1, None, |db, _| add_shard(db, 1)));
        assert!(futures::poll!(&mut leaving).is_pending());
    }
    drop(release);
    busy.await.expect("the thread goes on");
    queue
        .run(1, None, |_, _| Ok(Outcome::keep(())))
        .await
        .expect("the thread goes on");
    assert_eq!(shards(&path), 1);
}

#[tokio::test]
async fn a_crash_after_the_answer_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let queue = start(&path);
    for shard in 0..50 {
        queue
            .run(1, None, move |db, _| add_shard(db, shard))
            .await
            .expect("the shard is added");
    }
    // What a killed process leaves behind: the file and its log, nothing closed in order.
    let after = tempfile::tempdir().expect("a folder");
    for name in ["ledger.db", "ledger.db-wal"] {
        std::fs::copy(folder.path().join(name), after.path().join(name)).expect("a copy");
    }
    let path = after.path().join("ledger.db");
    let again = start(&path);
    assert_eq!(shards(&path), 50);
    again
        .run(1, None, |db, _| add_shard(db, 50))
        .await
        .expect("the ledger goes on");
    assert_eq!(shards(&path), 51);
}
