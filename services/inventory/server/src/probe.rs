//! Who does not answer: each process asks the others for a sign of life, so that a dead owner is replaced long before
//! its lease ends. A wrong suspicion costs a duel, never a double booking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::RegionId;
use runtime::tasks::TaskHandle;
use runtime::transport::{ClientSettings, ClientTls, connect};
use runtime::{Drain, OnExit, Tasks};
use tokio::sync::{mpsc, watch};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// How often each peer is asked.
const EVERY: Duration = Duration::from_millis(100);
/// How long one answer may take; a busy machine answers late, a stopped process never.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);
/// Refused connections in a row: the process is gone.
const REFUSED_MAX: u32 = 2;
/// Missing answers in a row: the process is frozen or cut off.
const MISSED_MAX: u32 = 4;

/// How peers are reached.
#[derive(Clone)]
pub struct Connector {
    tls: Option<ClientTls>,
    settings: ClientSettings,
}

impl Connector {
    /// With these certificates and bounds.
    #[must_use]
    pub fn new(tls: Option<ClientTls>, settings: ClientSettings) -> Self {
        Self { tls, settings }
    }
}

/// The peers of this process and whether they answer. Cheap to clone.
#[derive(Clone)]
pub struct Probes {
    wanted: mpsc::UnboundedSender<(RegionId, BTreeSet<String>)>,
    suspects: Arc<ArcSwap<BTreeSet<String>>>,
    changed: watch::Receiver<u64>,
}

impl Probes {
    /// Asks nobody yet.
    #[must_use]
    pub fn start(tasks: &Tasks, drain: &Drain, connector: Connector) -> Self {
        let (wanted, wishes) = mpsc::unbounded_channel();
        let suspects = Arc::new(ArcSwap::default());
        let (change, changed) = watch::channel(0);
        let manager = Manager {
            tasks: tasks.clone(),
            connector,
            suspects: Arc::clone(&suspects),
            change,
            wanted: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        let drain = drain.clone();
        tasks.spawn("manage_probes", OnExit::Log, async move {
            // Who leaves judges nobody any more.
            drain.interrupt(manager.run(wishes)).await;
        });
        Self {
            wanted,
            suspects,
            changed,
        }
    }

    /// The peers that a region has now; others are no longer asked unless another region has them.
    pub fn track(&self, region: &RegionId, addrs: impl Iterator<Item = String>) {
        // The manager lives as long as the process.
        let _ = self.wanted.send((region.clone(), addrs.collect()));
    }

    /// Whether the peer at `addr` does not answer.
    #[must_use]
    pub fn suspect(&self, addr: &str) -> bool {
        self.suspects.load().contains(addr)
    }

    /// Told when a suspicion comes or goes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

struct Manager {
    tasks: Tasks,
    connector: Connector,
    suspects: Arc<ArcSwap<BTreeSet<String>>>,
    change: watch::Sender<u64>,
    wanted: BTreeMap<RegionId, BTreeSet<String>>,
    running: BTreeMap<String, TaskHandle>,
}

impl Manager {
    async fn run(mut self, mut wishes: mpsc::UnboundedReceiver<(RegionId, BTreeSet<String>)>) {
        let (verdicts, mut judged) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                wish = wishes.recv() => {
                    let Some((region, addrs)) = wish else { return };
                    if self.wanted.get(&region) != Some(&addrs) {
                        self.wanted.insert(region, addrs);
                        self.adjust(&verdicts);
                    }
                }
                Some((addr, suspect)) = judged.recv() => self.judge(addr, suspect),
            }
        }
    }

    fn adjust(&mut self, verdicts: &mpsc::UnboundedSender<(String, bool)>) {
        let all: BTreeSet<&String> = self.wanted.values().flatten().collect();
        self.running.retain(|addr, task| {
            let keep = all.contains(addr);
            if !keep {
                task.abort();
            }
            keep
        });
        for addr in all {
            if !self.running.contains_key(addr) {
                let probe = probe(addr.clone(), self.connector.clone(), verdicts.clone());
                let task = self.tasks.spawn("probe_peer", OnExit::Log, probe);
                self.running.insert(addr.clone(), task);
            }
        }
        let gone: Vec<String> = self.suspects.load().iter().cloned().collect();
        for addr in gone {
            if !self.running.contains_key(&addr) {
                self.judge(addr, false);
            }
        }
    }

    fn judge(&mut self, addr: String, suspect: bool) {
        let mut suspects = BTreeSet::clone(&self.suspects.load());
        let changed = if suspect {
            suspects.insert(addr.clone())
        } else {
            suspects.remove(&addr)
        };
        if changed {
            tracing::warn!(owner.addr = addr, suspect, "a peer's answers changed");
            self.suspects.store(Arc::new(suspects));
            self.change.send_modify(|version| *version += 1);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

async fn probe(
    addr: String,
    connector: Connector,
    verdicts: mpsc::UnboundedSender<(String, bool)>,
) {
    let mut client = match connect(&addr, connector.tls, &connector.settings) {
        Ok(channel) => HealthClient::new(channel),
        Err(error) => {
            tracing::warn!(owner.addr = addr, %error, "a peer's address is no address");
            return;
        }
    };
    let (mut refused, mut missed, mut suspect) = (0, 0, false);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let asked = client.check(HealthCheckRequest {
            service: String::new(),
        });
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            // Any answer of the peer's own is a sign of life; a transport error has a source.
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => refused += 1,
            Ok(_) => (refused, missed) = (0, 0),
            Err(_) => missed += 1,
        }
        let now = refused >= REFUSED_MAX || missed >= MISSED_MAX;
        if now != suspect {
            suspect = now;
            if verdicts.send((addr.clone(), now)).is_err() {
                return;
            }
        }
    }
}
