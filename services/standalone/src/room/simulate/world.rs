//! The simulated opening: doorkeeper, people and back ends in one virtual time.
//!
//! Invariant: whether somebody is admitted, when they ask again and how fast the line goes is decided by the functions
//! of `domain` and `identity` alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use domain::place::Place;
use domain::room::wait::{Pace, View, Waiter, Waiting};
use domain::room::{BucketDocument, Bytes32, Phase, Seen};
use identity::doorkeeper::steer::{Plan, Steering, Tick};

use super::calendar::{Calendar, Event};
use super::crowd::{self, Group};
use super::figures::Figures;

mod scene;

pub(super) use scene::Scene;
use scene::{BackEnd, bucket, drawn_room};

/// The doorkeeper writes four times a second.
const TICK_MICROS: u64 = 250_000;
const BUCKET_MICROS: u64 = 60_000_000;
const BUCKET_SIZE: u64 = 50_000;
const LATE_FOR_MICROS: u64 = 3_600_000_000;
/// An hour, give or take a quarter.
const AWAY_MICROS: (u64, u64) = (2_700_000_000, 1_800_000_000);
const RELOAD_MICROS: u64 = 1_000_000;
/// Not known yet.
const NO_ORDINAL: u32 = u32::MAX;
/// One in so many people is watched for what they are told.
const WATCHED: u32 = 1_024;
/// Virtual time begins here.
const BEGIN: i64 = 1_626_000_000_000_000;

/// What a watched person was told.
#[derive(Default)]
struct Told {
    ranges: Vec<(u64, u64, u64)>,
    last: Option<(u64, Option<Duration>)>,
}

/// The bucket that is open.
#[derive(Default)]
struct OpenBucket {
    size: u64,
    regions: Vec<u64>,
    since: u64,
}

pub(super) struct World<'a> {
    scene: &'a Scene,
    calendar: Calendar,
    seen: Arc<Seen>,
    written: u64,
    steering: Steering,
    wanted: f64,
    back_ends: Vec<BackEnd>,
    opens: u64,
    ends: u64,
    next_tick: u64,
    /// Frontiers at each tick since the opening, by region.
    history: Vec<Vec<u32>>,
    closed_at: Vec<u64>,
    open: OpenBucket,
    open_id: u16,
    late_joined: Vec<u32>,
    late_due: f64,
    arrived: Vec<u64>,
    present: u64,
    told: HashMap<u32, Told>,
    figures: Figures,
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(BEGIN + i64::try_from(micros).unwrap_or(i64::MAX))
}

// === impl World ===

impl<'a> World<'a> {
    pub(super) fn new(scene: &'a Scene) -> Self {
        let devices =
            f64::from(scene.people) * (scene.habits.devices + 9.0 * scene.habits.ten_devices);
        let drawn_secs = (devices / scene.polls_per_second as f64) as u64 + 10;
        let opens = drawn_secs * 1_000_000;
        let ends = opens + scene.open_for_secs * 1_000_000;
        let back_ends = scene.regions.iter().map(|(_, share)| BackEnd {
            capacity: scene.capacity * share,
            left: (scene.supply as f64 * share).ceil() as u64,
            ..BackEnd::default()
        });
        let back_ends: Vec<BackEnd> = back_ends.collect();
        let (seen, steering) = drawn_room(scene, &back_ends);
        let words = (u64::from(scene.people) + u64::from(scene.late)) / 64 + 1;
        let mut it = Self {
            scene,
            calendar: Calendar::new(ends),
            seen: Arc::new(seen),
            written: 0,
            steering,
            wanted: 0.0,
            back_ends,
            opens,
            ends,
            next_tick: opens,
            history: vec![Vec::new(); scene.regions.len()],
            closed_at: vec![0],
            open: OpenBucket {
                regions: vec![0; scene.regions.len()],
                since: opens,
                ..OpenBucket::default()
            },
            open_id: 1,
            late_joined: Vec::new(),
            late_due: 0.0,
            arrived: vec![0; words as usize],
            present: 0,
            told: HashMap::new(),
            figures: Figures::new(drawn_secs as usize),
        };
        it.gather();
        it
    }

