//! The steering against a small town: people with drawn places, some absent, and a back end with a capacity.

use std::collections::VecDeque;

use domain::room::{BucketDocument, Phase};
use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(250);

fn settings(rate: Rate) -> Settings {
    Settings {
        rate,
        ttl: Duration::from_secs(10),
        presence: 1.0,
        latency_max: Duration::from_millis(500),
        queued_max: 10_000,
    }
}

fn region(name: &str) -> RegionId {
    name.parse().expect("slug")
}

fn bucket(id: u32, before: u64, regions: &[(&str, u64)]) -> BucketDocument {
    BucketDocument {
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        id,
        before,
        size: regions.iter().map(|(_, n)| n).sum(),
        regions: regions.iter().map(|(name, n)| (region(name), *n)).collect(),
        list_root: None,
        prev_hash: None,
    }
}

fn crowd(regions: &[(&str, u64)]) -> Crowd {
    let mut crowd = Crowd::default();
    assert!(crowd.push(&bucket(0, 0, regions)));
    crowd
}

/// Uniform, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

struct Place {
    /// Ordinals of people who are there, rising.
    present: VecDeque<f64>,
    /// Arrival times of those on their way.
    coming: Vec<f64>,
    waiting: u64,
    arrived: u64,
    left: u64,
    /// Arrived when nothing was left.
    in_vain: u64,
    capacity: f64,
    credit: f64,
}

/// People, back ends, and a doorkeeper.
struct Town {
    steering: Steering,
    plan: Plan,
    places: BTreeMap<RegionId, Place>,
    gateways: Vec<Gateway>,
    dice: Dice,
    now: f64,
    version: u64,
    /// Arrivals in each step.
    arrivals: Vec<u64>,
}

impl Town {
    fn new(rate: Rate, presence: f64, left: u64, capacity: f64, regions: &[(&str, u64)]) -> Self {
        let mut dice = Dice(7);
        let crowd = crowd(regions);
        let total = crowd.total() as f64;
        let mut places = BTreeMap::new();
        for (name, n) in regions {
            let mut all: Vec<f64> = (0..*n).map(|_| dice.roll() * total).collect();
            all.retain(|_| dice.roll() < presence);
            all.sort_by(f64::total_cmp);
            let place = Place {
                present: all.into(),
                coming: Vec::new(),
                waiting: 0,
                arrived: 0,
                left,
                in_vain: 0,
                capacity,
                credit: 0.0,
            };
            places.insert(region(name), place);
        }
        let mut room = Room::lobby(
            "c".parse().expect("slug"),
            "h".parse().expect("slug"),
            places.keys().cloned(),
        );
        room.phase = Phase::Drawn;
        room.regions.values_mut().for_each(|line| line.left = left);
        let steering = Steering::resume(settings(rate), &room, crowd, None);
        let plan = steering.plan();
        Self {
            steering,
            plan,
            places,
            gateways: Vec::new(),
            dice,
            now: 0.0,
            version: 1,
            arrivals: Vec::new(),
        }
    }

    fn step(&mut self) {
        let dt = STEP.as_secs_f64();
        let mut regions = BTreeMap::new();
        let mut arrived = 0;
        for (region, place) in &mut self.places {
            let frontier = self.plan.regions[region].after(STEP) as f64;
            while place.present.front().is_some_and(|at| *at < frontier) {
                place.present.pop_front();
                // They ask about once a second.
                place
                    .coming
                    .push(self.now + dt * self.dice.roll() + 1.1 * self.dice.roll());
            }
            let before = place.coming.len();
            place.coming.retain(|at| *at > self.now + dt);
            let came = (before - place.coming.len()) as u64;
            (place.arrived, place.waiting) = (place.arrived + came, place.waiting + came);
            arrived += came;
            place.credit = (place.credit + place.capacity * dt).min(place.waiting as f64);
            let served = place.credit as u64;
            place.credit -= served as f64;
            place.waiting -= served;
            place.in_vain += served.saturating_sub(place.left);
            place.left = place.left.saturating_sub(served);
            let figures = Figures {
                left: place.left,
                arrived: place.arrived,
                unserved: place.waiting,
                queued: place.waiting,
                latency: Duration::from_secs_f64(place.waiting as f64 / place.capacity),
                commits_per_second: served as f64 / dt,
            };
            regions.insert(region.clone(), figures);
        }
        self.arrivals.push(arrived);
        self.now += dt;
        self.version += 1;
        let tick = Tick {
            followed: STEP,
            version: self.version,
            regions,
            gateways: self.gateways.clone(),
        };
        (self.steering, self.plan) = self.steering.tick(&tick);
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.step();
        }
    }

    /// People who came per second, over each 10 s since `from`.
    fn rates(&self, from: usize) -> Vec<f64> {
        self.arrivals[from * 4..]
            .windows(40)
            .map(|steps| steps.iter().sum::<u64>() as f64 / 10.0)
            .collect()
    }

    fn wanted(&self) -> f64 {
        self.plan.basis.values().map(|basis| basis.wanted).sum()
    }
}

