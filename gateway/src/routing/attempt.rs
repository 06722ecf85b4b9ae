//! One command until its answer: finds who decides, asks, and asks again where that is safe and can help.
//!
//! Invariant: an answer that somebody decided is passed on as it is; what is repeated carries the same `request_id`;
//! when time is over, the caller is told OUTCOME_UNKNOWN exactly if something may have been written.

use std::sync::Arc;
use std::time::Duration;

use domain::{CallingSystem, ClaimVersion, ClinicId, Epoch, Refusal, RegionId};
use proto::inventory::{self, Command, answer, command};
use proto::status::Refused;
use runtime::fields;
use runtime::telemetry::TraceContext;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::backoff::Backoff;
use super::line::Broken;
use super::owners::Owners;
use super::routes::{RegionRoutes, Routes};
use super::table::Addr;
use super::target::{NotYet, Target, any_member, owner_of};
use super::verb::permit_of;
use crate::availability::Availability;
use crate::metrics::{GatewayMetrics, Retry};
use crate::room::Rooms;
use crate::shedding::{Class, Gates, Heard};

const WAIT_FIRST: Duration = Duration::from_millis(10);
/// A take-over is done in under a second; waiting longer than this would be most of it.
const WAIT_LONGEST: Duration = Duration::from_millis(200);
/// How long an inventory's copy of a room may be behind ours.
const NOT_ADMITTED_FOR: Duration = Duration::from_secs(2);
/// Any member can answer a command that no shard decides: a silent one is left for the next after this, and each next
/// one is given twice as long, so that a slow region is not asked ever more often.
const ANY_MEMBER_WITHIN: Duration = Duration::from_secs(1);

/// What asking again can change, without a word from the caller. OVERLOADED is not in it: that is for callers.
const REPEATED: [(Refusal, Retry); 4] = [
    (Refusal::WrongShard, Retry::WrongShard),
    (Refusal::Unavailable, Retry::Unavailable),
    (Refusal::OutcomeUnknown, Retry::Unknown),
    (Refusal::NotAdmitted, Retry::NotAdmitted),
];

/// What is asked, by whom, of which clinic, until when.
pub(crate) struct Call {
    pub(crate) caller: CallingSystem,
    /// The caller is an operator, who may act for any clinic where the method allows it.
    pub(crate) oversees: bool,
    pub(crate) region: RegionId,
    /// The clinic whose shard decides; `None` where any member of the region can answer.
    pub(crate) clinic: Option<ClinicId>,
    pub(crate) deadline: Instant,
    pub(crate) action: command::Action,
}

/// Answers calls by asking inventories. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Router(Arc<Inner>);

struct Inner {
    routes: Routes,
    owners: Owners,
    availability: Availability,
    rooms: Rooms,
    gates: Gates,
    metrics: GatewayMetrics,
}

/// A call under way.
struct Attempts<'a> {
    router: &'a Inner,
    call: &'a Call,
    region: &'a RegionRoutes,
    changes: watch::Receiver<u64>,
    waits: Backoff,
    /// Drawn, so that members are asked alike.
    start: usize,
    tries: usize,
    /// Tries that nobody answered in time.
    silences: u32,
    /// Whom an instance named for a command that no shard decides.
    named: Option<Addr>,
    not_admitted_since: Option<Instant>,
    /// Some instance had a place for it: from then on no other one refuses it for load.
    let_in: bool,
    /// Instances that had none.
    full: usize,
    /// Something may have been written that nobody has told us of.
    in_doubt: bool,
}

enum Next {
    Done(Result<answer::Outcome, Refused>),
    /// Ask again: at once if there is a better route already, else after a short wait.
    Again {
        why: Retry,
        at_once: bool,
    },
}

// === impl Router ===

impl Router {
    pub(crate) fn new(
        routes: Routes,
        owners: Owners,
        availability: Availability,
        rooms: Rooms,
        gates: Gates,
        metrics: GatewayMetrics,
    ) -> Self {
        Self(Arc::new(Inner {
            routes,
            owners,
            availability,
            rooms,
            gates,
            metrics,
        }))
    }

