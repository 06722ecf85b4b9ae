//! `GetInclusionProof`: identity has the lists; what can be seen to be wrong here does not reach it.

use std::time::Duration;

use proto::convert::Fields;
use proto::room::{GetInclusionProofRequest, GetInclusionProofResponse};
use tonic::{Request, Response, Status};

use super::{Services, caller, deadline, get_room};

/// The first proof of a long list waits until the list is read.
const WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn handle(
    services: &Services,
    request: Request<GetInclusionProofRequest>,
) -> Result<Response<GetInclusionProofResponse>, Status> {
    let caller = caller(&request)?;
    let deadline = deadline(&request, WITHIN);
    let request = request.into_inner();
    get_room::check(&request.campaign, &request.cohort)?;
    let mut fields = Fields::default();
    if request.ticket.len() != 16 {
        fields.wrong("ticket", "must have 16 bytes");
    }
    fields.finish(Some(()))?;
    let proof = services
        .permits
        .record(&caller, deadline, |mut client, signed| {
            let request = request.clone();
            async move { client.get_inclusion_proof(signed.with(request)).await }
        });
    proof.await
}
