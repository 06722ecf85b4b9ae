//! An opening against a cluster, quiet and with processes killed, frozen and drained in the middle of it.

use std::time::Duration;

use system_tests::await_until::await_until;
use system_tests::cluster::{Cluster, Options};
use system_tests::processes::Process;

/// 0.2 % of a region's people of 50 to 59: 700 to 3,000.
const SCALE: f64 = 0.002;
const REGIONS: [&str; 4] = ["daegu", "busan", "incheon", "seoul"];
const RUSH_WITHIN: Duration = Duration::from_secs(240);

/// Each rush has a region of its own, so that it finds places.
fn rush_in(cluster: &Cluster, at: usize, name: &str) -> anyhow::Result<Process> {
    cluster.start_rush_in(&[REGIONS[at].to_owned()], name, SCALE)
}

async fn await_doors(rush: &Process) -> anyhow::Result<()> {
    let log = rush.log_path();
    await_until("the doors are open", RUSH_WITHIN, || {
        let open = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("doors open"));
        async move { open }
    })
    .await?;
    Ok(())
}

/// The rush's exit status is the verdict.
async fn holds(mut rush: Process) -> anyhow::Result<()> {
    let status = rush.await_exit(RUSH_WITHIN).await?;
    let log = rush.log()?;
    anyhow::ensure!(status.success() && log.contains("HOLDS"), "{status}\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_with_and_without_a_killed_owner() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(Options::new(&REGIONS, folder.path())).await?;
    holds(rush_in(&cluster, 0, "quiet")?).await?;
    let rush = rush_in(&cluster, 1, "killed")?;
    await_doors(&rush).await?;
    cluster.inventories[0].process.kill()?;
    holds(rush).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_owners_are_frozen_and_drained() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(Options::new(&REGIONS, folder.path())).await?;
    let rush = rush_in(&cluster, 2, "frozen")?;
    await_doors(&rush).await?;
    cluster.inventories[1].process.freeze()?;
    holds(rush).await?;
    cluster.inventories[1].process.thaw()?;

    let rush = rush_in(&cluster, 3, "drained")?;
    await_doors(&rush).await?;
    cluster.inventories[2].process.terminate()?;
    holds(rush).await
}
