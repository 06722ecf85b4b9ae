//! A region at one moment: immutable, ordered for listing, with the answers encoded from it so far.
//!
//! Invariant: an answer comes from one view as a whole; when the view is replaced its answers go with it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use domain::{ClinicId, ShardId, SlotId, Timestamp};
use proto::availability::{ListClinicsRequest, ListSlotsRequest};
use proto::encoded::Encoded;

use super::shards::{Clinic, Shards, Slot};

/// Filters are many, popular ones are few: what does not fit is encoded when asked.
const ANSWERS_MAX: usize = 1_024;
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A region as it was at `as_of`.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The last change of the watchers' ring that is in it.
    pub(super) sequence: u64,
    pub(super) as_of: Timestamp,
    /// The shards that are in it.
    pub(super) shards: BTreeSet<ShardId>,
    /// By id.
    pub(super) clinics: Vec<Arc<ClinicView>>,
    pub(super) slot_answers: EncodedAnswers<ListSlotsRequest>,
    pub(super) clinic_answers: EncodedAnswers<ListClinicsRequest>,
}

/// A clinic and its slots by start time.
#[derive(Debug)]
pub(super) struct ClinicView {
    pub(super) clinic: Arc<Clinic>,
    pub(super) slots: Vec<Slot>,
    /// For each slot the change that it is as it is since.
    pub(super) since: Vec<u64>,
    /// The last change of any slot.
    pub(super) newest: u64,
    /// The last change that took slots away: who saw only older ones cannot be told by new values.
    pub(super) removed: u64,
}

/// Answers by the whole request, so that finding one takes no parsing.
#[derive(Debug)]
pub(super) struct EncodedAnswers<Q> {
    answers: RwLock<HashMap<Q, Encoded>>,
    bytes: AtomicUsize,
}

impl View {
    /// This view with some clinics as they are now; the others are shared.
    pub(super) fn next(
        &self,
        shards: &Shards,
        changed: &BTreeSet<ClinicId>,
        as_of: Timestamp,
        sequence: u64,
    ) -> Self {
        let unchanged = self
            .clinics
            .iter()
            .filter(|view| !changed.contains(&view.clinic.id));
        let mut clinics: Vec<_> = unchanged.map(Arc::clone).collect();
        for id in changed {
            if let Some(held) = shards.clinic(id) {
                let mut slots: Vec<_> = held.slots.values().cloned().collect();
                slots.sort_unstable_by_key(|slot| (slot.starts_at, slot.id));
                let clinic = Arc::clone(&held.clinic);
                let before = self.clinic(id);
                clinics.push(Arc::new(ClinicView::after(before, clinic, slots, sequence)));
            }
        }
        clinics.sort_by(|a, b| a.clinic.id.cmp(&b.clinic.id));
        Self {
            sequence,
            as_of,
            shards: shards.heard(),
            clinics,
            ..Self::default()
        }
    }

    /// One clinic.
    pub(super) fn clinic(&self, id: &ClinicId) -> Option<&ClinicView> {
        let at = self
            .clinics
            .binary_search_by(|view| view.clinic.id.cmp(id))
            .ok()?;
        Some(&self.clinics[at])
    }
}

impl ClinicView {
    /// The clinic as it is now, told at `sequence`; slots that are as they were keep their number.
    fn after(before: Option<&Self>, clinic: Arc<Clinic>, slots: Vec<Slot>, sequence: u64) -> Self {
        let known: HashMap<SlotId, (&Slot, u64)> = before
            .into_iter()
            .flat_map(|view| view.slots.iter().zip(&view.since))
            .map(|(slot, since)| (slot.id, (slot, *since)))
            .collect();
        let since: Vec<u64> = slots
            .iter()
            .map(|slot| match known.get(&slot.id) {
                Some((was, since)) if *was == slot => *since,
                _ => sequence,
            })
            .collect();
        let kept = slots.iter().filter(|slot| known.contains_key(&slot.id));
        let removed = if kept.count() < known.len() {
            sequence
        } else {
            before.map_or(0, |view| view.removed)
        };
        Self {
            clinic,
            slots,
            newest: since.iter().copied().max().unwrap_or(0).max(removed),
            since,
            removed,
        }
    }
}

impl<Q> Default for EncodedAnswers<Q> {
    fn default() -> Self {
        Self {
            answers: RwLock::default(),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl<Q: Eq + Hash + Clone> EncodedAnswers<Q> {
    pub(super) fn get(&self, request: &Q) -> Option<Encoded> {
        self.answers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(request)
            .cloned()
    }

    pub(super) fn put(&self, request: &Q, answer: &Encoded) {
        let length = answer.bytes().len();
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.bytes.load(Ordering::Relaxed) + length;
        if answers.len() < ANSWERS_MAX && bytes <= ANSWER_BYTES_MAX {
            self.bytes.store(bytes, Ordering::Relaxed);
            answers.insert(request.clone(), answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_in_number_and_in_bytes() {
        let few = EncodedAnswers::<usize>::default();
        let half = Encoded::from_bytes(vec![0; ANSWER_BYTES_MAX / 2].into());
        (0..3).for_each(|n| few.put(&n, &half));
        assert!(few.get(&1).is_some() && few.get(&2).is_none());
        let many = EncodedAnswers::<usize>::default();
        let small = Encoded::from_bytes(vec![0; 8].into());
        (0..ANSWERS_MAX + 10).for_each(|n| many.put(&n, &small));
        assert!(many.get(&(ANSWERS_MAX - 1)).is_some() && many.get(&ANSWERS_MAX).is_none());
    }
}
