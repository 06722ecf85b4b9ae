//! `WatchAvailability`: a snapshot, then what changes.

use proto::availability::WatchAvailabilityRequest;
use tonic::{Response, Status};

use super::Services;
use crate::availability::WatchStream;

pub(super) fn handle(
    services: &Services,
    request: &WatchAvailabilityRequest,
) -> Result<Response<WatchStream>, Status> {
    Ok(Response::new(services.answers.watch(request)?))
}
