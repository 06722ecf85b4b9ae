//! A town instead of a country: the same claims must hold.

use super::figures::Figures;
use super::*;

fn scene() -> Scene {
    let population = crate::population::Population::load(1.0, &[]).expect("in the binary");
    Scene {
        people: 60_000,
        late: 3_000,
        open_for_secs: 420,
        rate: 160.0,
        adaptive: false,
        capacity: 240.0,
        supply: 70_000,
        habits: Habits {
            presence: 0.9,
            ten_devices: 0.01,
            reloaders: 0.002,
            returners: 0.02,
            devices: 1.0,
        },
        regions: crowd::shares(&population),
        polls_per_second: 5_000,
        seed: 11,
    }
}

fn none() -> fairness::Fairness {
    fairness::measure_with(0, 1, 1, 1.0)
}

fn broken(scene: &Scene, figures: &Figures) -> Vec<String> {
    let bad = report::all_hold(scene, figures, &none());
    bad.into_iter()
        .filter(|claim| !claim.starts_with("mean time"))
        .collect()
}

#[test]
fn the_claims_hold_in_a_town() {
    let scene = scene();
    let figures = World::new(&scene).run();
    assert_eq!(broken(&scene, &figures), Vec::<String>::new());
    let early = figures.group(crowd::Group::Early);
    assert!(
        early.waits.n as f64 >= early.people as f64 * 0.99,
        "{} of {}",
        early.waits.n,
        early.people
    );
    let late = figures.group(crowd::Group::Late);
    assert!(late.waits.n > 0 && late.waits.quantile(0.5) < early.waits.quantile(0.9));
    assert!(
        early.delays.quantile(0.99) <= 20,
        "noticed within two seconds: {}",
        early.delays.quantile(0.99)
    );
    let returners = figures.group(crowd::Group::Returner);
    let came = returners.waits.n * 20;
    assert!(
        came < returners.people,
        "an hour away is longer than this opening: {came}"
    );
}

#[test]
fn the_same_seed_gives_the_same_opening() {
    let small = Scene {
        people: 5_000,
        late: 500,
        open_for_secs: 60,
        ..scene()
    };
    let csv = |scene: &Scene| report::csv(&World::new(scene).run());
    assert_eq!(csv(&small), csv(&small));
    assert_ne!(
        csv(&small),
        csv(&Scene {
            seed: 12,
            ..small.clone()
        })
    );
}

#[test]
fn an_empty_shelf_sees_few_people() {
    let scene = Scene {
        supply: 20_000,
        ..scene()
    };
    let figures = World::new(&scene).run();
    assert_eq!(figures.left, 0);
    assert_eq!(
        broken(&scene, &figures)
            .into_iter()
            .filter(|c| c.starts_with("admitted"))
            .count(),
        0
    );
    let vain = figures.in_vain() as f64 / figures.came() as f64;
    assert!(vain <= 0.05, "{vain}");
}

#[test]
fn a_back_end_that_takes_less_slows_the_line() {
    let scene = Scene {
        adaptive: true,
        rate: 400.0,
        capacity: 100.0,
        ..scene()
    };
    let figures = World::new(&scene).run();
    assert_eq!((figures.unexplained, figures.frontier_fell), (0, 0));
    let last = &figures.seconds[figures.seconds.len() - 120..];
    let rate = last
        .iter()
        .map(|second| f64::from(second.arrivals))
        .sum::<f64>()
        / 120.0;
    assert!((40.0..=110.0).contains(&rate), "{rate} of 100 a second");
}

#[test]
fn devices_and_reloads_buy_nothing() {
    let fairness = fairness::measure_with(6, 3, 20_000, 500.0);
    for one in &fairness.groups {
        assert_eq!(
            one.found.shown(),
            crate::equivalence::Shown::Equivalent,
            "{one:?}"
        );
    }
}

#[test]
fn the_report_stands_alone() {
    let small = Scene {
        people: 5_000,
        late: 500,
        open_for_secs: 60,
        ..scene()
    };
    let figures = World::new(&small).run();
    let took = Took {
        main_secs: 1.0,
        events: figures.events,
    };
    let cases = vec![
        kdca::case(2_000_000, 1_000, 1),
        kdca::case(300_000, 1_000, 1),
    ];
    let page = report::page(&small, &figures, &took, &none(), &cases).expect("text");
    assert!(
        !page.contains("<script") && !page.contains("http"),
        "one file, nothing fetched"
    );
    assert_eq!(page.matches("<svg").count(), 5);
    assert!(!page.contains("NaN") && !page.contains("inf"));
    let all = cases[0].figures.done_after(0.999);
    assert!(
        (2_600..=2_800).contains(&all),
        "1.5 million at 2 million an hour: {all} s"
    );
}
