//! Rooms and draws for operators: decode, ask, encode.

use domain::room::draw::Announcement;
use domain::{CampaignId, CohortId, Timestamp};
use proto::admin as pb;
use proto::convert::Fields;
use tonic::{Response, Status};

use super::room;
use crate::doorkeeper::control::{Control, Rate};
use crate::doorkeeper::draw::Ask;
use crate::rooms::{Rooms, StepTaken};

/// A sentence or two that people read while they wait.
const REASON_BYTES_MAX: usize = 500;
/// A million people a second; above it is a slip of the finger.
const RATE_MAX: u64 = 1_000_000_000;

type Answer<T> = Result<Response<T>, Status>;

pub(super) async fn open(rooms: &Rooms, ask: &pb::OpenRoomRequest) -> Answer<pb::OpenRoomResponse> {
    let mut fields = Fields::default();
    check_rate(&mut fields, Some(ask.people_per_kilosecond));
    let (campaign, cohort) = room(fields, &ask.campaign, &ask.cohort)?;
    let rate = ask.people_per_kilosecond;
    let written = rooms.open(&campaign, &cohort, rate).await?;
    Ok(Response::new(pb::OpenRoomResponse {
        version: written.version,
        people: written.people,
    }))
}

pub(super) async fn pause(
    rooms: &Rooms,
    ask: &pb::PauseRoomRequest,
) -> Answer<pb::PauseRoomResponse> {
    let mut fields = Fields::default();
    let reason = ask.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control)
    {
        let problem = format!("must be a text of 1 to {REASON_BYTES_MAX} bytes");
        fields.wrong("reason", problem);
    }
    let (campaign, cohort) = room(fields, &ask.campaign, &ask.cohort)?;
    let written = rooms.pause(&campaign, &cohort, reason).await?;
    Ok(Response::new(pb::PauseRoomResponse {
        version: written.version,
    }))
}

pub(super) async fn resume(
    rooms: &Rooms,
    ask: &pb::ResumeRoomRequest,
) -> Answer<pb::ResumeRoomResponse> {
    let (campaign, cohort) = room(Fields::default(), &ask.campaign, &ask.cohort)?;
    let written = rooms.resume(&campaign, &cohort).await?;
    Ok(Response::new(pb::ResumeRoomResponse {
        version: written.version,
    }))
}

/// Makes the function of a step without arguments of its own.
macro_rules! step {
    ($name:ident, $request:ident, $response:ident, $ask:expr) => {
        pub(super) async fn $name(rooms: &Rooms, ask: &pb::$request) -> Answer<pb::$response> {
            let (campaign, cohort) = room(Fields::default(), &ask.campaign, &ask.cohort)?;
            let StepTaken {
                number,
                document,
                version,
            } = rooms.step((&campaign, &cohort), $ask).await?;
            Ok(Response::new(pb::$response {
                number,
                document,
                version,
            }))
        }
    };
}

step!(
    freeze_draw,
    FreezeDrawRequest,
    FreezeDrawResponse,
    Ask::Freeze
);
step!(
    reveal_draw,
    RevealDrawRequest,
    RevealDrawResponse,
    Ask::Reveal
);
step!(open_doors, OpenDoorsRequest, OpenDoorsResponse, Ask::Doors);

pub(super) async fn commit_draw(
    rooms: &Rooms,
    ask: pb::CommitDrawRequest,
) -> Answer<pb::CommitDrawResponse> {
    let mut fields = Fields::default();
    if ask.beacon.is_none() {
        fields.wrong("beacon", "is required: a source and a round");
    }
    if ask.reveal_by.is_none() {
        fields.wrong("reveal_by", "is required");
    }
    let beacon = ask
        .beacon
        .and_then(|it| announcement(&mut fields, "beacon", it));
    let second = match ask.second {
        Some(second) => announcement(&mut fields, "second", second).map(Some),
        None => Some(None),
    };
    let reveal_by = time(&mut fields, "reveal_by", ask.reveal_by.as_ref());
    let campaign = fields.parse::<CampaignId>("campaign", &ask.campaign);
    let cohort = fields.parse::<CohortId>("cohort", &ask.cohort);
    let whole = campaign.zip(cohort).zip(beacon.zip(second)).zip(reveal_by);
    let (((campaign, cohort), (beacon, second)), reveal_by) = fields.finish(whole)?;
    let ask = Ask::Commit {
        beacon,
        second,
        reveal_by,
    };
    let StepTaken {
        number,
        document,
        version,
    } = rooms.step((&campaign, &cohort), ask).await?;
    Ok(Response::new(pb::CommitDrawResponse {
        number,
        document,
        version,
    }))
}

