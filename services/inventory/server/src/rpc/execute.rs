//! One stream of commands: parse, verify in batches, check admission, hand to owners, answer in any order.
//!
//! Invariant: a command that reached an owner is decided whether or not its stream still lives.

use std::sync::Arc;
use std::time::Duration;

use domain::permit::Permit;
use domain::{Action, BookingId, ClinicId, Op, Refusal, ShardId, Verdict};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use proto::inventory::{Answer, ExecuteRequest, ExecuteResponse, Owner};
use runtime::OnExit;
use runtime::telemetry::TraceContext;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Span;
use uuid::Uuid;

use super::command::{self, Asked, Mutation, Parsed};
use super::{Answers, Shared, answer, departure, leftovers, side, terminal};
use crate::owner::{Answered, Call, CallKind, CallNames, ReplyTo};

/// Commands in one message.
const COMMANDS_MAX: usize = 256;
/// Messages whose permits are being verified at once; more would only wait elsewhere.
const VERIFYING_MAX: usize = 32;
/// Answers in one message.
const ANSWERS_MAX: usize = 256;
/// Answered messages that the gateway has not read.
const UNREAD_MAX: usize = 64;

/// Where a stream's answers come together.
#[derive(Clone)]
pub(super) struct Replies {
    /// From owners and the ledger.
    pub(super) answered: mpsc::UnboundedSender<Answered<Call>>,
    /// Ready to send.
    pub(super) ready: mpsc::UnboundedSender<Answer>,
}

pub(super) fn serve(
    shared: Arc<Shared>,
    commands: Streaming<ExecuteRequest>,
) -> Answers<ExecuteResponse> {
    let (answered, from_owners) = mpsc::unbounded_channel();
    let (ready, from_here) = mpsc::unbounded_channel();
    let (out, messages) = mpsc::channel(UNREAD_MAX);
    let replies = Replies { answered, ready };
    let tasks = shared.tasks.clone();
    tasks.spawn(
        "read_commands",
        OnExit::Ignore,
        read(Arc::clone(&shared), commands, replies),
    );
    tasks.spawn(
        "write_answers",
        OnExit::Ignore,
        write(shared, from_owners, from_here, out),
    );
    Box::pin(ReceiverStream::new(messages))
}

async fn read(shared: Arc<Shared>, mut commands: Streaming<ExecuteRequest>, replies: Replies) {
    let mut verifying = FuturesUnordered::new();
    loop {
        tokio::select! {
            message = commands.next(), if verifying.len() < VERIFYING_MAX => match message {
                Some(Ok(message)) => verifying.push(take(&shared, message, &replies)),
                // The gateway is gone or broke the protocol; what was taken goes on.
                Some(Err(_)) | None => break,
            },
            Some(()) = verifying.next() => {}
            () = shared.over.cancelled() => break,
        }
    }
    while verifying.next().await.is_some() {}
}

async fn take(shared: &Arc<Shared>, message: ExecuteRequest, replies: &Replies) {
    let received = shared.clock.monotonic();
    let mut parsed = Vec::with_capacity(message.commands.len().min(COMMANDS_MAX));
    for (at, command) in message.commands.into_iter().enumerate() {
        let id = command.call_id;
        let one = if at < COMMANDS_MAX {
            let command = terminal::take(shared, command, replies);
            match command.and_then(|command| departure::take(shared, command, replies)) {
                None => continue,
                Some(command) => command::parse(command),
            }
        } else {
            Err((id, Refusal::Overloaded.into()))
        };
        match one {
            Ok(one) => parsed.push(one),
            Err((id, why)) => {
                shared.turned_away(None, why.refusal);
                say(replies, answer::refused(id, why, None));
            }
        }
    }
    let permits = parsed
        .iter_mut()
        .map(|one| std::mem::take(&mut one.permit))
        .collect();
    let verdicts = shared.verifier.verify(permits).await;
    let waited = shared.clock.monotonic().saturating_duration_since(received);
    for (one, permit) in parsed.into_iter().zip(verdicts) {
        let id = one.id;
        // The caller has gone: the work would be for nobody.
        let late = waited >= within(one.timeout_ms);
        let permit = if late {
            Err(Refusal::Overloaded)
        } else {
            permit
        };
        let begun = permit.and_then(|permit| check(shared, &one, permit));
        match begun {
            Ok(permit) => begin(shared, one, permit, waited, replies),
            Err(why) => {
                shared.turned_away(Some(&one.region), why);
                say(replies, answer::refused(id, why.into(), None));
            }
        }
    }
}

