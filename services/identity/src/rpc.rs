//! The services: decode, ask, encode.

use domain::{CampaignId, CohortId, Refusal, RegionId};
use proto::admin::campaign_admin_service_server::CampaignAdminService;
use proto::admin::{
    self as pb, ApplyCampaignRequest, ApplyCampaignResponse, GetCampaignRequest,
    GetCampaignResponse,
};
use proto::convert::{Fields, timestamp};
use proto::identity::identity_service_server::IdentityService;
use proto::identity::{
    ChangeRegionRequest, ChangeRegionResponse, IssuePermitRequest, IssuePermitResponse,
};
use proto::status::{Refused, refuse};
use runtime::keyspace::Keyspace;
use tonic::{Request, Response, Status};

use crate::assertion;
use crate::caller::{Callers, Operators};
use crate::campaigns;
use crate::issue::{Ask, Issued, Issuer};
use crate::rooms::Rooms;

mod load;
mod records;
mod region_changes;
mod rooms;

pub use load::DoorkeeperRpc;
pub use records::RoomRecords;
pub use region_changes::RegionChangesRpc;

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
            .await?;
        Ok(Response::new(permit_response(issued)))
    }

    /// Gateways take the steps: between them the region to be left is asked, which identity does not know.
    async fn change_region(
        &self,
        _: Request<ChangeRegionRequest>,
    ) -> Result<Response<ChangeRegionResponse>, Status> {
        Err(refuse(Refusal::NotImplemented))
    }
}

fn permit_response(issued: Issued) -> IssuePermitResponse {
    IssuePermitResponse {
        permit: issued.permit,
        cohort: issued.placed.cohort.into(),
        region: issued.placed.region.into(),
        serial: issued.placed.serial.0,
        bucket: issued.placed.place.bucket,
        expire_time: Some(timestamp(issued.expires_at)),
        moving_to: issued
            .placed
            .moving_to
            .map(String::from)
            .unwrap_or_default(),
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
        request: Request<pb::OpenRoomRequest>,
    ) -> Result<Response<pb::OpenRoomResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::open(&self.rooms, request.get_ref()).await
    }

    async fn pause_room(
        &self,
        request: Request<pb::PauseRoomRequest>,
    ) -> Result<Response<pb::PauseRoomResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::pause(&self.rooms, request.get_ref()).await
    }

    async fn resume_room(
        &self,
        request: Request<pb::ResumeRoomRequest>,
    ) -> Result<Response<pb::ResumeRoomResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::resume(&self.rooms, request.get_ref()).await
    }

    async fn commit_draw(
        &self,
        request: Request<pb::CommitDrawRequest>,
    ) -> Result<Response<pb::CommitDrawResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::commit_draw(&self.rooms, request.into_inner()).await
    }

    async fn freeze_draw(
        &self,
        request: Request<pb::FreezeDrawRequest>,
    ) -> Result<Response<pb::FreezeDrawResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::freeze_draw(&self.rooms, request.get_ref()).await
    }

    async fn reveal_draw(
        &self,
        request: Request<pb::RevealDrawRequest>,
    ) -> Result<Response<pb::RevealDrawResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::reveal_draw(&self.rooms, request.get_ref()).await
    }

    async fn enter_beacon(
        &self,
        request: Request<pb::EnterBeaconRequest>,
    ) -> Result<Response<pb::EnterBeaconResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::enter_beacon(&self.rooms, request.into_inner()).await
    }

    async fn open_doors(
        &self,
        request: Request<pb::OpenDoorsRequest>,
    ) -> Result<Response<pb::OpenDoorsResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::open_doors(&self.rooms, request.get_ref()).await
    }

    async fn set_room_ceiling(
        &self,
        request: Request<pb::SetRoomCeilingRequest>,
    ) -> Result<Response<pb::SetRoomCeilingResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::set_ceiling(&self.rooms, request.get_ref()).await
    }

    async fn set_room_rate(
        &self,
        request: Request<pb::SetRoomRateRequest>,
    ) -> Result<Response<pb::SetRoomRateResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::set_rate(&self.rooms, request.get_ref()).await
    }

    async fn get_room_status(
        &self,
        request: Request<pb::GetRoomStatusRequest>,
    ) -> Result<Response<pb::GetRoomStatusResponse>, Status> {
        self.operators.check(&request).map_err(refuse)?;
        rooms::status(&self.rooms, request.get_ref()).await
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
