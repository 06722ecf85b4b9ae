//! The services: decode, ask, encode.

use domain::{CampaignId, CohortId, Refusal, RegionId};
use proto::admin::campaign_admin_service_server::CampaignAdminService;
use proto::admin::{
    ApplyCampaignRequest, ApplyCampaignResponse, GetCampaignRequest, GetCampaignResponse,
    OpenRoomRequest, OpenRoomResponse, PauseRoomRequest, PauseRoomResponse,
};
use proto::convert::{Fields, timestamp};
use proto::identity::identity_service_server::IdentityService;
use proto::identity::{IssuePermitRequest, IssuePermitResponse};
use proto::status::{Refused, refuse};
use runtime::keyspace::Keyspace;
use tonic::{Request, Response, Status};

use crate::assertion;
use crate::caller::{Callers, Operators};
use crate::campaigns;
use crate::issue::{Ask, Issuer};
use crate::rooms::Rooms;

/// A sentence or two that people read while they wait.
const REASON_BYTES_MAX: usize = 500;

/// For gateways.
#[derive(Clone)]
pub struct IdentityRpc {
    pub(crate) issuer: Issuer,
    pub(crate) callers: Callers,
}

/// For operators.
#[derive(Clone)]
pub struct CampaignAdminRpc {
    pub(crate) keyspace: Keyspace,
    pub(crate) rooms: Rooms,
    pub(crate) operators: Operators,
}

#[tonic::async_trait]
impl IdentityService for IdentityRpc {
    async fn issue_permit(
        &self,
        request: Request<IssuePermitRequest>,
    ) -> Result<Response<IssuePermitResponse>, Status> {
        let caller = self.callers.check(&request).map_err(|refusal| {
            self.issuer.metrics.permit(Err(refusal));
            refuse(refusal)
        })?;
        let IssuePermitRequest {
            campaign,
            region,
            assertion,
        } = request.into_inner();
        let mut fields = Fields::default();
        let campaign = fields.parse::<CampaignId>("campaign", &campaign);
        let region = fields.parse::<RegionId>("region", &region);
        if assertion.is_empty() {
            fields.wrong("assertion", "is required");
        } else if assertion.len() > assertion::LENGTH_MAX {
            fields.wrong(
                "assertion",
                format!("must have at most {} bytes", assertion::LENGTH_MAX),
            );
        }
        let ask = campaign.zip(region);
        let (campaign, region) = fields.finish(ask).inspect_err(|refused| {
            self.issuer.metrics.permit(Err(refused.refusal));
        })?;
        let issued = self
            .issuer
            .issue(Ask {
                campaign,
                region,
                assertion,
                caller,
            })
            .await
            .map_err(refuse)?;
        Ok(Response::new(IssuePermitResponse {
            permit: issued.permit,
            cohort: issued.placed.cohort.into(),
            region: issued.placed.region.into(),
            serial: issued.placed.serial.0,
            bucket: issued.placed.place.bucket,
            expire_time: Some(timestamp(issued.expires_at)),
        }))
    }
}

#[tonic::async_trait]
impl CampaignAdminService for CampaignAdminRpc {
    async fn apply_campaign(
        &self,
        request: Request<ApplyCampaignRequest>,
    ) -> Result<Response<ApplyCampaignResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        let ApplyCampaignRequest {
            document,
            validate_only,
        } = request.into_inner();
        let version = campaigns::apply(&self.keyspace, &document, validate_only).await?;
        Ok(Response::new(ApplyCampaignResponse { version }))
    }

    async fn get_campaign(
        &self,
        request: Request<GetCampaignRequest>,
    ) -> Result<Response<GetCampaignResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        let mut fields = Fields::default();
        let campaign = fields.parse::<CampaignId>("campaign", &request.get_ref().campaign);
        let campaign = campaigns::get(&self.keyspace, &fields.finish(campaign)?).await?;
        let document =
            serde_json::to_string_pretty(&campaign).map_err(|_| refuse(Refusal::Unavailable))?;
        Ok(Response::new(GetCampaignResponse { document }))
    }

    async fn open_room(
        &self,
        request: Request<OpenRoomRequest>,
    ) -> Result<Response<OpenRoomResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        let OpenRoomRequest {
            campaign,
            cohort,
            people_per_kilosecond,
        } = request.into_inner();
        let (campaign, cohort) = room(Fields::default(), &campaign, &cohort)?;
        let written = self
            .rooms
            .open(&campaign, &cohort, people_per_kilosecond)
            .await?;
        Ok(Response::new(OpenRoomResponse {
            version: written.version,
            people: written.people,
        }))
    }

    async fn pause_room(
        &self,
        request: Request<PauseRoomRequest>,
    ) -> Result<Response<PauseRoomResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        let PauseRoomRequest {
            campaign,
            cohort,
            reason,
        } = request.into_inner();
        let mut fields = Fields::default();
        let reason = reason.trim();
        if reason.is_empty()
            || reason.len() > REASON_BYTES_MAX
            || reason.chars().any(char::is_control)
        {
            fields.wrong(
                "reason",
                format!("must be a text of 1 to {REASON_BYTES_MAX} bytes"),
            );
        }
        let (campaign, cohort) = room(fields, &campaign, &cohort)?;
        let written = self.rooms.pause(&campaign, &cohort, reason).await?;
        Ok(Response::new(PauseRoomResponse {
            version: written.version,
        }))
    }
}

fn room(
    mut fields: Fields,
    campaign: &str,
    cohort: &str,
) -> Result<(CampaignId, CohortId), Refused> {
    let campaign = fields.parse::<CampaignId>("campaign", campaign);
    let cohort = fields.parse::<CohortId>("cohort", cohort);
    fields.finish(campaign.zip(cohort))
}
