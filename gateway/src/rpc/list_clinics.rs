//! `ListClinics`: from memory.

use proto::availability::ListClinicsRequest;
use proto::encoded::Encoded;
use tonic::{Response, Status};

use super::Services;

pub(super) fn handle(
    services: &Services,
    request: &ListClinicsRequest,
) -> Result<Response<Encoded>, Status> {
    Ok(Response::new(services.answers.list_clinics(request)?))
}
