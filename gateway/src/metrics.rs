//! Everything a gateway measures beside the calls themselves.

use std::sync::Arc;

use domain::Refusal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use runtime::Clock;
use runtime::metrics::Registry;

use crate::availability::Availability;
use crate::room::Rooms;
use crate::shedding::{Class, Gates, Spread};

/// Why something is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Retry {
    /// Nobody is known to decide.
    NoRoute,
    /// The one who decides is not connected.
    Unreachable,
    /// The stream broke with the command on it.
    Broken,
    /// Somebody else decides since.
    Superseded,
    /// Whoever was asked does not decide.
    NotOwner,
    /// The clinic has another shard.
    WrongShard,
    /// Whoever was asked cannot decide now.
    Unavailable,
    /// Whoever was asked does not know.
    Unknown,
    /// The inventory's room is behind ours.
    NotAdmitted,
    /// A member of identity did not answer.
    Identity,
    /// Whoever was asked has enough to do, and another one can answer as well.
    Full,
}

impl Retry {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
            Self::Superseded => "superseded",
            Self::NotOwner => "not_owner",
            Self::WrongShard => "wrong_shard",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::NotAdmitted => "not_admitted",
            Self::Identity => "identity",
            Self::Full => "full",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

/// Which of several back ends' figures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpreadLabels {
    class: &'static str,
    /// `min`, `max` or `sum` over the back ends of the class.
    of: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegionLabels {
    region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    refusal: &'static str,
}

/// Calls that this gateway refused itself, by why. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Family<RefusalLabels, Counter>);

/// The counters that handlers touch. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct GatewayMetrics {
    retries: Arc<[Counter; 11]>,
    /// What was refused here.
    pub(crate) refusals: Refusals,
}

const RETRIES: [Retry; 11] = [
    Retry::NoRoute,
    Retry::Unreachable,
    Retry::Broken,
    Retry::Superseded,
    Retry::NotOwner,
    Retry::WrongShard,
    Retry::Unavailable,
    Retry::Unknown,
    Retry::NotAdmitted,
    Retry::Identity,
    Retry::Full,
];

impl GatewayMetrics {
    pub(crate) fn register(
        registry: &Registry,
        gates: &Gates,
        availability: &Availability,
        rooms: &Rooms,
        clock: &Clock,
    ) -> Self {
        let retries = Family::<RetryLabels, Counter>::default();
        let counters =
            RETRIES.map(|why| retries.get_or_create_owned(&RetryLabels { why: why.as_str() }));
        let refusals = Refusals::default();
        let figures = Figures {
            gates: gates.clone(),
            availability: availability.clone(),
            rooms: rooms.clone(),
            clock: clock.clone(),
        };
        registry.register(|metrics| {
            metrics.register(
                "gateway_retries",
                "Commands and permit requests asked again inside the caller's deadline, by reason",
                retries,
            );
            metrics.register(
                "gateway_turned_away",
                "Calls that the gateway refused itself, by why: callers, fields, permits that ask for their place",
                refusals.0.clone(),
            );
            metrics.register_collector(Box::new(figures));
        });
        Self {
            retries: Arc::new(counters),
            refusals,
        }
    }

    pub(crate) fn retried(&self, why: Retry) {
        // The array is in the order of the enum.
        self.retries[why as usize].inc();
    }
}

impl Refusals {
    /// A call was refused here.
    pub(crate) fn count(&self, refusal: Refusal) {
        let labels = RefusalLabels {
            refusal: refusal.code(),
        };
        self.0.get_or_create(&labels).inc();
    }
}

