//! `./dev cluster`: a whole Doseline in separate processes, and a rush at it with one owner killed in the middle.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use system_tests::await_until::await_until;
use system_tests::cluster::{Cluster, Options};

/// All regions of the statistics.
const REGIONS: [&str; 17] = [
    "seoul",
    "busan",
    "daegu",
    "incheon",
    "gwangju",
    "daejeon",
    "ulsan",
    "sejong",
    "gyeonggi",
    "gangwon",
    "chungbuk",
    "chungnam",
    "jeonbuk",
    "jeonnam",
    "gyeongbuk",
    "gyeongnam",
    "jeju",
];

fn main() -> anyhow::Result<()> {
    let scale = std::env::args()
        .nth(1)
        .map_or(Ok(0.01), |scale| scale.parse())?;
    tokio::runtime::Runtime::new()?.block_on(run(scale))
}

async fn run(scale: f64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let say = |text: &str| writeln!(std::io::stdout(), "{text}");
    say("starting etcd, PostgreSQL, 2 identities, 3 inventories, 2 gateways")?;
    let mut cluster = Cluster::start(Options::new(&REGIONS, folder.path())).await?;
    say("ready; a rush begins, and an owner will be killed in the middle of it")?;
    let mut rush = cluster.start_rush("cluster-rush", scale)?;
    let log = rush.log_path();
    await_until("the doors are open", Duration::from_secs(1_800), || {
        let open = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("doors open"));
        async move { open }
    })
    .await?;
    cluster.inventories[0].process.kill()?;
    say("killed inventory-0 with SIGKILL")?;
    let status = rush.await_exit(Duration::from_secs(3_600)).await?;
    say(&rush.log()?)?;
    std::fs::create_dir_all("report")?;
    let made = folder.path().join("cluster-rush-report/rush.html");
    std::fs::copy(made, "report/cluster-rush.html").context("the report")?;
    say("the same report: report/cluster-rush.html")?;
    anyhow::ensure!(status.success(), "the verdict does not hold: {status}");
    drop(cluster);
    folder.close().context("the cluster's folder")
}
