//! One region's memory: feeds write into it, views are published from it a few times a second.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use domain::{ClinicId, RegionId, ShardId, SlotId, Timestamp};
use proto::inventory::WatchShardsResponse;
use tokio::sync::Notify;

use super::answers::slot_of;
use super::shards::{Shards, Slot};
use super::snapshot::View;
use super::watchers::Ring;

/// A view lives at least this long: at the opening every slot changes hundreds of times a second.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// While nothing changes, answers are encoded anew this often so that their age stays honest.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// One region's clinics and slots.
pub(crate) struct Region {
    pub(super) id: RegionId,
    state: Mutex<State>,
    shard_of: ArcSwap<HashMap<ClinicId, ShardId>>,
    heard: ArcSwap<BTreeSet<ShardId>>,
    view: ArcSwapOption<View>,
    changed: Notify,
    pub(super) ring: Ring,
}

#[derive(Default)]
struct State {
    shards: Shards,
    clinics: BTreeSet<ClinicId>,
    slots: BTreeMap<SlotId, (ClinicId, Slot)>,
}

/// What a message of a feed means for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// Routes may have changed: a clinic has another shard, or a shard was heard for the first time.
    pub(super) routes: bool,
    /// The feed must start again.
    pub(super) gap: bool,
}

impl Region {
    pub(super) fn new(id: RegionId) -> Self {
        Self {
            id,
            state: Mutex::default(),
            shard_of: ArcSwap::default(),
            heard: ArcSwap::default(),
            view: ArcSwapOption::default(),
            changed: Notify::new(),
            ring: Ring::new(rand::random()),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &RegionId {
        &self.id
    }

    /// The shard that decides a clinic.
    pub(crate) fn shard_of(&self, clinic: &ClinicId) -> Option<ShardId> {
        self.shard_of.load().get(clinic).copied()
    }

    /// Whether every shard that somebody owns has been heard; `false` while it is not known who owns what.
    pub(crate) fn heard_all(&self, owned: Option<&BTreeSet<ShardId>>) -> bool {
        owned.is_some_and(|owned| !owned.is_empty() && owned.is_subset(&self.heard.load()))
    }

    /// The newest view; `None` before the first snapshot.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Whether every shard that somebody owns is in what is served.
    pub(crate) fn serves_all(&self, owned: Option<&BTreeSet<ShardId>>) -> bool {
        let view = self.view.load();
        let served = view.as_ref().map(|view| &view.shards);
        owned
            .zip(served)
            .is_some_and(|(owned, served)| !owned.is_empty() && owned.is_subset(served))
    }

    /// How old the newest view is at `now`.
    pub(crate) fn age(&self, now: Timestamp) -> Option<Duration> {
        self.view.load().as_ref().map(|view| now.since(view.as_of))
    }

    /// Takes a message of a feed.
    pub(super) fn apply(&self, message: WatchShardsResponse) -> Applied {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = state.shards.apply(message);
        let mut routes = changed.shards_of_clinics;
        if changed.shards_of_clinics {
            let of = state
                .shards
                .shard_of()
                .map(|(id, shard)| (id.clone(), shard))
                .collect();
            self.shard_of.store(Arc::new(of));
        }
        let heard = state.shards.heard();
        if heard.len() != self.heard.load().len() {
            self.heard.store(Arc::new(heard));
            routes = true;
        }
        state.clinics.extend(changed.clinics);
        state.slots.extend(
            changed
                .slots
                .into_iter()
                .map(|(clinic, slot)| (slot.id, (clinic, slot))),
        );
        if changed.refreshed {
            self.changed.notify_one();
        }
        Applied {
            routes,
            gap: changed.gap,
        }
    }

    /// Makes what was heard visible, if there is anything new to see.
    pub(super) fn publish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(as_of) = state.shards.as_of() else {
            return;
        };
        let before = self.view();
        let stale = before.as_ref().is_none_or(|view| {
            as_of.since(view.as_of) >= REFRESH_EVERY || view.shards != state.shards.heard()
        });
        if state.clinics.is_empty() && !stale {
            return;
        }
        let clinics = std::mem::take(&mut state.clinics);
        let slots = std::mem::take(&mut state.slots);
        // Nobody watches before the first view: what is in it need not be told as changes.
        let told = slots.into_values().filter(|_| before.is_some());
        let told = told
            .map(|(clinic, slot)| slot_of(&self.id, &clinic, &slot))
            .collect();
        let sequence = self.ring.push(told, as_of);
        let before = before.unwrap_or_default();
        let next = before.next(&state.shards, &clinics, as_of, sequence);
        drop(state);
        self.view.store(Some(Arc::new(next)));
        self.ring.announce();
    }
}

/// Publishes views of a region until it is dropped.
pub(crate) async fn publish(region: Arc<Region>) -> Infallible {
    loop {
        region.changed.notified().await;
        region.publish();
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}
