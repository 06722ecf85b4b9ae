//! Availability to gateways: a snapshot of each shard this process decides, then every change.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{Epoch, RegionId, ShardId, SlotState};
use proto::convert;
use proto::inventory::watch_shards_response::Update as Say;
use proto::inventory::{
    ClinicInfo, ShardAlive, ShardReleased, ShardSnapshot, SlotChanges, SlotInfo,
    WatchShardsResponse,
};
use runtime::OnExit;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, Shared};
use crate::ledger::Clinic;
use crate::owner::{OwnerHandle, SlotLine, Snapshot, Update};

/// Messages a slow gateway may be behind; then it waits, and the broadcast makes it start over.
const BEHIND_MAX: usize = 64;
/// Slots in one message: about 60 KiB.
const SLOTS_MAX: usize = 1_000;

type Out = mpsc::Sender<Result<WatchShardsResponse, Status>>;

pub(super) fn serve(shared: Arc<Shared>, region: RegionId) -> Answers<WatchShardsResponse> {
    let (out, messages) = mpsc::channel(BEHIND_MAX);
    let tasks = shared.tasks.clone();
    tasks.spawn(
        "watch_region",
        OnExit::Ignore,
        watch_region(shared, region, out),
    );
    Box::pin(ReceiverStream::new(messages))
}

/// One task for each shard, started and ended with its owner.
async fn watch_region(shared: Arc<Shared>, region: RegionId, out: Out) {
    let mut changed = shared.owners.watch();
    let mut watched: BTreeMap<ShardId, runtime::tasks::TaskHandle> = BTreeMap::new();
    loop {
        watched.retain(|_, task| !task.is_finished());
        for (shard, owner) in shared.owners.of_region(&region) {
            watched.entry(shard).or_insert_with(|| {
                let work = watch_shard(shard, owner, out.clone());
                shared.tasks.spawn("watch_shard", OnExit::Ignore, work)
            });
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            () = out.closed() => return,
            () = shared.over.cancelled() => return,
        }
    }
}

async fn watch_shard(shard: ShardId, owner: OwnerHandle, out: Out) {
    let mut last = Epoch(0);
    while let Some((snapshot, mut updates)) = owner.subscribe().await {
        last = snapshot.epoch;
        if send_snapshot(&out, snapshot).await.is_err() {
            return;
        }
        loop {
            let message = match updates.recv().await {
                Ok(Update::Changes {
                    epoch,
                    sequence,
                    as_of,
                    slots,
                }) => {
                    let changes = SlotChanges {
                        slots: slots.iter().map(slot_info).collect(),
                    };
                    message(shard, epoch, sequence, as_of, Say::Changes(changes))
                }
                Ok(Update::Alive {
                    epoch,
                    sequence,
                    as_of,
                }) => message(shard, epoch, sequence, as_of, Say::Alive(ShardAlive {})),
                // Start over with a snapshot.
                Ok(Update::Restart) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => break,
            };
            if out.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
    let released = WatchShardsResponse {
        shard: shard.0,
        epoch: last.0,
        sequence: u64::MAX,
        as_of: None,
        update: Some(Say::Released(ShardReleased {})),
    };
    // The gateway may be gone.
    let _ = out.send(Ok(released)).await;
}

/// Slots first, in bounded messages of changes after an empty start: the snapshot message itself replaces everything.
async fn send_snapshot(out: &Out, snapshot: Snapshot) -> Result<(), ()> {
    let Snapshot {
        shard,
        epoch,
        sequence,
        as_of,
        clinics,
        slots,
    } = snapshot;
    let mut parts = slots.chunks(SLOTS_MAX);
    let first = ShardSnapshot {
        clinics: clinics.iter().map(clinic_info).collect(),
        slots: parts
            .next()
            .unwrap_or_default()
            .iter()
            .map(slot_info)
            .collect(),
    };
    let say = message(shard, epoch, sequence, as_of, Say::Snapshot(first));
    out.send(Ok(say)).await.map_err(|_| ())?;
    for part in parts {
        let changes = SlotChanges {
            slots: part.iter().map(slot_info).collect(),
        };
        let say = message(shard, epoch, sequence, as_of, Say::Changes(changes));
        out.send(Ok(say)).await.map_err(|_| ())?;
    }
    Ok(())
}

fn message(
    shard: ShardId,
    epoch: Epoch,
    sequence: u64,
    as_of: domain::Timestamp,
    update: Say,
) -> WatchShardsResponse {
    let as_of = Some(convert::timestamp(as_of));
    WatchShardsResponse {
        shard: shard.0,
        epoch: epoch.0,
        sequence,
        as_of,
        update: Some(update),
    }
}

fn slot_info(line: &SlotLine) -> SlotInfo {
    let SlotState {
        slot,
        clinic,
        vaccine,
        dose,
        starts_at,
        day,
        capacity,
        open,
        ..
    } = &*line.slot;
    SlotInfo {
        slot: slot.0,
        clinic: clinic.to_string(),
        starts_at_us: starts_at.as_micros(),
        day: *day,
        vaccine: vaccine.to_string(),
        dose: u32::from(*dose),
        capacity: *capacity,
        left: line.left,
        open: *open,
    }
}

fn clinic_info(clinic: &Clinic) -> ClinicInfo {
    ClinicInfo {
        clinic: clinic.clinic.to_string(),
        display_name: clinic.display_name.clone(),
        district: clinic.district.clone(),
        latitude: clinic.latitude,
        longitude: clinic.longitude,
    }
}
