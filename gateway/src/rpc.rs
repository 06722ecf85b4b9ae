//! The public services: each method parses, asks and answers in a file of its own.
//!
//! Invariant: whatever is wrong with a request is told here, all of it at once; beyond this point names are ids.

mod book;
mod cancel_booking;
mod change_region;
mod confirm_hold;
mod get_booking;
mod get_draw;
mod get_inclusion_proof;
mod get_place;
mod get_room;
mod get_supply;
mod hold_slots;
mod incident;
mod issue_permit;
mod leftovers;
mod list_clinics;
mod list_room_versions;
mod list_slots;
mod list_tickets;
mod move_booking;
mod query_inventory;
mod release_hold;
mod target;
mod terminal;
mod watch_availability;
mod watch_inventory;
mod watch_room;

use std::pin::Pin;
use std::time::Duration;

use domain::Refusal;
use futures::Stream;
use proto::Method;
use proto::availability::{
    GetSupplyRequest, ListClinicsRequest, ListSlotsRequest, WatchAvailabilityRequest,
};
use proto::availability_encoded::availability_service_server::AvailabilityService;
use proto::booking as pb;
use proto::booking::booking_service_server::BookingService;
use proto::clinic as clinics;
use proto::clinic::clinic_service_server::ClinicService;
use proto::encoded::Encoded;
use proto::identity::identity_service_server::IdentityService;
use proto::identity::{
    ChangeRegionRequest, ChangeRegionResponse, IssuePermitRequest, IssuePermitResponse,
};
use proto::room::{
    GetDrawRequest, GetDrawResponse, GetInclusionProofRequest, GetInclusionProofResponse,
    GetPlaceRequest, GetPlaceResponse, GetRoomRequest, ListRoomVersionsRequest,
    ListRoomVersionsResponse, ListTicketsRequest, ListTicketsResponse, WatchRoomRequest,
};
use proto::room_encoded::room_service_server::RoomService;
use proto::status::{Refused, refuse};
use runtime::fields;
use runtime::transport::Deadline;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::availability::{Answers, InventoryStream, Supply, WatchStream};
use crate::callers::{Caller, Role};
use crate::metrics::Refusals;
use crate::permits::Permits;
use crate::room::{Rooms, Streams};
use crate::routing::{Call, Router, Verb};

pub(crate) use target::{Target, unknown_region};

/// What the API documents for callers who name no deadline.
const COMMAND_WITHIN: Duration = Duration::from_secs(3);
/// A plan reads all that is free in a region.
const PLAN_WITHIN: Duration = Duration::from_secs(30);
const PERMIT_WITHIN: Duration = Duration::from_secs(5);
/// We answer this much before the caller's deadline, so that the answer is ours and says what is known.
const ANSWER_BEFORE: Duration = Duration::from_millis(20);
const TIMEOUT_HEADER: &str = "grpc-timeout";

/// A streamed answer.
pub(crate) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All public services. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) router: Router,
    pub(crate) permits: Permits,
    pub(crate) answers: Answers,
    pub(crate) supply: Supply,
    pub(crate) rooms: Rooms,
    pub(crate) streams: Streams,
    pub(crate) refusals: Refusals,
}

impl Services {
    /// Counts what is refused without asking anybody.
    fn turn_away(&self, why: Refused) -> Refused {
        self.refusals.count(why.refusal);
        why
    }

    /// A command's whole way: parsed for where it goes, asked there, its answer unwrapped.
    async fn command<V: Verb>(
        &self,
        request: Request<V>,
        parse: impl FnOnce(&V) -> Result<Target, Refused>,
    ) -> Result<Response<V::Response>, Status> {
        let caller = caller(&request)?;
        let usual = if V::METHOD == Method::PreviewPlan {
            PLAN_WITHIN
        } else {
            COMMAND_WITHIN
        };
        let deadline = deadline(&request, usual);
        let body = request.into_inner();
        let Target { region, clinic } = parse(&body).map_err(|why| self.turn_away(why))?;
        let op = V::METHOD.op();
        let span = tracing::debug_span!(target: fields::RPC_TARGET, "op", op, %region);
        let call = Call {
            caller: caller.system,
            oversees: caller.role == Role::Operator,
            region,
            clinic,
            deadline,
            action: body.into_action(),
        };
        let outcome = self.router.ask(call).instrument(span).await?;
        V::from_outcome(outcome).map(Response::new).ok_or_else(|| {
            tracing::error!(
                op,
                "an inventory answered another command than the one asked"
            );
            refuse(Refusal::OutcomeUnknown)
        })
    }
}

