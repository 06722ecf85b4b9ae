//! `./dev cluster`: a whole Doseline in separate processes, a rush at it with one owner killed in the middle, and the
//! audit of its room.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use system_tests::await_until::await_until;
use system_tests::cluster::{Cluster, Options, program};
use system_tests::processes::{Launch, Process};

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

const USAGE: &str = "usage: ./dev cluster [SCALE] [--rate N] [--absent P] [--calm]

  SCALE        the part of the country's people of 50 to 59 who take part (0.01)
  --rate N     let N people a second in, in all regions together; without it everybody at once. Places are then told
               without looking at permits' signatures (`gateway.verify_places = false`): waiting people ask most of all
  --absent P   the part of them who never come, 0 to 1 (0)
  --calm       kill nobody";

/// What `./dev cluster` is asked for.
struct Ask {
    scale: f64,
    rate: u64,
    absent: f64,
    calm: bool,
}

/// The rush's campaign.
const CAMPAIGN: &str = "cluster-rush";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ask = ask(&args)?;
    tokio::runtime::Runtime::new()?.block_on(run(&ask))
}

fn ask(args: &[String]) -> anyhow::Result<Ask> {
    let mut ask = Ask {
        scale: 0.01,
        rate: 0,
        absent: 0.0,
        calm: false,
    };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let mut value = || {
            args.next()
                .with_context(|| format!("{name} needs a value\n{USAGE}"))
        };
        match name.as_str() {
            "--rate" => ask.rate = value()?.parse()?,
            "--absent" => ask.absent = value()?.parse()?,
            "--calm" => ask.calm = true,
            scale => ask.scale = scale.parse().with_context(|| format!("{scale}\n{USAGE}"))?,
        }
    }
    Ok(ask)
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

async fn run(ask: &Ask) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    say("starting etcd, PostgreSQL, 2 identities, 3 inventories, 2 gateways")?;
    let mut options = Options::new(&REGIONS, folder.path());
    if ask.rate > 0 {
        options.trusting_gateways = options.gateways;
    }
    let mut cluster = Cluster::start(options).await?;
    say("ready; a rush begins")?;
    let report = folder.path().join("report");
    let mut args = cluster.rush_args(&REGIONS.map(str::to_owned), ask.scale, &report);
    args.push(format!("--campaign={CAMPAIGN}"));
    args.push(format!("--rate={}", ask.rate));
    args.push(format!("--absent={}", ask.absent));
    let launch = Launch::new(CAMPAIGN, program()?, folder.path());
    let mut rush = Process::start(launch.args(args))?;
    let log = rush.log_path();
    await_until("the doors are open", Duration::from_secs(1_800), || {
        let open = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("doors open"));
        async move { open }
    })
    .await?;
    if !ask.calm {
        cluster.inventories[0].process.kill()?;
        say("killed inventory-0 with SIGKILL in the middle of it")?;
    }
    let status = rush.await_exit(Duration::from_secs(3_600)).await?;
    say(&rush.log()?)?;
    std::fs::create_dir_all("report")?;
    std::fs::copy(report.join("rush.html"), "report/cluster-rush.html").context("the report")?;
    say("the same report: report/cluster-rush.html")?;
    audits(&cluster, folder.path())?;
    anyhow::ensure!(status.success(), "the verdict does not hold: {status}");
    drop(cluster);
    folder.close().context("the cluster's folder")
}

/// The room's published documents, judged by the program and by the second implementation: both must come to the same
/// place for every ticket.
fn audits(cluster: &Cluster, folder: &Path) -> anyhow::Result<()> {
    let published = folder.join("published");
    let gateway = format!("--gateway={}", cluster.gateways[0].addr);
    Launch::new("export", program()?, folder)
        .args(["room", "export", CAMPAIGN, "fifties"])
        .arg(&published)
        .arg(gateway)
        .run()?;
    let judge = |name: &str, judge: Launch| {
        let file = folder.join(name);
        let told = judge
            .arg(&published)
            .arg("--ordinals")
            .arg(&file)
            .output()?;
        Ok::<_, anyhow::Error>((told, std::fs::read_to_string(file)?))
    };
    let first = Launch::new("audit", program()?, folder).args(["room", "audit"]);
    let (told, ordinals) = judge("ordinals", first)?;
    say(&format!("doseline room audit:\n{}", told.trim_end()))?;
    let script = std::path::absolute("tests/python/audit.py")?;
    let second = Launch::new("second-audit", "python3", folder).arg(script);
    let (told, again) = judge("ordinals-again", second)?;
    say(&format!("tests/python/audit.py: {}", told.trim_end()))?;
    let places = ordinals.lines().count();
    anyhow::ensure!(ordinals == again, "the audits disagree on places");
    say(&format!("both audits agree on {places} places"))?;
    Ok(())
}
