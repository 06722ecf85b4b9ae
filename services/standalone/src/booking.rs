//! One booking by hand: permit, region, slots, book, move, cancel, show. Every answer is JSON.

use anyhow::Context as _;
use proto::availability::ListSlotsRequest;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::{
    BookRequest, Booking, CancelBookingRequest, GetBookingRequest, MoveBookingRequest,
};
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::identity::{ChangeRegionRequest, IssuePermitRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Target, print};

/// What every change of a booking names.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    #[command(flatten)]
    target: Target,
    /// The permit, as `doseline permit` printed it.
    #[arg(long, env = "DOSELINE_PERMIT", hide_env_values = true)]
    permit: String,
    /// The same for every retry of one intent; made here when not given.
    #[arg(long)]
    request_id: Option<Uuid>,
    /// The version in the last answer; 0 = never had a claim.
    #[arg(long, default_value_t = 0)]
    claim_version: u64,
}

impl Change {
    fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }
}

/// `doseline permit`.
#[derive(Debug, clap::Args)]
pub(crate) struct PermitArgs {
    #[command(flatten)]
    target: Target,
    /// The campaign.
    #[arg(long)]
    campaign: String,
    /// The region to book in.
    #[arg(long)]
    region: String,
    /// An assertion of a trusted identity provider.
    #[arg(long, env = "DOSELINE_ASSERTION", hide_env_values = true)]
    assertion: String,
    /// Print the permit alone, for scripts.
    #[arg(long)]
    bare: bool,
}

/// Asks for a permit.
pub(crate) async fn permit(args: PermitArgs) -> anyhow::Result<()> {
    let mut identity = IdentityServiceClient::new(args.target.connect()?);
    let PermitArgs {
        campaign,
        region,
        assertion,
        bare,
        ..
    } = args;
    let request = IssuePermitRequest {
        campaign,
        region,
        assertion,
    };
    let issued = identity.issue_permit(request).await?.into_inner();
    if bare {
        use std::io::Write as _;
        writeln!(std::io::stdout(), "{}", issued.permit)?;
        return Ok(());
    }
    print(&json!({
        "permit": issued.permit, "cohort": issued.cohort, "region": issued.region,
        "serial": issued.serial, "bucket": issued.bucket, "expire_time": time(issued.expire_time),
        "moving_to": issued.moving_to,
    }))
}

/// `doseline change-region`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChangeRegionArgs {
    #[command(flatten)]
    target: Target,
    /// The permit.
    #[arg(long, env = "DOSELINE_PERMIT", hide_env_values = true)]
    permit: String,
    /// The region to book in from now on; the permit's own takes a change back that has not ended.
    #[arg(long)]
    region: String,
    /// Give up an active booking in the region to be left.
    #[arg(long)]
    give_up_booking: bool,
    /// Only tell how the person would stand in both regions.
    #[arg(long)]
    preview: bool,
    /// Print the new permit alone, for scripts.
    #[arg(long, conflicts_with = "preview")]
    bare: bool,
}

/// Takes the permit's holder to another region, or tells what that would mean.
pub(crate) async fn change_region(args: ChangeRegionArgs) -> anyhow::Result<()> {
    let mut identity = IdentityServiceClient::new(args.target.connect()?);
    let request = ChangeRegionRequest {
        permit: args.permit,
        region: args.region,
        give_up_booking: args.give_up_booking,
        validate_only: args.preview,
    };
    let changed = identity.change_region(request).await?.into_inner();
    if args.bare {
        use std::io::Write as _;
        writeln!(std::io::stdout(), "{}", changed.permit)?;
        return Ok(());
    }
    if !args.preview {
        return print(&json!({
            "permit": changed.permit, "region": changed.region, "serial": changed.serial,
            "expire_time": time(changed.expire_time),
        }));
    }
    let standings: Vec<Value> = changed
        .standings
        .into_iter()
        .map(|one| {
            let place = one.place.unwrap_or_default();
            json!({
                "region": one.region, "admitted": place.admitted, "position": place.position,
                "ordinal": one.ordinal, "frontier": one.frontier, "left": one.left,
            })
        })
        .collect();
    print(&json!({
        "region": changed.region, "serial": changed.serial, "standings": standings,
        "hold": changed.hold, "booking": changed.booking, "moving_to": changed.moving_to,
    }))
}

/// `doseline slots`.
#[derive(Debug, clap::Args)]
pub(crate) struct SlotsArgs {
    #[command(flatten)]
    target: Target,
    /// The region.
    #[arg(long)]
    region: String,
    /// Only this district.
    #[arg(long, default_value = "")]
    district: String,
    /// Only this clinic, by its full name.
    #[arg(long, default_value = "")]
    clinic: String,
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    page_size: i32,
    /// From the page before.
    #[arg(long, default_value = "")]
    page_token: String,
    /// Print the first slot's name alone, for scripts.
    #[arg(long)]
    first: bool,
}

