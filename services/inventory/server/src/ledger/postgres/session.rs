//! Sessions: how they are opened, set up and watched.
//!
//! Invariant: once set up, a session ends at the first notice of the server. The notice of an unreplicated commit comes
//! before the end of its answer, so the statement is then seen as lost, never as done.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use super::trouble::{NoAnswer, Trouble};
use super::{Bounds, PostgresLedger};
use crate::ledger::Fault;

/// What holds for every session.
///
/// The plans are made once, often while the tables are still empty and never analysed: every statement has its index,
/// so all other ways are switched off, rather than left to statistics that do not exist yet. (Switched off means very
/// expensive to the planner, which would then compile each plan: hence no jit.)
const ALWAYS: &str = "SET client_min_messages = warning; \
    SET default_transaction_isolation = 'read committed'; \
    SET idle_in_transaction_session_timeout = '10s'; \
    SET plan_cache_mode = force_generic_plan; \
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET random_page_cost = 1; \
    SET jit = off;";

/// What a session is set up with.
#[derive(Clone, Debug)]
pub(super) struct Settings(String);

impl Settings {
    /// For reads, moves and cancellations.
    pub(super) fn pooled(bounds: Bounds) -> Self {
        Self(format!(
            "{ALWAYS} SET statement_timeout = {}; SET lock_timeout = {};",
            bounds.statement.as_millis(),
            bounds.lock.as_millis()
        ))
    }

    /// For a shard's owner. No timeout of the server: a batch that is cancelled while it commits is done and not
    /// replicated at the same time.
    pub(super) fn owner(bounds: Bounds) -> Self {
        Self(format!(
            "{ALWAYS} SET statement_timeout = 0; SET lock_timeout = {};",
            bounds.lock.as_millis()
        ))
    }
}

/// Opens sessions.
#[derive(Clone)]
pub(super) struct Connector {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    settings: Option<Settings>,
}

impl Connector {
    pub(super) fn new(config: tokio_postgres::Config, tls: Option<rustls::ClientConfig>) -> Self {
        Self {
            config,
            tls: tls.map(MakeRustlsConnect::new),
            settings: None,
        }
    }

    pub(super) fn with(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Opens a session of its own.
    pub(super) async fn open(&self, within: Duration) -> Result<Session, Trouble> {
        match tokio::time::timeout(within, self.start()).await {
            Ok(Ok((client, driver))) => Ok(Session {
                client,
                _driver: AbortOnDropHandle::new(driver),
            }),
            Ok(Err(error)) => Err(Trouble::unsent(error)),
            Err(_) => Err(Trouble::Unreachable(Box::new(NoAnswer(within)))),
        }
    }

    async fn start(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let strict = Arc::new(AtomicBool::new(false));
        let (client, driver) = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, spawn(connection, Arc::clone(&strict)))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                (client, spawn(connection, Arc::clone(&strict)))
            }
        };
        if let Some(Settings(sql)) = &self.settings {
            let driver = AbortOnDropHandle::new(driver);
            client.batch_execute(sql).await?;
            // What the server says at the start, about a collation perhaps, concerns no write.
            strict.store(true, Ordering::Release);
            return Ok((client, driver.detach()));
        }
        Ok((client, driver))
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &tokio_postgres::Config,
    ) -> Pin<
        Box<
            dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>>
                + Send
                + '_,
        >,
    > {
        Box::pin(self.start())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the task is owned by the session, which aborts it, and ends with its socket"
)]
fn spawn<S, T>(connection: Connection<S, T>, strict: Arc<AtomicBool>) -> JoinHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(drive(connection, strict))
}

async fn drive<S, T>(mut connection: Connection<S, T>, strict: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if strict.load(Ordering::Acquire) => {
                tracing::warn!(
                    error = notice.message(),
                    "the database warned: the session is given up, its last statement counts as unknown"
                );
                return;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a database session ended");
                return;
            }
        }
    }
}

/// A session outside the pool. Dropping it closes the socket; nothing is cancelled on the server.
pub(super) struct Session {
    pub(super) client: Client,
    _driver: AbortOnDropHandle<()>,
}

impl PostgresLedger {
    /// Runs one statement on a session of the pool.
    pub(super) async fn ask(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Trouble> {
        let session = match self.pool.get().await {
            Ok(session) => session,
            Err(error) => return Err(Trouble::no_session(error)),
        };
        // The server ends the statement first, as long as it can be reached.
        let within = self.bounds.statement + Duration::from_secs(1);
        let answer = tokio::time::timeout(within, async {
            let statement = match session.prepare_cached(sql).await {
                Ok(statement) => statement,
                Err(error) => return Err(Trouble::from(error).before_it_was_sent()),
            };
            Ok(session.query(&statement, params).await?)
        });
        let trouble = match answer.await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(trouble)) => trouble,
            Err(_) => Trouble::Unknown(Box::new(NoAnswer(within))),
        };
        if trouble.breaks_pool() || session.is_closed() {
            // Its neighbours were opened to the same server and have most likely met the same end.
            self.pool.retain(|_, _| false);
            drop(deadpool_postgres::Object::take(session));
        }
        Err(trouble)
    }

    /// Runs a statement that writes nothing, or that may simply be repeated.
    pub(super) async fn read(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        self.ask(sql, params).await.map_err(Trouble::unavailable)
    }
}
