//! Who decides each shard of a region, as far as anybody told. Pure.
//!
//! Invariant: per shard the epoch only rises. What is heard may be late, doubled or out of order.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{Epoch, ShardId};

/// Where an instance listens, `host:port`.
pub(crate) type Addr = Arc<str>;

/// Who decides a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The owner's epoch.
    pub(crate) epoch: Epoch,
    /// Where it listens.
    pub(crate) addr: Addr,
}

/// The routes of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    routes: BTreeMap<ShardId, Route>,
}

impl Table {
    /// Hears that `addr` decides `shard` since `epoch`; says whether that changed the route.
    ///
    /// An owner that lost its lease may go on deciding, so nothing but a higher epoch takes a route away.
    pub(crate) fn learn(&mut self, shard: ShardId, epoch: Epoch, addr: &Addr) -> bool {
        let known = self
            .routes
            .get(&shard)
            .map_or(Epoch(0), |route| route.epoch);
        if epoch <= known {
            return false;
        }
        self.routes.insert(
            shard,
            Route {
                epoch,
                addr: Arc::clone(addr),
            },
        );
        true
    }

    /// Who decides the shard.
    pub(crate) fn route(&self, shard: ShardId) -> Option<&Route> {
        self.routes.get(&shard)
    }

    /// Where the owners listen.
    pub(crate) fn addrs(&self) -> impl Iterator<Item = &Addr> {
        self.routes.values().map(|route| &route.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn the_highest_epoch_wins_in_whatever_order_it_is_heard() {
        // Every order of three owners ends with the last of them, and no step goes back.
        let told = [(5, "a:1"), (6, "b:1"), (7, "a:1")];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut table = Table::default();
            let mut highest = 0;
            for at in order {
                let (epoch, addr) = told[at];
                let news = table.learn(SHARD, Epoch(epoch), &Addr::from(addr));
                assert_eq!(news, epoch > highest, "{order:?}");
                highest = highest.max(epoch);
                assert_eq!(table.route(SHARD).map(|r| r.epoch), Some(Epoch(highest)));
            }
            assert_eq!(table.route(SHARD).map(|r| r.addr.as_ref()), Some("a:1"));
        }
    }

    #[test]
    fn an_epoch_has_one_owner() {
        let mut table = Table::default();
        assert!(table.learn(SHARD, Epoch(4), &Addr::from("a:1")));
        assert!(!table.learn(SHARD, Epoch(4), &Addr::from("b:1")));
        assert_eq!(table.route(SHARD).map(|r| r.addr.as_ref()), Some("a:1"));
    }

    #[test]
    fn nobody_decides_with_epoch_zero() {
        let mut table = Table::default();
        assert!(!table.learn(SHARD, Epoch(0), &Addr::from("a:1")));
        assert_eq!(table.route(SHARD), None);
    }
}
