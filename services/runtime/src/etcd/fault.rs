//! What an etcd error says about a request: did it happen, and may it be repeated.

use std::io;

use etcd_client::Error;
use tonic::Code;

use crate::keyspace::{BoxError, Fault};

/// A request, as far as its error tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It never left: nobody was there to take it.
    NotSent,
    /// etcd looked at it and did nothing; repeating it changes nothing.
    Refused,
    /// etcd did nothing and may do it later.
    NotNow,
    /// It names a lease that etcd does not know.
    NoLease,
    /// It may have happened.
    Open,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer from etcd within {0:?}")]
pub(super) struct Silent(pub(super) std::time::Duration);

pub(super) fn verdict(error: &Error) -> Verdict {
    match error {
        Error::GRpcStatus(status) => match status.code() {
            Code::NotFound => Verdict::NoLease,
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::AlreadyExists
            | Code::Unimplemented => Verdict::Refused,
            Code::Unauthenticated | Code::ResourceExhausted => Verdict::NotNow,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => sent(std::error::Error::source(status)),
        },
        Error::TransportError(error) => sent(Some(error)),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            Verdict::Refused
        }
        Error::IoError(_)
        | Error::WatchError(_)
        | Error::Utf8Error(_)
        | Error::LeaseKeepAliveError(_)
        | Error::ElectError(_)
        | Error::EndpointError(_)
        | Error::EndpointsNotManaged
        | Error::Internal(_) => Verdict::Open,
    }
}

/// Only a refused connection proves that nothing was sent; anything else on the way may have come after it.
fn sent(error: Option<&(dyn std::error::Error + 'static)>) -> Verdict {
    let mut next = error;
    while let Some(error) = next {
        let refused = error
            .downcast_ref::<io::Error>()
            .is_some_and(|it| it.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            return Verdict::NotSent;
        }
        next = error.source();
    }
    Verdict::Open
}

/// The fault of a request that reads.
pub(super) fn of_read(verdict: Verdict, error: impl Into<BoxError>) -> Fault {
    let source = error.into();
    match verdict {
        Verdict::Refused => Fault::invalid(source.to_string()),
        Verdict::NoLease => Fault::SessionLost,
        Verdict::NotSent | Verdict::NotNow | Verdict::Open => Fault::Unavailable { source },
    }
}

/// The fault of a request that writes.
pub(super) fn of_write(verdict: Verdict, error: impl Into<BoxError>) -> Fault {
    let source = error.into();
    match verdict {
        Verdict::Refused => Fault::invalid(source.to_string()),
        Verdict::NoLease => Fault::SessionLost,
        Verdict::NotSent | Verdict::NotNow => Fault::Unavailable { source },
        Verdict::Open => Fault::Unknown { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code) -> Error {
        Error::GRpcStatus(tonic::Status::new(code, "said so"))
    }

    #[test]
    fn write_without_a_clear_answer_is_unknown() {
        for code in [
            Code::Unavailable,
            Code::Unknown,
            Code::Cancelled,
            Code::DeadlineExceeded,
        ] {
            let error = status(code);
            assert!(
                matches!(of_write(verdict(&error), error), Fault::Unknown { .. }),
                "{code:?}"
            );
        }
    }

    #[test]
    fn refused_write_is_no_unknown_outcome() {
        let error = status(Code::InvalidArgument);
        assert!(matches!(
            of_write(verdict(&error), error),
            Fault::Invalid { .. }
        ));
        let error = status(Code::ResourceExhausted);
        assert!(matches!(
            of_write(verdict(&error), error),
            Fault::Unavailable { .. }
        ));
        let error = status(Code::NotFound);
        assert!(matches!(
            of_write(verdict(&error), error),
            Fault::SessionLost
        ));
    }

    #[test]
    fn refused_connection_proves_that_nothing_was_sent() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::GRpcStatus(tonic::Status::from_error(Box::new(refused)));
        assert_eq!(verdict(&error), Verdict::NotSent);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let error = Error::GRpcStatus(tonic::Status::from_error(Box::new(reset)));
        assert_eq!(verdict(&error), Verdict::Open);
    }
}
