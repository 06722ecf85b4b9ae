//! `ListSlots`: from memory.

use proto::availability::ListSlotsRequest;
use proto::encoded::Encoded;
use tonic::{Response, Status};

use super::Services;

pub(super) fn handle(
    services: &Services,
    request: &ListSlotsRequest,
) -> Result<Response<Encoded>, Status> {
    Ok(Response::new(services.answers.list_slots(request)?))
}
