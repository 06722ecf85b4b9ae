//! The task that owns one shard for one or more epochs in a row.
//!
//! Invariant: at most one batch is on its way; memory is the core's alone; every ask is answered once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::{Epoch, Op, Refusal, RegionId, RequestId, ShardId, SlotId, SlotState, Verdict};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use inventory_core::{AskId, Effect, Effects, Input, Limits, Shard, Stop};
use runtime::Clock;
use runtime::telemetry::TraceContext;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::Ask;
use super::exchange::{ReplyTo, SlotLine, Snapshot, Update};
use super::jobs::{self, Done, Job};
use super::pace::Pace;
use crate::figures::OwnerLoad;
use crate::lease::Leases;
use crate::ledger::{Clinic, Ledger, MoveOp, Writer};
use crate::metrics::OwnerMetrics;

/// Changes of a slot within this time are told as one: a gateway's memory is at most this much older.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);
/// How often holds past their deadline are looked for, and silence is broken.
const TICK: Duration = Duration::from_secs(1);
/// Updates a slow watcher may be behind before it has to start over.
const UPDATES_MAX: usize = 1_024;
/// Traced calls remembered until their batch; more go without a link.
const COMMANDS_TRACED_MAX: usize = 8_192;
/// Commands taken from the channel at once.
const INTAKE_MAX: usize = 1_024;

/// What an owner is made of.
pub(crate) struct OwnerParts {
    /// The region.
    pub region: RegionId,
    /// The shard.
    pub shard: ShardId,
    /// The region's ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The region's capacity leases.
    pub leases: Leases,
    /// The clocks.
    pub clock: Clock,
    /// What is counted.
    pub metrics: OwnerMetrics,
    /// What the doorkeeper hears of this owner's load.
    pub load: OwnerLoad,
    /// The process's bound of changes a second.
    pub pace: Pace,
}

/// Why an owner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerExit {
    /// Another owner has the shard, or took it before this one could.
    Fenced,
    /// It finished and gave the shard away.
    Drained,
    /// The ledger went back in time and could not be brought forward.
    Regressed,
    /// The ledger cannot be reached from here.
    CutOff,
}

pub(super) struct Owner {
    pub(super) parts: OwnerParts,
    core: Shard,
    effects: Effects,
    writer: Option<Box<dyn Writer>>,
    asks: HashMap<AskId, Pending>,
    next_ask: u64,
    jobs: FuturesUnordered<Job>,
    slots: BTreeMap<SlotId, SlotLine>,
    clinics: Arc<Vec<Clinic>>,
    unpublished: BTreeMap<SlotId, SlotLine>,
    sequence: u64,
    updates: broadcast::Sender<Update>,
    epoch: watch::Sender<Epoch>,
    stopped: Option<Stop>,
    loading: bool,
    /// The first catalogue has been read.
    catalogued: bool,
    /// Who waits for it.
    watchers: Vec<Watcher>,
    /// Of calls that are part of a sampled trace, until their batch is sent.
    traced: HashMap<RequestId, TraceContext>,
    append_span: Option<tracing::Span>,
    /// When the ledger last answered.
    heard: std::time::Instant,
}

type Watcher = oneshot::Sender<(Snapshot, broadcast::Receiver<Update>)>;

enum Pending {
    Op(ReplyTo),
    Move(Box<MoveOp>, ReplyTo),
}

/// Seizes the shard, then decides for it until it is fenced or drained.
pub(crate) async fn run(
    parts: OwnerParts,
    mut asks: mpsc::Receiver<Ask>,
    epoch: watch::Sender<Epoch>,
) -> OwnerExit {
    let seized = match jobs::first_seize(&parts).await {
        Ok(seized) => seized,
        Err(exit) => {
            refuse_all(&mut asks).await;
            return exit;
        }
    };
    parts.metrics.seized.inc();
    tracing::info!(region = %parts.region, shard.id = %parts.shard, epoch = %seized.epoch, "owner claimed");
    let core = Shard::new(parts.shard, seized.epoch, Limits::default());
    let mut owner = Owner {
        core,
        effects: Effects::default(),
        writer: Some(seized.writer),
        asks: HashMap::new(),
        next_ask: 0,
        jobs: FuturesUnordered::new(),
        slots: BTreeMap::new(),
        clinics: Arc::default(),
        unpublished: BTreeMap::new(),
        sequence: 0,
        updates: broadcast::channel(UPDATES_MAX).0,
        epoch,
        stopped: None,
        loading: false,
        catalogued: false,
        watchers: Vec::new(),
        traced: HashMap::new(),
        append_span: None,
        heard: parts.clock.monotonic(),
        parts,
    };
    owner.came_into_force(seized.epoch);
    let exit = owner.decide(&mut asks).await;
    owner.leave(exit, &mut asks).await;
    exit
}

