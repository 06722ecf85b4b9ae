//! Counts and latencies of a rush. Latency counts from the instant a call was due, not from when it was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::manners::Arrivals;

/// Width of a step of the time line.
pub(crate) const STEP: Duration = Duration::from_millis(250);
/// Latencies above it are counted as it.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// IdentityService.IssuePermit.
    IssuePermit,
    /// AvailabilityService.ListSlots.
    ListSlots,
    /// RoomService.GetPlace.
    GetPlace,
    /// BookingService.Book.
    Book,
    /// BookingService.HoldSlots.
    HoldSlots,
    /// BookingService.ConfirmHold.
    ConfirmHold,
    /// BookingService.MoveBooking.
    MoveBooking,
    /// BookingService.CancelBooking.
    CancelBooking,
}

impl Call {
    /// The method's name.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::IssuePermit => "IssuePermit",
            Self::ListSlots => "ListSlots",
            Self::GetPlace => "GetPlace",
            Self::Book => "Book",
            Self::HoldSlots => "HoldSlots",
            Self::ConfirmHold => "ConfirmHold",
            Self::MoveBooking => "MoveBooking",
            Self::CancelBooking => "CancelBooking",
        }
    }
}

/// One call's outcomes.
#[derive(Clone)]
pub(crate) struct CallStats {
    /// By reason; `OK` for a yes.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// From the due instant to the answer, in microseconds.
    pub from_due: Histogram<u64>,
    /// From the sending to the answer, in microseconds.
    pub from_sent: Histogram<u64>,
}

impl Default for CallStats {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("these bounds are good");
        Self {
            outcomes: BTreeMap::new(),
            from_due: histogram(),
            from_sent: histogram(),
        }
    }
}

/// Everything counted by one driver, or all of them together.
#[derive(Clone, Default)]
pub(crate) struct Stats {
    /// By call.
    pub calls: BTreeMap<Call, CallStats>,
    /// Bookings and refusals in each step since the opening.
    pub line: Vec<(u64, u64)>,
    /// People who found nothing left.
    pub sold_out: u64,
    /// People who gave up.
    pub gave_up: u64,
    /// Who came when.
    pub arrivals: Arrivals,
    /// Answers that broke a promise, as told by the client alone.
    pub broken: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Counts a call.
    pub(crate) fn call(
        &mut self,
        call: Call,
        outcome: &'static str,
        from_due: Duration,
        from_sent: Duration,
    ) {
        let stats = self.calls.entry(call).or_default();
        *stats.outcomes.entry(outcome).or_default() += 1;
        let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        stats.from_due.saturating_record(micros(from_due));
        stats.from_sent.saturating_record(micros(from_sent));
    }

    /// Counts a booking or a refusal on the time line.
    pub(crate) fn mark(&mut self, since_opening: Duration, booked: bool) {
        let step = usize::try_from(since_opening.as_millis() / STEP.as_millis()).unwrap_or(0);
        if self.line.len() <= step {
            self.line.resize(step + 1, (0, 0));
        }
        let (bookings, refusals) = &mut self.line[step];
        *(if booked { bookings } else { refusals }) += 1;
    }

    /// Counts an answer that should not have been.
    pub(crate) fn broke(&mut self, what: &'static str) {
        *self.broken.entry(what).or_default() += 1;
    }

    /// Adds another driver's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (call, stats) in &other.calls {
            let mine = self.calls.entry(*call).or_default();
            for (outcome, count) in &stats.outcomes {
                *mine.outcomes.entry(outcome).or_default() += count;
            }
            // Both have the same bounds.
            let _ = mine.from_due.add(&stats.from_due);
            let _ = mine.from_sent.add(&stats.from_sent);
        }
        if self.line.len() < other.line.len() {
            self.line.resize(other.line.len(), (0, 0));
        }
        for (mine, theirs) in self.line.iter_mut().zip(&other.line) {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
        self.sold_out += other.sold_out;
        self.gave_up += other.gave_up;
        self.arrivals.add(&other.arrivals);
        for (what, count) in &other.broken {
            *self.broken.entry(what).or_default() += count;
        }
    }

    /// A table of all calls.
    #[must_use]
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}  outcomes (latency from due, ms)\n",
            "call", "count", "p50", "p90", "p99", "max"
        );
        for (call, stats) in &self.calls {
            let ms = |quantile| {
                let micros = stats.from_due.value_at_quantile(quantile);
                format!(
                    "{:.1}",
                    Duration::from_micros(micros).as_secs_f64() * 1_000.0
                )
            };
            let outcomes: Vec<String> = stats
                .outcomes
                .iter()
                .map(|(outcome, count)| format!("{outcome} {count}"))
                .collect();
            table.push_str(&format!(
                "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}  {}\n",
                call.name(),
                stats.from_due.len(),
                ms(0.5),
                ms(0.9),
                ms(0.99),
                ms(1.0),
                outcomes.join(", ")
            ));
        }
        table
    }
}
