//! `QueryInventory`: a clinic's slots, full and closed ones too, from memory.

use domain::name::ClinicName;
use proto::clinic::{QueryInventoryRequest, QueryInventoryResponse};
use proto::convert::Fields;
use tonic::{Response, Status};

use super::Services;

pub(super) fn handle(
    services: &Services,
    request: &QueryInventoryRequest,
) -> Result<Response<QueryInventoryResponse>, Status> {
    let mut fields = Fields::default();
    let name = fields.parse::<ClinicName>("clinic", &request.clinic);
    let name = fields.finish(name)?;
    Ok(Response::new(services.answers.query_inventory(&name)?))
}