impl Owner {
    async fn decide(&mut self, asks: &mut mpsc::Receiver<Ask>) -> OwnerExit {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut publish = tokio::time::interval(PUBLISH_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut intake = Vec::with_capacity(INTAKE_MAX);
        loop {
            if let Some(stop) = self.stopped {
                return match stop {
                    Stop::Fenced => OwnerExit::Fenced,
                    Stop::Drained => OwnerExit::Drained,
                    Stop::Regressed => OwnerExit::Regressed,
                    Stop::CutOff => OwnerExit::CutOff,
                };
            }
            tokio::select! {
                biased;
                Some(done) = self.jobs.next() => self.done(done),
                count = asks.recv_many(&mut intake, INTAKE_MAX) => {
                    if count == 0 {
                        // Every handle is gone: the process is stopping.
                        self.input(Input::Drain);
                    }
                    for ask in intake.drain(..) {
                        self.take(ask);
                    }
                }
                _ = publish.tick(), if !self.unpublished.is_empty() => self.publish(),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Op { op, clinic, reply } => {
                let elsewhere = |slot: SlotId| {
                    let known = self.slots.get(&slot).map(|line| &line.slot.clinic);
                    known.is_some_and(|known| Some(known) != clinic.as_ref())
                };
                if op
                    .action
                    .wants()
                    .is_some_and(|slots| slots.iter().any(elsewhere))
                {
                    let refusal = Refusal::SlotUnknown;
                    reply.send(
                        Verdict::Refused {
                            refusal,
                            claim_version: None,
                        },
                        [None, None],
                    );
                    return;
                }
                if let Some(context) = reply
                    .trace()
                    .filter(|_| self.traced.len() < COMMANDS_TRACED_MAX)
                {
                    self.traced.insert(op.request, context);
                }
                let id = self.remember(Pending::Op(reply));
                self.input(Input::Ask { ask: id, op });
            }
            Ask::Move { op, reply } => {
                let slot = op.to;
                let id = self.remember(Pending::Move(op, reply));
                self.input(Input::Reserve { ask: id, slot });
            }
            Ask::Outside(slots) => self.outside(slots),
            Ask::Subscribe(reply) if self.catalogued => {
                self.publish();
                self.answer_watcher(reply);
            }
            // An empty snapshot would make clinics disappear that are only not loaded yet.
            Ask::Subscribe(reply) => self.watchers.push(reply),
            // Any statement is checked against the epoch; this one gives back what expired besides.
            Ask::Doubt => self.input(Input::SweepDue),
            Ask::Drain => self.input(Input::Drain),
        }
    }

    fn answer_watcher(&self, watcher: Watcher) {
        // The watcher may have gone away.
        let _ = watcher.send((self.snapshot(), self.updates.subscribe()));
    }

    fn remember(&mut self, pending: Pending) -> AskId {
        self.next_ask += 1;
        let id = AskId(self.next_ask);
        self.asks.insert(id, pending);
        id
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core
            .handle(self.parts.clock.wall(), input, &mut effects);
        for effect in effects.drain() {
            self.apply(effect);
        }
        self.effects = effects;
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { ask, verdict } => self.reply(ask, verdict),
            Effect::Stop { why } => self.stopped = Some(why),
            Effect::Publish { slots } => {
                for line in slots {
                    if let Some(known) = self.slots.get_mut(&line.slot) {
                        known.left = line.left;
                        if known.slot.capacity != line.capacity || known.slot.open != line.open {
                            let slot = Arc::make_mut(&mut known.slot);
                            (slot.capacity, slot.open) = (line.capacity, line.open);
                        }
                        self.unpublished.insert(line.slot, known.clone());
                    }
                }
            }
            Effect::Alarm { what } => {
                self.parts.metrics.violated(what);
                let (region, shard) = (&self.parts.region, self.parts.shard);
                tracing::error!(%region, shard.id = %shard, alarm = ?what, "an invariant of the shard did not hold");
            }
            Effect::Reserved { ask } => self.run_move(ask),
            work @ (Effect::Load { .. }
            | Effect::Send { .. }
            | Effect::Sweep { .. }
            | Effect::Lookup { .. }
            | Effect::Seize { .. }
            | Effect::ReadVerdicts { .. }) => self.start(work),
        }
    }

    /// Work that ends in another input.
    fn start(&mut self, work: Effect) {
        if let Effect::Send { seq, ops } = &work
            && !self.traced.is_empty()
        {
            self.append_span = Some(self.link(*seq, ops));
        }
        if let Some(job) = jobs::job(&self.parts, &mut self.writer, work) {
            self.jobs.push(job);
        }
    }

    /// A batch links to the calls in it instead of adopting one of them.
    fn link(&mut self, seq: u64, ops: &[Op]) -> tracing::Span {
        let (region, shard, epoch) = (&self.parts.region, self.parts.shard, self.core.epoch());
        let span = tracing::info_span!(parent: None, "append", %region, shard.id = shard.0, epoch = epoch.0, seq, ops = ops.len());
        for op in ops {
            if let Some(context) = self.traced.remove(&op.request) {
                context.link(&span);
            }
        }
        span
    }

    fn run_move(&mut self, ask: AskId) {
        let Some(Pending::Move(op, reply)) = self.asks.remove(&ask) else {
            return;
        };
        self.jobs.push(jobs::move_booking(
            &self.parts,
            self.core.epoch(),
            *op,
            reply,
        ));
    }

    fn done(&mut self, done: Done) {
        let now = self.parts.clock.monotonic();
        match done.heard() {
            Some(true) => self.heard = now,
            // Reads are enough to notice: nothing may ever be sent for slots that cannot be loaded.
            Some(false) if now.saturating_duration_since(self.heard) > jobs::CUT_OFF_AFTER => {
                return self.input(Input::LedgerLost);
            }
            Some(false) | None => {}
        }
        match done {
            Done::Nothing | Done::Heard | Done::Unheard => {}
            Done::Input(input) => {
                if let Input::SlotsLoaded { found, .. } = &input {
                    self.learn(found);
                }
                self.input(input);
            }
            Done::Batch { writer, input } => {
                // The span of the batch ends here.
                self.append_span = None;
                self.writer = writer;
                self.input(input);
            }
            Done::Seized { seized, input } => {
                if let Some(seized) = seized {
                    self.writer = Some(seized.writer);
                    self.input(input);
                    self.came_into_force(seized.epoch);
                } else {
                    self.input(input);
                }
            }
            Done::Moved {
                slot,
                outcome,
                reply,
                verdict,
            } => {
                let slots = self.lines_of(&verdict);
                self.input(Input::Unreserve { slot, outcome });
                reply.send(verdict, slots);
            }
            Done::Catalogue(catalogue) => {
                self.loading = false;
                if let Some(catalogue) = catalogue {
                    self.learn(&catalogue.slots);
                    self.clinics = Arc::new(catalogue.clinics);
                    self.catalogued = true;
                    self.sequence += 1;
                    // Nobody may be watching.
                    let _ = self.updates.send(Update::Restart);
                    self.input(jobs::changed(catalogue.slots));
                    for watcher in std::mem::take(&mut self.watchers) {
                        self.answer_watcher(watcher);
                    }
                } else {
                    self.load_catalogue();
                }
            }
        }
    }

    fn reply(&mut self, ask: AskId, verdict: Verdict) {
        if self.asks.len() <= 1 {
            // Refused from memory: their batch was never sent.
            self.traced.clear();
        }
        let slots = self.lines_of(&verdict);
        self.parts.metrics.count(&verdict);
        match self.asks.remove(&ask) {
            Some(Pending::Op(reply) | Pending::Move(_, reply)) => reply.send(verdict, slots),
            None => tracing::error!(shard.id = %self.parts.shard, "an answer has no caller"),
        }
    }

    fn lines_of(&self, verdict: &Verdict) -> [Option<Arc<SlotState>>; 2] {
        let (Verdict::Done(recorded) | Verdict::Exists(recorded)) = verdict else {
            return [None, None];
        };
        let line = |slot: SlotId| self.slots.get(&slot).map(|line| Arc::clone(&line.slot));
        [
            line(recorded.slots.first),
            recorded.slots.second.and_then(line),
        ]
    }

    fn outside(&mut self, slots: Vec<SlotState>) {
        // A slot or clinic nobody knew: opened by an operator since the catalogue was read.
        if slots
            .iter()
            .any(|slot| !self.slots.contains_key(&slot.slot))
        {
            self.load_catalogue();
        }
        self.learn(&slots);
        self.input(jobs::changed(slots));
    }

    /// Keeps what does not change by booking; what is left is the core's to say.
    fn learn(&mut self, slots: &[SlotState]) {
        for slot in slots {
            let left = self
                .slots
                .get(&slot.slot)
                .map_or_else(|| slot.left(), |line| line.left);
            let line = SlotLine {
                slot: Arc::new(slot.clone()),
                left,
            };
            self.slots.insert(slot.slot, line);
        }
    }

    fn came_into_force(&mut self, epoch: Epoch) {
        self.epoch.send_replace(epoch);
        self.sequence += 1;
        // Nobody may be watching.
        let _ = self.updates.send(Update::Restart);
        self.jobs.push(jobs::publish_lease(&self.parts, epoch));
        self.load_catalogue();
    }

    fn load_catalogue(&mut self) {
        if !std::mem::replace(&mut self.loading, true) {
            self.jobs.push(jobs::catalogue(&self.parts));
        }
    }

    fn tick(&mut self) {
        let depth = self.core.queue_depth();
        self.parts.metrics.queue(depth);
        self.parts.load.queue(depth);
        self.input(Input::Tick);
        self.jobs.push(jobs::expired_holds(&self.parts));
        let update = Update::Alive {
            epoch: self.core.epoch(),
            sequence: self.sequence,
            as_of: self.parts.clock.wall(),
        };
        // Nobody may be watching.
        let _ = self.updates.send(update);
    }

    fn publish(&mut self) {
        if self.unpublished.is_empty() {
            return;
        }
        self.sequence += 1;
        let lines = std::mem::take(&mut self.unpublished)
            .into_values()
            .collect();
        let update = Update::Changes {
            epoch: self.core.epoch(),
            sequence: self.sequence,
            as_of: self.parts.clock.wall(),
            slots: Arc::new(lines),
        };
        // Nobody may be watching.
        let _ = self.updates.send(update);
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            shard: self.parts.shard,
            epoch: self.core.epoch(),
            sequence: self.sequence,
            as_of: self.parts.clock.wall(),
            clinics: Arc::clone(&self.clinics),
            slots: self.slots.values().cloned().collect(),
        }
    }

