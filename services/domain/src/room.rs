//! A cohort's waiting room: one small signed document, and the pure predicate over it.
//!
//! Source: design of the room, section 5. Invariant: a frontier never moves back in one process, and a reader that
//! is behind admits fewer people, never more.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{CampaignId, CohortId, RegionId};
use crate::paseto::{SigningKeyWithId, TrustedKeys, Untrusted};
use crate::refusal::Refusal;

mod bucket;
mod bytes;
pub mod draw;
pub mod list;
mod seen;
pub mod wait;

pub use bucket::{BUCKET_PURPOSE, Bucket, BucketDocument, Buckets, bucket_key, room_key};
pub use bytes::{Bytes32, NotHex, read_hex};
pub use draw::Draw;
pub use seen::{Rejected, Seen};

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

/// Whether a region has anything left. Information, no predicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RegionState {
    /// There is something left.
    #[default]
    Open,
    /// Nothing is left; the frontier stands until places come back.
    Exhausted,
}

/// A region's frontier as a line in time with an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether anything is left.
    #[serde(default)]
    pub state: RegionState,
    /// Units that nobody holds or has booked.
    #[serde(default)]
    pub left: u64,
    /// The speed that waiting times are told by.
    #[serde(default)]
    pub promise: wait::Promise,
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
    /// SHA-256 over the signed text of the version before; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_hash: Option<Bytes32>,
    /// What the room is doing.
    pub phase: Phase,
    /// What is known of the draw.
    pub draw: Draw,
    /// The highest bucket that is closed; `None` before the freeze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_closed_bucket: Option<u32>,
    /// SHA-256 over the signed text of that bucket's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_bucket_hash: Option<Bytes32>,
    /// The frontier of each region.
    pub regions: BTreeMap<RegionId, Frontier>,
    /// Why the phase is what it is, for people.
    pub reason: String,
}

// === impl Frontier ===

impl Frontier {
    /// Where the line stands `elapsed` after the document was received, by a monotonic clock.
    #[must_use]
    pub fn after(&self, elapsed: Duration) -> u64 {
        let followed_ms = elapsed.as_millis().min(u128::from(self.ttl_ms));
        let advance = u128::from(self.per_kilosecond) * followed_ms / 1_000_000;
        let reached = u128::from(self.f0) + advance;
        u64::try_from(reached).unwrap_or(u64::MAX).min(self.f_end)
    }

    /// The farthest ordinal that any reader of this line can have computed: the next document must not start before it.
    /// `followed` is the time since the write of this document began, `None` if nobody knows.
    #[must_use]
    pub fn reached(&self, phase: Phase, followed: Option<Duration>) -> u64 {
        if phase.advances() {
            // An end before the start would be a mistake, but not one that throws anybody back.
            self.after(followed.unwrap_or(Duration::MAX))
                .max(self.f0.min(self.f_end))
        } else {
            self.f0
        }
    }
}

// === impl Room ===

impl Room {
    /// A room before anything has happened in it, version 1.
    #[must_use]
    pub fn lobby(
        campaign: CampaignId,
        cohort: CohortId,
        regions: impl IntoIterator<Item = RegionId>,
    ) -> Self {
        Self {
            campaign,
            cohort,
            version: 1,
            prev_hash: None,
            phase: Phase::Lobby,
            draw: Draw::default(),
            last_closed_bucket: None,
            last_bucket_hash: None,
            regions: regions
                .into_iter()
                .map(|region| (region, Frontier::default()))
                .collect(),
            reason: String::new(),
        }
    }

    /// The same room one version later; `text` is this version's signed text.
    #[must_use]
    pub fn successor(&self, text: &str) -> Self {
        Self {
            version: self.version + 1,
            prev_hash: Some(Bytes32::sha256(text)),
            ..self.clone()
        }
    }

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

    /// Whether this document, newer than `old`, keeps what must never change: the draw, the closed buckets, the way of
    /// the phases. Says nothing about frontiers, which readers hold themselves.
    pub fn follows(&self, old: &Self) -> Result<(), Rejected> {
        if !self.draw.extends(&old.draw) {
            return Err(Rejected::DrawChanged);
        }
        let reopened = self.last_closed_bucket < old.last_closed_bucket;
        let same = self.last_closed_bucket == old.last_closed_bucket;
        let renamed =
            old.last_bucket_hash.is_some() && self.last_bucket_hash != old.last_bucket_hash;
        if reopened || (same && renamed) {
            return Err(Rejected::BucketChanged);
        }
        if self.phase.may_follow(old.phase) {
            Ok(())
        } else {
            Err(Rejected::PhaseBack)
        }
    }
}

/// `admitted = phase in {OPEN, EXHAUSTED} and bucket closed and ordinal < frontier of the permit's region`.
///
/// `ordinal` is what [`Seen::ordinal`] says (none while the bucket is open), `frontier` what [`Seen::frontier`] says for
/// the permit's region (none where the room does not run).
pub fn admitted(phase: Phase, ordinal: Option<u64>, frontier: Option<u64>) -> Result<(), Refusal> {
    match phase {
        Phase::Open | Phase::Exhausted => {}
        Phase::Paused => return Err(Refusal::RoomPaused),
        Phase::Ended => return Err(Refusal::RoomEnded),
        Phase::Lobby | Phase::Frozen | Phase::Drawn => return Err(Refusal::NotAdmitted),
    }
    let frontier = frontier.ok_or(Refusal::RegionNotInCampaign)?;
    match ordinal {
        Some(ordinal) if ordinal < frontier => Ok(()),
        Some(_) | None => Err(Refusal::NotAdmitted),
    }
}

#[cfg(test)]
mod tests;
