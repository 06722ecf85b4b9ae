//! Steers one room: from what regions and gateways show to the next plan. Pure; time is an argument.
//!
//! Invariants: a plan never starts behind what readers of the plan before can have computed; no frontier passes the
//! people of closed buckets; what gateways report can only slow a line. Source: design of the room, section 5.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::RegionId;
use domain::room::wait::{Promise, Reason};
use domain::room::{Frontier, RegionState, Room};

mod crowd;
mod gateways;
mod presence;
mod pressure;

pub use crowd::Crowd;
use presence::Presence;
use pressure::Pressure;

/// How far ahead a speed is computed: crossing into a bucket with other shares changes it.
const HORIZON: Duration = Duration::from_secs(1);
/// Who was admitted and does not come is expected less and less: half as much after so long. Those in front ask every
/// second, and every five while their line stands.
const PENDING_HALF_LIFE: Duration = Duration::from_secs(8);
/// A line may become three times as fast in so long: people ask again after a third of their time.
const TRIPLED_IN: Duration = Duration::from_secs(10);
/// A change of speed is blamed on the rate, not on presence, from here on.
const RATE_CHANGED: f64 = 0.97;

/// How many people are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many a second in all regions together, whatever the back end shows.
    Fixed(f64),
    /// What the back end shows it can take: from `start` on, never above `ceiling` (a second, all regions together).
    Adaptive {
        /// Where to begin, cautiously.
        start: f64,
        /// The operator's limit.
        ceiling: f64,
    },
}

/// What an operator sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How many people are wanted.
    pub rate: Rate,
    /// How long a plan may be followed without a newer one.
    pub ttl: Duration,
    /// The share of admitted people who come, before anybody was measured; 0 to 1.
    pub presence: f64,
    /// Slower answers than this, of inventories or gateways, are trouble.
    pub latency_max: Duration,
    /// More commands waiting in one region's inventories than this is trouble.
    pub queued_max: u64,
}

/// What a region's inventories show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Units that nobody holds or has booked.
    pub left: u64,
    /// Different admitted people who have come since the doors opened.
    pub arrived: u64,
    /// Those of them who have no answer yet.
    pub unserved: u64,
    /// Commands waiting.
    pub queued: u64,
    /// The 99th percentile of an answer's time, lately.
    pub latency: Duration,
    /// Operations made durable, per second, lately.
    pub commits_per_second: f64,
}

/// What one gateway shows. Nothing in it makes a line faster.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gateway {
    /// Booking commands refused for load, per second.
    pub sheds_per_second: f64,
    /// Booking commands, refused ones included, per second.
    pub calls_per_second: f64,
    /// The 99th percentile of an inventory's answer's time, lately.
    pub latency: Duration,
    /// The part of the allowed concurrency that is in use; 0 to 1.
    pub in_flight: f64,
}

/// One moment.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Since the write of the plan in force began, by a monotonic clock.
    pub followed: Duration,
    /// The version of the room that the new plan goes into.
    pub version: u64,
    /// Figures of the regions that gave any lately.
    pub regions: BTreeMap<RegionId, Figures>,
    /// Gateways that reported lately.
    pub gateways: Vec<Gateway>,
}

/// A plan: what goes into the room's document.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Every region's line.
    pub regions: BTreeMap<RegionId, Frontier>,
    /// Whether any region has nothing left.
    pub exhausted: bool,
    /// What the plan rests on, for metrics.
    pub basis: BTreeMap<RegionId, Basis>,
}

/// What a region's line rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    /// People wanted per second.
    pub wanted: f64,
    /// The share of admitted people who come.
    pub presence: f64,
    /// Admitted people who are still expected.
    pub pending: f64,
    /// The part of the rate that gateways' reports leave.
    pub brake: f64,
}

/// The steering of one room. [`Steering::tick`] gives a new one: keep it only once its plan is written.
#[derive(Clone, Debug)]
pub struct Steering {
    settings: Settings,
    crowd: Crowd,
    all: Presence,
    lines: BTreeMap<RegionId, Line>,
}

/// One region.
#[derive(Clone, Debug)]
struct Line {
    /// Where the plan in force starts, with the fraction that documents do not carry.
    at: f64,
    per_kilosecond: u64,
    f_end: u64,
    pressure: Pressure,
    presence: Presence,
    arrived: Option<u64>,
    pending: f64,
    wanted: f64,
    left: u64,
    promise: Promise,
}

// === impl Steering ===

