//! What went wrong with a statement, and whether it can have happened.
//!
//! Invariant: when in doubt the outcome is unknown; and no text of the server that may quote a row is kept.

use deadpool_postgres::PoolError;
use domain::{Epoch, ShardId};
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::ledger::{BoxError, Fault};

/// Raised by our functions when the epoch or the sequence presented is not in force.
const FENCED: &str = "DS001";

/// An application of supply was refused.
pub(super) const SUPPLY_REFUSED: &str = "DS002";

/// The figures of a dry run.
pub(super) const DRY_RUN: &str = "DS003";

/// A terminal's change was refused.
pub(super) const TERMINAL_REFUSED: &str = "DS005";

/// Why a statement has no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing was sent.
    Unreachable(BoxError),
    /// Our own fence.
    Fenced { found: Epoch },
    /// A CHECK fired.
    Constraint,
    /// The server undid the statement.
    Undone(Undone),
    /// It may have happened.
    Unknown(BoxError),
}

/// What the server said about a statement that it undid.
#[derive(Debug, thiserror::Error)]
#[error("SQLSTATE {}: {message}", code.code())]
pub(super) struct Undone {
    pub(super) code: SqlState,
    pub(super) message: String,
    /// Only of errors that our own functions raise; the server's own details quote rows.
    detail: Option<String>,
}

impl Undone {
    fn new(error: &DbError) -> Self {
        let ours = error.code().code().starts_with("DS");
        Self {
            code: error.code().clone(),
            message: error.message().to_owned(),
            detail: error.detail().filter(|_| ours).map(str::to_owned),
        }
    }

    /// What one of our functions said besides.
    pub(super) fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(super) struct NoAnswer(pub(super) std::time::Duration);

#[derive(Debug, thiserror::Error)]
#[error("an answer of the database cannot be understood: {0}")]
pub(super) struct Garbled(pub(super) &'static str);

impl Trouble {
    /// Of an error met before anything that writes was sent.
    pub(super) fn unsent(error: tokio_postgres::Error) -> Self {
        Self::Unreachable(plain(error))
    }

    /// Of a pool that has no session to give.
    pub(super) fn no_session(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::unsent(error),
            other @ (PoolError::Timeout(_)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_)) => Self::Unreachable(Box::new(other)),
        }
    }

    /// Of something asked before the statement itself: that one was never sent.
    pub(super) fn before_it_was_sent(self) -> Self {
        match self {
            Self::Unknown(source) => Self::Unreachable(source),
            known @ (Self::Unreachable(_)
            | Self::Fenced { .. }
            | Self::Constraint
            | Self::Undone(_)) => known,
        }
    }

    /// Whether sessions opened before are of no use any more.
    pub(super) fn breaks_pool(&self) -> bool {
        match self {
            // 25006: the server has become a standby.
            Self::Undone(undone) => undone.code == SqlState::READ_ONLY_SQL_TRANSACTION,
            Self::Unknown(_) => true,
            Self::Unreachable(_) | Self::Fenced { .. } | Self::Constraint => false,
        }
    }

    /// As a fault of a read, or of a write that may simply be repeated.
    pub(super) fn unavailable(self) -> Fault {
        let source = match self {
            Self::Unreachable(source) | Self::Unknown(source) => source,
            Self::Undone(undone) => Box::new(undone),
            Self::Fenced { found } => format!("epoch {found} is in force").into(),
            Self::Constraint => "a check fired".into(),
        };
        Fault::Unavailable { source }
    }

    /// As a fault of a write to a shard.
    pub(super) fn of_write(self, shard: ShardId, held: Epoch) -> Fault {
        match self {
            Self::Fenced { found } => Fault::Fenced { shard, held, found },
            Self::Constraint => Fault::Constraint { shard },
            Self::Unknown(source) => Fault::Unknown { shard, source },
            other @ (Self::Unreachable(_) | Self::Undone(_)) => other.unavailable(),
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::Unknown(plain(error));
        };
        let class = &said.code().code()[..2.min(said.code().code().len())];
        let session_ended = matches!(
            said.parsed_severity(),
            Some(Severity::Fatal | Severity::Panic)
        );
        // 08: the connection; 57P: the server stops or somebody ended the session, perhaps in the middle of a commit.
        if session_ended || class == "08" || said.code().code().starts_with("57P") {
            return Self::Unknown(Box::new(Undone::new(said)));
        }
        if said.code().code() == FENCED {
            let found = said.detail().and_then(|epoch| epoch.parse().ok());
            return Self::Fenced {
                found: Epoch(found.unwrap_or_default()),
            };
        }
        if *said.code() == SqlState::CHECK_VIOLATION {
            return Self::Constraint;
        }
        Self::Undone(Undone::new(said))
    }
}

/// The server's words without those that may quote a row.
fn plain(error: tokio_postgres::Error) -> BoxError {
    match error.as_db_error() {
        Some(said) => Box::new(Undone::new(said)),
        None => Box::new(error),
    }
}