    /// The answer that an inventory gave, or why there is none.
    pub(crate) async fn ask(&self, call: Call) -> Result<answer::Outcome, Refused> {
        let inner = &*self.0;
        let Some(region) = inner.routes.region(&call.region) else {
            return Err(crate::rpc::unknown_region());
        };
        let mut attempts = Attempts {
            router: inner,
            call: &call,
            region,
            changes: region.changes(),
            waits: Backoff::new(WAIT_FIRST, WAIT_LONGEST),
            start: rand::random_range(0..1_024),
            tries: 0,
            silences: 0,
            named: None,
            not_admitted_since: None,
            let_in: false,
            full: 0,
            in_doubt: false,
        };
        match timeout_at(call.deadline, attempts.run()).await {
            Ok(ended) => ended,
            Err(_) if attempts.in_doubt => Err(Refusal::OutcomeUnknown.into()),
            Err(_) => Err(Refusal::Unavailable.into()),
        }
    }
}

// === impl Attempts ===

impl Attempts<'_> {
    async fn run(&mut self) -> Result<answer::Outcome, Refused> {
        loop {
            // Marked before the route is read: a change after that ends the wait.
            self.changes.mark_unchanged();
            let next = match self.target()? {
                Ok(target) => self.attempt(target).await,
                Err(NotYet) => Next::Again {
                    why: Retry::NoRoute,
                    at_once: false,
                },
            };
            self.tries += 1;
            match next {
                Next::Done(ended) => return ended,
                Next::Again { why, at_once } => {
                    self.router.metrics.retried(why);
                    if !at_once {
                        self.wait().await;
                    }
                }
            }
        }
    }

    async fn wait(&mut self) {
        let wait = self.waits.step();
        // The sender lives as long as the region's routes, so a change is the only early end.
        let _ = tokio::time::timeout(wait, self.changes.changed()).await;
    }

    fn target(&self) -> Result<Result<Target, NotYet>, Refused> {
        match (&self.call.clinic, &self.named) {
            (Some(clinic), _) => {
                let region = self.router.availability.region(&self.call.region);
                owner_of(clinic, region.map(AsRef::as_ref), self.region)
            }
            (None, Some(addr)) => Ok(Ok(Target {
                addr: Arc::clone(addr),
                shard: None,
            })),
            (None, None) => Ok(any_member(&self.region.known(), self.start + self.tries)),
        }
    }

    async fn attempt(&mut self, target: Target) -> Next {
        let span = tracing::debug_span!(
            target: fields::RPC_TARGET,
            "route",
            region = %self.call.region,
            shard.id = target.shard.map(|(shard, _)| shard.0),
            epoch = target.shard.map(|(_, epoch)| epoch.0),
            attempt = self.tries,
        );
        let Some(instance) = self.router.owners.instance(&target.addr) else {
            return self.unreachable();
        };
        let Some(place) = instance.enter(self.let_in) else {
            return self.another_or_none(&target);
        };
        let command = self.command(&target, &span);
        let began = Instant::now();
        let Some(waiting) = instance.submit(command) else {
            return self.unreachable();
        };
        self.let_in = true;
        // Until an answer says otherwise; also if the deadline ends this future here.
        let doubt_before = std::mem::replace(&mut self.in_doubt, true);
        let patience = ANY_MEMBER_WITHIN * (1 << self.silences.min(8));
        let reply = async {
            tokio::select! {
                biased;
                reply = waiting.answer() => Some(reply),
                () = superseded(&mut self.changes, self.region, &target, patience) => None,
            }
        }
        .instrument(span)
        .await;
        match reply {
            Some(Ok(outcome)) => {
                self.router.gates.waited(Class::Commands, began.elapsed());
                place.answered(load_told_by(&outcome), began);
                if let answer::Outcome::Refused(refused) = outcome {
                    self.refused(&target, refused, doubt_before)
                } else {
                    Next::Done(Ok(outcome))
                }
            }
            Some(Err(Broken::Unsent)) => {
                self.in_doubt = doubt_before;
                self.unreachable()
            }
            Some(Err(Broken::Sent)) => {
                self.named = None;
                Next::Again {
                    why: Retry::Broken,
                    at_once: false,
                }
            }
            None => {
                self.silences += 1;
                Next::Again {
                    why: Retry::Superseded,
                    at_once: true,
                }
            }
        }
    }

    fn unreachable(&mut self) -> Next {
        self.named = None;
        Next::Again {
            why: Retry::Unreachable,
            at_once: false,
        }
    }

    /// The instance has enough to do: where any member can answer, another one is asked; else the caller returns later.
    fn another_or_none(&mut self, target: &Target) -> Next {
        self.named = None;
        self.full += 1;
        if target.shard.is_none() && self.full < self.region.known().members.len() {
            return Next::Again {
                why: Retry::Full,
                at_once: true,
            };
        }
        Next::Done(Err(self.router.gates.turn_away(Class::Commands)))
    }

    fn command(&self, target: &Target, span: &tracing::Span) -> Command {
        let left = self.call.deadline.saturating_duration_since(Instant::now());
        Command {
            call_id: 0,
            caller: self.call.caller.as_str().to_owned(),
            oversees: self.call.oversees,
            region: self.call.region.as_str().to_owned(),
            shard: target.shard.map_or(0, |(shard, _)| shard.0),
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            traceparent: TraceContext::of(span)
                .map(|c| c.to_string())
                .unwrap_or_default(),
            action: Some(self.call.action.clone()),
        }
    }

    fn refused(
        &mut self,
        target: &Target,
        refused: inventory::Refused,
        doubt_before: bool,
    ) -> Next {
        let refusal = Refusal::from_code(&refused.reason).unwrap_or_else(|| {
            tracing::warn!("an inventory refused for a reason that this gateway does not know");
            Refusal::Unavailable
        });
        // A refusal says that this attempt wrote nothing; an unknown outcome says the opposite of that.
        self.in_doubt = doubt_before || refusal == Refusal::OutcomeUnknown;
        if refusal != Refusal::NotAdmitted {
            self.not_admitted_since = None;
        }
        let named = self.named.take();
        if refusal == Refusal::NotOwner {
            let at_once = self.redirected(target, refused.owner.as_ref(), named.as_ref());
            return Next::Again {
                why: Retry::NotOwner,
                at_once,
            };
        }
        let why = REPEATED
            .iter()
            .find(|(repeated, _)| *repeated == refusal)
            .map(|(_, why)| *why);
        match why {
            Some(Retry::NotAdmitted) if !self.is_behind() => {}
            Some(why) => {
                return Next::Again {
                    why,
                    at_once: false,
                };
            }
            None => {}
        }
        Next::Done(Err(into_refused(refusal, refused)))
    }

    /// Follows a hint; says whether it leads anywhere new.
    fn redirected(
        &mut self,
        target: &Target,
        hint: Option<&inventory::Owner>,
        already_named: Option<&Addr>,
    ) -> bool {
        let Some(hint) = hint.filter(|hint| !hint.addr.is_empty() && hint.addr.len() <= 255) else {
            return false;
        };
        let addr = Addr::from(hint.addr.as_str());
        match target.shard {
            Some((shard, _)) => self.region.learn(shard, Epoch(hint.epoch), &addr),
            // Two instances that name each other must not be asked in turns without a pause.
            None => {
                let news = addr != target.addr && already_named.is_none();
                self.named = news.then_some(addr);
                news
            }
        }
    }

    /// The inventory says not admitted, our own room says admitted: it will hear within moments what we heard.
    fn is_behind(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.not_admitted_since.get_or_insert(now);
        now.duration_since(since) < NOT_ADMITTED_FOR
            && self.router.rooms.admits(permit_of(&self.call.action))
    }
}

