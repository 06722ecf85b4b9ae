//! The work around a shard's core: each is a future that ends in an input for it.

use std::sync::Arc;
use std::time::Duration;

use domain::{Epoch, Op, Refusal, ShardId, SlotId, SlotState, Verdict};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use inventory_core::{BatchFailure, Effect, Input, SlotCount};

use super::exchange::ReplyTo;
use super::pace::Pace;
use super::task::{OwnerExit, OwnerParts};
use crate::figures::Load;
use crate::ledger::{self, Fault, Ledger, MoveOp, SeizeRequest, Seized, ShardCatalogue, Writer};

/// How long a caller of the ledger waits before it tries again: short, because clinics wait with it.
const PAUSE: Duration = Duration::from_millis(50);
/// Tries of a first seizure before somebody else may have a go.
const FIRST_TRIES: u32 = 40;
/// How long an owner stays without its ledger. A database starts again in less; beyond that another instance may reach
/// it.
pub(super) const CUT_OFF_AFTER: Duration = Duration::from_secs(10);

pub(super) type Job = BoxFuture<'static, Done>;
type MaybeWriter = Option<Box<dyn Writer>>;

/// What a job ends in.
pub(super) enum Done {
    Input(Input),
    Nothing,
    /// The ledger answered, and there is nothing to do.
    Heard,
    /// The ledger could not be asked.
    Unheard,
    Batch {
        writer: MaybeWriter,
        input: Input,
    },
    Seized {
        seized: Option<Seized>,
        input: Input,
    },
    Moved {
        slot: SlotId,
        outcome: Option<SlotCount>,
        reply: ReplyTo,
        verdict: Verdict,
    },
    Catalogue(Option<ShardCatalogue>),
}

impl Done {
    /// Whether the ledger answered; `None` where it was not asked, or where what became of it is not known.
    pub(super) const fn heard(&self) -> Option<bool> {
        match self {
            Self::Unheard
            | Self::Input(Input::LoadFailed { .. } | Input::LookupFailed { .. })
            | Self::Catalogue(None) => Some(false),
            Self::Heard
            | Self::Input(Input::SlotsLoaded { .. } | Input::LookedUp { .. } | Input::SweepDue)
            | Self::Batch {
                input: Input::BatchDone { .. } | Input::Swept { .. },
                ..
            }
            | Self::Seized {
                seized: Some(_), ..
            }
            | Self::Catalogue(Some(_)) => Some(true),
            Self::Nothing
            | Self::Input(_)
            | Self::Batch { .. }
            | Self::Seized { .. }
            | Self::Moved { .. } => None,
        }
    }
}

pub(super) fn not_owner() -> Verdict {
    Verdict::Refused {
        refusal: Refusal::NotOwner,
        claim_version: None,
    }
}

pub(super) fn changed(slots: Vec<SlotState>) -> Input {
    Input::SlotsChanged { slots }
}

fn count(slot: &ledger::SlotCount) -> SlotCount {
    let ledger::SlotCount {
        slot,
        capacity,
        booked,
        open,
    } = *slot;
    SlotCount {
        slot,
        capacity,
        booked,
        open,
    }
}

/// The work of an effect; `None` for effects that are no work.
pub(super) fn job(parts: &OwnerParts, writer: &mut MaybeWriter, effect: Effect) -> Option<Job> {
    let ledger = Arc::clone(&parts.ledger);
    let job = match effect {
        Effect::Load { slots } => load(ledger, slots).boxed(),
        Effect::Send { seq, ops } => {
            let counted = Counted {
                metrics: parts.metrics.clone(),
                load: Arc::clone(&parts.load.region),
                clock: parts.clock.clone(),
                pace: parts.pace.clone(),
            };
            batch(writer.take(), parts.shard, seq, ops, counted).boxed()
        }
        Effect::Sweep { seq, limit } => sweep(writer.take(), seq, limit).boxed(),
        Effect::Lookup { asks, keys } => async move {
            Done::Input(match ledger.recorded(&keys).await {
                Ok(recorded) => Input::LookedUp { asks, recorded },
                Err(_) => Input::LookupFailed { asks },
            })
        }
        .boxed(),
        Effect::ReadVerdicts { keys } => async move {
            let read = read_verdicts(ledger, keys);
            let input = tokio::time::timeout(CUT_OFF_AFTER, read).await;
            Done::Input(input.unwrap_or(Input::LedgerLost))
        }
        .boxed(),
        Effect::Seize { expect } => {
            // The session whose outcome is not known must not linger beside the new one.
            *writer = None;
            let seizing = reseize(request(parts, expect, expect), ledger);
            async move {
                let done = tokio::time::timeout(CUT_OFF_AFTER, seizing).await;
                done.unwrap_or(Done::Input(Input::LedgerLost))
            }
            .boxed()
        }
        Effect::Reply { .. }
        | Effect::Reserved { .. }
        | Effect::Publish { .. }
        | Effect::Alarm { .. }
        | Effect::Stop { .. } => return None,
    };
    Some(job)
}

