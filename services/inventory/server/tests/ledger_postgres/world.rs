//! A server, a ledger in it, and people who want slots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::campaign::{BookingRules, DoseInterval};
use domain::command::BodyHash;
use domain::{
    Action, BookingId, ClaimVersion, Claimant, Epoch, Op, PersonId, RequestId, Serial, ShardId,
    SlotId, SlotPair, SlotState, Timestamp, Verdict,
};
use inventory::ledger::postgres::{PostgresConfig, PostgresLedger};
use inventory::ledger::{
    Clinic, ClinicSupply, Fault, Ledger, MoveOp, NewSlot, SeizeRequest, Seized,
};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::postgres::{self, Postgres};

pub struct World {
    pub ledger: Arc<PostgresLedger>,
    pub url: String,
    _server: Postgres,
}

/// A session of somebody else.
pub struct Stranger {
    pub client: Client,
    _driver: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl World {
    /// `shards` shards with one clinic and `slots` slots of `capacity` each.
    pub async fn new(shards: u32, slots: u32, capacity: u32) -> Self {
        Self::on(postgres::start(), |_| {}, shards, slots, capacity).await
    }

    pub async fn on(
        server: Postgres,
        set: impl FnOnce(&mut PostgresConfig),
        shards: u32,
        slots: u32,
        capacity: u32,
    ) -> Self {
        let url = server.create_database();
        let mut config = PostgresConfig::new(url.clone());
        set(&mut config);
        let ledger = PostgresLedger::connect(config).await.expect("it connects");
        ledger.migrate().await.expect("it migrates");
        ledger.migrate().await.expect("it migrates again");
        ledger.ensure_shards(shards).await.expect("shards");
        let supply: Vec<ClinicSupply> = (0..shards)
            .map(|shard| clinic(shard, slots, capacity))
            .collect();
        ledger.apply(&supply, false).await.expect("supply");
        Self {
            ledger: Arc::new(ledger),
            url,
            _server: server,
        }
    }

    pub async fn slots(&self, shard: u32) -> Vec<SlotId> {
        let states = self.states(shard).await;
        states.iter().map(|slot| slot.slot).collect()
    }

    pub async fn states(&self, shard: u32) -> Vec<SlotState> {
        let catalogue = self.ledger.catalogue(ShardId(shard)).await;
        catalogue.expect("a catalogue").slots
    }

    pub async fn seize(&self, shard: u32, expect: u64) -> Result<Seized, Fault> {
        self.ledger
            .seize(request(shard, expect, rand::random()))
            .await
    }

    pub async fn stranger(&self) -> Stranger {
        stranger(&self.url).await
    }

    /// Ends the session of a shard's owner, as an administrator might.
    pub async fn end_owner(&self, shard: i32) {
        let sql = "SELECT pg_terminate_backend(backend_pid) FROM shard WHERE shard_id = $1";
        let ended = self.stranger().await.client.query_one(sql, &[&shard]).await;
        assert!(ended.expect("an answer").get::<_, bool>(0));
    }

    /// Ends every session of the ledger.
    pub async fn end_all(&self) {
        let sql = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let ended = self.stranger().await.client.query(sql, &[]).await;
        ended.expect("an answer");
    }

    /// Waits until somebody waits for a lock or for a standby.
    pub async fn await_waiting(&self, event: &str) {
        let stranger = self.stranger().await;
        let sql = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND (wait_event_type = $1 OR wait_event = $1)";
        for _ in 0..500 {
            let row = stranger.client.query_one(sql, &[&event]).await;
            if row.expect("an answer").get::<_, i64>(0) > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody waits for {event}");
    }

    pub async fn number(&self, sql: &str) -> i64 {
        let row = self.stranger().await.client.query_one(sql, &[]).await;
        row.expect("an answer").get(0)
    }
}

pub async fn stranger(url: &str) -> Stranger {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("a session");
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    Stranger {
        client,
        _driver: driver,
    }
}

fn clinic(shard: u32, slots: u32, capacity: u32) -> ClinicSupply {
    let slots = (0..slots).map(|at| NewSlot {
        starts_at: Timestamp::from_secs(1_700_000_000 + i64::from(at) * 600),
        day: 19_675 + i32::try_from(at % 7).expect("small"),
        vaccine: "mrna-1".parse().expect("a slug"),
        dose: 1,
        capacity,
        open: true,
    });
    ClinicSupply {
        clinic: Clinic {
            clinic: format!("c-{shard}").parse().expect("a slug"),
            shard: ShardId(shard),
            display_name: format!("Clinic {shard}"),
            district: "Jung".to_owned(),
            latitude: 37.5,
            longitude: 127.0,
        },
        received: BTreeMap::from([("mrna-1".parse().expect("a slug"), 10_000_000)]),
        slots: slots.collect(),
    }
}

pub fn request(shard: u32, expect: u64, nonce: [u8; 16]) -> SeizeRequest {
    SeizeRequest {
        shard: ShardId(shard),
        expect: Epoch(expect),
        floor: Epoch(0),
        nonce,
        owner: "somebody".parse().expect("a slug"),
        addr: "127.0.0.1:1".to_owned(),
    }
}

pub fn person(number: u32) -> Claimant {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    Claimant {
        campaign: "kr-2021".parse().expect("a slug"),
        person: PersonId::from_bytes(bytes),
        serial: Serial(1),
    }
}

pub fn book(number: u32, slot: SlotId) -> Op {
    op(
        number,
        0,
        Action::Book {
            slots: SlotPair::one(slot),
            booking: booking(number),
        },
    )
}

pub fn op(number: u32, version: u64, action: Action) -> Op {
    Op {
        claimant: person(number),
        request: RequestId::from_bytes(rand::random()),
        body_hash: BodyHash([1; 16]),
        claim_version: ClaimVersion(version),
        action,
        rules: Arc::new(BookingRules {
            vaccines: ["mrna-1".parse().expect("a slug")].into(),
            dose_interval: DoseInterval {
                min_days: 21,
                max_days: 42,
            },
            hold_ttl_secs: 600,
        }),
    }
}

pub fn booking(number: u32) -> BookingId {
    BookingId::from_bytes(*person(number).person.as_bytes())
}

pub fn moving(number: u32, to: SlotId) -> MoveOp {
    MoveOp {
        claimant: person(number),
        request: RequestId::from_bytes(rand::random()),
        body_hash: BodyHash([1; 16]),
        claim_version: ClaimVersion(1),
        booking: booking(number),
        dose: 1,
        to,
    }
}

pub fn done(verdicts: &[Verdict]) -> usize {
    let done = |verdict: &&Verdict| matches!(verdict, Verdict::Done(_));
    verdicts.iter().filter(done).count()
}

/// Lets time pass that is part of the case itself: a deadline of a hold, a pause in which nothing may happen, figures
/// that the server only tells now and then.
pub async fn await_passing(of: std::time::Duration) {
    tokio::time::sleep(of).await;
}
