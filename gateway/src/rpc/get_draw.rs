//! `GetDraw`: the signed steps and closed buckets of a room, from memory.

use proto::room::{GetDrawRequest, GetDrawResponse, GetRoomRequest};
use tonic::{Response, Status};

use super::{Services, get_room};

pub(super) fn handle(
    services: &Services,
    request: &GetDrawRequest,
) -> Result<Response<GetDrawResponse>, Status> {
    let room = GetRoomRequest {
        campaign: request.campaign.clone(),
        cohort: request.cohort.clone(),
    };
    get_room::check(&room.campaign, &room.cohort)?;
    let draw = services.rooms.published(&room, request.first_bucket)?;
    Ok(Response::new(draw))
}
