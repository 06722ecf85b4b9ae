//! Figures of all rounds, their medians and spread, and the ratios that have a target.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{CONNECTIONS, IN_FLIGHT, Measured};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Series {
    Echo,
    Proxied,
    BookSpread,
    BookHot,
    HoldSlots,
    ConfirmHold,
    NaiveSpread,
    NaiveHot,
    EchoOfPage,
    ListSlots,
    EchoOfRoom,
    GetRoom,
    GetPlace,
    GetPlaceTrusting,
    Permits,
}

/// A ratio of two series and the least it should be.
const TARGETS: [(&str, Series, Series, f64); 6] = [
    (
        "bookings, spread / proxied floor",
        Series::BookSpread,
        Series::Proxied,
        0.5,
    ),
    (
        "ConfirmHold / proxied floor",
        Series::ConfirmHold,
        Series::Proxied,
        0.6,
    ),
    (
        "bookings, hot clinic / spread",
        Series::BookHot,
        Series::BookSpread,
        0.8,
    ),
    (
        "bookings, hot clinic / naive hot row",
        Series::BookHot,
        Series::NaiveHot,
        8.0,
    ),
    (
        "ListSlots / echo of the same size",
        Series::ListSlots,
        Series::EchoOfPage,
        0.7,
    ),
    (
        "GetRoom / echo of the same size",
        Series::GetRoom,
        Series::EchoOfRoom,
        0.8,
    ),
];

#[derive(Clone, Debug, Default)]
struct Samples {
    rates: Vec<f64>,
    p50: Vec<Duration>,
    p99: Vec<Duration>,
}

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Results {
    series: BTreeMap<Series, Samples>,
    /// Bytes of a page of slots and of a room.
    pub(crate) sizes: (usize, usize),
    /// From kill to booking, sorted.
    pub(crate) kills: Vec<Duration>,
}

// === impl Series ===

impl Series {
    fn label(self) -> &'static str {
        match self {
            Self::Echo => "floor: echo of Book",
            Self::Proxied => "floor: echo of Book, one typed proxy hop",
            Self::BookSpread => "Book, 1,000 clinics",
            Self::BookHot => "Book, one hot clinic",
            Self::HoldSlots => "HoldSlots, 1,000 clinics",
            Self::ConfirmHold => "ConfirmHold, 1,000 clinics",
            Self::NaiveSpread => "floor: naive SQL, 1,000 rows",
            Self::NaiveHot => "floor: naive SQL, one hot row",
            Self::EchoOfPage => "floor: echo of a page's size",
            Self::ListSlots => "ListSlots, 50 slots a page",
            Self::EchoOfRoom => "floor: echo of a room's size",
            Self::GetRoom => "GetRoom",
            Self::GetPlace => "GetPlace",
            Self::GetPlaceTrusting => "GetPlace, signatures not looked at",
            Self::Permits => "IssuePermit",
        }
    }
}

// === impl Results ===

impl Results {
    pub(crate) fn add(&mut self, series: Series, measured: Measured) {
        let samples = self.series.entry(series).or_default();
        samples.rates.push(measured.per_second);
        samples.p50.push(measured.p50);
        samples.p99.push(measured.p99);
    }

    pub(crate) fn add_rate(&mut self, series: Series, per_second: f64) {
        self.series
            .entry(series)
            .or_default()
            .rates
            .push(per_second);
    }

    /// Of each round, so that what disturbs one round disturbs both sides of it.
    fn ratios(&self, of: Series, to: Series) -> Vec<f64> {
        let rates = |series| {
            self.series
                .get(&series)
                .map(|samples| samples.rates.as_slice())
        };
        let pairs = rates(of)
            .into_iter()
            .flatten()
            .zip(rates(to).into_iter().flatten());
        pairs.map(|(of, to)| of / to).collect()
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "\n{:<44}{:>10}{:>20}{:>10}{:>10}",
            "series", "median/s", "spread", "p50 ms", "p99 ms"
        );
        for (series, samples) in &self.series {
            let (low, middle, high) = spread(&samples.rates);
            let _ = writeln!(
                out,
                "{:<44}{:>10.0}{:>20}{:>10}{:>10}",
                series.label(),
                middle,
                format!("{low:.0} to {high:.0}"),
                millis(&samples.p50),
                millis(&samples.p99),
            );
        }
        let _ = writeln!(
            out,
            "\n{:<44}{:>10}{:>20}{:>10}",
            "ratio, by round", "median", "spread", "target"
        );
        for (name, of, to, target) in TARGETS {
            let (low, middle, high) = spread(&self.ratios(of, to));
            let _ = writeln!(
                out,
                "{name:<44}{middle:>10.2}{:>20}{:>10}{}",
                format!("{low:.2} to {high:.2}"),
                format!(">= {target}"),
                if middle >= target { "" } else { "  short" },
            );
        }
        if let (Some(median), Some(p99), Some(worst)) =
            (self.kill(0.5), self.kill(0.99), self.kills.last())
        {
            let _ = writeln!(
                out,
                "\n{} owners killed with -9, to the next booking at their clinics: median {} ms, p99 {} ms, max {} ms \
                 (goal: p99 <= 1000 ms)",
                self.kills.len(),
                median.as_millis(),
                p99.as_millis(),
                worst.as_millis(),
            );
        }
        let _ = writeln!(
            out,
            "\n{IN_FLIGHT} calls in flight on {CONNECTIONS} connections; a page of slots is {} bytes, a room {}; \
             latencies are those of a full closed loop.",
            self.sizes.0, self.sizes.1
        );
        out
    }

    fn kill(&self, quantile: f64) -> Option<Duration> {
        let last = self.kills.len().checked_sub(1)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a short list"
        )]
        let at = (last as f64 * quantile).ceil() as usize;
        self.kills.get(at).copied()
    }

    pub(crate) fn json(&self) -> Value {
        let series = self.series.iter().map(|(series, samples)| {
            let millis = |all: &[Duration]| -> Vec<f64> {
                all.iter().map(|one| one.as_secs_f64() * 1_000.0).collect()
            };
            let figures = json!({
                "label": series.label(),
                "per_second": samples.rates,
                "p50_ms": millis(&samples.p50),
                "p99_ms": millis(&samples.p99),
            });
            (format!("{series:?}"), figures)
        });
        let ratios = TARGETS.map(|(name, of, to, target)| {
            json!({ "name": name, "by_round": self.ratios(of, to), "target": target })
        });
        let kills: Vec<_> = self.kills.iter().map(Duration::as_millis).collect();
        json!({
            "series": series.collect::<serde_json::Map<_, _>>(),
            "ratios": ratios,
            "kills_ms": kills.iter().map(|ms| u64::try_from(*ms).unwrap_or(u64::MAX)).collect::<Vec<_>>(),
            "page_bytes": self.sizes.0,
            "room_bytes": self.sizes.1,
            "calls_in_flight": IN_FLIGHT,
            "connections": CONNECTIONS,
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        })
    }
}

/// Least, median, most.
fn spread(samples: &[f64]) -> (f64, f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = match sorted.len() {
        0 => return (f64::NAN, f64::NAN, f64::NAN),
        even if even % 2 == 0 => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        odd => sorted[odd / 2],
    };
    (sorted[0], middle, sorted[sorted.len() - 1])
}

fn millis(samples: &[Duration]) -> String {
    let seconds: Vec<f64> = samples.iter().map(Duration::as_secs_f64).collect();
    match spread(&seconds) {
        (_, middle, _) if middle.is_nan() => "-".to_owned(),
        (_, middle, _) => format!("{:.1}", middle * 1_000.0),
    }
}
