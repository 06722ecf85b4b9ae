//! Judges a world at every step and at its end. It knows what the ledger and the people saw, not what owners think.

use std::collections::{BTreeMap, BTreeSet};

use domain::command::BodyHash;
use domain::refusal::Class;
use domain::{Epoch, Recorded, Refusal, RequestId, ShardId, SlotId, Verdict};
use inventory_core::{AskId, RequestKey, Shard};

use crate::ledger::{ClaimState, Ledger, Written};

/// One incarnation of an owner.
pub(crate) type OwnerId = usize;

/// An ask of a batch op.
#[derive(Clone)]
struct Attempt {
    key: RequestKey,
    hash: BodyHash,
    verdict: Option<Verdict>,
}

#[derive(Default)]
pub(crate) struct Checker {
    attempts: BTreeMap<(OwnerId, AskId), Attempt>,
    /// Asks of one request at one owner, in their order, unanswered.
    open: BTreeMap<(OwnerId, RequestKey), Vec<AskId>>,
    /// Which asks a committed statement carried.
    carried: BTreeMap<Written, Vec<(OwnerId, AskId)>>,
    acked: BTreeMap<RequestKey, Recorded>,
    done_by: BTreeMap<OwnerId, BTreeSet<RequestKey>>,
    last_commit: BTreeMap<ShardId, (Epoch, u64)>,
    writers: BTreeMap<(ShardId, Epoch), OwnerId>,
    regressed: bool,
    told_lost: BTreeMap<OwnerId, usize>,
    pub(crate) answers: u64,
    pub(crate) refusals: BTreeMap<Refusal, u64>,
}

impl Checker {
    pub(crate) fn asked(&mut self, owner: OwnerId, ask: AskId, key: RequestKey, hash: BodyHash) {
        let open = self.open.entry((owner, key.clone())).or_default();
        open.push(ask);
        let attempt = Attempt {
            key,
            hash,
            verdict: None,
        };
        self.attempts.insert((owner, ask), attempt);
    }

    /// The asks that a statement sent by `owner` carries: one op of a person at a time, so the oldest is meant.
    pub(crate) fn carried(&self, owner: OwnerId, keys: &[RequestKey]) -> Vec<(OwnerId, AskId)> {
        let first = |key: &RequestKey| self.open.get(&(owner, key.clone()))?.first().copied();
        let asks = keys.iter().filter_map(first);
        asks.map(|ask| (owner, ask)).collect()
    }

    pub(crate) fn epoch_given(&mut self, shard: ShardId, epoch: Epoch, owner: OwnerId) {
        let writer = *self.writers.entry((shard, epoch)).or_insert(owner);
        assert_eq!(
            writer, owner,
            "epoch {epoch} of shard {shard} has two writers"
        );
    }

    pub(crate) fn committed(
        &mut self,
        owner: OwnerId,
        written: Written,
        asks: Vec<(OwnerId, AskId)>,
    ) {
        let Written { shard, epoch, seq } = written;
        let writer = self.writers.get(&(shard, epoch));
        assert_eq!(
            writer,
            Some(&owner),
            "shard {shard} epoch {epoch}: a stranger wrote"
        );
        let last = self.last_commit.insert(shard, (epoch, seq));
        if let Some((last_epoch, last_seq)) = last {
            let next = if last_epoch == epoch { last_seq + 1 } else { 1 };
            assert!(
                epoch >= last_epoch && seq == next,
                "shard {shard}: {epoch}/{seq} committed after {last_epoch}/{last_seq}"
            );
        }
        self.carried.insert(written, asks);
    }

    pub(crate) fn replied(
        &mut self,
        owner: OwnerId,
        ask: AskId,
        verdict: &Verdict,
        ledger: &Ledger,
    ) {
        let attempt = self
            .attempts
            .get_mut(&(owner, ask))
            .expect("somebody asked");
        assert!(
            attempt.verdict.is_none(),
            "ask {ask:?} of owner {owner} answered twice"
        );
        attempt.verdict = Some(verdict.clone());
        self.answers += 1;
        let Attempt { key, hash, .. } = attempt.clone();
        if let Some(open) = self.open.get_mut(&(owner, key.clone())) {
            open.retain(|it| *it != ask);
        }
        let row = ledger.requests.get(&key);
        match verdict {
            Verdict::Done(answer) | Verdict::Exists(answer) => {
                if !self.regressed {
                    let row = row.expect("acknowledged what is not in the ledger");
                    assert_eq!(
                        (&row.answer, row.hash),
                        (answer, hash),
                        "another answer than recorded"
                    );
                    let first = self
                        .acked
                        .entry(key.clone())
                        .or_insert_with(|| answer.clone());
                    assert_eq!(first, answer, "two answers to one request");
                }
                if matches!(verdict, Verdict::Done(_)) {
                    self.done_by.entry(owner).or_default().insert(key);
                }
            }
            Verdict::Refused { refusal, .. } => {
                *self.refusals.entry(*refusal).or_insert(0) += 1;
                let own = row.filter(|row| row.hash == hash).map(|row| row.written);
                let own = own.filter(|it| it.seq > 0);
                let own = own.filter(|it| self.writers.get(&(it.shard, it.epoch)) == Some(&owner));
                let decided = !matches!(refusal.class(), Class::Unavailable | Class::Unknown);
                assert!(
                    !decided || own.is_none() || self.regressed,
                    "{refusal:?} for a request that this owner had recorded"
                );
            }
        }
    }

