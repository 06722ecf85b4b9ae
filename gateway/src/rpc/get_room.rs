//! `GetRoom`: the signed document, the same bytes for everybody.

use domain::{CampaignId, CohortId, Refusal};
use proto::convert::Fields;
use proto::encoded::Encoded;
use proto::room::GetRoomRequest;
use proto::status::Refused;
use tonic::{Response, Status};

use super::Services;

pub(super) fn handle(
    services: &Services,
    request: &GetRoomRequest,
) -> Result<Response<Encoded>, Status> {
    // A room that is found has a name that is right.
    match services.rooms.document(request) {
        Some(document) => Ok(Response::new(document)),
        None => {
            check(&request.campaign, &request.cohort)?;
            Err(Refused::from(Refusal::CampaignUnknown).into())
        }
    }
}

/// Whether these can name a room.
pub(super) fn check(campaign: &str, cohort: &str) -> Result<(), Refused> {
    let mut fields = Fields::default();
    fields.parse::<CampaignId>("campaign", campaign);
    fields.parse::<CohortId>("cohort", cohort);
    fields.finish(Some(()))
}
