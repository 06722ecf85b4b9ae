//! The limit against a back end in virtual time: a queue that is worked off at a rate.

use super::*;

const BOUNDS: Bounds = Bounds {
    floor: 64,
    ceiling: 8_192,
    calm: Duration::from_millis(100),
    target: Duration::from_secs(1),
};
const STEP: Duration = Duration::from_millis(100);

/// A back end that answers so many a second, after some time of its own.
struct BackEnd {
    per_second: f64,
    own_time: Duration,
    /// Refuses what it would answer later than this.
    patience: Duration,
    queue: f64,
    limit: Gradient,
    /// Calls that the limit turned away.
    shed: f64,
    answered: f64,
}

impl BackEnd {
    fn new(per_second: f64, own_ms: u64) -> Self {
        Self {
            per_second,
            own_time: Duration::from_millis(own_ms),
            patience: Duration::from_secs(3_600),
            queue: 0.0,
            limit: Gradient::new(BOUNDS),
            shed: 0.0,
            answered: 0.0,
        }
    }

    /// Offers so many calls a second for a while; everything that is counted is counted anew.
    fn offer(&mut self, per_second: f64, seconds: u64) -> &mut Self {
        (self.shed, self.answered) = (0.0, 0.0);
        for _ in 0..seconds * 10 {
            self.step(per_second);
        }
        self
    }

    fn step(&mut self, per_second: f64) {
        let dt = STEP.as_secs_f64();
        let own = self.own_time.as_secs_f64();
        let under_way = per_second.min(self.per_second) * own;
        let came = per_second * dt;
        let room = (f64::from(self.limit.limit()) - under_way - self.queue + self.per_second * dt)
            .max(0.0);
        let taken = came.min(room);
        self.shed += came - taken;
        let patient = self.per_second * (self.patience.as_secs_f64() + dt);
        let refused = (self.queue + taken - patient).max(0.0);
        self.queue += taken - refused;
        let done = self.queue.min(self.per_second * dt);
        self.queue -= done;
        self.answered += done;
        let waited = self.queue / self.per_second;
        let window = Window {
            lasted: STEP,
            answers: done as u32,
            mean: self.own_time + Duration::from_secs_f64(waited),
            refused: refused as u32,
            peak: (under_way + self.queue) as u32,
        };
        self.limit = self.limit.next(&window);
    }

    fn waited(&self) -> f64 {
        self.queue / self.per_second
    }
}

fn window(mean_ms: u64, peak: u32) -> Window {
    Window {
        lasted: STEP,
        answers: 100,
        mean: Duration::from_millis(mean_ms),
        refused: 0,
        peak,
    }
}

#[test]
fn what_a_back_end_can_take_is_never_refused() {
    for (load, own_ms) in [(10.0, 3), (500.0, 8), (990.0, 20), (990.0, 90)] {
        let mut it = BackEnd::new(1_000.0, own_ms);
        it.offer(load, 600);
        assert_eq!(it.shed, 0.0, "{load} a second in {own_ms} ms each");
        assert_eq!(it.limit.limit(), 1_024, "its reach");
    }
}

#[test]
fn a_fast_back_end_gets_what_it_answers_in_time_and_a_stampede_does_not_flood_a_slow_one() {
    let mut fast = BackEnd::new(12_000.0, 10);
    fast.offer(12_000.0, 1);
    assert_eq!(fast.limit.limit(), BOUNDS.ceiling);
    let mut slow = BackEnd::new(1_000.0, 10);
    slow.offer(10_000.0, 5);
    assert!(slow.waited() <= 1.1, "{} s", slow.waited());
    assert!(slow.answered >= 0.99 * 5_000.0, "{}", slow.answered);
    // What it could do an hour ago is forgotten.
    fast.offer(100.0, 3_600);
    assert_eq!(fast.limit.limit(), 1_024);
}

#[test]
fn a_slow_back_end_that_keeps_up_is_not_shed() {
    // Four times as slow as calm, all the time: it is its way, and no queue.
    let mut it = BackEnd::new(1_000.0, 400);
    it.offer(950.0, 600);
    assert_eq!(it.shed, 0.0);
}