/// Lists slots.
pub(crate) async fn slots(args: SlotsArgs) -> anyhow::Result<()> {
    let mut availability = AvailabilityServiceClient::new(args.target.connect()?);
    let request = ListSlotsRequest {
        region: args.region,
        district: args.district,
        clinic: args.clinic,
        page_size: args.page_size,
        page_token: args.page_token,
        ..ListSlotsRequest::default()
    };
    let page = availability.list_slots(request).await?.into_inner();
    if args.first {
        use std::io::Write as _;
        let slot = page.slots.first().context("no slot has places left")?;
        writeln!(std::io::stdout(), "{}", slot.name)?;
        return Ok(());
    }
    let slots: Vec<Value> = page
        .slots
        .into_iter()
        .map(|slot| {
            json!({
                "name": slot.name, "start_time": time(slot.start_time), "vaccine": slot.vaccine,
                "dose": slot.dose, "capacity": slot.capacity, "left": slot.left,
            })
        })
        .collect();
    print(&json!({
        "slots": slots, "next_page_token": page.next_page_token, "as_of": time(page.as_of),
    }))
}

/// `doseline book`.
#[derive(Debug, clap::Args)]
pub(crate) struct BookArgs {
    #[command(flatten)]
    change: Change,
    /// One slot name, or two of one clinic: dose 1, then dose 2.
    #[arg(required = true, num_args = 1..=2)]
    slots: Vec<String>,
}

/// Books.
pub(crate) async fn book(args: BookArgs) -> anyhow::Result<()> {
    let mut booking = BookingServiceClient::new(args.change.target.connect()?);
    let request_id = args.change.request_id();
    let request = BookRequest {
        permit: args.change.permit,
        request_id: request_id.clone(),
        claim_version: args.change.claim_version,
        slots: args.slots,
    };
    let answer = booking.book(request).await?.into_inner();
    tell(
        answer.booking,
        answer.claim_version,
        answer.repeated_answer,
        &request_id,
    )
}

/// `doseline move`.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    change: Change,
    /// The booking's name.
    #[arg(long)]
    booking: String,
    /// The dose to move.
    #[arg(long, default_value_t = 1)]
    dose: u32,
    /// The slot wanted instead.
    slot: String,
}

/// Moves an appointment.
pub(crate) async fn move_booking(args: MoveArgs) -> anyhow::Result<()> {
    let mut booking = BookingServiceClient::new(args.change.target.connect()?);
    let request_id = args.change.request_id();
    let request = MoveBookingRequest {
        permit: args.change.permit,
        request_id: request_id.clone(),
        claim_version: args.change.claim_version,
        booking: args.booking,
        dose: args.dose,
        slot: args.slot,
    };
    let answer = booking.move_booking(request).await?.into_inner();
    tell(
        answer.booking,
        answer.claim_version,
        answer.repeated_answer,
        &request_id,
    )
}

/// `doseline cancel`.
#[derive(Debug, clap::Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    change: Change,
    /// The booking's name.
    booking: String,
    /// The dose to give up; 0 = the whole booking.
    #[arg(long, default_value_t = 0)]
    dose: u32,
}

/// Cancels.
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<()> {
    let mut booking = BookingServiceClient::new(args.change.target.connect()?);
    let request_id = args.change.request_id();
    let request = CancelBookingRequest {
        permit: args.change.permit,
        request_id: request_id.clone(),
        claim_version: args.change.claim_version,
        booking: args.booking,
        dose: args.dose,
    };
    let answer = booking.cancel_booking(request).await?.into_inner();
    tell(
        None,
        answer.claim_version,
        answer.repeated_answer,
        &request_id,
    )
}

/// `doseline booking`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    target: Target,
    /// The permit.
    #[arg(long, env = "DOSELINE_PERMIT", hide_env_values = true)]
    permit: String,
}

/// Shows the permit holder's booking.
pub(crate) async fn get(args: GetArgs) -> anyhow::Result<()> {
    let mut booking = BookingServiceClient::new(args.target.connect()?);
    let request = GetBookingRequest {
        permit: args.permit,
        name: String::new(),
    };
    let answer = booking.get_booking(request).await?.into_inner();
    let hold = answer.hold.map(|hold| {
        json!({ "name": hold.name, "expire_time": time(hold.expire_time), "slots": hold.slots })
    });
    print(&json!({
        "booking": answer.booking.map(show), "hold": hold, "claim_version": answer.claim_version,
    }))
}

fn tell(
    booking: Option<Booking>,
    version: u64,
    repeated: bool,
    request_id: &str,
) -> anyhow::Result<()> {
    print(&json!({
        "booking": booking.map(show), "claim_version": version, "repeated_answer": repeated,
        "request_id": request_id,
    }))
}

pub(crate) fn show(booking: Booking) -> Value {
    let appointments: Vec<Value> = booking
        .appointments
        .into_iter()
        .map(|one| {
            json!({
                "slot": one.slot, "dose": one.dose, "start_time": time(one.start_time),
                "vaccine": one.vaccine, "state": one.state().as_str_name(),
            })
        })
        .collect();
    json!({ "name": booking.name, "code": booking.code, "appointments": appointments })
}

pub(crate) fn time(at: Option<prost_types::Timestamp>) -> Option<String> {
    at.map(|at| proto::convert::from_timestamp(&at).to_string())
}
