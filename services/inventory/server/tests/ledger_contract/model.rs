//! The rules once more, in memory and as plainly as possible: what every ledger must answer.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::command::{BodyHash, Done};
use domain::{
    Action, BookingId, ClaimVersion, Claimant, Op, PersonId, Recorded, Refusal, RequestId, Serial,
    ShardId, SlotId, SlotPair, Verdict,
};
use inventory::ledger::{CancelOp, MoveOp};

use crate::world::Offer;

#[derive(Default)]
pub struct Model {
    pub slots: BTreeMap<SlotId, ModelSlot>,
    pub claims: BTreeMap<PersonId, ModelClaim>,
    requests: BTreeMap<(PersonId, RequestId), (BodyHash, Recorded)>,
}

#[derive(Clone, Debug)]
pub struct ModelSlot {
    pub offer: Offer,
    pub booked: u32,
}

#[derive(Clone, Debug, Default)]
pub struct ModelClaim {
    pub serial: u64,
    pub version: u64,
    pub state: ModelState,
    /// The hold or booking it had last, whatever became of it.
    last: Option<BookingId>,
}

/// A hold is either dead from the next transaction on or outlives the test.
#[derive(Clone, Debug)]
pub enum ModelState {
    Free {
        expired: Option<BookingId>,
    },
    Held {
        booking: BookingId,
        slots: Vec<SlotId>,
        dead: bool,
    },
    Booked {
        booking: BookingId,
        slots: Vec<SlotId>,
    },
}

type Decided = Result<Recorded, Refusal>;

impl Default for ModelState {
    fn default() -> Self {
        Self::Free { expired: None }
    }
}

impl Model {
    pub fn batch(&mut self, shard: ShardId, ops: &[Op]) -> Vec<Verdict> {
        ops.iter()
            .map(|op| {
                let decide = |it: &mut Self| it.decide(shard, op);
                self.answer(&op.claimant, op.request, op.body_hash, decide)
            })
            .collect()
    }

    pub fn move_booking(&mut self, shard: ShardId, op: &MoveOp) -> Verdict {
        let decide = |it: &mut Self| it.decide_move(shard, op);
        self.answer(&op.claimant, op.request, op.body_hash, decide)
    }

    pub fn cancel(&mut self, op: &CancelOp) -> Verdict {
        let decide = |it: &mut Self| it.decide_cancel(op);
        self.answer(&op.claimant, op.request, op.body_hash, decide)
    }

    pub fn sweep(&mut self, shard: ShardId) {
        let people: Vec<PersonId> = self.claims.keys().copied().collect();
        for person in people {
            let ModelState::Held {
                slots, dead: true, ..
            } = &self.claims[&person].state
            else {
                continue;
            };
            if self.slots[&slots[0]].offer.shard == shard.0 {
                self.expire(person);
            }
        }
    }

    pub fn has_dead_holds(&self, shard: ShardId) -> bool {
        self.claims.values().any(|claim| match &claim.state {
            ModelState::Held {
                slots, dead: true, ..
            } => self.slots[&slots[0]].offer.shard == shard.0,
            ModelState::Held { .. } | ModelState::Free { .. } | ModelState::Booked { .. } => false,
        })
    }

    fn answer(
        &mut self,
        who: &Claimant,
        request: RequestId,
        hash: BodyHash,
        decide: impl FnOnce(&mut Self) -> Decided,
    ) -> Verdict {
        if let Some((recorded_hash, recorded)) = self.requests.get(&(who.person, request)) {
            if *recorded_hash == hash {
                return Verdict::Exists(recorded.clone());
            }
            return Verdict::Refused {
                refusal: Refusal::RequestIdReused,
                claim_version: None,
            };
        }
        let before = self.claim(who.person);
        let decided = if who.serial.0 < before.serial {
            Err(Refusal::PermitSuperseded)
        } else {
            if matches!(before.state, ModelState::Held { dead: true, .. }) {
                self.expire(who.person);
            }
            decide(self)
        };
        match decided {
            Ok(recorded) => {
                let claim = self.claims.entry(who.person).or_default();
                claim.serial = who.serial.0;
                claim.version = recorded.claim_version.0;
                self.requests
                    .insert((who.person, request), (hash, recorded.clone()));
                Verdict::Done(recorded)
            }
            Err(refusal) => Verdict::Refused {
                refusal,
                claim_version: Some(ClaimVersion(before.version)),
            },
        }
    }

