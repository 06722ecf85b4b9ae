//! What the region's ledger has to be asked for by the clock: changes made outside the owners, and rooms to remember.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{CampaignId, CohortId, RegionId, ShardId, SlotState};
use runtime::Drain;
use runtime::keyspace::Mirror;
use tokio::time::MissedTickBehavior;

use crate::admission::Admission;
use crate::ledger::{Ledger, OutboxCursor, RoomSeen};
use crate::metrics::Metrics;
use crate::owner::Owners;

/// How often the outbox is read: units freed elsewhere are sold again this much later at most.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How long at most a dose waits for the next person after an offer ended.
const PASS_ON_EVERY: Duration = Duration::from_millis(500);
/// Changes read at once.
const READ_MAX: u32 = 2_000;
/// Buckets stored at once: the first time after a start it may be all of a day.
const BUCKETS_MAX: usize = 1_000;
/// How often the rooms are stored; a restart during an etcd outage forgets at most this much of a frontier.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);

/// Tells the owners of this process what others changed in their slots.
pub(crate) async fn follow_outbox(
    region: RegionId,
    ledger: Arc<dyn Ledger>,
    owners: Owners,
    drain: Drain,
) {
    let mut every = tokio::time::interval(READ_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cursor: Option<OutboxCursor> = None;
    loop {
        tokio::select! {
            () = drain.signalled() => return,
            _ = every.tick() => {}
        }
        let from = match cursor {
            Some(from) => from,
            None => match ledger.outbox_cursor().await {
                Ok(now) => *cursor.insert(now),
                Err(error) => {
                    tracing::debug!(%region, %error, "the outbox cannot be read yet");
                    continue;
                }
            },
        };
        match ledger.outside_changes(from, READ_MAX).await {
            Ok(changes) => {
                tell(&region, &owners, changes.slots);
                cursor = Some(changes.cursor);
            }
            Err(error) => tracing::debug!(%region, %error, "the outbox could not be read"),
        }
    }
}

fn tell(region: &RegionId, owners: &Owners, slots: Vec<SlotState>) {
    let mut by_shard: BTreeMap<ShardId, Vec<SlotState>> = BTreeMap::new();
    for slot in slots {
        by_shard.entry(slot.shard).or_default().push(slot);
    }
    for (shard, slots) in by_shard {
        if let Some(owner) = owners.get(region, shard) {
            owner.outside(slots);
        }
    }
}

/// Draws rounds of leftovers when they are due and passes their offers on.
pub(crate) async fn pass_on_leftovers(
    region: RegionId,
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    drain: Drain,
) {
    let mut every = tokio::time::interval(PASS_ON_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.signalled() => return,
            _ = every.tick() => {}
        }
        match ledger.pass_on_leftovers().await {
            Ok(passed_on) => metrics.leftovers_passed_on(&region, &passed_on),
            Err(error) => tracing::debug!(%region, %error, "leftovers could not be passed on"),
        }
    }
}

/// Stores what this process saw of rooms, so that a successor starts from it.
pub(crate) async fn remember_rooms(
    region: RegionId,
    ledger: Arc<dyn Ledger>,
    admission: Admission,
    rooms: Mirror,
    drain: Drain,
) {
    let mut every = tokio::time::interval(REMEMBER_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stored: Vec<RoomSeen> = Vec::new();
    let mut kept: BTreeMap<(CampaignId, CohortId), u32> = BTreeMap::new();
    loop {
        tokio::select! {
            () = drain.signalled() => return,
            _ = every.tick() => {}
        }
        let seen = admission.seen(&region);
        for room in &seen {
            let id = (room.campaign.clone(), room.cohort.clone());
            let next = kept.entry(id).or_default();
            let snapshot = rooms.snapshot();
            let of_room = (&room.campaign, &room.cohort);
            let new = admission.buckets_seen(of_room, *next, BUCKETS_MAX, &snapshot);
            let Some(last) = new.last().map(|bucket| bucket.id) else {
                continue;
            };
            match ledger.save_buckets(&new).await {
                Ok(()) => *next = last.saturating_add(1),
                Err(error) => tracing::debug!(%region, %error, "buckets could not be stored"),
            }
        }
        if seen.is_empty() || seen == stored {
            continue;
        }
        match ledger.save_rooms(&seen).await {
            Ok(()) => stored = seen,
            Err(error) => tracing::debug!(%region, %error, "the rooms could not be stored"),
        }
    }
}
