//! A ledger in memory that follows the rules of the real ones, op by op.
//!
//! Invariant: whatever is called is atomic, and a statement of an epoch or number not in force writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use domain::command::{BodyHash, Done};
use domain::{
    Action, BookingId, CampaignId, ClaimVersion, Epoch, Op, PersonId, Recorded, Refusal, RequestId,
    Serial, ShardId, SlotId, SlotPair, SlotState, Timestamp, Verdict,
};
use inventory_core::{BatchFailure, RequestKey, SlotCount};

pub(crate) type PersonKey = (CampaignId, PersonId);

#[derive(Clone, Debug, Default)]
pub(crate) struct ShardRow {
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) prev_epoch: Epoch,
    pub(crate) prev_seq: u64,
    nonce: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClaimState {
    #[default]
    Free,
    Held,
    Booked,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    pub(crate) serial: Serial,
    pub(crate) state: ClaimState,
    pub(crate) version: ClaimVersion,
    pub(crate) hold_until: Timestamp,
    /// Kept after a hold expired, cleared by everything else that frees the claim.
    pub(crate) booking: Option<BookingId>,
    pub(crate) slots: Vec<SlotId>,
}

/// Who wrote a request row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    /// 0 for moves and cancellations.
    pub(crate) seq: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct RequestRow {
    pub(crate) hash: BodyHash,
    pub(crate) answer: Recorded,
    pub(crate) written: Written,
}

/// A move (`to`) or a cancellation of one person's booking; of both doses where it has two.
#[derive(Clone, Debug)]
pub(crate) struct SideOp {
    pub(crate) person: PersonKey,
    pub(crate) request: RequestId,
    pub(crate) hash: BodyHash,
    pub(crate) claim_version: ClaimVersion,
    pub(crate) booking: BookingId,
    pub(crate) to: Option<SlotId>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) now: Timestamp,
    pub(crate) shards: BTreeMap<ShardId, ShardRow>,
    pub(crate) slots: BTreeMap<SlotId, SlotState>,
    pub(crate) claims: BTreeMap<PersonKey, Claim>,
    pub(crate) requests: BTreeMap<RequestKey, RequestRow>,
    /// Slots changed by others than their owner's batches, in their order.
    pub(crate) outbox: Vec<SlotId>,
}

pub(crate) type BatchResult = Result<(Vec<Verdict>, Vec<SlotCount>), BatchFailure>;

impl Ledger {
    pub(crate) fn seize(
        &mut self,
        shard: ShardId,
        expect: Epoch,
        floor: Epoch,
        nonce: u64,
    ) -> Result<ShardRow, Epoch> {
        let row = self.shards.entry(shard).or_default();
        if row.nonce == nonce && nonce != 0 {
            return Ok(row.clone());
        }
        if row.epoch != expect {
            return Err(row.epoch);
        }
        *row = ShardRow {
            epoch: Epoch(row.epoch.max(floor).0 + 1),
            seq: 0,
            prev_epoch: row.epoch,
            prev_seq: row.seq,
            nonce,
        };
        Ok(row.clone())
    }

    pub(crate) fn batch(
        &mut self,
        shard: ShardId,
        epoch: Epoch,
        seq: u64,
        ops: &[Op],
    ) -> BatchResult {
        self.fence(shard, epoch, seq)?;
        let persons: BTreeSet<_> = ops.iter().map(|op| op.claimant.person).collect();
        assert_eq!(persons.len(), ops.len(), "one op per person per batch");
        let written = Written { shard, epoch, seq };
        let mut touched = BTreeSet::new();
        let mut verdicts = Vec::new();
        for op in ops {
            let wants = op.action.wants();
            touched.extend(wants.into_iter().flat_map(SlotPair::iter));
            verdicts.push(self.decide(op, written, &mut touched));
        }
        Ok((verdicts, self.counts(touched)))
    }

