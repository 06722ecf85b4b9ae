//! Closed buckets: signed documents of their own, written once and chained by hash.
//!
//! Invariant: the buckets a process knows are 0, 1, 2 … without a gap, each beginning where the one before ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes32;
use super::seen::Rejected;
use crate::ids::{CampaignId, CohortId, RegionId};
use crate::paseto::{SigningKeyWithId, TrustedKeys, Untrusted};

/// Signed along with every bucket document and carried by none.
pub const BUCKET_PURPOSE: &str = "doseline/bucket/v1";

/// A closed bucket as everybody may read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketDocument {
    /// The campaign.
    pub campaign: CampaignId,
    /// The cohort.
    pub cohort: CohortId,
    /// 0 for everybody before the freeze.
    pub id: u32,
    /// People in earlier buckets.
    pub before: u64,
    /// People in this one.
    pub size: u64,
    /// People in this one by the region of their permit at closing; adds up to `size`.
    pub regions: BTreeMap<RegionId, u64>,
    /// Root of the sorted list of this bucket's draw tickets, where one is published (bucket 0's is also in FREEZE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_root: Option<Bytes32>,
    /// SHA-256 over the signed text of the bucket before; none for bucket 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_hash: Option<Bytes32>,
}

/// A closed bucket, as far as the order needs it: `size` people after `before` others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// People in earlier buckets.
    pub before: u64,
    /// People in this one.
    pub size: u64,
}

/// The closed buckets that a process knows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Buckets {
    known: Arc<Vec<(Bucket, Bytes32)>>,
}

/// Where a room's document lives in the key space.
#[must_use]
pub fn room_key(campaign: &CampaignId, cohort: &CohortId) -> String {
    format!("/doseline/room/{campaign}/{cohort}")
}

/// Where a bucket's document lives in the key space; keys of one room sort by id.
#[must_use]
pub fn bucket_key(campaign: &CampaignId, cohort: &CohortId, id: u32) -> String {
    format!("/doseline/room/{campaign}/{cohort}/bucket/{id:010}")
}

// === impl BucketDocument ===

impl BucketDocument {
    /// Signs the document.
    #[must_use]
    pub fn sign(&self, key: &SigningKeyWithId) -> String {
        let message = serde_json::to_vec(self).expect("plain fields always serialise");
        key.sign(&message, BUCKET_PURPOSE)
    }

    /// Reads a signed document and the hash of its text.
    pub fn verify(keys: &TrustedKeys, text: &str) -> Result<(Self, Bytes32), Untrusted> {
        let message = keys.verify(text, BUCKET_PURPOSE)?;
        let document = serde_json::from_slice(&message).map_err(|_| Untrusted::Malformed)?;
        Ok((document, Bytes32::sha256(text)))
    }
}

// === impl Buckets ===

impl Buckets {
    /// Takes the next bucket; one that is known already changes nothing if it is the same text.
    pub fn learn(&mut self, document: &BucketDocument, hash: Bytes32) -> Result<(), Rejected> {
        if let Some((_, known)) = self.entry(document.id) {
            return if *known == hash {
                Ok(())
            } else {
                Err(Rejected::BucketChanged)
            };
        }
        if usize::try_from(document.id) != Ok(self.known.len()) || document.before != self.people()
        {
            return Err(Rejected::BucketGap);
        }
        if document.prev_hash != self.last_hash() {
            return Err(Rejected::BucketChain);
        }
        let sum = document
            .regions
            .values()
            .try_fold(0u64, |sum, n| sum.checked_add(*n));
        let end = document.before.checked_add(document.size);
        if sum != Some(document.size) || end.is_none() {
            return Err(Rejected::BucketSums);
        }
        let bucket = Bucket {
            before: document.before,
            size: document.size,
        };
        Arc::make_mut(&mut self.known).push((bucket, hash));
        Ok(())
    }

    /// A bucket, if it is closed and known.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<Bucket> {
        self.entry(id).map(|(bucket, _)| *bucket)
    }

    /// The hash of a bucket's signed text, if it is known.
    #[must_use]
    pub fn hash(&self, id: u32) -> Option<Bytes32> {
        self.entry(id).map(|(_, hash)| *hash)
    }

    /// The hash of the last known bucket's signed text: the next one's `prev_hash`.
    #[must_use]
    pub fn last_hash(&self) -> Option<Bytes32> {
        self.known.last().map(|(_, hash)| *hash)
    }

    /// People in all known buckets together: the next one's `before`.
    #[must_use]
    pub fn people(&self) -> u64 {
        self.known
            .last()
            .map_or(0, |(bucket, _)| bucket.before + bucket.size)
    }

    /// How many are known: ids 0 to one less.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn entry(&self, id: u32) -> Option<&(Bucket, Bytes32)> {
        self.known.get(usize::try_from(id).ok()?)
    }
}