/// Who calls, as the callers' layer found out.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| refuse(Refusal::CallerUnknown))
}

/// Until when to answer: what the caller gives, or `usual` when nothing is given.
fn deadline<T>(request: &Request<T>, usual: Duration) -> Instant {
    let usual = Deadline::within(usual);
    let given = Deadline::of(request.extensions());
    let at = match given {
        Some(given) if request.metadata().contains_key(TIMEOUT_HEADER) => given,
        Some(cap) => cap.sooner(usual),
        None => usual,
    };
    let before = ANSWER_BEFORE.min(at.remaining() / 10);
    at.at() - before
}

#[tonic::async_trait]
impl BookingService for Services {
    async fn hold_slots(
        &self,
        request: Request<pb::HoldSlotsRequest>,
    ) -> Result<Response<pb::HoldSlotsResponse>, Status> {
        self.command(request, hold_slots::parse).await
    }

    async fn confirm_hold(
        &self,
        request: Request<pb::ConfirmHoldRequest>,
    ) -> Result<Response<pb::ConfirmHoldResponse>, Status> {
        self.command(request, confirm_hold::parse).await
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::ReleaseHoldResponse>, Status> {
        self.command(request, release_hold::parse).await
    }

    async fn book(
        &self,
        request: Request<pb::BookRequest>,
    ) -> Result<Response<pb::BookResponse>, Status> {
        self.command(request, book::parse).await
    }

    async fn move_booking(
        &self,
        request: Request<pb::MoveBookingRequest>,
    ) -> Result<Response<pb::MoveBookingResponse>, Status> {
        self.command(request, move_booking::parse).await
    }

    async fn cancel_booking(
        &self,
        request: Request<pb::CancelBookingRequest>,
    ) -> Result<Response<pb::CancelBookingResponse>, Status> {
        self.command(request, cancel_booking::parse).await
    }

    async fn get_booking(
        &self,
        request: Request<pb::GetBookingRequest>,
    ) -> Result<Response<pb::GetBookingResponse>, Status> {
        self.command(request, get_booking::parse).await
    }
}

#[tonic::async_trait]
impl IdentityService for Services {
    async fn issue_permit(
        &self,
        request: Request<IssuePermitRequest>,
    ) -> Result<Response<IssuePermitResponse>, Status> {
        issue_permit::handle(self, request).await
    }

    async fn change_region(
        &self,
        request: Request<ChangeRegionRequest>,
    ) -> Result<Response<ChangeRegionResponse>, Status> {
        change_region::handle(self, request).await
    }
}

#[tonic::async_trait]
impl RoomService for Services {
    async fn get_room(
        &self,
        request: Request<GetRoomRequest>,
    ) -> Result<Response<Encoded>, Status> {
        get_room::handle(self, request.get_ref())
    }

    async fn get_place(
        &self,
        request: Request<GetPlaceRequest>,
    ) -> Result<Response<GetPlaceResponse>, Status> {
        get_place::handle(self, &request)
    }

    type WatchRoomStream = Streamed<Encoded>;

    async fn watch_room(
        &self,
        request: Request<WatchRoomRequest>,
    ) -> Result<Response<Self::WatchRoomStream>, Status> {
        watch_room::handle(self, request.get_ref())
    }

    async fn get_draw(
        &self,
        request: Request<GetDrawRequest>,
    ) -> Result<Response<GetDrawResponse>, Status> {
        get_draw::handle(self, request.get_ref())
    }

    type ListTicketsStream = Streamed<ListTicketsResponse>;

