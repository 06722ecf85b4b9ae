//! What identity measures. Labels come from closed sets; nothing here says anything about a person.

use std::time::Duration;

use domain::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Registry;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// `ok`, or the code of a refusal.
    pub outcome: &'static str,
}

/// The store's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreLabels {
    /// The name of the store's method, such as `stamp`.
    pub op: &'static str,
}

/// All metrics of this crate. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests for permits by outcome.
    pub permits: Family<OutcomeLabels, Counter>,
    /// People per committed group.
    pub group_size: Histogram,
    /// How long the people store took.
    pub store_seconds: Family<StoreLabels, Histogram>,
    /// Room documents written, by outcome.
    pub rooms_written: Family<OutcomeLabels, Counter>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::unregistered();
        registry.register(|all| {
            all.register(
                "identity_permits",
                "Requests for permits, by outcome",
                metrics.permits.clone(),
            );
            all.register(
                "identity_group_people",
                "People committed together in one group of the people store",
                metrics.group_size.clone(),
            );
            all.register(
                "identity_store_seconds",
                "Time the people store took for an operation, waiting for a group included",
                metrics.store_seconds.clone(),
            );
            all.register(
                "identity_rooms_written",
                "Openings and pauses of rooms, by outcome",
                metrics.rooms_written.clone(),
            );
        });
        metrics
    }

    /// Metrics that nobody reads, for tests and tools.
    #[must_use]
    pub fn unregistered() -> Self {
        Self {
            permits: Family::default(),
            group_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            store_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 15))
            }),
            rooms_written: Family::default(),
        }
    }

    pub(crate) fn permit(&self, outcome: Result<(), Refusal>) {
        self.permits.get_or_create(&labels(outcome)).inc();
    }

    pub(crate) fn room(&self, outcome: Result<(), Refusal>) {
        self.rooms_written.get_or_create(&labels(outcome)).inc();
    }

    pub(crate) fn store(&self, op: &'static str, took: Duration) {
        self.store_seconds
            .get_or_create(&StoreLabels { op })
            .observe(took.as_secs_f64());
    }
}

fn labels(outcome: Result<(), Refusal>) -> OutcomeLabels {
    OutcomeLabels {
        outcome: outcome.map_or_else(Refusal::code, |()| "ok"),
    }
}
