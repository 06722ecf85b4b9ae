//! Who asks about an incident: an operator, the clinic, or somebody who may not.

use std::time::Duration;

use proto::clinic as pb;
use proto::clinic::incident::State;
use proto::clinic::incident_service_client::IncidentServiceClient;
use system_tests::await_until::await_some;
use system_tests::town::Town;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

use super::SETTLED_WITHIN;

/// Somebody at a gateway.
pub(super) struct Desk {
    client: IncidentServiceClient<Channel>,
    system: &'static str,
    role: &'static str,
}

impl Desk {
    pub(super) fn at(
        town: &Town,
        system: &'static str,
        role: &'static str,
    ) -> anyhow::Result<Self> {
        let addr = &town.cluster.gateways[0].addr;
        let settings = runtime::transport::ClientSettings::default();
        let channel = runtime::transport::connect(addr, None, &settings)?;
        Ok(Self {
            client: IncidentServiceClient::new(channel),
            system,
            role,
        })
    }

    fn says<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(30));
        let metadata = request.metadata_mut();
        let text = tonic::metadata::MetadataValue::from_static;
        metadata.insert("x-doseline-caller", text(self.system));
        metadata.insert("x-doseline-role", text(self.role));
        request
    }

    pub(super) async fn open(
        &self,
        request: pb::OpenIncidentRequest,
    ) -> Result<pb::Incident, Status> {
        let mut client = self.client.clone();
        let answer = client.open_incident(self.says(request)).await?;
        Ok(answer.into_inner().incident.unwrap_or_default())
    }

    pub(super) async fn preview(&self, incident: &str) -> Result<pb::Incident, Status> {
        let request = pb::PreviewPlanRequest {
            incident: incident.to_owned(),
            request_id: id(),
        };
        let mut client = self.client.clone();
        let answer = client.preview_plan(self.says(request)).await?;
        Ok(answer.into_inner().incident.unwrap_or_default())
    }

    pub(super) async fn apply(&self, incident: &str, plan: u32) -> Result<pb::Incident, Status> {
        let request = pb::ApplyPlanRequest {
            incident: incident.to_owned(),
            request_id: id(),
            plan,
        };
        let mut client = self.client.clone();
        let answer = client.apply_plan(self.says(request)).await?;
        Ok(answer.into_inner().incident.unwrap_or_default())
    }

    pub(super) async fn get(&self, incident: &str) -> Result<pb::Incident, Status> {
        let request = pb::GetIncidentRequest {
            incident: incident.to_owned(),
        };
        let mut client = self.client.clone();
        let answer = client.get_incident(self.says(request)).await?;
        Ok(answer.into_inner().incident.unwrap_or_default())
    }

    /// All lines, read in small pages.
    pub(super) async fn lines(
        &self,
        incident: &str,
        plan: u32,
    ) -> Result<Vec<pb::IncidentLine>, Status> {
        let (mut lines, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListIncidentLinesRequest {
                incident: incident.to_owned(),
                plan: Some(plan),
                page_size: 50,
                page_token,
            };
            let mut client = self.client.clone();
            let page = client.list_incident_lines(self.says(request)).await?;
            let page = page.into_inner();
            lines.extend(page.lines);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// Waits until a plan was tried to its end.
    pub(super) async fn applied(&self, incident: &str) -> anyhow::Result<pb::Incident> {
        let applied = await_some("the plan is applied", SETTLED_WITHIN, || async {
            let now = self.get(incident).await.ok()?;
            (now.state() == State::Applied).then_some(now)
        });
        applied.await
    }
}

pub(super) fn id() -> String {
    Uuid::new_v4().to_string()
}