    pub(crate) fn went_back(&mut self) {
        self.regressed = true;
        self.last_commit.clear();
    }

    /// An owner says that it brought the ledger forward again.
    pub(crate) fn reapplied(&mut self, owner: OwnerId, lost: usize, ledger: &Ledger) {
        let told = self.told_lost.entry(owner).or_insert(0);
        *told += lost;
        let lost = *told;
        let Some(done) = self.done_by.get(&owner) else {
            return;
        };
        let missing = done
            .iter()
            .filter(|key| !ledger.requests.contains_key(*key));
        let missing = missing.count();
        assert!(
            missing <= lost,
            "{missing} acknowledged requests missing, {lost} reported"
        );
    }

    pub(crate) fn ledger_holds(ledger: &Ledger) {
        let mut booked: BTreeMap<SlotId, u32> = BTreeMap::new();
        for claim in ledger.claims.values() {
            let active = claim.state != ClaimState::Free;
            assert_eq!(
                active,
                !claim.slots.is_empty(),
                "a claim without slots, or slots without one"
            );
            for slot in &claim.slots {
                *booked.entry(*slot).or_insert(0) += 1;
            }
        }
        for (slot, state) in &ledger.slots {
            let counted = booked.get(slot).copied().unwrap_or(0);
            assert_eq!(
                state.booked, counted,
                "slot {slot}: booked and claims differ"
            );
            assert!(state.booked <= state.capacity, "slot {slot} is oversold");
        }
    }

    /// `committed`: places that statements and moves under way have already taken in the ledger, batches and moves apart.
    pub(crate) fn memory_is_not_optimistic(
        shard: &Shard,
        ledger: &Ledger,
        committed: impl Fn(SlotId) -> (u32, u32),
    ) {
        for (slot, state) in &ledger.slots {
            let Some(memory) = shard.memory(*slot) else {
                continue;
            };
            let (taken, reserved) = committed(*slot);
            assert!(
                memory.booked + taken + reserved >= state.booked,
                "slot {slot}: memory {memory:?} + {taken} + {reserved} under the ledger's {state:?}"
            );
            let spoken_for = memory.booked + memory.taken + memory.reserved;
            assert!(
                memory.left == 0 || memory.left + spoken_for <= memory.capacity,
                "slot {slot}: {memory:?} gives places away twice"
            );
            assert!(
                memory.taken >= taken && memory.reserved >= reserved,
                "slot {slot}: {memory:?} forgot places under way: {taken}, {reserved}"
            );
        }
    }

    pub(crate) fn memory_is_right(shard: &Shard, ledger: &Ledger) {
        for (slot, state) in &ledger.slots {
            if let Some(memory) = shard.memory(*slot) {
                assert_eq!(
                    (memory.capacity, memory.booked, memory.open, memory.left),
                    (state.capacity, state.booked, state.open, state.left()),
                    "slot {slot}: memory and ledger differ for good"
                );
            }
        }
    }

    /// At the end: refusals wrote nothing, acknowledged is durable, and whoever could be answered was.
    pub(crate) fn at_the_end(&self, ledger: &Ledger, alive: impl Fn(OwnerId) -> bool) {
        for ((owner, ask), attempt) in &self.attempts {
            assert!(
                attempt.verdict.is_some() || !alive(*owner),
                "ask {ask:?} of owner {owner} was never answered"
            );
        }
        if self.regressed {
            return;
        }
        for (key, answer) in &self.acked {
            let row = ledger.requests.get(key).map(|row| &row.answer);
            assert_eq!(row, Some(answer), "an acknowledged request was lost");
        }
        for (key, row) in &ledger.requests {
            for carrier in self.carried.get(&row.written).into_iter().flatten() {
                let attempt = &self.attempts[carrier];
                // Who lost the shard with a statement in doubt says so; callers repeat the request at the next owner.
                let refused = matches!(
                    attempt.verdict,
                    Some(Verdict::Refused { refusal, .. }) if refusal != Refusal::OutcomeUnknown
                );
                let same = attempt.key == *key && attempt.hash == row.hash;
                assert!(
                    !same || !refused,
                    "an attempt that was refused wrote: {:?}",
                    attempt.verdict
                );
            }
        }
    }
}

pub(crate) fn request_id(number: u64) -> RequestId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    RequestId::from_bytes(bytes)
}
