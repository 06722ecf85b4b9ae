//! Carries plans out, wave after wave: each process moves the lines whose targets its own owners decide.
//!
//! Invariant: a line is one ordinary move under the line's own request id, however often and by whomever it is tried.
//! So the old appointment stands until the new one does, and nothing is lost whoever dies in between.

use std::sync::Arc;
use std::time::Duration;

use domain::command::BodyHash;
use domain::refusal::Class;
use domain::{ClaimVersion, Claimant, Refusal, RegionId, ShardId, Verdict};
use futures::StreamExt as _;
use runtime::Drain;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::ledger::{DueMove, Ledger, MoveOp, Settled};
use crate::owner::{Call, CallKind, CallNames, ReplyTo};
use crate::rpc::{Shared, move_fits};

/// How often plans that are being applied are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines taken at once: a wave.
const DUE_MAX: u32 = 50;
/// Moves at once: they share the ledger's sessions with people, who wait for an answer.
const AT_ONCE: usize = 8;
/// How long a move may wait for the region's turn, and then for its owner. It is tried again.
const WITHIN: Duration = Duration::from_secs(10);

/// Moves people of a region until the process drains.
pub(crate) async fn apply_plans(shared: Arc<Shared>, region: RegionId, drain: Drain) {
    let Some(ledger) = shared
        .regions
        .get(&region)
        .map(|served| Arc::clone(&served.ledger))
    else {
        return;
    };
    let mut again = false;
    loop {
        if !again {
            tokio::select! {
                () = drain.signalled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        } else if drain.is_draining() {
            return;
        }
        again = match round(&shared, &region, ledger.as_ref()).await {
            Ok(settled) => settled > 0,
            Err(error) => {
                tracing::debug!(%region, %error, "plans could not be applied");
                false
            }
        };
    }
}

/// Tries what is due; says how many lines were settled.
async fn round(
    shared: &Arc<Shared>,
    region: &RegionId,
    ledger: &dyn Ledger,
) -> Result<usize, crate::ledger::Fault> {
    let owners = shared.owners.of_region(region);
    let mine: Vec<ShardId> = owners.into_iter().map(|(shard, _)| shard).collect();
    if mine.is_empty() {
        return Ok(0);
    }
    let due = ledger.due_moves(&mine, DUE_MAX).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let moves = futures::stream::iter(due).map(|due| async move {
        let outcome = line(shared, region, ledger, &due).await?;
        let ended = outcome.err().map_or("MOVED", Refusal::code);
        shared.metrics.incident_moved(region, ended);
        Some(Settled {
            at: due.at,
            outcome,
        })
    });
    let settled: Vec<Settled> = moves
        .buffer_unordered(AT_ONCE)
        .filter_map(|settled| async move { settled })
        .collect()
        .await;
    if !settled.is_empty() {
        ledger.settle_moves(&settled).await?;
    }
    Ok(settled.len())
}

/// One line: the claim's version afterwards, or why it was not moved. `None` = to be tried again.
async fn line(
    shared: &Arc<Shared>,
    region: &RegionId,
    ledger: &dyn Ledger,
    due: &DueMove,
) -> Option<Result<ClaimVersion, Refusal>> {
    let op = MoveOp {
        claimant: Claimant {
            campaign: due.campaign.clone(),
            person: due.person,
            serial: due.serial,
        },
        request: due.request,
        body_hash: body_hash(due),
        claim_version: due.version,
        booking: due.booking,
        dose: due.dose,
        to: due.to,
    };
    // An owner refuses from memory; what was done in an earlier try comes first.
    let key = (due.campaign.clone(), due.person, due.request);
    match ledger.recorded(&[key]).await.ok()?.pop().flatten() {
        Some((hash, recorded)) if hash == op.body_hash => return Some(Ok(recorded.claim_version)),
        Some(_) => return Some(Err(Refusal::RequestIdReused)),
        None => {}
    }
    // Not heard of yet, at the start of a process.
    let campaign = shared.admission.campaign_named(&due.campaign)?;
    let target = ledger.slots(&[due.to]).await.ok()?.pop()?;
    let who = (&due.campaign, due.person);
    let fits = move_fits(shared, &campaign.rules, ledger, who, due.dose, &target).await;
    if let Err(why) = fits {
        return settled(why).map(Err);
    }
    let side = shared.regions.get(region)?.side.clone();
    let _turn = side.turn(WITHIN).await?;
    let owner = shared.owners.get(region, due.shard)?;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let call = Call {
        id: 0,
        names: Arc::new(CallNames {
            region: region.clone(),
        }),
        kind: CallKind::MoveBooking,
        within: WITHIN,
        span: None,
    };
    owner.move_booking(op, ReplyTo::new(call, answers));
    let answer = tokio::time::timeout(WITHIN, answered.recv()).await.ok()??;
    match answer.verdict {
        Verdict::Done(recorded) | Verdict::Exists(recorded) => Some(Ok(recorded.claim_version)),
        Verdict::Refused { refusal, .. } => settled(refusal).map(Err),
    }
}

/// A refusal that stays one however often it is asked.
fn settled(why: Refusal) -> Option<Refusal> {
    match why.class() {
        Class::Unavailable | Class::Unknown | Class::Exhausted => None,
        Class::Malformed
        | Class::Unauthenticated
        | Class::Forbidden
        | Class::NotFound
        | Class::Precondition
        | Class::AlreadyExists
        | Class::Unimplemented => Some(why),
    }
}

fn body_hash(due: &DueMove) -> BodyHash {
    let digest = Sha256::new()
        .chain_update("doseline/incident/move")
        .chain_update(due.booking.as_bytes())
        .chain_update([due.dose])
        .chain_update(due.to.0.to_be_bytes())
        .finalize();
    let mut half = [0u8; 16];
    half.copy_from_slice(&digest[..16]);
    BodyHash(half)
}
