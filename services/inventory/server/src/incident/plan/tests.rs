//! Plans from scenes: who goes, in which order, and why not.

use domain::{IncidentId, PersonId, Serial, ShardId, SlotId, SlotState, Timestamp};

use super::*;
use crate::ledger::{self, IncidentState, IncidentView};

const DAY_MICROS: i64 = 86_400_000_000;

fn slot(id: u64, clinic: &str, dose: u8, day: i32, left: u32) -> SlotState {
    SlotState {
        slot: SlotId(id),
        shard: ShardId(0),
        clinic: clinic.parse().expect("a clinic"),
        vaccine: "mrna".parse().expect("a vaccine"),
        dose,
        starts_at: Timestamp::from_micros(i64::from(day) * DAY_MICROS),
        day,
        capacity: left,
        booked: 0,
        open: true,
    }
}

fn booked(number: u8, slot: SlotState, other_day: Option<i32>) -> Affected {
    Affected {
        booking: BookingId::from_bytes([number; 16]),
        code: number.to_string(),
        campaign: "kr".parse().expect("a campaign"),
        person: PersonId::from_bytes([number; 16]),
        serial: Serial(1),
        version: domain::ClaimVersion(1),
        slot,
        begun: false,
        other_day,
    }
}

fn scene(affected: Vec<Affected>, free: Vec<SlotState>) -> Scene {
    let clinic = |id: &str, latitude: f64| ledger::Clinic {
        clinic: id.parse().expect("a clinic"),
        shard: ShardId(0),
        display_name: id.to_owned(),
        district: "jongno".to_owned(),
        latitude,
        longitude: 127.0,
    };
    Scene {
        view: IncidentView {
            incident: IncidentId::from_bytes([9; 16]),
            kind: IncidentKind::Closure,
            vaccine: None,
            from_day: 0,
            to_day: 99,
            state: IncidentState::Open,
            plan: 0,
            opened_at: Timestamp::from_micros(0),
            affected: 0,
            planned: 0,
            moved: 0,
            failed: 0,
            unmovable: 0,
            held: 0,
        },
        affected,
        clinics: vec![clinic("a", 37.5), clinic("b", 37.6), clinic("c", 37.7)],
        free,
    }
}

fn planned(scene: &Scene) -> Vec<PlanLine> {
    let mut next = 0;
    let request = || {
        next += 1;
        RequestId::from_bytes([next; 16])
    };
    let interval = DoseInterval {
        min_days: 21,
        max_days: 28,
    };
    plan(scene, |_| Some(interval), request)
}

fn target(line: &PlanLine) -> Result<u64, Refusal> {
    line.to.map(|(slot, _)| slot.0)
}

#[test]
fn both_doses_move_and_keep_their_distance_after_each_move() {
    let people = vec![
        booked(1, slot(1, "a", 1, 10, 0), Some(31)),
        booked(1, slot(2, "a", 2, 31, 0), Some(10)),
    ];
    // Day 11 is too near to the second dose as it stands; 8 fits, and then 36 fits no more, though it did before.
    let free = vec![
        slot(3, "b", 1, 11, 9),
        slot(4, "c", 1, 8, 9),
        slot(5, "b", 2, 37, 9),
        slot(6, "c", 2, 36, 9),
        slot(7, "c", 2, 30, 9),
    ];
    let lines = planned(&scene(people, free));
    let all: Vec<_> = lines.iter().map(target).collect();
    assert_eq!(all, [Ok(4), Ok(7)]);
    assert_eq!((lines[0].wave, lines[0].after), (1, None));
    assert_eq!((lines[1].wave, lines[1].after), (2, Some(1)));
}

#[test]
fn who_stays_is_listed_last_with_the_reason() {
    let mut begun = booked(1, slot(1, "a", 1, 10, 0), None);
    begun.begun = true;
    let people = vec![
        begun,
        booked(2, slot(1, "a", 1, 10, 0), Some(31)),
        booked(3, slot(1, "a", 1, 10, 0), None),
        booked(4, slot(2, "a", 2, 10, 0), None),
    ];
    let lines = planned(&scene(people, vec![slot(3, "b", 1, 12, 9)]));
    let all: Vec<_> = lines
        .iter()
        .map(|line| (line.who.code.as_str(), target(line)))
        .collect();
    assert_eq!(
        all,
        [
            ("3", Ok(3)),
            ("1", Err(Refusal::AppointmentBegun)),
            ("2", Err(Refusal::NoDayInInterval)),
            ("4", Err(Refusal::NoPlaceInReach)),
        ]
    );
    let nobody = plan(
        &scene(
            vec![booked(3, slot(1, "a", 1, 10, 0), None)],
            vec![slot(3, "b", 1, 10, 9)],
        ),
        |_| None,
        || RequestId::from_bytes([1; 16]),
    );
    assert_eq!(target(&nobody[0]), Err(Refusal::CampaignUnknown));
}

#[test]
fn a_wave_has_fifty_moves() {
    let people = (0..120).map(|number| booked(number, slot(1, "a", 1, 10, 0), None));
    let lines = planned(&scene(people.collect(), vec![slot(3, "b", 1, 10, 110)]));
    let of = |wave: u32| lines.iter().filter(|line| line.wave == wave).count();
    assert_eq!([of(1), of(2), of(3), of(0)], [50, 50, 10, 10]);
}

#[test]
fn a_supply_cut_keeps_people_at_their_clinic() {
    let people = vec![
        booked(1, slot(1, "a", 1, 10, 0), None),
        booked(2, slot(1, "a", 1, 10, 0), None),
    ];
    let free = vec![
        slot(3, "b", 1, 11, 9),
        slot(4, "a", 1, 15, 1),
        slot(5, "a", 1, 9, 9),
    ];
    let mut scene = scene(people, free);
    scene.view.kind = IncidentKind::SupplyCut;
    let all: Vec<_> = planned(&scene).iter().map(target).collect();
    // The second one waits no less than the first, although another clinic has something earlier.
    assert_eq!(all, [Ok(4), Err(Refusal::NoPlaceInReach)]);
}
