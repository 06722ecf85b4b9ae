//! The steps of a draw and what else operators do with rooms, over identity's admin port.

use anyhow::Context as _;
use jiff::Timestamp;
use proto::admin::campaign_admin_service_client::CampaignAdminServiceClient;
use proto::admin::{
    BeaconAnnouncement, CommitDrawRequest, EnterBeaconRequest, FreezeDrawRequest,
    GetRoomStatusRequest, OpenDoorsRequest, ResumeRoomRequest, RevealDrawRequest, RoomControl,
    SetRoomCeilingRequest, SetRoomRateRequest, room_control,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::admin::Admin;
use crate::client::print;

/// Which room, and where.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Room {
    #[command(flatten)]
    admin: Admin,
    /// The campaign.
    campaign: String,
    /// The cohort.
    cohort: String,
}

/// The rest of `doseline room`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Step 1 of the draw: fix the seed by its hash, and say which public value will be used.
    Commit {
        #[command(flatten)]
        room: Room,
        /// Who publishes the value, such as "drand quicknet".
        #[arg(long)]
        source: String,
        /// Exactly which value: a round's number, or a drawing's date.
        #[arg(long)]
        round: String,
        /// When it is published, such as 2031-03-01T19:58:45+09:00.
        #[arg(long)]
        published_at: Option<Timestamp>,
        /// The source to be used if the first value never comes.
        #[arg(long, requires = "second_round")]
        second_source: Option<String>,
        /// Which value of the second source.
        #[arg(long, requires = "second_source")]
        second_round: Option<String>,
        /// When that one is published.
        #[arg(long, requires = "second_source")]
        second_published_at: Option<Timestamp>,
        /// Until then the seed counts; after it, it is 32 zero bytes.
        #[arg(long)]
        reveal_by: Timestamp,
    },
    /// Step 2: close bucket 0 and publish the root of its list.
    Freeze {
        #[command(flatten)]
        room: Room,
    },
    /// Step 3: publish the seed.
    Reveal {
        #[command(flatten)]
        room: Room,
    },
    /// Step 4: enter the public value. The order is known from then on.
    Beacon {
        #[command(flatten)]
        room: Room,
        /// The value, exactly as published.
        value: String,
        /// The source, if it is not the first that was announced.
        #[arg(long, requires = "round", default_value = "")]
        source: String,
        /// The round, if it is not the first that was announced.
        #[arg(long, requires = "source", default_value = "")]
        round: String,
    },
    /// Step 5: open the doors.
    Doors {
        #[command(flatten)]
        room: Room,
    },
    /// Go on after a pause.
    Resume {
        #[command(flatten)]
        room: Room,
    },
    /// Limit how fast people are let in.
    Ceiling {
        #[command(flatten)]
        room: Room,
        /// People who come per second, in all regions together; without it the configuration's ceiling.
        people_per_second: Option<f64>,
    },
    /// Set how fast people are let in.
    Rate {
        #[command(flatten)]
        room: Room,
        /// People who come per second, in all regions together; 0 = everybody at once; without it as fast as the back
        /// end shows that it can take them.
        people_per_second: Option<f64>,
    },
    /// Show a room, what is set for it, and the step of the draw that comes next.
    Show {
        #[command(flatten)]
        room: Room,
    },
}

