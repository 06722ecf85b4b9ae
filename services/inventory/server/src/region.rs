//! Keeps the right owners running for one region: claims, takes over, hands over, drains.
//!
//! Invariant: nothing here is needed for safety. A wrong guess costs a duel that the ledger decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Epoch, InstanceId, RegionId, ShardId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use runtime::{Clock, Drain, OnExit, Tasks};
use tokio::sync::mpsc;

use crate::figures::Figures;
use crate::lease::{Leases, OwnerSeen, View};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::owner::{self, OwnerExit, OwnerHandle, OwnerParts, Owners, Pace};
use crate::placement::{self, Member};
use crate::probe::Probes;

/// How often the plan is made again when nothing was heard.
const REPLAN_EVERY: Duration = Duration::from_millis(200);
/// An owner keeps a shard at least this long before it gives it away for balance.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// After a lost duel, so that two claimants do not keep step.
const DUEL_PAUSE: Duration = Duration::from_millis(300);
/// How often a ledger out of reach is asked whether it is back.
const LEDGER_ASKED_EVERY: Duration = Duration::from_millis(500);

/// What the region's manager works with.
pub(crate) struct RegionParts {
    /// The region.
    pub(crate) region: RegionId,
    /// How many shards it has.
    pub(crate) shards: u32,
    /// Its ledger.
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Its capacity leases.
    pub(crate) leases: Leases,
    /// The owners of the process.
    pub(crate) owners: Owners,
    /// Who does not answer.
    pub(crate) probes: Probes,
    /// The clocks.
    pub(crate) clock: Clock,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What the doorkeeper hears.
    pub(crate) figures: Figures,
    /// The process's bound of changes a second.
    pub(crate) pace: Pace,
    /// Where owners' tasks belong.
    pub(crate) tasks: Tasks,
}

struct Running {
    handle: OwnerHandle,
    since: Instant,
    next: Option<Member>,
    draining: bool,
    published: Option<(u64, Epoch)>,
}

struct Region {
    parts: RegionParts,
    running: BTreeMap<ShardId, Running>,
    not_before: BTreeMap<ShardId, Instant>,
    exits: mpsc::UnboundedSender<(ShardId, OwnerExit)>,
    announced: Option<(u64, bool)>,
    /// Ends when the ledger answers again; until then this process takes no shard of the region.
    ledger_back: Option<BoxFuture<'static, ()>>,
}

/// Runs until the process drains and every shard is given away.
pub(crate) async fn run(parts: RegionParts, drain: Drain) {
    let (exits, mut exited) = mpsc::unbounded_channel();
    let mut leases = parts.leases.clone();
    let mut region = Region {
        parts,
        running: BTreeMap::new(),
        not_before: BTreeMap::new(),
        exits,
        announced: None,
        ledger_back: None,
    };
    let mut replan = tokio::time::interval(REPLAN_EVERY);
    replan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut suspicions = region.parts.probes.watch();
    loop {
        let draining = drain.is_draining();
        let unable = draining || region.ledger_back.is_some();
        region.announce(unable).await;
        region.plan(draining, unable).await;
        if draining && region.running.is_empty() {
            return;
        }
        tokio::select! {
            () = leases.changed() => {}
            // Probes end before us when the process drains.
            Ok(()) = suspicions.changed() => {}
            _ = replan.tick() => {}
            () = drain.announced(), if !draining => {}
            Some((shard, exit)) = exited.recv() => region.ended(shard, exit).await,
            () = back(&mut region.ledger_back) => {
                tracing::info!(region = %region.parts.region, "the ledger can be reached again");
                region.ledger_back = None;
            }
        }
    }
}