    /// Answers whoever still waits, and whoever came too late.
    async fn leave(&mut self, exit: OwnerExit, asks: &mut mpsc::Receiver<Ask>) {
        let (region, shard, epoch) = (&self.parts.region, self.parts.shard, self.core.epoch());
        tracing::info!(%region, shard.id = %shard, %epoch, ?exit, "owner ended");
        // Moves under way have their own transactions; their callers hear of them, unless nobody here ever will.
        if exit == OwnerExit::CutOff {
            self.jobs.clear();
        }
        while let Some(done) = self.jobs.next().await {
            if let Done::Moved { reply, verdict, .. } = done {
                let slots = self.lines_of(&verdict);
                reply.send(verdict, slots);
            }
        }
        refuse_all(asks).await;
        for (_, pending) in self.asks.drain() {
            let (Pending::Op(reply) | Pending::Move(_, reply)) = pending;
            reply.send(jobs::not_owner(), [None, None]);
        }
    }
}

/// Answers whoever came too late.
async fn refuse_all(asks: &mut mpsc::Receiver<Ask>) {
    asks.close();
    while let Some(ask) = asks.recv().await {
        if let Ask::Op { reply, .. } | Ask::Move { reply, .. } = ask {
            reply.send(jobs::not_owner(), [None, None]);
        }
    }
}