impl Steering {
    /// Takes over from a room's document, whoever wrote it. `followed` is the time since its write began, `None` if
    /// nobody knows: then every reader may have followed it to its end.
    #[must_use]
    pub fn resume(
        settings: Settings,
        room: &Room,
        crowd: Crowd,
        followed: Option<Duration>,
    ) -> Self {
        let lines = room.regions.iter().map(|(region, old)| {
            let at = old.reached(room.phase, followed);
            let line = Line {
                at: at as f64,
                per_kilosecond: 0,
                f_end: old.f_end.max(at),
                pressure: Pressure::default(),
                presence: Presence::new(settings.presence),
                arrived: None,
                pending: 0.0,
                wanted: 0.0,
                left: old.left,
                promise: old.promise.clone(),
            };
            (region.clone(), line)
        });
        let mut it = Self {
            settings,
            crowd,
            all: Presence::new(settings.presence),
            lines: lines.collect(),
        };
        it.take_speeds(room);
        it
    }

    /// The closed buckets; learns new ones here.
    pub fn crowd(&mut self) -> &mut Crowd {
        &mut self.crowd
    }

    /// Changes what the operator sets.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// All lines at a standstill where they can have come: the plan of a pause. Nothing is measured in it.
    #[must_use]
    pub fn halt(&self, followed: Duration) -> (Self, Plan) {
        let mut next = self.clone();
        for line in next.lines.values_mut() {
            line.at = line.reached(followed, self.settings.ttl);
            line.per_kilosecond = 0;
            line.f_end = line.f_end.max(line.f0());
        }
        let plan = next.plan();
        (next, plan)
    }

    /// The next plan, and the steering that belongs to it once it is written.
    #[must_use]
    pub fn tick(&self, tick: &Tick) -> (Self, Plan) {
        let mut next = self.clone();
        next.measure(tick);
        next.want(tick);
        next.advance(tick);
        let plan = next.plan();
        (next, plan)
    }

    /// How far each line came, and who arrived meanwhile.
    fn measure(&mut self, tick: &Tick) {
        let (mut swept_all, mut arrived_all) = (0.0, 0);
        let pending_kept =
            0.5f64.powf(tick.followed.as_secs_f64() / PENDING_HALF_LIFE.as_secs_f64());
        for (region, line) in &mut self.lines {
            let reached = line.reached(tick.followed, self.settings.ttl);
            let swept = self.crowd.people(region, line.at, reached);
            line.at = reached;
            let figures = tick.regions.get(region);
            let arrived = figures.map_or(0, |now| {
                line.arrived
                    .map_or(0, |then| now.arrived.saturating_sub(then))
            });
            line.arrived = figures.map(|now| now.arrived).or(line.arrived);
            line.left = figures.map_or(line.left, |now| now.left);
            line.presence.note(tick.followed, swept, arrived);
            let expected = swept * line.presence.with(&self.all).min(1.0);
            let pending = (line.pending + expected - arrived as f64) * pending_kept;
            line.pending = if pending < 1.0 { 0.0 } else { pending };
            swept_all += swept;
            arrived_all += arrived;
        }
        self.all.note(tick.followed, swept_all, arrived_all);
    }

    /// How many people are wanted in each region.
    fn want(&mut self, tick: &Tick) {
        let settings = self.settings;
        let moving: Vec<RegionId> = self.moving();
        let share = |region: &RegionId, line: &Line| self.crowd.density(region, line.at);
        let shares: f64 = moving
            .iter()
            .map(|region| share(region, &self.lines[region]))
            .sum();
        let mut wanted = BTreeMap::new();
        for region in &moving {
            let line = &self.lines[region];
            let part = share(region, line) / shares.max(f64::MIN_POSITIVE);
            wanted.insert(region.clone(), part);
        }
        if let Rate::Adaptive { start, ceiling } = settings.rate {
            let mut sum = 0.0;
            for (region, part) in &mut wanted {
                let Some(line) = self.lines.get_mut(region) else {
                    continue;
                };
                let figures = tick.regions.get(region);
                let arriving = line.presence.arriving();
                let pressure = &mut line.pressure;
                *part = pressure.next(tick, figures, arriving, start * *part, &settings);
                sum += *part;
            }
            let over = (sum / ceiling.max(f64::MIN_POSITIVE)).max(1.0);
            wanted.values_mut().for_each(|wanted| *wanted /= over);
        } else if let Rate::Fixed(rate) = settings.rate {
            wanted.values_mut().for_each(|part| *part *= rate);
        }
        for (region, line) in &mut self.lines {
            let now = wanted.get(region).copied().unwrap_or(0.0);
            line.blame(now);
            line.wanted = now;
        }
    }

