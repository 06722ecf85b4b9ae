//! What clinics' terminals ask: no permit, no owner; decided by the ledger, in the region's turn.
//!
//! Invariant: a command reaches the ledger only if the calling system is that clinic's, whatever the gateway thought.

mod answer;
mod incident;
mod parse;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{ClinicId, Refusal, RegionId, Timestamp};
use proto::inventory::{Answer, Command, SupplyFigures};
use proto::status::Refused;
use runtime::telemetry::TraceContext;
use tracing::{Instrument as _, Span};

use super::Shared;
use super::execute::{Replies, within};
use super::leftovers::{self, Public};
use super::side::{self, Turn};
use crate::ledger::{ClinicOp, ClinicVerdict, Fault, Ledger};

/// The supply figures of a region that were read last, and until when they are fresh. Cheap to clone.
pub type SupplyKept = Arc<tokio::sync::Mutex<Option<(SupplyFigures, Instant)>>>;

/// What is asked, well-formed.
enum Asked {
    Change {
        kind: Kind,
        op: Box<ClinicOp>,
    },
    Sheet {
        clinic: ClinicId,
        day: i32,
        after: Option<(Timestamp, String)>,
        limit: u32,
    },
    Incident(incident::About),
    Supply,
    Leftovers(Public),
}

/// The methods whose answers differ.
#[derive(Clone, Copy, Debug)]
enum Kind {
    DeliverStock,
    RecordWastage,
    SetWalkIns,
    RecordWalkIn,
    OpenSlots,
    ResizeSlot,
    CloseSlots,
    CheckIn,
    RecordDoseGiven,
    RecordNoShow,
    OfferLeftovers,
    CloseLeftovers,
}

/// Takes a clinic's command; gives any other back.
pub(super) fn take(shared: &Arc<Shared>, command: Command, replies: &Replies) -> Option<Command> {
    if !command.action.as_ref().is_some_and(parse::is_terminals) {
        return Some(command);
    }
    let id = command.call_id;
    let patience = within(command.timeout_ms);
    let traceparent = command.traceparent.clone();
    let (region, asked) = match parse::parse(shared, command) {
        Ok(parsed) => parsed,
        Err(why) => {
            say(replies, super::answer::refused(id, why, None));
            return None;
        }
    };
    let Some(ledger) = shared
        .regions
        .get(&region)
        .map(|served| Arc::clone(&served.ledger))
    else {
        let why = Refused::from(Refusal::NotOwner);
        say(replies, super::answer::refused(id, why, None));
        return None;
    };
    let turn = Turn {
        id,
        region: region.clone(),
        within: patience,
    };
    let span = decide_span(&traceparent, asked.op(), &region);
    let shared_too = Arc::clone(shared);
    let work = async move { run(&shared_too, id, region, ledger, asked).await }.instrument(span);
    side::in_turn(shared, "terminal", replies, turn, work);
    None
}

/// The command's part of its trace. Commands without a trace cost nothing.
fn decide_span(traceparent: &str, op: &'static str, region: &RegionId) -> Span {
    let Ok(context) = traceparent.parse::<TraceContext>() else {
        return Span::none();
    };
    let span = tracing::info_span!("decide", op, %region);
    context.adopt(&span);
    span
}

impl Asked {
    fn op(&self) -> &'static str {
        match self {
            Self::Change { op, .. } => op.method(),
            Self::Sheet { .. } => "list_appointments",
            Self::Incident(about) => about.op(),
            Self::Supply => "read_supply",
            Self::Leftovers(Public::Rounds(_)) => "list_leftovers",
            Self::Leftovers(Public::Round(_)) => "get_leftovers",
        }
    }

    /// The region in the name of what everybody may read.
    fn region(&self) -> Option<&RegionId> {
        match self {
            Self::Leftovers(Public::Rounds(name)) => Some(&name.region),
            Self::Leftovers(Public::Round(name)) => Some(&name.clinic.region),
            Self::Change { .. } | Self::Sheet { .. } | Self::Incident(_) | Self::Supply => None,
        }
    }
}

fn say(replies: &Replies, answer: Answer) {
    // The stream may be gone.
    let _ = replies.ready.send(answer);
}

async fn run(
    shared: &Arc<Shared>,
    id: u64,
    region: RegionId,
    ledger: Arc<dyn Ledger>,
    asked: Asked,
) -> Option<Answer> {
    match asked {
        Asked::Change { kind, op } => {
            let verdict = ledger.clinic(&op).await;
            if let Ok(ClinicVerdict::Done(done)) = &verdict
                && !op.dry_run
            {
                let changed: Vec<_> = done.slots.iter().map(|slot| slot.slot).collect();
                side::tell_owners(shared, &region, ledger.as_ref(), &changed).await;
            }
            match verdict {
                Ok(verdict) => Some(answer::change(id, kind, &region, &op.clinic, verdict)),
                Err(error) => side::unavailable(id, &error),
            }
        }
        Asked::Sheet {
            clinic,
            day,
            after,
            limit,
        } => match ledger.day_sheet(&clinic, day, after, limit + 1).await {
            Ok(rows) => Some(answer::sheet(id, rows, limit)),
            Err(error) => side::unavailable(id, &error),
        },
        Asked::Incident(about) => incident::run(shared, id, &region, ledger, about).await,
        Asked::Leftovers(public) => leftovers::read(id, &region, ledger.as_ref(), public).await,
        Asked::Supply => match supply(shared, &region, ledger.as_ref()).await {
            Ok(figures) => Some(answer::supply(id, figures)),
            Err(error) => side::unavailable(id, &error),
        },
    }
}

/// Figures this old are as good as new ones: however many gateways ask, the ledger is read at most this often.
const SUPPLY_FRESH_FOR: Duration = Duration::from_millis(500);

/// The region's figures, read from the ledger at most twice a second and at most a tenth of the time.
async fn supply(
    shared: &Shared,
    region: &RegionId,
    ledger: &dyn Ledger,
) -> Result<SupplyFigures, Fault> {
    let Some(kept) = shared.regions.get(region).map(|served| &served.supply) else {
        return Err(Fault::Unavailable {
            source: "the region is not served".into(),
        });
    };
    // Who comes while it is read waits for it and gets the same figures.
    let mut kept = kept.lock().await;
    let now = shared.clock.monotonic();
    if let Some((figures, until)) = kept.as_ref()
        && now < *until
    {
        return Ok(figures.clone());
    }
    let as_of = shared.clock.wall();
    let rows = ledger.supply().await?;
    let read = shared.clock.monotonic();
    let took = read.saturating_duration_since(now);
    let figures = answer::figures(rows, as_of);
    *kept = Some((figures.clone(), read + SUPPLY_FRESH_FOR.max(took * 9)));
    Ok(figures)
}