    pub fn claim(&self, person: PersonId) -> ModelClaim {
        self.claims.get(&person).cloned().unwrap_or_default()
    }

    fn expire(&mut self, person: PersonId) {
        let claim = self.claims.get_mut(&person).expect("a hold has a claim");
        let ModelState::Held { booking, slots, .. } = claim.state.clone() else {
            panic!("only holds expire");
        };
        claim.state = ModelState::Free {
            expired: Some(booking),
        };
        for slot in slots {
            self.count(slot, -1);
        }
    }

    fn count(&mut self, slot: SlotId, change: i32) {
        let slot = self
            .slots
            .get_mut(&slot)
            .expect("a slot that is counted exists");
        slot.booked = slot
            .booked
            .checked_add_signed(change)
            .expect("counts never fall below 0");
        assert!(
            slot.booked <= slot.offer.capacity,
            "the model itself oversold"
        );
    }

    fn decide(&mut self, shard: ShardId, op: &Op) -> Decided {
        let (person, seen) = (op.claimant.person, op.claim_version.0);
        match op.action {
            Action::Book { slots, booking } => {
                self.take(shard, person, seen, slots)?;
                let list: Vec<SlotId> = slots.iter().collect();
                let state = ModelState::Booked {
                    booking,
                    slots: list,
                };
                Ok(self.change(person, state, Done::Booked, booking, slots))
            }
            Action::Hold {
                slots,
                booking,
                ttl,
            } => {
                self.take(shard, person, seen, slots)?;
                let list: Vec<SlotId> = slots.iter().collect();
                let dead = ttl == Duration::ZERO;
                let state = ModelState::Held {
                    booking,
                    slots: list,
                    dead,
                };
                Ok(self.change(person, state, Done::Held, booking, slots))
            }
            Action::Confirm { hold } => {
                let slots = self.held(shard, person, seen, hold)?;
                let list = pair(&slots);
                let state = ModelState::Booked {
                    booking: hold,
                    slots,
                };
                Ok(self.change(person, state, Done::Confirmed, hold, list))
            }
            Action::Release { hold } => {
                let slots = self.held(shard, person, seen, hold)?;
                for slot in &slots {
                    self.count(*slot, -1);
                }
                let state = ModelState::default();
                Ok(self.change(person, state, Done::Released, hold, pair(&slots)))
            }
        }
    }

    fn change(
        &mut self,
        person: PersonId,
        state: ModelState,
        done: Done,
        booking: BookingId,
        slots: SlotPair,
    ) -> Recorded {
        let claim = self.claims.entry(person).or_default();
        claim.state = state;
        claim.last = Some(booking);
        Recorded {
            done,
            booking,
            slots,
            hold_until: None,
            claim_version: ClaimVersion(claim.version + 1),
        }
    }

    fn take(
        &mut self,
        shard: ShardId,
        person: PersonId,
        seen: u64,
        wanted: SlotPair,
    ) -> Result<(), Refusal> {
        let claim = self.claim(person);
        match claim.state {
            ModelState::Booked { .. } => return Err(Refusal::AlreadyBooked),
            ModelState::Held { .. } => return Err(Refusal::AlreadyHeld),
            ModelState::Free { .. } => {}
        }
        if seen != claim.version {
            return Err(Refusal::ClaimVersionStale);
        }
        for slot in wanted.iter() {
            let found = self.open_slot(shard, slot)?;
            if found.booked >= found.offer.capacity {
                return Err(Refusal::SlotFull);
            }
        }
        if wanted.second == Some(wanted.first) {
            return Err(Refusal::SlotsMismatch);
        }
        for slot in wanted.iter() {
            self.count(slot, 1);
        }
        Ok(())
    }

    fn open_slot(&self, shard: ShardId, slot: SlotId) -> Result<&ModelSlot, Refusal> {
        let found = self.slots.get(&slot).ok_or(Refusal::SlotUnknown)?;
        if found.offer.shard != shard.0 {
            return Err(Refusal::WrongShard);
        }
        if !found.offer.open {
            return Err(Refusal::SlotClosed);
        }
        Ok(found)
    }