    pub(crate) fn sweep(
        &mut self,
        shard: ShardId,
        epoch: Epoch,
        seq: u64,
        limit: u32,
    ) -> Result<Vec<SlotCount>, BatchFailure> {
        self.fence(shard, epoch, seq)?;
        let dead: Vec<PersonKey> = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.state == ClaimState::Held && claim.hold_until <= self.now)
            .filter(|(_, claim)| claim.slots.iter().any(|it| self.slots[it].shard == shard))
            .map(|(person, _)| person.clone())
            .take(limit as usize)
            .collect();
        let mut touched = BTreeSet::new();
        for person in dead {
            self.expire(&person, &mut touched);
        }
        Ok(self.counts(touched))
    }

    pub(crate) fn has_expired_holds(&self) -> bool {
        let dead = |it: &Claim| it.state == ClaimState::Held && it.hold_until <= self.now;
        self.claims.values().any(dead)
    }

    pub(crate) fn read(&self, slots: &[SlotId]) -> Vec<SlotState> {
        let found = slots.iter().filter_map(|slot| self.slots.get(slot));
        found.cloned().collect()
    }

    pub(crate) fn recorded(&self, keys: &[RequestKey]) -> Vec<Option<(BodyHash, Recorded)>> {
        let rows = keys.iter().map(|key| self.requests.get(key));
        rows.map(|row| row.map(|row| (row.hash, row.answer.clone())))
            .collect()
    }

    /// A move under the epoch of the target's shard, or a cancellation. `Err`: fenced, nothing written.
    pub(crate) fn side(
        &mut self,
        op: &SideOp,
        under: Option<(ShardId, Epoch)>,
    ) -> Result<(Verdict, Vec<SlotCount>), Epoch> {
        if let Some((shard, epoch)) = under {
            let found = self.shards.get(&shard).map_or(Epoch(0), |row| row.epoch);
            if found != epoch {
                return Err(found);
            }
        }
        let mut touched = BTreeSet::new();
        let verdict = self.decide_side(op, under, &mut touched);
        self.outbox.extend(touched.iter().copied());
        Ok((verdict, self.counts(touched)))
    }

    fn fence(&mut self, shard: ShardId, epoch: Epoch, seq: u64) -> Result<(), BatchFailure> {
        let row = self.shards.entry(shard).or_default();
        if row.epoch != epoch || row.seq + 1 != seq {
            return Err(BatchFailure::Fenced { found: row.epoch });
        }
        row.seq = seq;
        Ok(())
    }

    fn counts(&self, slots: BTreeSet<SlotId>) -> Vec<SlotCount> {
        let known = slots.iter().filter_map(|slot| self.slots.get(slot));
        known
            .map(|state| SlotCount {
                slot: state.slot,
                capacity: state.capacity,
                booked: state.booked,
                open: state.open,
            })
            .collect()
    }

    fn give_back(&mut self, slots: &[SlotId], touched: &mut BTreeSet<SlotId>) {
        for slot in slots {
            let state = self.slots.get_mut(slot).expect("a claim's slot exists");
            state.booked -= 1;
            touched.insert(*slot);
        }
    }

    fn expire(&mut self, person: &PersonKey, touched: &mut BTreeSet<SlotId>) {
        let now = self.now;
        let Some(claim) = self.claims.get_mut(person) else {
            return;
        };
        if claim.state == ClaimState::Held && claim.hold_until <= now {
            claim.state = ClaimState::Free;
            let slots = std::mem::take(&mut claim.slots);
            self.outbox.extend(slots.iter().copied());
            self.give_back(&slots, touched);
        }
    }

    fn decide(&mut self, op: &Op, written: Written, touched: &mut BTreeSet<SlotId>) -> Verdict {
        let person = (op.claimant.campaign.clone(), op.claimant.person);
        let key = (person.0.clone(), person.1, op.request);
        if let Some(row) = self.requests.get(&key) {
            return repeated(row, op.body_hash);
        }
        let serial = self.claims.get(&person).map_or(Serial(0), |it| it.serial);
        if op.claimant.serial < serial {
            return self.refuse(&person, Refusal::PermitSuperseded);
        }
        self.expire(&person, touched);
        let claim = self.claims.get(&person).cloned().unwrap_or_default();
        let changed = match &op.action {
            Action::Book { slots, booking } => self
                .may_take(op, &claim, *slots, written.shard)
                .map(|()| (Done::Booked, *booking, *slots, None)),
            Action::Hold {
                slots,
                booking,
                ttl,
            } => self
                .may_take(op, &claim, *slots, written.shard)
                .map(|()| (Done::Held, *booking, *slots, Some(self.now.plus(*ttl)))),
            Action::Confirm { hold } => self
                .may_end(op, &claim, *hold, written.shard)
                .map(|slots| (Done::Confirmed, *hold, slots, None)),
            Action::Release { hold } => self
                .may_end(op, &claim, *hold, written.shard)
                .map(|slots| (Done::Released, *hold, slots, None)),
        };
        match changed {
            Err(refusal) => self.refuse(&person, refusal),
            Ok((done, booking, slots, hold_until)) => {
                let answer = Recorded {
                    done,
                    booking,
                    slots,
                    hold_until,
                    claim_version: ClaimVersion(claim.version.0 + 1),
                };
                touched.extend(slots.iter());
                self.write(op, &person, &answer, touched);
                self.record(key, op.body_hash, answer, written)
            }
        }
    }

    fn write(
        &mut self,
        op: &Op,
        person: &PersonKey,
        answer: &Recorded,
        touched: &mut BTreeSet<SlotId>,
    ) {
        let slots: Vec<SlotId> = answer.slots.iter().collect();
        match answer.done {
            Done::Booked | Done::Held => {
                for slot in &slots {
                    let state = self.slots.get_mut(slot).expect("checked before");
                    state.booked += 1;
                }
            }
            Done::Released => self.give_back(&slots, touched),
            Done::Confirmed | Done::Moved | Done::Cancelled => {}
        }
        let claim = self.claims.entry(person.clone()).or_default();
        claim.serial = op.claimant.serial;
        claim.version = answer.claim_version;
        (claim.state, claim.booking, claim.slots) = match answer.done {
            Done::Booked | Done::Confirmed | Done::Moved => {
                (ClaimState::Booked, Some(answer.booking), slots)
            }
            Done::Held => (ClaimState::Held, Some(answer.booking), slots),
            Done::Released | Done::Cancelled => (ClaimState::Free, None, Vec::new()),
        };
        claim.hold_until = answer.hold_until.unwrap_or_default();
    }

    fn record(
        &mut self,
        key: RequestKey,
        hash: BodyHash,
        answer: Recorded,
        written: Written,
    ) -> Verdict {
        let row = RequestRow {
            hash,
            answer: answer.clone(),
            written,
        };
        self.requests.insert(key, row);
        Verdict::Done(answer)
    }

    fn refuse(&self, person: &PersonKey, refusal: Refusal) -> Verdict {
        let version = self.claims.get(person).map(|claim| claim.version);
        Verdict::Refused {
            refusal,
            claim_version: Some(version.unwrap_or_default()),
        }
    }

    fn may_take(
        &self,
        op: &Op,
        claim: &Claim,
        slots: SlotPair,
        shard: ShardId,
    ) -> Result<(), Refusal> {
        match claim.state {
            ClaimState::Booked => return Err(Refusal::AlreadyBooked),
            ClaimState::Held => return Err(Refusal::AlreadyHeld),
            ClaimState::Free => {}
        }
        if claim.version != op.claim_version {
            return Err(Refusal::ClaimVersionStale);
        }
        slots.iter().try_for_each(|slot| {
            let state = self.slots.get(&slot).ok_or(Refusal::SlotUnknown)?;
            may_enter(state, shard)
        })
    }

    fn may_end(
        &self,
        op: &Op,
        claim: &Claim,
        hold: BookingId,
        shard: ShardId,
    ) -> Result<SlotPair, Refusal> {
        let same = claim.booking == Some(hold);
        match claim.state {
            ClaimState::Booked if same => Err(Refusal::AlreadyBooked),
            ClaimState::Free if same => Err(Refusal::HoldExpired),
            ClaimState::Held if same => {
                if claim.version != op.claim_version {
                    return Err(Refusal::ClaimVersionStale);
                }
                if claim.slots.iter().any(|it| self.slots[it].shard != shard) {
                    return Err(Refusal::WrongShard);
                }
                Ok(pair(&claim.slots))
            }
            ClaimState::Booked | ClaimState::Free | ClaimState::Held => {
                Err(Refusal::BookingUnknown)
            }
        }
    }

    fn decide_side(
        &mut self,
        op: &SideOp,
        under: Option<(ShardId, Epoch)>,
        touched: &mut BTreeSet<SlotId>,
    ) -> Verdict {
        let key = (op.person.0.clone(), op.person.1, op.request);
        if let Some(row) = self.requests.get(&key) {
            return repeated(row, op.hash);
        }
        let claim = self.claims.get(&op.person).cloned().unwrap_or_default();
        if claim.state != ClaimState::Booked || claim.booking != Some(op.booking) {
            return self.refuse(&op.person, Refusal::BookingUnknown);
        }
        if claim.version != op.claim_version {
            return self.refuse(&op.person, Refusal::ClaimVersionStale);
        }
        let (done, slots) = match op.to {
            None => (Done::Cancelled, claim.slots.clone()),
            Some(to) => {
                if let Err(refusal) = self.may_move(&claim, to, under) {
                    return self.refuse(&op.person, refusal);
                }
                (Done::Moved, vec![to])
            }
        };
        if done == Done::Moved {
            let target = self.slots.get_mut(&slots[0]).expect("checked before");
            target.booked += 1;
            touched.insert(slots[0]);
        }
        self.give_back(&claim.slots, touched);
        let answer = Recorded {
            done,
            booking: op.booking,
            slots: pair(&slots),
            hold_until: None,
            claim_version: ClaimVersion(claim.version.0 + 1),
        };
        let row = self.claims.entry(op.person.clone()).or_default();
        row.version = answer.claim_version;
        if done == Done::Moved {
            row.slots = slots;
        } else {
            (row.state, row.booking) = (ClaimState::Free, None);
            row.slots.clear();
        }
        let (shard, epoch) = under.unwrap_or_default();
        let seq = 0;
        self.record(key, op.hash, answer, Written { shard, epoch, seq })
    }

    fn may_move(
        &self,
        claim: &Claim,
        to: SlotId,
        under: Option<(ShardId, Epoch)>,
    ) -> Result<(), Refusal> {
        let state = self.slots.get(&to).ok_or(Refusal::SlotUnknown)?;
        let [old] = claim.slots[..] else {
            return Err(Refusal::DoseUnknown);
        };
        if under.is_none_or(|(shard, _)| shard != state.shard) {
            return Err(Refusal::WrongShard);
        }
        let old = &self.slots[&old];
        if old.slot == to || old.dose != state.dose || old.vaccine != state.vaccine {
            return Err(Refusal::SlotsMismatch);
        }
        may_enter(state, state.shard)
    }
}

fn may_enter(state: &SlotState, shard: ShardId) -> Result<(), Refusal> {
    if state.shard != shard {
        Err(Refusal::WrongShard)
    } else if !state.open {
        Err(Refusal::SlotClosed)
    } else if state.booked >= state.capacity {
        Err(Refusal::SlotFull)
    } else {
        Ok(())
    }
}

fn repeated(row: &RequestRow, hash: BodyHash) -> Verdict {
    if row.hash == hash {
        Verdict::Exists(row.answer.clone())
    } else {
        Verdict::Refused {
            refusal: Refusal::RequestIdReused,
            claim_version: None,
        }
    }
}

fn pair(slots: &[SlotId]) -> SlotPair {
    SlotPair {
        first: slots[0],
        second: slots.get(1).copied(),
    }
}