/// What an answer says about the load of who gave it. Only what was looked at in the ledger took the time that everything
/// takes; a shard on its way elsewhere and a request that was wrong say nothing.
fn load_told_by(outcome: &answer::Outcome) -> Heard {
    let answer::Outcome::Refused(refused) = outcome else {
        return Heard::Decided;
    };
    match Refusal::from_code(&refused.reason) {
        Some(Refusal::Overloaded) => Heard::Refused,
        Some(Refusal::NotOwner) | None => Heard::Nothing,
        Some(known) if REPEATED.iter().any(|(repeated, _)| *repeated == known) => Heard::Nothing,
        Some(_) if refused.claim_version.is_some() => Heard::Decided,
        Some(_) => Heard::Nothing,
    }
}

/// Resolves when asking this target is no longer the right thing to do.
async fn superseded(
    changes: &mut watch::Receiver<u64>,
    region: &RegionRoutes,
    target: &Target,
    patience: Duration,
) {
    let Some((shard, epoch)) = target.shard else {
        return tokio::time::sleep(patience).await;
    };
    loop {
        if region.route(shard).is_some_and(|route| route.epoch > epoch) {
            return;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn into_refused(refusal: Refusal, refused: inventory::Refused) -> Refused {
    let mut out = Refused::from(refusal);
    if refused.retry_after_ms > 0 {
        out = out.retry_in(Duration::from_millis(u64::from(refused.retry_after_ms)));
    }
    out.violations = refused
        .violations
        .into_iter()
        .map(|v| (v.field, v.problem))
        .collect();
    out.with_claim_version(refused.claim_version.map(ClaimVersion))
}
