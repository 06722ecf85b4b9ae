//! People who change their region: this region lets them go, or keeps them, and signs what it decided.
//!
//! Invariant: nobody is let go without identity's signed word, and nothing is decided that could not be signed.

use std::sync::Arc;

use domain::permit::Unusable;
use domain::region_change::{Moving, Receipt};
use domain::{Claimant, Refusal, RegionId};
use proto::convert::Fields;
use proto::inventory::{Answer, Command, Departed, answer::Outcome, command};
use proto::status::Refused;

use super::execute::{Replies, within};
use super::side::{self, Turn};
use super::{Shared, answer};
use crate::ledger::SurrenderOp;

/// Takes a departure; gives any other command back.
pub(super) fn take(shared: &Arc<Shared>, command: Command, replies: &Replies) -> Option<Command> {
    let Some(command::Action::Depart(_)) = &command.action else {
        return Some(command);
    };
    let (id, patience) = (command.call_id, within(command.timeout_ms));
    match Departing::of(shared, command) {
        Ok(departing) => {
            let turn = Turn {
                id,
                region: departing.moving.from.clone(),
                within: patience,
            };
            let work = run(Arc::clone(shared), id, departing);
            side::in_turn(shared, "depart", replies, turn, work);
        }
        Err(why) => {
            shared.turned_away(None, why.refusal);
            // The stream may be gone.
            let _ = replies.ready.send(answer::refused(id, why, None));
        }
    }
    None
}

/// A departure that identity vouches for.
struct Departing {
    moving: Moving,
    stay: bool,
    give_up_booking: bool,
}

impl Departing {
    fn of(shared: &Shared, command: Command) -> Result<Self, Refused> {
        let mut fields = Fields::default();
        let region = fields.parse::<RegionId>("region", &command.region);
        let depart = match command.action {
            Some(command::Action::Depart(depart)) => Some(depart),
            _ => None,
        };
        let (region, depart) = fields.finish(region.zip(depart))?;
        let served = shared.regions.get(&region).ok_or(Refusal::NotOwner)?;
        let (keys, now) = (shared.permit_keys.current(), shared.clock.wall());
        let moving = Moving::verify(&keys, &depart.document, now).map_err(|why| match why {
            Unusable::Untrusted(_) | Unusable::Expired => Refusal::MovingInvalid,
        })?;
        if moving.from != region {
            return Err(Refusal::MovingInvalid.into());
        }
        // What is decided has to be signed: without a key nothing may be.
        let keys = served.receipt_keys.as_ref().map(|keys| keys.current());
        keys.and_then(|keys| keys.signer(now))
            .ok_or(Refusal::RegionChangeClosed)?;
        Ok(Self {
            moving,
            stay: depart.stay,
            give_up_booking: depart.give_up_booking,
        })
    }
}

async fn run(shared: Arc<Shared>, id: u64, departing: Departing) -> Option<Answer> {
    let Departing {
        moving,
        stay,
        give_up_booking,
    } = departing;
    let region = moving.from;
    let served = shared.regions.get(&region)?;
    let claimant = Claimant {
        campaign: moving.campaign,
        person: moving.person,
        serial: moving.serial,
    };
    let decided = if stay {
        served.ledger.restamp(&claimant).await
    } else {
        let op = SurrenderOp {
            claimant: claimant.clone(),
            to: moving.to,
            give_up_booking,
        };
        served.ledger.surrender(&op).await
    };
    let decided = match decided {
        Ok(decided) => decided,
        Err(error) => return side::unavailable(id, &error),
    };
    shared.metrics.departed(&region, decided.decided.as_ref());
    let freed: Vec<_> = decided.slots.iter().map(|slot| slot.slot).collect();
    side::tell_owners(&shared, &region, served.ledger.as_ref(), &freed).await;
    let departure = match decided.decided {
        Ok(departure) => departure,
        Err(why) => return Some(answer::refused(id, why.into(), None)),
    };
    let keys = served.receipt_keys.as_ref().map(|keys| keys.current());
    // It was there before the decision; a repetition signs what was decided.
    let Some(key) = keys.and_then(|keys| keys.signer(shared.clock.wall())) else {
        return Some(answer::refused(id, Refusal::Unavailable.into(), None));
    };
    let Claimant {
        campaign,
        person,
        serial,
    } = claimant;
    let receipt = Receipt {
        campaign,
        person,
        serial,
        region,
        departure,
    };
    Some(Answer {
        call_id: id,
        outcome: Some(Outcome::Departed(Departed {
            receipt: receipt.sign(&key),
        })),
    })
}
