//! What inventory counts. Labels come from closed sets: regions of the configuration, verdicts, alarms.

use std::time::Duration;

use domain::region_change::Departure;
use domain::{Refusal, RegionId, Verdict};
use inventory_core::Alarm;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::metrics::Registry;

use crate::ledger::PassedOn;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRegion {
    region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVerdict {
    region: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfViolation {
    region: String,
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    region: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRefusal {
    region: String,
    refusal: &'static str,
}

/// The region of what is not for a region of this process: a caller's own words are never a label.
const NO_REGION: &str = "_OTHER";

/// Documents of rooms that were not believed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RefusedDocuments(Family<OfReason, Counter>);

/// All metrics of the inventory service.
#[derive(Debug)]
pub struct Metrics {
    /// Documents of rooms that were not believed.
    pub refused_documents: RefusedDocuments,
    turned_away: Family<OfRefusal, Counter>,
    leftovers: Family<OfOutcome, Counter>,
    verdicts: Family<OfVerdict, Counter>,
    incident_moves: Family<OfVerdict, Counter>,
    departures: Family<OfVerdict, Counter>,
    seized: Family<OfRegion, Counter>,
    violations: Family<OfViolation, Counter>,
    queue_depth: Family<OfRegion, Gauge>,
    batch_ops: Family<OfRegion, Histogram, fn() -> Histogram>,
    commit: Family<OfRegion, Histogram, fn() -> Histogram>,
}

/// The metrics of one owner, with its region filled in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnerMetrics {
    region: String,
    verdicts: Family<OfVerdict, Counter>,
    /// Epochs that came into force.
    pub(crate) seized: Counter,
    violations: Family<OfViolation, Counter>,
    queue_depth: Gauge,
    batch_ops: Histogram,
    commit: Histogram,
}

/// What may be found to be broken; see [`violation`].
const VIOLATIONS: [&str; 4] = [
    "capacity",
    "ledger_went_back",
    "acknowledged_again",
    "acknowledged_lost",
];

const fn violation(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::Constraint { .. } => "capacity",
        Alarm::Regressed { .. } => "ledger_went_back",
        Alarm::Reapplied { lost: 0, .. } => "acknowledged_again",
        Alarm::Reapplied { .. } => "acknowledged_lost",
    }
}

fn batch_ops() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0])
}

