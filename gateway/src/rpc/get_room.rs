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
            check(request)?;
            Err(Refused::from(Refusal::CampaignUnknown).into())
        }
    }
}

pub(super) fn check(request: &GetRoomRequest) -> Result<(), Refused> {
    let mut fields = Fields::default();
    fields.parse::<CampaignId>("campaign", &request.campaign);
    fields.parse::<CohortId>("cohort", &request.cohort);
    fields.finish(Some(()))
}
