//! When a gateway can work: every shard that somebody owns has been heard.

use std::time::Duration;

use domain::RegionId;
use runtime::readiness::Latch;

use crate::availability::Availability;
use crate::routing::Routes;

/// A region counts as known when every shard was heard; this often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What readiness waits for.
pub(super) struct Heard {
    pub(super) ready: Latch,
    pub(super) regions: Vec<RegionId>,
    pub(super) availability: Availability,
    pub(super) routes: Routes,
}

impl Heard {
    /// Releases the latch once every region is known.
    pub(super) async fn wait(self) {
        for id in &self.regions {
            while !self.heard(id) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        self.ready.release();
    }

    fn heard(&self, id: &RegionId) -> bool {
        let known = self.routes.region(id).map(|routes| routes.known());
        self.availability
            .region(id)
            .zip(known)
            .is_some_and(|(region, known)| region.serves_all(known.owned.as_ref()))
    }
}
