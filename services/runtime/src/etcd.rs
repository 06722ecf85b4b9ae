//! The key space over an etcd cluster.
//!
//! The client library brings the messages and nothing else: connections, time limits, resuming watches and keeping
//! leases alive are done here. Invariant: no call waits without a bound, and no write is sent twice unless the first
//! sending is known not to have left this machine.

mod calls;
mod clients;
mod fault;
mod lease;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, TxnOp};

use crate::keyspace::{
    Action, Backend, Entry, Fault, Feed, Mirror, Outcome, Plan, Session, SessionCore, next_origin,
    spawn_named,
};
use calls::Repeat;
use clients::Pool;

/// Room documents with their closed buckets are the largest listings; a thousand of 32 KiB still fit.
const MESSAGE_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// How to reach an etcd cluster, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `host:port` or URLs of the members; one is used at a time, the next when it fails.
    pub endpoints: Vec<String>,
    /// TLS; without it connections are plain.
    pub tls: Option<EtcdTls>,
    /// A file with one line `user:password`, when etcd has authentication on and certificates do not name the user.
    pub credentials_file: Option<PathBuf>,
    /// Bound of each single request.
    pub request_timeout: Duration,
    /// Bound of opening a connection.
    pub connect_timeout: Duration,
    /// A watch on which nothing was heard for this long is opened anew.
    pub watch_silence: Duration,
}

/// Files for TLS to etcd.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// Certificates of the authorities that etcd's certificates are signed by (PEM).
    pub ca_file: PathBuf,
    /// Our certificate chain and its key (PEM), when etcd asks for client certificates.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name to expect in etcd's certificate when it is not the host of the endpoint.
    pub server_name: Option<String>,
}

/// One cluster, seen through two sets of connections: a stream that is stuck must not delay a request.
pub(crate) struct EtcdBackend {
    config: EtcdConfig,
    requests: Pool,
    streams: Pool,
    origin: u64,
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// The defaults: 2 s per request, 1 s to connect, 3 s of silence.
    #[must_use]
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            credentials_file: None,
            request_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            watch_silence: Duration::from_secs(3),
        }
    }
}

// === impl EtcdBackend ===

impl EtcdBackend {
    pub(crate) async fn open(config: EtcdConfig) -> Result<Self, Fault> {
        let options = clients::options(&config).await?;
        let endpoints = clients::endpoints(&config)?;
        Ok(Self {
            requests: Pool::new(endpoints.clone(), options.clone(), config.connect_timeout),
            streams: Pool::new(endpoints, options, config.connect_timeout),
            origin: next_origin(),
            config,
        })
    }

    /// Lists a prefix with the revision and the cluster it holds for.
    async fn listing(&self, prefix: &str) -> Result<Listing, Fault> {
        let mut answer = self
            .call(Repeat::Reads, move |client| async move {
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MESSAGE_BYTES_MAX);
                kv.get(prefix, Some(GetOptions::new().with_prefix())).await
            })
            .await?;
        let header = answer.take_header();
        Ok(Listing {
            revision: header
                .as_ref()
                .map_or(0, etcd_client::ResponseHeader::revision),
            cluster: header
                .as_ref()
                .map_or(0, etcd_client::ResponseHeader::cluster_id),
            entries: answer.take_kvs().into_iter().filter_map(entry).collect(),
        })
    }
}

struct Listing {
    revision: i64,
    cluster: u64,
    entries: Vec<Entry>,
}

#[async_trait]
impl Backend for EtcdBackend {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Fault> {
        let mut answer = self
            .call(Repeat::Reads, move |client| async move {
                client.kv_client().get(key, None).await
            })
            .await?;
        Ok(answer.take_kvs().pop().and_then(entry))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Fault> {
        Ok(self.listing(prefix).await?.entries)
    }

    async fn commit(&self, plan: Plan) -> Result<Outcome, Fault> {
        let txn = transaction(plan);
        let answer = self
            .call(Repeat::Writes, |client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            })
            .await?;
        if !answer.succeeded() {
            return Ok(Outcome::Conflict);
        }
        Ok(Outcome::Committed {
            revision: answer
                .header()
                .map_or(0, etcd_client::ResponseHeader::revision),
        })
    }

    fn mirror(self: Arc<Self>, prefix: &str) -> Mirror {
        let feed = Feed::new();
        let stop = tokio_util::sync::CancellationToken::new();
        let mirror = Mirror::new(Arc::clone(&feed), stop.clone(), Arc::clone(&self) as _);
        let prefix = prefix.to_owned();
        spawn_named("mirror_etcd", async move {
            stop.run_until_cancelled(watch::follow(&self, &prefix, &feed))
                .await;
        });
        mirror
    }

    fn session(self: Arc<Self>, ttl: Duration) -> Session {
        let core = SessionCore::new(self.origin, ttl);
        let session = Session::new(Arc::clone(&core));
        spawn_named("hold_etcd_session", async move {
            lease::hold(&self, &core).await
        });
        session
    }

    /// Connections close when the last handle is dropped.
    async fn close(&self) {}

    fn origin(&self) -> u64 {
        self.origin
    }
}

fn transaction(plan: Plan) -> etcd_client::Txn {
    let expect: Vec<_> = plan
        .expect
        .into_iter()
        .map(|(key, expect)| Compare::mod_revision(key, CompareOp::Equal, expect.mod_revision()))
        .collect();
    let writes: Vec<_> = plan
        .actions
        .into_iter()
        .map(|action| match action {
            Action::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease));
                TxnOp::put(key, value, options)
            }
            Action::Delete { key } => TxnOp::delete(key, None),
        })
        .collect();
    etcd_client::Txn::new().when(expect).and_then(writes)
}

/// `None` for a key that is no text: not one of ours, and nothing here could name it.
fn entry(pair: KeyValue) -> Option<Entry> {
    let (create_revision, mod_revision) = (pair.create_revision(), pair.mod_revision());
    let leased = pair.lease() != 0;
    let (key, value) = pair.into_key_value();
    Some(Entry {
        key: String::from_utf8(key).ok()?,
        value: value.into(),
        create_revision,
        mod_revision,
        leased,
    })
}
