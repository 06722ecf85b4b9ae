//! Where a person stands and when to ask again. The times are pure functions of room, place and configuration.

use std::time::Duration;

use domain::Refusal;
use domain::permit::{Permit, Unusable};
use domain::place::Place;
use domain::room::{Phase, Seen, admitted};
use proto::room::GetPlaceResponse;
use proto::status::Refused;

use super::Rooms;
use crate::callers::Caller;

/// While open nobody asks more often than this.
const POLL_MIN: Duration = Duration::from_secs(1);
/// And nobody less often: the line may speed up.
const POLL_MAX: Duration = Duration::from_secs(600);
/// While the frontier stands still there is no ETA.
const POLL_STANDING: Duration = Duration::from_secs(15);
const POLL_PAUSED: Duration = Duration::from_secs(10);
const POLL_ENDED: Duration = Duration::from_secs(600);
const KILO: u128 = 1_000;

impl Rooms {
    /// The place of a permit's holder, for the calling system that the permit was issued through.
    pub(crate) fn place(
        &self,
        caller: &Caller,
        permit: &str,
        poll_before_open: Duration,
    ) -> Result<GetPlaceResponse, Refused> {
        let permit = self.permit(permit).map_err(|why| match why {
            Unusable::Untrusted(_) => Refusal::PermitInvalid,
            Unusable::Expired => Refusal::PermitExpired,
        })?;
        if permit.caller != caller.system {
            return Err(Refusal::PermitForeignCaller.into());
        }
        let view = self.of(&permit).ok_or(Refusal::CampaignUnknown)?;
        let frontier = self.frontier(&view, &permit.region);
        Ok(place(&view.seen, &permit, frontier, poll_before_open))
    }
}

fn place(
    seen: &Seen,
    permit: &Permit,
    frontier: Option<u64>,
    before_open: Duration,
) -> GetPlaceResponse {
    let room = seen.room();
    let is_in = admitted(room.phase, seen.ordinal(&permit.place), frontier).is_ok();
    let ahead = if is_in {
        0
    } else {
        ahead(seen, &permit.place, frontier.unwrap_or(0))
    };
    let rate = room
        .regions
        .get(&permit.region)
        .map_or(0, |line| line.per_kilosecond);
    let wait = if is_in {
        POLL_MIN
    } else {
        poll_after(room.phase, ahead, rate, before_open)
    };
    let wait = spread(wait, spread_of(room.phase), &permit.place);
    GetPlaceResponse {
        admitted: is_in,
        position: ahead,
        poll_after: Some(prost_types::Duration {
            seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
        }),
        room_version: room.version,
    }
}

/// People before this one who are not admitted yet; for an open bucket, those of all closed ones.
fn ahead(seen: &Seen, place: &Place, frontier: u64) -> u64 {
    let closed = seen.room().last_closed_bucket;
    let until = match seen.ordinal(place) {
        Some(ordinal) => ordinal,
        // In a closed bucket before the draw nobody is before anybody.
        None if closed.is_some_and(|last| place.bucket <= last) => 0,
        None => seen.buckets().people(),
    };
    until.saturating_sub(frontier)
}

fn poll_after(phase: Phase, ahead: u64, per_kilosecond: u64, before_open: Duration) -> Duration {
    match phase {
        Phase::Lobby | Phase::Frozen | Phase::Drawn => before_open,
        Phase::Open | Phase::Exhausted if per_kilosecond == 0 => POLL_STANDING,
        Phase::Open | Phase::Exhausted => {
            let eta_ms = u128::from(ahead) * KILO * KILO / u128::from(per_kilosecond);
            let third = Duration::from_millis(u64::try_from(eta_ms / 3).unwrap_or(u64::MAX));
            third.clamp(POLL_MIN, POLL_MAX)
        }
        Phase::Paused => POLL_PAUSED,
        Phase::Ended => POLL_ENDED,
    }
}

/// In percent to either side: people who wait for the same moment are drawn apart.
fn spread_of(phase: Phase) -> u32 {
    match phase {
        Phase::Lobby | Phase::Frozen | Phase::Drawn | Phase::Paused | Phase::Ended => 50,
        Phase::Open | Phase::Exhausted => 10,
    }
}

