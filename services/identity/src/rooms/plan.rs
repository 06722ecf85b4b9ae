//! What the next document of a room says. Pure.
//!
//! Invariant: a new plan never lies behind what readers of the old one can have computed, and draw and bucket 0 are
//! taken over unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::campaign::Campaign;
use domain::room::wait::{Promise, Reason};
use domain::room::{BucketDocument, Bytes32, Draw, Frontier, Phase, Room};
use domain::{CohortId, RegionId};

/// Until the doorkeeper renews plans, one write must carry a whole opening day.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Two copies of identity may disagree about the time by this much; readers remember how far they came besides.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// The room at its first opening: bucket 0 is everybody counted, at least one place so that late comers have one.
#[must_use]
pub fn first(
    campaign: &Campaign,
    cohort: &CohortId,
    people: u64,
    final_seed: [u8; 32],
    per_kilosecond: u64,
) -> Room {
    let size = people.max(1);
    let regions = campaign
        .regions
        .iter()
        .map(|region| (region.clone(), line(0, size, per_kilosecond)));
    Room {
        campaign: campaign.campaign.clone(),
        cohort: cohort.clone(),
        version: 1,
        prev_hash: None,
        phase: Phase::Open,
        draw: Draw {
            n0: Some(size),
            final_seed: Some(Bytes32(final_seed)),
            ..Draw::default()
        },
        last_closed_bucket: Some(0),
        last_bucket_hash: None,
        regions: regions.collect(),
        reason: String::new(),
    }
}

/// Bucket 0 of a room, everybody counted; whoever has no region of their own stands for the smallest one.
#[must_use]
pub fn bucket_zero(room: &Room, counted: &BTreeMap<RegionId, u64>) -> BucketDocument {
    let mut regions = counted.clone();
    let size = everybody(room);
    let missing = size.saturating_sub(regions.values().sum());
    if let (true, Some(region)) = (missing > 0, room.regions.keys().next()) {
        *regions.entry(region.clone()).or_default() += missing;
    }
    BucketDocument {
        campaign: room.campaign.clone(),
        cohort: room.cohort.clone(),
        id: 0,
        before: 0,
        size,
        regions,
        list_root: None,
        prev_hash: None,
    }
}

/// The room open again, from where each frontier can have come; regions that are new start at the beginning.
/// `followed` is the time since the write of `old` began, `None` if nobody knows.
#[must_use]
pub fn reopened(
    old: &Room,
    old_text: &str,
    regions: &BTreeSet<RegionId>,
    per_kilosecond: u64,
    followed: Option<Duration>,
) -> Room {
    let all = everybody(old);
    let mut room = successor(old, old_text, Phase::Open, String::new());
    for region in regions {
        room.regions
            .entry(region.clone())
            .or_insert_with(|| line(0, all, per_kilosecond));
    }
    for (region, frontier) in &mut room.regions {
        let reached = old
            .regions
            .get(region)
            .map_or(0, |line| reached(old.phase, line, followed));
        *frontier = line(reached, all, per_kilosecond);
    }
    room
}

/// The room paused, each frontier kept where it can have come.
#[must_use]
pub fn paused(old: &Room, old_text: &str, reason: &str, followed: Option<Duration>) -> Room {
    let mut room = successor(old, old_text, Phase::Paused, reason.to_owned());
    for line in room.regions.values_mut() {
        line.f0 = reached(old.phase, line, followed);
        line.f_end = line.f_end.max(line.f0);
        line.per_kilosecond = 0;
    }
    room
}

/// The farthest ordinal that a reader of this line can have computed.
fn reached(phase: Phase, line: &Frontier, followed: Option<Duration>) -> u64 {
    match phase {
        Phase::Open | Phase::Exhausted => {
            let elapsed = followed.map_or(Duration::MAX, |followed| {
                followed.saturating_add(CLOCK_MARGIN)
            });
            line.after(elapsed)
        }
        // Nobody follows the line of a room that is not open.
        Phase::Lobby | Phase::Frozen | Phase::Drawn | Phase::Paused | Phase::Ended => line.f0,
    }
}

fn line(from: u64, to: u64, per_kilosecond: u64) -> Frontier {
    let ttl_ms = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
    let f0 = if per_kilosecond == 0 { to } else { from };
    Frontier {
        f0,
        per_kilosecond,
        ttl_ms,
        f_end: to.max(f0),
        promise: Promise::default().next(per_kilosecond, Reason::Slowed, 0),
        ..Frontier::default()
    }
}

fn everybody(room: &Room) -> u64 {
    room.draw.n0.unwrap_or(1)
}

