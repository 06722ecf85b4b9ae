//! How often somebody may try to sign in: a few at once, then slowly; from one place, and in all.
//!
//! Invariant: bounded memory, and addresses are kept nowhere else and never shown.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A person mistypes a few times; a program does not stop.
const FROM_ONE_PLACE: Bucket = Bucket {
    burst: 10,
    every: Duration::from_secs(6),
};
/// All clinics of a country sign in within an hour; a credential costs a signature's verification, about 0.1 ms.
const IN_ALL: Bucket = Bucket {
    burst: 500,
    every: Duration::from_millis(10),
};
/// Places remembered; beyond it those are forgotten that may try freely again.
const PLACES_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    burst: u32,
    every: Duration,
}

/// Who tried lately. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    places: HashMap<Place, Level>,
    all: Option<Level>,
}

/// A network that one subscriber has: an IPv4 address, or half of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// When the bucket will be full again; before that a part is used up.
#[derive(Clone, Copy, Debug)]
struct Level(Instant);

impl Attempts {
    /// Takes one attempt, or says that there was one too many.
    pub(super) fn take(&self, from: IpAddr, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::of(from);
        if !state.places.contains_key(&place) && state.places.len() >= PLACES_MAX {
            state.places.retain(|_, full_at| full_at.0 > now);
            if state.places.len() >= PLACES_MAX {
                return false;
            }
        }
        let here = FROM_ONE_PLACE.take(state.places.get(&place).copied(), now);
        let all = IN_ALL.take(state.all, now);
        let (Some(here), Some(all)) = (here, all) else {
            return false;
        };
        state.places.insert(place, here);
        state.all = Some(all);
        true
    }

    /// Gives an attempt back: it was a good one.
    pub(super) fn forgive(&self, from: IpAddr) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = state.places.get_mut(&Place::of(from)) {
            level.0 -= FROM_ONE_PLACE.every;
        }
    }
}

impl Bucket {
    fn take(self, level: Option<Level>, now: Instant) -> Option<Level> {
        let full_at = level.map_or(now, |level| level.0.max(now)) + self.every;
        (full_at <= now + self.every * self.burst).then_some(Level(full_at))
    }
}

impl Place {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let mut half = [0; 8];
                half.copy_from_slice(&v6.octets()[..8]);
                Self::V6(half)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> IpAddr {
        IpAddr::from([192, 0, 2, 7])
    }

    #[test]
    fn a_few_at_once_then_one_every_few_seconds() {
        let attempts = Attempts::default();
        let now = runtime::Clock::system().monotonic();
        for at in 0..FROM_ONE_PLACE.burst {
            assert!(attempts.take(here(), now), "{at}");
        }
        assert!(!attempts.take(here(), now));
        assert!(
            attempts.take(IpAddr::from([192, 0, 2, 8]), now),
            "another place"
        );
        assert!(attempts.take(here(), now + FROM_ONE_PLACE.every));
        assert!(!attempts.take(here(), now + FROM_ONE_PLACE.every));
        attempts.forgive(here());
        assert!(attempts.take(here(), now + FROM_ONE_PLACE.every));
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_place() {
        let of = |text: &str| Place::of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.7"), Place::of(here()));
    }

    #[test]
    fn memory_is_bounded_and_places_that_may_try_again_are_forgotten() {
        let attempts = Attempts::default();
        let now = runtime::Clock::system().monotonic();
        let all = u32::try_from(PLACES_MAX).expect("fits");
        for at in 0..all {
            let later = now + IN_ALL.every * at;
            attempts.take(IpAddr::from(at.to_be_bytes()), later);
        }
        let end = now + IN_ALL.every * all;
        assert!(attempts.0.lock().expect("not poisoned").places.len() <= PLACES_MAX);
        assert!(attempts.take(IpAddr::from([255; 4]), end + FROM_ONE_PLACE.every));
        assert!(attempts.0.lock().expect("not poisoned").places.len() < PLACES_MAX);
    }
}