    async fn list_tickets(
        &self,
        request: Request<ListTicketsRequest>,
    ) -> Result<Response<Self::ListTicketsStream>, Status> {
        list_tickets::handle(self, request).await
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<GetInclusionProofRequest>,
    ) -> Result<Response<GetInclusionProofResponse>, Status> {
        get_inclusion_proof::handle(self, request).await
    }

    type ListRoomVersionsStream = Streamed<ListRoomVersionsResponse>;

    async fn list_room_versions(
        &self,
        request: Request<ListRoomVersionsRequest>,
    ) -> Result<Response<Self::ListRoomVersionsStream>, Status> {
        list_room_versions::handle(self, request).await
    }
}

#[tonic::async_trait]
impl AvailabilityService for Services {
    async fn list_clinics(
        &self,
        request: Request<ListClinicsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        list_clinics::handle(self, request.get_ref())
    }

    async fn list_slots(
        &self,
        request: Request<ListSlotsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        list_slots::handle(self, request.get_ref())
    }

    type WatchAvailabilityStream = WatchStream;

    async fn watch_availability(
        &self,
        request: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        watch_availability::handle(self, request.get_ref())
    }

    async fn get_supply(
        &self,
        request: Request<GetSupplyRequest>,
    ) -> Result<Response<Encoded>, Status> {
        get_supply::handle(self, request).await
    }
}

#[tonic::async_trait]
impl ClinicService for Services {
    async fn query_inventory(
        &self,
        request: Request<clinics::QueryInventoryRequest>,
    ) -> Result<Response<clinics::QueryInventoryResponse>, Status> {
        query_inventory::handle(self, &request)
    }

    type WatchInventoryStream = InventoryStream;

    async fn watch_inventory(
        &self,
        request: Request<clinics::WatchInventoryRequest>,
    ) -> Result<Response<InventoryStream>, Status> {
        watch_inventory::handle(self, &request)
    }

    async fn list_appointments(
        &self,
        request: Request<clinics::ListAppointmentsRequest>,
    ) -> Result<Response<clinics::ListAppointmentsResponse>, Status> {
        terminal::list_appointments(self, request).await
    }

    async fn deliver_stock(
        &self,
        request: Request<clinics::DeliverStockRequest>,
    ) -> Result<Response<clinics::DeliverStockResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn record_wastage(
        &self,
        request: Request<clinics::RecordWastageRequest>,
    ) -> Result<Response<clinics::RecordWastageResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn set_walk_ins(
        &self,
        request: Request<clinics::SetWalkInsRequest>,
    ) -> Result<Response<clinics::SetWalkInsResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn record_walk_in(
        &self,
        request: Request<clinics::RecordWalkInRequest>,
    ) -> Result<Response<clinics::RecordWalkInResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn open_slots(
        &self,
        request: Request<clinics::OpenSlotsRequest>,
    ) -> Result<Response<clinics::OpenSlotsResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn resize_slot(
        &self,
        request: Request<clinics::ResizeSlotRequest>,
    ) -> Result<Response<clinics::ResizeSlotResponse>, Status> {
        self.terminal(request, |r| terminal::slot(&r.slot, &r.request_id))
            .await
    }

    async fn close_slots(
        &self,
        request: Request<clinics::CloseSlotsRequest>,
    ) -> Result<Response<clinics::CloseSlotsResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, None)
        })
        .await
    }

    async fn check_in(
        &self,
        request: Request<clinics::CheckInRequest>,
    ) -> Result<Response<clinics::CheckInResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, Some(&r.code))
        })
        .await
    }

    async fn record_dose_given(
        &self,
        request: Request<clinics::RecordDoseGivenRequest>,
    ) -> Result<Response<clinics::RecordDoseGivenResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, Some(&r.code))
        })
        .await
    }

    async fn record_no_show(
        &self,
        request: Request<clinics::RecordNoShowRequest>,
    ) -> Result<Response<clinics::RecordNoShowResponse>, Status> {
        self.terminal(request, |r| {
            terminal::clinic(&r.clinic, &r.request_id, Some(&r.code))
        })
        .await
    }
}