fn successor(old: &Room, old_text: &str, phase: Phase, reason: String) -> Room {
    Room {
        phase,
        reason,
        ..old.successor(old_text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::room::Seen;

    use super::*;

    fn campaign() -> Campaign {
        serde_json::from_value(crate::campaigns::tests::document()).expect("a campaign")
    }

    fn opened(people: u64, rate: u64) -> Room {
        first(
            &campaign(),
            &"fifties".parse().expect("slug"),
            people,
            [7; 32],
            rate,
        )
    }

    fn seoul() -> RegionId {
        "seoul".parse().expect("slug")
    }

    #[test]
    fn at_once_means_that_everybody_is_before_the_frontier() {
        let room = opened(1_000, 0);
        let line = &room.regions[&seoul()];
        assert_eq!(
            (line.f0, line.f_end, line.after(Duration::ZERO)),
            (1_000, 1_000, 1_000)
        );
        let bucket = bucket_zero(&room, &[(seoul(), 600)].into());
        assert_eq!((bucket.before, bucket.size), (0, 1_000));
        assert_eq!(bucket.regions.values().sum::<u64>(), 1_000);
        assert_eq!(
            opened(0, 0).regions[&seoul()].f0,
            1,
            "who comes late has a place, too"
        );
    }

    #[test]
    fn a_rate_begins_with_nobody_and_ends_with_everybody() {
        let room = opened(1_000, 50_000);
        let line = &room.regions[&seoul()];
        let at = |secs| line.after(Duration::from_secs(secs));
        assert_eq!(
            (at(0), at(1), at(10), at(20), at(86_400)),
            (0, 50, 500, 1_000, 1_000)
        );
    }

    #[test]
    fn no_reader_of_the_old_plan_is_ahead_of_the_new_one() {
        for rate in [0, 1, 50_000, u64::MAX] {
            for new_rate in [0, 1, 77_000] {
                for secs in [0, 1, 7, 100_000] {
                    let since = Duration::from_secs(secs);
                    let room = opened(1_000, rate);
                    let mut seen = Seen::new(room.clone(), BTreeMap::new());
                    // A reader got the document at the very beginning of its write.
                    let before = seen.frontier(&seoul(), since).expect("in the room");
                    let stopped = paused(&room, "v1", "maintenance", Some(since));
                    assert!(stopped.regions[&seoul()].f0 >= before, "{rate} {secs}");
                    assert_eq!(seen.replace(stopped.clone(), since), Ok(()));
                    let regions = campaign().regions;
                    let again = reopened(&stopped, "v2", &regions, new_rate, Some(since));
                    assert!(again.regions[&seoul()].f0 >= before);
                    assert!(again.regions[&seoul()].f_end >= again.regions[&seoul()].f0);
                    assert_eq!(seen.replace(again, since), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_pause_stops_the_line_and_the_next_opening_goes_on_from_there() {
        let room = opened(1_000, 50_000);
        let stopped = paused(&room, "v1", "maintenance", Some(Duration::from_secs(4)));
        let line = &stopped.regions[&seoul()];
        // 4 s and the margin of 2 s at 50 people a second.
        assert_eq!(
            (line.f0, line.after(Duration::from_secs(9_999))),
            (300, 300)
        );
        assert_eq!(
            (stopped.phase, stopped.reason.as_str(), stopped.version),
            (Phase::Paused, "maintenance", 2)
        );
        let again = reopened(
            &stopped,
            "v2",
            &campaign().regions,
            10_000,
            Some(Duration::from_secs(9_999)),
        );
        let line = &again.regions[&seoul()];
        assert_eq!(
            (line.f0, line.after(Duration::from_secs(10))),
            (300, 400),
            "the pause does not count"
        );
        assert_eq!((again.version, again.reason.as_str()), (3, ""));
        assert_eq!(again.prev_hash, Some(Bytes32::sha256("v2")));
        assert_eq!(
            (&again.draw, again.last_closed_bucket),
            (&room.draw, room.last_closed_bucket)
        );
    }

    #[test]
    fn an_unknown_age_counts_as_the_whole_line() {
        let room = opened(1_000, 50_000);
        assert_eq!(paused(&room, "v1", "x", None).regions[&seoul()].f0, 1_000);
    }

    #[test]
    fn a_region_that_joins_starts_at_the_beginning_and_none_is_lost() {
        let room = opened(1_000, 50_000);
        let jeju: RegionId = "jeju".parse().expect("slug");
        let again = reopened(
            &room,
            "v1",
            &[jeju.clone()].into(),
            50_000,
            Some(Duration::from_secs(8)),
        );
        assert_eq!(again.regions[&jeju].f0, 0);
        assert_eq!(again.regions[&seoul()].f0, 500);
    }
}
