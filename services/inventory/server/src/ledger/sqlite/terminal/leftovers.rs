//! Rounds of leftovers as a clinic opens and ends them.

use domain::command::{BodyHash, Done};
use domain::leftover::commitment;
use domain::{
    BookingId, ClaimVersion, Claimant, PersonId, Recorded, Refusal, RequestId, RoundId, SlotId,
};
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::{Changed, Terminal, refused};
use crate::ledger::leftovers::NewRound;
use crate::ledger::sqlite::leftovers::{end, round_of};
use crate::ledger::sqlite::rows::{claim_row, pair, parsed};
use crate::ledger::sqlite::work::{Asked, Authority, Work};
use crate::ledger::{ClaimState, ClinicAnswer, RoundState, StockRow};

/// An appointment whose person did not come.
struct NoShow {
    booking: BookingId,
    slot: SlotId,
    claimant: Claimant,
}

impl Terminal<'_> {
    pub(super) fn offer_leftovers(&self, round: &NewRound) -> rusqlite::Result<Changed> {
        if round.minutes.1 <= round.minutes.0 {
            let problem = "must be later today at the clinic".to_owned();
            return Ok(refused(Refusal::Invalid, "close_time", problem));
        }
        let draws_at = self.at.plus(round.notice);
        if round.closes_at <= draws_at {
            let problem = "must be after the draw".to_owned();
            return Ok(refused(Refusal::InThePast, "close_time", problem));
        }
        self.stock_row(&round.vaccine)?;
        let doses = u64::from(round.doses);
        let mut free = self.unpromised(round)?;
        if free < doses {
            self.close_begun(round)?;
            free = self.unpromised(round)?;
        }
        if free < doses {
            self.free_no_shows(round, doses - free)?;
            free = self.unpromised(round)?;
        }
        if free < doses {
            let problem = format!("{free} doses are left");
            return Ok(refused(Refusal::StockExceeded, "doses", problem));
        }
        self.db
            .prepare_cached(
                "UPDATE stock SET walk_in = walk_in + ?3, leftover = leftover + ?3
                 WHERE clinic = ?1 AND vaccine = ?2",
            )?
            .execute(params![self.clinic, round.vaccine.as_str(), round.doses])?;
        // Closed, and begun: nobody gets in by any other way than an offer.
        self.db
            .prepare_cached(
                "INSERT INTO slot (shard_id, clinic, starts_at, vaccine, dose, day, capacity, open)
                 SELECT shard_id, clinic, ?2, ?3, 1, ?4, ?5, 0 FROM clinic WHERE clinic = ?1",
            )?
            .execute(params![
                self.clinic,
                self.at.as_micros(),
                round.vaccine.as_str(),
                round.day,
                round.doses,
            ])?;
        let slot = SlotId(self.db.last_insert_rowid().unsigned_abs());
        self.events("SUPPLY", &[slot])?;
        self.db
            .prepare_cached(
                "INSERT INTO leftover_round (clinic, campaign, vaccine, slot_id, doses, state, seed, commitment,
                    from_minute, to_minute, answer_ms, offered_at, draws_at, closes_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'ANNOUNCED', ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                self.clinic,
                round.campaign.as_str(),
                round.vaccine.as_str(),
                slot.0,
                round.doses,
                round.seed.0,
                commitment(&round.seed).0,
                round.minutes.0,
                round.minutes.1,
                i64::try_from(round.answer_within.as_millis()).unwrap_or(i64::MAX),
                self.at.as_micros(),
                draws_at.as_micros(),
                round.closes_at.as_micros(),
            ])?;
        self.told(RoundId(self.db.last_insert_rowid().unsigned_abs()))
    }

    pub(super) fn close_leftovers(&self, round: RoundId) -> rusqlite::Result<Changed> {
        let found = round_of(self.db, round)?.filter(|found| found.clinic == self.op.clinic);
        let Some(found) = found else {
            return Ok(Err(Refusal::LeftoversUnknown.into()));
        };
        if found.state == RoundState::Closed {
            return Ok(Err(Refusal::LeftoversClosed.into()));
        }
        end(self.db, &found, self.at)?;
        self.told(round)
    }

    fn told(&self, round: RoundId) -> rusqlite::Result<Changed> {
        let Some(round) = round_of(self.db, round)? else {
            return Ok(Err(Refusal::LeftoversUnknown.into()));
        };
        Ok(Ok(ClinicAnswer {
            stock: vec![self.stock_row(&round.vaccine)?],
            round: Some(round),
            ..ClinicAnswer::default()
        }))
    }

    /// Doses that nothing is promised of.
    fn unpromised(&self, round: &NewRound) -> rusqlite::Result<u64> {
        let StockRow {
            received,
            wasted,
            walk_in,
            opened,
            ..
        } = self.restock(&round.vaccine)?;
        Ok(received.saturating_sub(wasted + walk_in + opened))
    }

    /// Nobody books a slot that has begun: its places are left over.
    fn close_begun(&self, round: &NewRound) -> rusqlite::Result<()> {
        let begun: Vec<SlotId> = self
            .db
            .prepare_cached(
                "UPDATE slot SET open = 0 WHERE clinic = ?1 AND vaccine = ?2 AND open AND starts_at <= ?3
                 RETURNING slot_id",
            )?
            .query_map(
                params![self.clinic, round.vaccine.as_str(), self.at.as_micros()],
                |row| Ok(SlotId(row.get(0)?)),
            )?
            .collect::<rusqlite::Result<_>>()?;
        self.events("SUPPLY", &begun)
    }

    /// Ends appointments of people who did not come, at most so many, and gives their doses back. Recorded as a
    /// cancellation under an id made of the clinic's own, because every change of a claim is recorded.
    fn free_no_shows(&self, round: &NewRound, most: u64) -> rusqlite::Result<()> {
        let mut left = most;
        for found in self.no_shows(round)? {
            if left == 0 {
                break;
            }
            let Some(mut claim) = claim_row(self.db, &found.claimant)?.filter(|claim| {
                claim.state == ClaimState::Booked && claim.booking == Some(found.booking)
            }) else {
                continue;
            };
            let Some(slot) = self.own(found.slot)? else {
                continue;
            };
            let shard = self
                .db
                .prepare_cached("SELECT shard_id FROM slot WHERE slot_id = ?1")?
                .query_row([slot.slot.0], |row| row.get(0))?;
            let authority = Authority::Side {
                shard: domain::ShardId(shard),
                epoch: domain::Epoch(0),
            };
            let mut work = Work::new(self.db, self.at, authority);
            work.give_back(found.booking, found.slot)?;
            let slots = claim.slots.into_iter().flat_map(domain::SlotPair::iter);
            let kept: Vec<SlotId> = slots.filter(|slot| *slot != found.slot).collect();
            if kept.is_empty() {
                claim.state = ClaimState::Free;
                claim.booking = None;
                claim.slots = None;
            } else {
                claim.slots = Some(pair(&kept));
            }
            let gone = [found.slot];
            let told: &[SlotId] = if kept.is_empty() { &gone } else { &kept };
            let recorded = Recorded {
                done: Done::Cancelled,
                booking: found.booking,
                slots: pair(told),
                hold_until: None,
                claim_version: ClaimVersion(claim.version.0 + 1),
            };
            let asked = Asked {
                claimant: &found.claimant,
                request: self.freeing(&found),
                body_hash: BodyHash(self.op.body_hash.0),
                method: "offer_leftovers",
            };
            work.record(&asked, claim, recorded, &[found.slot])?;
            left -= 1;
        }
        Ok(())
    }

    fn no_shows(&self, round: &NewRound) -> rusqlite::Result<Vec<NoShow>> {
        self.db
            .prepare_cached(
                "SELECT b.booking, b.slot_id, b.campaign, b.person
                 FROM slot s JOIN booking b ON b.slot_id = s.slot_id AND b.state = 'BOOKED'
                 JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking AND v.state = 'NO_SHOW'
                 WHERE s.clinic = ?1 AND s.vaccine = ?2 AND s.starts_at <= ?3
                 ORDER BY s.starts_at, s.slot_id, b.booking",
            )?
            .query_map(
                params![self.clinic, round.vaccine.as_str(), self.at.as_micros()],
                |row| {
                    Ok(NoShow {
                        booking: BookingId::from_bytes(row.get(0)?),
                        slot: SlotId(row.get(1)?),
                        claimant: Claimant {
                            campaign: parsed(row, 2)?,
                            person: PersonId::from_bytes(row.get(3)?),
                            // The claim keeps the one it has.
                            serial: domain::Serial(0),
                        },
                    })
                },
            )?
            .collect()
    }

    fn freeing(&self, found: &NoShow) -> RequestId {
        let digest = Sha256::new()
            .chain_update(self.op.request.as_bytes())
            .chain_update(found.booking.as_bytes())
            .chain_update(found.slot.0.to_be_bytes())
            .finalize();
        let mut id = [0u8; 16];
        id.copy_from_slice(&digest[..16]);
        RequestId::from_bytes(id)
    }
}
