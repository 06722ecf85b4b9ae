//! `GetPlace`: where the permit's holder stands, from the signed permit and the signed room.

use proto::convert::Fields;
use proto::room::{GetPlaceRequest, GetPlaceResponse};
use tonic::{Request, Response, Status};

use super::{Services, caller, target};

pub(super) fn handle(
    services: &Services,
    request: &Request<GetPlaceRequest>,
) -> Result<Response<GetPlaceResponse>, Status> {
    let caller = caller(request)?;
    let permit = &request.get_ref().permit;
    let mut fields = Fields::default();
    target::permit(&mut fields, permit);
    let place = fields
        .finish(Some(()))
        .and_then(|()| services.rooms.place(&caller, permit));
    Ok(Response::new(place.map_err(|why| services.turn_away(why))?))
}
