//! The predicate, by what a person would expect of a door.

use super::*;
use crate::place::{DrawTicket, Place};
use ed25519_dalek::SigningKey;

fn seoul() -> RegionId {
    "seoul".parse().expect("slug")
}

fn room(phase: Phase) -> Room {
    let line = Frontier {
        f0: 100,
        per_kilosecond: 50_000,
        ttl_ms: 10_000,
        f_end: 1_000,
        ..Frontier::default()
    };
    let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
    room.version = 3;
    room.phase = phase;
    room.draw.final_seed = Some(Bytes32([0x11; 32]));
    room.last_closed_bucket = Some(0);
    room.regions.insert(seoul(), line);
    room
}

fn bucket(id: u32, before: u64, size: u64, prev_hash: Option<Bytes32>) -> BucketDocument {
    BucketDocument {
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        id,
        before,
        size,
        regions: [(seoul(), size)].into(),
        list_root: None,
        prev_hash,
    }
}

fn seen(phase: Phase) -> Seen {
    let mut seen = Seen::new(room(phase), BTreeMap::new());
    seen.learn_bucket(&bucket(0, 0, 2_000, None), Bytes32([1; 32]))
        .expect("the first bucket");
    seen
}

fn people() -> impl Iterator<Item = Place> {
    (0u128..400).map(|n| Place {
        bucket: 0,
        ticket: DrawTicket(n.to_be_bytes()),
    })
}

fn ask(seen: &Seen, place: &Place, frontier: Option<u64>) -> Result<(), Refusal> {
    admitted(seen.room().phase, seen.ordinal(place), frontier)
}

#[test]
fn nobody_passes_while_the_doors_are_closed() {
    for phase in [Phase::Lobby, Phase::Frozen, Phase::Drawn] {
        let seen = seen(phase);
        assert!(people().all(|p| ask(&seen, &p, Some(u64::MAX)) == Err(Refusal::NotAdmitted)));
    }
    let place = people().next().expect("one");
    assert_eq!(
        ask(&seen(Phase::Paused), &place, Some(u64::MAX)),
        Err(Refusal::RoomPaused)
    );
    assert_eq!(
        ask(&seen(Phase::Ended), &place, Some(u64::MAX)),
        Err(Refusal::RoomEnded)
    );
}

#[test]
fn exactly_those_before_the_frontier_pass() {
    for phase in [Phase::Open, Phase::Exhausted] {
        let seen = seen(phase);
        for place in people() {
            let ordinal = seen.ordinal(&place).expect("closed bucket");
            assert_eq!(ask(&seen, &place, Some(ordinal)), Err(Refusal::NotAdmitted));
            assert_eq!(ask(&seen, &place, Some(ordinal + 1)), Ok(()));
        }
        let late = Place {
            bucket: 1,
            ticket: DrawTicket([0; 16]),
        };
        assert_eq!(ask(&seen, &late, Some(u64::MAX)), Err(Refusal::NotAdmitted));
        let elsewhere = people().next().expect("one");
        assert_eq!(
            ask(&seen, &elsewhere, None),
            Err(Refusal::RegionNotInCampaign)
        );
    }
}

#[test]
fn a_view_admits_by_its_own_frontier() {
    let seen = seen(Phase::Open);
    let place = people()
        .find(|place| {
            seen.ordinal(place)
                .is_some_and(|at| (300..400).contains(&at))
        })
        .expect("somebody stands there");
    assert_eq!(
        seen.admitted(&place, &seoul(), Duration::from_secs(3)),
        Err(Refusal::NotAdmitted)
    );
    assert_eq!(
        seen.admitted(&place, &seoul(), Duration::from_secs(7)),
        Ok(())
    );
    let busan = "busan".parse().expect("slug");
    assert_eq!(
        seen.admitted(&place, &busan, Duration::ZERO),
        Err(Refusal::RegionNotInCampaign)
    );
}

#[test]
fn the_line_is_followed_until_its_ttl_and_its_end() {
    let seen = seen(Phase::Open);
    let at = |ms| seen.frontier(&seoul(), Duration::from_millis(ms));
    assert_eq!(at(0), Some(100));
    assert_eq!(at(1_000), Some(150));
    assert_eq!(at(10_000), Some(600));
    assert_eq!(at(3_600_000), Some(600));
    let line = &seen.room().regions[&seoul()];
    assert_eq!(line.reached(Phase::Open, Some(Duration::from_secs(1))), 150);
    assert_eq!(
        line.reached(Phase::Open, None),
        600,
        "an unknown age is the whole line"
    );
    assert_eq!(
        line.reached(Phase::Paused, None),
        100,
        "nobody follows a paused line"
    );
}

