//! The predicate, by what a person would expect of a door.

use super::*;
use crate::place::DrawTicket;

fn room(phase: Phase) -> Room {
    let line = Frontier {
        f0: 100,
        per_kilosecond: 50_000,
        ttl_ms: 10_000,
        f_end: 1_000,
    };
    Room {
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        version: 3,
        prev_hash: String::new(),
        phase,
        final_seed: "11".repeat(32),
        last_closed_bucket: Some(0),
        buckets: vec![Bucket {
            id: 0,
            before: 0,
            size: 2_000,
        }],
        regions: [("seoul".parse().expect("slug"), line)].into(),
        reason: String::new(),
    }
}

fn people() -> impl Iterator<Item = Place> {
    (0u128..400).map(|n| Place {
        bucket: 0,
        ticket: DrawTicket(n.to_be_bytes()),
    })
}

#[test]
fn nobody_passes_while_the_doors_are_closed() {
    for phase in [Phase::Lobby, Phase::Frozen, Phase::Drawn] {
        assert!(
            people()
                .all(|p| admitted(&room(phase), &p, Some(u64::MAX)) == Err(Refusal::NotAdmitted))
        );
    }
    let place = people().next().expect("one");
    assert_eq!(
        admitted(&room(Phase::Paused), &place, Some(u64::MAX)),
        Err(Refusal::RoomPaused)
    );
    assert_eq!(
        admitted(&room(Phase::Ended), &place, Some(u64::MAX)),
        Err(Refusal::RoomEnded)
    );
}

#[test]
fn exactly_those_before_the_frontier_pass() {
    let room = room(Phase::Open);
    for place in people() {
        let ordinal = room.ordinal(&place).expect("closed bucket");
        assert_eq!(
            admitted(&room, &place, Some(ordinal)),
            Err(Refusal::NotAdmitted)
        );
        assert_eq!(admitted(&room, &place, Some(ordinal + 1)), Ok(()));
    }
    let late = Place {
        bucket: 1,
        ticket: DrawTicket([0; 16]),
    };
    assert_eq!(
        admitted(&room, &late, Some(u64::MAX)),
        Err(Refusal::NotAdmitted)
    );
    let elsewhere = people().next().expect("one");
    assert_eq!(
        admitted(&room, &elsewhere, None),
        Err(Refusal::RegionNotInCampaign)
    );
}

#[test]
fn the_line_is_followed_until_its_ttl_and_its_end() {
    let seen = Seen::new(room(Phase::Open), BTreeMap::new());
    let region = "seoul".parse().expect("slug");
    let at = |ms| seen.frontier(&region, Duration::from_millis(ms));
    assert_eq!(at(0), Some(100));
    assert_eq!(at(1_000), Some(150));
    assert_eq!(at(10_000), Some(600));
    assert_eq!(at(3_600_000), Some(600));
    assert_eq!(
        seen.frontier(&"busan".parse().expect("slug"), Duration::ZERO),
        None
    );
}

#[test]
fn a_newer_document_never_pushes_anybody_back() {
    let mut seen = Seen::new(room(Phase::Open), BTreeMap::new());
    let region: RegionId = "seoul".parse().expect("slug");
    let mut next = room(Phase::Open);
    next.version = 4;
    next.regions.get_mut(&region).expect("there").f0 = 0;
    assert_eq!(seen.replace(next.clone(), Duration::from_secs(4)), Ok(()));
    assert_eq!(seen.frontier(&region, Duration::ZERO), Some(300));
    assert_eq!(
        seen.replace(next.clone(), Duration::ZERO),
        Err(Rejected::NotNewer)
    );
    next.version = 5;
    next.final_seed = "22".repeat(32);
    assert_eq!(
        seen.replace(next.clone(), Duration::ZERO),
        Err(Rejected::DrawChanged)
    );
    next.final_seed = "11".repeat(32);
    next.buckets[0].size = 1;
    assert_eq!(
        seen.replace(next, Duration::ZERO),
        Err(Rejected::DrawChanged)
    );
}