pub(super) async fn enter_beacon(
    rooms: &Rooms,
    ask: pb::EnterBeaconRequest,
) -> Answer<pb::EnterBeaconResponse> {
    let mut fields = Fields::default();
    if ask.source.is_empty() != ask.round.is_empty() {
        let problem = "goes with source: both, or none for the first announcement";
        fields.wrong("round", problem);
    }
    if ask.value.is_empty() {
        fields.wrong("value", "is required, exactly as published");
    }
    let (campaign, cohort) = room(fields, &ask.campaign, &ask.cohort)?;
    let named = (!ask.source.is_empty()).then_some((ask.source, ask.round));
    let ask = Ask::Beacon {
        named,
        value: ask.value,
    };
    let StepTaken {
        number,
        document,
        version,
    } = rooms.step((&campaign, &cohort), ask).await?;
    Ok(Response::new(pb::EnterBeaconResponse {
        number,
        document,
        version,
    }))
}

pub(super) async fn set_ceiling(
    rooms: &Rooms,
    ask: &pb::SetRoomCeilingRequest,
) -> Answer<pb::SetRoomCeilingResponse> {
    let mut fields = Fields::default();
    check_rate(&mut fields, ask.people_per_kilosecond);
    let (campaign, cohort) = room(fields, &ask.campaign, &ask.cohort)?;
    let ceiling = ask.people_per_kilosecond;
    let control = rooms.ceiling(&campaign, &cohort, ceiling).await?;
    Ok(Response::new(pb::SetRoomCeilingResponse {
        control: Some(told(control)),
    }))
}

pub(super) async fn set_rate(
    rooms: &Rooms,
    ask: &pb::SetRoomRateRequest,
) -> Answer<pb::SetRoomRateResponse> {
    let mut fields = Fields::default();
    check_rate(&mut fields, ask.people_per_kilosecond);
    let (campaign, cohort) = room(fields, &ask.campaign, &ask.cohort)?;
    let rate = ask.people_per_kilosecond;
    let control = rooms.rate(&campaign, &cohort, rate).await?;
    Ok(Response::new(pb::SetRoomRateResponse {
        control: Some(told(control)),
    }))
}

pub(super) async fn status(
    rooms: &Rooms,
    ask: &pb::GetRoomStatusRequest,
) -> Answer<pb::GetRoomStatusResponse> {
    let (campaign, cohort) = room(Fields::default(), &ask.campaign, &ask.cohort)?;
    let shown = rooms.show(&campaign, &cohort).await?;
    Ok(Response::new(pb::GetRoomStatusResponse {
        room: serde_json::to_string(&shown.room).expect("plain fields always serialise"),
        control: Some(told(shown.control)),
        next_step: shown.next_step.unwrap_or_default().to_owned(),
    }))
}

fn told(control: Control) -> pb::RoomControl {
    use pb::room_control::Rate as Told;
    let (rate, people_per_kilosecond) = match control.rate {
        Rate::Adaptive => (Told::Adaptive, 0),
        Rate::Fixed { per_kilosecond } => (Told::Fixed, per_kilosecond),
        Rate::AtOnce => (Told::AtOnce, 0),
    };
    pb::RoomControl {
        rate: rate.into(),
        people_per_kilosecond,
        ceiling_people_per_kilosecond: control.ceiling_per_kilosecond,
    }
}

fn check_rate(fields: &mut Fields, per_kilosecond: Option<u64>) {
    if per_kilosecond.is_some_and(|rate| rate > RATE_MAX) {
        let problem = format!("must be at most {RATE_MAX}");
        fields.wrong("people_per_kilosecond", problem);
    }
}

fn announcement(
    fields: &mut Fields,
    path: &'static str,
    beacon: pb::BeaconAnnouncement,
) -> Option<Announcement> {
    let published_at = match &beacon.publish_time {
        Some(_) => Some(time(fields, path, beacon.publish_time.as_ref())?),
        None => None,
    };
    Some(Announcement {
        source: beacon.source,
        round: beacon.round,
        published_at,
    })
}

fn time(
    fields: &mut Fields,
    path: &'static str,
    time: Option<&prost_types::Timestamp>,
) -> Option<Timestamp> {
    let time = time?;
    let whole = time.seconds.checked_mul(1_000_000);
    let micros = whole.and_then(|micros| micros.checked_add(i64::from(time.nanos / 1_000)));
    if micros.is_none() {
        fields.wrong(path, "is not a time");
    }
    micros.map(Timestamp::from_micros)
}
