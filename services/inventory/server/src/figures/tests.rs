//! Sums and crowds, without owners.

use domain::headcount::Headcount;
use domain::place::{DrawTicket, Place};
use domain::{PersonId, Serial, SlotState};

use super::*;

fn line(slot: u64, left: u32, booked: u32, open: bool) -> SlotLine {
    let slot = SlotState {
        slot: SlotId(slot),
        shard: ShardId(0),
        clinic: "c".parse().expect("slug"),
        vaccine: "one".parse().expect("slug"),
        dose: u8::from(slot >= 100) + 1,
        starts_at: Timestamp::from_secs(i64::try_from(slot).expect("small") * 10),
        day: 0,
        capacity: 10,
        booked,
        open,
    };
    SlotLine {
        slot: Arc::new(slot),
        left,
    }
}

fn sums(left: u64, taken: u64) -> BTreeMap<VaccineId, Sums> {
    [("one".parse().expect("slug"), Sums { left, taken })].into()
}

#[test]
fn sums_follow_changes_leave_out_second_doses_and_what_has_begun() {
    let mut slots = Slots::default();
    slots.take(&[
        line(1, 4, 6, true),
        line(2, 10, 0, true),
        line(100, 9, 1, true),
    ]);
    assert_eq!(slots.sums, sums(14, 6));
    slots.take(&[line(1, 3, 6, true), line(2, 0, 2, false)]);
    assert_eq!(
        slots.sums,
        sums(3, 9),
        "a closed slot keeps its people and has nothing left"
    );
    assert_eq!(
        *slots.sum(Timestamp::from_secs(15)),
        sums(0, 2),
        "the first one has begun"
    );
}

#[test]
fn load_is_added_up_and_an_owner_that_ends_leaves_no_queue() {
    let seoul: RegionId = "seoul".parse().expect("slug");
    let figures = Figures::new([seoul.clone()]);
    let (mut one, mut two) = (figures.owner(&seoul), figures.owner(&seoul));
    one.queue(5);
    two.queue(9);
    one.queue(3);
    one.region.committed(7, Duration::from_micros(127));
    two.region.committed(1, Duration::from_micros(300));
    two.region.committed(1, Duration::from_secs(900));
    two.region.failed();
    drop(two);
    let now = figures.now().regions.remove(0);
    assert_eq!((now.commits, now.ops), (3, 9));
    let classes: Vec<_> = (0..)
        .zip(&now.commit_times)
        .filter(|(_, n)| **n > 0)
        .collect();
    assert_eq!(classes, [(0, &1), (2, &1), (19, &1)]);
    assert_eq!((now.failures, now.queue_depth), (1, 3));
}

#[test]
fn people_of_a_room_are_counted_once_by_region() {
    let regions: [RegionId; 2] = ["busan", "seoul"].map(|name| name.parse().expect("slug"));
    let figures = Figures::new(regions.clone());
    let permit = |region: usize, ticket: u8| Permit {
        person: PersonId::from_bytes([1; 16]),
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        region: regions[region].clone(),
        serial: Serial(1),
        place: Place {
            bucket: 0,
            ticket: DrawTicket([ticket; 16]),
        },
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(600),
        caller: "app".parse().expect("slug"),
    };
    for (region, ticket) in [(0, 1), (0, 2), (0, 1), (1, 9)] {
        figures.came(&permit(region, ticket));
    }
    let now = figures.now();
    let people = now.regions.iter().map(|region| {
        let [room] = &region.rooms[..] else {
            panic!("one room each")
        };
        (
            room.cohort.as_str(),
            Headcount::from_registers(&room.arrived)
                .expect("a sketch")
                .people(),
        )
    });
    assert_eq!(people.collect::<Vec<_>>(), [("h", 2), ("h", 1)]);
}
