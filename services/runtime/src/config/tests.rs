//! Layers, units, and every problem of a bad configuration at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;
use crate::secret::Secret;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    process: RawProcess,
    lease: RawLease,
    regions: Vec<RawRegion>,
    labels: BTreeMap<String, String>,
    pepper: Secret,
    title: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLease {
    ttl: HumanDuration,
    renew_every: HumanDuration,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    name: String,
    shards: u32,
}

impl Default for RawLease {
    fn default() -> Self {
        Self {
            ttl: HumanDuration::from_secs(5),
            renew_every: HumanDuration::from_secs(1),
        }
    }
}

#[derive(Debug)]
struct Config {
    process: Process,
    lease_ttl: Duration,
    regions: Vec<(String, u32)>,
    pepper: Secret,
    title: String,
}

impl RawConfig for Raw {
    type Config = Config;

    fn validate(self, problems: &mut Problems) -> Option<Config> {
        let process = problems.section("process", |problems| self.process.validate(problems));
        problems.section("lease", |problems| {
            let enough = self.lease.ttl.get() >= self.lease.renew_every.get() * 3;
            problems.check(enough, "ttl", "must be at least three times renew_every");
        });
        for (at, region) in self.regions.iter().enumerate() {
            problems.section(format_args!("regions[{at}]"), |problems| {
                problems.within("shards", region.shards, 1..=64);
            });
        }
        if self.pepper.is_empty() {
            problems.unsafe_choice("pepper", "the fixed development pepper");
        }
        Some(Config {
            process: process?,
            lease_ttl: self.lease.ttl.get(),
            regions: self
                .regions
                .into_iter()
                .map(|r| (r.name, r.shards))
                .collect(),
            pepper: self.pepper,
            title: self.title,
        })
    }
}

fn keys(invalid: &Invalid) -> Vec<&str> {
    invalid
        .problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect()
}

#[test]
fn later_layers_win() {
    let file = "pepper = 'p'\ntitle = 'file'\n[lease]\nttl = '10s'\n[[regions]]\nname = 'jeju'\nshards = 2";
    let loaded = Layers::new()
        .text(file)
        .variables([
            ("DOSELINE__LEASE__TTL", "20s"),
            ("DOSELINE__TITLE", "environment"),
            ("DOSELINE__PROCESS__WORKER_THREADS", "3"),
            ("DOSELINE_SERVICE_HOST", "not ours"),
        ])
        .set("title=flag")
        .load::<Raw>()
        .expect("no problems");
    let config = loaded.config;
    assert_eq!(config.lease_ttl, Duration::from_secs(20));
    assert_eq!(config.title, "flag");
    assert_eq!(config.process.worker_threads, Some(3));
    assert_eq!(config.regions, [("jeju".to_owned(), 2)]);
    assert_eq!(
        config.process.drain.deadline,
        Duration::from_secs(25),
        "the default"
    );
}

#[test]
fn a_text_that_looks_like_a_number_stays_a_text_where_one_is_wanted() {
    let config = Layers::new()
        .variables([("DOSELINE__TITLE", "2021"), ("DOSELINE__PEPPER", "0123")])
        .set("labels.since=2021-07-12")
        .load::<Raw>()
        .expect("no problems")
        .config;
    assert_eq!(config.title, "2021");
    assert_eq!(config.pepper.expose(), b"0123");
}

#[test]
fn every_problem_is_reported_at_once_with_its_key() {
    let file = "
        title = 7
        colour = 'red'
        [process]
        drain_deadline = 30
        [process.telemetry]
        format = 'xml'
        sample_ratio = 2.0
        filter = 'inventory=loud'
        [lease]
        ttl = '2s'
        renew = '1s'
        [[regions]]
        name = 'seoul'
        [[regions]]
        name = 'busan'
        shards = 'many'
        [[regions]]
        name = 'jeju'
        shards = 0
        [[regions]]
        shards = 4
    ";
    let invalid = Layers::new()
        .text(file)
        .variables([("DOSELINE__PROCESS__ADMIN__LISTEN", "nowhere")])
        .set("lease.ttl.extra=1")
        .set("nonsense")
        .load::<Raw>()
        .expect_err("many problems");
    assert_eq!(
        keys(&invalid),
        [
            "",
            "colour",
            "lease.renew",
            "lease.ttl",
            "lease.ttl.extra",
            "pepper",
            "process.admin.listen",
            "process.drain_deadline",
            "process.telemetry.filter",
            "process.telemetry.format",
            "process.telemetry.sample_ratio",
            "regions[0]",
            "regions[1].shards",
            "regions[2].shards",
            "regions[3]",
            "title",
        ],
        "{invalid}"
    );
    let text = invalid.to_string();
    assert!(text.contains("16 problems"), "{text}");
    assert!(text.contains("DOSELINE__PROCESS__ADMIN__LISTEN"), "{text}");
    assert!(text.contains("such as \"30s\""), "{text}");
}

#[test]
fn unsafe_choices_need_dev() {
    let invalid = Layers::new().load::<Raw>().expect_err("no pepper");
    assert_eq!(keys(&invalid), ["pepper"]);
    assert!(Layers::new().dev(true).load::<Raw>().is_ok());
}

#[test]
fn neither_problems_nor_the_printed_configuration_show_a_secret() {
    let broken = Layers::new()
        .text("title = 'x'\npepper = 'canary-1")
        .load::<Raw>();
    let text = broken.expect_err("an open quote").to_string();
    assert!(
        text.contains("line 2") && !text.contains("canary"),
        "{text}"
    );

    let typed = Layers::new()
        .text("pepper = { key = 'canary-2' }")
        .load::<Raw>();
    let text = typed.expect_err("a table").to_string();
    assert!(!text.contains("canary"), "{text}");

    let printed = Layers::new()
        .text("pepper = 'canary-3'")
        .load::<Raw>()
        .expect("fine")
        .printed;
    assert!(
        printed.contains("pepper = \"[redacted]\"") && !printed.contains("canary"),
        "{printed}"
    );
    assert!(printed.contains("drain_deadline = \"25s\""), "{printed}");
    printed
        .parse::<toml::Table>()
        .expect("what is printed can be read");
}

#[test]
fn a_missing_file_is_one_problem() {
    let invalid = Layers::new()
        .dev(true)
        .file("/nonexistent/doseline.toml")
        .load::<Raw>();
    assert_eq!(invalid.expect_err("no file").problems.len(), 1);
}
