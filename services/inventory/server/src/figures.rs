//! What the doorkeeper steers by: load of the owners, what is left, and how many of the admitted came.
//!
//! Invariant: reading never waits for an owner, and noting never makes one wait. People are counted, not remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::headcount::{self, REGISTERS};
use domain::permit::Permit;
use domain::spread;
use domain::{CampaignId, CohortId, Epoch, RegionId, ShardId, SlotId, Timestamp, VaccineId};
use proto::inventory as pb;
use runtime::{Clock, OnExit, Tasks};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::owner::{OwnerHandle, Owners, SlotLine, Update};

/// How often sums are made anew: slots that have begun drop out this much later at most.
const SUM_EVERY: Duration = Duration::from_secs(5);
/// How often owners are looked for when nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type CrowdKey = (RegionId, CampaignId, CohortId);
type Registers = Arc<[AtomicU8]>;

/// The figures of a process. Cheap to clone.
#[derive(Clone)]
pub struct Figures(Arc<Inner>);

struct Inner {
    regions: BTreeMap<RegionId, Region>,
    crowds: ArcSwap<BTreeMap<CrowdKey, Registers>>,
}

#[derive(Default)]
struct Region {
    load: Arc<Load>,
    shards: Mutex<BTreeMap<ShardId, ShardSums>>,
}

/// Counters of a region's owners in this process.
#[derive(Debug, Default)]
pub(crate) struct Load {
    commits: AtomicU64,
    commit_times: [AtomicU64; spread::CLASSES],
    ops: AtomicU64,
    failures: AtomicU64,
    queued: AtomicI64,
}

