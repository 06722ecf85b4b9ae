//! How many ops a second the PostgreSQL ledger decides, by batch size, spread over many slots and on one.
//!
//! Starts a PostgreSQL of its own with fsync on; with `--no-fsync` without it, with a URL uses that empty database.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints for people and reads the real clock"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::campaign::{BookingRules, DoseInterval};
use domain::command::BodyHash;
use domain::{
    Action, BookingId, CampaignId, ClaimVersion, Claimant, Epoch, Op, PersonId, RequestId, Serial,
    ShardId, SlotId, SlotPair, Timestamp, Verdict,
};
use inventory::ledger::postgres::{PostgresConfig, PostgresLedger};
use inventory::ledger::{Clinic, ClinicSupply, Ledger, NewSlot, SeizeRequest, Writer};

#[path = "../tests/support/postgres.rs"]
pub mod postgres;

const SPREAD_CLINICS: u32 = 1_000;
const DAYS: i32 = 14;
const RUN: Duration = Duration::from_secs(4);
const BATCHES: [usize; 4] = [16, 64, 256, 512];

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let own = match std::env::args().nth(1) {
        None => Ok(postgres::start_with(true, &["max_wal_size=4GB"])),
        Some(flag) if flag == "--no-fsync" => Ok(postgres::start()),
        Some(url) => Err(url),
    };
    let url = match &own {
        Ok(server) => server.create_database(),
        Err(url) => url.clone(),
    };
    let ledger = Arc::new(PostgresLedger::connect(PostgresConfig::new(url)).await?);
    ledger.migrate().await?;
    ledger.ensure_shards(3).await?;
    supply(&ledger).await?;
    println!(
        "{:<22}{:>8}{:>12}{:>12}{:>14}",
        "what", "batch", "ops/s", "us/op", "ms/batch"
    );
    for batch in BATCHES {
        measure(&ledger, "book, spread", &[0], batch, Kind::Book).await?;
    }
    for batch in [256, 512] {
        measure(&ledger, "book, one hot slot", &[1], batch, Kind::Book).await?;
        measure(&ledger, "book, two shards", &[0, 2], batch, Kind::Book).await?;
        measure(
            &ledger,
            "hold, then confirm",
            &[0],
            batch,
            Kind::HoldConfirm,
        )
        .await?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Book,
    HoldConfirm,
}

/// Shards 0 and 2 have a thousand clinics together, shard 1 has one with one slot for everybody.
async fn supply(ledger: &PostgresLedger) -> Result<(), Error> {
    let vaccine: domain::VaccineId = "mrna-1".parse()?;
    let mut all = Vec::new();
    for number in 0..=SPREAD_CLINICS {
        let hot = number == SPREAD_CLINICS;
        let shard = if hot { 1 } else { (number % 2) * 2 };
        let days = if hot { 1 } else { DAYS };
        let slots = (0..days).map(|day| NewSlot {
            starts_at: Timestamp::from_secs((18_850 + i64::from(day)) * 86_400),
            day: 18_850 + day,
            vaccine: vaccine.clone(),
            dose: 1,
            capacity: if hot { 2_000_000_000 } else { 100_000 },
            open: true,
        });
        all.push(ClinicSupply {
            clinic: Clinic {
                clinic: format!("c-{number:04}").parse()?,
                shard: ShardId(shard),
                display_name: format!("Clinic {number}"),
                district: String::new(),
                latitude: 37.5,
                longitude: 127.0,
            },
            received: BTreeMap::from([(vaccine.clone(), u32::MAX)]),
            slots: slots.collect(),
        });
    }
    ledger.apply(&all, false).await?;
    Ok(())
}

async fn measure(
    ledger: &Arc<PostgresLedger>,
    what: &str,
    shards: &[u32],
    batch: usize,
    kind: Kind,
) -> Result<(), Error> {
    let mut runs = Vec::new();
    for shard in shards {
        let (ledger, shard) = (Arc::clone(ledger), ShardId(*shard));
        runs.push(async move { run(&ledger, shard, batch, kind).await });
    }
    let began = Instant::now();
    let counts = futures::future::try_join_all(runs).await?;
    let (ops, batches) = counts
        .iter()
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let seconds = began.elapsed().as_secs_f64();
    let (ops, batches) = (f64::from(ops), f64::from(batches));
    println!(
        "{what:<22}{batch:>8}{:>12.0}{:>12.1}{:>14.2}",
        ops / seconds,
        seconds * 1e6 / ops,
        seconds * 1e3 * f64::from(u32::try_from(shards.len())?) / batches,
    );
    Ok(())
}