    fn held(
        &self,
        shard: ShardId,
        person: PersonId,
        seen: u64,
        hold: BookingId,
    ) -> Result<Vec<SlotId>, Refusal> {
        let claim = self.claim(person);
        match claim.state {
            ModelState::Held { booking, slots, .. } if booking == hold => {
                if seen != claim.version {
                    return Err(Refusal::ClaimVersionStale);
                }
                if slots
                    .iter()
                    .any(|slot| self.slots[slot].offer.shard != shard.0)
                {
                    return Err(Refusal::WrongShard);
                }
                Ok(slots)
            }
            ModelState::Booked { booking, .. } if booking == hold => Err(Refusal::AlreadyBooked),
            ModelState::Free { expired } if expired == Some(hold) => Err(Refusal::HoldExpired),
            ModelState::Held { .. } | ModelState::Booked { .. } | ModelState::Free { .. } => {
                Err(Refusal::BookingUnknown)
            }
        }
    }

    fn booked(
        &self,
        who: &Claimant,
        seen: ClaimVersion,
        wanted: BookingId,
    ) -> Result<Vec<SlotId>, Refusal> {
        let claim = self.claim(who.person);
        match claim.state {
            ModelState::Booked { booking, slots } if booking == wanted => {
                if seen.0 != claim.version {
                    return Err(Refusal::ClaimVersionStale);
                }
                Ok(slots)
            }
            ModelState::Held { .. } | ModelState::Booked { .. } | ModelState::Free { .. } => {
                Err(Refusal::BookingUnknown)
            }
        }
    }

    fn decide_move(&mut self, shard: ShardId, op: &MoveOp) -> Decided {
        let mut slots = self.booked(&op.claimant, op.claim_version, op.booking)?;
        let of_dose = |slot: &&mut SlotId| self.slots[&**slot].offer.dose == op.dose;
        let place = slots.iter_mut().find(of_dose).ok_or(Refusal::DoseUnknown)?;
        let from = *place;
        let (old, new) = (&self.slots[&from], self.open_slot(shard, op.to)?);
        if from == op.to
            || old.offer.vaccine != new.offer.vaccine
            || old.offer.dose != new.offer.dose
        {
            return Err(Refusal::SlotsMismatch);
        }
        if new.booked >= new.offer.capacity {
            return Err(Refusal::SlotFull);
        }
        *place = op.to;
        self.count(op.to, 1);
        self.count(from, -1);
        let list = pair(&slots);
        let state = ModelState::Booked {
            booking: op.booking,
            slots,
        };
        Ok(self.change(op.claimant.person, state, Done::Moved, op.booking, list))
    }

    fn decide_cancel(&mut self, op: &CancelOp) -> Decided {
        let slots = self.booked(&op.claimant, op.claim_version, op.booking)?;
        let of_dose = |slot: &SlotId| op.dose.is_none_or(|d| self.slots[slot].offer.dose == d);
        let (given_up, kept): (Vec<SlotId>, Vec<SlotId>) = slots.into_iter().partition(of_dose);
        if given_up.is_empty() {
            return Err(Refusal::DoseUnknown);
        }
        for slot in &given_up {
            self.count(*slot, -1);
        }
        let (state, list) = if kept.is_empty() {
            (ModelState::default(), pair(&given_up))
        } else {
            let list = pair(&kept);
            (
                ModelState::Booked {
                    booking: op.booking,
                    slots: kept,
                },
                list,
            )
        };
        Ok(self.change(op.claimant.person, state, Done::Cancelled, op.booking, list))
    }
}

impl ModelClaim {
    /// The id a client would name: of the booking or hold it has, or remembers to have had.
    pub fn id(&self) -> Option<BookingId> {
        match &self.state {
            ModelState::Free { expired } => expired.or(self.last),
            ModelState::Held { booking, .. } | ModelState::Booked { booking, .. } => Some(*booking),
        }
    }

    /// The permit serial a client would have.
    pub fn permit(&self) -> Serial {
        Serial(self.serial.max(1))
    }
}

fn pair(slots: &[SlotId]) -> SlotPair {
    SlotPair {
        first: slots[0],
        second: slots.get(1).copied(),
    }
}