/// A person's own part of the spread, the same at each asking: nobody gains by asking again.
fn spread(wait: Duration, percent: u32, place: &Place) -> Duration {
    let mut own = [0u8; 4];
    own.copy_from_slice(&place.ticket.0[12..]);
    let part = f64::from(u32::from_be_bytes(own)) / f64::from(u32::MAX);
    let width = f64::from(percent) / 100.0;
    wait.mul_f64(1.0 - width + 2.0 * width * part)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::place::DrawTicket;
    use domain::room::{BucketDocument, Bytes32, Frontier, Room};

    use super::*;

    fn room(phase: Phase, per_kilosecond: u64) -> Seen {
        let line = Frontier {
            f0: 100,
            per_kilosecond,
            ttl_ms: 10_000,
            f_end: 1_000_000,
            ..Frontier::default()
        };
        let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
        room.version = 9;
        room.phase = phase;
        room.draw.final_seed = Some(Bytes32([0x11; 32]));
        room.last_closed_bucket = Some(0);
        room.regions.insert("seoul".parse().expect("slug"), line);
        let bucket = BucketDocument {
            campaign: room.campaign.clone(),
            cohort: room.cohort.clone(),
            id: 0,
            before: 0,
            size: 1_000_000,
            regions: [("seoul".parse().expect("slug"), 1_000_000)].into(),
            list_root: None,
            prev_hash: None,
        };
        let mut seen = Seen::new(room, BTreeMap::new());
        seen.learn_bucket(&bucket, Bytes32::ZERO).expect("fits");
        seen
    }

    fn permit(bucket: u32, ticket: u128) -> Permit {
        Permit {
            person: domain::PersonId::from_bytes([1; 16]),
            campaign: "c".parse().expect("slug"),
            cohort: "h".parse().expect("slug"),
            region: "seoul".parse().expect("slug"),
            serial: domain::Serial(1),
            place: Place {
                bucket,
                ticket: DrawTicket(ticket.to_be_bytes()),
            },
            issued_at: domain::Timestamp::from_secs(0),
            expires_at: domain::Timestamp::from_secs(600),
            caller: "app".parse().expect("slug"),
        }
    }

    fn secs(answer: &GetPlaceResponse) -> f64 {
        let wait = answer.poll_after.as_ref().expect("always");
        wait.seconds as f64 + f64::from(wait.nanos) / 1e9
    }

    #[test]
    fn a_place_in_line_says_how_many_are_before_and_a_third_of_the_wait() {
        // 1,000 people a second.
        let room = room(Phase::Open, 1_000_000);
        for ticket in 0..200 {
            let permit = permit(0, ticket * 7_919);
            let ordinal = room.ordinal(&permit.place).expect("closed");
            let answer = place(&room, &permit, Some(100), Duration::from_secs(30));
            assert_eq!(answer.admitted, ordinal < 100);
            assert_eq!(answer.position, ordinal.saturating_sub(100));
            assert_eq!(answer.room_version, 9);
            let third = ((ordinal as f64 - 100.0) / 1_000.0 / 3.0).max(1.0);
            assert!(
                (third * 0.9 - 0.01..=third * 1.1 + 0.01).contains(&secs(&answer)),
                "{ordinal}"
            );
        }
    }

    #[test]
    fn late_comers_stand_behind_all_closed_buckets() {
        let room = room(Phase::Open, 1_000_000);
        let answer = place(&room, &permit(1, 5), Some(400), Duration::from_secs(30));
        assert_eq!((answer.admitted, answer.position), (false, 999_600));
    }

    #[test]
    fn before_the_doors_polls_are_spread_over_the_configured_time() {
        for phase in [Phase::Lobby, Phase::Frozen, Phase::Drawn] {
            let room = room(phase, 0);
            let waits: Vec<f64> = (0..500u128)
                .map(|n| {
                    secs(&place(
                        &room,
                        &permit(0, n * 8_589_934),
                        Some(0),
                        Duration::from_secs(60),
                    ))
                })
                .collect();
            assert!(waits.iter().all(|wait| (30.0..=90.0).contains(wait)));
            assert!(waits.iter().any(|wait| *wait < 40.0) && waits.iter().any(|wait| *wait > 80.0));
        }
    }

    #[test]
    fn without_progress_nobody_is_told_to_hammer() {
        let permit = permit(0, u128::MAX);
        for (phase, rate) in [(Phase::Open, 0), (Phase::Paused, 1), (Phase::Ended, 1)] {
            let answer = place(
                &room(phase, rate),
                &permit,
                Some(0),
                Duration::from_secs(30),
            );
            assert!(!answer.admitted && secs(&answer) >= 5.0, "{phase:?}");
        }
    }
}
