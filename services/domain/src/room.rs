//! A cohort's waiting room: one small signed document, and the pure predicate over it.
//!
//! Source: design of the room, section 5. Invariant: a frontier never moves back in one process, and a reader that
//! is behind admits fewer people, never more.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{CampaignId, CohortId, RegionId};
use crate::paseto::{SigningKeyWithId, TrustedKeys, Untrusted};
use crate::place::{self, Place};
use crate::refusal::Refusal;

/// Signed along with every room document and carried by none.
pub const PURPOSE: &str = "doseline/room/v1";

/// What a room is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// People collect permits; nobody has an order yet.
    Lobby,
    /// Bucket 0 is closed; the list is fixed.
    Frozen,
    /// The order is known; the doors are still closed.
    Drawn,
    /// The frontier advances.
    Open,
    /// An operator stopped new holds and bookings.
    Paused,
    /// At least one region has nothing left; the others go on.
    Exhausted,
    /// Over for good.
    Ended,
}

/// A closed bucket: `size` people after `before` others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// 0 for everybody before the freeze.
    pub id: u32,
    /// People in earlier buckets.
    pub before: u64,
    /// People in this one.
    pub size: u64,
}

/// A region's frontier as a line in time with an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontier {
    /// The ordinal it starts from.
    pub f0: u64,
    /// Ordinals per 1,000 seconds.
    pub per_kilosecond: u64,
    /// How long the line may be followed without a newer document, in milliseconds.
    pub ttl_ms: u64,
    /// Never beyond this ordinal.
    pub f_end: u64,
}

impl Frontier {
    /// Where the line stands `elapsed` after the document was received, by a monotonic clock.
    #[must_use]
    pub fn after(&self, elapsed: Duration) -> u64 {
        let followed_ms = elapsed.as_millis().min(u128::from(self.ttl_ms));
        let advance = u128::from(self.per_kilosecond) * followed_ms / 1_000_000;
        let reached = u128::from(self.f0) + advance;
        u64::try_from(reached).unwrap_or(u64::MAX).min(self.f_end)
    }
}

/// The room's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// The campaign.
    pub campaign: CampaignId,
    /// The cohort.
    pub cohort: CohortId,
    /// Rises by one at each write, from 1.
    pub version: u64,
    /// SHA-256 over the signed text of the version before, in hex; empty for the first.
    pub prev_hash: String,
    /// What the room is doing.
    pub phase: Phase,
    /// The public random value that orders each bucket, in hex (32 bytes); empty before the draw.
    pub final_seed: String,
    /// The highest bucket that is closed; `None` before the freeze.
    pub last_closed_bucket: Option<u32>,
    /// Closed buckets by id. Late buckets move to keys of their own with the full room.
    pub buckets: Vec<Bucket>,
    /// The frontier of each region.
    pub regions: BTreeMap<RegionId, Frontier>,
    /// Why the phase is what it is, for people.
    pub reason: String,
}

impl Room {
    /// Signs the document.
    #[must_use]
    pub fn sign(&self, key: &SigningKeyWithId) -> String {
        let message = serde_json::to_vec(self).expect("plain fields always serialise");
        key.sign(&message, PURPOSE)
    }

    /// Reads a signed document.
    pub fn verify(keys: &TrustedKeys, text: &str) -> Result<Self, Untrusted> {
        let message = keys.verify(text, PURPOSE)?;
        serde_json::from_slice(&message).map_err(|_| Untrusted::Malformed)
    }

    fn seed(&self) -> Option<[u8; 32]> {
        let mut seed = [0u8; 32];
        if self.final_seed.len() != 64 || !self.final_seed.is_ascii() {
            return None;
        }
        for (byte, at) in seed.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&self.final_seed[at..at + 2], 16).ok()?;
        }
        Some(seed)
    }

    /// The place in line; `None` while the bucket is open or the draw is not done.
    #[must_use]
    pub fn ordinal(&self, place: &Place) -> Option<u64> {
        let closed = self
            .last_closed_bucket
            .is_some_and(|last| place.bucket <= last);
        let bucket = self
            .buckets
            .iter()
            .find(|bucket| closed && bucket.id == place.bucket)?;
        Some(place::ordinal(
            bucket.before,
            bucket.size,
            place::draw(&self.seed()?, place),
        ))
    }
}

/// `admitted = phase in {OPEN, EXHAUSTED} and bucket closed and ordinal < frontier of the permit's region`.
///
/// `frontier` is what [`Seen::frontier`] says for the permit's region.
pub fn admitted(room: &Room, place: &Place, frontier: Option<u64>) -> Result<(), Refusal> {
    match room.phase {
        Phase::Open | Phase::Exhausted => {}
        Phase::Paused => return Err(Refusal::RoomPaused),
        Phase::Ended => return Err(Refusal::RoomEnded),
        Phase::Lobby | Phase::Frozen | Phase::Drawn => return Err(Refusal::NotAdmitted),
    }
    let frontier = frontier.ok_or(Refusal::RegionNotInCampaign)?;
    match room.ordinal(place) {
        Some(ordinal) if ordinal < frontier => Ok(()),
        Some(_) | None => Err(Refusal::NotAdmitted),
    }
}

/// One process's view of one room: the newest document, and the highest frontier it ever computed.
#[derive(Clone, Debug)]
pub struct Seen {
    room: Room,
    highest: BTreeMap<RegionId, u64>,
}

/// Why a document did not replace the one seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Its version is not higher than the one seen.
    #[error("version is not newer")]
    NotNewer,
    /// It is about another campaign or cohort.
    #[error("another room")]
    AnotherRoom,
    /// It changes the draw or a closed bucket.
    #[error("the draw or a closed bucket changed")]
    DrawChanged,
}

impl Seen {
    /// A first view, starting from the frontiers stored by an earlier process, if any.
    #[must_use]
    pub fn new(room: Room, highest: BTreeMap<RegionId, u64>) -> Self {
        Self { room, highest }
    }

    /// The newest document.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
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
        let drawn = !self.room.final_seed.is_empty();
        let kept = self
            .room
            .buckets
            .iter()
            .all(|old| room.buckets.contains(old));
        if (drawn && room.final_seed != self.room.final_seed) || !kept {
            return Err(Rejected::DrawChanged);
        }
        self.note(elapsed);
        self.room = room;
        Ok(())
    }

    /// Remembers how far each frontier has come, so that it never falls behind what was already answered.
    pub fn note(&mut self, elapsed: Duration) {
        if !matches!(self.room.phase, Phase::Open | Phase::Exhausted) {
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
}

#[cfg(test)]
mod tests;