#[test]
fn overload_ends_in_a_short_queue_with_full_use() {
    for times in [1.2, 3.0, 10.0, 33.0] {
        let mut it = BackEnd::new(1_000.0, 10);
        it.offer(500.0, 60);
        it.offer(times * 1_000.0, 20);
        assert!(it.waited() <= 0.5, "{times}: {} s at first", it.waited());
        it.offer(times * 1_000.0, 60);
        let answered = it.answered;
        assert!(answered >= 0.99 * 60_000.0, "{times}: {answered} answered");
        assert!(
            it.waited() <= 0.8,
            "{times}: {} s after a minute",
            it.waited()
        );
        it.offer(500.0, 2);
        it.offer(500.0, 60);
        assert_eq!(it.shed, 0.0, "{times}: over is over");
    }
}

#[test]
fn a_queue_that_stands_for_an_hour_is_bounded_by_the_target() {
    let mut it = BackEnd::new(1_000.0, 10);
    it.offer(500.0, 60);
    it.offer(10_000.0, 3_600);
    assert!(it.waited() <= 1.2, "{}", it.waited());
    assert!(it.answered >= 0.99 * 3_600_000.0);
}

#[test]
fn a_back_end_that_refuses_is_asked_less() {
    let mut it = BackEnd::new(1_000.0, 10);
    it.patience = Duration::from_millis(90);
    it.offer(10_000.0, 30);
    it.offer(10_000.0, 30);
    assert!(it.limit.limit() < 400, "{}", it.limit.limit());
    assert!(it.answered >= 0.99 * 30_000.0);
}

#[test]
fn a_back_end_that_became_slower_is_kept_busy() {
    let mut it = BackEnd::new(1_000.0, 10);
    it.offer(500.0, 600);
    // A tenth of its speed from now on, and ten times as slow with each call.
    (it.per_second, it.own_time) = (100.0, Duration::from_millis(100));
    it.offer(150.0, 60);
    it.offer(150.0, 60);
    assert!(it.answered >= 0.99 * 6_000.0, "{}", it.answered);
    assert!(it.waited() <= 1.2, "{}", it.waited());
}

#[test]
fn a_night_of_slow_answers_takes_nothing_that_is_not_used() {
    let mut limit = Gradient::new(BOUNDS);
    for _ in 0..600 {
        limit = limit.next(&window(5, 20));
    }
    for _ in 0..600 {
        limit = limit.next(&window(600, 20));
    }
    assert_eq!(limit.limit(), 1_024, "slow, but little used");
    for _ in 0..600 {
        limit = limit.next(&window(3_000, 50));
    }
    assert!((64..=100).contains(&limit.limit()), "late for everybody");
    let late = limit.limit();
    for _ in 0..299 {
        limit = limit.next(&window(5, 20));
    }
    assert_eq!(limit.limit(), late, "what is little used does not grow");
    limit = limit.next(&window(5, 20));
    assert_eq!(limit.limit(), 1_024, "rested");
}

#[test]
fn a_take_over_of_a_second_leaves_the_limit_wide() {
    let mut limit = Gradient::new(BOUNDS);
    let busy = |mean_ms, peak| Window {
        answers: 800,
        ..window(mean_ms, peak)
    };
    for _ in 0..600 {
        limit = limit.next(&busy(5, 300));
    }
    for _ in 0..5 {
        limit = limit.next(&busy(1_500, 6_000));
    }
    assert!(limit.limit() > 4_000, "{}", limit.limit());
}

#[test]
fn nothing_heard_changes_nothing_and_no_limit_leaves_its_bounds() {
    let mut limit = Gradient::new(BOUNDS);
    assert_eq!(limit.next(&Window::default()), limit);
    for _ in 0..200 {
        limit = limit.next(&window(60_000, 8_192));
    }
    assert_eq!(limit.limit(), BOUNDS.floor);
    let refused = Window {
        refused: 100,
        peak: 64,
        ..Window::default()
    };
    for _ in 0..200 {
        limit = limit.next(&refused);
    }
    assert_eq!(limit.limit(), BOUNDS.floor);
    // In full use and answered in no time, it doubles in seconds.
    for _ in 0..100 {
        limit = limit.next(&window(0, limit.limit()));
    }
    assert!(limit.limit() > 512, "{}", limit.limit());
}
