//! What people are told, and that it holds.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_626_000_000);
const PACE: Pace = Pace {
    polls_per_second: 50_000,
    expected_people: 1_000,
};

fn line(per_kilosecond: u64) -> Frontier {
    Frontier {
        f0: 0,
        per_kilosecond,
        ttl_ms: 10_000,
        f_end: u64::MAX,
        promise: Promise {
            per_kilosecond,
            slowed: None,
        },
        ..Frontier::default()
    }
}

fn view(phase: Phase, line: &Frontier, frontier: u64) -> View<'_> {
    View {
        version: 7,
        phase,
        line,
        frontier,
        people: 10_000_000,
        pace: PACE,
        opens_at: None,
    }
}

fn waiter(ordinal: u64) -> Waiter {
    Waiter {
        ordinal: Some(ordinal),
        own: mixed(ordinal),
    }
}

#[test]
fn the_waiting_time_follows_from_position_and_promise() {
    let line = line(2_000_000);
    let told = view(Phase::Open, &line, 1_000).tell(&waiter(121_000), NOW);
    assert_eq!(
        (told.admitted, told.position, told.reason),
        (false, 120_000, None)
    );
    let eta = Eta {
        from: Duration::from_secs(48),
        to: Some(Duration::from_secs(78)),
    };
    assert_eq!(told.eta, Some(eta), "a minute, told as a range");
    assert!(
        (18_000..=22_000).contains(&told.poll_after.as_millis()),
        "{:?}",
        told.poll_after
    );
    let near = view(Phase::Open, &line, 1_000).tell(&waiter(1_000), NOW);
    assert!(!near.admitted && (900..=1_100).contains(&near.poll_after.as_millis()));
    assert!(
        view(Phase::Open, &line, 1_000)
            .tell(&waiter(999), NOW)
            .admitted
    );
}

#[test]
fn who_has_no_order_yet_is_told_so() {
    let line = line(1_000_000);
    let open = Waiter {
        ordinal: None,
        own: 1,
    };
    let told = view(Phase::Open, &line, 9_000_000).tell(&open, NOW);
    assert_eq!(
        (told.position, told.reason),
        (1_000_000, Some(Reason::BucketOpen))
    );
    assert_eq!(told.eta.map(|eta| eta.to), Some(None));
    for phase in [Phase::Lobby, Phase::Frozen, Phase::Drawn] {
        let told = view(phase, &line, 0).tell(&open, NOW);
        assert_eq!((told.eta, told.reason), (None, Some(Reason::NotOpen)));
    }
}

#[test]
fn standing_lines_name_their_reason() {
    let mut line = line(1_000_000);
    line.f_end = 500;
    let told = |line: &Frontier, phase, ordinal| view(phase, line, 400).tell(&waiter(ordinal), NOW);
    assert_eq!(told(&line, Phase::Open, 499).reason, None);
    assert_eq!(told(&line, Phase::Open, 500).reason, Some(Reason::Supply));
    assert_eq!(told(&line, Phase::Paused, 499).reason, Some(Reason::Paused));
    assert_eq!(told(&line, Phase::Ended, 499).reason, Some(Reason::Ended));
    line.state = RegionState::Exhausted;
    let gone = told(&line, Phase::Exhausted, 499);
    assert_eq!((gone.eta, gone.reason), (None, Some(Reason::Exhausted)));
    assert!(
        (4_500..=5_500).contains(&gone.poll_after.as_millis()),
        "the front stays near"
    );
}

#[test]
fn while_nothing_moves_everybody_has_a_moment_of_their_own() {
    let line = line(0);
    for phase in [Phase::Lobby, Phase::Frozen, Phase::Drawn, Phase::Paused] {
        // 10 million at 50,000 a second take 200 s.
        let mut tenths = [0u32; 10];
        for person in 0..20_000u64 {
            let told = view(phase, &line, 0).tell(&waiter(person), NOW);
            let wait = told.poll_after;
            assert!((1..=201).contains(&wait.as_secs()), "{wait:?}");
            let at = usize::try_from(wait.as_secs() % 200 / 20).expect("small");
            tenths[at] += 1;
            let later = NOW.plus(wait);
            let again = view(phase, &line, 0)
                .tell(&waiter(person), later)
                .poll_after;
            assert_eq!(again, Duration::from_secs(200), "once a round");
        }
        assert!(
            tenths.iter().all(|n| (1_745..2_255).contains(n)),
            "{phase:?} {tenths:?}"
        );
    }
}

