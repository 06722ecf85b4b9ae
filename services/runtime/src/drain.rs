//! Stopping in order: readiness off, refuse new work, finish what is in flight, resign, exit.
//!
//! Invariant: draining never ends, and all waits after it are bounded by one deadline counted from its start.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;
use crate::tasks::{OnExit, Tasks};

/// Everybody's view of whether the process is stopping. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

/// How long each part of stopping may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From readiness off until new work is refused: load balancers need a moment to look away.
    pub notice: Duration,
    /// From then on until whatever is left is cut.
    pub deadline: Duration,
}

/// Why the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The operating system asked for it.
    Signal,
    /// The program asked for it, for instance because its work is done.
    Requested,
    /// A task ended that the process cannot do without.
    TaskEnded(&'static str),
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    readiness: Readiness,
    start: OnceLock<(Cause, Instant)>,
    begun: CancellationToken,
}

// === impl Drain ===

impl Drain {
    /// Not stopping yet.
    #[must_use]
    pub fn new(settings: Settings, readiness: Readiness) -> Self {
        Self(Arc::new(Inner {
            settings,
            readiness,
            start: OnceLock::new(),
            begun: CancellationToken::new(),
        }))
    }

    /// A drain of its own without notice, for tests and short-lived commands.
    #[must_use]
    pub fn within(deadline: Duration) -> Self {
        Self::new(
            Settings {
                notice: Duration::ZERO,
                deadline,
            },
            Readiness::new(),
        )
    }

    /// Begins to stop: readiness goes off now, `signalled` resolves after the notice. Only the first cause counts.
    pub fn start(&self, cause: Cause) {
        if self.0.start.set((cause, Instant::now())).is_ok() {
            self.0.readiness.close();
            tracing::info!(?cause, settings = ?self.0.settings, "draining began");
            self.0.begun.cancel();
        }
    }

    /// Whether stopping has begun (the notice counts).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.begun.is_cancelled()
    }

    /// Why stopping has begun, if it has.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.0.start.get().map(|(cause, _)| *cause)
    }

    /// Resolves when new work must be refused: after the beginning and the notice.
    pub async fn signalled(&self) {
        let began = self.began().await;
        sleep_until(began + self.0.settings.notice).await;
    }

    /// Resolves when stopping begins, before the notice.
    pub async fn announced(&self) {
        self.0.begun.cancelled().await;
    }

    /// When whatever is left is cut; `None` while nothing stops.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let (_, began) = self.0.start.get()?;
        Some(*began + self.0.settings.notice + self.0.settings.deadline)
    }

    /// How much of the deadline is left; the whole of it while nothing stops.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline()
            .map_or(self.0.settings.notice + self.0.settings.deadline, |at| {
                at.saturating_duration_since(Instant::now())
            })
    }

    /// Resolves when whatever is left must be cut.
    pub async fn expired(&self) {
        let began = self.began().await;
        sleep_until(began + self.0.settings.notice + self.0.settings.deadline).await;
    }

    /// Runs `work` until it ends or the drain is signalled; `None` if the drain came first.
    pub async fn interrupt<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.signalled() => None,
            output = work => Some(output),
        }
    }

    /// SIGTERM or SIGINT starts the drain; a second one ends the process at once.
    pub fn on_signals(&self, tasks: &Tasks) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tasks.spawn_detached("signals", OnExit::Log, async move {
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => {}
                    Some(()) = interrupt.recv() => {}
                    else => return,
                }
                if drain.is_draining() {
                    tracing::warn!("second signal: leaving at once");
                    std::process::exit(1);
                }
                drain.start(Cause::Signal);
            }
        });
        Ok(())
    }

    async fn began(&self) -> Instant {
        self.0.begun.cancelled().await;
        let (_, began) = self
            .0
            .start
            .get()
            .expect("the start is set before the token is cancelled");
        *began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readiness_goes_off_before_work_is_refused() {
        let readiness = Readiness::new();
        readiness.register("store").release();
        let settings = Settings {
            notice: Duration::from_secs(5),
            deadline: Duration::from_secs(20),
        };
        let drain = Drain::new(settings, readiness.clone());
        assert!(readiness.is_ready() && !drain.is_draining() && drain.deadline().is_none());

        let began = Instant::now();
        drain.start(Cause::Signal);
        drain.start(Cause::TaskEnded("late"));
        assert!(!readiness.is_ready() && drain.is_draining());
        assert_eq!(drain.cause(), Some(Cause::Signal), "the first cause counts");
        drain.announced().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        drain.signalled().await;
        assert_eq!(began.elapsed().as_secs(), 5);
        drain.expired().await;
        assert_eq!(began.elapsed().as_secs(), 25);
        assert_eq!(drain.remaining(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn interrupt_gives_the_output_or_nothing() {
        let drain = Drain::within(Duration::from_secs(1));
        assert_eq!(drain.interrupt(async { 7 }).await, Some(7));
        drain.start(Cause::Requested);
        assert_eq!(drain.interrupt(std::future::pending::<u8>()).await, None);
    }
}
