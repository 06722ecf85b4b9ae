//! A process's lease: what it promises its holders, whichever backend keeps it.
//!
//! Invariant: `alive()` is never true later than the last renewal's sending plus the TTL, on our own clock.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Fault;
use super::moment::{Moment, now};

/// How long [`Session::end`] waits for the store before it leaves the keys to their TTL.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A lease that keeps itself alive, and comes back under a new generation when it was lost. Clones share it.
///
/// When the last clone is dropped the session ends in the background; [`Session::end`] is the way to know it did.
#[derive(Clone)]
pub struct Session {
    core: Arc<SessionCore>,
    status: watch::Receiver<Status>,
    _end: Arc<DropGuard>,
}

/// The side of a session that a backend drives.
#[derive(Debug)]
pub(crate) struct SessionCore {
    origin: u64,
    status: watch::Sender<Status>,
    deadline: Moment,
    pub(crate) ttl: Duration,
    /// Cancelled when the session is to end.
    pub(crate) ending: CancellationToken,
    /// Notified when the lease should be asked after at once.
    pub(crate) suspected: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    phase: Phase,
    lease: i64,
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No lease, asking for one.
    Pending,
    /// Lease held; its deadline says until when.
    Held,
    /// Past its deadline; the store may or may not still know it.
    Lapsed,
    Ended,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(core: Arc<SessionCore>) -> Self {
        Self {
            status: core.status.subscribe(),
            _end: Arc::new(core.ending.clone().drop_guard()),
            core,
        }
    }

    /// Whether the lease is held for certain, by our own clock. A `false` may turn `true` again: under the same
    /// generation (the keys are still there) or a higher one (they are gone).
    #[must_use]
    pub fn alive(&self) -> bool {
        self.core.status.borrow().phase == Phase::Held && now() < self.core.deadline.get()
    }

    /// How often a lease was granted: 0 before the first. A rise means that the keys of the older lease are gone
    /// and that their owners must put them again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.core.status.borrow().generation
    }

    /// The store's number for the lease, for logs (`lease.id`).
    #[must_use]
    pub fn lease_id(&self) -> Option<i64> {
        let status = *self.core.status.borrow();
        matches!(status.phase, Phase::Held | Phase::Lapsed).then_some(status.lease)
    }

    /// Waits for a change of `alive` or `generation` since this handle last waited. Dropping the future loses
    /// nothing.
    pub async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            // Unreachable while `core` lives; to wait for ever is what "no more changes" means.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a lease is held. Never returns once the session has ended.
    pub async fn ready(&mut self) {
        loop {
            if self.alive() {
                return;
            }
            self.changed().await;
        }
    }

    /// Ends the session: its keys are gone when this returns, or, if the store does not answer within bounds, will
    /// be when the TTL has run out.
    pub async fn end(&self) {
        self.core.ending.cancel();
        let mut status = self.core.status.subscribe();
        let ended = status.wait_for(|it| it.phase == Phase::Ended);
        if tokio::time::timeout(END_WITHIN, ended).await.is_err() {
            tracing::warn!("a session did not end in time; its keys are left to their TTL");
        }
    }

    /// The store said that the lease is gone: have it asked after at once.
    pub(super) fn suspect(&self) {
        self.core.suspected.notify_one();
    }

    pub(super) fn lease_at(&self, origin: u64) -> Result<i64, Fault> {
        if self.core.origin != origin {
            return Err(Fault::invalid("the session belongs to another key space"));
        }
        match self.lease_id() {
            Some(lease) if self.alive() => Ok(lease),
            _ => Err(Fault::SessionLost),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("alive", &self.alive())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

// === impl SessionCore ===

impl SessionCore {
    pub(crate) fn new(origin: u64, ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            origin,
            status: watch::Sender::new(Status {
                phase: Phase::Pending,
                lease: 0,
                generation: 0,
            }),
            deadline: Moment::at(now()),
            ttl,
            ending: CancellationToken::new(),
            suspected: Notify::new(),
        })
    }

    /// A new lease, held until `deadline`; `None` means for as long as the process lives.
    pub(crate) fn granted(&self, lease: i64, deadline: Option<Instant>) -> u64 {
        match deadline {
            Some(deadline) => self.deadline.set(deadline),
            None => self.deadline.set(now() + FOR_EVER),
        }
        self.status.send_modify(|it| {
            *it = Status {
                phase: Phase::Held,
                lease,
                generation: it.generation + 1,
            };
        });
        self.status.borrow().generation
    }

    /// The lease was renewed and is held until `deadline`.
    pub(crate) fn renewed(&self, deadline: Instant) {
        self.deadline.set(deadline);
        self.enter(Phase::Held);
    }

    /// The store no longer knows the lease.
    pub(crate) fn lost(&self) {
        self.enter(Phase::Pending);
    }

    pub(crate) fn ended(&self) {
        self.enter(Phase::Ended);
    }

    pub(crate) fn lapsed(&self) -> bool {
        self.status.borrow().phase == Phase::Lapsed || now() >= self.deadline.get()
    }

    /// Wakes those who wait whenever the deadline passes without a renewal.
    pub(crate) async fn note_lapses(&self) -> Infallible {
        let mut status = self.status.subscribe();
        loop {
            let deadline = self.deadline.get();
            if now() < deadline {
                tokio::time::sleep_until(deadline).await;
                continue;
            }
            self.enter(Phase::Lapsed);
            if status.wait_for(|it| it.phase == Phase::Held).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn enter(&self, phase: Phase) {
        self.status.send_if_modified(|it| {
            let news = it.phase != phase;
            it.phase = phase;
            news
        });
    }
}

/// Longer than any process lives, short enough to be added to an instant.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn deadline_counts_even_if_no_task_runs_to_note_it() {
        let core = SessionCore::new(1, MINUTE);
        let session = Session::new(Arc::clone(&core));
        assert!(!session.alive() && session.lease_id().is_none());
        core.granted(7, Some(now() + MINUTE));
        assert!(session.alive());
        assert_eq!(session.lease_at(1).ok(), Some(7));
        core.deadline.set(now());
        assert!(!session.alive());
        assert!(matches!(session.lease_at(1), Err(Fault::SessionLost)));
        core.renewed(now() + MINUTE);
        assert!(session.alive());
    }

    #[test]
    fn generation_rises_with_each_grant_only() {
        let core = SessionCore::new(1, MINUTE);
        let session = Session::new(Arc::clone(&core));
        assert_eq!(session.generation(), 0);
        assert_eq!(core.granted(7, None), 1);
        core.renewed(now() + MINUTE);
        core.lost();
        assert_eq!(session.generation(), 1);
        assert_eq!(core.granted(8, None), 2);
        assert_eq!((session.generation(), session.lease_id()), (2, Some(8)));
    }
}
