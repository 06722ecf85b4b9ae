//! What a simulation shows: by second, by group, and against what was claimed.

use super::crowd::Group;
use crate::equivalence::Moments;

/// Longest wait that is told apart, in seconds; the last bin has the rest.
const WAIT_SECS: usize = 6 * 3_600;
/// Delays between one's turn and noticing it, in tenths of a second; the last bin has the rest.
const DELAY_TENTHS: usize = 36_000;

/// One second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    /// Polls of people who ask when told to, with one device.
    pub polls: u32,
    /// All other polls: further devices, reloads.
    pub extra: u32,
    /// People who come to book.
    pub arrivals: u32,
    /// Of those, who found nothing left.
    pub in_vain: u32,
    /// Served.
    pub served: u32,
    /// People present whose turn has not come.
    pub line: u32,
    /// People wanted per second.
    pub wanted: f32,
    /// The claimed bound on polls: λc(1 + ln(T/c)).
    pub bound: f32,
}

/// One group.
#[derive(Clone, Debug)]
pub(super) struct GroupFigures {
    /// People present.
    pub people: u64,
    /// Seconds between the opening (or joining, if later) and coming to book.
    pub waits: Histogram,
    /// Tenths of a second between one's turn and noticing it.
    pub delays: Histogram,
    /// Seconds between the opening and becoming admitted.
    pub admitted: Moments,
}

/// Counts by bin.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub bins: Vec<u32>,
    pub n: u64,
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub events: u64,
    /// From the draw on.
    pub seconds: Vec<Second>,
    /// The second of the opening.
    pub opened_at: usize,
    pub groups: Vec<GroupFigures>,
    /// How far any ordinal is from the number of people before it, in places.
    pub place_error: u64,
    /// People in bucket 0.
    pub n0: u64,
    /// Ranges told, and those that the turn fell into.
    pub ranges: (u64, u64),
    /// Times that a latest time rose without a reason newer than the answer before.
    pub unexplained: u64,
    /// Frontiers that came out lower than before.
    pub frontier_fell: u64,
    /// People whose turn came.
    pub left: u64,
}

// === impl Histogram ===

impl Histogram {
    fn new(bins: usize) -> Self {
        Self {
            bins: vec![0; bins],
            n: 0,
        }
    }

    pub(super) fn note(&mut self, value: u64) {
        let last = self.bins.len() - 1;
        let at = usize::try_from(value).unwrap_or(last).min(last);
        self.bins[at] += 1;
        self.n += 1;
    }

    /// The bin that this part of the values does not exceed.
    pub(super) fn quantile(&self, part: f64) -> u64 {
        let wanted = (part * self.n as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.bins.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return at as u64;
            }
        }
        0
    }
}

// === impl Figures ===

impl Figures {
    pub(super) fn new(opened_at: usize) -> Self {
        let group = GroupFigures {
            people: 0,
            waits: Histogram::new(WAIT_SECS),
            delays: Histogram::new(DELAY_TENTHS),
            admitted: Moments::default(),
        };
        Self {
            events: 0,
            seconds: Vec::new(),
            opened_at,
            groups: vec![group; Group::ALL.len()],
            place_error: 0,
            n0: 0,
            ranges: (0, 0),
            unexplained: 0,
            frontier_fell: 0,
            left: 0,
        }
    }

    pub(super) fn second(&mut self, at_micros: u64) -> &mut Second {
        let at = (at_micros / 1_000_000) as usize;
        if at >= self.seconds.len() {
            self.seconds.resize(at + 1, Second::default());
        }
        &mut self.seconds[at]
    }

    pub(super) fn group(&self, group: Group) -> &GroupFigures {
        &self.groups[usize::from(group.index())]
    }

    /// People who came to book.
    pub(super) fn came(&self) -> u64 {
        self.groups.iter().map(|group| group.waits.n).sum()
    }

    /// People who came when nothing was left.
    pub(super) fn in_vain(&self) -> u64 {
        self.seconds
            .iter()
            .map(|second| u64::from(second.in_vain))
            .sum()
    }

    /// When so large a part of those who came had come, in seconds after the opening.
    pub(super) fn done_after(&self, part: f64) -> u64 {
        let wanted = (self.came() as f64 * part) as u64;
        let mut seen = 0;
        for (at, second) in self.seconds.iter().enumerate() {
            seen += u64::from(second.arrivals);
            if seen >= wanted {
                return at.saturating_sub(self.opened_at) as u64;
            }
        }
        0
    }

    /// The steady part: from a minute after the opening until a minute before the line is through.
    fn steady(&self) -> std::ops::Range<usize> {
        let from = self.opened_at + 60;
        let end = self
            .seconds
            .iter()
            .rposition(|second| second.line > 0 && second.wanted > 0.0);
        from..end.map_or(from, |end| end.saturating_sub(60)).max(from)
    }

    /// The largest deviation of people who came from people wanted, over any 10 s of the steady part.
    pub(super) fn rate_error(&self) -> f64 {
        let steady = &self.seconds[self.steady()];
        let of = |window: &[Second]| {
            let came: f64 = window.iter().map(|second| f64::from(second.arrivals)).sum();
            let wanted: f64 = window.iter().map(|second| f64::from(second.wanted)).sum();
            (came / wanted.max(1.0) - 1.0).abs()
        };
        steady.windows(10).map(of).fold(0.0, f64::max)
    }

    /// Polls per second over 10 s: the most, and the most against their bound.
    pub(super) fn poll_peak(&self) -> (f64, f64) {
        let open = &self.seconds[self.opened_at.min(self.seconds.len())..];
        let mut peak = (0.0f64, 0.0f64);
        for window in open.windows(10).skip(5) {
            let polls: f64 = window.iter().map(|second| f64::from(second.polls)).sum();
            let bound: f64 = window.iter().map(|second| f64::from(second.bound)).sum();
            peak.0 = peak.0.max(polls / 10.0);
            // Where the line is through, only late comers ask for their open bucket.
            if window.iter().all(|second| second.wanted > 0.0) {
                peak.1 = peak.1.max(polls / bound);
            }
        }
        peak
    }
}
