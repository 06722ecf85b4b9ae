//! What a clinic or an operator asks about an incident: any member of the region can answer, because the ledger decides.

use domain::name::{ClinicName, IncidentName};
use proto::clinic as pb;
use proto::clinic::incident_service_server::IncidentService;
use proto::convert::Fields;
use proto::status::Refused;
use tonic::{Request, Response, Status};

use super::{Services, target, terminal};

/// A request about an incident; `request_id` where it changes something.
fn of(incident: &str, request_id: Option<&str>) -> Result<ClinicName, Refused> {
    let mut fields = Fields::default();
    let name = fields.parse::<IncidentName>("incident", incident);
    if let Some(request_id) = request_id {
        target::request_id(&mut fields, request_id);
    }
    fields.finish(name.map(|name| name.clinic))
}

#[tonic::async_trait]
impl IncidentService for Services {
    async fn open_incident(
        &self,
        request: Request<pb::OpenIncidentRequest>,
    ) -> Result<Response<pb::OpenIncidentResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn preview_plan(
        &self,
        request: Request<pb::PreviewPlanRequest>,
    ) -> Result<Response<pb::PreviewPlanResponse>, Status> {
        self.terminal(request, |r| of(&r.incident, Some(&r.request_id)))
            .await
    }

    async fn apply_plan(
        &self,
        request: Request<pb::ApplyPlanRequest>,
    ) -> Result<Response<pb::ApplyPlanResponse>, Status> {
        self.terminal(request, |r| of(&r.incident, Some(&r.request_id)))
            .await
    }

    async fn get_incident(
        &self,
        request: Request<pb::GetIncidentRequest>,
    ) -> Result<Response<pb::GetIncidentResponse>, Status> {
        self.terminal(request, |r| of(&r.incident, None)).await
    }

    /// Its pages' offsets travel sealed.
    async fn list_incident_lines(
        &self,
        mut request: Request<pb::ListIncidentLinesRequest>,
    ) -> Result<Response<pb::ListIncidentLinesResponse>, Status> {
        let asked = request.get_mut();
        of(&asked.incident, None)?;
        let plan = asked.plan.map(|plan| plan.to_string()).unwrap_or_default();
        let listing = [
            "list_incident_lines".to_owned(),
            asked.incident.clone(),
            plan,
        ];
        asked.page_token = self.answers.open_page(&listing, &asked.page_token)?;
        let mut answer = self.terminal(request, |r| of(&r.incident, None)).await?;
        let offset = std::mem::take(&mut answer.get_mut().next_page_token);
        answer.get_mut().next_page_token = self.answers.seal_page(&listing, &offset);
        Ok(answer)
    }
}
