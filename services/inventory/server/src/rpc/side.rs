//! What no shard's queue decides: reading a claim, giving up a booking, moving one, and answering replays.
//!
//! Each runs in a task of its own, so that it ends whether or not the caller stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::campaign::BookingRules;
use domain::name::SlotName;
use domain::permit::Permit;
use domain::{
    BookingId, CampaignId, PersonId, Refusal, RegionId, SlotId, SlotPair, SlotState, Verdict,
};
use proto::inventory::Answer;
use proto::status::Refused;
use runtime::OnExit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::answer;
use super::execute::{Change, Replies, not_owner};
use crate::ledger::{AppointmentState, CancelOp, ClaimState, Ledger, MoveOp};
use crate::owner::{Answered, Call, ReplyTo};

pub(super) fn ledger(shared: &Shared, permit: &Permit) -> Option<Arc<dyn Ledger>> {
    shared
        .regions
        .get(&permit.region)
        .map(|region| Arc::clone(&region.ledger))
}

/// What a region does beside its owners: a few at once, the rest in turn, and no more than can be done in time.
///
/// Invariant: owners always find a session of the ledger, whatever else is asked.
#[derive(Clone)]
pub struct SideWork {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl SideWork {
    /// At a thousand a second, which one database does, the last of these waits for two seconds.
    const WAITING_MAX: usize = 2_048;

    /// Room for `width` at once, at least one.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(width.max(1))),
            waiting: Arc::new(Semaphore::new(Self::WAITING_MAX)),
        }
    }

    /// `None`: too many wait, or `within` was over first; nothing was begun.
    pub(crate) async fn turn(&self, within: Duration) -> Option<OwnedSemaphorePermit> {
        let _waiting = self.waiting.try_acquire().ok()?;
        let turn = Arc::clone(&self.running).acquire_owned();
        tokio::time::timeout(within, turn).await.ok()?.ok()
    }
}

/// Runs `work` on its own in its region's turn; what it returns is said, `None` means that somebody else answers.
pub(super) fn spawn<F>(
    shared: &Arc<Shared>,
    name: &'static str,
    replies: &Replies,
    call: &Call,
    work: F,
) where
    F: Future<Output = Option<Answer>> + Send + 'static,
{
    let turn = Turn {
        id: call.id,
        region: call.names.region.clone(),
        within: call.within,
    };
    in_turn(shared, name, replies, turn, work);
}

/// Who waits for a region's turn, and how long.
pub(super) struct Turn {
    pub(super) id: u64,
    pub(super) region: RegionId,
    pub(super) within: Duration,
}

/// Like [`spawn`], for what no person asks.
pub(super) fn in_turn<F>(
    shared: &Arc<Shared>,
    name: &'static str,
    replies: &Replies,
    turn: Turn,
    work: F,
) where
    F: Future<Output = Option<Answer>> + Send + 'static,
{
    let ready = replies.ready.clone();
    let side = shared
        .regions
        .get(&turn.region)
        .map(|region| region.side.clone());
    shared.tasks.spawn(name, OnExit::Log, async move {
        let Some(side) = side else { return };
        let answer = match side.turn(turn.within).await {
            Some(_turn) => work.await,
            None => refuse(turn.id, Refusal::Overloaded),
        };
        if let Some(answer) = answer {
            // The stream may be gone.
            let _ = ready.send(answer);
        }
    });
}

