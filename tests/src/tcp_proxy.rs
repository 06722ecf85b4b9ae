//! A network between two processes that can be cut, to the byte.
//!
//! Invariant: bytes are never lost inside a living connection. They arrive in order, late, or the connection ends:
//! a split that heals delivers what it held, as retransmission would.

mod relay;
mod rules;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

pub use rules::{ReplyCut, Traffic};

use crate::await_until::await_ok;
use rules::Rules;

/// Rebinding one's own port succeeds at once unless something is badly wrong.
const REBIND_WITHIN: Duration = Duration::from_secs(10);

/// Stands on a port of its own before one server.
#[derive(Debug)]
pub struct TcpProxy {
    addr: SocketAddr,
    rules: watch::Sender<Rules>,
    state: watch::Receiver<State>,
    _acceptor: AbortOnDropHandle<()>,
}

/// What the acceptor has come to, so that a change of traffic can be waited for.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    listening: bool,
    connections: usize,
}

impl TcpProxy {
    /// Listens on a free port and passes connections on to `upstream`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let addr = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()?));
        let rules = watch::Sender::new(Rules::default());
        let (report, state) = watch::channel(State::default());
        let acceptor = Acceptor {
            addr,
            upstream,
            rules: rules.clone(),
            report,
        };
        let acceptor = tokio::task::spawn(acceptor.run());
        let proxy = Self {
            addr,
            rules,
            state,
            _acceptor: AbortOnDropHandle::new(acceptor),
        };
        proxy.settled(|state| state.listening).await?;
        Ok(proxy)
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what happens to all connections, present and future.
    ///
    /// [`Traffic::Refuse`] is in force when this returns: the port is closed and every connection is reset.
    ///
    /// # Errors
    /// When the port could not be opened again.
    pub async fn set(&self, traffic: Traffic) -> anyhow::Result<()> {
        self.rules.send_modify(|rules| rules.traffic = traffic);
        match traffic {
            Traffic::Refuse => {
                self.settled(|now| !now.listening && now.connections == 0)
                    .await
            }
            Traffic::Pass
            | Traffic::Blackhole
            | Traffic::BlackholeRequests
            | Traffic::BlackholeReplies => self.settled(|now| now.listening).await,
        }
    }

    /// Arms a cut in the replies; an earlier one that has not happened is forgotten.
    pub fn cut_replies(&self, cut: ReplyCut) {
        self.rules.send_modify(|rules| rules.arm(cut));
    }

    /// Disarms.
    pub fn cut_nothing(&self) {
        self.rules.send_modify(|rules| rules.cut = None);
    }

    /// How many connections a [`ReplyCut`] has ended so far.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.rules.borrow().cuts
    }

    /// Waits until `count` connections in all have been cut.
    ///
    /// # Errors
    /// When the bound passes.
    pub async fn await_cuts(&self, count: u64, bound: Duration) -> anyhow::Result<()> {
        let cut = rules::reached(&self.rules, |rules| rules.cuts >= count);
        let waited = tokio::time::timeout(bound, cut).await;
        waited.with_context(|| format!("not within {bound:?}: {count} cuts"))
    }

    /// How many connections it holds.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.borrow().connections
    }

    async fn settled(&self, reached: impl FnMut(&State) -> bool) -> anyhow::Result<()> {
        let mut state = self.state.clone();
        let waited = tokio::time::timeout(REBIND_WITHIN, state.wait_for(reached)).await;
        waited
            .context("the proxy did not follow")?
            .context("the proxy has ended")?;
        Ok(())
    }
}

/// The task that owns the port and all connections; they end with it.
struct Acceptor {
    addr: SocketAddr,
    upstream: SocketAddr,
    rules: watch::Sender<Rules>,
    report: watch::Sender<State>,
}

impl Acceptor {
    async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            if let Err(error) = self.listen(&mut connections).await {
                tracing::error!(error = %format!("{error:#}"), "the test proxy has ended");
                return;
            }
            // The port is closed here, and every relay resets itself on the same change of rules.
            while connections.join_next().await.is_some() {}
            self.report.send_replace(State::default());
            rules::reached(&self.rules, |rules| rules.traffic != Traffic::Refuse).await;
        }
    }

    /// Accepts until connections are to be refused.
    async fn listen(&self, connections: &mut JoinSet<()>) -> anyhow::Result<()> {
        let listener = await_ok("the port again", REBIND_WITHIN, || {
            TcpListener::bind(self.addr)
        })
        .await?;
        loop {
            self.report.send_replace(State {
                listening: true,
                connections: connections.len(),
            });
            tokio::select! {
                biased;
                () = rules::reached(&self.rules, |rules| rules.traffic == Traffic::Refuse) => {
                    return Ok(());
                }
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    let (client, _) = accepted.context("accept")?;
                    connections.spawn(relay::run(client, self.upstream, self.rules.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
