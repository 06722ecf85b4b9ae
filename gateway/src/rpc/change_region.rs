//! `ChangeRegion`: drives the steps, decides none of them.
//!
//! Identity notes that the person is about to leave, the region to be left lets them go or keeps them and signs which,
//! identity issues the next permit against that. Whoever dies in between leaves something that the next try goes on from.
//!
//! Invariant: nothing here is believed by anybody: each step carries the word of the part that took the one before.

use std::time::Duration;

use domain::{Refusal, RegionId};
use proto::booking::{GetBookingRequest, GetBookingResponse};
use proto::convert::Fields;
use proto::identity::{ChangeRegionRequest, ChangeRegionResponse, IssuePermitResponse};
use proto::inventory::{Depart, answer, command};
use proto::regions::begin_change_response::State;
use proto::regions::{BeginChangeRequest, CompleteChangeRequest, MovingPerson};
use proto::status::{Refused, refuse};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Services, caller, deadline, target};
use crate::callers::Caller;
use crate::routing::Call;

/// What the API documents for callers who name no deadline: three steps, and a take-over in the middle.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// A change that was taken back while it went on, or went on while it was taken back, is followed by the one asked for.
/// More of them in one call means that somebody else keeps moving the same person.
const CHANGES_MAX: usize = 3;

pub(super) async fn handle(
    services: &Services,
    request: Request<ChangeRegionRequest>,
) -> Result<Response<ChangeRegionResponse>, Status> {
    let caller = caller(&request)?;
    let deadline = deadline(&request, CHANGE_WITHIN);
    let request = request.into_inner();
    let wanted = check(&request).map_err(|why| services.turn_away(why))?;
    let change = Change {
        services,
        caller: &caller,
        wanted,
        give_up_booking: request.give_up_booking,
        deadline,
    };
    let answer = if request.validate_only {
        change.foretell(request.permit).await
    } else {
        change.run(request.permit).await
    };
    answer.map(Response::new)
}

fn check(request: &ChangeRegionRequest) -> Result<RegionId, Refused> {
    let mut fields = Fields::default();
    target::permit(&mut fields, &request.permit);
    let wanted = fields.parse::<RegionId>("region", &request.region);
    fields.finish(wanted)
}

/// A change of region under way.
struct Change<'a> {
    services: &'a Services,
    caller: &'a Caller,
    wanted: RegionId,
    give_up_booking: bool,
    deadline: Instant,
}

