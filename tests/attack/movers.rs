//! People who change their region: step by step as a gateway takes the steps, or in one call as an app asks for it.

use anyhow::Context as _;
use domain::permit::Permit;
use proto::booking::{GetBookingRequest, GetBookingResponse};
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::identity::{ChangeRegionRequest, ChangeRegionResponse, IssuePermitResponse};
use proto::inventory::{Answer, Command, Depart, answer::Outcome, command};
use proto::regions::begin_change_response::State;
use proto::regions::region_change_service_client::RegionChangeServiceClient;
use proto::regions::{BeginChangeRequest, CompleteChangeRequest, MovingPerson};
use tonic::Status;

use crate::straight::{ask, command, shown};
use crate::world::{CALLER, REGIONS, World, channel, said_by};

/// The steps of a change, taken with the secret of Doseline's parts.
pub(crate) struct Steps {
    pub(crate) internal: String,
    identity: String,
    inventory: String,
}

impl Steps {
    pub(crate) fn of(world: &World) -> anyhow::Result<Self> {
        Ok(Self {
            internal: world.internal()?,
            identity: world.cluster.identities[0].addr.clone(),
            inventory: world.cluster.inventories[0].addr.clone(),
        })
    }

    fn identity(&self) -> Result<RegionChangeServiceClient<tonic::transport::Channel>, Status> {
        let channel = channel(&self.identity).map_err(|why| Status::internal(why.to_string()))?;
        Ok(RegionChangeServiceClient::new(channel))
    }

    /// Identity notes that the person is about to leave.
    pub(crate) async fn begin(&self, permit: &str, region: &str) -> anyhow::Result<MovingPerson> {
        let request = BeginChangeRequest {
            permit: permit.to_owned(),
            region: region.to_owned(),
            validate_only: false,
        };
        let request = shown(Some(&self.internal), request);
        let begun = self.identity()?.begin_change(request).await?.into_inner();
        match begun.state {
            Some(State::Moving(moving)) => Ok(moving),
            other => anyhow::bail!("no change was begun: {other:?}"),
        }
    }

    /// The region that is named is asked to let a person go.
    pub(crate) async fn depart(&self, region: &str, asked: Depart) -> Result<Answer, Status> {
        let command = Command {
            region: region.to_owned(),
            ..command(CALLER, command::Action::Depart(asked))
        };
        let key = Some(self.internal.as_str());
        let mut answers = ask(&self.inventory, |all| shown(key, all), vec![command]).await?;
        answers.pop().ok_or_else(|| Status::internal("no answer"))
    }

    /// The same, where it must be done: the receipt.
    pub(crate) async fn receipt(&self, moving: &MovingPerson) -> anyhow::Result<String> {
        let asked = Depart {
            document: moving.document.clone(),
            stay: false,
            give_up_booking: true,
        };
        match self.depart(&moving.from, asked).await?.outcome {
            Some(Outcome::Departed(departed)) => Ok(departed.receipt),
            other => anyhow::bail!("{} let nobody go: {other:?}", moving.from),
        }
    }

    /// Identity ends the change.
    pub(crate) async fn complete(
        &self,
        key: Option<&str>,
        caller: &str,
        permit: &str,
        receipt: &str,
    ) -> Result<IssuePermitResponse, Status> {
        let request = CompleteChangeRequest {
            permit: permit.to_owned(),
            receipt: receipt.to_owned(),
        };
        let mut request = shown(key, request);
        if let Ok(caller) = caller.parse() {
            let _ = request.metadata_mut().insert("x-doseline-caller", caller);
        }
        let completed = self.identity()?.complete_change(request).await?;
        let permit = completed.into_inner().permit;
        permit.ok_or_else(|| Status::internal("no permit"))
    }
}

impl World {
    /// Asks a gateway for another region.
    pub(crate) async fn change_region(
        &self,
        permit: &str,
        region: &str,
        give_up_booking: bool,
    ) -> Result<ChangeRegionResponse, Status> {
        self.ask_change(permit, region, give_up_booking, false)
            .await
    }

    /// Asks a gateway how the person would stand in another region.
    pub(crate) async fn foretell_change(
        &self,
        permit: &str,
        region: &str,
    ) -> Result<ChangeRegionResponse, Status> {
        self.ask_change(permit, region, false, true).await
    }

    async fn ask_change(
        &self,
        permit: &str,
        region: &str,
        give_up_booking: bool,
        validate_only: bool,
    ) -> Result<ChangeRegionResponse, Status> {
        let request = ChangeRegionRequest {
            permit: permit.to_owned(),
            region: region.to_owned(),
            give_up_booking,
            validate_only,
        };
        let mut identity = IdentityServiceClient::new(self.gateway());
        let changed = identity.change_region(said_by(CALLER, request)).await?;
        Ok(changed.into_inner())
    }

    /// What the permit's holder has in its region.
    pub(crate) async fn held(&self, permit: &str) -> Result<GetBookingResponse, Status> {
        let request = GetBookingRequest {
            permit: permit.to_owned(),
            name: String::new(),
        };
        let held = self.bookings().get_booking(said_by(CALLER, request)).await;
        Ok(held?.into_inner())
    }

    /// The regions in whose ledgers the person has a booking or a hold.
    pub(crate) async fn regions_of(&self, permit: &Permit) -> anyhow::Result<Vec<&'static str>> {
        let of = "SELECT count(DISTINCT booking) FROM booking WHERE person = $1 AND campaign = $2 \
                  AND state <> 'CANCELLED'";
        let mut found = Vec::new();
        for region in REGIONS {
            let person: &[u8] = permit.person.as_bytes();
            let row = self
                .ledger(region)
                .await?
                .query_one(of, &[&person, &permit.campaign.as_str()])
                .await
                .with_context(|| format!("the ledger of {region}"))?;
            let bookings: i64 = row.get(0);
            anyhow::ensure!(bookings <= 1, "{bookings} bookings in {region}");
            if bookings > 0 {
                found.push(region);
            }
        }
        Ok(found)
    }
}
