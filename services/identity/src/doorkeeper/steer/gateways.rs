//! How much gateways' trouble counts: as the part of the calls that goes through gateways in trouble, as far as that can
//! be known from what gateways say themselves. Pure.
//!
//! A gateway can lie. What it says about its own trouble and about its own calls is believed, but weighed: a gateway
//! weighs its calls, at most as many as the median gateway has. More than half of the gateways have the median's calls
//! or more, so one gateway among n weighs at most 1/(n/2 + 1) of the whole, whatever it says: half with two, a
//! twentieth or so with forty. A line is then never slowed below the part that the others, who are well, can carry, and
//! never below [`LEAST`] even when all of them say that nothing works: what back ends take is told by inventories alone.

use super::{Gateway, Settings};

/// Calls refused for load, as a part of all, that are trouble.
const SHEDS: f64 = 0.001;
/// Nearly all allowed concurrency in use.
const FULL: f64 = 0.9;
/// However much gateways complain, this part of what inventories take is let in.
pub(super) const LEAST: f64 = 0.125;

/// What gateways' reports allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Say {
    /// The part of the rate that the well ones can carry; `LEAST` to 1.
    pub(super) carried: f64,
    /// Whether the rate may grow: no more than half of them are in trouble, and no more than half at their limits.
    pub(super) growth: bool,
}

/// Weighs what gateways show.
pub(super) fn weigh(gateways: &[Gateway], settings: &Settings) -> Say {
    let troubled = part(gateways, |one| {
        one.sheds_per_second > one.calls_per_second * SHEDS || one.latency > settings.latency_max
    });
    let full = part(gateways, |one| one.in_flight >= FULL);
    Say {
        carried: (1.0 - troubled).max(LEAST),
        growth: troubled <= 0.5 && full <= 0.5,
    }
}

/// The part of the calls that goes through gateways of which `holds` is true.
fn part(gateways: &[Gateway], holds: impl Fn(&Gateway) -> bool) -> f64 {
    // Who has no calls has no trouble with them, and must not pull the median down.
    let busy = || gateways.iter().filter(|one| one.calls_per_second > 0.0);
    let mut calls: Vec<f64> = busy().map(|one| one.calls_per_second).collect();
    if calls.is_empty() {
        return 0.0;
    }
    calls.sort_by(f64::total_cmp);
    let median = calls[(calls.len() - 1) / 2];
    let weight = |one: &Gateway| one.calls_per_second.min(median);
    let all: f64 = busy().map(weight).sum();
    busy().filter(|one| holds(one)).map(weight).sum::<f64>() / all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::Rate;
    use super::*;

    fn settings() -> Settings {
        Settings {
            rate: Rate::Fixed(1.0),
            ttl: Duration::from_secs(10),
            presence: 1.0,
            latency_max: Duration::from_millis(500),
            queued_max: 1,
        }
    }

    fn well(calls_per_second: f64) -> Gateway {
        Gateway {
            calls_per_second,
            ..Gateway::default()
        }
    }

    fn liar(calls_per_second: f64) -> Gateway {
        Gateway {
            calls_per_second,
            sheds_per_second: calls_per_second,
            latency: Duration::MAX,
            in_flight: 1.0,
        }
    }

    fn say(gateways: &[Gateway]) -> (f64, bool) {
        let say = weigh(gateways, &settings());
        (say.carried, say.growth)
    }

    #[test]
    fn trouble_counts_as_much_as_it_carries() {
        assert_eq!(say(&[]), (1.0, true), "nobody says anything");
        assert_eq!(say(&[well(10.0), well(10.0)]), (1.0, true));
        assert_eq!(say(&[liar(10.0)]), (LEAST, false), "all there are");
        assert_eq!(say(&[liar(1e12), well(10.0)]), (0.5, true));
        assert_eq!(
            say(&[liar(1e12), well(10.0), well(10.0), well(10.0)]),
            (0.75, true)
        );
        assert!(!say(&[liar(10.0), liar(9.0), well(10.0)]).1);
        let uneven = [liar(90.0), liar(10.0), liar(1.0)];
        assert_eq!(say(&uneven), (LEAST, false), "all of them, however uneven");
        assert_eq!(
            say(&[liar(0.0), well(10.0)]),
            (1.0, true),
            "no calls, no trouble"
        );
    }

    #[test]
    fn each_sign_of_trouble_is_one() {
        let slow = Gateway {
            latency: Duration::from_millis(501),
            ..well(10.0)
        };
        let shedding = Gateway {
            sheds_per_second: 0.02,
            ..well(10.0)
        };
        let full = Gateway {
            in_flight: 0.95,
            ..well(10.0)
        };
        assert_eq!(say(&[slow]), (LEAST, false));
        assert_eq!(say(&[shedding]), (LEAST, false));
        assert_eq!(say(&[full]), (1.0, false), "full is not slow");
    }

    proptest! {
        #[test]
        fn one_gateway_never_weighs_more_than_its_bound(
            calls in proptest::collection::vec(0.001f64..1e6, 1..40),
            lie in 0.0f64..1e18,
        ) {
            let n = calls.len() + 1;
            let mut gateways: Vec<_> = calls.into_iter().map(well).collect();
            gateways.push(liar(lie));
            let bound = 1.0 / (n / 2 + 1) as f64;
            let (carried, _) = say(&gateways);
            prop_assert!(carried >= 1.0 - bound - 1e-9, "{carried} among {n}");
        }
    }
}
