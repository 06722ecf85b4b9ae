//! One unit's work on the tables: what is taken, given back, recorded and told.

use std::collections::BTreeSet;

use domain::command::BodyHash;
use domain::{
    BookingId, ClaimVersion, Claimant, Epoch, Recorded, Refusal, RequestId, ShardId, SlotId,
    SlotState, Timestamp, Verdict, booking_code,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{ClaimRow, claim_row, claim_word, recorded, slot_state, stored, superseded};
use crate::ledger::{AppointmentState, ClaimState, SlotCount};

/// Under whose authority something is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Authority {
    /// A batch of the shard's owner.
    Batch {
        shard: ShardId,
        epoch: Epoch,
        seq: u64,
    },
    /// Not a batch: every slot's owner has to be told.
    Side { shard: ShardId, epoch: Epoch },
}

/// One unit's work on the tables.
pub(super) struct Work<'a> {
    pub(super) db: &'a Connection,
    pub(super) now: Timestamp,
    pub(super) authority: Authority,
    /// The slots whose counts the caller is to be told.
    pub(super) touched: BTreeSet<SlotId>,
}

/// What identifies a request.
pub(super) struct Asked<'a> {
    pub(super) claimant: &'a Claimant,
    pub(super) request: RequestId,
    pub(super) body_hash: BodyHash,
    pub(super) method: &'static str,
}

// === impl Authority ===

impl Authority {
    pub(super) const fn shard(self) -> ShardId {
        match self {
            Self::Batch { shard, .. } | Self::Side { shard, .. } => shard,
        }
    }
}

// === impl Work ===

impl<'a> Work<'a> {
    pub(super) const fn new(db: &'a Connection, now: Timestamp, authority: Authority) -> Self {
        Self {
            db,
            now,
            authority,
            touched: BTreeSet::new(),
        }
    }

    /// The recorded answer of a request that came before, or its refusal.
    pub(super) fn replay(&self, asked: &Asked<'_>) -> rusqlite::Result<Option<Verdict>> {
        let found = recorded(self.db, asked.claimant, asked.request)?;
        Ok(found.map(|(hash, recorded)| {
            if hash == asked.body_hash {
                Verdict::Exists(recorded)
            } else {
                Verdict::Refused {
                    refusal: Refusal::RequestIdReused,
                    claim_version: None,
                }
            }
        }))
    }

    /// The claim; if its hold has expired, after giving the slots back.
    pub(super) fn claim(&mut self, who: &Claimant) -> rusqlite::Result<ClaimRow> {
        let claim = claim_row(self.db, who)?.unwrap_or(ClaimRow::FRESH);
        if superseded(who, &claim) || !claim.expired(self.now) {
            return Ok(claim);
        }
        self.expire(who, claim)
    }

    /// Gives back a hold that is over. The claim keeps its version and the dead hold's id.
    pub(super) fn expire(
        &mut self,
        who: &Claimant,
        mut claim: ClaimRow,
    ) -> rusqlite::Result<ClaimRow> {
        if let (Some(hold), Some(slots)) = (claim.booking, claim.slots) {
            for slot in slots.iter() {
                self.give_back(hold, slot)?;
                self.event("EXPIRED", slot, who, hold, claim.version)?;
            }
        }
        claim.state = ClaimState::Free;
        claim.hold_until = None;
        claim.hold_shard = None;
        claim.slots = None;
        self.write_claim(who, &claim)?;
        Ok(claim)
    }

    pub(super) fn slot(&self, slot: SlotId) -> rusqlite::Result<Option<SlotState>> {
        slot_state(self.db, slot)
    }

    /// Counts one more person and writes the appointment. The table's CHECK has the last word.
    pub(super) fn take(
        &mut self,
        who: &Claimant,
        booking: BookingId,
        slot: &SlotState,
        state: AppointmentState,
    ) -> rusqlite::Result<()> {
        self.touched.insert(slot.slot);
        self.db
            .prepare_cached("UPDATE slot SET booked = booked + 1 WHERE slot_id = ?1")?
            .execute([slot.slot.0])?;
        self.db
            .prepare_cached(
                "INSERT INTO booking (booking, slot_id, day, dose, state, code, campaign, person)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (slot_id, booking) DO UPDATE SET state = excluded.state",
            )?
            .execute(params![
                booking.as_bytes(),
                slot.slot.0,
                slot.day,
                slot.dose,
                state.word(),
                booking_code::of(booking),
                who.campaign.as_str(),
                who.person.as_bytes(),
            ])?;
        Ok(())
    }