#[test]
fn a_newer_document_never_pushes_anybody_back() {
    let mut seen = seen(Phase::Open);
    let mut next = room(Phase::Open);
    next.version = 4;
    next.regions.get_mut(&seoul()).expect("there").f0 = 0;
    assert_eq!(seen.replace(next.clone(), Duration::from_secs(4)), Ok(()));
    assert_eq!(seen.frontier(&seoul(), Duration::ZERO), Some(300));
    assert_eq!(
        seen.replace(next.clone(), Duration::ZERO),
        Err(Rejected::NotNewer)
    );
    next.version = 5;
    let changed = |change: &dyn Fn(&mut Room), why| {
        let mut other = next.clone();
        change(&mut other);
        assert_eq!(seen.clone().replace(other, Duration::ZERO), Err(why));
    };
    changed(
        &|room| room.draw.final_seed = Some(Bytes32([0x22; 32])),
        Rejected::DrawChanged,
    );
    changed(&|room| room.draw.final_seed = None, Rejected::DrawChanged);
    changed(&|room| room.phase = Phase::Drawn, Rejected::PhaseBack);
    changed(
        &|room| room.last_closed_bucket = None,
        Rejected::BucketChanged,
    );
    changed(
        &|room| room.last_bucket_hash = Some(Bytes32([2; 32])),
        Rejected::BucketChanged,
    );
    changed(
        &|room| room.cohort = "x".parse().expect("slug"),
        Rejected::AnotherRoom,
    );
    assert_eq!(seen.replace(next, Duration::ZERO), Ok(()));
}

#[test]
fn buckets_are_learnt_in_order_and_never_change() {
    let mut seen = seen(Phase::Open);
    let (zero, one, two) = (Bytes32([1; 32]), Bytes32([2; 32]), Bytes32([3; 32]));
    let first = bucket(1, 2_000, 5, Some(zero));
    assert_eq!(
        seen.learn_bucket(&first, one),
        Err(Rejected::BucketOpen),
        "not closed yet"
    );
    let mut next = room(Phase::Open);
    (next.version, next.last_closed_bucket, next.last_bucket_hash) = (4, Some(2), Some(two));
    seen.replace(next, Duration::ZERO).expect("newer");
    let second = bucket(2, 2_005, 0, Some(one));
    assert_eq!(seen.learn_bucket(&second, two), Err(Rejected::BucketGap));
    let late = Place {
        bucket: 1,
        ticket: DrawTicket([9; 16]),
    };
    assert_eq!(seen.ordinal(&late), None, "not known here yet");

    let gap = BucketDocument {
        before: 2_001,
        ..first.clone()
    };
    assert_eq!(seen.learn_bucket(&gap, one), Err(Rejected::BucketGap));
    let unchained = BucketDocument {
        prev_hash: Some(two),
        ..first.clone()
    };
    assert_eq!(
        seen.learn_bucket(&unchained, one),
        Err(Rejected::BucketChain)
    );
    let uneven = BucketDocument {
        size: 6,
        ..first.clone()
    };
    assert_eq!(seen.learn_bucket(&uneven, one), Err(Rejected::BucketSums));
    assert_eq!(seen.learn_bucket(&first, one), Ok(()));
    assert_eq!(seen.learn_bucket(&first, one), Ok(()), "the same again");
    assert_eq!(seen.learn_bucket(&first, two), Err(Rejected::BucketChanged));
    assert!(
        seen.ordinal(&late)
            .is_some_and(|at| (2_000..2_005).contains(&at))
    );

    let unnamed = Bytes32([7; 32]);
    assert_eq!(
        seen.learn_bucket(&second, unnamed),
        Err(Rejected::BucketChanged),
        "the room names another"
    );
    assert_eq!(
        seen.learn_bucket(&second, two),
        Ok(()),
        "empty buckets happen"
    );
    assert_eq!((seen.buckets().people(), seen.buckets().len()), (2_005, 3));
}

#[test]
fn documents_are_read_back_as_they_were_signed() {
    let key = SigningKeyWithId::new("k1", SigningKey::from_bytes(&[3; 32]));
    let keys = TrustedKeys::new([("k1".to_owned(), key.verifying_key().to_bytes())]).expect("good");
    let room = room(Phase::Open);
    let text = room.sign(&key);
    assert_eq!(Room::verify(&keys, &text), Ok(room.clone()));
    let next = room.successor(&text);
    assert_eq!(
        (next.version, next.prev_hash),
        (4, Some(Bytes32::sha256(&text)))
    );
    let bucket = bucket(0, 0, 2_000, None);
    let text = bucket.sign(&key);
    assert_eq!(
        BucketDocument::verify(&keys, &text),
        Ok((bucket, Bytes32::sha256(&text)))
    );
    assert_eq!(
        Room::verify(&keys, &text),
        Err(Untrusted::BadSignature),
        "a bucket is no room"
    );
}
