//! The doorkeeper: moves the rooms' frontiers. Every identity process is ready to be it; one is elected.
//!
//! Invariant: opening, closing and moving are writes of signed documents, never comparisons of clocks elsewhere; when
//! nobody is the doorkeeper, plans run to their end and then everything stands still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{CampaignId, CohortId, InstanceId};
use runtime::Clock;
use runtime::drain::Drain;
use runtime::keyspace::{Keyspace, Mirror, Session};
use runtime::tasks::{OnExit, TaskHandle, Tasks};
use tokio_util::sync::CancellationToken;

use crate::campaigns::Campaigns;
use crate::metrics::Metrics;
use crate::people::People;
use crate::rooms::Rooms;

pub mod closing;
pub mod control;
pub mod draw;
pub mod elect;
pub mod figures;
pub mod history;
mod keeper;
pub mod lines;
pub mod publish;
pub mod reports;
pub mod schedule;
pub mod settings;
mod spans;
pub mod steer;

use figures::{Gathered, Inventories};
use keeper::Keeper;
use publish::Publisher;
use reports::Reports;

/// What a doorkeeper works with.
pub struct Parts {
    /// Reads and writes rooms.
    pub publisher: Publisher,
    /// Takes the steps of draws.
    pub operators: Rooms,
    /// Counts and closes buckets.
    pub people: Arc<dyn People>,
    /// The campaigns in force.
    pub campaigns: Campaigns,
    /// A copy of all rooms and buckets.
    pub rooms: Mirror,
    /// A copy of what operators set.
    pub controls: Mirror,
    /// What inventories show.
    pub gathered: Gathered,
    /// What gateways report.
    pub reports: Reports,
    /// How rooms are steered.
    pub settings: settings::Settings,
    /// The clocks.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
}

/// Who wants to be the doorkeeper, and where.
pub struct Candidate {
    /// Who.
    pub instance: InstanceId,
    /// Where it is elected.
    pub keyspace: Keyspace,
    /// The lease that the office dies with.
    pub session: Session,
    /// Asked for figures while in office.
    pub inventories: Inventories,
    /// Where its tasks belong.
    pub tasks: Tasks,
}

/// Seeks the office, holds it, and seeks it again when it was lost, until the process drains.
pub async fn run(candidate: Candidate, parts: Arc<Parts>, drain: Drain) {
    let Candidate {
        instance,
        keyspace,
        mut session,
        inventories,
        tasks,
    } = candidate;
    loop {
        let elected = elect::elected(&keyspace, &mut session, &instance, &drain).await;
        let Some(office) = elected else { return };
        tracing::info!(owner.id = %instance, "doorkeeper elected");
        parts.metrics.elected(true);
        let over = CancellationToken::new();
        let asking = inventories.clone().ask(parts.campaigns.clone());
        let stop = over.clone();
        tasks.spawn("ask_inventories", OnExit::Log, async move {
            stop.run_until_cancelled(asking).await;
        });
        let keeping = keep_rooms(&parts, &office, &tasks, &over);
        tokio::select! {
            () = keeping => {}
            () = elect::lost(&keyspace, &mut session, &office) => {}
            // A keeper found that it cannot write.
            () = over.cancelled() => {}
            () = drain.announced() => {}
        }
        over.cancel();
        parts.metrics.elected(false);
        // Also where it was lost: whatever is left of it would keep us out ourselves.
        elect::resign(&keyspace, &office).await;
        if drain.is_draining() {
            return;
        }
        tracing::warn!(owner.id = %instance, "no longer the doorkeeper");
    }
}

/// A task for each room of each campaign; never ends by itself.
async fn keep_rooms(
    parts: &Arc<Parts>,
    office: &elect::Office,
    tasks: &Tasks,
    over: &CancellationToken,
) {
    let mut kept: BTreeMap<(CampaignId, CohortId), TaskHandle> = BTreeMap::new();
    let mut every = tokio::time::interval(Duration::from_millis(250));
    // From then on what is missing in the copies is really not there.
    let (mut rooms, mut controls) = (parts.rooms.clone(), parts.controls.clone());
    rooms.ready().await;
    controls.ready().await;
    loop {
        every.tick().await;
        kept.retain(|_, task| !task.is_finished());
        for campaign in parts.campaigns.all().values() {
            for room in keeper::rooms_of(campaign) {
                kept.entry(room.clone()).or_insert_with(|| {
                    let office = (office.clone(), over.clone());
                    let keeper = Keeper::new(Arc::clone(parts), office, room);
                    tasks.spawn("keep_room", OnExit::Log, keeper.run())
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
