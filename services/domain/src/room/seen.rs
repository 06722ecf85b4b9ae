//! One process's view of one room: the newest document, the closed buckets, and how far each frontier came.
//!
//! Invariant: a frontier never moves back here, and neither draw nor closed buckets ever change.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bucket::{BucketDocument, Buckets};
use super::bytes::Bytes32;
use super::{Phase, Room, admitted};
use crate::ids::RegionId;
use crate::place::{self, DrawKey, Place};
use crate::refusal::Refusal;

/// One process's view of one room.
#[derive(Clone, Debug)]
pub struct Seen {
    room: Room,
    buckets: Buckets,
    draw: Option<DrawKey>,
    highest: BTreeMap<RegionId, u64>,
}

/// Why a document was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Its version is not higher than the one seen.
    #[error("version is not newer")]
    NotNewer,
    /// It is about another campaign or cohort.
    #[error("another room")]
    AnotherRoom,
    /// It changes the draw.
    #[error("the draw changed")]
    DrawChanged,
    /// It goes back to before the doors, or opens what has ended.
    #[error("the phase went back")]
    PhaseBack,
    /// It changes a closed bucket, or opens one again.
    #[error("a closed bucket changed")]
    BucketChanged,
    /// It does not begin where the bucket before ended.
    #[error("a bucket is missing before this one")]
    BucketGap,
    /// It does not name the bucket before by its hash.
    #[error("the bucket does not follow the one before")]
    BucketChain,
    /// Its regions do not add up to its size.
    #[error("the bucket's regions do not add up to its size")]
    BucketSums,
    /// No room document has called it closed yet.
    #[error("the bucket is not closed yet")]
    BucketOpen,
}

// === impl Seen ===

impl Seen {
    /// A first view, starting from the frontiers stored by an earlier process, if any. Buckets are learnt.
    #[must_use]
    pub fn new(room: Room, highest: BTreeMap<RegionId, u64>) -> Self {
        let draw = key_of(&room);
        Self {
            room,
            buckets: Buckets::default(),
            draw,
            highest,
        }
    }

    /// The newest document.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The closed buckets known.
    #[must_use]
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// The highest frontiers so far, to be stored.
    #[must_use]
    pub fn highest(&self) -> &BTreeMap<RegionId, u64> {
        &self.highest
    }

    /// Takes a newer document. `elapsed` is how long the old one was followed.
    pub fn replace(&mut self, room: Room, elapsed: Duration) -> Result<(), Rejected> {
        if room.campaign != self.room.campaign || room.cohort != self.room.cohort {
            return Err(Rejected::AnotherRoom);
        }
        if room.version <= self.room.version {
            return Err(Rejected::NotNewer);
        }
        room.follows(&self.room)?;
        self.same_bucket(&room)?;
        self.note(elapsed);
        if self.draw.is_none() {
            self.draw = key_of(&room);
        }
        self.room = room;
        Ok(())
    }

    /// Takes a closed bucket. Those of one room are to be taken in the order of their ids, and after the room document
    /// that calls them closed; what was refused for its order may be offered again.
    pub fn learn_bucket(&mut self, bucket: &BucketDocument, hash: Bytes32) -> Result<(), Rejected> {
        if bucket.campaign != self.room.campaign || bucket.cohort != self.room.cohort {
            return Err(Rejected::AnotherRoom);
        }
        let last = self.room.last_closed_bucket;
        if last.is_none_or(|last| bucket.id > last) {
            return Err(Rejected::BucketOpen);
        }
        if last == Some(bucket.id)
            && self
                .room
                .last_bucket_hash
                .is_some_and(|named| named != hash)
        {
            return Err(Rejected::BucketChanged);
        }
        self.buckets.learn(bucket, hash)
    }

    /// Takes over buckets that another view of the same room had learnt.
    #[must_use]
    pub fn with_buckets(mut self, buckets: Buckets) -> Self {
        self.buckets = buckets;
        self
    }

    /// Remembers how far each frontier has come, so that it never falls behind what was already answered.
    pub fn note(&mut self, elapsed: Duration) {
        if !self.room.phase.advances() {
            return;
        }
        for (region, line) in &self.room.regions {
            let reached = line.after(elapsed);
            let highest = self.highest.entry(region.clone()).or_default();
            *highest = reached.max(*highest);
        }
    }

    /// The region's frontier `elapsed` after the document was received; `None` for a region that is not in the room.
    #[must_use]
    pub fn frontier(&self, region: &RegionId, elapsed: Duration) -> Option<u64> {
        let line = self.room.regions.get(region)?;
        let highest = self.highest.get(region).copied().unwrap_or(0);
        Some(line.after(elapsed).max(highest))
    }

    /// The place in line; `None` while the bucket is open or not known here, or the draw is not done.
    #[must_use]
    pub fn ordinal(&self, place: &Place) -> Option<u64> {
        let last = self.room.last_closed_bucket?;
        let bucket = self
            .buckets
            .get(place.bucket)
            .filter(|_| place.bucket <= last)?;
        let r = self.draw.as_ref()?.draw(place);
        Some(place::ordinal(bucket.before, bucket.size, r))
    }

    /// Whether it is this place's turn in `region`, `elapsed` after the document was received.
    pub fn admitted(
        &self,
        place: &Place,
        region: &RegionId,
        elapsed: Duration,
    ) -> Result<(), Refusal> {
        let frontier = self.frontier(region, elapsed);
        admitted(self.room.phase, self.ordinal(place), frontier)
    }

    /// A room document that names another text for a bucket we know is lying about one of them.
    fn same_bucket(&self, room: &Room) -> Result<(), Rejected> {
        let known = room.last_closed_bucket.and_then(|id| self.buckets.hash(id));
        match (known, room.last_bucket_hash) {
            (Some(known), Some(named)) if known != named => Err(Rejected::BucketChanged),
            _ => Ok(()),
        }
    }
}

fn key_of(room: &Room) -> Option<DrawKey> {
    room.draw.final_seed.map(|seed| DrawKey::new(&seed.0))
}

impl Phase {
    /// Whether frontiers are followed.
    #[must_use]
    pub fn advances(self) -> bool {
        matches!(self, Self::Open | Self::Exhausted)
    }

    /// Whether a room in phase `old` may come to this one.
    #[must_use]
    pub fn may_follow(self, old: Self) -> bool {
        let stage = |phase| match phase {
            Self::Lobby => 0,
            Self::Frozen => 1,
            Self::Drawn => 2,
            Self::Open | Self::Paused | Self::Exhausted => 3,
            Self::Ended => 4,
        };
        stage(self) >= stage(old)
    }
}
