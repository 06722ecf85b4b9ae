//! What a room needs of the people store: buckets, the secret of its draw, and every version of its document.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use domain::{RegionId, Timestamp};

/// The bucket that people who ask now come into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenBucket {
    /// Its id.
    pub id: u32,
    /// People in it, counted up to the number that was asked for.
    pub people: u64,
    /// How long it has been open.
    pub open_for: Duration,
}

/// A bucket that nobody comes into any more, as it is for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedBucket {
    /// Its id.
    pub id: u32,
    /// People in earlier buckets.
    pub before: u64,
    /// People by region; regions without any are left out.
    pub regions: BTreeMap<RegionId, u64>,
    /// When it was closed, by the store's clock.
    pub closed_at: Timestamp,
}

/// One version of a room's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDocument {
    /// Its version.
    pub version: u64,
    /// The signed text.
    pub document: String,
    /// When its write began.
    pub written_at: Timestamp,
}

/// The secret half of a draw. Does not print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DrawSeed(pub [u8; 32]);

// === impl ClosedBucket ===

impl ClosedBucket {
    /// People in all regions together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.regions.values().sum()
    }
}

impl fmt::Debug for DrawSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_does_not_print() {
        assert_eq!(format!("{:?}", DrawSeed([7; 32])), "[redacted]");
    }
}