const FOUR: [(&str, u64); 4] = [
    ("seoul", 40_000),
    ("gyeonggi", 30_000),
    ("busan", 12_000),
    ("jeju", 3_911),
];

#[test]
fn a_fixed_rate_is_what_arrives_whether_all_are_there_or_not() {
    for (presence, settled) in [(1.0, 5), (0.7, 25), (0.15, 40)] {
        let mut town = Town::new(Rate::Fixed(500.0), presence, 1_000_000, 10_000.0, &FOUR);
        let people = 85_911.0 * presence;
        town.run((people / 500.0) as u64 - 3);
        for (at, rate) in town
            .rates(if presence < 0.2 { 14 } else { settled })
            .into_iter()
            .enumerate()
        {
            assert!(
                (470.0..=530.0).contains(&rate),
                "{presence}: {rate} a second at {at}"
            );
        }
    }
}

#[test]
fn the_frontier_moves_as_its_document_says() {
    let mut town = Town::new(Rate::Fixed(500.0), 1.0, 1_000_000, 10_000.0, &FOUR);
    town.run(5);
    let mut planned = 0.0;
    let start = town.plan.regions[&region("jeju")].f0;
    for _ in 0..40 {
        planned += town.plan.regions[&region("jeju")].per_kilosecond as f64 / 4_000.0;
        town.step();
    }
    let advanced = (town.plan.regions[&region("jeju")].f0 - start) as f64;
    assert!(
        (advanced - planned).abs() <= 1.0,
        "{advanced} of {planned}: no fraction gets lost"
    );
    assert!(
        (4_800.0..5_200.0).contains(&advanced),
        "all regions together sweep the national order: {advanced}"
    );
}

#[test]
fn ordinals_are_national_so_a_small_region_needs_no_other_speed() {
    let town = {
        let mut town = Town::new(Rate::Fixed(500.0), 1.0, 1_000_000, 10_000.0, &FOUR);
        town.run(2);
        town
    };
    for line in town.plan.regions.values() {
        assert!(
            (475_000..=525_000).contains(&line.per_kilosecond),
            "{line:?}"
        );
    }
}

#[test]
fn the_last_places_find_people_and_few_come_in_vain() {
    for presence in [1.0, 0.6] {
        let mut town = Town::new(Rate::Fixed(500.0), presence, 3_000, 10_000.0, &FOUR);
        town.run(120);
        for (region, place) in &town.places {
            if place.present.is_empty() {
                continue;
            }
            let line = &town.plan.regions[region];
            assert_eq!(
                (place.left, line.state, line.per_kilosecond),
                (0, RegionState::Exhausted, 0),
                "{region}"
            );
            assert_eq!(line.f_end, line.f0, "stopped at once");
            let share = place.in_vain as f64 / place.arrived as f64;
            assert!(share <= 0.05, "{region}: {share} came in vain");
        }
        assert!(town.plan.exhausted);
    }
}

#[test]
fn places_that_come_back_move_the_line_on() {
    let mut town = Town::new(
        Rate::Fixed(500.0),
        0.8,
        2_000,
        10_000.0,
        &[("seoul", 50_000)],
    );
    town.run(60);
    let stopped = town.plan.regions[&region("seoul")].f0;
    let place = town.places.get_mut(&region("seoul")).expect("there");
    let before = place.arrived;
    place.left = 200;
    town.run(45);
    let place = &town.places[&region("seoul")];
    assert_eq!(place.left, 0, "given out again");
    let more = place.arrived - before;
    assert!((200..=215).contains(&more), "{more} came for 200");
    assert!(town.plan.regions[&region("seoul")].f0 > stopped + 200);
}

#[test]
fn the_rate_finds_what_the_back_end_takes() {
    let rate = Rate::Adaptive {
        start: 50.0,
        ceiling: 100_000.0,
    };
    let mut town = Town::new(rate, 0.8, 10_000_000, 400.0, &[("seoul", 300_000)]);
    town.run(30);
    assert!(
        town.wanted() < 160.0,
        "begins cautiously: {}",
        town.wanted()
    );
    town.run(270);
    let rates = town.rates(150);
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    assert!((240.0..=420.0).contains(&mean), "{mean} of 400 a second");
}

