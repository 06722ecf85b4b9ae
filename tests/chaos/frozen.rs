//! An owner sleeps through its lease and wakes up with work in its hands: none of it counts.

use std::time::{Duration, Instant};

use system_tests::await_until::await_until;
use system_tests::postgres::Session;
use system_tests::town::{Options, Town};

use crate::load::Load;

/// Three times the time to live of a capacity lease.
const FROZEN_FOR: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(60);
const STEP: u64 = 300;

/// Changes that a transaction later than that of a successor wrote under an older epoch, or under an older batch of
/// the same epoch. A batch takes its transaction id after the epoch's seize has committed.
const LATE: &str = "SELECT count(*) FROM (
    SELECT xid, max(xid) OVER (PARTITION BY shard_id ORDER BY epoch, batch_seq
        GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM (SELECT shard_id, epoch, batch_seq, xmin::text::bigint AS xid FROM request) AS changes) AS ordered
    WHERE xid < before";

async fn late(ledger: &Session) -> anyhow::Result<i64> {
    Ok(ledger.query_one(LATE, &[]).await?.get(0))
}

/// How many changes carry an epoch of the shard below this one.
async fn below(ledger: &Session, epoch: i64) -> anyhow::Result<i64> {
    let count = "SELECT count(*) FROM request WHERE shard_id = 0 AND epoch < $1";
    Ok(ledger.query_one(count, &[&epoch]).await?.get(0))
}

/// One row written now under the first epoch that wrote anything: what a missing fence would look like.
async fn planted_is_found(ledger: &Session) -> anyhow::Result<bool> {
    let plant = "BEGIN; INSERT INTO request
        SELECT (jsonb_populate_record(request, jsonb_build_object('request_id', gen_random_uuid()))).*
        FROM request WHERE shard_id = 0 ORDER BY epoch, batch_seq LIMIT 1";
    ledger.batch_execute(plant).await?;
    let found = late(ledger).await? > 0;
    ledger.batch_execute("ROLLBACK").await?;
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::print_stdout,
    reason = "the figures are what a reader of this test wants"
)]
async fn an_owner_frozen_for_three_lease_lives_and_woken_under_load_commits_nothing()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), Options::with_people(4_000)).await?;
    let ledger = town.ledger().await?;
    let load = Load::start(&mut town);
    load.more_answers(STEP).await?;

    let frozen = town.owner(0).await?;
    let at = town.inventory(&frozen)?;
    // Under load: the sleeper has commands in its hands and in its sockets.
    town.cluster.inventories[at].process.freeze()?;
    let began = Instant::now();
    load.more_answers(STEP).await?;
    let next = town.owner(0).await?;
    assert!(
        next.epoch > frozen.epoch && next.addr != frozen.addr,
        "{next:?} took over from {frozen:?}"
    );
    await_until("three lease lives have passed", WITHIN, || {
        std::future::ready(began.elapsed() >= FROZEN_FOR)
    })
    .await?;

    let epoch = i64::try_from(next.epoch)?;
    let before = below(&ledger, epoch).await?;
    assert!(
        before > 0,
        "the sleeper had committed something while it was awake"
    );
    town.cluster.inventories[at].process.thaw()?;
    load.more_answers(STEP).await?;
    town.cluster.await_ready(WITHIN).await?;
    load.more_answers(STEP).await?;
    let told = load.stop().await?;

    assert_eq!(
        below(&ledger, epoch).await?,
        before,
        "changes under a superseded epoch appeared after the waking"
    );
    assert_eq!(
        late(&ledger).await?,
        0,
        "changes out of the order of epochs and batches"
    );
    assert!(
        planted_is_found(&ledger).await?,
        "the check does not see what it is there for"
    );
    let row = "SELECT count(*), count(DISTINCT (shard_id, epoch, batch_seq)), count(DISTINCT (shard_id, epoch)) FROM request";
    let row = ledger.query_one(row, &[]).await?;
    println!(
        "{} changes in {} batches under {} epochs, none out of order; {} of {} calls failed while an owner slept",
        row.get::<_, i64>(0),
        row.get::<_, i64>(1),
        row.get::<_, i64>(2),
        told.errors.len(),
        told.calls
    );
    Ok(())
}
