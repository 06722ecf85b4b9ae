//! The ledger in SQLite: one file for a region, one thread that writes it.
//!
//! Invariant: what several callers ask for at the same time is one commit; none of them is answered before it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use domain::command::BodyHash;
use domain::leftover::Place;
use domain::{
    CampaignId, Claimant, ClinicId, Epoch, IncidentId, Op, PersonId, Recorded, RequestId, RoundId,
    Serial, ShardId, SlotId, SlotState, Timestamp,
};
use runtime::Clock;
use rusqlite::{Connection, params};

use self::clock::LedgerClock;
use self::reads::Readers;
use self::writing::{Outcome, Queue};
use super::{
    Applied, ApplyFault, BatchAnswer, BoxError, BucketSeen, Called, CancelOp, ClaimView,
    ClinicChange, ClinicOp, ClinicSupply, ClinicVerdict, DepartureAnswer, DueMove, Fault,
    IncidentChange, IncidentOp, IncidentVerdict, IncidentView, Ledger, LeftoverOp, LeftoverVerdict,
    LineRow, MoveOp, OutboxCursor, OutsideChanges, PassedOn, RoomSeen, Round, Scene, SeizeRequest,
    Seized, Settled, ShardCatalogue, ShardRow, SheetRow, SideAnswer, SlotCount, SupplyRow,
    SurrenderOp, Writer,
};

mod batch;
mod clock;
mod departure;
mod files;
mod incident;
mod leftovers;
mod reads;
mod rows;
mod shards;
mod side;
mod supply;
mod terminal;
mod work;
mod writing;

/// The ops that one batch may have, as in every backend.
const BATCH_OPS_MAX: usize = 512;

/// A region's ledger in one file. Cheap to clone; the file closes when the last clone and writer are gone.
#[derive(Clone)]
pub struct SqliteLedger {
    queue: Queue,
    readers: Readers,
    clock: Arc<LedgerClock>,
}

struct SqliteWriter {
    queue: Queue,
    shard: ShardId,
    epoch: Epoch,
    /// An outcome is not known: only a new seizure finds out.
    lost: bool,
}

// === impl SqliteLedger ===

impl SqliteLedger {
    /// Opens the file, creates it or brings its tables up to date, and starts its writer thread.
    ///
    /// The caller sees to it that one process at a time does so.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Fault> {
        let path = path.into();
        let mut db = files::open_writer(&path).map_err(unavailable)?;
        files::migrate(&mut db)?;
        let clock = Arc::new(LedgerClock::new(Clock::system()));
        let queue = Queue::start(path.clone(), db, Arc::clone(&clock))?;
        Ok(Self {
            queue,
            readers: Readers::new(path),
            clock,
        })
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn ensure_shards(&self, count: u32) -> Result<(), Fault> {
        let work = move |db: &Connection, _| shards::ensure(db, count);
        self.queue.run(1, None, work).await
    }

    async fn shards(&self) -> Result<Vec<ShardRow>, Fault> {
        self.readers.read(shards::list).await
    }

    async fn seize(&self, request: SeizeRequest) -> Result<Seized, Fault> {
        let shard = request.shard;
        let work = move |db: &Connection, _| shards::seize(db, &request);
        let seizure = self.queue.run(1, Some(shard), work).await?;
        Ok(Seized {
            epoch: seizure.epoch,
            prev_epoch: seizure.prev_epoch,
            prev_seq: seizure.prev_seq,
            writer: Box::new(SqliteWriter {
                queue: self.queue.clone(),
                shard,
                epoch: seizure.epoch,
                lost: false,
            }),
        })
    }

    async fn slots(&self, slots: &[SlotId]) -> Result<Vec<SlotState>, Fault> {
        let slots = slots.to_vec();
        self.readers.read(move |db| reads::slots(db, &slots)).await
    }

    async fn catalogue(&self, shard: ShardId) -> Result<ShardCatalogue, Fault> {
        self.readers
            .read(move |db| reads::catalogue(db, shard))
            .await
    }

    async fn outside_changes(
        &self,
        cursor: OutboxCursor,
        limit: u32,
    ) -> Result<OutsideChanges, Fault> {
        self.readers
            .read(move |db| reads::outside_changes(db, cursor, limit))
            .await
    }

    async fn outbox_cursor(&self) -> Result<OutboxCursor, Fault> {
        self.readers.read(reads::outbox_cursor).await
    }

    async fn has_expired_holds(&self, shard: ShardId) -> Result<bool, Fault> {
        let now = self.clock.now();
        self.readers
            .read(move |db| reads::has_expired_holds(db, shard, now))
            .await
    }

    async fn recorded(
        &self,
        requests: &[(CampaignId, PersonId, RequestId)],
    ) -> Result<Vec<Option<(BodyHash, Recorded)>>, Fault> {
        let requests = requests.to_vec();
        self.readers
            .read(move |db| {
                let find = |(campaign, person, request)| {
                    let serial = Serial(0);
                    let who = Claimant {
                        campaign,
                        person,
                        serial,
                    };
                    rows::recorded(db, &who, request)
                };
                requests.into_iter().map(find).collect()
            })
            .await
    }

