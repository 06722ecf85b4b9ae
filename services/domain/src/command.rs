//! What a person may ask of a shard, and what the ledger says to it.

use std::sync::Arc;
use std::time::Duration;

use crate::campaign::BookingRules;
use crate::ids::{
    BookingId, CampaignId, ClaimVersion, ClinicId, PersonId, RequestId, Serial, ShardId, SlotId,
    VaccineId,
};
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// Who asks, as identity's permit says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant {
    /// The campaign the permit is for.
    pub campaign: CampaignId,
    /// The person; prints as `[redacted]`.
    pub person: PersonId,
    /// The permit's serial; older than the claim's means another region took over.
    pub serial: Serial,
}

/// One slot, or the first and the second dose at one clinic: all or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotPair {
    /// The only slot, or the one for the first dose.
    pub first: SlotId,
    /// The slot for the second dose.
    pub second: Option<SlotId>,
}

impl SlotPair {
    /// A single slot.
    #[must_use]
    pub const fn one(first: SlotId) -> Self {
        Self {
            first,
            second: None,
        }
    }

    /// First and second dose.
    #[must_use]
    pub const fn two(first: SlotId, second: SlotId) -> Self {
        Self {
            first,
            second: Some(second),
        }
    }

    /// The slots, the first dose's first.
    pub fn iter(self) -> impl Iterator<Item = SlotId> {
        std::iter::once(self.first).chain(self.second)
    }
}

/// What is to happen to the person's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the slots for good at once.
    Book {
        /// The slots wanted.
        slots: SlotPair,
        /// The id the booking gets when it is made.
        booking: BookingId,
    },
    /// Take the slots until a deadline.
    Hold {
        /// The slots wanted.
        slots: SlotPair,
        /// The id the hold gets when it is made.
        booking: BookingId,
        /// How long it lives, counted by the ledger's clock from the commit on.
        ttl: Duration,
    },
    /// Make a live hold permanent.
    Confirm {
        /// The hold.
        hold: BookingId,
    },
    /// Give a live hold back.
    Release {
        /// The hold.
        hold: BookingId,
    },
}

impl Action {
    /// The verb as it stands in request rows, spans and metrics.
    #[must_use]
    pub const fn op(&self) -> &'static str {
        match self {
            Self::Book { .. } => "book",
            Self::Hold { .. } => "hold_slots",
            Self::Confirm { .. } => "confirm_hold",
            Self::Release { .. } => "release_hold",
        }
    }

    /// The slots this action wants to take; none for those that take nothing.
    #[must_use]
    pub const fn wants(&self) -> Option<SlotPair> {
        match self {
            Self::Book { slots, .. } | Self::Hold { slots, .. } => Some(*slots),
            Self::Confirm { .. } | Self::Release { .. } => None,
        }
    }
}

/// SHA-256 over what a request asks for (not over its permit, which may be renewed between retries), first half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyHash(pub [u8; 16]);

/// One change of one person's claim, ready for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Who asks.
    pub claimant: Claimant,
    /// The end device's id for this intent.
    pub request: RequestId,
    /// What was asked, so that another body under the same id is refused.
    pub body_hash: BodyHash,
    /// The version the client saw last; the server never fills it in.
    pub claim_version: ClaimVersion,
    /// What is to happen.
    pub action: Action,
    /// What the campaign allows; checked against the slots once they are known.
    pub rules: Arc<BookingRules>,
}

/// How a recorded change ended, in `request.verdict` and on the wire between services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Slots taken for good.
    Booked,
    /// Slots taken until `hold_until`.
    Held,
    /// A hold became a booking.
    Confirmed,
    /// A hold was given back.
    Released,
    /// One appointment of a booking changed its slot.
    Moved,
    /// A booking, or one dose of it, was given up.
    Cancelled,
}

impl Done {
    /// All of them; the position is the number in the ledger.
    pub const ALL: [Self; 6] = [
        Self::Booked,
        Self::Held,
        Self::Confirmed,
        Self::Released,
        Self::Moved,
        Self::Cancelled,
    ];

    /// The name in `request.verdict`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Booked => "BOOKED",
            Self::Held => "HELD",
            Self::Confirmed => "CONFIRMED",
            Self::Released => "RELEASED",
            Self::Moved => "MOVED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The verdict of a name; `None` for an unknown one.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|done| done.code() == code)
    }
}

/// What the ledger recorded under a request id: the answer, now and at every repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How it ended.
    pub done: Done,
    /// The hold or booking concerned.
    pub booking: BookingId,
    /// The slots the claim has after this change (those it had before, where it has none any more).
    pub slots: SlotPair,
    /// When the hold dies, for `Held`.
    pub hold_until: Option<Timestamp>,
    /// The claim's version after the change.
    pub claim_version: ClaimVersion,
}

/// What the ledger says to one op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It happened in this transaction.
    Done(Recorded),
    /// It had happened before, under the same request id (`EXISTS`).
    Exists(Recorded),
    /// It did not happen and wrote nothing.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The claim's current version, where a claim was looked at.
        claim_version: Option<ClaimVersion>,
    },
}

/// A slot as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The slot.
    pub slot: SlotId,
    /// The shard that decides it.
    pub shard: ShardId,
    /// The clinic that offers it.
    pub clinic: ClinicId,
    /// The vaccine given.
    pub vaccine: VaccineId,
    /// The number in the series, 1 or 2.
    pub dose: u8,
    /// When it starts.
    pub starts_at: Timestamp,
    /// The day at the clinic, as days since 1970-01-01.
    pub day: i32,
    /// People it can take.
    pub capacity: u32,
    /// People it has, holds included.
    pub booked: u32,
    /// Whether it takes new people.
    pub open: bool,
}

impl SlotState {
    /// Places left for new people.
    #[must_use]
    pub const fn left(&self) -> u32 {
        if self.open {
            self.capacity.saturating_sub(self.booked)
        } else {
            0
        }
    }
}
