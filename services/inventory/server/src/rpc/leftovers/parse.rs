//! Leftovers' commands from protobuf to the ledger's ops: every wrong field is told at once.

use std::time::Duration;

use domain::command::BodyHash;
use domain::leftover::{MINUTES_OF_DAY, Near, Wish};
use domain::name::LeftoversName;
use domain::room::Bytes32;
use domain::{BookingId, CampaignId, Refusal, RegionId, RequestId, Timestamp, VaccineId};
use jiff::tz::TimeZone;
use prost::Message;
use proto::convert::{Fields, from_timestamp};
use proto::inventory::command::Action;
use proto::leftover as pb;
use sha2::{Digest as _, Sha256};

use super::{Asked, Kind};
use crate::admission::{CampaignView, day_at};
use crate::ledger::{LeftoverChange, NewRound};

/// A day's leftovers of a clinic are a vial or ten.
const DOSES_MAX: u32 = 1_000;
/// Half a minute to join after the seed was committed to.
const NOTICE_SECS: u32 = 30;
const ANSWER_SECS: u32 = 300;
/// Twice what a device waits between two polls: whoever polls sees every offer.
const ANSWER_SECS_MIN: u32 = 60;
const SECS_MAX: u32 = 3_600;
/// Seoul has 25 districts.
const DISTRICTS_MAX: usize = 25;
const DISTRICT_LENGTH_MAX: usize = 100;
const VACCINES_MAX: usize = 20;
const METRES_MAX: u32 = 1_000_000;

/// A person's command and its permit; `None` = a field is wrong and noted, or it is no command of these.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of command")]
pub(in crate::rpc) fn asked(
    fields: &mut Fields,
    action: Action,
    region: Option<&RegionId>,
) -> Option<(String, Asked)> {
    let (permit, kind, id, change, body) = match action {
        Action::ListLeftoverOffers(r) => return Some((r.permit, Asked::List)),
        Action::JoinLeftovers(r) => {
            let body = r.wish.as_ref().map(Message::encode_to_vec);
            let change = wish(fields, r.wish).map(LeftoverChange::Join);
            let kind = Kind::Join;
            (r.permit, kind, r.request_id, change, body)
        }
        Action::LeaveLeftovers(r) => {
            let kind = Kind::Leave;
            (
                r.permit,
                kind,
                r.request_id,
                Some(LeftoverChange::Leave),
                None,
            )
        }
        Action::AnswerLeftoverOffer(r) => {
            let name = fields.parse::<LeftoversName>("leftovers", &r.leftovers);
            if let Some(name) = &name
                && region.is_some_and(|region| *region != name.clinic.region)
            {
                fields.wrong("leftovers", "is of another region than the one asked");
            }
            let body = format!("{} {}", r.leftovers, r.accept).into_bytes();
            let change = name.map(|name| LeftoverChange::Answer {
                clinic: name.clinic.clinic,
                round: name.round,
                accept: r.accept,
                booking: BookingId(uuid::Uuid::new_v4()),
            });
            let kind = Kind::Answer;
            (r.permit, kind, r.request_id, change, Some(body))
        }
        Action::HoldSlots(_)
        | Action::ConfirmHold(_)
        | Action::ReleaseHold(_)
        | Action::Book(_)
        | Action::MoveBooking(_)
        | Action::CancelBooking(_)
        | Action::GetBooking(_)
        | Action::DeliverStock(_)
        | Action::RecordWastage(_)
        | Action::SetWalkIns(_)
        | Action::RecordWalkIn(_)
        | Action::OpenSlots(_)
        | Action::ResizeSlot(_)
        | Action::CloseSlots(_)
        | Action::ListAppointments(_)
        | Action::CheckIn(_)
        | Action::RecordDoseGiven(_)
        | Action::RecordNoShow(_)
        | Action::OfferLeftovers(_)
        | Action::CloseLeftovers(_)
        | Action::ListLeftovers(_)
        | Action::GetLeftovers(_)
        | Action::OpenIncident(_)
        | Action::PreviewPlan(_)
        | Action::ApplyPlan(_)
        | Action::GetIncident(_)
        | Action::ListIncidentLines(_)
        | Action::Depart(_)
        | Action::ReadSupply(_) => return None,
    };
    let request = fields.parse::<RequestId>("request_id", &id);
    let digest = Sha256::new()
        .chain_update(kind.call().op())
        .chain_update(body.unwrap_or_default())
        .finalize();
    let mut half = [0u8; 16];
    half.copy_from_slice(&digest[..16]);
    let asked = Asked::Change {
        kind,
        request: request?,
        body_hash: BodyHash(half),
        change: change?,
    };
    Some((permit, asked))
}

