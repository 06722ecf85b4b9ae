//! Lines of rooms that nobody steers: before the doors, in a pause, and for everybody at once. Pure.
//!
//! Invariant: no line starts behind what readers of the document before can have computed.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::RegionId;
use domain::room::wait::Promise;
use domain::room::{Frontier, RegionState, Room};

/// The room one version later, with a line for every region of the campaign; none is ever lost.
#[must_use]
pub fn successor(old: &Room, text: &str, regions: &BTreeSet<RegionId>) -> Room {
    let mut room = old.successor(text);
    for region in regions {
        room.regions.entry(region.clone()).or_default();
    }
    room
}

/// Every line at a standstill where readers of `old` can have come.
pub fn halt(room: &mut Room, old: &Room, followed: Option<Duration>) {
    for (region, line) in &mut room.regions {
        let reached = old.regions.get(region);
        line.f0 = reached.map_or(0, |line| line.reached(old.phase, followed));
        line.f_end = line.f_end.max(line.f0);
        line.per_kilosecond = 0;
    }
}

/// Everybody of the closed buckets is let in; one place at least, so that a room that nobody has come to yet is open.
pub fn at_once(room: &mut Room, people: u64, ttl: Duration) {
    for line in room.regions.values_mut() {
        let end = people.max(1).max(line.f0);
        *line = Frontier {
            f0: end,
            per_kilosecond: 0,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            f_end: end,
            state: RegionState::Open,
            left: line.left,
            promise: Promise::default(),
        };
    }
}

/// Whether a new plan is worth a write, `since` the last one.
#[must_use]
pub fn worth_writing(old: &Room, new: &Room, since: Duration) -> bool {
    const RENEW: Duration = Duration::from_secs(1);
    if old.phase != new.phase || old.regions.len() != new.regions.len() {
        return true;
    }
    let renew = since >= RENEW;
    let mut pairs = old.regions.values().zip(new.regions.values());
    pairs.any(|(old, new)| {
        let speeds = old.per_kilosecond.abs_diff(new.per_kilosecond);
        let faster = speeds * 50 > old.per_kilosecond.max(new.per_kilosecond);
        // Whoever stands at the end of the old line could go on.
        let held_up = new.f_end > old.f_end && new.f0 + new.per_kilosecond / 1_000 >= old.f_end;
        let urgent = old.state != new.state || faster || held_up || new.f_end < old.f_end;
        let moved = new.per_kilosecond > 0
            || new.f0 != old.f0
            || new.left != old.left
            || new.f_end != old.f_end;
        urgent || renew && moved
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::room::{Phase, Seen};

    use super::*;

    fn seoul() -> RegionId {
        "seoul".parse().expect("slug")
    }

    fn open(f0: u64, per_kilosecond: u64, f_end: u64) -> Room {
        let mut room = Room::lobby(
            "c".parse().expect("slug"),
            "h".parse().expect("slug"),
            [seoul()],
        );
        room.phase = Phase::Open;
        room.regions.insert(
            seoul(),
            Frontier {
                f0,
                per_kilosecond,
                ttl_ms: 10_000,
                f_end,
                ..Frontier::default()
            },
        );
        room
    }

    #[test]
    fn no_reader_of_the_old_plan_is_ahead_of_the_new_one() {
        for rate in [0, 1, 50_000, 1_000_000_000] {
            for secs in [0, 1, 7, 100_000] {
                let since = Duration::from_secs(secs);
                let room = open(100, rate, 1_000);
                let mut seen = Seen::new(room.clone(), BTreeMap::new());
                let before = seen.frontier(&seoul(), since).expect("in the room");
                let mut paused = successor(&room, "v1", &BTreeSet::new());
                halt(&mut paused, &room, Some(since));
                paused.phase = Phase::Paused;
                assert!(paused.regions[&seoul()].f0 >= before, "{rate} {secs}");
                assert_eq!(seen.replace(paused.clone(), since), Ok(()));
                let mut again = successor(&paused, "v2", &BTreeSet::new());
                halt(&mut again, &paused, Some(since));
                again.phase = Phase::Open;
                assert_eq!(
                    again.regions[&seoul()].f0,
                    paused.regions[&seoul()].f0,
                    "a pause does not count"
                );
                at_once(&mut again, 7, since);
                assert!(again.regions[&seoul()].f0 >= before);
                assert!(again.regions[&seoul()].f_end >= again.regions[&seoul()].f0);
            }
        }
        let mut unknown = open(0, 1_000, 1_000);
        let old = unknown.clone();
        halt(&mut unknown, &old, None);
        assert!(unknown.regions[&seoul()].f0 >= 10, "to the end of its time");
    }

    #[test]
    fn a_region_that_joins_starts_at_the_beginning_and_none_is_lost() {
        let jeju: RegionId = "jeju".parse().expect("slug");
        let room = successor(&open(5, 1, 9), "v1", &[jeju.clone()].into());
        assert_eq!((room.regions[&jeju].f0, room.regions[&seoul()].f0), (0, 5));
        assert_eq!(room.version, 2);
    }

    #[test]
    fn writes_are_for_what_changed_and_for_lines_that_move() {
        let (short, long) = (Duration::from_millis(250), Duration::from_secs(1));
        let still = open(5, 0, 5);
        assert!(!worth_writing(&still, &still, Duration::from_secs(3_600)));
        let moving = open(5, 1_000, 900);
        assert!(worth_writing(&still, &moving, short), "it starts");
        assert!(!worth_writing(&moving, &open(6, 1_005, 905), short));
        assert!(
            worth_writing(&moving, &open(6, 1_005, 905), long),
            "it goes on"
        );
        assert!(
            worth_writing(&moving, &open(6, 1_000, 800), short),
            "less is left"
        );
        assert!(
            worth_writing(&open(5, 0, 5), &open(5, 0, 9), short),
            "who waits at the end goes on"
        );
    }
}
