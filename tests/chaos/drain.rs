//! Owners leave and come back under load, and nobody who calls is told of it.

use std::time::Duration;

use system_tests::await_until::await_until;

use crate::load::Load;
use crate::town::{SHARDS, Town};

const WITHIN: Duration = Duration::from_secs(60);
/// Calls that must be answered between one step and the next, so that every step happens under load.
const STEP: u64 = 200;

async fn more_answers(load: &Load) -> anyhow::Result<()> {
    let before = load.answered();
    await_until("calls are answered", WITHIN, || std::future::ready(load.answered() >= before + STEP)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures are what a reader of this test wants")]
async fn a_rolling_restart_of_all_owners_gives_no_error_at_callers_who_never_repeat() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut town = Town::start(folder.path(), 2_000).await?;
    let load = Load::start(&mut town);
    more_answers(&load).await?;
    let mut handovers = 0;
    for number in 0..town.cluster.inventories.len() {
        let mut owned = Vec::new();
        for shard in 0..SHARDS {
            let owner = town.owner(shard).await?;
            if town.inventory(&owner)? == number {
                owned.push((shard, owner));
            }
        }
        let leaving = &mut town.cluster.inventories[number].process;
        leaving.terminate()?;
        let status = leaving.await_exit(WITHIN).await?;
        anyhow::ensure!(status.success(), "a drained owner ends well: {status}\n{}", leaving.log_tail());
        for (shard, owner) in &owned {
            let next = town.owner(*shard).await?;
            assert_ne!(next.addr, owner.addr, "shard {shard} is decided elsewhere");
            handovers += 1;
        }
        more_answers(&load).await?;

        town.cluster.inventories[number].process.restart()?;
        town.cluster.await_ready(WITHIN).await?;
        // Placement is a function of the members: the same members as before want the same owners as before.
        for (shard, owner) in &owned {
            let back = format!("shard {shard} is handed back");
            await_until(&back, WITHIN, || async {
                town.owner(*shard).await.is_ok_and(|now| now.addr == owner.addr)
            })
            .await?;
            handovers += 1;
        }
        more_answers(&load).await?;
    }
    let told = load.stop().await?;
    println!(
        "{handovers} hand-overs under {} calls: {} errors, slowest {:?}",
        told.calls,
        told.errors.len(),
        told.slowest
    );
    anyhow::ensure!(told.errors.is_empty(), "{} of {} calls failed: {:#?}", told.errors.len(), told.calls, told.errors);
    anyhow::ensure!(handovers >= 2 * SHARDS, "every shard was handed over and back, not {handovers} times");
    Ok(())
}