async fn read_verdicts(
    ledger: Arc<dyn Ledger>,
    keys: Vec<(domain::CampaignId, domain::PersonId, domain::RequestId)>,
) -> Input {
    loop {
        match ledger.recorded(&keys).await {
            Ok(recorded) => return Input::VerdictsRead { recorded },
            Err(error) => {
                tracing::warn!(%error, "verdicts of a committed batch cannot be read yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn load(ledger: Arc<dyn Ledger>, asked: Vec<SlotId>) -> Done {
    Done::Input(match ledger.slots(&asked).await {
        Ok(found) => Input::SlotsLoaded { asked, found },
        Err(error) => {
            tracing::warn!(%error, "slots could not be loaded");
            Input::LoadFailed { asked }
        }
    })
}

/// Where a batch is counted.
struct Counted {
    metrics: crate::metrics::OwnerMetrics,
    load: Arc<Load>,
    clock: runtime::Clock,
    pace: Pace,
}

async fn batch(
    writer: MaybeWriter,
    shard: ShardId,
    seq: u64,
    ops: Vec<Op>,
    Counted {
        metrics,
        load,
        clock,
        pace,
    }: Counted,
) -> Done {
    let Some(mut writer) = writer else {
        let failure = BatchFailure::Unknown;
        return Done::Batch {
            writer: None,
            input: Input::BatchFailed { seq, failure },
        };
    };
    // Part of what a batch takes: whoever steers by it must see it.
    let begun = clock.monotonic();
    pace.take(ops.len(), &clock).await;
    let input = match writer.batch(seq, &ops).await {
        Ok(answer) => {
            let took = clock.monotonic().saturating_duration_since(begun);
            metrics.committed(ops.len(), took);
            load.committed(ops.len(), took);
            let slots = answer.slots.iter().map(count).collect();
            Input::BatchDone {
                seq,
                verdicts: answer.verdicts,
                slots,
            }
        }
        Err(fault) => {
            load.failed();
            let failure = failure(&fault).await;
            tracing::warn!(shard.id = %shard, error = %fault, cause = ?std::error::Error::source(&fault), "a batch was not committed for certain");
            Input::BatchFailed { seq, failure }
        }
    };
    Done::Batch {
        writer: Some(writer),
        input,
    }
}

async fn sweep(writer: MaybeWriter, seq: u64, limit: u32) -> Done {
    let Some(mut writer) = writer else {
        let failure = BatchFailure::Unknown;
        return Done::Batch {
            writer: None,
            input: Input::SweepFailed { seq, failure },
        };
    };
    let input = match writer.sweep(seq, limit).await {
        Ok(slots) => Input::Swept {
            seq,
            slots: slots.iter().map(count).collect(),
        },
        Err(fault) => Input::SweepFailed {
            seq,
            failure: failure(&fault).await,
        },
    };
    Done::Batch {
        writer: Some(writer),
        input,
    }
}

async fn failure(fault: &Fault) -> BatchFailure {
    match fault {
        Fault::Fenced { found, .. } => BatchFailure::Fenced { found: *found },
        Fault::Constraint { .. } => BatchFailure::Constraint,
        Fault::Unknown { .. } => BatchFailure::Unknown,
        Fault::Unavailable { .. } => {
            // The core sends the same statement again at once.
            tokio::time::sleep(PAUSE).await;
            BatchFailure::NotWritten
        }
    }
}

fn request(parts: &OwnerParts, expect: Epoch, floor: Epoch) -> SeizeRequest {
    let published = parts
        .leases
        .view()
        .floors
        .get(&parts.shard)
        .copied()
        .unwrap_or_default();
    SeizeRequest {
        shard: parts.shard,
        expect,
        floor: published.max(floor),
        nonce: *uuid::Uuid::new_v4().as_bytes(),
        owner: parts.leases.instance().clone(),
        addr: parts.leases.addr().to_owned(),
    }
}

/// Seizes again after a lost writer, until the ledger says yes or no. The same nonce throughout: a try whose answer was
/// lost is found again.
async fn reseize(request: SeizeRequest, ledger: Arc<dyn Ledger>) -> Done {
    loop {
        match ledger.seize(request.clone()).await {
            Ok(seized) => {
                let (epoch, prev_epoch, prev_seq) =
                    (seized.epoch, seized.prev_epoch, seized.prev_seq);
                let input = Input::Reseized {
                    epoch,
                    prev_epoch,
                    prev_seq,
                };
                return Done::Seized {
                    seized: Some(seized),
                    input,
                };
            }
            Err(Fault::Fenced { found, .. }) => {
                let input = Input::SeizeFailed {
                    fenced: Some(found),
                };
                return Done::Seized {
                    seized: None,
                    input,
                };
            }
            Err(error) => {
                tracing::warn!(shard.id = %request.shard, %error, cause = ?std::error::Error::source(&error), "a shard cannot be seized again yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Takes the shard from whoever the ledger names, or says why not.
pub(super) async fn first_seize(parts: &OwnerParts) -> Result<Seized, OwnerExit> {
    let trying = try_first_seize(parts);
    let tried = tokio::time::timeout(CUT_OFF_AFTER, trying).await;
    tried.unwrap_or(Err(OwnerExit::CutOff))
}

async fn try_first_seize(parts: &OwnerParts) -> Result<Seized, OwnerExit> {
    for _ in 0..FIRST_TRIES {
        match parts.ledger.shards().await {
            Ok(rows) => {
                let row = rows.into_iter().find(|row| row.shard == parts.shard);
                let row = row.ok_or(OwnerExit::Fenced)?;
                match parts
                    .ledger
                    .seize(request(parts, row.epoch, Epoch(0)))
                    .await
                {
                    Ok(seized) => return Ok(seized),
                    // Somebody else was faster.
                    Err(Fault::Fenced { .. }) => return Err(OwnerExit::Fenced),
                    Err(error) => {
                        tracing::warn!(shard.id = %parts.shard, %error, cause = ?std::error::Error::source(&error), "a shard cannot be seized yet");
                    }
                }
            }
            Err(error) => {
                tracing::warn!(shard.id = %parts.shard, %error, "the ledger cannot be read yet")
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(OwnerExit::CutOff)
}

/// Runs a move whose place is kept; a try without a known outcome is repeated under its request id.
pub(super) fn move_booking(parts: &OwnerParts, epoch: Epoch, op: MoveOp, reply: ReplyTo) -> Job {
    let (ledger, shard, slot) = (Arc::clone(&parts.ledger), parts.shard, op.to);
    async move {
        // Once a try may have happened, only an answer of the ledger ends this: the place stays kept meanwhile.
        let mut doubtful = false;
        loop {
            match ledger.move_booking(shard, epoch, &op).await {
                Ok(side) => {
                    let of_target = side.slots.iter().find(|count| count.slot == slot);
                    let outcome = of_target.map(count);
                    return Done::Moved { slot, outcome, reply, verdict: side.verdict };
                }
                Err(Fault::Unknown { source, .. }) => {
                    tracing::warn!(shard.id = %shard, error = %source, "a move has no known outcome yet");
                    doubtful = true;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Fault::Unavailable { .. }) if doubtful => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    let refusal = match error {
                        Fault::Fenced { .. } => Refusal::NotOwner,
                        Fault::Constraint { .. } | Fault::Unknown { .. } | Fault::Unavailable { .. } => {
                            Refusal::Unavailable
                        }
                    };
                    let verdict = Verdict::Refused { refusal, claim_version: None };
                    return Done::Moved { slot, outcome: None, reply, verdict };
                }
            }
        }
    }
    .boxed()
}

pub(super) fn catalogue(parts: &OwnerParts) -> Job {
    let (ledger, shard) = (Arc::clone(&parts.ledger), parts.shard);
    async move {
        for _ in 0..FIRST_TRIES {
            match ledger.catalogue(shard).await {
                Ok(catalogue) => return Done::Catalogue(Some(catalogue)),
                Err(error) => {
                    tracing::warn!(shard.id = %shard, %error, "the catalogue cannot be read yet")
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Done::Catalogue(None)
    }
    .boxed()
}

/// Tells the world of a new epoch; the region's manager repeats it when it fails.
pub(super) fn publish_lease(parts: &OwnerParts, epoch: Epoch) -> Job {
    let (leases, shard) = (parts.leases.clone(), parts.shard);
    async move {
        if let Err(error) = leases.publish(shard, epoch).await {
            tracing::debug!(shard.id = %shard, %error, "an epoch could not be published yet");
        }
        Done::Nothing
    }
    .boxed()
}

pub(super) fn expired_holds(parts: &OwnerParts) -> Job {
    let (ledger, shard) = (Arc::clone(&parts.ledger), parts.shard);
    async move {
        match ledger.has_expired_holds(shard).await {
            Ok(true) => Done::Input(Input::SweepDue),
            Ok(false) => Done::Heard,
            // The next tick asks again.
            Err(_) => Done::Unheard,
        }
    }
    .boxed()
}