#[test]
fn before_announced_doors_the_front_is_there_and_the_others_later() {
    let line = line(2_000_000);
    let mut view = view(Phase::Drawn, &line, 0);
    view.opens_at = Some(NOW.plus(Duration::from_secs(60)));
    let (mut asked_again, mut slept) = (0, 0);
    for ordinal in 0..2_000u64 {
        let first = view.tell(&waiter(ordinal), NOW).poll_after.as_secs_f64();
        let last = view
            .tell(&waiter(9_900_000 + ordinal), NOW)
            .poll_after
            .as_secs_f64();
        let at_the_doors = (60.9..=61.1).contains(&first);
        assert!(first < 60.0 || at_the_doors, "{first}");
        let asleep = last > 1_400.0;
        assert!(last < 60.0 || asleep, "{last}");
        asked_again += u32::from(last < 60.0);
        slept += u32::from(last > 60.0);
    }
    assert!(
        (500..700).contains(&asked_again) && slept > 1_300,
        "60 of 200 seconds: {asked_again}"
    );
    let overdue = view
        .tell(&waiter(10), NOW.plus(Duration::from_secs(90)))
        .poll_after;
    assert!(
        (900..=1_100).contains(&overdue.as_millis()),
        "asks again until they open: {overdue:?}"
    );
}

#[test]
fn polls_of_a_whole_line_stay_under_the_bound() {
    // Everybody between 0 and 10 million asks again after a third of their wait: λc(1 + ln(T/c)).
    let line = line(2_000_000);
    let view = view(Phase::Open, &line, 0);
    let rate: f64 = (0..10_000u64)
        .map(|n| {
            1_000.0
                / view
                    .tell(&waiter(n * 1_000 + 500), NOW)
                    .poll_after
                    .as_secs_f64()
        })
        .sum();
    let bound = 2_000.0 * 3.0 * (1.0 + (5_000.0f64 / 3.0).ln());
    assert!(rate < bound * 1.05, "{rate} against {bound}");
    assert!(rate > bound * 0.8, "{rate} against {bound}");
}

#[test]
fn a_promise_is_kept_raised_freely_and_lowered_with_a_reason() {
    let promise = Promise::default().next(1_000, Reason::Slowed, 1);
    assert_eq!((promise.per_kilosecond, promise.slowed), (1_000, None));
    assert_eq!(
        promise.next(1_150, Reason::Slowed, 2),
        promise,
        "close enough"
    );
    assert_eq!(
        promise.next(870, Reason::Slowed, 2),
        promise,
        "close enough"
    );
    assert_eq!(
        promise.next(0, Reason::Slowed, 2),
        promise,
        "standing still is told otherwise"
    );
    assert_eq!(promise.next(1_200, Reason::Slowed, 2).per_kilosecond, 1_200);
    let slower = promise.next(500, Reason::Presence, 9);
    let slowed = Slowed {
        reason: Reason::Presence,
        version: 9,
    };
    assert_eq!((slower.per_kilosecond, slower.slowed), (500, Some(slowed)));
    assert_eq!(slower.next(2_000, Reason::Slowed, 10).slowed, Some(slowed));
}

/// A doorkeeper's whims: speed, standstill, supply, exhaustion, pause, for some seconds each.
fn whims() -> impl Strategy<Value = Vec<(u64, u8, u64, u64)>> {
    proptest::collection::vec((0u64..3_000_000, 0u8..6, 0u64..40, 0u64..3_000), 1..40)
}

proptest! {
    #[test]
    fn a_latest_time_never_rises_without_a_reason(whims in whims(), ordinal in 0u64..60_000) {
        let mut line = line(0);
        line.promise = Promise::default();
        let (mut frontier, mut version) = (0u64, 0u64);
        let mut told: Vec<(u64, Option<Duration>)> = Vec::new();
        for (speed, whim, seconds, end) in whims {
            version += 1;
            line.per_kilosecond = if whim == 1 { 0 } else { speed };
            line.promise = line.promise.next(line.per_kilosecond, Reason::Slowed, version);
            line.f_end = if whim == 2 { frontier + end } else { u64::MAX };
            line.state = if whim == 3 { RegionState::Exhausted } else { RegionState::Open };
            let phase = if whim == 4 { Phase::Paused } else { Phase::Open };
            if phase == Phase::Open && line.state == RegionState::Open {
                frontier = (frontier + line.per_kilosecond * seconds / 1_000).min(line.f_end);
            }
            let view = View { version, ..view(phase, &line, frontier) };
            let now = view.tell(&waiter(ordinal), NOW);
            let latest = now.eta.and_then(|eta| eta.to);
            for (before, earlier) in &told {
                let rose = match (earlier, latest) {
                    (Some(earlier), Some(latest)) => latest > *earlier,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                let explained = now.reason.is_some() && now.reason_version > *before;
                prop_assert!(!rose || explained || now.admitted, "{earlier:?} in {before}, {now:?} in {version}");
            }
            told.push((version, latest));
        }
    }
}
