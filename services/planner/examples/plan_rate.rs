//! How long a plan takes and how much memory: `plan_rate [BOOKINGS] [CLINICS]`.
//!
//! Real: how many people of 50 to 59 live in each district (resident registration, July 2021) and how many appointments
//! clinics have in a day (May 2021). Clinics are spread over districts by people; districts over the country and clinics
//! over districts by chance, because the statistics have no positions. Every fourth clinic fails for two weeks, and the
//! others have a seventh of their places left. Then the same with so few slots that a tenth of the people finds nothing
//! even if every place is used: everybody's way then goes through everybody else's.

use std::time::Instant;

use planner::{Booking, Clinic, Limits, Plan, Slot, redate, relocate};

const POPULATION: &str = include_str!("../../standalone/data/korea-population-2021-07.csv");
const CAPACITIES: &str = include_str!("../../standalone/data/clinic-capacity-2021-05.csv");
const DAY_MICROS: i64 = 86_400_000_000;
const HOUR_MICROS: i64 = 3_600_000_000;
/// Days with appointments.
const DAYS: i32 = 14;
/// Start times of a clinic's day.
const HOURS: [i64; 4] = [9, 11, 13, 15];
/// Of so many places one is left.
const LEFT_OF: u32 = 7;
/// Every so many clinics one fails.
const FAILS_OF: usize = 4;

struct Dice(u64);

impl Dice {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below.max(1)
    }

    /// From nought to one.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.draw(1 << 32)).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

/// People of 50 to 59 by district, cities with boroughs left out.
fn districts() -> Vec<u64> {
    let rows: Vec<Vec<&str>> = POPULATION
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect())
        .collect();
    let by_borough = |region: &str, name: &str| {
        let borough = format!("{name} ");
        rows.iter()
            .any(|row| row[1] == region && row[2].starts_with(&borough))
    };
    let lowest = rows
        .iter()
        .filter(|row| !row[2].is_empty() && !by_borough(row[1], row[2]));
    lowest
        .map(|row| {
            row[53..63]
                .iter()
                .filter_map(|n| n.parse::<u64>().ok())
                .sum()
        })
        .collect()
}

/// Appointments of each clinic and day that had any.
fn sizes() -> Vec<u32> {
    let number = |text: Option<&str>| text.and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let rows = CAPACITIES
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>());
    rows.map(|row| number(row.get(3).copied()) + number(row.get(4).copied()))
        .filter(|size| *size > 0)
        .collect()
}

fn clinics(count: usize, dice: &mut Dice) -> Vec<Clinic> {
    let people = districts();
    let all: u64 = people.iter().sum();
    let centres: Vec<(f64, f64)> = people
        .iter()
        .map(|_| (34.3 + 3.8 * dice.share(), 126.4 + 3.0 * dice.share()))
        .collect();
    let clinic = |_| {
        let mut left = dice.draw(all);
        let district = people.iter().position(|people| {
            let here = left < *people;
            left = left.saturating_sub(*people);
            here
        });
        let district = district.unwrap_or(0);
        let (latitude, longitude) = centres[district];
        Clinic {
            latitude: latitude + 0.1 * (dice.share() - 0.5),
            longitude: longitude + 0.1 * (dice.share() - 0.5),
            district: u32::try_from(district).unwrap_or(0),
        }
    };
    (0..count).map(clinic).collect()
}

/// What is free and who has to go, at most `bookings`.
fn supply(clinics: &[Clinic], bookings: usize, dice: &mut Dice) -> (Vec<Slot>, Vec<Booking>) {
    let sizes = sizes();
    let (mut slots, mut people) = (Vec::new(), Vec::new());
    for clinic in 0..clinics.len() {
        for day in 0..DAYS {
            let size = sizes[usize::try_from(dice.draw(sizes.len() as u64)).unwrap_or(0)];
            for hour in HOURS {
                let starts_at = i64::from(day) * DAY_MICROS + hour * HOUR_MICROS;
                let here = size.div_ceil(4);
                let clinic = u32::try_from(clinic).unwrap_or(0);
                if (clinic as usize).is_multiple_of(FAILS_OF) {
                    let booked = (0..here - here / LEFT_OF).map(|_| Booking {
                        clinic,
                        kind: 0,
                        day,
                        starts_at,
                        earliest: i32::MIN,
                        latest: i32::MAX,
                    });
                    people.extend(booked);
                } else if here / LEFT_OF > 0 {
                    let free = here / LEFT_OF;
                    slots.push(Slot {
                        clinic,
                        kind: 0,
                        day,
                        starts_at,
                        free,
                    });
                }
            }
        }
    }
    // A part of them, drawn evenly; a third is bound by another dose.
    for at in (1..people.len()).rev() {
        people.swap(at, usize::try_from(dice.draw(at as u64 + 1)).unwrap_or(0));
    }
    people.truncate(bookings);
    for one in people.iter_mut().filter(|_| dice.draw(3) == 0) {
        (one.earliest, one.latest) = (one.day - 2, one.day + 3);
    }
    (slots, people)
}

/// The most memory that the process ever had, in MiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}

#[expect(
    clippy::print_stdout,
    reason = "a tool for the terminal: its output is what it is for"
)]
fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse::<usize>().ok());
    let bookings = arguments.next().unwrap_or(100_000);
    let count = arguments.next().unwrap_or(13_000);
    let mut dice = Dice(2_021);
    let clinics = clinics(count, &mut dice);
    let (slots, people) = supply(&clinics, bookings, &mut dice);
    let free: u64 = slots.iter().map(|slot| u64::from(slot.free)).sum();
    println!(
        "{} bookings of {count} clinics, {free} places free at {} slots",
        people.len(),
        slots.len()
    );
    plans("plenty", &clinics, &slots, &people);
    let keep = u64::try_from(people.len()).unwrap_or(0) * 9 / 10;
    let few: Vec<Slot> = slots
        .into_iter()
        .filter(|_| dice.draw(free) < keep)
        .collect();
    plans("short", &clinics, &few, &people);
}

#[expect(clippy::print_stdout, reason = "a tool for the terminal")]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn plans(what: &str, clinics: &[Clinic], slots: &[Slot], people: &[Booking]) {
    type Planner = fn(&[Clinic], &[Slot], &[Booking], &Limits) -> Plan;
    let planners: [(&str, Planner); 2] = [("other clinics", relocate), ("later days", redate)];
    let free: u64 = slots.iter().map(|slot| u64::from(slot.free)).sum();
    for (how, planner) in planners {
        let began = Instant::now();
        let plan = planner(clinics, slots, people, &Limits::default());
        let took = began.elapsed();
        let moved: Vec<(usize, u32)> = plan
            .iter()
            .enumerate()
            .filter_map(|(at, to)| Some((at, to.ok()?)))
            .collect();
        let same_day = moved
            .iter()
            .filter(|(at, to)| slots[*to as usize].day == people[*at].day);
        println!(
            "{what}, {free} places, to {how}: {:.2} s, peak {} MiB; {} moved ({} on the same day), {} not",
            took.as_secs_f64(),
            peak().unwrap_or(0),
            moved.len(),
            same_day.count(),
            plan.len() - moved.len(),
        );
    }
}
