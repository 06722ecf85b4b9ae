//! Who stands where: people of each region by ordinal, from the closed buckets.
//!
//! Ordinals are national. Inside a bucket the order is random, so a region's people are spread evenly over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::RegionId;
use domain::room::BucketDocument;

/// The closed buckets of a room by region. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    /// Where each bucket ends.
    ends: Arc<Vec<u64>>,
    /// People of the region in all buckets up to each.
    sums: Arc<BTreeMap<RegionId, Vec<u64>>>,
}

// === impl Crowd ===

impl Crowd {
    /// Takes the next closed bucket; says whether it was the next one.
    pub fn push(&mut self, bucket: &BucketDocument) -> bool {
        let known = self.ends.len();
        if usize::try_from(bucket.id) != Ok(known) || bucket.before != self.total() {
            return false;
        }
        Arc::make_mut(&mut self.ends).push(bucket.before + bucket.size);
        let sums = Arc::make_mut(&mut self.sums);
        for region in bucket.regions.keys() {
            sums.entry(region.clone()).or_insert_with(|| vec![0; known]);
        }
        for (region, sums) in sums {
            let before = sums.last().copied().unwrap_or(0);
            sums.push(before + bucket.regions.get(region).copied().unwrap_or(0));
        }
        true
    }

    /// How many buckets are known.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.ends.len()
    }

    /// People in all closed buckets: no ordinal is as high.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// A region's people in all closed buckets.
    pub(super) fn all(&self, region: &RegionId) -> f64 {
        self.sums
            .get(region)
            .and_then(|sums| sums.last())
            .map_or(0.0, |sum| *sum as f64)
    }

    /// A region's people before an ordinal.
    pub(super) fn until(&self, region: &RegionId, ordinal: f64) -> f64 {
        let Some(sums) = self.sums.get(region) else {
            return 0.0;
        };
        let at = self.ends.partition_point(|end| *end as f64 <= ordinal);
        if at >= self.ends.len() {
            return self.all(region);
        }
        let before = |of: &[u64]| at.checked_sub(1).map_or(0, |at| of[at]) as f64;
        let (start, end) = (before(&self.ends), self.ends[at] as f64);
        let people = sums[at] as f64 - before(sums);
        before(sums) + people * (ordinal - start) / (end - start)
    }

    /// A region's people between two ordinals.
    pub(super) fn people(&self, region: &RegionId, from: f64, to: f64) -> f64 {
        self.until(region, to) - self.until(region, from)
    }

    /// The first ordinal before which so many people of the region stand; the end if there are fewer.
    pub(super) fn ordinal(&self, region: &RegionId, people: f64) -> f64 {
        let end = self.total() as f64;
        let Some(sums) = self.sums.get(region) else {
            return end;
        };
        let at = sums.partition_point(|sum| (*sum as f64) < people);
        if at >= sums.len() {
            return end;
        }
        let before = |of: &[u64]| at.checked_sub(1).map_or(0, |at| of[at]) as f64;
        let (start, end) = (before(&self.ends), self.ends[at] as f64);
        let here = sums[at] as f64 - before(sums);
        if here <= 0.0 {
            return start;
        }
        start + (end - start) * ((people - before(sums)) / here).clamp(0.0, 1.0)
    }

    /// Ordinals a second at which `rate` people of the region a second are passed, over the next `horizon` or until
    /// nobody is left.
    pub(super) fn speed(&self, region: &RegionId, at: f64, rate: f64, horizon: Duration) -> f64 {
        let before = self.until(region, at);
        let people = (rate * horizon.as_secs_f64()).min(self.all(region) - before);
        if people <= 0.0 || rate <= 0.0 {
            return 0.0;
        }
        (self.ordinal(region, before + people) - at).max(0.0) / (people / rate)
    }

    /// The region's share of the people who come next at an ordinal; 0 past the end.
    pub(super) fn density(&self, region: &RegionId, ordinal: f64) -> f64 {
        let Some(sums) = self.sums.get(region) else {
            return 0.0;
        };
        let at = self.ends.partition_point(|end| *end as f64 <= ordinal);
        let Some(end) = self.ends.get(at) else {
            return 0.0;
        };
        let before = |of: &[u64]| at.checked_sub(1).map_or(0, |at| of[at]);
        (sums[at] - before(sums)) as f64 / (end - before(&self.ends)) as f64
    }
}
