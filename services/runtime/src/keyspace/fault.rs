//! What can go wrong around the key space, and who may try again.

/// A cause from another layer, kept for its message and its own causes.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Something around us broke; a failed expectation is no fault but [`super::Outcome::Conflict`].
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing was written or read. Trying again later is safe.
    #[error("the coordination store is unavailable")]
    Unavailable {
        /// What the store or the transport said.
        #[source]
        source: BoxError,
    },
    /// The write may have happened, may happen yet, or may not. Read before deciding anything.
    #[error("the write has no known outcome")]
    Unknown {
        /// What the store or the transport said.
        #[source]
        source: BoxError,
    },
    /// The session's lease is gone or was never granted; nothing was written. Wait for the session.
    #[error("the session's lease is lost")]
    SessionLost,
    /// The request or the configuration can never work as it is. Nothing was written.
    #[error("invalid use of the key space: {reason}")]
    Invalid {
        /// What is wrong, without values.
        reason: String,
    },
    /// The local store broke. Nothing was written by this call.
    #[error("the local store failed")]
    Store {
        /// What SQLite or the operating system said.
        #[source]
        source: BoxError,
    },
}

// === impl Fault ===

impl Fault {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid {
            reason: reason.into(),
        }
    }

    pub(crate) fn unknown(source: impl Into<BoxError>) -> Self {
        Self::Unknown {
            source: source.into(),
        }
    }

    pub(crate) fn store(source: impl Into<BoxError>) -> Self {
        Self::Store {
            source: source.into(),
        }
    }
}