#[test]
fn the_operators_ceiling_binds() {
    let rate = Rate::Adaptive {
        start: 50.0,
        ceiling: 80.0,
    };
    let mut town = Town::new(rate, 1.0, 10_000_000, 4_000.0, &FOUR);
    town.run(120);
    assert!((79.0..=80.01).contains(&town.wanted()), "{}", town.wanted());
}

#[test]
fn trouble_halves_and_not_more_often_than_it_can_show() {
    let rate = Rate::Adaptive {
        start: 1_000.0,
        ceiling: 100_000.0,
    };
    let mut town = Town::new(rate, 1.0, 10_000_000, 100_000.0, &[("seoul", 1_000_000)]);
    town.run(5);
    let before = town.wanted();
    town.gateways = vec![Gateway {
        sheds_per_second: 10.0,
        calls_per_second: 1_000.0,
        ..Gateway::default()
    }];
    town.step();
    assert!(
        (town.wanted() - before / 2.0).abs() < 1.0,
        "{} of {before}",
        town.wanted()
    );
    town.run(2);
    assert!((town.wanted() - before / 2.0).abs() < 1.0, "not yet again");
    town.run(2);
    assert!((town.wanted() - before / 4.0).abs() < 1.0, "and again");
    let slowed = town.plan.regions[&region("seoul")]
        .promise
        .slowed
        .expect("slower");
    assert_eq!(slowed.reason, Reason::Slowed);
    town.gateways = Vec::new();
    let low = town.wanted();
    town.run(10);
    let grown = town.wanted() / low;
    assert!((1.01..1.6).contains(&grown), "back slowly: {grown}");
}

#[test]
fn gateways_never_make_a_line_faster() {
    let rate = Rate::Adaptive {
        start: 100.0,
        ceiling: 100_000.0,
    };
    let mut wanted = Vec::new();
    for in_flight in [0.0, 0.95] {
        let mut town = Town::new(rate, 1.0, 10_000_000, 10_000.0, &[("seoul", 1_000_000)]);
        town.gateways = vec![Gateway {
            in_flight,
            calls_per_second: 1e6 * (1.0 - in_flight),
            ..Gateway::default()
        }];
        town.run(20);
        wanted.push(town.wanted());
    }
    assert!(
        wanted[0] > 150.0 && (wanted[1] - 100.0).abs() < 1.0,
        "{wanted:?}"
    );
}

#[test]
fn one_gateway_that_lies_costs_its_part_and_the_line_still_finds_its_speed() {
    let rate = Rate::Adaptive {
        start: 50.0,
        ceiling: 100_000.0,
    };
    let gateway = |shed: f64| Gateway {
        calls_per_second: if shed > 0.0 { 1e9 } else { 100.0 },
        sheds_per_second: shed,
        latency: Duration::from_secs_f64(shed.min(60.0)),
        in_flight: shed.min(1.0),
    };
    let mut wanted = Vec::new();
    for liars in [0, 1, 2, 4] {
        let mut town = Town::new(rate, 1.0, 10_000_000, 400.0, &[("seoul", 1_000_000)]);
        town.gateways = (0..4)
            .map(|at| gateway(if at < liars { 1e9 } else { 0.0 }))
            .collect();
        town.run(200);
        let rates = town.rates(150);
        wanted.push(rates.iter().sum::<f64>() / rates.len() as f64);
    }
    assert!((240.0..=420.0).contains(&wanted[0]), "{wanted:?}");
    assert!(
        wanted[1] >= 0.6 * wanted[0],
        "a quarter of them: {wanted:?}"
    );
    assert!(wanted[2] >= 0.3 * wanted[0], "half of them: {wanted:?}");
    assert!(
        wanted[3] >= 0.1 * 50.0,
        "all of them: slow, not stopped: {wanted:?}"
    );
    assert!(wanted[3] <= 50.0, "and nobody gains by it: {wanted:?}");
}

