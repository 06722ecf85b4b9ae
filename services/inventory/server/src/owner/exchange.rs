//! What an owner exchanges with callers and watchers.

use std::sync::Arc;

use domain::{Epoch, ShardId, SlotState, Timestamp, Verdict};
use runtime::telemetry::TraceContext;
use tokio::sync::mpsc;

use crate::ledger::Clinic;

/// An answer on its way to the caller's stream.
#[derive(Debug)]
pub struct Answered<C> {
    /// What the stream needs to build the message.
    pub call: C,
    /// What the ledger or the core said.
    pub verdict: Verdict,
    /// The slots that a yes speaks of, as far as the owner knows them: first dose, second dose.
    pub slots: [Option<Arc<SlotState>>; 2],
}

/// The call that an answer belongs to, as the stream that asked knows it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The gateway's number.
    pub id: u64,
    /// Where the answer's names live.
    pub names: Arc<CallNames>,
    /// Which answer is expected.
    pub kind: CallKind,
    /// How long the caller would still have waited when the command was begun.
    pub within: std::time::Duration,
    /// The call's part of its trace; ends with the answer.
    pub span: Option<tracing::Span>,
}

/// Names that an answer repeats.
#[derive(Debug)]
pub struct CallNames {
    /// The region.
    pub region: domain::RegionId,
}

/// Which method was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// BookingService.HoldSlots.
    HoldSlots,
    /// BookingService.ConfirmHold.
    ConfirmHold,
    /// BookingService.ReleaseHold.
    ReleaseHold,
    /// BookingService.Book.
    Book,
    /// BookingService.MoveBooking.
    MoveBooking,
    /// BookingService.CancelBooking.
    CancelBooking,
    /// BookingService.GetBooking.
    GetBooking,
    /// LeftoverService.JoinLeftovers.
    JoinLeftovers,
    /// LeftoverService.LeaveLeftovers.
    LeaveLeftovers,
    /// LeftoverService.ListLeftoverOffers.
    ListLeftoverOffers,
    /// LeftoverService.AnswerLeftoverOffer.
    AnswerLeftoverOffer,
}

impl CallKind {
    /// The verb, as in request rows and metrics.
    #[must_use]
    pub const fn op(self) -> &'static str {
        match self {
            Self::HoldSlots => "hold_slots",
            Self::ConfirmHold => "confirm_hold",
            Self::ReleaseHold => "release_hold",
            Self::Book => "book",
            Self::MoveBooking => "move_booking",
            Self::CancelBooking => "cancel_booking",
            Self::GetBooking => "get_booking",
            Self::JoinLeftovers => "join_leftovers",
            Self::LeaveLeftovers => "leave_leftovers",
            Self::ListLeftoverOffers => "list_leftover_offers",
            Self::AnswerLeftoverOffer => "answer_leftover_offer",
        }
    }
}

/// Where an answer goes. Sending never waits and never fails the owner: the stream bounds what it has open.
#[derive(Debug)]
pub struct ReplyTo {
    call: Call,
    answers: mpsc::UnboundedSender<Answered<Call>>,
}

impl ReplyTo {
    /// For one call of one stream.
    #[must_use]
    pub fn new(call: Call, answers: mpsc::UnboundedSender<Answered<Call>>) -> Self {
        Self { call, answers }
    }

    /// The trace that the call belongs to, if it has one.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.call.span.as_ref().and_then(TraceContext::of)
    }

    /// Answers. The stream may be gone: the outcome is then read by its request id.
    pub fn send(self, verdict: Verdict, slots: [Option<Arc<SlotState>>; 2]) {
        let _ = self.answers.send(Answered {
            call: self.call,
            verdict,
            slots,
        });
    }
}

/// A slot as watchers see it.
#[derive(Clone, Debug)]
pub struct SlotLine {
    /// The slot; its `booked` may be older than `left`.
    pub slot: Arc<SlotState>,
    /// Places left, as the owner would give them now.
    pub left: u32,
}

/// Everything of a shard at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The shard.
    pub shard: ShardId,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The last update that is part of it.
    pub sequence: u64,
    /// When.
    pub as_of: Timestamp,
    /// Its clinics.
    pub clinics: Arc<Vec<Clinic>>,
    /// Its slots.
    pub slots: Vec<SlotLine>,
}

/// A change after a snapshot.
#[derive(Clone, Debug)]
pub enum Update {
    /// Slots as they are now.
    Changes {
        /// The owner's epoch.
        epoch: Epoch,
        /// One above the one before.
        sequence: u64,
        /// When.
        as_of: Timestamp,
        /// The slots.
        slots: Arc<Vec<SlotLine>>,
    },
    /// Nothing changed.
    Alive {
        /// The owner's epoch.
        epoch: Epoch,
        /// The last sequence.
        sequence: u64,
        /// When.
        as_of: Timestamp,
    },
    /// Subscribe again: clinics or the epoch changed.
    Restart,
}