    async fn claim(
        &self,
        campaign: &CampaignId,
        person: PersonId,
    ) -> Result<Option<ClaimView>, Fault> {
        let (campaign, now) = (campaign.clone(), self.clock.now());
        self.readers
            .read(move |db| reads::claim(db, campaign, person, now))
            .await
    }

    async fn move_booking(
        &self,
        shard: ShardId,
        epoch: Epoch,
        op: &MoveOp,
    ) -> Result<SideAnswer, Fault> {
        let op = op.clone();
        let work = move |db: &Connection, now| side::move_booking(db, now, shard, epoch, &op);
        self.queue.run(1, Some(shard), work).await
    }

    async fn cancel(&self, op: &CancelOp) -> Result<SideAnswer, Fault> {
        let op = op.clone();
        let work = move |db: &Connection, now| side::cancel(db, now, &op);
        self.queue.run(1, None, work).await
    }

    async fn surrender(&self, op: &SurrenderOp) -> Result<DepartureAnswer, Fault> {
        let op = op.clone();
        let work = move |db: &Connection, now| departure::surrender(db, now, &op);
        self.queue.run(1, None, work).await
    }

    async fn restamp(&self, who: &Claimant) -> Result<DepartureAnswer, Fault> {
        let who = who.clone();
        let work = move |db: &Connection, now| departure::restamp(db, now, &who);
        self.queue.run(1, None, work).await
    }

    async fn apply(&self, supply: &[ClinicSupply], dry_run: bool) -> Result<Applied, ApplyFault> {
        let ops = supply.iter().map(|one| one.slots.len()).sum();
        let supply = supply.to_vec();
        let work = move |db: &Connection, now| supply::apply(db, now, &supply, dry_run);
        self.queue
            .run(ops, None, work)
            .await?
            .map_err(|(clinic, refusal)| ApplyFault::Refused { clinic, refusal })
    }

    async fn clinic(&self, op: &ClinicOp) -> Result<ClinicVerdict, Fault> {
        let op = op.clone();
        let ops = match &op.change {
            ClinicChange::Open { slots } => slots.len().max(1),
            ClinicChange::Close { slots } => slots.len().max(1),
            ClinicChange::Stock { .. }
            | ClinicChange::Resize { .. }
            | ClinicChange::Visit { .. }
            | ClinicChange::OfferLeftovers(_)
            | ClinicChange::CloseLeftovers { .. } => 1,
        };
        let work = move |db: &Connection, now| terminal::change(db, now, &op);
        self.queue.run(ops, Some(terminal::NO_SHARD), work).await
    }

