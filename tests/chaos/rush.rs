//! An opening during which something around the owners breaks. The rush's exit status is the verdict of the ledgers.

use std::time::Duration;

use system_tests::await_until::await_until;
use system_tests::cluster::{Cluster, Options, program};
use system_tests::postgres::Stop;
use system_tests::processes::{Launch, Process};
use system_tests::tcp_proxy::Traffic;

const REGIONS: [&str; 2] = ["seoul", "jeju"];
/// 0.3 % of the country's people in their fifties who live in these two regions.
const SCALE: f64 = 0.003;
/// Few at once, so that the rush is still under way when the fault comes.
const IN_FLIGHT: u32 = 16;
const WITHIN: Duration = Duration::from_secs(180);

struct Scene {
    cluster: Cluster,
    rush: Process,
    _folder: tempfile::TempDir,
}

// === impl Scene ===

impl Scene {
    /// A rush that has come as far as saying `word`.
    async fn at(word: &'static str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = Options {
            proxies: true,
            ..Options::new(&REGIONS, folder.path())
        };
        let cluster = Cluster::start(options).await?;
        let report = folder.path().join("report");
        let args = cluster.rush_args(&REGIONS.map(str::to_owned), SCALE, &report);
        let launch = Launch::new("rush", program()?, folder.path())
            .args(args)
            .args([
                format!("--in-flight={IN_FLIGHT}"),
                format!("--give-up-secs={}", WITHIN.as_secs()),
            ]);
        let mut scene = Self {
            cluster,
            rush: Process::start(launch)?,
            _folder: folder,
        };
        scene.said(word).await?;
        Ok(scene)
    }

    async fn said(&mut self, word: &'static str) -> anyhow::Result<()> {
        let log = self.rush.log_path();
        await_until(word, WITHIN, || {
            let said = std::fs::read_to_string(&log).is_ok_and(|log| log.contains(word));
            std::future::ready(said)
        })
        .await?;
        self.in_the_middle("before the fault")
    }

    /// A fault after the last booking would prove nothing.
    fn in_the_middle(&mut self, when: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.rush.running()?,
            "the rush had ended {when}\n{}",
            self.rush.log_tail()
        );
        Ok(())
    }

    async fn bookings(&self) -> anyhow::Result<i64> {
        let mut all = 0;
        for region in REGIONS {
            let ledger = self
                .cluster
                .postgres
                .session(&system_tests::cluster::database(region))
                .await?;
            all += ledger
                .query_one("SELECT count(*) FROM request", &[])
                .await?
                .get::<_, i64>(0);
        }
        Ok(all)
    }

    /// Waits until the ledgers have `more` changes than now.
    async fn more_bookings(&self, more: i64) -> anyhow::Result<()> {
        let before = self.bookings().await?;
        await_until("bookings go on", WITHIN, || async {
            self.bookings().await.is_ok_and(|now| now >= before + more)
        })
        .await?;
        Ok(())
    }

    /// Every promise held.
    async fn holds(&mut self) -> anyhow::Result<()> {
        let status = self.rush.await_exit(WITHIN).await?;
        let log = self.rush.log()?;
        anyhow::ensure!(status.success() && log.contains("HOLDS"), "{status}\n{log}");
        Ok(())
    }
}

const DOORS: &str = "doors open";

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_etcd_is_restarted() -> anyhow::Result<()> {
    let mut it = Scene::at(DOORS).await?;
    it.cluster.etcd.kill()?;
    it.more_bookings(100).await?;
    it.in_the_middle("before etcd came back")?;
    it.cluster.etcd.restart().await?;
    it.holds().await?;
    it.cluster.await_ready(WITHIN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_postgres_is_restarted() -> anyhow::Result<()> {
    let mut it = Scene::at(DOORS).await?;
    it.more_bookings(50).await?;
    it.cluster.postgres.restart(Stop::Immediate).await?;
    it.in_the_middle("when PostgreSQL came back")?;
    it.holds().await?;
    it.cluster.await_ready(WITHIN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_an_owner_is_cut_from_etcd() -> anyhow::Result<()> {
    let mut it = Scene::at(DOORS).await?;
    cut(it.cluster.to_etcd.as_ref(), Traffic::Blackhole).await?;
    it.more_bookings(100).await?;
    it.holds().await?;
    cut(it.cluster.to_etcd.as_ref(), Traffic::Pass).await?;
    it.cluster.await_ready(WITHIN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_an_owner_is_cut_from_postgres() -> anyhow::Result<()> {
    let mut it = Scene::at(DOORS).await?;
    cut(it.cluster.to_postgres.as_ref(), Traffic::Blackhole).await?;
    // For good, as far as the rush can tell: whoever reaches the ledger has to take those shards.
    it.holds().await?;
    cut(it.cluster.to_postgres.as_ref(), Traffic::Pass).await?;
    it.cluster.await_ready(WITHIN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_a_gateway_is_killed() -> anyhow::Result<()> {
    let mut it = Scene::at(DOORS).await?;
    it.cluster.gateways[0].process.kill()?;
    // People at the other one are not concerned.
    it.more_bookings(50).await?;
    it.in_the_middle("before the gateway came back")?;
    it.cluster.gateways[0].process.restart()?;
    it.holds().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_while_an_identity_is_killed() -> anyhow::Result<()> {
    let mut it = Scene::at("places for a first dose").await?;
    // The rush opens the room at the other one's admin port. This one stays dead.
    it.cluster.identities[1].process.kill()?;
    it.said(DOORS).await?;
    it.holds().await
}

async fn cut(
    link: Option<&system_tests::tcp_proxy::TcpProxy>,
    traffic: Traffic,
) -> anyhow::Result<()> {
    let link = link.expect("the cluster was started with proxies");
    link.set(traffic).await
}
