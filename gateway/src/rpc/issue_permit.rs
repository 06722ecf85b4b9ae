//! `IssuePermit`: identity decides; what can be seen to be wrong here does not reach it.

use domain::{CampaignId, RegionId};
use proto::convert::Fields;
use proto::identity::{IssuePermitRequest, IssuePermitResponse};
use proto::status::Refused;
use tonic::{Request, Response, Status};

use super::{PERMIT_WITHIN, Services, caller, deadline};

/// A JWT with a certificate chain in its header; the whole request is bounded anyway.
const ASSERTION_LENGTH_MAX: usize = 12 * 1024;

pub(super) async fn handle(
    services: &Services,
    request: Request<IssuePermitRequest>,
) -> Result<Response<IssuePermitResponse>, Status> {
    let caller = caller(&request)?;
    let deadline = deadline(&request, PERMIT_WITHIN);
    let request = request.into_inner();
    check(&request).map_err(|why| services.turn_away(why))?;
    services.permits.issue(&caller, request, deadline).await
}

pub(super) fn check(request: &IssuePermitRequest) -> Result<(), Refused> {
    let mut fields = Fields::default();
    fields.parse::<CampaignId>("campaign", &request.campaign);
    fields.parse::<RegionId>("region", &request.region);
    if request.assertion.is_empty() {
        fields.wrong(
            "assertion",
            "is required: a JWT of a trusted identity provider",
        );
    } else if request.assertion.len() > ASSERTION_LENGTH_MAX {
        fields.wrong("assertion", "is longer than 12 KiB");
    }
    fields.finish(Some(()))
}