    async fn day_sheet(
        &self,
        clinic: &ClinicId,
        day: i32,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> Result<Vec<SheetRow>, Fault> {
        let clinic = clinic.clone();
        self.readers
            .read(move |db| terminal::day_sheet(db, &clinic, day, after.as_ref(), limit))
            .await
    }

    async fn supply(&self) -> Result<Vec<SupplyRow>, Fault> {
        let now = self.clock.now();
        self.readers.read(move |db| terminal::supply(db, now)).await
    }

    async fn incident(&self, op: &IncidentOp) -> Result<IncidentVerdict, Fault> {
        let op = op.clone();
        let ops = match &op.change {
            IncidentChange::Plan(lines) => lines.len().max(1),
            IncidentChange::Open(_) | IncidentChange::Apply { .. } => 1,
        };
        let work = move |db: &Connection, now| incident::change(db, now, &op);
        self.queue.run(ops, Some(terminal::NO_SHARD), work).await
    }

    async fn incident_view(
        &self,
        clinic: &ClinicId,
        incident: IncidentId,
    ) -> Result<Option<IncidentView>, Fault> {
        let clinic = clinic.clone();
        self.readers
            .read(move |db| incident::view(db, &clinic, incident))
            .await
    }

    async fn incident_lines(
        &self,
        incident: IncidentId,
        plan: u32,
        after: u32,
        limit: u32,
    ) -> Result<Vec<LineRow>, Fault> {
        self.readers
            .read(move |db| incident::lines(db, incident, plan, after, limit))
            .await
    }

    async fn incident_scene(
        &self,
        clinic: &ClinicId,
        incident: IncidentId,
        now: Timestamp,
    ) -> Result<Option<Scene>, Fault> {
        let clinic = clinic.clone();
        self.readers
            .read(move |db| incident::scene(db, &clinic, incident, now))
            .await
    }

    async fn due_moves(&self, shards: &[ShardId], limit: u32) -> Result<Vec<DueMove>, Fault> {
        let shards = shards.to_vec();
        self.readers
            .read(move |db| incident::due_moves(db, &shards, limit))
            .await
    }

    async fn settle_moves(&self, settled: &[Settled]) -> Result<(), Fault> {
        let settled = settled.to_vec();
        let ops = settled.len().max(1);
        let work = move |db: &Connection, _| {
            incident::settle(db, &settled).map_err(unavailable)?;
            Ok(Outcome::keep(()))
        };
        self.queue.run(ops, Some(terminal::NO_SHARD), work).await
    }

    async fn leftover(&self, op: &LeftoverOp) -> Result<LeftoverVerdict, Fault> {
        let op = op.clone();
        let work = move |db: &Connection, now| leftovers::change(db, now, &op);
        self.queue.run(1, Some(terminal::NO_SHARD), work).await
    }

    async fn called(&self, campaign: &CampaignId, person: PersonId) -> Result<Called, Fault> {
        let campaign = campaign.clone();
        self.readers
            .read(move |db| leftovers::called(db, &campaign, person))
            .await
    }

    async fn rounds(&self, clinic: &ClinicId, round: Option<RoundId>) -> Result<Vec<Round>, Fault> {
        let clinic = clinic.clone();
        self.readers
            .read(move |db| leftovers::rounds(db, &clinic, round))
            .await
    }

    async fn places(&self, round: RoundId) -> Result<Vec<Place>, Fault> {
        self.readers
            .read(move |db| leftovers::places(db, round))
            .await
    }

    async fn pass_on_leftovers(&self) -> Result<PassedOn, Fault> {
        // Nearly always there is nothing to do, and then the file is not written.
        let now = self.clock.now();
        let due = move |db: &Connection| leftovers::due(db, now);
        let mut all = PassedOn::default();
        for round in self.readers.read(due).await? {
            let work = move |db: &Connection, now| leftovers::pass_on(db, now, round);
            all += self.queue.run(1, Some(terminal::NO_SHARD), work).await?;
        }
        Ok(all)
    }

    async fn save_rooms(&self, rooms: &[RoomSeen]) -> Result<(), Fault> {
        let rooms = rooms.to_vec();
        let work = move |db: &Connection, _| {
            save_rooms(db, &rooms).map_err(unavailable)?;
            Ok(Outcome::keep(()))
        };
        self.queue.run(1, None, work).await
    }

    async fn rooms(&self) -> Result<Vec<RoomSeen>, Fault> {
        self.readers.read(reads::rooms).await
    }

    async fn save_buckets(&self, buckets: &[BucketSeen]) -> Result<(), Fault> {
        let buckets = buckets.to_vec();
        let work = move |db: &Connection, _| {
            save_buckets(db, &buckets).map_err(unavailable)?;
            Ok(Outcome::keep(()))
        };
        self.queue.run(1, None, work).await
    }

    async fn buckets(&self) -> Result<Vec<BucketSeen>, Fault> {
        self.readers.read(reads::buckets).await
    }
}

// === impl SqliteWriter ===

impl SqliteWriter {
    fn usable(&self) -> Result<(), Fault> {
        if self.lost {
            return Err(unavailable("the writer has an unknown outcome behind it"));
        }
        Ok(())
    }

    fn note<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        self.lost |= matches!(result, Err(Fault::Unknown { .. }));
        result
    }
}

#[async_trait]
impl Writer for SqliteWriter {
    async fn batch(&mut self, seq: u64, ops: &[Op]) -> Result<BatchAnswer, Fault> {
        self.usable()?;
        if ops.len() > BATCH_OPS_MAX {
            return Err(unavailable(format!(
                "a batch has at most {BATCH_OPS_MAX} ops"
            )));
        }
        let (shard, epoch, ops) = (self.shard, self.epoch, ops.to_vec());
        let weight = ops.len().max(1);
        let work = move |db: &Connection, now| batch::run(db, now, shard, epoch, seq, &ops);
        let result = self.queue.run(weight, Some(shard), work).await;
        self.note(result)
    }

    async fn sweep(&mut self, seq: u64, limit: u32) -> Result<Vec<SlotCount>, Fault> {
        self.usable()?;
        let (shard, epoch) = (self.shard, self.epoch);
        let weight = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .clamp(1, BATCH_OPS_MAX);
        let work = move |db: &Connection, now| batch::sweep(db, now, shard, epoch, seq, limit);
        let result = self.queue.run(weight, Some(shard), work).await;
        self.note(result)
    }
}

fn save_rooms(db: &Connection, rooms: &[RoomSeen]) -> rusqlite::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO room_seen AS seen (campaign, cohort, version, document, frontier) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (campaign, cohort) DO UPDATE SET
            document = CASE WHEN excluded.version > seen.version THEN excluded.document ELSE seen.document END,
            version = max(seen.version, excluded.version),
            frontier = max(seen.frontier, excluded.frontier)",
    )?;
    for room in rooms {
        upsert.execute(params![
            room.campaign.as_str(),
            room.cohort.as_str(),
            room.version,
            room.document,
            // Text: an endless frontier has 64 bits, one more than SQLite's integers.
            format!("{:020}", room.frontier),
        ])?;
    }
    Ok(())
}

fn save_buckets(db: &Connection, buckets: &[BucketSeen]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO bucket_seen (campaign, cohort, id, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    for bucket in buckets {
        let (campaign, cohort) = (bucket.campaign.as_str(), bucket.cohort.as_str());
        insert.execute(params![campaign, cohort, bucket.id, bucket.document])?;
    }
    Ok(())
}

fn unavailable(source: impl Into<BoxError>) -> Fault {
    Fault::Unavailable {
        source: source.into(),
    }
}