/// Runs one of them.
#[expect(clippy::too_many_lines, reason = "one arm for each command")]
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Commit {
            room,
            source,
            round,
            published_at,
            second_source,
            second_round,
            second_published_at,
            reveal_by,
        } => {
            let second = second_source.zip(second_round);
            let second =
                second.map(|(source, round)| announced(source, round, second_published_at));
            let (mut client, campaign, cohort) = room.client()?;
            let request = CommitDrawRequest {
                campaign,
                cohort,
                beacon: Some(announced(source, round, published_at)),
                second,
                reveal_by: Some(time(reveal_by)),
            };
            let taken = client.commit_draw(request).await?.into_inner();
            step(taken.number, &taken.document, taken.version)
        }
        Command::Freeze { room } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = FreezeDrawRequest { campaign, cohort };
            let taken = client.freeze_draw(request).await?.into_inner();
            step(taken.number, &taken.document, taken.version)
        }
        Command::Reveal { room } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = RevealDrawRequest { campaign, cohort };
            let taken = client.reveal_draw(request).await?.into_inner();
            step(taken.number, &taken.document, taken.version)
        }
        Command::Beacon {
            room,
            value,
            source,
            round,
        } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = EnterBeaconRequest {
                campaign,
                cohort,
                source,
                round,
                value,
            };
            let taken = client.enter_beacon(request).await?.into_inner();
            step(taken.number, &taken.document, taken.version)
        }
        Command::Doors { room } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = OpenDoorsRequest { campaign, cohort };
            let taken = client.open_doors(request).await?.into_inner();
            step(taken.number, &taken.document, taken.version)
        }
        Command::Resume { room } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = ResumeRoomRequest { campaign, cohort };
            let resumed = client.resume_room(request).await?.into_inner();
            print(&json!({ "version": resumed.version }))
        }
        Command::Ceiling {
            room,
            people_per_second,
        } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = SetRoomCeilingRequest {
                campaign,
                cohort,
                people_per_kilosecond: people_per_second.map(per_kilosecond).transpose()?,
            };
            let set = client.set_room_ceiling(request).await?.into_inner();
            print(&told(set.control))
        }
        Command::Rate {
            room,
            people_per_second,
        } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = SetRoomRateRequest {
                campaign,
                cohort,
                people_per_kilosecond: people_per_second.map(per_kilosecond).transpose()?,
            };
            let set = client.set_room_rate(request).await?.into_inner();
            print(&told(set.control))
        }
        Command::Show { room } => {
            let (mut client, campaign, cohort) = room.client()?;
            let request = GetRoomStatusRequest { campaign, cohort };
            let shown = client.get_room_status(request).await?.into_inner();
            let document: Value =
                serde_json::from_str(&shown.room).context("the room's document")?;
            let next = (!shown.next_step.is_empty()).then_some(shown.next_step);
            print(&json!({ "room": document, "control": told(shown.control), "next_step": next }))
        }
    }
}

impl Room {
    fn client(self) -> anyhow::Result<(CampaignAdminServiceClient<Channel>, String, String)> {
        let channel = self.admin.tls.channel(&self.admin.admin)?;
        let client = CampaignAdminServiceClient::new(channel);
        Ok((client, self.campaign, self.cohort))
    }
}

/// People per 1,000 seconds.
pub(crate) fn per_kilosecond(people_per_second: f64) -> anyhow::Result<u64> {
    anyhow::ensure!(
        (0.0..=1e6).contains(&people_per_second),
        "people per second must be 0 to 1000000"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded above"
    )]
    Ok((people_per_second * 1_000.0).round() as u64)
}

fn step(number: u32, document: &str, version: u64) -> anyhow::Result<()> {
    print(&json!({ "step": number, "version": version, "document": document }))
}

fn announced(source: String, round: String, at: Option<Timestamp>) -> BeaconAnnouncement {
    BeaconAnnouncement {
        source,
        round,
        publish_time: at.map(time),
    }
}

fn time(at: Timestamp) -> prost_types::Timestamp {
    // Rounded down, also before 1970.
    let nanos = at.as_nanosecond().rem_euclid(1_000_000_000);
    prost_types::Timestamp {
        seconds: i64::try_from(at.as_nanosecond().div_euclid(1_000_000_000)).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

fn told(control: Option<RoomControl>) -> Value {
    let control = control.unwrap_or_default();
    let per_second = |people: u64| people as f64 / 1_000.0;
    let rate = match control.rate() {
        room_control::Rate::Fixed => json!(per_second(control.people_per_kilosecond)),
        room_control::Rate::AtOnce => json!("everybody at once"),
        room_control::Rate::Adaptive | room_control::Rate::Unspecified => json!("adaptive"),
    };
    let ceiling = control.ceiling_people_per_kilosecond.map(per_second);
    json!({ "people_per_second": rate, "ceiling_people_per_second": ceiling })
}
