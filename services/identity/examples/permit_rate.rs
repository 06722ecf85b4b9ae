//! Measures permits per second over both stores: assertion verified, place durable, permit signed.
//!
//! `cargo run --release -p identity --example permit_rate -- [PEOPLE] [AT-ONCE]`
//! Starts a PostgreSQL of its own with fsync on. Over gRPC, load generator in the same process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use identity::development::AUDIENCE;
use identity::people::People;
use identity::people::postgres::{PostgresPeople, Settings};
use identity::people::sqlite::SqlitePeople;
use jiff::civil::date;
use proto::admin::ApplyCampaignRequest;
use proto::identity::IssuePermitRequest;
use runtime::Clock;
use runtime::secret::Secret;
use tonic::Request;
use world::{INTERNAL_KEY, NOW, World};

#[expect(dead_code, reason = "tests use the rest")]
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[expect(dead_code, reason = "tests use the rest")]
#[path = "../tests/support/world.rs"]
mod world;

const DOCUMENT: &str = r#"{
    "campaign": "bench", "time_zone": "Asia/Seoul", "regions": ["seoul"],
    "cohorts": [{ "cohort": "all", "born_from": "1962-01-01", "born_to": "1971-12-31",
                  "opens_at": "2021-07-12T00:00:00+09:00", "permits_from": "2021-07-08" }],
    "rules": { "vaccines": ["moderna"], "dose_interval": { "min_days": 28, "max_days": 42 }, "hold_ttl_secs": 300 },
    "last_appointment": "2021-12-31", "permit_ttl_secs": 3600
}"#;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse::<u32>().ok());
    let people = arguments.next().unwrap_or(20_000);
    let at_once = arguments.next().unwrap_or(512);
    let sqlite = world::start(Clock::manual(NOW), 2, async |folder, boot, metrics| {
        let path = folder.join("people.sqlite");
        Arc::new(SqlitePeople::open(&path, &boot.tasks, Clock::system(), metrics).expect("opened"))
            as Arc<dyn People>
    });
    measure("SQLite", sqlite.await, people, at_once).await;
    let server = postgres::Postgres::start(true);
    let settings = Settings {
        url: Secret::new(server.create_database()),
        ca_file: None,
        writers: 2,
        single_copy: true,
    };
    let postgres = world::start(Clock::manual(NOW), 2, async |_, boot, metrics| {
        let store = PostgresPeople::open(settings, &boot.tasks, Clock::system(), metrics);
        Arc::new(store.await.expect("opened")) as Arc<dyn People>
    });
    measure("PostgreSQL", postgres.await, people, at_once).await;
    drop(server);
}

async fn measure(name: &str, mut world: World, people: u32, at_once: u32) {
    let apply = ApplyCampaignRequest {
        document: DOCUMENT.to_owned(),
        validate_only: false,
    };
    world.admin.apply_campaign(apply).await.expect("applied");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let assertions: Vec<String> = (0..people)
        .map(|n| {
            let ttl = Duration::from_secs(300);
            world
                .provider
                .sign(&format!("ci-{n}"), date(1965, 1, 1), AUDIENCE, NOW, ttl)
        })
        .collect();
    for round in ["new people", "the same again"] {
        let rate = run(&world, &assertions, at_once).await;
        report(name, round, people, at_once, rate);
    }
}

#[expect(clippy::print_stdout, reason = "the figures are its output")]
fn report(name: &str, round: &str, people: u32, at_once: u32, rate: f64) {
    println!("{name}: {rate:.0} permits/s ({round}; {people} people, {at_once} at once)");
}

async fn run(world: &World, assertions: &[String], at_once: u32) -> f64 {
    let next = AtomicU32::new(0);
    let clock = Clock::system();
    let began = clock.monotonic();
    join_all((0..at_once).map(async |_| {
        let mut client = world.identity.clone();
        while let Some(assertion) = assertions.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let mut request = Request::new(IssuePermitRequest {
                campaign: "bench".to_owned(),
                region: "seoul".to_owned(),
                assertion: assertion.clone(),
            });
            request
                .metadata_mut()
                .insert("x-doseline-internal", INTERNAL_KEY.parse().expect("ASCII"));
            request
                .metadata_mut()
                .insert("x-doseline-caller", "bench".parse().expect("ASCII"));
            client.issue_permit(request).await.expect("issued");
        }
    }))
    .await;
    assertions.len() as f64 / (clock.monotonic() - began).as_secs_f64()
}
