//! What gateways report: the newest of each, believed for seconds. It can slow lines and nothing else.
//!
//! Invariant: whatever is reported, memory is bounded and no sum overflows; how much a gateway counts is the steering's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::{InstanceId, spread};

use super::spans::Spans;
use super::steer::Gateway;

/// A report that is older says nothing about now. Reports come each second.
const KEPT: Duration = Duration::from_secs(5);
/// More gateways than any fleet has; whoever comes when there are so many is not heard.
const GATEWAYS_MAX: usize = 1_024;

/// One gateway's counters, from the start of its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Booking commands that came.
    pub calls: u64,
    /// Those refused for load.
    pub shed: u64,
    /// Answers by the class of time they took, see `domain::spread`.
    pub answer_times: Vec<u64>,
    /// Commands being served now.
    pub in_flight: u32,
    /// How many may be.
    pub in_flight_max: u32,
}

/// The reports of all gateways. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<Mutex<BTreeMap<InstanceId, Spans<Report>>>>);

// === impl Reports ===

impl Reports {
    /// Takes a gateway's report; says whether there was room for it.
    pub fn take(&self, gateway: InstanceId, report: Report, now: Instant) -> bool {
        // Entries are replaced whole: a panic elsewhere leaves none half made.
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = heard.get_mut(&gateway) {
            let restarted = report.calls < known.last().calls || known.age(now) > KEPT;
            known.note(now, report, restarted);
            return true;
        }
        heard.retain(|_, known| known.age(now) <= KEPT);
        if heard.len() >= GATEWAYS_MAX {
            return false;
        }
        heard.insert(gateway, Spans::new(now, report));
        true
    }

    /// What each gateway that was heard lately shows.
    #[must_use]
    pub fn lately(&self, now: Instant) -> Vec<Gateway> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = heard.values().filter(|known| known.age(now) <= KEPT);
        lately.map(shown).collect()
    }
}

fn shown(heard: &Spans<Report>) -> Gateway {
    let (before, last, secs) = (heard.before(), heard.last(), heard.secs());
    let rate = |of: fn(&Report) -> u64| {
        let more = of(last).saturating_sub(of(before)) as f64;
        if secs > 0.0 { more / secs } else { 0.0 }
    };
    let times = last.answer_times.iter().enumerate();
    let times: Vec<u64> = times
        .map(|(at, count)| count.saturating_sub(before.answer_times.get(at).copied().unwrap_or(0)))
        .collect();
    Gateway {
        sheds_per_second: rate(|report| report.shed),
        calls_per_second: rate(|report| report.calls),
        latency: spread::percentile_99(&times),
        in_flight: (f64::from(last.in_flight) / f64::from(last.in_flight_max.max(1))).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(number: usize) -> InstanceId {
        format!("gateway-{number}").parse().expect("slug")
    }

    fn report(calls: u64, shed: u64, slow: u64) -> Report {
        Report {
            calls,
            shed,
            answer_times: vec![0, 0, 0, slow],
            in_flight: 10,
            in_flight_max: 40,
        }
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_old_reports_count_no_more() {
        let (reports, start) = (Reports::default(), runtime::Clock::system().monotonic());
        let at = |secs| start + Duration::from_secs(secs);
        assert!(reports.take(gateway(1), report(1_000, 100, 50), at(0)));
        let first = reports.lately(at(0))[0];
        assert_eq!(
            (first.calls_per_second, first.latency),
            (0.0, Duration::ZERO)
        );
        reports.take(gateway(1), report(1_200, 110, 60), at(2));
        let seen = reports.lately(at(2))[0];
        assert_eq!((seen.calls_per_second, seen.sheds_per_second), (100.0, 5.0));
        assert_eq!((seen.latency, seen.in_flight), (spread::UNIT * 8, 0.25));
        assert_eq!(reports.lately(at(7)).len(), 1);
        assert!(reports.lately(at(8)).is_empty(), "too long ago");
        // The process was started again: no rate is made of the difference.
        reports.take(gateway(1), report(3, 0, 0), at(8));
        assert_eq!(reports.lately(at(8))[0].calls_per_second, 0.0);
    }

    #[test]
    fn more_gateways_than_there_can_be_are_not_remembered() {
        let (reports, now) = (Reports::default(), runtime::Clock::system().monotonic());
        for number in 0..GATEWAYS_MAX {
            assert!(reports.take(gateway(number), Report::default(), now));
        }
        assert!(!reports.take(gateway(GATEWAYS_MAX), Report::default(), now));
        assert!(reports.take(gateway(0), Report::default(), now), "known");
        let later = now + KEPT + Duration::from_secs(1);
        assert!(reports.take(gateway(GATEWAYS_MAX), Report::default(), later));
        assert_eq!(reports.lately(later).len(), 1);
    }

    #[test]
    fn absurd_counters_are_only_numbers() {
        let (reports, now) = (Reports::default(), runtime::Clock::system().monotonic());
        let absurd = Report {
            calls: u64::MAX,
            shed: u64::MAX,
            answer_times: vec![u64::MAX; spread::CLASSES],
            in_flight: u32::MAX,
            in_flight_max: 0,
        };
        reports.take(gateway(1), Report::default(), now);
        let later = now + Duration::from_secs(1);
        reports.take(gateway(1), absurd, later);
        let seen = reports.lately(later)[0];
        assert!(seen.calls_per_second.is_finite() && seen.in_flight == 1.0);
    }
}
