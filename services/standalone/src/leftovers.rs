//! Leftover doses by hand, as a person: join, leave, offers, answer. Every answer is JSON.

use clap::Subcommand;
use domain::name::LeftoversName;
use jiff::civil::Time;
use proto::leftover as pb;
use proto::leftover::leftover_service_client::LeftoverServiceClient;
use serde_json::json;
use uuid::Uuid;

use crate::booking::{show, time};
use crate::client::{Called, Target, print};

/// `doseline leftovers`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask to be called when doses are left; asking again replaces what was asked.
    Join {
        #[command(flatten)]
        asking: Asking,
        /// Only this district; may be given several times.
        #[arg(long)]
        district: Vec<String>,
        /// Only this vaccine; may be given several times.
        #[arg(long)]
        vaccine: Vec<String>,
        /// Only near this place: latitude,longitude,metres.
        #[arg(long, value_parser = near)]
        near: Option<pb::Near>,
        /// From this hour of the day.
        #[arg(long, default_value = "00:00")]
        from: Time,
        /// Until this hour of the day; the end of the day when not given.
        #[arg(long)]
        to: Option<Time>,
    },
    /// Ask to be called no more.
    Leave {
        #[command(flatten)]
        asking: Asking,
    },
    /// What is offered, and was lately.
    Offers {
        #[command(flatten)]
        asking: Asking,
    },
    /// Accept an offer, or decline it.
    Answer {
        #[command(flatten)]
        asking: Asking,
        /// The round, as `offers` names it.
        round: LeftoversName,
        /// Decline it.
        #[arg(long)]
        decline: bool,
    },
}

/// Who asks.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Asking {
    #[command(flatten)]
    target: Target,
    /// The permit, as `doseline permit` printed it.
    #[arg(long, env = "DOSELINE_PERMIT", hide_env_values = true)]
    permit: String,
    /// The same for every retry of one intent; made here when not given.
    #[arg(long)]
    request_id: Option<Uuid>,
}

impl Asking {
    fn client(&self) -> anyhow::Result<LeftoverServiceClient<Called>> {
        Ok(LeftoverServiceClient::new(self.target.connect()?))
    }

    fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }
}

fn near(text: &str) -> Result<pb::Near, String> {
    let form = || "must be latitude,longitude,metres".to_owned();
    let mut parts = text.split(',');
    let mut next = || parts.next().map(str::trim).ok_or_else(form);
    Ok(pb::Near {
        latitude: next()?.parse().map_err(|_| form())?,
        longitude: next()?.parse().map_err(|_| form())?,
        distance_metres: next()?.parse().map_err(|_| form())?,
    })
}

fn minute(time: Time) -> u32 {
    u32::from(time.hour().unsigned_abs()) * 60 + u32::from(time.minute().unsigned_abs())
}

/// Runs `doseline leftovers`.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Join {
            asking,
            district,
            vaccine,
            near,
            from,
            to,
        } => {
            let request_id = asking.request_id();
            let request = pb::JoinLeftoversRequest {
                permit: asking.permit.clone(),
                request_id: request_id.clone(),
                wish: Some(pb::Wish {
                    districts: district,
                    near,
                    vaccines: vaccine,
                    from_minute: minute(from),
                    to_minute: to.map_or(domain::leftover::MINUTES_OF_DAY, minute),
                }),
            };
            let told = asking.client()?.join_leftovers(request).await?.into_inner();
            print(&json!({ "request_id": request_id, "repeated_answer": told.repeated_answer }))
        }
        Command::Leave { asking } => {
            let request_id = asking.request_id();
            let request = pb::LeaveLeftoversRequest {
                permit: asking.permit.clone(),
                request_id: request_id.clone(),
            };
            let told = asking
                .client()?
                .leave_leftovers(request)
                .await?
                .into_inner();
            print(&json!({ "request_id": request_id, "repeated_answer": told.repeated_answer }))
        }
        Command::Offers { asking } => offers(&asking).await,
        Command::Answer {
            asking,
            round,
            decline,
        } => {
            let request_id = asking.request_id();
            let request = pb::AnswerLeftoverOfferRequest {
                permit: asking.permit.clone(),
                request_id: request_id.clone(),
                leftovers: round.to_string(),
                accept: !decline,
            };
            let told = asking.client()?.answer_leftover_offer(request).await?;
            let told = told.into_inner();
            print(&json!({
                "request_id": request_id, "repeated_answer": told.repeated_answer,
                "booking": told.booking.map(show),
                "claim_version": told.claim_version,
            }))
        }
    }
}

async fn offers(asking: &Asking) -> anyhow::Result<()> {
    let permit = asking.permit.clone();
    let request = pb::ListLeftoverOffersRequest { permit };
    let told = asking.client()?.list_leftover_offers(request).await?;
    let told = told.into_inner();
    let offers = told.offers.iter().map(|offer| {
        let state = pb::PlaceState::try_from(offer.state).unwrap_or_default();
        json!({
            "leftovers": offer.leftovers, "vaccine": offer.vaccine, "state": state.as_str_name(),
            "deadline": time(offer.deadline), "come_by": time(offer.come_by),
        })
    });
    print(&json!({
        "joined": told.wish.is_some(), "offers": offers.collect::<Vec<_>>(),
        "poll_after_seconds": told.poll_after_seconds,
    }))
}
