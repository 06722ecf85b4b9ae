//! One long-lived `Execute` stream that many commands share.
//!
//! Invariant: every command handed over is answered exactly once: by the inventory, or as [`Broken`], which says
//! whether it can have reached the inventory.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::stream::{FuturesUnordered, StreamExt as _};
use proto::inventory::inventory_service_client::InventoryServiceClient;
use proto::inventory::{Command, ExecuteRequest, ExecuteResponse, answer};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::backoff::Backoff;
use super::owners::Internal;

/// What an inventory takes in one message.
const BATCH_MAX: usize = 256;
/// Four batches: beyond that the stream is stuck, and another stream or a refusal serves callers better.
const QUEUE_MAX: usize = 1_024;
/// Opening a stream on a live connection is one round trip.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// Servers ask aged connections to go and cut what is left after 30 s: a younger stream is never cut.
const ROTATE_AFTER: Duration = Duration::from_secs(20);
const REOPEN_FIRST: Duration = Duration::from_millis(20);
const REOPEN_LONGEST: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It never left this process.
    Unsent,
    /// It may have arrived.
    Sent,
}

type Reply = Result<answer::Outcome, Broken>;

/// One stream, renewed as long as the instance exists.
#[derive(Default)]
pub(super) struct Line {
    current: ArcSwapOption<Lane>,
}

/// A stream that is up.
struct Lane {
    asks: mpsc::Sender<Ask>,
    pending: Arc<Pending>,
    next_call: AtomicU64,
}

/// A command on its way to the stream.
struct Ask {
    command: Command,
    reply: Option<oneshot::Sender<Reply>>,
}

/// Who waits for which answer.
#[derive(Default)]
struct Pending(Mutex<HashMap<u64, oneshot::Sender<Reply>>>);

/// An answer to come.
pub(crate) struct Waiting {
    reply: oneshot::Receiver<Reply>,
    call_id: u64,
    pending: Arc<Pending>,
}

// === impl Line ===

impl Line {
    /// Hands a command over; gives it back when the stream is not up or stuck.
    pub(super) fn submit(&self, mut command: Command) -> Result<Waiting, Box<Command>> {
        let current = self.current.load();
        let Some(lane) = current.as_ref() else {
            return Err(Box::new(command));
        };
        let call_id = lane.next_call.fetch_add(1, Ordering::Relaxed);
        command.call_id = call_id;
        let (reply, answer) = oneshot::channel();
        match lane.asks.try_send(Ask {
            command,
            reply: Some(reply),
        }) {
            Ok(()) => Ok(Waiting {
                reply: answer,
                call_id,
                pending: Arc::clone(&lane.pending),
            }),
            Err(mpsc::error::TrySendError::Full(ask) | mpsc::error::TrySendError::Closed(ask)) => {
                Err(Box::new(ask.take_back()))
            }
        }
    }

    /// Keeps a stream up until `stop`. An old stream is read until its last answer while its successor takes over.
    pub(super) async fn keep_up(
        self: Arc<Self>,
        channel: Channel,
        internal: Internal,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::new(REOPEN_FIRST, REOPEN_LONGEST);
        let mut reading = FuturesUnordered::new();
        loop {
            let opened = {
                let opening = open(channel.clone(), &internal);
                let mut opening = std::pin::pin!(opening);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return self.current.store(None),
                        Some(ended) = reading.next() => { self.ended(&ended); }
                        opened = &mut opening => break opened,
                    }
                }
            };
            let up = opened.is_ok();
            let pause = match opened {
                Ok((lane, answers)) => {
                    let lane = Arc::new(lane);
                    // Only the published lane holds the sender: once replaced, its stream half-closes.
                    reading.push(read(Arc::clone(&lane.pending), answers));
                    self.current.store(Some(lane));
                    ROTATE_AFTER.mul_f64(rand::random_range(0.8..=1.0))
                }
                Err(error) => {
                    tracing::debug!(error, "no stream to the inventory");
                    backoff.step()
                }
            };
            let mut paused = std::pin::pin!(tokio::time::sleep(pause));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return self.current.store(None),
                    () = &mut paused => {
                        if up {
                            backoff = Backoff::new(REOPEN_FIRST, REOPEN_LONGEST);
                        }
                        break;
                    }
                    Some(ended) = reading.next() => if self.ended(&ended) {
                        // The stream in use is gone: do not wait for its turn.
                        tokio::time::sleep(backoff.step()).await;
                        break;
                    },
                }
            }
        }
    }

    /// A stream has ended; says whether it was the one in use.
    fn ended(&self, pending: &Arc<Pending>) -> bool {
        let in_use = self
            .current
            .load()
            .as_ref()
            .is_some_and(|lane| Arc::ptr_eq(&lane.pending, pending));
        if in_use {
            self.current.store(None);
        }
        in_use
    }
}

