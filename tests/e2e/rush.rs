//! An opening against a cluster, quiet and with processes killed, frozen and drained in the middle of it.

use std::time::Duration;

use system_tests::await_until::await_until;
use system_tests::cluster::{Cluster, Options};
use system_tests::processes::Process;

/// 0.03 % of the country, in three regions: about 600 people.
const SCALE: f64 = 0.000_8;
const REGIONS: [&str; 3] = ["seoul", "busan", "jeju"];
const RUSH_WITHIN: Duration = Duration::from_secs(240);

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
async fn every_promise_holds_while_owners_are_killed_frozen_and_drained() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(Options::new(&REGIONS, folder.path())).await?;

    holds(cluster.start_rush("quiet", SCALE)?).await?;

    let rush = cluster.start_rush("killed", SCALE)?;
    await_doors(&rush).await?;
    cluster.inventories[0].process.kill()?;
    holds(rush).await?;
    cluster.inventories[0].process.restart()?;
    cluster.await_ready(Duration::from_secs(60)).await?;

    let rush = cluster.start_rush("frozen", SCALE)?;
    await_doors(&rush).await?;
    cluster.inventories[1].process.freeze()?;
    holds(rush).await?;
    cluster.inventories[1].process.thaw()?;

    let rush = cluster.start_rush("drained", SCALE)?;
    await_doors(&rush).await?;
    cluster.inventories[2].process.terminate()?;
    holds(rush).await
}
