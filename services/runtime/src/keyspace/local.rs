//! The key space of a single process: one thread owns the state, everybody else asks it.
//!
//! Invariant: an unleased write is on disk before it is answered or seen in a mirror; leased keys are never on disk.

mod disk;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Backend, Entry, Fault, Feed, Mirror, Outcome, Plan, Session, SessionCore, spawn_named,
};
use disk::Disk;
use store::Store;

/// Coordination is a few writes a second; a longer queue only hides a stuck disk.
const QUEUE_DEPTH_MAX: usize = 1_024;

/// One number for every key space of the process, whatever its backend, so that sessions know their own.
pub(crate) fn next_origin() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(super) struct LocalBackend {
    asks: mpsc::Sender<Ask>,
    origin: u64,
}

enum Ask {
    Get(String, oneshot::Sender<Option<Entry>>),
    List(String, oneshot::Sender<Vec<Entry>>),
    Commit(Plan, oneshot::Sender<Result<Outcome, Fault>>),
    Follow(String, Arc<Feed>),
    Grant(oneshot::Sender<i64>),
    Revoke(i64, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug, thiserror::Error)]
#[error("the store's thread has stopped")]
struct Stopped;

// === impl LocalBackend ===

impl LocalBackend {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Fault> {
        let (disk, entries, revision) = match path {
            None => (None, Vec::new(), 0),
            Some(path) => {
                let (disk, entries, revision) = Disk::open(path).map_err(Fault::store)?;
                (Some(disk), entries, revision)
            }
        };
        let store = Store::new(disk, entries, revision);
        let (asks, queue) = mpsc::channel(QUEUE_DEPTH_MAX);
        std::thread::Builder::new()
            .name("keyspace".to_owned())
            .spawn(move || serve(store, queue))
            .map_err(Fault::store)?;
        Ok(Self {
            asks,
            origin: next_origin(),
        })
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Fault> {
        let key = key.to_owned();
        self.ask(|reply| Ask::Get(key, reply))
            .await
            .map_err(Fault::store)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Fault> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Ask::List(prefix, reply))
            .await
            .map_err(Fault::store)
    }

    async fn commit(&self, plan: Plan) -> Result<Outcome, Fault> {
        // A thread that died with our plan in hand may have written it.
        self.ask(|reply| Ask::Commit(plan, reply))
            .await
            .map_err(Fault::unknown)?
    }

    fn mirror(self: Arc<Self>, prefix: &str) -> Mirror {
        let feed = Feed::new();
        let ask = Ask::Follow(prefix.to_owned(), Arc::clone(&feed));
        let asks = self.asks.clone();
        spawn_named("follow_local", async move {
            if asks.send(ask).await.is_err() {
                tracing::error!("a mirror cannot follow: the local store has stopped");
            }
        });
        // The store drops feeds that nobody else holds, so there is no task to stop.
        Mirror::new(feed, CancellationToken::new(), self)
    }

    fn session(self: Arc<Self>, ttl: Duration) -> Session {
        let core = SessionCore::new(self.origin, ttl);
        let session = Session::new(Arc::clone(&core));
        spawn_named("hold_local_session", async move {
            if let Ok(lease) = self.ask(Ask::Grant).await {
                core.granted(lease, None);
                core.ending.cancelled().await;
                // A thread that has stopped took the leased keys with it.
                let _: Result<(), Stopped> = self.ask(|reply| Ask::Revoke(lease, reply)).await;
            }
            core.ended();
        });
        session
    }

    async fn close(&self) {
        // Stopped before is closed as well.
        let _: Result<(), Stopped> = self.ask(Ask::Close).await;
    }

    fn origin(&self) -> u64 {
        self.origin
    }
}

fn serve(mut store: Store, mut queue: mpsc::Receiver<Ask>) {
    // An asker that has gone away needs no answer: failed sends are ignored throughout.
    while let Some(ask) = queue.blocking_recv() {
        match ask {
            Ask::Get(key, reply) => {
                let _ = reply.send(store.get(&key));
            }
            Ask::List(prefix, reply) => {
                let _ = reply.send(store.list(&prefix));
            }
            Ask::Commit(plan, reply) => {
                let _ = reply.send(store.commit(plan));
            }
            Ask::Follow(prefix, feed) => store.follow(prefix, feed),
            Ask::Grant(reply) => {
                let lease = store.grant();
                if reply.send(lease).is_err() {
                    store.revoke(lease);
                }
            }
            Ask::Revoke(lease, reply) => {
                store.revoke(lease);
                let _ = reply.send(());
            }
            Ask::Close(reply) => {
                store.stop();
                drop(store);
                let _ = reply.send(());
                return;
            }
        }
    }
}