#[test]
fn silent_inventories_slow_the_line() {
    let rate = Rate::Adaptive {
        start: 100.0,
        ceiling: 100_000.0,
    };
    let mut town = Town::new(rate, 1.0, 10_000_000, 10_000.0, &[("seoul", 1_000_000)]);
    town.run(2);
    let mut wanted = Vec::new();
    for version in 0..40 {
        let tick = Tick {
            followed: STEP,
            version: 100 + version,
            regions: BTreeMap::new(),
            gateways: Vec::new(),
        };
        let plan;
        (town.steering, plan) = town.steering.tick(&tick);
        wanted.push(plan.basis[&region("seoul")].wanted);
    }
    assert!(
        wanted[0] >= 100.0 && wanted[39] <= wanted[0] / 4.0,
        "{wanted:?}"
    );
}

#[test]
fn nobody_is_passed_who_has_not_come_to_the_line_yet() {
    let mut town = Town::new(
        Rate::Fixed(500.0),
        1.0,
        1_000_000,
        10_000.0,
        &[("seoul", 1_000)],
    );
    town.run(30);
    let line = &town.plan.regions[&region("seoul")];
    assert_eq!(
        (line.f0, line.f_end, line.state),
        (1_000, 1_000, RegionState::Open)
    );
    let late = bucket(1, 1_000, &[("seoul", 10), ("jeju", 90)]);
    assert!(town.steering.crowd().push(&late) && !town.steering.crowd().push(&late));
    town.run(2);
    let line = &town.plan.regions[&region("seoul")];
    assert_eq!(
        (line.f0, line.f_end),
        (1_100, 1_100),
        "the next bucket is let in"
    );
}

#[test]
fn a_pause_keeps_what_readers_can_have_computed() {
    let mut town = Town::new(Rate::Fixed(500.0), 1.0, 1_000_000, 10_000.0, &FOUR);
    town.run(10);
    let before = town.plan.regions[&region("seoul")].clone();
    let (_, plan) = town.steering.halt(Duration::from_secs(3));
    let line = &plan.regions[&region("seoul")];
    assert_eq!(line.per_kilosecond, 0);
    let reached = before.after(Duration::from_secs(3));
    assert!(
        line.f0 >= reached && line.f0 <= reached + 1,
        "{line:?} after {before:?}"
    );
}

#[test]
fn a_successor_goes_on_at_the_speed_it_found() {
    let mut town = Town::new(Rate::Fixed(500.0), 0.7, 1_000_000, 10_000.0, &FOUR);
    town.run(40);
    let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
    room.phase = Phase::Open;
    room.regions = town.plan.regions.clone();
    let crowd = town.steering.crowd().clone();
    let old = town.plan.clone();
    let successor = Steering::resume(
        settings(Rate::Fixed(500.0)),
        &room,
        crowd,
        Some(Duration::from_secs(2)),
    );
    let (_, plan) = successor.tick(&Tick {
        followed: STEP,
        version: 1_000,
        regions: BTreeMap::new(),
        gateways: Vec::new(),
    });
    for (region, line) in &plan.regions {
        let before = &old.regions[region];
        assert!(line.f0 >= before.after(Duration::from_secs(2)));
        let change = line.per_kilosecond as f64 / before.per_kilosecond as f64;
        assert!((0.95..1.05).contains(&change), "{region}: {change}");
    }
}

proptest! {
    #[test]
    fn no_plan_ever_lies_behind_its_predecessor(
        steps in proptest::collection::vec((1u64..15_000, 0u64..1_000, 0u64..400, 0u64..100, any::<bool>()), 1..60),
        rate in 0.0f64..5_000.0,
        adaptive in any::<bool>(),
    ) {
        let rate = if adaptive { Rate::Adaptive { start: rate, ceiling: 10_000.0 } } else { Rate::Fixed(rate) };
        let mut town = Town::new(rate, 0.5, 1_000, 1_000.0, &[("seoul", 3_000), ("jeju", 500)]);
        let mut arrived = 0;
        for (version, (ms, left, came, unserved, silent)) in steps.into_iter().enumerate() {
            arrived += came;
            let figures = Figures { left, arrived, unserved, ..Figures::default() };
            let regions = if silent { BTreeMap::new() } else { [(region("seoul"), figures)].into() };
            let followed = Duration::from_millis(ms);
            let tick = Tick { followed, version: version as u64 + 2, regions, gateways: Vec::new() };
            let (next, plan) = town.steering.tick(&tick);
            for (region, line) in &plan.regions {
                let before = &town.plan.regions[region];
                prop_assert!(line.f0 >= before.after(followed), "{before:?} then {line:?} after {followed:?}");
                prop_assert!(line.f0 >= before.f0 && line.f_end >= line.f0 && line.f_end <= 3_500);
            }
            (town.steering, town.plan) = (next, plan);
        }
    }
}