/// Resolves when a ledger that was out of reach answers again.
async fn back(waiting: &mut Option<BoxFuture<'static, ()>>) {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}

impl Region {
    /// Puts the member key again whenever it is gone or no longer true.
    async fn announce(&mut self, draining: bool) {
        let now = (self.parts.leases.generation(), draining);
        if self.announced == Some(now) || now.0 == 0 {
            return;
        }
        match self.parts.leases.announce(draining).await {
            Ok(()) => self.announced = Some(now),
            Err(error) => tracing::debug!(%error, "the member key could not be put yet"),
        }
    }

    /// Others may reach the ledger: they see this process as one that goes, and take its shards.
    fn cut_off(&mut self) {
        if self.ledger_back.is_some() {
            return;
        }
        tracing::error!(region = %self.parts.region, "the ledger cannot be reached from here");
        let ledger = Arc::clone(&self.parts.ledger);
        let waiting = async move {
            loop {
                tokio::time::sleep(LEDGER_ASKED_EVERY).await;
                if ledger.shards().await.is_ok() {
                    return;
                }
            }
        };
        self.ledger_back = Some(waiting.boxed());
    }

    /// `unable` to take shards: draining, or cut off from the ledger.
    async fn plan(&mut self, draining: bool, unable: bool) {
        if !self.parts.leases.listed() {
            return;
        }
        let view = self.parts.leases.view();
        let me = self.parts.leases.instance().clone();
        let trusted: Vec<Member> = view
            .members
            .iter()
            .filter(|member| member.instance == me || !self.parts.probes.suspect(&member.addr))
            .cloned()
            .collect();
        let peers = view.members.iter().filter(|member| member.instance != me);
        self.parts
            .probes
            .track(&self.parts.region, peers.map(|member| member.addr.clone()));
        for shard in (0..self.parts.shards).map(ShardId) {
            let ranked = placement::ranking(&self.parts.region, shard, &trusted);
            let best = ranked.first().copied();
            if self.running.contains_key(&shard) {
                self.keep(shard, &view, best, draining).await;
            } else if !unable {
                self.maybe_claim(shard, view.owners.get(&shard), best, &trusted, &me)
                    .await;
            }
        }
    }

    /// A shard that this process decides: publish it, or give it to whom it belongs.
    async fn keep(&mut self, shard: ShardId, view: &View, best: Option<&Member>, draining: bool) {
        let me = self.parts.leases.instance();
        let now = self.parts.clock.monotonic();
        let others_moving = self.running.values().any(|running| running.draining);
        let Some(running) = self.running.get_mut(&shard) else {
            return;
        };
        let epoch = running.handle.epoch();
        let belongs = best.filter(|best| best.instance != *me && !best.draining);
        let rebalance = belongs.is_some()
            && !others_moving
            && epoch > Epoch(0)
            && now.saturating_duration_since(running.since) > SETTLED_AFTER;
        if !running.draining && (draining || rebalance) {
            running.draining = true;
            running.next = belongs.cloned();
            running.handle.drain().await;
            return;
        }
        // Floors are published by owners only: somebody has, or had, the shard after this process. Gateways ask there, so
        // nothing else would ever tell the owner here, and the shard would have none once the other gives it away.
        let floor = view.floors.get(&shard).copied().unwrap_or_default();
        if epoch > Epoch(0) && floor > epoch {
            running.handle.doubt();
            return;
        }
        let published = (self.parts.leases.generation(), epoch);
        let in_view = view
            .owners
            .get(&shard)
            .is_some_and(|seen| seen.value.instance == *me && seen.value.epoch == epoch);
        if epoch == Epoch(0)
            || running.draining
            || (in_view && running.published == Some(published))
        {
            return;
        }
        match self.parts.leases.publish(shard, epoch).await {
            Ok(true) => running.published = Some(published),
            // Somebody came between, perhaps with a higher epoch: the ledger knows.
            Ok(false) => running.handle.doubt(),
            Err(error) => {
                tracing::debug!(shard.id = %shard, %error, "an owner key could not be put yet")
            }
        }
    }

    async fn maybe_claim(
        &mut self,
        shard: ShardId,
        seen: Option<&OwnerSeen>,
        best: Option<&Member>,
        trusted: &[Member],
        me: &InstanceId,
    ) {
        if self
            .not_before
            .get(&shard)
            .is_some_and(|at| self.parts.clock.monotonic() < *at)
        {
            return;
        }
        let mine = best.is_some_and(|best| best.instance == *me);
        let wanted = match seen {
            None => mine,
            Some(seen) if seen.value.instance == *me => true,
            Some(seen) => {
                let alive = trusted
                    .iter()
                    .any(|member| member.instance == seen.value.instance);
                mine && !alive
            }
        };
        if !wanted {
            return;
        }
        match self.parts.leases.claim(shard, seen).await {
            Ok(true) => self.start(shard),
            Ok(false) => self.pause(shard),
            Err(error) => {
                tracing::debug!(shard.id = %shard, %error, "a shard could not be claimed");
                self.pause(shard);
            }
        }
    }

    fn pause(&mut self, shard: ShardId) {
        self.not_before
            .insert(shard, self.parts.clock.monotonic() + DUEL_PAUSE);
    }

    fn start(&mut self, shard: ShardId) {
        let (handle, asks, epoch) = OwnerHandle::channel();
        let parts = OwnerParts {
            region: self.parts.region.clone(),
            shard,
            ledger: Arc::clone(&self.parts.ledger),
            leases: self.parts.leases.clone(),
            clock: self.parts.clock.clone(),
            metrics: self.parts.metrics.owner(&self.parts.region),
            load: self.parts.figures.owner(&self.parts.region),
            pace: self.parts.pace.clone(),
        };
        let exits = self.exits.clone();
        self.parts
            .tasks
            .spawn("own_shard", OnExit::Log, async move {
                let exit = owner::run(parts, asks, epoch).await;
                // The region's manager may have ended before: the process is stopping.
                let _ = exits.send((shard, exit));
            });
        self.parts
            .owners
            .insert(&self.parts.region, shard, handle.clone());
        let since = self.parts.clock.monotonic();
        let running = Running {
            handle,
            since,
            next: None,
            draining: false,
            published: None,
        };
        self.running.insert(shard, running);
    }

    async fn ended(&mut self, shard: ShardId, exit: OwnerExit) {
        self.parts.owners.remove(&self.parts.region, shard);
        let Some(running) = self.running.remove(&shard) else {
            return;
        };
        self.pause(shard);
        let given = match exit {
            OwnerExit::Drained => {
                let epoch = running.handle.epoch();
                self.parts
                    .leases
                    .hand_over(shard, epoch, running.next.as_ref())
                    .await
            }
            // The key is the successor's, or will be.
            OwnerExit::Fenced => Ok(()),
            OwnerExit::Regressed => self.parts.leases.hand_over(shard, Epoch(0), None).await,
            OwnerExit::CutOff => {
                self.cut_off();
                let epoch = running.handle.epoch();
                self.parts.leases.hand_over(shard, epoch, None).await
            }
        };
        if let Err(error) = given {
            // Its lease ends with the process, or the successor takes it by force.
            tracing::warn!(shard.id = %shard, %error, "a shard's key could not be handed over");
        }
    }
}

#[cfg(test)]
mod tests;