fn wish(fields: &mut Fields, wish: Option<pb::Wish>) -> Option<Wish> {
    let Some(wish) = wish else {
        fields.wrong("wish", "is required: the hours in which you would come");
        return None;
    };
    if wish.districts.len() > DISTRICTS_MAX {
        fields.wrong("wish.districts", format!("must be at most {DISTRICTS_MAX}"));
    }
    for (at, district) in wish.districts.iter().enumerate().take(DISTRICTS_MAX) {
        if !(1..=DISTRICT_LENGTH_MAX).contains(&district.len()) {
            let problem = format!("must have 1 to {DISTRICT_LENGTH_MAX} bytes");
            fields.wrong(format!("wish.districts[{at}]"), problem);
        }
    }
    if wish.vaccines.len() > VACCINES_MAX {
        fields.wrong("wish.vaccines", format!("must be at most {VACCINES_MAX}"));
    }
    let vaccines: Vec<VaccineId> = wish
        .vaccines
        .iter()
        .take(VACCINES_MAX)
        .enumerate()
        .filter_map(|(at, text)| fields.parse(&format!("wish.vaccines[{at}]"), text))
        .collect();
    let near = wish.near.map(|near| {
        // Not a number is in no range, either.
        if !(-90.0..=90.0).contains(&near.latitude) {
            fields.wrong("wish.near.latitude", "must be -90 to 90");
        }
        if !(-180.0..=180.0).contains(&near.longitude) {
            fields.wrong("wish.near.longitude", "must be -180 to 180");
        }
        within(
            fields,
            "wish.near.distance_metres",
            near.distance_metres,
            1,
            METRES_MAX,
        );
        Near {
            latitude: near.latitude,
            longitude: near.longitude,
            distance_metres: near.distance_metres,
        }
    });
    let from = within(
        fields,
        "wish.from_minute",
        wish.from_minute,
        0,
        MINUTES_OF_DAY - 1,
    );
    let least = wish.from_minute.min(MINUTES_OF_DAY - 1) + 1;
    let to = within(
        fields,
        "wish.to_minute",
        wish.to_minute,
        least,
        MINUTES_OF_DAY,
    );
    Some(Wish {
        districts: wish.districts,
        near,
        vaccines,
        from_minute: from?,
        to_minute: to?,
    })
}

/// A round as a clinic asks for it, without its seed. `None` = a field is wrong and noted.
pub(in crate::rpc) fn offered(
    fields: &mut Fields,
    r: &pb::OfferLeftoversRequest,
    region: Option<&RegionId>,
    campaign: impl FnOnce(&CampaignId) -> Option<std::sync::Arc<CampaignView>>,
    now: Timestamp,
) -> Result<Option<NewRound>, Refusal> {
    let id = fields.parse::<CampaignId>("campaign", &r.campaign);
    let vaccine = fields.parse::<VaccineId>("vaccine", &r.vaccine);
    let doses = within(fields, "doses", r.doses, 1, DOSES_MAX);
    let or = |secs: u32, usual: u32| if secs == 0 { usual } else { secs };
    let notice = or(r.notice_seconds, NOTICE_SECS);
    let notice = within(fields, "notice_seconds", notice, 1, SECS_MAX);
    let answer = or(r.answer_seconds, ANSWER_SECS);
    let answer = within(fields, "answer_seconds", answer, ANSWER_SECS_MIN, SECS_MAX);
    let closes = r.close_time.as_ref().map(from_timestamp);
    if closes.is_none() {
        fields.wrong("close_time", "is required: until when people may come");
    }
    let (Some(campaign_id), Some(vaccine), Some(region)) = (id, vaccine, region) else {
        return Ok(None);
    };
    let view = campaign(&campaign_id).ok_or(Refusal::CampaignUnknown)?;
    if !view.regions.contains(region) {
        return Err(Refusal::RegionNotInCampaign);
    }
    if !view.rules.vaccines.contains(&vaccine) {
        fields.wrong("vaccine", "must be one of the campaign's vaccines");
    }
    let (Some(doses), Some((notice, answer)), Some(closes_at)) =
        (doses, notice.zip(answer), closes)
    else {
        return Ok(None);
    };
    let Some(day) = day_at(&view.time_zone, now) else {
        return Err(Refusal::CampaignUnknown);
    };
    Ok(Some(NewRound {
        campaign: campaign_id,
        vaccine,
        doses,
        seed: Bytes32::ZERO,
        notice: Duration::from_secs(notice.into()),
        answer_within: Duration::from_secs(answer.into()),
        closes_at,
        day,
        minutes: minutes(&view.time_zone, now, closes_at),
    }))
}

/// Two instants in minutes after midnight, the second rounded up; an empty window where they are not of one day, which
/// the ledger refuses after it has looked for an answer that was given before.
fn minutes(zone: &TimeZone, from: Timestamp, to: Timestamp) -> (u32, u32) {
    let local = |at: Timestamp| {
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
        Some(zone.to_datetime(at))
    };
    let (Some(from), Some(to)) = (local(from), local(to)) else {
        return (0, 0);
    };
    if from.date() != to.date() {
        return (0, 0);
    }
    let minute = |at: jiff::civil::DateTime| {
        u32::from(at.hour().unsigned_abs()) * 60 + u32::from(at.minute().unsigned_abs())
    };
    (minute(from), (minute(to) + 1).min(MINUTES_OF_DAY))
}

fn within(fields: &mut Fields, field: &str, value: u32, least: u32, most: u32) -> Option<u32> {
    let fits = (least..=most).contains(&value);
    if !fits {
        fields.wrong(field, format!("must be {least} to {most}"));
    }
    fits.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_of_one_day_at_the_clinic() {
        let zone = TimeZone::get("Asia/Seoul").expect("a zone");
        // 2031-03-10 17:59:30 in Seoul.
        let five_to_six = Timestamp::from_secs(1_930_899_570);
        let later = |secs: i64| Timestamp::from_secs(1_930_899_570 + secs);
        assert_eq!(minutes(&zone, five_to_six, later(3_600)), (1_079, 1_140));
        // To the very end of the day, and not beyond it.
        assert_eq!(
            minutes(&zone, five_to_six, later(6 * 3_600 + 29)),
            (1_079, 1_440)
        );
        assert_eq!(minutes(&zone, five_to_six, later(6 * 3_600 + 30)), (0, 0));
        let (from, to) = minutes(&zone, five_to_six, later(-3_600));
        assert!(to <= from, "a window that ends before it begins is empty");
    }
}
