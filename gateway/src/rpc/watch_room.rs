//! `WatchRoom`: each newer document of a room, the same bytes for everybody.

use proto::encoded::Encoded;
use proto::room::{GetRoomRequest, WatchRoomRequest};
use tonic::{Response, Status};

use super::{Services, Streamed, get_room};

pub(super) fn handle(
    services: &Services,
    request: &WatchRoomRequest,
) -> Result<Response<Streamed<Encoded>>, Status> {
    let room = GetRoomRequest {
        campaign: request.campaign.clone(),
        cohort: request.cohort.clone(),
    };
    get_room::check(&room.campaign, &room.cohort)?;
    let documents = services.streams.watch(&services.rooms, room)?;
    Ok(Response::new(Box::pin(documents)))
}
