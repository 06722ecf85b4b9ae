//! What the order is made of, as it stands in the key space: every document is signed, so it is passed on as it is.

use domain::Refusal;
use domain::room::bucket_key;
use domain::{CampaignId, CohortId};
use proto::room::{GetDrawResponse, GetRoomRequest};
use proto::status::Refused;
use runtime::trusted_keys;

use super::Rooms;

/// Buckets in one answer: about 400 KiB.
const BUCKETS_MAX: u32 = 1_000;

impl Rooms {
    /// The steps of a room's draw, and the closed buckets that this gateway believes from `first` on.
    pub(crate) fn published(
        &self,
        room: &GetRoomRequest,
        first: u32,
    ) -> Result<GetDrawResponse, Refused> {
        let view = self.view(room).ok_or(Refusal::CampaignUnknown)?;
        let steps = self.steps(room);
        let id = view.seen.room();
        let (campaign, cohort): (&CampaignId, &CohortId) = (&id.campaign, &id.cohort);
        let known = u32::try_from(view.seen.buckets().len()).unwrap_or(u32::MAX);
        let end = known.min(first.saturating_add(BUCKETS_MAX));
        let entries = self.entries();
        let texts = (first..end).map_while(|id| {
            let entry = entries.get(&bucket_key(campaign, cohort, id))?;
            Some(String::from_utf8_lossy(&entry.value).into_owned())
        });
        let keys = self.room_keys();
        Ok(GetDrawResponse {
            steps,
            buckets: texts.collect(),
            more_buckets: end < known,
            keys: trusted_keys::render(keys.iter()),
        })
    }
}
