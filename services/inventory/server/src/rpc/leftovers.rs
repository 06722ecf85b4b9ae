//! Leftover doses as people join, leave and answer, and as anybody reads a round: decided by the ledger, in the
//! region's turn.
//!
//! No turn in a room is asked for: an offer *is* the person's turn, and a permit says that they are of the campaign.

mod answer;
mod parse;

use std::sync::Arc;

use domain::command::BodyHash;
use domain::permit::Permit;
use domain::{Refusal, RegionId, RequestId, RoundId};
use proto::inventory::Answer;

use super::Shared;
use super::execute::Replies;
use super::side;
use crate::ledger::{Ledger, LeftoverChange, LeftoverOp, LeftoverVerdict, NewRound};
use crate::owner::{Call, CallKind};

pub(super) use answer::round_of;
pub(super) use parse::{asked, offered};

/// What a person asks, well-formed.
pub(super) enum Asked {
    Change {
        kind: Kind,
        request: RequestId,
        body_hash: BodyHash,
        change: LeftoverChange,
    },
    List,
}

/// The changes, whose answers differ.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Join,
    Leave,
    Answer,
}

impl Kind {
    const fn call(self) -> CallKind {
        match self {
            Self::Join => CallKind::JoinLeftovers,
            Self::Leave => CallKind::LeaveLeftovers,
            Self::Answer => CallKind::AnswerLeftoverOffer,
        }
    }
}

/// What everybody may read.
pub(super) enum Public {
    /// A clinic's rounds.
    Rounds(domain::name::ClinicName),
    /// One round.
    Round(domain::name::LeftoversName),
}

impl Asked {
    pub(super) const fn kind(&self) -> CallKind {
        match self {
            Self::Change { kind, .. } => kind.call(),
            Self::List => CallKind::ListLeftoverOffers,
        }
    }
}

/// Does what the permit's holder asks.
pub(super) fn run(
    shared: &Arc<Shared>,
    permit: Permit,
    call: Call,
    asked: Asked,
    replies: &Replies,
) {
    let Some(ledger) = side::ledger(shared, &permit) else {
        return;
    };
    let shared_too = Arc::clone(shared);
    let turn = call.clone();
    side::spawn(shared, "leftovers", replies, &turn, async move {
        // Which campaign it is decides nothing that was recorded; without it there is nobody to call.
        if let Err(why) = shared_too.admission.campaign(&permit) {
            shared_too.turned_away(Some(&permit.region), why);
            return side::refuse(call.id, why);
        }
        match asked {
            Asked::List => match ledger.called(&permit.campaign, permit.person).await {
                Ok(called) => Some(answer::offers(call.id, &permit.region, called)),
                Err(error) => side::unavailable(call.id, &error),
            },
            Asked::Change {
                kind,
                request,
                body_hash,
                change,
            } => {
                let op = LeftoverOp {
                    claimant: permit.claimant(),
                    ticket: permit.place.ticket,
                    request,
                    body_hash,
                    change,
                };
                change_it(&shared_too, (call.id, kind), &permit.region, &*ledger, op).await
            }
        }
    });
}

async fn change_it(
    shared: &Shared,
    (id, kind): (u64, Kind),
    region: &RegionId,
    ledger: &dyn Ledger,
    op: LeftoverOp,
) -> Option<Answer> {
    let verdict = match ledger.leftover(&op).await {
        Ok(verdict) => verdict,
        Err(error) => return side::unavailable(id, &error),
    };
    if let (LeftoverVerdict::Done(_), LeftoverChange::Answer { accept, .. }) =
        (&verdict, &op.change)
    {
        shared.metrics.leftover_answered(region, *accept);
    }
    let accepted = match &verdict {
        LeftoverVerdict::Done(done) | LeftoverVerdict::Exists(done) => done.accepted,
        LeftoverVerdict::Refused(_) => None,
    };
    let slot = match accepted {
        None => None,
        Some(accepted) => match ledger.slots(&[accepted.slot]).await {
            Ok(slots) => slots.into_iter().next(),
            Err(error) => return side::unavailable(id, &error),
        },
    };
    Some(answer::change(id, kind, region, verdict, slot.as_ref()))
}

/// Reads a clinic's rounds, or one with its places.
pub(super) async fn read(
    id: u64,
    region: &RegionId,
    ledger: &dyn Ledger,
    public: Public,
) -> Option<Answer> {
    match public {
        Public::Rounds(clinic) => match ledger.rounds(&clinic.clinic, None).await {
            Ok(rounds) => Some(answer::rounds(id, region, rounds)),
            Err(error) => side::unavailable(id, &error),
        },
        Public::Round(name) => {
            let round: RoundId = name.round;
            // The places after the round: what is told of them is never older.
            let rounds = ledger.rounds(&name.clinic.clinic, Some(round)).await;
            match rounds.map(|mut found| found.pop()) {
                Ok(None) => side::refuse(id, Refusal::LeftoversUnknown),
                Ok(Some(found)) => match ledger.places(round).await {
                    Ok(places) => Some(answer::round(id, region, found, places)),
                    Err(error) => side::unavailable(id, &error),
                },
                Err(error) => side::unavailable(id, &error),
            }
        }
    }
}

/// A round's secret until its draw.
pub(super) fn with_seed(mut round: NewRound) -> NewRound {
    let halves = [
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4(),
        uuid::Uuid::new_v4(),
    ];
    let bytes = halves.map(uuid::Uuid::into_bytes).concat();
    // A random UUID has 122 random bits; three of them hashed have more than the 256 that are kept.
    round.seed = domain::room::Bytes32::sha256(bytes);
    round
}