    /// Counts one person less and ends the appointment.
    pub(super) fn give_back(&mut self, booking: BookingId, slot: SlotId) -> rusqlite::Result<()> {
        self.touched.insert(slot);
        self.db
            .prepare_cached("UPDATE slot SET booked = booked - 1 WHERE slot_id = ?1")?
            .execute([slot.0])?;
        self.db
            .prepare_cached(
                "UPDATE booking SET state = 'CANCELLED' WHERE slot_id = ?2 AND booking = ?1",
            )?
            .execute(params![booking.as_bytes(), slot.0])?;
        Ok(())
    }

    /// Makes a held appointment a booked one.
    pub(super) fn confirm(&self, booking: BookingId, slot: SlotId) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "UPDATE booking SET state = 'BOOKED' WHERE slot_id = ?2 AND booking = ?1",
            )?
            .execute(params![booking.as_bytes(), slot.0])?;
        Ok(())
    }

    pub(super) fn write_claim(&self, who: &Claimant, claim: &ClaimRow) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO claim (campaign, person, serial, state, version, hold_until, hold_shard, booking,
                    first_slot, second_slot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (campaign, person) DO UPDATE SET serial = excluded.serial, state = excluded.state,
                    version = excluded.version, hold_until = excluded.hold_until,
                    hold_shard = excluded.hold_shard, booking = excluded.booking,
                    first_slot = excluded.first_slot, second_slot = excluded.second_slot",
            )?
            .execute(params![
                who.campaign.as_str(),
                who.person.as_bytes(),
                claim.serial.0,
                claim_word(claim.state),
                claim.version.0,
                claim.hold_until.map(Timestamp::as_micros),
                claim.hold_shard.map(|shard| shard.0),
                claim.booking.as_ref().map(BookingId::as_bytes),
                claim.slots.map(|slots| slots.first.0),
                claim.slots.and_then(|slots| slots.second).map(|slot| slot.0),
            ])?;
        Ok(())
    }

    /// Writes the claim, the request row and one event a slot: the end of every op that changed something.
    pub(super) fn record(
        &mut self,
        asked: &Asked<'_>,
        mut claim: ClaimRow,
        recorded: Recorded,
        concerned: &[SlotId],
    ) -> rusqlite::Result<Verdict> {
        claim.serial = claim.serial.max(asked.claimant.serial);
        claim.version = recorded.claim_version;
        self.write_claim(asked.claimant, &claim)?;
        let (shard, epoch, seq) = match self.authority {
            Authority::Batch { shard, epoch, seq } => (shard, epoch, seq),
            Authority::Side { shard, epoch } => (shard, epoch, 0),
        };
        self.db
            .prepare_cached(
                "INSERT INTO request (campaign, person, request_id, method, body_hash, verdict, booking, first_slot,
                    second_slot, hold_until, version_after, shard_id, epoch, batch_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                asked.claimant.campaign.as_str(),
                asked.claimant.person.as_bytes(),
                asked.request.as_bytes(),
                asked.method,
                asked.body_hash.0,
                recorded.done.code(),
                recorded.booking.as_bytes(),
                recorded.slots.first.0,
                recorded.slots.second.map(|slot| slot.0),
                recorded.hold_until.map(Timestamp::as_micros),
                recorded.claim_version.0,
                shard.0,
                epoch.0,
                seq,
            ])?;
        for slot in concerned {
            self.event(
                recorded.done.code(),
                *slot,
                asked.claimant,
                recorded.booking,
                recorded.claim_version,
            )?;
        }
        Ok(Verdict::Done(recorded))
    }

    pub(super) fn event(
        &self,
        kind: &str,
        slot: SlotId,
        who: &Claimant,
        booking: BookingId,
        version: ClaimVersion,
    ) -> rusqlite::Result<()> {
        let owner_shard = match self.authority {
            Authority::Batch { shard, .. } => i64::from(shard.0),
            Authority::Side { .. } => -1,
        };
        self.db
            .prepare_cached(
                "INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
                 SELECT ?1, ?2, shard_id <> ?3, shard_id, slot_id, ?5, ?6, ?7, ?8 FROM slot WHERE slot_id = ?4",
            )?
            .execute(params![
                self.now.as_micros(),
                kind,
                owner_shard,
                slot.0,
                who.campaign.as_str(),
                who.person.as_bytes(),
                booking.as_bytes(),
                version.0,
            ])?;
        Ok(())
    }

    /// The counts of the slots touched, as they are now.
    pub(super) fn counts(&self) -> rusqlite::Result<Vec<SlotCount>> {
        let mut statement = self
            .db
            .prepare_cached("SELECT capacity, booked, open FROM slot WHERE slot_id = ?1")?;
        let mut counts = Vec::with_capacity(self.touched.len());
        for slot in &self.touched {
            let found = statement
                .query_row([stored(*slot)], |row| {
                    Ok(SlotCount {
                        slot: *slot,
                        capacity: row.get(0)?,
                        booked: row.get(1)?,
                        open: row.get(2)?,
                    })
                })
                .optional()?;
            counts.extend(found);
        }
        Ok(counts)
    }
}
