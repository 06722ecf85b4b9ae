//! Clinics and slots of every region, in memory: fed by the owners, served as answers that are already encoded.
//!
//! Invariant: nothing here asks a ledger or an owner on behalf of a caller; what is lost is served on with the age
//! it has.

mod answers;
mod feed;
mod filter;
mod inventory;
mod page;
mod region;
mod shards;
mod snapshot;
mod supply;
mod watchers;

use std::collections::HashMap;
use std::sync::Arc;

use domain::RegionId;

pub(crate) use answers::{Answers, WatchStream};
pub(crate) use feed::Follow;
pub(crate) use inventory::InventoryStream;
pub(crate) use page::PageKey;
pub(crate) use region::{Region, publish};
pub(crate) use supply::Supply;

/// The regions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Availability(Arc<HashMap<String, Arc<Region>>>);

impl Availability {
    pub(crate) fn new(regions: impl IntoIterator<Item = RegionId>) -> Self {
        Self(Arc::new(
            regions
                .into_iter()
                .map(|id| (id.as_str().to_owned(), Arc::new(Region::new(id))))
                .collect(),
        ))
    }

    pub(crate) fn region(&self, region: &RegionId) -> Option<&Arc<Region>> {
        self.0.get(region.as_str())
    }

    /// By the name in a request, without parsing it first: most names are those of regions.
    fn named(&self, region: &str) -> Option<&Arc<Region>> {
        self.0.get(region)
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = &Arc<Region>> {
        self.0.values()
    }
}
