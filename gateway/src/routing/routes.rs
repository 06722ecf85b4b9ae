//! The regions' tables, shared: read by every command, changed by the key space, by feeds and by hints.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use domain::{Epoch, RegionId, ShardId};
use tokio::sync::watch;

use super::table::{Addr, Route, Table};

/// A process that serves a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) addr: Addr,
    pub(crate) draining: bool,
}

/// Routes of all configured regions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Routes(Arc<HashMap<RegionId, Arc<RegionRoutes>>>);

/// Routes of one region.
pub(crate) struct RegionRoutes {
    current: ArcSwap<Known>,
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
}

/// What is known at one moment.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) table: Table,
    pub(crate) members: Vec<Member>,
    /// Shards that the key space says somebody decides now; `None` before it was read.
    pub(crate) owned: Option<BTreeSet<ShardId>>,
}

impl Routes {
    pub(crate) fn new(regions: impl IntoIterator<Item = RegionId>) -> Self {
        let empty = || {
            Arc::new(RegionRoutes {
                current: ArcSwap::default(),
                changing: Mutex::default(),
                changes: watch::Sender::new(0),
            })
        };
        Self(Arc::new(
            regions
                .into_iter()
                .map(|region| (region, empty()))
                .collect(),
        ))
    }

    pub(crate) fn region(&self, region: &RegionId) -> Option<&Arc<RegionRoutes>> {
        self.0.get(region)
    }
}

impl RegionRoutes {
    /// What is known now.
    pub(crate) fn known(&self) -> Arc<Known> {
        self.current.load_full()
    }

    /// Who decides a shard.
    pub(crate) fn route(&self, shard: ShardId) -> Option<Route> {
        self.current.load().table.route(shard).cloned()
    }

    /// Wakes at every change of a route, of the members or of a clinic's shard.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Hears who decides a shard; says whether that is news.
    pub(crate) fn learn(&self, shard: ShardId, epoch: Epoch, addr: &Addr) -> bool {
        // Most of what is heard is known: look before copying.
        if self
            .current
            .load()
            .table
            .route(shard)
            .is_some_and(|known| known.epoch >= epoch)
        {
            return false;
        }
        self.change(|known| known.table.learn(shard, epoch, addr))
    }

    /// Takes what the key space says.
    pub(crate) fn listed(&self, members: Vec<Member>, owners: &[(ShardId, Epoch, Addr)]) {
        self.change(|known| {
            let owned = owners.iter().map(|(shard, ..)| *shard).collect();
            let mut news = known.members != members || known.owned.as_ref() != Some(&owned);
            known.members = members;
            known.owned = Some(owned);
            for (shard, epoch, addr) in owners {
                news |= known.table.learn(*shard, *epoch, addr);
            }
            news
        });
    }

    /// Wakes those who wait for a change, for instance because a clinic has another shard now.
    pub(crate) fn nudge(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Known) -> bool) -> bool {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Known::clone(&self.current.load());
        let news = change(&mut next);
        if news {
            self.current.store(Arc::new(next));
        }
        drop(changing);
        if news {
            self.nudge();
        }
        news
    }
}