    /// Everybody of bucket 0 asks once in their own moment of the draw.
    fn gather(&mut self) {
        let scene = self.scene;
        let mut standing = vec![0u8; scene.people as usize];
        for number in 0..scene.people {
            let place = Place {
                bucket: 0,
                ticket: crowd::ticket(scene.seed, number),
            };
            let ordinal = self.seen.ordinal(&place).unwrap_or(0) as u32;
            let there = &mut standing[ordinal as usize];
            *there = there.saturating_add(1);
            let who = crowd::person(scene.seed, number, false, &scene.habits, &scene.regions);
            if who.devices == 0 {
                continue;
            }
            self.present += 1;
            self.figures.groups[usize::from(who.group.index())].people += 1;
            for device in 0..who.devices {
                let event = Event {
                    person: number,
                    ordinal,
                    region: who.region,
                    group: who.group.index(),
                    ..Event::default()
                };
                let moment = crowd::uniform(scene.seed, number, 16 + u64::from(device));
                self.calendar
                    .put((moment * self.opens as f64) as u64, event);
            }
        }
        let mut before = 0u64;
        for (ordinal, here) in standing.iter().enumerate() {
            self.figures.place_error = self
                .figures
                .place_error
                .max(before.abs_diff(ordinal as u64));
            before += u64::from(*here);
        }
        self.figures.n0 = u64::from(scene.people);
    }

    pub(super) fn run(mut self) -> Figures {
        let mut events = Vec::new();
        while !self.calendar.over() && self.calendar.now_micros() < self.ends {
            let now = self.calendar.now_micros();
            while self.next_tick <= now {
                self.tick(self.next_tick);
                self.next_tick += TICK_MICROS;
            }
            self.calendar.take(&mut events);
            if !events.is_empty() {
                self.slot(now, &events);
            }
            self.calendar.step();
        }
        self.figures.left = self.back_ends.iter().map(|back_end| back_end.left).sum();
        self.figures
    }

    /// The doorkeeper's turn: late comers, the open bucket, back ends, the next plan.
    fn tick(&mut self, now: u64) {
        if now > self.opens {
            self.join(now);
            self.serve(now);
        }
        let closed = self.close_bucket(now);
        let followed = Duration::from_micros(if now == self.opens { 0 } else { TICK_MICROS });
        let regions = self.scene.regions.iter().zip(&self.back_ends);
        let regions = regions.map(|((region, _), back_end)| (region.clone(), back_end.figures()));
        let tick = Tick {
            followed,
            version: self.seen.room().version + 1,
            regions: regions.collect(),
            gateways: Vec::new(),
        };
        let plan: Plan;
        (self.steering, plan) = self.steering.tick(&tick);
        self.wanted = plan.basis.values().map(|basis| basis.wanted).sum();
        let mut room = self.seen.room().successor("");
        room.phase = if plan.exhausted {
            Phase::Exhausted
        } else {
            Phase::Open
        };
        room.regions = plan.regions;
        if let Some((bucket, hash)) = &closed {
            room.last_closed_bucket = Some(bucket.id);
            room.last_bucket_hash = Some(*hash);
        }
        let seen = Arc::make_mut(&mut self.seen);
        let kept = seen.replace(room, Duration::from_micros(now - self.written));
        kept.expect("the doorkeeper's own documents follow each other");
        if let Some((bucket, hash)) = closed {
            seen.learn_bucket(&bucket, hash).expect("the next bucket");
        }
        self.written = now;
        self.watch_frontiers(now);
    }

    fn watch_frontiers(&mut self, now: u64) {
        for ((region, _), history) in self.scene.regions.iter().zip(&mut self.history) {
            let frontier = self.seen.frontier(region, Duration::ZERO).unwrap_or(0);
            if history
                .last()
                .is_some_and(|last| u64::from(*last) > frontier)
            {
                self.figures.frontier_fell += 1;
            }
            history.push(frontier as u32);
        }
        let line = self.present.saturating_sub(self.figures_came());
        let wanted = self.wanted;
        // T is the last one's wait.
        let wait = if wanted > 0.0 {
            line as f64 / wanted
        } else {
            0.0
        };
        let c = f64::from(domain::room::wait::POLLS_A_WAIT);
        let bound = wanted * c * (1.0 + (wait / c).max(1.0).ln());
        let second = self.figures.second(now);
        (second.wanted, second.bound, second.line) = (wanted as f32, bound as f32, line as u32);
    }

    fn figures_came(&self) -> u64 {
        self.back_ends.iter().map(|back_end| back_end.arrived).sum()
    }