async fn run(
    ledger: &PostgresLedger,
    shard: ShardId,
    batch: usize,
    kind: Kind,
) -> Result<(u32, u32), Error> {
    let slots: Vec<SlotId> = ledger
        .catalogue(shard)
        .await?
        .slots
        .iter()
        .map(|slot| slot.slot)
        .collect();
    let rows = ledger.shards().await?;
    let expect = rows
        .iter()
        .find(|row| row.shard == shard)
        .map_or(Epoch(0), |row| row.epoch);
    let seized = ledger
        .seize(SeizeRequest {
            shard,
            expect,
            floor: Epoch(0),
            nonce: rand::random(),
            owner: "ledger-rate".parse()?,
            addr: "127.0.0.1:0".to_owned(),
        })
        .await?;
    let mut writer = seized.writer;
    let mut maker = Maker::new(slots)?;
    let (mut seq, mut done, mut batches) = (0, 0, 0);
    let began = Instant::now();
    while began.elapsed() < RUN {
        let ops = maker.batch(batch, kind);
        done += write(writer.as_mut(), &mut seq, &ops).await?;
        batches += 1;
        if kind == Kind::HoldConfirm {
            done += write(writer.as_mut(), &mut seq, &confirm(&ops)).await?;
            batches += 1;
        }
    }
    Ok((done, batches))
}

async fn write(writer: &mut dyn Writer, seq: &mut u64, ops: &[Op]) -> Result<u32, Error> {
    *seq += 1;
    let answer = writer.batch(*seq, ops).await?;
    let done = answer
        .verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Verdict::Done(_)))
        .count();
    if done != ops.len() {
        return Err(format!("only {done} of {} were done", ops.len()).into());
    }
    Ok(u32::try_from(done)?)
}

struct Maker {
    slots: Vec<SlotId>,
    campaign: CampaignId,
    rules: Arc<BookingRules>,
}

impl Maker {
    fn new(slots: Vec<SlotId>) -> Result<Self, Error> {
        Ok(Self {
            slots,
            campaign: "kr-2021-fifties".parse()?,
            rules: Arc::new(BookingRules {
                vaccines: ["mrna-1".parse()?].into(),
                dose_interval: DoseInterval {
                    min_days: 21,
                    max_days: 42,
                },
                hold_ttl_secs: 600,
            }),
        })
    }

    fn batch(&mut self, number: usize, kind: Kind) -> Vec<Op> {
        (0..number)
            .map(|_| {
                let at = rand::random_range(0..self.slots.len());
                let slots = SlotPair::one(self.slots[at]);
                let booking = BookingId::from_bytes(rand::random());
                self.op(match kind {
                    Kind::Book => Action::Book { slots, booking },
                    Kind::HoldConfirm => Action::Hold {
                        slots,
                        booking,
                        ttl: Duration::from_secs(600),
                    },
                })
            })
            .collect()
    }

    fn op(&self, action: Action) -> Op {
        Op {
            claimant: Claimant {
                campaign: self.campaign.clone(),
                person: PersonId::from_bytes(rand::random()),
                serial: Serial(1),
            },
            request: RequestId::from_bytes(rand::random()),
            body_hash: BodyHash(rand::random()),
            claim_version: ClaimVersion(0),
            action,
            rules: Arc::clone(&self.rules),
        }
    }
}

fn confirm(held: &[Op]) -> Vec<Op> {
    held.iter()
        .filter_map(|op| {
            let Action::Hold { booking, .. } = op.action else {
                return None;
            };
            Some(Op {
                request: RequestId::from_bytes(rand::random()),
                claim_version: ClaimVersion(1),
                action: Action::Confirm { hold: booking },
                ..op.clone()
            })
        })
        .collect()
}
