//! `ListTickets`: identity has the lists; they pass through here.

use proto::room::{ListTicketsRequest, ListTicketsResponse};
use tonic::{Request, Response, Status};

use super::{PERMIT_WITHIN, Services, Streamed, caller, deadline, get_room};

pub(super) async fn handle(
    services: &Services,
    request: Request<ListTicketsRequest>,
) -> Result<Response<Streamed<ListTicketsResponse>>, Status> {
    let caller = caller(&request)?;
    let deadline = deadline(&request, PERMIT_WITHIN);
    let request = request.into_inner();
    get_room::check(&request.campaign, &request.cohort)?;
    let seat = services.streams.download()?;
    let list = services
        .permits
        .record(&caller, deadline, |mut client, signed| {
            let request = request.clone();
            async move { client.list_tickets(signed.endless(request)).await }
        });
    let list = list.await?.into_inner();
    Ok(Response::new(Box::pin(
        services.streams.pass_on(list, seat),
    )))
}