    /// People who come after the opening.
    fn join(&mut self, now: u64) {
        if now > self.opens + LATE_FOR_MICROS {
            return;
        }
        let over = LATE_FOR_MICROS.min(self.ends - self.opens) / TICK_MICROS;
        self.late_due += f64::from(self.scene.late) / over as f64;
        while self.late_due >= 1.0 && self.late_joined.len() < self.scene.late as usize {
            self.late_due -= 1.0;
            let number = self.scene.people + self.late_joined.len() as u32;
            self.late_joined.push(((now - self.opens) / 1_000) as u32);
            let who = crowd::person(
                self.scene.seed,
                number,
                true,
                &self.scene.habits,
                &self.scene.regions,
            );
            self.open.size += 1;
            self.open.regions[usize::from(who.region)] += 1;
            if who.devices == 0 {
                continue;
            }
            self.present += 1;
            self.figures.groups[usize::from(who.group.index())].people += 1;
            let event = Event {
                person: number,
                ordinal: NO_ORDINAL,
                bucket: self.open_id,
                region: who.region,
                group: who.group.index(),
                ..Event::default()
            };
            self.calendar.put(now, event);
        }
    }

    fn close_bucket(&mut self, now: u64) -> Option<(BucketDocument, Bytes32)> {
        let age = now.saturating_sub(self.open.since);
        let total = self.seen.buckets().people();
        let passed = |(region, _): &(domain::RegionId, f64)| {
            self.seen
                .frontier(region, Duration::from_micros(TICK_MICROS))
                .is_some_and(|at| at >= total)
        };
        let empty = age >= 1_000_000 && self.scene.regions.iter().all(passed);
        let due = age >= BUCKET_MICROS || self.open.size >= BUCKET_SIZE || empty;
        if self.open.size == 0 || !due {
            return None;
        }
        let open = std::mem::replace(
            &mut self.open,
            OpenBucket {
                regions: vec![0; self.scene.regions.len()],
                since: now,
                ..OpenBucket::default()
            },
        );
        let bucket = bucket(
            self.scene,
            u32::from(self.open_id),
            &self.seen,
            open.size,
            &open.regions,
        );
        let hash = Bytes32::sha256([u8::try_from(self.open_id % 256).unwrap_or(0); 4]);
        assert!(
            self.steering.crowd().push(&bucket),
            "buckets close in order"
        );
        self.open_id += 1;
        self.closed_at.push(now);
        Some((bucket, hash))
    }

    /// Back ends work through who has come.
    fn serve(&mut self, now: u64) {
        let (mut served, mut in_vain) = (0, 0);
        for back_end in &mut self.back_ends {
            back_end.credit += back_end.capacity * TICK_MICROS as f64 / 1e6;
            back_end.credit = back_end.credit.min(back_end.queue as f64 + 1.0);
            let done = (back_end.credit as u64).min(back_end.queue);
            back_end.credit -= done as f64;
            back_end.queue -= done;
            in_vain += done.saturating_sub(back_end.left);
            back_end.left = back_end.left.saturating_sub(done);
            served += done;
        }
        let second = self.figures.second(now);
        second.served += served as u32;
        second.in_vain += in_vain as u32;
    }

    /// Everybody who asks in one slot.
    fn slot(&mut self, now: u64, events: &[Event]) {
        let elapsed = Duration::from_micros(now.saturating_sub(self.written));
        let pace = Pace {
            polls_per_second: self.scene.polls_per_second,
            expected_people: 0,
        };
        let seen = Arc::clone(&self.seen);
        let opens_at = Some(at(self.opens));
        let views: Vec<View<'_>> = self
            .scene
            .regions
            .iter()
            .filter_map(|(region, _)| View::of(&seen, region, elapsed, pace, opens_at))
            .collect();
        self.figures.events += events.len() as u64;
        let (mut polls, mut extra) = (0, 0);
        for event in events {
            let group = Group::of(event.group);
            match group {
                Group::TenDevices | Group::Reloader => extra += 1,
                Group::Early | Group::Late | Group::Returner => polls += 1,
            }
            self.ask(now, *event, group, &views[usize::from(event.region)]);
        }
        let second = self.figures.second(now);
        second.polls += polls;
        second.extra += extra;
    }

