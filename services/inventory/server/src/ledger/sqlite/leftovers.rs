//! Leftovers: what people change, by the same rules as in PostgreSQL.

mod reads;
mod rounds;

use domain::command::Done;
use domain::leftover::PlaceState;
use domain::{
    BookingId, ClaimVersion, ClinicId, Epoch, PersonId, Recorded, Refusal, RoundId, SlotPair,
    SlotState, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};

use self::reads::{PLACE_COLUMNS, from_json, json, read_place};
use super::rows::{SLOT_COLUMNS, claim_row, read_slot, recorded, superseded};
use super::unavailable;
use super::work::{Asked, Authority, Work};
use super::writing::Outcome;
use crate::ledger::leftovers::place_word;
use crate::ledger::{
    Accepted, AppointmentState, ClaimState, ClinicRefusal, Fault, LeftoverAnswer, LeftoverChange,
    LeftoverOp, LeftoverVerdict, Round,
};

pub(super) use reads::{called, places, round_of, rounds};
pub(super) use rounds::{due, end, pass_on};

/// A change that went through, or why not.
type Changed = Result<LeftoverAnswer, ClinicRefusal>;

struct Asking<'a> {
    db: &'a Connection,
    op: &'a LeftoverOp,
    at: Timestamp,
}

pub(super) fn change(
    db: &Connection,
    at: Timestamp,
    op: &LeftoverOp,
) -> Result<Outcome<LeftoverVerdict>, Fault> {
    Asking { db, op, at }.run().map_err(unavailable)
}

