//! `WatchInventory`: a clinic's slots, then what changes, from memory.

use domain::name::ClinicName;
use proto::clinic::WatchInventoryRequest;
use proto::convert::Fields;
use proto::status::refuse;
use tonic::{Request, Response, Status};

use super::{Services, caller};
use crate::availability::InventoryStream;

pub(super) fn handle(
    services: &Services,
    request: &Request<WatchInventoryRequest>,
) -> Result<Response<InventoryStream>, Status> {
    let asked = request.get_ref();
    let mut fields = Fields::default();
    let name = fields.parse::<ClinicName>("clinic", &asked.clinic);
    let name = fields.finish(name)?;
    caller(request)?.may_see(&name).map_err(refuse)?;
    let watch = services.answers.watch_inventory(&name, &asked.cursor)?;
    Ok(Response::new(watch))
}
