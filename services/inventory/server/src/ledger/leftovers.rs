//! Doses left at the end of a day: who asked to be called, rounds, and the places of a drawn order.
//!
//! Invariant: a round never has more acceptances, nor acceptances and offers together, than doses; its doses are among
//! those that the clinic's stock has set aside, so nothing else promises them.

use std::time::Duration;

use domain::command::BodyHash;
use domain::leftover::{Drawn, Place, PlaceState, RoundKey, Spot, Wish, draw};
use domain::place::DrawTicket;
use domain::room::Bytes32;
use domain::{
    BookingId, CampaignId, ClaimVersion, Claimant, ClinicId, PersonId, RequestId, RoundId, SlotId,
    Timestamp, VaccineId,
};
use serde::{Deserialize, Serialize};

use super::ClinicRefusal;

/// The longest list of candidates of one round: those who asked first, where more would come.
pub const CANDIDATES_MAX: usize = 20_000;
/// Rounds told of one clinic.
pub(super) const ROUNDS_MAX: i64 = 100;
/// Offers told to one person.
pub(super) const OFFERS_MAX: i64 = 20;

/// A change that a person asks for.
#[derive(Clone, Debug)]
pub struct LeftoverOp {
    /// Who asks.
    pub claimant: Claimant,
    /// Their name in the draw.
    pub ticket: DrawTicket,
    /// The end device's id for this intent.
    pub request: RequestId,
    /// What was asked.
    pub body_hash: BodyHash,
    /// What is to change.
    pub change: LeftoverChange,
}

/// What a person can change.
#[derive(Clone, Debug)]
pub enum LeftoverChange {
    /// Be called.
    Join(Wish),
    /// Be called no more.
    Leave,
    /// Accept or decline an offer.
    Answer {
        /// Whose round it is.
        clinic: ClinicId,
        /// The round.
        round: RoundId,
        /// Accept.
        accept: bool,
        /// The id the booking gets where it is accepted.
        booking: BookingId,
    },
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftoverVerdict {
    /// It happened now.
    Done(LeftoverAnswer),
    /// It had happened: the answer recorded then.
    Exists(LeftoverAnswer),
    /// Nothing was changed.
    Refused(ClinicRefusal),
}

/// What is told after a change, and recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftoverAnswer {
    /// The booking, where a dose was accepted.
    pub accepted: Option<Accepted>,
}

/// The booking of an accepted dose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The booking.
    pub booking: BookingId,
    /// Its slot.
    pub slot: SlotId,
    /// The claim's version after the change.
    pub version: ClaimVersion,
}

/// Doses to be offered.
#[derive(Clone, Debug)]
pub struct NewRound {
    /// Whose people are called.
    pub campaign: CampaignId,
    /// The vaccine.
    pub vaccine: VaccineId,
    /// Doses; at least 1.
    pub doses: u32,
    /// Secret until the draw.
    pub seed: Bytes32,
    /// From the commitment to the draw.
    pub notice: Duration,
    /// How long each person has to answer.
    pub answer_within: Duration,
    /// Until when people may come; after the draw.
    pub closes_at: Timestamp,
    /// Days since 1970-01-01 at the clinic.
    pub day: i32,
    /// Now and `closes_at` in minutes after midnight at the clinic.
    pub minutes: (u32, u32),
}

/// How far a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoundState {
    /// The seed is committed to; people can still join.
    Announced,
    /// List, seed and order are fixed.
    Drawn,
    /// Over.
    Closed,
}

/// A round of leftovers as everybody may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The round.
    pub round: RoundId,
    /// Whose doses they are.
    pub clinic: ClinicId,
    /// Whose people are called.
    pub campaign: CampaignId,
    /// The vaccine.
    pub vaccine: VaccineId,
    /// Doses offered.
    pub doses: u32,
    /// Of those, accepted.
    pub accepted: u32,
    /// How far it is.
    pub state: RoundState,
    /// SHA-256 of the seed.
    pub commitment: Bytes32,
    /// The seed; nothing before the draw.
    pub seed: Option<Bytes32>,
    /// Root of the sorted list; nothing before the draw.
    pub list_root: Option<Bytes32>,
    /// Tickets on the list.
    pub candidates: u32,
    /// When the commitment was made.
    pub offered_at: Timestamp,
    /// Who joined before this is on the list.
    pub draws_at: Timestamp,
    /// When it ends.
    pub closes_at: Timestamp,
}

