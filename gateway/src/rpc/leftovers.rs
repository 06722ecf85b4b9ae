//! Leftover doses: any member of the region can answer, because the ledger decides.

use domain::name::{ClinicName, LeftoversName};
use proto::convert::Fields;
use proto::leftover as pb;
use proto::leftover::leftover_service_server::LeftoverService;
use proto::status::Refused;
use tonic::{Request, Response, Status};

use super::target::{self, Target};
use super::{Services, get_booking, terminal};

/// What a person asks without naming a clinic goes to the permit's region.
fn by_permit(permit: &str, request_id: Option<&str>) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::permit(&mut fields, permit);
    if let Some(request_id) = request_id {
        target::request_id(&mut fields, request_id);
    }
    fields.finish(Some(()))?;
    get_booking::of_permit(permit)
}

fn answer(request: &pb::AnswerLeftoverOfferRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::common(&mut fields, &request.permit, &request.request_id);
    let name = fields.parse::<LeftoversName>("leftovers", &request.leftovers);
    fields.finish(name.map(|name| anywhere(name.clinic)))
}

fn close(request: &pb::CloseLeftoversRequest) -> Result<ClinicName, Refused> {
    let mut fields = Fields::default();
    target::request_id(&mut fields, &request.request_id);
    let name = fields.parse::<LeftoversName>("leftovers", &request.leftovers);
    fields.finish(name.map(|name| name.clinic))
}

fn list(request: &pb::ListLeftoversRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    let name = fields.parse("clinic", &request.clinic);
    fields.finish(name.map(anywhere))
}

fn get(request: &pb::GetLeftoversRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    let name = fields.parse::<LeftoversName>("leftovers", &request.leftovers);
    fields.finish(name.map(|name| anywhere(name.clinic)))
}

fn anywhere(clinic: ClinicName) -> Target {
    Target {
        region: clinic.region,
        clinic: None,
    }
}

#[tonic::async_trait]
impl LeftoverService for Services {
    async fn join_leftovers(
        &self,
        request: Request<pb::JoinLeftoversRequest>,
    ) -> Result<Response<pb::JoinLeftoversResponse>, Status> {
        self.command(request, |r| by_permit(&r.permit, Some(&r.request_id)))
            .await
    }

    async fn leave_leftovers(
        &self,
        request: Request<pb::LeaveLeftoversRequest>,
    ) -> Result<Response<pb::LeaveLeftoversResponse>, Status> {
        self.command(request, |r| by_permit(&r.permit, Some(&r.request_id)))
            .await
    }

    async fn list_leftover_offers(
        &self,
        request: Request<pb::ListLeftoverOffersRequest>,
    ) -> Result<Response<pb::ListLeftoverOffersResponse>, Status> {
        self.command(request, |r| by_permit(&r.permit, None)).await
    }

    async fn answer_leftover_offer(
        &self,
        request: Request<pb::AnswerLeftoverOfferRequest>,
    ) -> Result<Response<pb::AnswerLeftoverOfferResponse>, Status> {
        self.command(request, answer).await
    }

    async fn offer_leftovers(
        &self,
        request: Request<pb::OfferLeftoversRequest>,
    ) -> Result<Response<pb::OfferLeftoversResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn close_leftovers(
        &self,
        request: Request<pb::CloseLeftoversRequest>,
    ) -> Result<Response<pb::CloseLeftoversResponse>, Status> {
        self.terminal(request, close).await
    }

    async fn list_leftovers(
        &self,
        request: Request<pb::ListLeftoversRequest>,
    ) -> Result<Response<pb::ListLeftoversResponse>, Status> {
        self.command(request, list).await
    }

    async fn get_leftovers(
        &self,
        request: Request<pb::GetLeftoversRequest>,
    ) -> Result<Response<pb::GetLeftoversResponse>, Status> {
        self.command(request, get).await
    }
}
