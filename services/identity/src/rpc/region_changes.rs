//! The steps of a change of region, for gateways.

use domain::{Refusal, RegionId};
use proto::convert::Fields;
use proto::regions::begin_change_response::State;
use proto::regions::region_change_service_server::RegionChangeService;
use proto::regions::{
    BeginChangeRequest, BeginChangeResponse, CompleteChangeRequest, CompleteChangeResponse,
    MovingPerson,
};
use proto::status::refuse;
use tonic::{Request, Response, Status};

use super::permit_response;
use crate::caller::Callers;
use crate::region_changes::{Begun, RegionChanges};

/// For gateways.
#[derive(Clone)]
pub struct RegionChangesRpc {
    pub(crate) callers: Callers,
    pub(crate) changes: RegionChanges,
}

impl RegionChangesRpc {
    fn caller<T>(&self, request: &Request<T>) -> Result<domain::CallingSystem, Status> {
        self.callers.check(request).map_err(|refusal: Refusal| {
            self.changes.issuer.metrics.region_change(refusal.code());
            refuse(refusal)
        })
    }
}

/// Notes a text that is missing or longer than any.
fn length(fields: &mut Fields, name: &str, text: &str, max: usize) {
    if text.is_empty() {
        fields.wrong(name, "is required");
    } else if text.len() > max {
        fields.wrong(name, format!("must have at most {max} bytes"));
    }
}

#[tonic::async_trait]
impl RegionChangeService for RegionChangesRpc {
    async fn begin_change(
        &self,
        request: Request<BeginChangeRequest>,
    ) -> Result<Response<BeginChangeResponse>, Status> {
        let caller = self.caller(&request)?;
        let BeginChangeRequest {
            permit,
            region,
            validate_only,
        } = request.into_inner();
        let mut fields = Fields::default();
        length(&mut fields, "permit", &permit, domain::permit::LENGTH_MAX);
        let region = fields.parse::<RegionId>("region", &region);
        let region = fields.finish(region)?;
        let begun = self
            .changes
            .begin(permit, region, &caller, validate_only)
            .await?;
        let state = match begun {
            Begun::Settled(issued) => State::Settled(permit_response(issued)),
            Begun::Moving { document, from, to } => State::Moving(MovingPerson {
                document: document.unwrap_or_default(),
                from: from.into(),
                to: to.into(),
            }),
        };
        Ok(Response::new(BeginChangeResponse { state: Some(state) }))
    }

    async fn complete_change(
        &self,
        request: Request<CompleteChangeRequest>,
    ) -> Result<Response<CompleteChangeResponse>, Status> {
        let caller = self.caller(&request)?;
        let CompleteChangeRequest { permit, receipt } = request.into_inner();
        let mut fields = Fields::default();
        length(&mut fields, "permit", &permit, domain::permit::LENGTH_MAX);
        let receipt_max = domain::region_change::LENGTH_MAX;
        length(&mut fields, "receipt", &receipt, receipt_max);
        fields.finish(Some(()))?;
        let issued = self.changes.complete(permit, receipt, &caller).await?;
        Ok(Response::new(CompleteChangeResponse {
            permit: Some(permit_response(issued)),
        }))
    }
}
