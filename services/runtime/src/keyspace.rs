//! One small key-value space in which processes coordinate: members, owners, floors, documents, elections.
//!
//! Two real backends keep one contract: etcd (cluster mode) and a store inside the process (embedded mode).
//! Invariants: revisions only rise; a transaction is whole or absent; a write whose outcome is not known is
//! reported as [`Fault::Unknown`] and never repeated here; a leased key dies with its session. Nothing that must
//! hold for safety may rest on a lease: whoever owns a lease may learn of its loss late.

mod backoff;
mod fault;
mod local;
mod mirror;
mod moment;
mod session;
mod settings;
mod tasks;
mod txn;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::etcd::EtcdBackend;
pub use crate::etcd::{EtcdConfig, EtcdTls};
pub(crate) use backoff::Backoff;
pub(crate) use fault::BoxError;
pub use fault::Fault;
pub(crate) use local::next_origin;
pub use mirror::Mirror;
pub(crate) use mirror::{Change, Feed};
pub(crate) use moment::now;
pub use session::Session;
pub(crate) use session::SessionCore;
pub use settings::RawEtcd;
pub(crate) use tasks::spawn_named;
pub(crate) use txn::{Action, Plan};
pub use txn::{Expect, Outcome, Txn, Write};

/// A key with its value, as it stood at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, opaque here.
    pub value: Bytes,
    /// Revision at which the key last came into being.
    pub create_revision: i64,
    /// Revision of the last write to the key.
    pub mod_revision: i64,
    /// Whether the key dies with a session.
    pub leased: bool,
}

/// A handle on the key space; clones share one backend.
#[derive(Clone)]
pub struct Keyspace {
    backend: Arc<dyn Backend>,
}

/// What a backend does. Arguments have been checked against the limits of [`txn`].
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Fault>;
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Fault>;
    async fn commit(&self, plan: Plan) -> Result<Outcome, Fault>;
    fn mirror(self: Arc<Self>, prefix: &str) -> Mirror;
    fn session(self: Arc<Self>, ttl: Duration) -> Session;
    async fn close(&self);
    /// Tells sessions of this backend from those of another.
    fn origin(&self) -> u64;
}

// === impl Keyspace ===

impl Keyspace {
    /// Opens the key space of an etcd cluster.
    ///
    /// Reads the certificate and credential files, but does not need etcd to answer: a process must be able to
    /// start while etcd is away. [`Mirror::ready`] and [`Session::ready`] say when it has answered.
    ///
    /// # Errors
    /// [`Fault::Invalid`] when the configuration cannot work.
    pub async fn etcd(config: EtcdConfig) -> Result<Self, Fault> {
        Ok(Self {
            backend: Arc::new(EtcdBackend::open(config).await?),
        })
    }

    /// Opens the key space of this process alone. Unleased keys live in the SQLite file at `path` (which this
    /// process then holds exclusively) or, without a path, in memory only. Blocks while the file is read.
    ///
    /// # Errors
    /// [`Fault::Store`] when the file cannot be opened, is in use, or is not ours.
    pub fn local(path: Option<&Path>) -> Result<Self, Fault> {
        Ok(Self {
            backend: Arc::new(local::LocalBackend::open(path)?),
        })
    }

    /// Reads one key, linearizably.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] and the like; reading again is always safe.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Fault> {
        txn::check_key(key)?;
        self.backend.get(key).await
    }

    /// Reads all keys that begin with `prefix`, in key order, linearizably.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] and the like; reading again is always safe.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Fault> {
        txn::check_prefix(prefix)?;
        self.backend.list(prefix).await
    }

    /// Writes one unleased key unconditionally; returns the revision of the write.
    ///
    /// # Errors
    /// [`Fault::Unknown`] if the write may have happened.
    pub async fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Result<i64, Fault> {
        self.write(Txn::new().put(key, value)).await
    }

    /// Removes one key if it exists; returns a revision at which it does not.
    ///
    /// # Errors
    /// [`Fault::Unknown`] if the removal may have happened.
    pub async fn delete(&self, key: impl Into<String>) -> Result<i64, Fault> {
        self.write(Txn::new().delete(key)).await
    }

    /// Does all writes of the transaction at one revision if all its expectations hold, else none.
    ///
    /// # Errors
    /// [`Fault::Unknown`] if the transaction may have happened; [`Fault::SessionLost`] if it names a session whose
    /// lease is gone (then nothing was written).
    pub async fn commit(&self, txn: Txn) -> Result<Outcome, Fault> {
        let (plan, sessions) = txn.plan(self.backend.origin())?;
        let outcome = self.backend.commit(plan).await;
        if matches!(outcome, Err(Fault::SessionLost)) {
            // The store knows better than our clock: have the sessions ask at once.
            sessions.iter().for_each(Session::suspect);
        }
        outcome
    }

    /// Keeps a live copy of all keys that begin with `prefix`. Must be called inside a Tokio runtime.
    pub fn mirror(&self, prefix: &str) -> Mirror {
        Arc::clone(&self.backend).mirror(prefix)
    }

    /// Begins a session whose keys outlive this process by at most about `ttl` (etcd rounds up to whole seconds
    /// and to its own minimum). Must be called inside a Tokio runtime.
    pub fn session(&self, ttl: Duration) -> Session {
        Arc::clone(&self.backend).session(ttl)
    }

    /// Lets go of the local store's file, for an orderly stop: when this returns it may be opened again. Later calls
    /// find the store stopped; leased keys are gone. Does nothing in cluster mode: end the sessions there.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    async fn write(&self, txn: Txn) -> Result<i64, Fault> {
        match self.commit(txn).await? {
            Outcome::Committed { revision } => Ok(revision),
            Outcome::Conflict => {
                unreachable!("a transaction without expectations has nothing to conflict with")
            }
        }
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").finish_non_exhaustive()
    }
}
