//! Where a person stands, when their turn may come and when to ask again: pure functions of room, place and rules.

use std::time::Duration;

use domain::permit::{Permit, Unusable};
use domain::room::Phase;
use domain::room::wait::{Reason, View, Waiter, Waiting, own};
use domain::{Refusal, RegionId, Timestamp};
use proto::identity::RegionStanding;
use proto::room::{GetPlaceResponse, WaitReason};
use proto::status::Refused;

use super::Rooms;
use super::rules::Rules;
use super::state::RoomView;
use crate::callers::Caller;

impl Rooms {
    /// The place of a permit's holder, for the calling system that the permit was issued through.
    pub(crate) fn place(&self, caller: &Caller, permit: &str) -> Result<GetPlaceResponse, Refused> {
        let permit = self.callers_permit(caller, permit)?;
        let (view, rules) = self.of(&permit).ok_or(Refusal::CampaignUnknown)?;
        let followed = self.followed(&view);
        let region = &permit.region;
        Ok(place(
            &view,
            &permit,
            region,
            rules,
            (followed, self.now()),
        )?)
    }

    /// How a permit's holder stands in a region, or would stand there with the place they have.
    pub(crate) fn standing(
        &self,
        caller: &Caller,
        permit: &str,
        region: &RegionId,
    ) -> Result<RegionStanding, Refused> {
        let permit = self.callers_permit(caller, permit)?;
        let (view, rules) = self.of(&permit).ok_or(Refusal::CampaignUnknown)?;
        let followed = self.followed(&view);
        let place = place(&view, &permit, region, rules, (followed, self.now()))?;
        let room = view.seen.room();
        let opened = room.phase.may_follow(Phase::Open);
        Ok(RegionStanding {
            region: region.to_string(),
            place: Some(place),
            ordinal: view.seen.ordinal(&permit.place),
            frontier: view.seen.frontier(region, followed).unwrap_or(0),
            left: room
                .regions
                .get(region)
                .filter(|_| opened)
                .map(|line| line.left),
        })
    }

    /// The serial that a permit names.
    pub(crate) fn serial(&self, permit: &str) -> Option<u64> {
        self.permit(permit).ok().map(|permit| permit.serial.0)
    }

    fn callers_permit(&self, caller: &Caller, permit: &str) -> Result<Permit, Refusal> {
        let permit = self.permit(permit).map_err(|why| match why {
            Unusable::Untrusted(_) => Refusal::PermitInvalid,
            Unusable::Expired => Refusal::PermitExpired,
        })?;
        if permit.caller == caller.system {
            Ok(permit)
        } else {
            Err(Refusal::PermitForeignCaller)
        }
    }
}

fn place(
    view: &RoomView,
    permit: &Permit,
    region: &RegionId,
    rules: Rules,
    (followed, now): (Duration, Timestamp),
) -> Result<GetPlaceResponse, Refusal> {
    let Rules { pace, opens_at } = rules;
    let line = View::of(&view.seen, region, followed, pace, opens_at);
    let line = line.ok_or(Refusal::RegionNotInCampaign)?;
    let waiter = Waiter {
        ordinal: view.seen.ordinal(&permit.place),
        own: own(&permit.place),
    };
    Ok(told(line.tell(&waiter, now), line.version))
}

fn told(waiting: Waiting, room_version: u64) -> GetPlaceResponse {
    let eta = waiting.eta;
    GetPlaceResponse {
        admitted: waiting.admitted,
        position: waiting.position,
        poll_after: Some(duration(waiting.poll_after)),
        room_version,
        eta_from: eta.map(|eta| duration(eta.from)),
        eta_to: eta.and_then(|eta| eta.to).map(duration),
        reason: waiting
            .reason
            .map_or(WaitReason::Unspecified, reason)
            .into(),
        reason_version: waiting.reason_version,
    }
}

fn reason(reason: Reason) -> WaitReason {
    match reason {
        Reason::NotOpen => WaitReason::NotOpen,
        Reason::BucketOpen => WaitReason::BucketOpen,
        Reason::Slowed => WaitReason::Slowed,
        Reason::Presence => WaitReason::Presence,
        Reason::Ceiling => WaitReason::Ceiling,
        Reason::Supply => WaitReason::Supply,
        Reason::Exhausted => WaitReason::Exhausted,
        Reason::Paused => WaitReason::Paused,
        Reason::Ended => WaitReason::Ended,
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}
#[cfg(test)]
mod tests {
    use domain::room::wait::Eta;

    use super::*;

    #[test]
    fn what_is_not_known_is_absent_and_reasons_keep_their_names() {
        let waiting = Waiting {
            admitted: false,
            position: 7,
            eta: Some(Eta {
                from: Duration::from_millis(1_500),
                to: None,
            }),
            reason: Some(Reason::BucketOpen),
            reason_version: 3,
            poll_after: Duration::from_secs(2),
        };
        let answer = told(waiting, 9);
        assert_eq!(
            (answer.position, answer.room_version, answer.reason_version),
            (7, 9, 3)
        );
        let from = answer.eta_from.expect("known");
        assert_eq!((from.seconds, from.nanos), (1, 500_000_000));
        assert!(answer.eta_to.is_none());
        assert_eq!(answer.reason(), WaitReason::BucketOpen);
        let silent = Waiting {
            eta: None,
            reason: None,
            ..waiting
        };
        assert_eq!(told(silent, 9).reason(), WaitReason::Unspecified);
    }
}
