//! Owners leave and come back under load, and nobody who calls is told of it.

use std::time::Duration;

use system_tests::town::{Options, Town};

use crate::load::Load;

const WITHIN: Duration = Duration::from_secs(60);
/// Drains, each followed by a newcomer that some shards are moved to.
const ROUNDS: u64 = 5;
/// Calls answered between one step and the next, so that every step happens under load: about four seconds, in which
/// owners give a newcomer what is its by placement.
const STEP: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::print_stdout,
    reason = "the figures are what a reader of this test wants"
)]
async fn drained_and_returning_owners_give_no_error_to_callers_who_never_repeat()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), Options::with_people(2_000)).await?;
    let load = Load::start(&mut town);
    load.more_answers(STEP).await?;
    let before = epochs(&town).await?;
    for round in 0..ROUNDS {
        let shard = u32::try_from(round)? % town.shards();
        let owner = town.owner(shard).await?;
        let at = town.inventory(&owner)?;
        let leaving = &mut town.cluster.inventories[at].process;
        leaving.terminate()?;
        let status = leaving.await_exit(WITHIN).await?;
        anyhow::ensure!(
            status.success(),
            "a drained owner ends well: {status}\n{}",
            leaving.log_tail()
        );
        let next = town.owner(shard).await?;
        assert!(
            next.addr != owner.addr && next.epoch > owner.epoch,
            "{next:?} after {owner:?}"
        );
        load.more_answers(STEP).await?;

        town.cluster.inventories[at].process.restart()?;
        town.cluster.await_ready(WITHIN).await?;
        load.more_answers(STEP).await?;
    }
    let handovers = epochs(&town).await? - before;
    let told = load.stop().await?;
    println!(
        "{ROUNDS} drains and {handovers} epochs under {} calls: {} errors, slowest {:?}",
        told.calls,
        told.errors.len(),
        told.slowest
    );
    anyhow::ensure!(
        told.errors.is_empty(),
        "{} of {} calls failed: {:#?}",
        told.errors.len(),
        told.calls,
        told.errors
    );
    assert!(handovers >= ROUNDS, "every drain gave a shard away");
    Ok(())
}

/// The epochs of all shards, added up.
async fn epochs(town: &Town) -> anyhow::Result<u64> {
    let mut sum = 0;
    for shard in 0..town.shards() {
        sum += town.owner(shard).await?.epoch;
    }
    Ok(sum)
}