    fn ask(&mut self, now: u64, mut event: Event, group: Group, view: &View<'_>) {
        if self.has_come(event.person) {
            return;
        }
        if event.ordinal == NO_ORDINAL && usize::from(event.bucket) < self.closed_at.len() {
            let place = Place {
                bucket: u32::from(event.bucket),
                ticket: crowd::ticket(self.scene.seed, event.person),
            };
            event.ordinal = self.seen.ordinal(&place).map_or(NO_ORDINAL, |at| at as u32);
        }
        let who = Waiter {
            ordinal: (event.ordinal != NO_ORDINAL).then_some(u64::from(event.ordinal)),
            own: crowd::own(self.scene.seed, event.person),
        };
        let told = view.tell(&who, at(now));
        if told.admitted {
            self.come(now, &event, group);
            return;
        }
        if event.person.is_multiple_of(WATCHED) {
            self.watch(now, event.person, view.version, &told);
        }
        let again = match group {
            Group::Reloader => RELOAD_MICROS,
            // Marked by a bucket that nobody of bucket 0 has.
            Group::Returner if event.bucket == 0 && now >= self.opens => {
                event.bucket = 1;
                let part = crowd::uniform(self.scene.seed, event.person, 5);
                AWAY_MICROS.0 + (part * AWAY_MICROS.1 as f64) as u64
            }
            Group::Early | Group::Late | Group::TenDevices | Group::Returner => {
                u64::try_from(told.poll_after.as_micros()).unwrap_or(u64::MAX / 2)
            }
        };
        self.calendar.put(now + again, event);
    }

    fn has_come(&self, person: u32) -> bool {
        self.arrived[(person / 64) as usize] >> (person % 64) & 1 == 1
    }

    /// Somebody's turn has come, and they have noticed.
    fn come(&mut self, now: u64, event: &Event, group: Group) {
        self.arrived[(event.person / 64) as usize] |= 1 << (event.person % 64);
        let back_end = &mut self.back_ends[usize::from(event.region)];
        back_end.queue += 1;
        back_end.arrived += 1;
        self.figures.second(now).arrivals += 1;
        let joined = match group {
            Group::Late => {
                let at = (event.person - self.scene.people) as usize;
                self.opens + u64::from(self.late_joined[at]) * 1_000
            }
            Group::Early | Group::TenDevices | Group::Reloader | Group::Returner => self.opens,
        };
        let closed = self.closed_at[if group == Group::Late {
            usize::from(event.bucket)
        } else {
            0
        }];
        let turn = self.turn(event, now).max(closed);
        let figures = &mut self.figures.groups[usize::from(event.group)];
        figures.waits.note(now.saturating_sub(joined) / 1_000_000);
        figures.delays.note(now.saturating_sub(turn) / 100_000);
        figures
            .admitted
            .note(turn.saturating_sub(self.opens) as f64 / 1e6);
        if let Some(told) = self.told.remove(&event.person) {
            for (said, from, to) in told.ranges {
                self.figures.ranges.0 += 1;
                let wait = turn.saturating_sub(said);
                self.figures.ranges.1 += u64::from((from..=to).contains(&wait));
            }
        }
    }

    /// When the frontier passed this place.
    fn turn(&self, event: &Event, now: u64) -> u64 {
        let history = &self.history[usize::from(event.region)];
        let after = history.partition_point(|frontier| *frontier <= event.ordinal);
        let tick = |at: usize| self.opens + at as u64 * TICK_MICROS;
        let (Some(before), Some(next)) = (
            after.checked_sub(1).map(|at| history[at]),
            history.get(after),
        ) else {
            return tick(after.saturating_sub(1)).min(now);
        };
        let part = f64::from(event.ordinal - before) / f64::from((next - before).max(1));
        (tick(after - 1) + (part * TICK_MICROS as f64) as u64).min(now)
    }

    /// What a watched person is told, and whether it holds.
    fn watch(&mut self, now: u64, person: u32, version: u64, waiting: &Waiting) {
        let told = self.told.entry(person).or_default();
        let latest = waiting.eta.and_then(|eta| eta.to);
        if let Some((before, earlier)) = told.last {
            let rose = match (earlier, latest) {
                (Some(earlier), Some(latest)) => latest > earlier,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let explained = waiting.reason.is_some() && waiting.reason_version > before;
            self.figures.unexplained += u64::from(rose && !explained);
        }
        told.last = Some((version, latest));
        if let (Some(eta), Some(to)) = (waiting.eta, latest) {
            let micros = |duration: Duration| duration.as_micros() as u64;
            told.ranges.push((now, micros(eta.from), micros(to)));
        }
    }
}
