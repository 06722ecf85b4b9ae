//! How many ops a second the SQLite ledger commits, by batch size and by the number of shards that write at once.
//!
//! Writes to a new file in the folder given, or in a temporary one; every commit is on disk before it is counted.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints for people and reads the real clock"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use domain::campaign::{BookingRules, DoseInterval};
use domain::command::BodyHash;
use domain::{
    Action, BookingId, CampaignId, ClaimVersion, Claimant, Epoch, Op, PersonId, RequestId, Serial,
    ShardId, SlotId, SlotPair, Timestamp, Verdict,
};
use inventory::ledger::sqlite::SqliteLedger;
use inventory::ledger::{Clinic, ClinicSupply, Ledger, NewSlot, SeizeRequest};

const SHARDS: u32 = 16;
const CLINICS_OF_SHARD: u32 = 60;
const SLOTS_OF_CLINIC: i64 = 16;
const RUN: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = std::env::args()
        .nth(1)
        .map_or(temporary.path().to_owned(), PathBuf::from);
    let path = folder.join("ledger-rate.db");
    ensure!(!path.exists(), "{} exists", path.display());
    let ledger = Arc::new(SqliteLedger::open(&path)?);
    ledger.ensure_shards(SHARDS).await?;
    ledger.apply(&supply()?, false).await?;
    println!(
        "{:<10}{:>8}{:>12}{:>12}{:>14}",
        "shards", "batch", "ops/s", "us/op", "ms/batch"
    );
    for (shards, batch) in [
        (1, 1),
        (1, 16),
        (1, 64),
        (1, 256),
        (1, 512),
        (16, 1),
        (16, 16),
        (16, 64),
        (16, 512),
    ] {
        measure(&ledger, shards, batch).await?;
    }
    let bytes = std::fs::metadata(&path)?.len();
    println!("{} MiB in the file", bytes >> 20);
    Ok(())
}

fn supply() -> anyhow::Result<Vec<ClinicSupply>> {
    (0..SHARDS * CLINICS_OF_SHARD)
        .map(|number| {
            let slots = (0..SLOTS_OF_CLINIC)
                .map(|hour| {
                    Ok(NewSlot {
                        starts_at: Timestamp::from_secs(1_628_000_000 + hour * 3_600),
                        day: 18_842,
                        vaccine: "mrna".parse()?,
                        dose: 1,
                        capacity: 100_000,
                        open: true,
                    })
                })
                .collect::<anyhow::Result<_>>()?;
            Ok(ClinicSupply {
                clinic: Clinic {
                    clinic: format!("c-{number}").parse()?,
                    shard: ShardId(number % SHARDS),
                    display_name: format!("Clinic {number}"),
                    district: String::new(),
                    latitude: 37.5,
                    longitude: 127.0,
                },
                received: [("mrna".parse()?, u32::MAX)].into(),
                slots,
            })
        })
        .collect()
}

async fn measure(ledger: &Arc<SqliteLedger>, shards: u32, batch: usize) -> anyhow::Result<()> {
    let mut owners = tokio::task::JoinSet::new();
    let began = Instant::now();
    for shard in 0..shards {
        let ledger = Arc::clone(ledger);
        owners.spawn(async move { own(&ledger, ShardId(shard), batch).await });
    }
    let mut batches = 0;
    while let Some(of_owner) = owners.join_next().await {
        batches += of_owner??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let ops = f64::from(batches) * f64::from(u32::try_from(batch)?);
    println!(
        "{shards:<10}{batch:>8}{:>12.0}{:>12.1}{:>14.2}",
        ops / seconds,
        seconds * 1e6 / ops,
        seconds * 1e3 * f64::from(shards) / f64::from(batches),
    );
    Ok(())
}

/// Books new people at the shard's slots, batch after batch.
async fn own(ledger: &SqliteLedger, shard: ShardId, batch: usize) -> anyhow::Result<u32> {
    let slots: Vec<SlotId> = ledger
        .catalogue(shard)
        .await?
        .slots
        .iter()
        .map(|s| s.slot)
        .collect();
    let rows = ledger.shards().await?;
    let expect = rows
        .iter()
        .find(|row| row.shard == shard)
        .context("the shard")?
        .epoch;
    let request = SeizeRequest {
        shard,
        expect,
        floor: Epoch(0),
        nonce: rand::random(),
        owner: "rate".parse()?,
        addr: String::new(),
    };
    let mut writer = ledger.seize(request).await?.writer;
    let rules = Arc::new(BookingRules {
        vaccines: ["mrna".parse()?].into(),
        dose_interval: DoseInterval {
            min_days: 1,
            max_days: 1,
        },
        hold_ttl_secs: 600,
    });
    let campaign: CampaignId = "rate".parse()?;
    let began = Instant::now();
    let mut seq: u32 = 0;
    while began.elapsed() < RUN {
        let ops: Vec<Op> = (0..batch)
            .map(|_| Op {
                claimant: Claimant {
                    campaign: campaign.clone(),
                    person: PersonId::from_bytes(rand::random()),
                    serial: Serial(1),
                },
                request: RequestId::from_bytes(rand::random()),
                body_hash: BodyHash([7; 16]),
                claim_version: ClaimVersion(0),
                action: Action::Book {
                    slots: SlotPair::one(slots[usize::from(rand::random::<u16>()) % slots.len()]),
                    booking: BookingId::from_bytes(rand::random()),
                },
                rules: Arc::clone(&rules),
            })
            .collect();
        seq += 1;
        let answer = writer.batch(u64::from(seq), &ops).await?;
        let all_done = answer
            .verdicts
            .iter()
            .all(|v| matches!(v, Verdict::Done(_)));
        ensure!(all_done, "everybody finds a place");
    }
    Ok(seq)
}