/// Figures that exist anyway and are read when somebody looks.
#[derive(Clone)]
struct Figures {
    gates: Gates,
    availability: Availability,
    rooms: Rooms,
    clock: Clock,
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let by_class = |class: Class| ClassLabels {
            class: class.as_str(),
        };
        let gauge = ConstGauge::new(0_i64);
        let mut all = encoder.encode_descriptor(
            "gateway_in_flight",
            "Calls being served, by class",
            None,
            gauge.metric_type(),
        )?;
        for class in Class::ALL {
            let value = ConstGauge::new(i64::from(self.gates.in_flight(class)));
            value.encode(all.encode_family(&by_class(class))?)?;
        }
        let mut all = encoder.encode_descriptor(
            "gateway_answer_age_seconds",
            "How long answers take lately as shedding sees it, by class",
            None,
            gauge.metric_type(),
        )?;
        for class in Class::ALL {
            let value = ConstGauge::new(self.gates.age(class).as_secs_f64());
            value.encode(all.encode_family(&by_class(class))?)?;
        }
        let counter = ConstCounter::new(0_u64);
        let mut all = encoder.encode_descriptor(
            "gateway_shed",
            "Calls refused with OVERLOADED, by class",
            None,
            counter.metric_type(),
        )?;
        for class in Class::ALL {
            let value = ConstCounter::new(self.gates.shed(class));
            value.encode(all.encode_family(&by_class(class))?)?;
        }
        let age = ConstGauge::new(self.rooms.age().as_secs_f64());
        age.encode(encoder.encode_descriptor(
            "rooms_age_seconds",
            "For how long rooms may have changed without this gateway knowing",
            None,
            gauge.metric_type(),
        )?)?;
        self.encode_back_ends(&mut encoder)?;
        let mut all = encoder.encode_descriptor(
            "availability_age_seconds",
            "Age of the oldest shard's figures that are served, by region",
            None,
            gauge.metric_type(),
        )?;
        let now = self.clock.wall();
        for region in self.availability.regions() {
            if let Some(age) = region.age(now) {
                let labels = RegionLabels {
                    region: region.id().to_string(),
                };
                ConstGauge::new(age.as_secs_f64()).encode(all.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Figures {
    /// Limits and use of the back ends: least, most and sum of each class, and never whose.
    fn encode_back_ends(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Pick = fn((Spread, Spread)) -> Spread;
        let figures: [(&str, &str, Pick); 2] = [
            (
                "gateway_back_end_limit",
                "Calls that a back end may have at once, over the back ends of a class",
                |(limits, _)| limits,
            ),
            (
                "gateway_back_end_in_flight",
                "Calls that a back end has now, over the back ends of a class",
                |(_, in_flight)| in_flight,
            ),
        ];
        for (name, help, pick) in figures {
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut all = encoder.encode_descriptor(name, help, None, kind)?;
            for class in Class::ALL {
                let Some(spreads) = self.gates.back_ends(class).spreads() else {
                    continue;
                };
                let spread = pick(spreads);
                let values = [
                    ("min", u64::from(spread.least)),
                    ("max", u64::from(spread.most)),
                    ("sum", spread.sum),
                ];
                for (of, value) in values {
                    let class = class.as_str();
                    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                    value.encode(all.encode_family(&SpreadLabels { class, of })?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ed25519_dalek::SigningKey;
    use runtime::keyspace::Keyspace;
    use runtime::trusted_keys::{TrustedKeysFile, render};

    use super::*;
    use crate::shedding::{Bounds, Limit};

    #[tokio::test]
    async fn every_reason_has_its_own_counter_and_every_figure_is_shown() {
        for (at, why) in RETRIES.iter().enumerate() {
            assert_eq!(*why as usize, at);
        }
        let registry = Registry::new();
        let limit = Limit::new(1, Duration::from_secs(1));
        let bounds = Bounds {
            floor: 1,
            ceiling: 7,
            calm: Duration::from_millis(1),
            target: Duration::from_secs(1),
        };
        let gates = Gates::new(limit, limit, limit, bounds);
        let back_ends = [(); 2].map(|()| gates.back_ends(Class::Commands).limiter());
        let _place = back_ends[0].enter(false);
        let availability = Availability::new(["seoul".parse().expect("slug")]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.json");
        let public = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        std::fs::write(&path, render([("k1", public)])).expect("writable");
        let keys = TrustedKeysFile::open(&path).expect("good keys");
        let keyspace = Keyspace::local(None).expect("in memory");
        let clock = Clock::system();
        let rooms = Rooms::new(&keyspace, keys.clone(), keys, true, clock.clone());
        let metrics = GatewayMetrics::register(&registry, &gates, &availability, &rooms, &clock);
        metrics.retried(Retry::NotOwner);
        metrics.refusals.count(Refusal::CallerUnknown);
        let _seat = gates.enter(Class::Reads);
        assert!(gates.enter(Class::Reads).is_none());
        let page = registry.encode();
        for line in [
            "doseline_gateway_retries_total{why=\"not_owner\"} 1",
            "doseline_gateway_retries_total{why=\"identity\"} 0",
            "doseline_gateway_turned_away_total{refusal=\"CALLER_UNKNOWN\"} 1",
            "doseline_gateway_in_flight{class=\"reads\"} 1",
            "doseline_gateway_shed_total{class=\"reads\"} 1",
            "doseline_gateway_shed_total{class=\"permits\"} 0",
            "doseline_rooms_age_seconds 0",
            "doseline_gateway_back_end_limit{class=\"commands\",of=\"min\"} 7",
            "doseline_gateway_back_end_limit{class=\"commands\",of=\"sum\"} 14",
            "doseline_gateway_back_end_in_flight{class=\"commands\",of=\"min\"} 0",
            "doseline_gateway_back_end_in_flight{class=\"commands\",of=\"max\"} 1",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
    }
}