/// How long the caller waits from the moment its command came; 0 = it did not say.
pub(super) fn within(timeout_ms: u32) -> Duration {
    const UNSAID: Duration = Duration::from_secs(10);
    match timeout_ms {
        0 => UNSAID,
        ms => Duration::from_millis(ms.into()),
    }
}

fn say(replies: &Replies, answer: Answer) {
    // The stream may be gone.
    let _ = replies.ready.send(answer);
}

/// What holds for every command; admission and campaign come later, because replays and cancellations do not need them.
fn check(shared: &Shared, one: &Parsed, permit: Permit) -> Result<Permit, Refusal> {
    if permit.caller != one.caller {
        return Err(Refusal::PermitForeignCaller);
    }
    if permit.region != one.region {
        return Err(Refusal::PermitForeignRegion);
    }
    if !shared.regions.contains_key(&one.region) {
        return Err(Refusal::NotOwner);
    }
    Ok(permit)
}

/// A change whose permit holds, on its way to a shard.
pub(super) struct Change {
    pub(super) permit: Permit,
    pub(super) call: Call,
    pub(super) mutation: Mutation,
    pub(super) shard: ShardId,
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of command")]
fn begin(shared: &Arc<Shared>, one: Parsed, permit: Permit, waited: Duration, replies: &Replies) {
    let names = Arc::new(CallNames {
        region: one.region.clone(),
    });
    let call = Call {
        id: one.id,
        names,
        kind: one.ask.kind(),
        within: within(one.timeout_ms).saturating_sub(waited),
        span: decide_span(&one),
    };
    let change = |mutation, permit| Change {
        permit,
        call: call.clone(),
        mutation,
        shard: one.shard,
    };
    match one.ask {
        Asked::Take {
            mutation,
            clinic,
            slots,
            kind,
        } => {
            let booking = BookingId(Uuid::new_v4());
            let action = |ttl| match kind {
                CallKind::HoldSlots => Action::Hold {
                    slots,
                    booking,
                    ttl,
                },
                CallKind::Book
                | CallKind::ConfirmHold
                | CallKind::ReleaseHold
                | CallKind::MoveBooking
                | CallKind::CancelBooking
                | CallKind::GetBooking
                | CallKind::JoinLeftovers
                | CallKind::LeaveLeftovers
                | CallKind::ListLeftoverOffers
                | CallKind::AnswerLeftoverOffer => Action::Book { slots, booking },
            };
            match shared.admission.check(&permit) {
                Ok(()) => {
                    shared.figures.came(&permit);
                    let change = change(mutation, permit);
                    decide(shared, change, Some(clinic), action, replies);
                }
                // An earlier try may be recorded only if doors that were open have been closed again.
                Err(why @ (Refusal::RoomPaused | Refusal::RoomEnded)) => {
                    side::replay_or_refuse(shared, change(mutation, permit), why, replies);
                }
                Err(why) => {
                    shared.turned_away(Some(&one.region), why);
                    say(replies, answer::refused(one.id, why.into(), None));
                }
            }
        }
        Asked::Hold {
            mutation,
            hold,
            kind: CallKind::ConfirmHold,
        } => {
            if shared.admission.ended(&permit) {
                let change = change(mutation, permit);
                side::replay_or_refuse(shared, change, Refusal::RoomEnded, replies);
            } else {
                let action = |_| Action::Confirm { hold };
                decide(shared, change(mutation, permit), None, action, replies);
            }
        }
        Asked::Hold { mutation, hold, .. } => {
            decide(
                shared,
                change(mutation, permit),
                None,
                |_| Action::Release { hold },
                replies,
            );
        }
        Asked::Move {
            mutation,
            booking,
            dose,
            to,
        } => {
            side::move_booking(
                shared,
                change(mutation, permit),
                (booking, dose, to),
                replies,
            );
        }
        Asked::Cancel {
            mutation,
            booking,
            dose,
        } => {
            side::cancel(shared, change(mutation, permit), booking, dose, replies);
        }
        Asked::Get { booking } => side::get(shared, permit, call, booking, replies),
        Asked::Leftovers(asked) => leftovers::run(shared, permit, call, asked, replies),
    }
}

/// The call's part of its trace: from here to the answer. Calls without a trace cost nothing.
fn decide_span(one: &Parsed) -> Option<Span> {
    let context: TraceContext = one.traceparent.parse().ok()?;
    let op = one.ask.kind().op();
    let span = tracing::info_span!("decide", op, shard.id = one.shard.0, region = %one.region);
    context.adopt(&span);
    Some(span)
}

/// Hands a change to the shard's owner.
fn decide(
    shared: &Shared,
    change: Change,
    clinic: Option<ClinicId>,
    action: impl FnOnce(Duration) -> Action,
    replies: &Replies,
) {
    let id = change.call.id;
    let campaign = match shared.admission.campaign(&change.permit) {
        Ok(campaign) => campaign,
        Err(why) => {
            shared.turned_away(Some(&change.permit.region), why);
            return say(replies, answer::refused(id, why.into(), None));
        }
    };
    let Some(owner) = shared.owners.get(&change.permit.region, change.shard) else {
        return say(replies, not_owner(shared, &change));
    };
    let ttl = Duration::from_secs(campaign.rules.hold_ttl_secs.into());
    let op = Op {
        claimant: change.permit.claimant(),
        request: change.mutation.request,
        body_hash: change.mutation.body_hash,
        claim_version: change.mutation.version,
        action: action(ttl),
        rules: Arc::clone(&campaign.rules),
    };
    owner.op(
        op,
        clinic,
        ReplyTo::new(change.call, replies.answered.clone()),
    );
}

/// Says who decides the shard, as far as this process heard.
pub(super) fn not_owner(shared: &Shared, change: &Change) -> Answer {
    let owner = shared
        .regions
        .get(&change.permit.region)
        .and_then(|region| {
            let view = region.leases.view();
            let seen = view.owners.get(&change.shard)?;
            Some(Owner {
                epoch: seen.value.epoch.0,
                addr: seen.value.addr.clone(),
            })
        });
    answer::refused(change.call.id, Refusal::NotOwner.into(), owner)
}

/// Gathers what is ready into as few messages as possible. What must be read first never holds up the rest.
async fn write(
    shared: Arc<Shared>,
    mut from_owners: mpsc::UnboundedReceiver<Answered<Call>>,
    mut from_here: mpsc::UnboundedReceiver<Answer>,
    out: mpsc::Sender<Result<ExecuteResponse, Status>>,
) {
    let mut answered = Vec::with_capacity(ANSWERS_MAX);
    let mut answers = Vec::with_capacity(ANSWERS_MAX);
    let mut completing = FuturesUnordered::new();
    let (mut owners_left, mut here_left) = (true, true);
    while owners_left || here_left || !completing.is_empty() {
        tokio::select! {
            count = from_owners.recv_many(&mut answered, ANSWERS_MAX), if owners_left => owners_left = count > 0,
            count = from_here.recv_many(&mut answers, ANSWERS_MAX), if here_left => here_left = count > 0,
            Some(completed) = completing.next() => answers.extend::<Vec<Answer>>(completed),
            () = out.closed() => return,
        }
        let mut incomplete = Vec::new();
        for one in answered.drain(..) {
            if complete(&one) {
                answers.push(answer::answer(one));
            } else {
                incomplete.push(one);
            }
        }
        if !incomplete.is_empty() {
            completing.push(side::complete(&shared, incomplete));
        }
        if answers.is_empty() {
            continue;
        }
        let message = ExecuteResponse {
            answers: std::mem::take(&mut answers),
        };
        if out.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

/// Whether the owner knew every slot that the answer speaks of; a replay may speak of another shard's.
fn complete(answered: &Answered<Call>) -> bool {
    let (Verdict::Done(recorded) | Verdict::Exists(recorded)) = &answered.verdict else {
        return true;
    };
    let [first, second] = &answered.slots;
    !answer::shows_slots(answered.call.kind)
        || (first.is_some() && second.is_some() == recorded.slots.second.is_some())
}