/// One owner's part in its region's load.
#[derive(Debug)]
pub(crate) struct OwnerLoad {
    pub(crate) region: Arc<Load>,
    queued: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ShardSums {
    epoch: Epoch,
    vaccines: BTreeMap<VaccineId, Sums>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    left: u64,
    taken: u64,
}

/// First-dose slots of a shard, with their sums.
#[derive(Default)]
struct Slots {
    lines: HashMap<SlotId, Line>,
    sums: BTreeMap<VaccineId, Sums>,
}

struct Line {
    vaccine: VaccineId,
    starts_at: Timestamp,
    sums: Sums,
}

// === impl Load ===

impl Load {
    pub(crate) fn committed(&self, ops: usize, took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_times[spread::class(took)].fetch_add(1, Ordering::Relaxed);
        self.ops.fetch_add(ops as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl OwnerLoad ===

impl OwnerLoad {
    pub(crate) fn queue(&mut self, depth: usize) {
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.region
            .queued
            .fetch_add(depth - self.queued, Ordering::Relaxed);
        self.queued = depth;
    }
}

impl Drop for OwnerLoad {
    fn drop(&mut self) {
        self.queue(0);
    }
}

// === impl Figures ===

impl Figures {
    /// None yet.
    #[must_use]
    pub fn new(regions: impl IntoIterator<Item = RegionId>) -> Self {
        let regions = regions
            .into_iter()
            .map(|region| (region, Region::default()));
        Self(Arc::new(Inner {
            regions: regions.collect(),
            crowds: ArcSwap::default(),
        }))
    }

    /// The part of a new owner.
    pub(crate) fn owner(&self, region: &RegionId) -> OwnerLoad {
        let known = self.0.regions.get(region);
        OwnerLoad {
            region: known
                .map(|known| Arc::clone(&known.load))
                .unwrap_or_default(),
            queued: 0,
        }
    }

    /// A permit's holder came in their turn.
    pub fn came(&self, permit: &Permit) {
        let key = (
            permit.region.clone(),
            permit.campaign.clone(),
            permit.cohort.clone(),
        );
        let (index, rank) = headcount::mark(&permit.place.ticket);
        let registers = self.crowd(key);
        // Most people only meet a register that is high enough already.
        if registers[index].load(Ordering::Relaxed) < rank {
            registers[index].fetch_max(rank, Ordering::Relaxed);
        }
    }

    fn crowd(&self, key: CrowdKey) -> Registers {
        if let Some(known) = self.0.crowds.load().get(&key) {
            return Arc::clone(known);
        }
        self.0.crowds.rcu(|crowds| {
            let mut crowds = BTreeMap::clone(crowds);
            crowds
                .entry(key.clone())
                .or_insert_with(|| (0..REGISTERS).map(|_| AtomicU8::new(0)).collect());
            crowds
        });
        // It was put there just now, and none is ever removed.
        Arc::clone(&self.0.crowds.load()[&key])
    }

    /// Everything, as it is told.
    #[must_use]
    pub fn now(&self) -> pb::GetFiguresResponse {
        let crowds = self.0.crowds.load();
        let regions = self.0.regions.iter().map(|(id, region)| {
            let rooms = crowds.iter().filter(|((of, _, _), _)| of == id);
            let rooms = rooms.map(|((_, campaign, cohort), registers)| pb::RoomFigures {
                campaign: campaign.to_string(),
                cohort: cohort.to_string(),
                arrived: registers
                    .iter()
                    .map(|rank| rank.load(Ordering::Relaxed))
                    .collect::<Vec<u8>>()
                    .into(),
            });
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let load = &region.load;
            pb::RegionFigures {
                region: id.to_string(),
                commits: count(&load.commits),
                commit_times: load.commit_times.iter().map(count).collect(),
                ops: count(&load.ops),
                failures: count(&load.failures),
                queue_depth: u64::try_from(load.queued.load(Ordering::Relaxed)).unwrap_or(0),
                shards: region
                    .shards()
                    .iter()
                    .map(|(id, sums)| sums.told(*id))
                    .collect(),
                rooms: rooms.collect(),
            }
        });
        pb::GetFiguresResponse {
            regions: regions.collect(),
        }
    }

    /// Follows what the owners of a region have left, until the process is over.
    pub(crate) async fn follow(
        self,
        region: RegionId,
        owners: Owners,
        (clock, tasks): (Clock, Tasks),
        over: CancellationToken,
    ) {
        let mut changed = owners.watch();
        let mut watched: BTreeMap<ShardId, runtime::tasks::TaskHandle> = BTreeMap::new();
        loop {
            watched.retain(|_, task| !task.is_finished());
            for (shard, owner) in owners.of_region(&region) {
                watched.entry(shard).or_insert_with(|| {
                    let work =
                        self.clone()
                            .follow_shard(region.clone(), shard, owner, clock.clone());
                    tasks.spawn("sum_shard", OnExit::Ignore, work)
                });
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = over.cancelled() => return,
            }
        }
    }

    async fn follow_shard(
        self,
        region: RegionId,
        shard: ShardId,
        owner: OwnerHandle,
        clock: Clock,
    ) {
        let Some(of_region) = self.0.regions.get(&region) else {
            return;
        };
        while let Some((snapshot, mut updates)) = owner.subscribe().await {
            let epoch = snapshot.epoch;
            let mut slots = Slots::default();
            slots.take(&snapshot.slots);
            of_region.tell(shard, epoch, slots.sum(clock.wall()));
            let mut summed = clock.monotonic();
            loop {
                match updates.recv().await {
                    Ok(Update::Changes { slots: changes, .. }) => slots.take(&changes),
                    Ok(Update::Alive { .. }) => {}
                    Ok(Update::Restart) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => break,
                }
                let now = clock.monotonic();
                if now.saturating_duration_since(summed) >= SUM_EVERY {
                    slots.sum(clock.wall());
                    summed = now;
                }
                of_region.tell(shard, epoch, &slots.sums);
            }
        }
        of_region.shards().remove(&shard);
    }
}

// === impl Region ===

impl Region {
    fn shards(&self) -> MutexGuard<'_, BTreeMap<ShardId, ShardSums>> {
        // Sums are replaced whole: a panic elsewhere leaves none half made.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, shard: ShardId, epoch: Epoch, vaccines: &BTreeMap<VaccineId, Sums>) {
        let vaccines = vaccines.clone();
        self.shards().insert(shard, ShardSums { epoch, vaccines });
    }
}

// === impl ShardSums ===

impl ShardSums {
    fn told(&self, shard: ShardId) -> pb::ShardFigures {
        let vaccines = self.vaccines.iter();
        pb::ShardFigures {
            shard: shard.0,
            epoch: self.epoch.0,
            vaccines: vaccines
                .map(|(vaccine, sums)| pb::VaccineFigures {
                    vaccine: vaccine.to_string(),
                    left: sums.left,
                    taken: sums.taken,
                })
                .collect(),
        }
    }
}

// === impl Slots ===

impl Slots {
    fn take(&mut self, lines: &[SlotLine]) {
        for SlotLine { slot, left } in lines.iter().filter(|line| line.slot.dose == 1) {
            let sums = Sums {
                left: if slot.open { u64::from(*left) } else { 0 },
                // What a closed slot has left says nothing of its people.
                taken: u64::from(if slot.open {
                    slot.capacity.saturating_sub(*left)
                } else {
                    slot.booked
                }),
            };
            let line = Line {
                vaccine: slot.vaccine.clone(),
                starts_at: slot.starts_at,
                sums,
            };
            let total = self.sums.entry(line.vaccine.clone()).or_default();
            total.left += sums.left;
            total.taken += sums.taken;
            if let Some(old) = self.lines.insert(slot.slot, line) {
                let total = self.sums.entry(old.vaccine).or_default();
                total.left -= old.sums.left;
                total.taken -= old.sums.taken;
            }
        }
    }

    /// Leaves out what has begun, and adds up the rest.
    fn sum(&mut self, now: Timestamp) -> &BTreeMap<VaccineId, Sums> {
        self.lines.retain(|_, line| line.starts_at > now);
        self.sums.clear();
        for line in self.lines.values() {
            let total = self.sums.entry(line.vaccine.clone()).or_default();
            total.left += line.sums.left;
            total.taken += line.sums.taken;
        }
        &self.sums
    }
}

#[cfg(test)]
mod tests;
