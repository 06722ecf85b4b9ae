//! What is known of an ask between its arrival and its answer.

use domain::{CampaignId, Op, PersonId, SlotId};

use crate::effects::RequestKey;

/// A person in a campaign: one of their ops at a time is under way, the others wait in their order.
pub(crate) type PersonKey = (CampaignId, PersonId);

#[derive(Debug)]
pub(crate) enum Want {
    Op(Op),
    Reserve(SlotId),
}

/// Where an ask is. Held to the containers by `invariants`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Behind an earlier op of the same person.
    Parked,
    /// To be looked at next.
    Arrived,
    /// Its slot is being read.
    Loading,
    /// Refused by memory; the ledger is asked for a recorded answer first.
    Looking,
    /// Its places are taken; waits for a statement.
    Queued,
    /// In the statement under way.
    InFlight,
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) want: Want,
    pub(crate) stage: Stage,
    /// The ledger has no record of it, and it was not sent since.
    pub(crate) unrecorded: bool,
}

pub(crate) fn person_key(op: &Op) -> PersonKey {
    (op.claimant.campaign.clone(), op.claimant.person)
}

pub(crate) fn request_key(op: &Op) -> RequestKey {
    (op.claimant.campaign.clone(), op.claimant.person, op.request)
}