pub(super) fn refuse(id: u64, refusal: Refusal) -> Option<Answer> {
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
    let asked = call.clone();
    spawn(shared, "get_booking", replies, &asked, async move {
        match ledger.claim(&permit.campaign, permit.person).await {
            Ok(claim) => {
                if claim.as_ref().is_some_and(|claim| {
                    claim.serial > permit.serial
                        || (claim.state == ClaimState::Surrendered && claim.serial == permit.serial)
                }) {
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
            Err(error) => unavailable(call.id, &error),
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
    let asked = change.call.clone();
    spawn(shared, "cancel_booking", replies, &asked, async move {
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
                tell_owners(&shared_too, &change.permit.region, ledger.as_ref(), &freed).await;
                None
            }
            Err(error) => unavailable(change.call.id, &error),
        }
    });
}

/// Owners hear of what others changed through the outbox anyway; telling those of this process now sells it sooner.
pub(super) async fn tell_owners(
    shared: &Shared,
    region: &RegionId,
    ledger: &dyn Ledger,
    changed: &[SlotId],
) {
    if changed.is_empty() {
        return;
    }
    if let Ok(slots) = ledger.slots(changed).await {
        for slot in slots {
            if let Some(owner) = shared.owners.get(region, slot.shard) {
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
    let asked = change.call.clone();
    spawn(shared, "move_booking", replies, &asked, async move {
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
            Err(error) => return unavailable(change.call.id, &error),
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
    let who = (&change.permit.campaign, change.permit.person);
    move_fits(shared, &campaign.rules, ledger, who, dose, target).await
}

/// Whether the rules allow somebody's appointment at a slot, as their other dose is now.
pub(crate) async fn move_fits(
    shared: &Shared,
    rules: &BookingRules,
    ledger: &dyn Ledger,
    (campaign, person): (&CampaignId, PersonId),
    dose: u8,
    target: &SlotState,
) -> Result<(), Refusal> {
    rules.allow(&[target], shared.clock.wall())?;
    let claim = ledger.claim(campaign, person).await;
    let claim = claim.map_err(|_| Refusal::Unavailable)?;
    // Without a claim the ledger gives the refusal, with the version.
    let others = claim
        .iter()
        .flat_map(|claim| &claim.appointments)
        .filter(|one| one.state != AppointmentState::Held && one.slot.dose != dose);
    let fits = |other: &SlotState| {
        let (first, second) = if dose == 1 {
            (target, other)
        } else {
            (other, target)
        };
        rules.interval_fits(first.day, second.day)
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
    let (asked, shared_too) = (change.call.clone(), Arc::clone(shared));
    spawn(shared, "replay", replies, &asked, async move {
        match ledger.recorded(&[key(&change)]).await {
            Ok(mut found) => match found.pop().flatten() {
                Some((hash, recorded)) if hash == change.mutation.body_hash => {
                    let verdict = Verdict::Exists(recorded);
                    ReplyTo::new(change.call, answered).send(verdict, [None, None]);
                    None
                }
                Some(_) => refuse(change.call.id, Refusal::RequestIdReused),
                None => {
                    shared_too.turned_away(Some(&change.permit.region), why);
                    refuse(change.call.id, why)
                }
            },
            Err(error) => unavailable(change.call.id, &error),
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

/// Reads the slots that answers speak of and their owners did not know: one read for each region.
pub(super) async fn complete(shared: &Shared, answers: Vec<Answered<Call>>) -> Vec<Answer> {
    let mut by_region = BTreeMap::<_, Vec<_>>::new();
    for one in answers {
        by_region
            .entry(one.call.names.region.clone())
            .or_default()
            .push(one);
    }
    let mut complete = Vec::new();
    for (region, mut answers) in by_region {
        let found = match shared.regions.get(&region) {
            Some(region) => read_slots(region.ledger.as_ref(), &answers).await,
            None => None,
        };
        let Some(found) = found else {
            complete.extend(answers.iter().map(|one| answer::unavailable(one.call.id)));
            continue;
        };
        for one in &mut answers {
            if let Some(slots) = named(one) {
                one.slots = [Some(slots.first), slots.second]
                    .map(|slot| slot.and_then(|slot| found.get(&slot).cloned()));
            }
        }
        complete.extend(answers.into_iter().map(answer::answer));
    }
    complete
}

fn named(answered: &Answered<Call>) -> Option<SlotPair> {
    match &answered.verdict {
        Verdict::Done(recorded) | Verdict::Exists(recorded) => Some(recorded.slots),
        Verdict::Refused { .. } => None,
    }
}

async fn read_slots(
    ledger: &dyn Ledger,
    answers: &[Answered<Call>],
) -> Option<BTreeMap<SlotId, Arc<SlotState>>> {
    let ids: BTreeSet<_> = answers
        .iter()
        .filter_map(named)
        .flat_map(|slots| slots.iter().collect::<Vec<_>>())
        .collect();
    let ids: Vec<_> = ids.into_iter().collect();
    match ledger.slots(&ids).await {
        Ok(found) => Some(
            found
                .into_iter()
                .map(|slot| (slot.slot, Arc::new(slot)))
                .collect(),
        ),
        Err(error) => {
            tracing::warn!(%error, "the slots of answers could not be read");
            None
        }
    }
}

pub(super) fn unavailable(id: u64, error: &crate::ledger::Fault) -> Option<Answer> {
    tracing::warn!(%error, "the ledger did not answer");
    // A write without a known outcome and a failed read look alike here: repeating the request id is right for both.
    let unknown = matches!(error, crate::ledger::Fault::Unknown { .. });
    let refusal = if unknown {
        Refusal::OutcomeUnknown
    } else {
        Refusal::Unavailable
    };
    Some(answer::refused(id, Refused::from(refusal), None))
}
