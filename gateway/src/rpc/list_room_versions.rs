//! `ListRoomVersions`: identity keeps the history; it passes through here.

use proto::room::{ListRoomVersionsRequest, ListRoomVersionsResponse};
use tonic::{Request, Response, Status};

use super::{PERMIT_WITHIN, Services, Streamed, caller, deadline, get_room};

pub(super) async fn handle(
    services: &Services,
    request: Request<ListRoomVersionsRequest>,
) -> Result<Response<Streamed<ListRoomVersionsResponse>>, Status> {
    let caller = caller(&request)?;
    let deadline = deadline(&request, PERMIT_WITHIN);
    let request = request.into_inner();
    get_room::check(&request.campaign, &request.cohort)?;
    let seat = services.streams.download()?;
    let history = services
        .permits
        .record(&caller, deadline, |mut client, signed| {
            let request = request.clone();
            async move { client.list_room_versions(signed.endless(request)).await }
        });
    let history = history.await?.into_inner();
    Ok(Response::new(Box::pin(
        services.streams.pass_on(history, seat),
    )))
}
