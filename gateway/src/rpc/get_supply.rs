//! `GetSupply`: from figures that every caller shares.

use proto::availability::GetSupplyRequest;
use proto::encoded::Encoded;
use tonic::{Request, Response, Status};

use super::{COMMAND_WITHIN, Services, deadline};

pub(super) async fn handle(
    services: &Services,
    request: Request<GetSupplyRequest>,
) -> Result<Response<Encoded>, Status> {
    let until = deadline(&request, COMMAND_WITHIN);
    let answer = services.supply.get(request.get_ref(), until).await?;
    Ok(Response::new(answer))
}
