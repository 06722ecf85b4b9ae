//! What no shard's queue decides: reading a claim, giving up a booking, moving one, and answering replays.
//!
//! Each runs in a task of its own, so that it ends whether or not the caller stays.

use std::sync::Arc;

use domain::name::SlotName;
use domain::permit::Permit;
use domain::{BookingId, Refusal, SlotState, Verdict};
use proto::inventory::Answer;
use proto::status::Refused;
use runtime::OnExit;

use super::Shared;
use super::answer;
use super::execute::{Change, Replies, not_owner};
use crate::ledger::{AppointmentState, CancelOp, Ledger, MoveOp};
use crate::owner::{Answered, Call, ReplyTo};

fn ledger(shared: &Shared, permit: &Permit) -> Option<Arc<dyn Ledger>> {
    shared
        .regions
        .get(&permit.region)
        .map(|region| Arc::clone(&region.ledger))
}

/// Runs `work` on its own; what it returns is said, `None` means that somebody else answers.
fn spawn<F>(shared: &Arc<Shared>, name: &'static str, replies: &Replies, work: F)
where
    F: Future<Output = Option<Answer>> + Send + 'static,
{
    let ready = replies.ready.clone();
    shared.tasks.spawn(name, OnExit::Log, async move {
        if let Some(answer) = work.await {
            // The stream may be gone.
            let _ = ready.send(answer);
        }
    });
}

fn refuse(id: u64, refusal: Refusal) -> Option<Answer> {
    Some(answer::refused(id, Refused::from(refusal), None))
}

/// Reads the permit holder's claim.
pub(super) fn get(
    shared: &Arc<Shared>,
    permit: Permit,
    call: Call,
    booking: Option<BookingId>,
    replies: &Replies,
) {
    let Some(ledger) = ledger(shared, &permit) else {
        return;
    };
    spawn(shared, "get_booking", replies, async move {
        match ledger.claim(&permit.campaign, permit.person).await {
            Ok(claim) => {
                if claim
                    .as_ref()
                    .is_some_and(|claim| claim.serial > permit.serial)
                {
                    return refuse(call.id, Refusal::PermitSuperseded);
                }
                let held = claim.as_ref().and_then(|claim| claim.booking);
                if booking.is_some() && booking != held {
                    let version = claim.map(|claim| claim.version);
                    let refused =
                        Refused::from(Refusal::BookingUnknown).with_claim_version(version);
                    return Some(answer::refused(call.id, refused, None));
                }
                Some(answer::claim(call.id, &permit.region, claim.as_ref()))
            }
            Err(error) => unavailable(&call, &error),
        }
    });
}

/// Gives up a booking; needs no owner, because giving back is always safe.
pub(super) fn cancel(
    shared: &Arc<Shared>,
    change: Change,
    booking: BookingId,
    dose: Option<u8>,
    replies: &Replies,
) {
    let Some(ledger) = ledger(shared, &change.permit) else {
        return;
    };
    let (shared_too, answered) = (Arc::clone(shared), replies.answered.clone());
    spawn(shared, "cancel_booking", replies, async move {
        let op = CancelOp {
            claimant: change.permit.claimant(),
            request: change.mutation.request,
            body_hash: change.mutation.body_hash,
            claim_version: change.mutation.version,
            booking,
            dose,
        };
        match ledger.cancel(&op).await {
            Ok(side) => {
                let freed: Vec<_> = side.slots.iter().map(|slot| slot.slot).collect();
                ReplyTo::new(change.call, answered).send(side.verdict, [None, None]);
                tell_owners(&shared_too, &change.permit, ledger.as_ref(), &freed).await;
                None
            }
            Err(error) => unavailable(&change.call, &error),
        }
    });
}

/// Owners hear of freed units through the outbox anyway; telling those of this process now sells them sooner.
async fn tell_owners(
    shared: &Shared,
    permit: &Permit,
    ledger: &dyn Ledger,
    freed: &[domain::SlotId],
) {
    if freed.is_empty() {
        return;
    }
    if let Ok(slots) = ledger.slots(freed).await {
        for slot in slots {
            if let Some(owner) = shared.owners.get(&permit.region, slot.shard) {
                owner.outside(vec![slot]);
            }
        }
    }
}

/// Moves an appointment: the rules are checked on what the claim is now, its version holds it still until the ledger
/// decides.
pub(super) fn move_booking(
    shared: &Arc<Shared>,
    change: Change,
    (booking, dose, to): (BookingId, u8, SlotName),
    replies: &Replies,
) {
    let Some(ledger) = ledger(shared, &change.permit) else {
        return;
    };
    let (shared_too, answered) = (Arc::clone(shared), replies.answered.clone());
    spawn(shared, "move_booking", replies, async move {
        let id = change.call.id;
        // A shard refuses from memory; an answer that was given before comes first.
        match ledger.recorded(&[key(&change)]).await {
            Ok(mut found) => match found.pop().flatten() {
                Some((hash, recorded)) if hash == change.mutation.body_hash => {
                    ReplyTo::new(change.call, answered)
                        .send(Verdict::Exists(recorded), [None, None]);
                    return None;
                }
                Some(_) => return refuse(id, Refusal::RequestIdReused),
                None => {}
            },
            Err(error) => return unavailable(&change.call, &error),
        }
        if let Err(refusal) = may_move(&shared_too, &change, ledger.as_ref(), dose, &to).await {
            return refuse(id, refusal);
        }
        let Some(owner) = shared_too.owners.get(&change.permit.region, change.shard) else {
            return Some(not_owner(&shared_too, &change));
        };
        let op = MoveOp {
            claimant: change.permit.claimant(),
            request: change.mutation.request,
            body_hash: change.mutation.body_hash,
            claim_version: change.mutation.version,
            booking,
            dose,
            to: to.slot,
        };
        owner.move_booking(op, ReplyTo::new(change.call, answered));
        None
    });
}

async fn may_move(
    shared: &Shared,
    change: &Change,
    ledger: &dyn Ledger,
    dose: u8,
    to: &SlotName,
) -> Result<(), Refusal> {
    let campaign = shared.admission.campaign(&change.permit)?;
    if shared.admission.ended(&change.permit) {
        return Err(Refusal::RoomEnded);
    }
    let found = ledger
        .slots(&[to.slot])
        .await
        .map_err(|_| Refusal::Unavailable)?;
    let target = found.first().filter(|slot| slot.clinic == to.clinic.clinic);
    let target = target.ok_or(Refusal::SlotUnknown)?;
    campaign.rules.allow(&[target], shared.clock.wall())?;
    let claim = ledger
        .claim(&change.permit.campaign, change.permit.person)
        .await;
    let claim = claim.map_err(|_| Refusal::Unavailable)?;
    // Without a claim the ledger gives the refusal, with the version.
    let others = claim
        .iter()
        .flat_map(|claim| &claim.appointments)
        .filter(|one| one.state == AppointmentState::Booked && one.slot.dose != dose);
    let fits = |other: &SlotState| {
        let (first, second) = if dose == 1 {
            (target, other)
        } else {
            (other, target)
        };
        campaign.rules.interval_fits(first.day, second.day)
    };
    if others.into_iter().all(|other| fits(&other.slot)) {
        Ok(())
    } else {
        Err(Refusal::SlotsMismatch)
    }
}

/// Answers what was recorded under the request id, or refuses.
pub(super) fn replay_or_refuse(
    shared: &Arc<Shared>,
    change: Change,
    why: Refusal,
    replies: &Replies,
) {
    let Some(ledger) = ledger(shared, &change.permit) else {
        return;
    };
    let answered = replies.answered.clone();
    spawn(shared, "replay", replies, async move {
        match ledger.recorded(&[key(&change)]).await {
            Ok(mut found) => match found.pop().flatten() {
                Some((hash, recorded)) if hash == change.mutation.body_hash => {
                    let verdict = Verdict::Exists(recorded);
                    ReplyTo::new(change.call, answered).send(verdict, [None, None]);
                    None
                }
                Some(_) => refuse(change.call.id, Refusal::RequestIdReused),
                None => refuse(change.call.id, why),
            },
            Err(error) => unavailable(&change.call, &error),
        }
    });
}

fn key(change: &Change) -> (domain::CampaignId, domain::PersonId, domain::RequestId) {
    (
        change.permit.campaign.clone(),
        change.permit.person,
        change.mutation.request,
    )
}

/// Reads the slots that an answer speaks of and its owner did not know.
pub(super) async fn complete(shared: &Shared, mut answered: Answered<Call>) -> Answer {
    let (Verdict::Done(recorded) | Verdict::Exists(recorded)) = &answered.verdict else {
        return answer::answer(answered);
    };
    let wanted = recorded.slots;
    let Some(region) = shared.regions.get(&answered.call.names.region) else {
        return answer::unavailable(answered.call.id);
    };
    let ids: Vec<_> = wanted.iter().collect();
    match region.ledger.slots(&ids).await {
        Ok(found) => {
            let of = |id| {
                found
                    .iter()
                    .find(|slot| slot.slot == id)
                    .cloned()
                    .map(Arc::new)
            };
            answered.slots = [of(wanted.first), wanted.second.and_then(of)];
            answer::answer(answered)
        }
        Err(error) => {
            tracing::warn!(%error, "the slots of an answer could not be read");
            answer::unavailable(answered.call.id)
        }
    }
}

fn unavailable(call: &Call, error: &crate::ledger::Fault) -> Option<Answer> {
    tracing::warn!(%error, "the ledger did not answer");
    // A write without a known outcome and a failed read look alike here: repeating the request id is right for both.
    let unknown = matches!(error, crate::ledger::Fault::Unknown { .. });
    let refusal = if unknown {
        Refusal::OutcomeUnknown
    } else {
        Refusal::Unavailable
    };
    Some(answer::refused(call.id, Refused::from(refusal), None))
}
