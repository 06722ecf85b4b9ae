//! `QueryInventory`: a clinic's slots, full and closed ones too, from memory.

use domain::name::ClinicName;
use proto::clinic::{QueryInventoryRequest, QueryInventoryResponse};
use proto::convert::Fields;
use proto::status::refuse;
use tonic::{Request, Response, Status};

use super::{Services, caller};

pub(super) fn handle(
    services: &Services,
    request: &Request<QueryInventoryRequest>,
) -> Result<Response<QueryInventoryResponse>, Status> {
    let mut fields = Fields::default();
    let name = fields.parse::<ClinicName>("clinic", &request.get_ref().clinic);
    let name = fields.finish(name)?;
    caller(request)?.may_see(&name).map_err(refuse)?;
    Ok(Response::new(services.answers.query_inventory(&name)?))
}
