//! The inventories this gateway talks to: several connections each, one `Execute` stream on each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use domain::RegionId;
use proto::inventory::Command;
use runtime::secret::Secret;
use runtime::transport::{ClientSettings, ClientTls, connect};
use runtime::{OnExit, Tasks};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;

use super::INTERNAL_HEADER;
use super::line::{Line, Waiting};
use super::table::Addr;
use crate::shedding::{BackEnds, Limiter, Place};

/// A region has tens of members; more addresses than this come from a mistake, not from growth.
const INSTANCES_MAX: usize = 1_024;
/// A shard's snapshot is one message: a hundred thousand slots and their names fit.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Opens channels to our own services and signs calls to them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Option<ClientTls>,
    settings: ClientSettings,
    internal: Internal,
}

/// The shared secret that calls between our services carry.
#[derive(Clone)]
pub(crate) struct Internal(MetadataValue<Ascii>);

/// The shared secret is no header value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared secret must be visible ASCII without blanks at its ends")]
pub struct NotAHeader;

/// All inventories by address. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Owners(Arc<Inner>);

struct Inner {
    connector: Connector,
    lines_each: usize,
    limits: BackEnds,
    tasks: Tasks,
    stop: CancellationToken,
    instances: ArcSwap<BTreeMap<Addr, Arc<Instance>>>,
    /// Who needs which addresses; an address that nobody needs is let go. Also guards changes of `instances`.
    wanted: Mutex<BTreeMap<RegionId, BTreeSet<Addr>>>,
}

/// One inventory process.
pub(super) struct Instance {
    lines: Vec<Arc<Line>>,
    next: AtomicUsize,
    limiter: Arc<Limiter>,
    stop: CancellationToken,
}

// === impl Connector ===

impl Connector {
    pub(crate) fn new(
        tls: Option<ClientTls>,
        settings: ClientSettings,
        secret: &Secret,
    ) -> Result<Self, NotAHeader> {
        let text = secret
            .expose_str()
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let mut value: MetadataValue<Ascii> =
            text.and_then(|text| text.parse().ok()).ok_or(NotAHeader)?;
        value.set_sensitive(true);
        Ok(Self {
            tls,
            settings,
            internal: Internal(value),
        })
    }

    pub(crate) fn channel(&self, addr: &str) -> Result<Channel, runtime::transport::Fault> {
        connect(addr, self.tls.clone(), &self.settings)
    }

    pub(crate) fn internal(&self) -> &Internal {
        &self.internal
    }
}

// === impl Internal ===

impl Internal {
    pub(crate) fn sign(&self, metadata: &mut MetadataMap) {
        metadata.insert(INTERNAL_HEADER, self.0.clone());
    }
}

// === impl Owners ===

impl Owners {
    /// Streams live until `stop`.
    pub(crate) fn new(
        connector: Connector,
        lines_each: usize,
        limits: BackEnds,
        tasks: Tasks,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            connector,
            lines_each,
            limits,
            tasks,
            stop,
            instances: ArcSwap::default(),
            wanted: Mutex::default(),
        }))
    }

    /// The instance at `addr`, whether it is connected or not.
    pub(super) fn instance(&self, addr: &Addr) -> Option<Arc<Instance>> {
        let known = self.0.instances.load().get(addr).map(Arc::clone);
        // Heard of from another instance before the key space told: connect, the next attempt finds it.
        known.or_else(|| self.0.add(addr))
    }

    /// What a region needs; streams to addresses that no region needs any more are ended.
    pub(crate) fn want(&self, region: &RegionId, addrs: BTreeSet<Addr>) {
        for addr in &addrs {
            if !self.0.instances.load().contains_key(addr) {
                self.0.add(addr);
            }
        }
        let mut wanted = self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.insert(region.clone(), addrs);
        let all: BTreeSet<&Addr> = wanted.values().flatten().collect();
        let before = self.0.instances.load_full();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = before
            .iter()
            .map(|(a, i)| (Arc::clone(a), Arc::clone(i)))
            .partition(|(a, _)| all.contains(a));
        if !gone.is_empty() {
            self.0.instances.store(Arc::new(kept));
            gone.values().for_each(|instance| instance.stop.cancel());
        }
    }
}

impl Inner {
    fn add(&self, addr: &Addr) -> Option<Arc<Instance>> {
        let _changing = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.instances.load_full();
        if let Some(instance) = before.get(addr) {
            return Some(Arc::clone(instance));
        }
        if before.len() >= INSTANCES_MAX {
            tracing::error!(
                count = before.len(),
                "too many inventory addresses; one is left out"
            );
            return None;
        }
        let stop = self.stop.child_token();
        let mut lines = Vec::with_capacity(self.lines_each);
        for _ in 0..self.lines_each {
            let channel = match self.connector.channel(addr) {
                Ok(channel) => channel,
                Err(error) => {
                    let error = runtime::fields::chain(&error);
                    tracing::error!(error, "an inventory announced an address that is none");
                    return None;
                }
            };
            let line = Arc::new(Line::default());
            let up =
                Arc::clone(&line).keep_up(channel, self.connector.internal.clone(), stop.clone());
            self.tasks.spawn("execute_stream", OnExit::Log, up);
            lines.push(line);
        }
        let instance = Arc::new(Instance {
            lines,
            next: AtomicUsize::new(0),
            limiter: self.limits.limiter(),
            stop,
        });
        let mut after = BTreeMap::clone(&before);
        after.insert(Arc::clone(addr), Arc::clone(&instance));
        self.instances.store(Arc::new(after));
        Some(instance)
    }
}

impl Instance {
    /// A place among its calls, or none when it has enough to do. `again`: the call was let in before.
    pub(super) fn enter(&self, again: bool) -> Option<Place> {
        self.limiter.enter(again)
    }

    /// Hands a command over; `None` when the instance is not connected.
    pub(super) fn submit(&self, mut command: Command) -> Option<Waiting> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for offset in 0..self.lines.len() {
            let line = &self.lines[first.wrapping_add(offset) % self.lines.len()];
            match line.submit(command) {
                Ok(waiting) => return Some(waiting),
                Err(back) => command = *back,
            }
        }
        None
    }
}