impl Change<'_> {
    async fn run(&self, mut permit: String) -> Result<ChangeRegionResponse, Status> {
        for _ in 0..CHANGES_MAX {
            let moving = match self.begin(&permit, false).await? {
                State::Settled(issued) => return Ok(changed(issued)),
                State::Moving(moving) => moving,
            };
            let receipt = self.depart(&moving).await?;
            let issued = self.complete(permit, receipt).await?;
            if issued.region == self.wanted.as_str() {
                return Ok(changed(issued));
            }
            permit = issued.permit;
        }
        Err(refuse(Refusal::Unavailable))
    }

    async fn begin(&self, permit: &str, validate_only: bool) -> Result<State, Status> {
        let request = BeginChangeRequest {
            permit: permit.to_owned(),
            region: self.wanted.to_string(),
            validate_only,
        };
        let asked = self.services.permits.region_change(
            self.caller,
            self.deadline,
            |mut client, signed| {
                let request = signed.with(request.clone());
                async move { client.begin_change(request).await }
            },
        );
        let state = asked.await?.into_inner().state;
        state.ok_or_else(|| not_understood("identity"))
    }

    /// The region's signed word about what became of the serial.
    async fn depart(&self, moving: &MovingPerson) -> Result<String, Status> {
        let action = command::Action::Depart(Depart {
            document: moving.document.clone(),
            stay: moving.from == self.wanted.as_str(),
            give_up_booking: self.give_up_booking,
        });
        let outcome = self.ask(&moving.from, action).await?;
        if let answer::Outcome::Departed(departed) = outcome {
            Ok(departed.receipt)
        } else {
            Err(not_understood("an inventory"))
        }
    }

    async fn complete(
        &self,
        permit: String,
        receipt: String,
    ) -> Result<IssuePermitResponse, Status> {
        let request = CompleteChangeRequest { permit, receipt };
        let asked = self.services.permits.region_change(
            self.caller,
            self.deadline,
            |mut client, signed| {
                let request = signed.with(request.clone());
                async move { client.complete_change(request).await }
            },
        );
        let permit = asked.await?.into_inner().permit;
        permit.ok_or_else(|| not_understood("identity"))
    }

    /// Asks any member of a region that identity named.
    async fn ask(&self, region: &str, action: command::Action) -> Result<answer::Outcome, Status> {
        let region = region.parse().map_err(|_| not_understood("identity"))?;
        let call = Call {
            caller: self.caller.system.clone(),
            region,
            clinic: None,
            oversees: false,
            deadline: self.deadline,
            action,
        };
        Ok(self.services.router.ask(call).await?)
    }

    /// How the person would stand; changes nothing.
    async fn foretell(&self, permit: String) -> Result<ChangeRegionResponse, Status> {
        let (from, moving_to) = match self.begin(&permit, true).await? {
            State::Settled(issued) => (issued.region, issued.moving_to),
            State::Moving(moving) => (moving.from, moving.to),
        };
        let Some(held) = self.held(&permit).await? else {
            // Identity has a newer permit, or the region has surrendered this one: the change only has to be ended.
            return Ok(ChangeRegionResponse {
                region: from,
                moving_to,
                ..ChangeRegionResponse::default()
            });
        };
        let present: RegionId = from.parse().map_err(|_| not_understood("identity"))?;
        let mut regions = vec![&present];
        if present != self.wanted {
            regions.push(&self.wanted);
        }
        let rooms = &self.services.rooms;
        let standings = regions
            .into_iter()
            .map(|region| rooms.standing(self.caller, &permit, region))
            .collect::<Result<Vec<_>, Refused>>()?;
        Ok(ChangeRegionResponse {
            region: from,
            serial: rooms.serial(&permit).unwrap_or_default(),
            standings,
            hold: held.hold.map(|hold| hold.name).unwrap_or_default(),
            booking: held.booking.map(|booking| booking.name).unwrap_or_default(),
            moving_to,
            ..ChangeRegionResponse::default()
        })
    }

    /// What the person has in the permit's region; `None` where the permit is worth nothing there any more.
    async fn held(&self, permit: &str) -> Result<Option<GetBookingResponse>, Status> {
        let request = GetBookingRequest {
            permit: permit.to_owned(),
            name: String::new(),
        };
        let region = super::get_booking::parse(&request)?.region;
        let action = command::Action::GetBooking(request);
        match self.ask(region.as_str(), action).await {
            Ok(answer::Outcome::GetBooking(held)) => Ok(Some(held)),
            Ok(_) => Err(not_understood("an inventory")),
            Err(status) => match proto::status::read(&status) {
                Some(refused) if refused.refusal == Refusal::PermitSuperseded => Ok(None),
                _ => Err(status),
            },
        }
    }
}

fn changed(issued: IssuePermitResponse) -> ChangeRegionResponse {
    ChangeRegionResponse {
        permit: issued.permit,
        region: issued.region,
        serial: issued.serial,
        expire_time: issued.expire_time,
        moving_to: issued.moving_to,
        ..ChangeRegionResponse::default()
    }
}

/// Somebody of a later version answered; asking again with the same permit is always right.
fn not_understood(who: &'static str) -> Status {
    tracing::error!(
        who,
        "an answer about a change of region cannot be understood"
    );
    refuse(Refusal::OutcomeUnknown)
}
