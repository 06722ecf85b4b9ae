//! Figures of several processes, one after the other.

use domain::place::{DrawTicket, draw_ticket};
use proto::inventory::{RoomFigures, ShardFigures, VaccineFigures};

use super::*;

fn seoul() -> RegionId {
    "seoul".parse().expect("slug")
}

fn ticket(person: u8) -> DrawTicket {
    draw_ticket(b"key", &domain::PersonId::from_bytes([person; 16]))
}

fn shard(shard: u32, epoch: u64, left: u64) -> ShardFigures {
    let of = |vaccine: &str, left| VaccineFigures {
        vaccine: vaccine.to_owned(),
        left,
        taken: 1,
    };
    ShardFigures {
        shard,
        epoch,
        vaccines: vec![of("one", left), of("another", 1_000)],
    }
}

fn answer(shards: Vec<ShardFigures>, people: &[u8]) -> GetFiguresResponse {
    let mut registers = vec![0; domain::headcount::REGISTERS];
    for person in people {
        let (at, rank) = domain::headcount::mark(&ticket(*person));
        registers[at] = registers[at].max(rank);
    }
    let room = RoomFigures {
        campaign: "c".to_owned(),
        cohort: "h".to_owned(),
        arrived: registers.into(),
    };
    GetFiguresResponse {
        regions: vec![RegionFigures {
            region: "seoul".to_owned(),
            queue_depth: 3,
            shards,
            rooms: vec![room],
            ..RegionFigures::default()
        }],
    }
}

fn figures(gathered: &Gathered, now: Instant) -> Option<steer::Figures> {
    let room = ("c".parse().expect("slug"), "h".parse().expect("slug"));
    let vaccine: VaccineId = "one".parse().expect("slug");
    let region = seoul();
    let vaccines = [&vaccine].into_iter();
    let mut all = gathered.of_room((&room.0, &room.1), vaccines, [&region].into_iter(), now);
    all.remove(&region)
}

#[test]
fn a_shard_counts_once_by_its_highest_epoch_and_people_once_wherever_they_came() {
    let (gathered, now) = (Gathered::default(), Clock::system().monotonic());
    assert_eq!(figures(&gathered, now), None, "nobody was heard");
    gathered.take(
        "a",
        answer(vec![shard(0, 4, 10), shard(1, 2, 7)], &[1, 2]),
        now,
    );
    gathered.take("b", answer(vec![shard(0, 5, 8)], &[2, 3]), now);
    gathered.take(
        "a",
        answer(vec![shard(0, 4, 10), shard(1, 2, 6)], &[1, 2]),
        now,
    );
    let seen = figures(&gathered, now).expect("heard");
    assert_eq!(
        (seen.left, seen.arrived, seen.queued, seen.unserved),
        (14, 3, 6, 6)
    );
    // The owner of shard 1 is gone and its successor not there yet.
    let later = now + Duration::from_secs(10);
    gathered.take("b", answer(vec![shard(0, 5, 8)], &[]), later);
    let seen = figures(&gathered, later).expect("heard");
    assert_eq!(
        (seen.left, seen.queued),
        (14, 3),
        "load is of now, what is left is not gone"
    );
    assert_eq!(
        figures(&gathered, now + Duration::from_secs(3_600)),
        None,
        "too long ago"
    );
}

#[test]
fn load_is_measured_over_seconds_and_a_restart_starts_over() {
    let (gathered, start) = (Gathered::default(), Clock::system().monotonic());
    let take = |secs: u64, ops, fast, slow, failures| {
        let mut told = answer(vec![shard(0, 1, 1)], &[]);
        told.regions[0].ops = ops;
        told.regions[0].failures = failures;
        told.regions[0].commit_times = vec![fast, 0, 0, slow, 0, 0];
        let now = start + Duration::from_secs(secs);
        gathered.take("a", told, now);
        figures(&gathered, now).expect("heard")
    };
    take(0, 1_000, 900, 0, 0);
    let seen = take(2, 3_000, 1_000, 0, 0);
    assert_eq!(
        (seen.commits_per_second, seen.latency),
        (1_000.0, spread::UNIT)
    );
    let seen = take(4, 3_100, 1_010, 50, 0);
    assert_eq!(seen.commits_per_second, 50.0, "over the last two seconds");
    assert_eq!(seen.latency, spread::UNIT * 8);
    assert_eq!(
        take(5, 3_100, 1_010, 50, 9).latency,
        spread::UNIT * 32,
        "failures are the slowest"
    );
    assert_eq!(
        take(6, 10, 10, 0, 0).commits_per_second,
        0.0,
        "another process"
    );
}