    /// The new lines.
    fn advance(&mut self, tick: &Tick) {
        let all = self.all.clone();
        for (region, line) in &mut self.lines {
            let presence = line.presence.with(&all);
            let speed = self
                .crowd
                .speed(region, line.at, line.wanted / presence, HORIZON);
            let present = self.crowd.speed(region, line.at, line.wanted, HORIZON);
            let grown = 3f64.powf(tick.followed.as_secs_f64() / TRIPLED_IN.as_secs_f64());
            let bound = (line.per_kilosecond as f64 / 1_000.0 * grown).max(present);
            line.per_kilosecond = (speed.min(bound) * 1_000.0).round() as u64;
            if let Some(figures) = tick.regions.get(region) {
                let open = line.left as f64 - figures.unserved as f64 - line.pending;
                let people =
                    self.crowd.until(region, line.at) + (open / presence.min(1.0)).max(0.0);
                line.f_end = (self.crowd.ordinal(region, people).floor() as u64).max(line.f0());
            }
            if line.left == 0 {
                (line.per_kilosecond, line.f_end) = (0, line.f0());
            }
            line.f_end = line.f_end.min(self.crowd.total()).max(line.f0());
            line.promise = line
                .promise
                .next(line.per_kilosecond, line.pressure.why, tick.version);
        }
    }

    /// Regions whose line can move: people before it and something left behind it.
    fn moving(&self) -> Vec<RegionId> {
        let can = |(region, line): &(&RegionId, &Line)| {
            line.left > 0 && self.crowd.until(region, line.at) < self.crowd.all(region)
        };
        self.lines
            .iter()
            .filter(can)
            .map(|(region, _)| region.clone())
            .collect()
    }

    fn plan(&self) -> Plan {
        let ttl_ms = u64::try_from(self.settings.ttl.as_millis()).unwrap_or(u64::MAX);
        let line = |line: &Line| Frontier {
            f0: line.f0(),
            per_kilosecond: line.per_kilosecond,
            ttl_ms,
            f_end: line.f_end,
            state: if line.left == 0 {
                RegionState::Exhausted
            } else {
                RegionState::Open
            },
            left: line.left,
            promise: line.promise.clone(),
        };
        let basis = |line: &Line| Basis {
            wanted: line.wanted,
            presence: line.presence.with(&self.all),
            pending: line.pending,
            brake: line.pressure.brake(),
        };
        let each = |(region, it): (&RegionId, &Line)| (region.clone(), line(it));
        Plan {
            regions: self.lines.iter().map(each).collect(),
            exhausted: self.lines.values().any(|line| line.left == 0),
            basis: self
                .lines
                .iter()
                .map(|(region, it)| (region.clone(), basis(it)))
                .collect(),
        }
    }

    /// What the lines of a document tell of rate and presence, so that a successor goes on as it was.
    fn take_speeds(&mut self, room: &Room) {
        let mut present = 0.0;
        for (region, line) in &mut self.lines {
            let Some(old) = room.regions.get(region) else {
                continue;
            };
            line.per_kilosecond = old.per_kilosecond;
            let sweeping =
                old.per_kilosecond as f64 / 1_000.0 * self.crowd.density(region, line.at);
            line.pressure.start(sweeping * self.settings.presence);
            present += sweeping;
        }
        if let Rate::Fixed(rate) = self.settings.rate
            && present > 0.0
        {
            self.all = Presence::new(rate / present);
            for line in self.lines.values_mut() {
                line.presence = self.all.clone();
            }
        }
    }
}

// === impl Line ===

impl Line {
    /// The farthest that readers can have come, with its fraction.
    fn reached(&self, followed: Duration, ttl: Duration) -> f64 {
        let advance = self.per_kilosecond as f64 / 1_000.0 * followed.min(ttl).as_secs_f64();
        (self.at + advance).min(self.f_end as f64).max(self.at)
    }

    /// Where the document says that the line starts. The fraction stays here: dropped four times a second it would make
    /// a slow line noticeably slower.
    fn f0(&self) -> u64 {
        self.at as u64
    }

    /// Remembers why the next slowing down will have happened.
    fn blame(&mut self, wanted: f64) {
        if wanted < self.wanted * RATE_CHANGED {
            self.pressure.why = if self.pressure.halved_lately() {
                Reason::Slowed
            } else {
                Reason::Ceiling
            };
        } else if wanted >= self.wanted && !self.pressure.halved_lately() {
            self.pressure.why = Reason::Presence;
        }
    }
}

#[cfg(test)]
mod tests;