/// One person's place in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The round.
    pub round: Round,
    /// What became of the place.
    pub place: Place,
}

/// What concerns one person.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Called {
    /// When and where they would come; nothing = not to be called.
    pub wish: Option<Wish>,
    /// The offers they have or had, newest first.
    pub offers: Vec<Offer>,
}

/// What passing on came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOn {
    /// Rounds drawn.
    pub drawn: u64,
    /// Offers made.
    pub offered: u64,
    /// Offers that were not answered in time.
    pub expired: u64,
    /// Offers of people who left.
    pub left: u64,
    /// People passed over.
    pub passed: u64,
    /// Rounds ended.
    pub closed: u64,
}

/// A round whose list is to be fixed.
#[derive(Clone, Debug)]
pub(super) struct DueDraw {
    pub(super) key: RoundKey,
    pub(super) seed: Bytes32,
    pub(super) spot: Spot,
}

/// Somebody who asked before the list is fixed.
pub(super) struct Candidate {
    pub(super) person: PersonId,
    pub(super) ticket: DrawTicket,
    pub(super) wish: Wish,
}

/// A fixed list: its root, and people with their tickets in the order drawn.
pub(super) struct FixedList {
    pub(super) root: Bytes32,
    pub(super) order: Vec<(PersonId, DrawTicket)>,
}

// === impl LeftoverOp ===

impl LeftoverOp {
    /// The name of the method, in the ledger and in traces.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match &self.change {
            LeftoverChange::Join(_) => "join_leftovers",
            LeftoverChange::Leave => "leave_leftovers",
            LeftoverChange::Answer { .. } => "answer_leftover_offer",
        }
    }
}

// === impl PassedOn ===

impl std::ops::AddAssign for PassedOn {
    fn add_assign(&mut self, other: Self) {
        self.drawn += other.drawn;
        self.offered += other.offered;
        self.expired += other.expired;
        self.left += other.left;
        self.passed += other.passed;
        self.closed += other.closed;
    }
}

// === impl DueDraw ===

impl DueDraw {
    /// Whom the doses suit, in the order drawn; both backends ask here, so that they cannot differ. `asked`: those who
    /// asked before the draw, who asked first before others.
    pub(super) fn fix(&self, asked: Vec<Candidate>) -> FixedList {
        let suited: std::collections::BTreeMap<DrawTicket, PersonId> = asked
            .into_iter()
            .filter(|one| one.wish.fits(&self.spot))
            .take(CANDIDATES_MAX)
            .map(|one| (one.ticket, one.person))
            .collect();
        let tickets = suited.keys().copied().collect();
        let Drawn { list_root, order } =
            draw(&self.key, &self.seed, tickets).expect("a map has each ticket once");
        let order = order.into_iter().map(|ticket| (suited[&ticket], ticket));
        FixedList {
            root: list_root,
            order: order.collect(),
        }
    }
}

/// The word for a place's state in the ledger.
pub(super) const fn place_word(state: PlaceState) -> &'static str {
    match state {
        PlaceState::Waiting => "WAITING",
        PlaceState::Offered => "OFFERED",
        PlaceState::Accepted => "ACCEPTED",
        PlaceState::Declined => "DECLINED",
        PlaceState::Expired => "EXPIRED",
        PlaceState::Left => "LEFT",
        PlaceState::Passed => "PASSED",
    }
}

/// The state of a word; `None` for any other.
pub(super) fn place_state(word: &str) -> Option<PlaceState> {
    [
        PlaceState::Waiting,
        PlaceState::Offered,
        PlaceState::Accepted,
        PlaceState::Declined,
        PlaceState::Expired,
        PlaceState::Left,
        PlaceState::Passed,
    ]
    .into_iter()
    .find(|state| place_word(*state) == word)
}