impl Asking<'_> {
    fn run(&self) -> rusqlite::Result<Outcome<LeftoverVerdict>> {
        let refuse = |why| Ok(Outcome::undo(LeftoverVerdict::Refused(why)));
        let who = &self.op.claimant;
        if let Some((hash, answer)) = self.recorded()? {
            if hash != self.op.body_hash.0 {
                return refuse(Refusal::RequestIdReused.into());
            }
            return Ok(Outcome::undo(LeftoverVerdict::Exists(answer)));
        }
        if recorded(self.db, who, self.op.request)?.is_some() {
            return refuse(Refusal::RequestIdReused.into());
        }
        if claim_row(self.db, who)?.is_some_and(|claim| superseded(who, &claim)) {
            return refuse(Refusal::PermitSuperseded.into());
        }
        let changed = match &self.op.change {
            LeftoverChange::Join(wish) => self.join(&json(wish)?)?,
            LeftoverChange::Leave => self.leave()?,
            LeftoverChange::Answer {
                clinic,
                round,
                accept,
                booking,
            } => match self.standing(clinic, *round)? {
                Err(why) => Err(why.into()),
                Ok(round) if *accept => self.accept(&round, *booking)?,
                Ok(round) => self.decline(&round)?,
            },
        };
        match changed {
            Err(why) => refuse(why),
            Ok(answer) => {
                self.record(&answer)?;
                Ok(Outcome::keep(LeftoverVerdict::Done(answer)))
            }
        }
    }

    fn recorded(&self) -> rusqlite::Result<Option<([u8; 16], LeftoverAnswer)>> {
        let who = &self.op.claimant;
        self.db
            .prepare_cached(
                "SELECT body_hash, answer FROM leftover_request
                 WHERE campaign = ?1 AND person = ?2 AND request_id = ?3",
            )?
            .query_row(
                params![
                    who.campaign.as_str(),
                    who.person.as_bytes(),
                    self.op.request.as_bytes()
                ],
                |row| Ok((row.get(0)?, from_json(row, 1)?)),
            )
            .optional()
    }

    fn record(&self, answer: &LeftoverAnswer) -> rusqlite::Result<()> {
        let who = &self.op.claimant;
        self.db
            .prepare_cached(
                "INSERT INTO leftover_request (campaign, person, request_id, method, body_hash, answer, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                who.campaign.as_str(),
                who.person.as_bytes(),
                self.op.request.as_bytes(),
                self.op.method(),
                self.op.body_hash.0,
                json(answer)?,
                self.at.as_micros(),
            ])?;
        Ok(())
    }

    fn join(&self, wish: &str) -> rusqlite::Result<Changed> {
        let who = &self.op.claimant;
        self.db
            .prepare_cached(
                "INSERT INTO leftover_wish (campaign, person, ticket, wish, joined_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (campaign, person) DO UPDATE SET wish = excluded.wish",
            )?
            .execute(params![
                who.campaign.as_str(),
                who.person.as_bytes(),
                self.op.ticket.0,
                wish,
                self.at.as_micros(),
            ])?;
        Ok(Ok(LeftoverAnswer::default()))
    }

    fn leave(&self) -> rusqlite::Result<Changed> {
        if self.forget()? == 0 {
            return Ok(Err(Refusal::LeftoversNotJoined.into()));
        }
        Ok(Ok(LeftoverAnswer::default()))
    }

    fn forget(&self) -> rusqlite::Result<usize> {
        let who = &self.op.claimant;
        self.db
            .prepare_cached("DELETE FROM leftover_wish WHERE campaign = ?1 AND person = ?2")?
            .execute(params![who.campaign.as_str(), who.person.as_bytes()])
    }

    /// The round, if the person has an offer of it that can be answered now.
    fn standing(
        &self,
        clinic: &ClinicId,
        round: RoundId,
    ) -> rusqlite::Result<Result<Round, Refusal>> {
        let who = &self.op.claimant;
        let found = round_of(self.db, round)?
            .filter(|found| found.clinic == *clinic && found.campaign == who.campaign);
        let Some(found) = found else {
            return Ok(Err(Refusal::LeftoversUnknown));
        };
        let place = self
            .db
            .prepare_cached(&format!(
                "SELECT {PLACE_COLUMNS} FROM leftover_place p
                 WHERE p.campaign = ?1 AND p.person = ?2 AND p.round = ?3 AND p.offered_at IS NOT NULL"
            ))?
            .query_row(
                params![who.campaign.as_str(), who.person.as_bytes(), round.0],
                |row| read_place(row, 0),
            )
            .optional()?;
        let Some(place) = place else {
            return Ok(Err(Refusal::OfferUnknown));
        };
        if matches!(place.state, PlaceState::Accepted | PlaceState::Declined) {
            return Ok(Err(Refusal::OfferAnswered));
        }
        if place.state != PlaceState::Offered || place.deadline <= Some(self.at) {
            return Ok(Err(Refusal::OfferExpired));
        }
        if !wishes(self.db, &found, who.person)? {
            return Ok(Err(Refusal::LeftoversNotJoined));
        }
        Ok(Ok(found))
    }

    fn decline(&self, round: &Round) -> rusqlite::Result<Changed> {
        self.answered(round, PlaceState::Declined)?;
        Ok(Ok(LeftoverAnswer::default()))
    }

    fn answered(&self, round: &Round, state: PlaceState) -> rusqlite::Result<()> {
        let who = &self.op.claimant;
        self.db
            .prepare_cached(
                "UPDATE leftover_place SET state = ?4, ended_at = ?5
                 WHERE campaign = ?1 AND person = ?2 AND round = ?3",
            )?
            .execute(params![
                who.campaign.as_str(),
                who.person.as_bytes(),
                round.round.0,
                place_word(state),
                self.at.as_micros(),
            ])?;
        Ok(())
    }

    fn accept(&self, round: &Round, booking: BookingId) -> rusqlite::Result<Changed> {
        let who = &self.op.claimant;
        let slot = slot_of(self.db, round.round)?;
        let authority = Authority::Side {
            shard: slot.shard,
            epoch: Epoch(0),
        };
        let mut work = Work::new(self.db, self.at, authority);
        let mut claim = work.claim(who)?;
        let why = match claim.state {
            ClaimState::Booked => Some(Refusal::AlreadyBooked),
            ClaimState::Held => Some(Refusal::AlreadyHeld),
            ClaimState::Free | ClaimState::Surrendered if round.accepted >= round.doses => {
                Some(Refusal::LeftoversGone)
            }
            ClaimState::Free | ClaimState::Surrendered => None,
        };
        if let Some(why) = why {
            return Ok(Err(why.into()));
        }
        self.answered(round, PlaceState::Accepted)?;
        self.db
            .prepare_cached("UPDATE leftover_round SET accepted = accepted + 1 WHERE round = ?1")?
            .execute([round.round.0])?;
        self.forget()?;
        work.take(who, booking, &slot, AppointmentState::Booked)?;
        self.db
            .prepare_cached(
                "UPDATE stock SET walk_in = walk_in - 1, leftover = leftover - 1
                 WHERE clinic = ?1 AND vaccine = ?2",
            )?
            .execute(params![round.clinic.as_str(), round.vaccine.as_str()])?;
        // Doses that spoiled since they were offered.
        if short(self.db, round)? {
            return Ok(Err(Refusal::LeftoversGone.into()));
        }
        claim.state = ClaimState::Booked;
        claim.booking = Some(booking);
        claim.slots = Some(SlotPair::one(slot.slot));
        let recorded = Recorded {
            done: Done::Booked,
            booking,
            slots: SlotPair::one(slot.slot),
            hold_until: None,
            claim_version: ClaimVersion(claim.version.0 + 1),
        };
        let version = recorded.claim_version;
        let asked = Asked {
            claimant: who,
            request: self.op.request,
            body_hash: self.op.body_hash,
            method: self.op.method(),
        };
        work.record(&asked, claim, recorded, &[slot.slot])?;
        Ok(Ok(LeftoverAnswer {
            accepted: Some(Accepted {
                booking,
                slot: slot.slot,
                version,
            }),
        }))
    }
}

/// Counts what is open anew; whether there is less stock than is promised.
fn short(db: &Connection, round: &Round) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "UPDATE stock SET opened = (
            SELECT coalesce(sum(CASE WHEN open THEN capacity ELSE booked END), 0)
            FROM slot WHERE slot.clinic = ?1 AND slot.vaccine = ?2)
         WHERE clinic = ?1 AND vaccine = ?2
         RETURNING opened + walk_in > received - wasted",
    )?
    .query_row(
        params![round.clinic.as_str(), round.vaccine.as_str()],
        |row| row.get(0),
    )
}

fn slot_of(db: &Connection, round: RoundId) -> rusqlite::Result<SlotState> {
    db.prepare_cached(&format!(
        "SELECT {SLOT_COLUMNS} FROM slot WHERE slot_id = (SELECT slot_id FROM leftover_round WHERE round = ?1)"
    ))?
    .query_row([round.0], read_slot)
}

/// Whether the person's wish from before the draw still stands.
fn wishes(db: &Connection, round: &Round, person: PersonId) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM leftover_wish WHERE campaign = ?1 AND person = ?2 AND joined_at < ?3",
    )?
    .exists(params![
        round.campaign.as_str(),
        person.as_bytes(),
        round.draws_at.as_micros()
    ])
}