fn commit() -> Histogram {
    Histogram::new([
        0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    ])
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::unregistered();
        registry.register(|registry| {
            registry.register(
                "room_documents_refused",
                "Documents of rooms that were not believed, by why",
                metrics.refused_documents.0.clone(),
            );
            registry.register(
                "commands_turned_away",
                "Calls and commands refused before an owner saw them, by why: callers, fields, permits, turns, pauses",
                metrics.turned_away.clone(),
            );
            registry.register(
                "leftovers",
                "What became of leftover doses: rounds drawn and closed; offers made, accepted, declined, expired, left; people passed over",
                metrics.leftovers.clone(),
            );
            registry.register(
                "verdicts",
                "Ops decided, by how they ended",
                metrics.verdicts.clone(),
            );
            registry.register(
                "incident_moves",
                "Appointments of incidents whose turn came, by how they ended: MOVED, or why not",
                metrics.incident_moves.clone(),
            );
            registry.register(
                "departures",
                "People who asked to leave for another region or to stay after all, by what was decided: LEFT, STAYED, why not",
                metrics.departures.clone(),
            );
            registry.register(
                "shard_seizures",
                "Epochs that came into force here",
                metrics.seized.clone(),
            );
            registry.register(
                "invariant_violations",
                "Invariants of a shard that did not hold, by what was found",
                metrics.violations.clone(),
            );
            registry.register(
                "shard_queue_depth",
                "Ops waiting in owners of this process",
                metrics.queue_depth.clone(),
            );
            registry.register(
                "batch_ops",
                "Ops in a committed batch",
                metrics.batch_ops.clone(),
            );
            registry.register(
                "commit_duration_seconds",
                "Time from sending a batch to its commit",
                metrics.commit.clone(),
            );
        });
        metrics
    }

    fn unregistered() -> Self {
        Self {
            refused_documents: RefusedDocuments::default(),
            turned_away: Family::default(),
            leftovers: Family::default(),
            verdicts: Family::default(),
            incident_moves: Family::default(),
            departures: Family::default(),
            seized: Family::default(),
            violations: Family::default(),
            queue_depth: Family::default(),
            batch_ops: Family::new_with_constructor(batch_ops),
            commit: Family::new_with_constructor(commit),
        }
    }

    /// A command, or a call with all its commands, was refused before an owner saw it. `region`: one that is served
    /// here, if it is known.
    pub(crate) fn turned_away(&self, region: Option<&RegionId>, refusal: Refusal) {
        let labels = OfRefusal {
            region: region.map_or_else(|| NO_REGION.to_owned(), RegionId::to_string),
            refusal: refusal.code(),
        };
        self.turned_away.get_or_create(&labels).inc();
    }

    /// A line of an incident's plan was settled: `MOVED`, or a refusal's code.
    pub(crate) fn incident_moved(&self, region: &RegionId, verdict: &'static str) {
        let region = region.to_string();
        self.incident_moves
            .get_or_create(&OfVerdict { region, verdict })
            .inc();
    }

    /// What became of somebody who asked to leave the region, or to stay after all.
    pub(crate) fn departed(&self, region: &RegionId, decided: Result<&Departure, &Refusal>) {
        let verdict = match decided {
            Ok(Departure::Left { .. }) => "LEFT",
            Ok(Departure::Stayed) => "STAYED",
            Err(why) => why.code(),
        };
        let region = region.to_string();
        self.departures
            .get_or_create(&OfVerdict { region, verdict })
            .inc();
    }

    /// An offer of a leftover dose was answered.
    pub(crate) fn leftover_answered(&self, region: &RegionId, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "declined" };
        self.leftovers(region, outcome, 1);
    }

    /// Rounds were drawn or ended and offers passed on.
    pub(crate) fn leftovers_passed_on(&self, region: &RegionId, by: &PassedOn) {
        for (outcome, count) in [
            ("drawn", by.drawn),
            ("closed", by.closed),
            ("offered", by.offered),
            ("expired", by.expired),
            ("left", by.left),
            ("passed", by.passed),
        ] {
            self.leftovers(region, outcome, count);
        }
    }

    fn leftovers(&self, region: &RegionId, outcome: &'static str, count: u64) {
        let region = region.to_string();
        self.leftovers
            .get_or_create(&OfOutcome { region, outcome })
            .inc_by(count);
    }

    /// The metrics of an owner in `region`.
    #[must_use]
    pub fn owner(&self, region: &RegionId) -> OwnerMetrics {
        let label = OfRegion {
            region: region.to_string(),
        };
        // Shown from the start: who watches for a rise must have seen the zero.
        for what in VIOLATIONS {
            let region = region.to_string();
            drop(self.violations.get_or_create(&OfViolation { region, what }));
        }
        OwnerMetrics {
            region: region.to_string(),
            verdicts: self.verdicts.clone(),
            seized: self.seized.get_or_create(&label).clone(),
            violations: self.violations.clone(),
            queue_depth: self.queue_depth.get_or_create(&label).clone(),
            batch_ops: self.batch_ops.get_or_create(&label).clone(),
            commit: self.commit.get_or_create(&label).clone(),
        }
    }
}

impl RefusedDocuments {
    #[cfg(test)]
    pub(crate) fn count(&self, reason: &'static str) -> u64 {
        self.0.get_or_create(&OfReason { reason }).get()
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.0.get_or_create(&OfReason { reason }).inc();
    }
}

impl OwnerMetrics {
    pub(crate) fn count(&self, verdict: &Verdict) {
        let verdict = match verdict {
            Verdict::Done(recorded) => recorded.done.code(),
            Verdict::Exists(_) => "EXISTS",
            Verdict::Refused { refusal, .. } => refusal.code(),
        };
        self.verdicts
            .get_or_create(&OfVerdict {
                region: self.region.clone(),
                verdict,
            })
            .inc();
    }

    /// An invariant did not hold.
    pub(crate) fn violated(&self, alarm: Alarm) {
        let region = self.region.clone();
        let what = violation(alarm);
        self.violations
            .get_or_create(&OfViolation { region, what })
            .inc();
    }

    pub(crate) fn committed(&self, ops: usize, took: Duration) {
        self.batch_ops
            .observe(f64::from(u32::try_from(ops).unwrap_or(u32::MAX)));
        self.commit.observe(took.as_secs_f64());
    }

    pub(crate) fn queue(&self, depth: usize) {
        self.queue_depth
            .set(i64::try_from(depth).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_shown_before_it_happens_and_counted_by_what_it_is() {
        let registry = Registry::new();
        let owner = Metrics::register(&registry).owner(&"seoul".parse().expect("slug"));
        let shown = |what: &str, count: u64| {
            let line = format!(
                "doseline_invariant_violations_total{{region=\"seoul\",what=\"{what}\"}} {count}\n"
            );
            let page = registry.encode();
            assert!(page.contains(&line), "{line} in\n{page}");
        };
        for what in VIOLATIONS {
            shown(what, 0);
        }
        owner.violated(Alarm::Constraint { ops: 3 });
        owner.violated(Alarm::Reapplied { kept: 2, lost: 0 });
        owner.violated(Alarm::Reapplied { kept: 2, lost: 1 });
        shown("capacity", 1);
        shown("ledger_went_back", 0);
        shown("acknowledged_again", 1);
        shown("acknowledged_lost", 1);
    }
}