async fn open(
    channel: Channel,
    internal: &Internal,
) -> Result<(Lane, Streaming<ExecuteResponse>), String> {
    let (asks, queue) = mpsc::channel(QUEUE_MAX);
    let pending = Arc::new(Pending::default());
    let outgoing = Outgoing {
        asks: queue,
        pending: Arc::clone(&pending),
        taken: Vec::new(),
    };
    let mut request = Request::new(outgoing);
    internal.sign(request.metadata_mut());
    let mut client = InventoryServiceClient::new(channel)
        .max_decoding_message_size(super::owners::ANSWER_BYTES_MAX);
    match tokio::time::timeout(OPEN_WITHIN, client.execute(request)).await {
        Ok(Ok(answers)) => {
            let lane = Lane {
                asks,
                pending,
                next_call: AtomicU64::new(1),
            };
            Ok((lane, answers.into_inner()))
        }
        Ok(Err(status)) => Err(status.code().description().to_owned()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Hands answers out until the stream ends; whoever still waits then is told so.
async fn read(pending: Arc<Pending>, mut answers: Streaming<ExecuteResponse>) -> Arc<Pending> {
    loop {
        match answers.message().await {
            Ok(Some(batch)) => pending.settle(batch),
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(
                    code = status.code().description(),
                    "stream to the inventory broke"
                );
                break;
            }
        }
    }
    pending.abandon();
    pending
}

// === impl Ask ===

impl Ask {
    fn take_back(mut self) -> Command {
        self.reply = None;
        std::mem::take(&mut self.command)
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            // The asker may have gone; then nobody needs to know.
            let _ = reply.send(Err(Broken::Unsent));
        }
    }
}

// === impl Pending ===

impl Pending {
    fn settle(&self, batch: ExecuteResponse) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for answer in batch.answers {
            let reply = waiting.remove(&answer.call_id);
            if let (Some(reply), Some(outcome)) = (reply, answer.outcome) {
                let _ = reply.send(Ok(outcome));
            }
        }
    }

    fn abandon(&self) {
        let left = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for reply in left.into_values() {
            let _ = reply.send(Err(Broken::Sent));
        }
    }
}

// === impl Waiting ===

impl Waiting {
    pub(super) async fn answer(mut self) -> Reply {
        // A sender that vanished was either answered or stood in a stream that broke.
        (&mut self.reply).await.unwrap_or(Err(Broken::Sent))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pending
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.call_id);
    }
}

/// The sending half: whatever is ready at one moment becomes one message.
struct Outgoing {
    asks: mpsc::Receiver<Ask>,
    pending: Arc<Pending>,
    taken: Vec<Ask>,
}

impl Stream for Outgoing {
    type Item = ExecuteRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ExecuteRequest>> {
        let this = &mut *self;
        loop {
            if ready!(this.asks.poll_recv_many(cx, &mut this.taken, BATCH_MAX)) == 0 {
                return Poll::Ready(None);
            }
            let mut commands = Vec::with_capacity(this.taken.len());
            {
                let mut waiting = this
                    .pending
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                for mut ask in this.taken.drain(..) {
                    // Whoever gave up before it was sent wants nothing done.
                    let Some(reply) = ask.reply.take().filter(|reply| !reply.is_closed()) else {
                        continue;
                    };
                    waiting.insert(ask.command.call_id, reply);
                    commands.push(std::mem::take(&mut ask.command));
                }
            }
            if !commands.is_empty() {
                return Poll::Ready(Some(ExecuteRequest { commands }));
            }
        }
    }
}
