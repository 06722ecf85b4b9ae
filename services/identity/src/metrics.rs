//! What identity measures. Labels come from closed sets; nothing here says anything about a person.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use domain::{Refusal, RegionId};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::metrics::Registry;

use crate::doorkeeper::steer::Basis;

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
    /// Steps of changes of region by outcome.
    pub region_changes: Family<OutcomeLabels, Counter>,
    /// People per committed group.
    pub group_size: Histogram,
    /// How long the people store took.
    pub store_seconds: Family<StoreLabels, Histogram>,
    /// What operators did with rooms, by outcome.
    pub rooms_written: Family<OutcomeLabels, Counter>,
    /// 1 where the doorkeeper is.
    pub doorkeeper: Gauge,
    /// Versions of rooms that this process wrote as the doorkeeper.
    pub room_versions: Counter,
    /// Late buckets closed.
    pub buckets_closed: Counter,
    /// Rooms whose newest version the key space had lost.
    pub rooms_put_back: Counter,
    /// People wanted a second, by region, as last steered.
    pub wanted: Family<RegionLabels, Gauge<f64, AtomicU64>>,
    /// The part of admitted people who come, by region, as last measured.
    pub presence: Family<RegionLabels, Gauge<f64, AtomicU64>>,
    /// The part of the rate that gateways' reports leave, by region.
    pub brake: Family<RegionLabels, Gauge<f64, AtomicU64>>,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RegionLabels {
    /// Its id.
    pub region: String,
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
                "identity_region_changes",
                "Steps of changes of region, by outcome: begun, left, stayed, settled, foretold, or why not",
                metrics.region_changes.clone(),
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
                "Steps of draws, openings and pauses by operators and schedules, by outcome",
                metrics.rooms_written.clone(),
            );
            all.register(
                "identity_doorkeeper",
                "1 where the doorkeeper is",
                metrics.doorkeeper.clone(),
            );
            all.register(
                "identity_room_versions",
                "Versions of rooms written by the doorkeeper",
                metrics.room_versions.clone(),
            );
            all.register(
                "identity_buckets_closed",
                "Buckets of late comers closed by the doorkeeper",
                metrics.buckets_closed.clone(),
            );
            all.register(
                "identity_rooms_put_back",
                "Rooms that the key space showed older than they were, or not at all",
                metrics.rooms_put_back.clone(),
            );
            all.register(
                "identity_people_wanted_per_second",
                "People the doorkeeper wants to come per second, by region",
                metrics.wanted.clone(),
            );
            all.register(
                "identity_presence_ratio",
                "Part of the admitted people who come, as the doorkeeper measures it, by region",
                metrics.presence.clone(),
            );
            all.register(
                "identity_gateways_brake_ratio",
                "Part of the rate that is left after the load which gateways report, by region",
                metrics.brake.clone(),
            );
        });
        metrics
    }

    /// Metrics that nobody reads, for tests and tools.
    #[must_use]
    pub fn unregistered() -> Self {
        Self {
            permits: Family::default(),
            region_changes: Family::default(),
            group_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            store_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 15))
            }),
            rooms_written: Family::default(),
            doorkeeper: Gauge::default(),
            room_versions: Counter::default(),
            buckets_closed: Counter::default(),
            rooms_put_back: Counter::default(),
            wanted: Family::default(),
            presence: Family::default(),
            brake: Family::default(),
        }
    }

    pub(crate) fn permit(&self, outcome: Result<(), Refusal>) {
        self.permits.get_or_create(&labels(outcome)).inc();
    }

    pub(crate) fn room(&self, outcome: Result<(), Refusal>) {
        self.rooms_written.get_or_create(&labels(outcome)).inc();
    }

    pub(crate) fn elected(&self, elected: bool) {
        self.doorkeeper.set(i64::from(elected));
    }

    pub(crate) fn room_written(&self, closed: bool) {
        self.room_versions.inc();
        self.buckets_closed.inc_by(u64::from(closed));
    }

    /// `outcome`: `begun`, `left`, `stayed`, `settled`, `foretold`, or the code of a refusal.
    pub(crate) fn region_change(&self, outcome: &'static str) {
        self.region_changes
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    pub(crate) fn room_put_back(&self) {
        self.rooms_put_back.inc();
    }

    pub(crate) fn steered(&self, basis: &BTreeMap<RegionId, Basis>) {
        for (region, basis) in basis {
            let labels = RegionLabels {
                region: region.to_string(),
            };
            self.wanted.get_or_create(&labels).set(basis.wanted);
            self.presence.get_or_create(&labels).set(basis.presence);
            self.brake.get_or_create(&labels).set(basis.brake);
        }
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
