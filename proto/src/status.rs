//! Refusals and faults to `tonic::Status`, in one exhaustive place.
//!
//! Every error carries `ErrorInfo` (reason, domain `doseline`), `RetryInfo` where waiting helps, and `BadRequest`
//! with every wrong field.

use std::collections::HashMap;
use std::time::Duration;

use domain::refusal::Class;
use domain::{ClaimVersion, Refusal};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// The domain of every `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "doseline";

/// A refusal with what the caller needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The claim's current version.
    pub claim_version: Option<ClaimVersion>,
    /// Wrong fields: path, and what is wrong with it.
    pub violations: Vec<(String, String)>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            retry_after: retry_after(refusal),
            claim_version: None,
            violations: Vec::new(),
        }
    }
}

impl Refused {
    /// A malformed request, with every wrong field.
    #[must_use]
    pub fn invalid(violations: Vec<(String, String)>) -> Self {
        Self {
            violations,
            ..Refusal::Invalid.into()
        }
    }

    /// With the claim's version.
    #[must_use]
    pub fn with_claim_version(mut self, version: Option<ClaimVersion>) -> Self {
        self.claim_version = version;
        self
    }

    /// With a time to return.
    #[must_use]
    pub fn retry_in(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// The usual time to return, for refusals where waiting helps.
#[must_use]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "for most refusals waiting does not help"
)]
pub const fn retry_after(refusal: Refusal) -> Option<Duration> {
    match refusal {
        Refusal::NotAdmitted | Refusal::Overloaded | Refusal::RateLimited => {
            Some(Duration::from_secs(1))
        }
        Refusal::RoomPaused => Some(Duration::from_secs(5)),
        Refusal::Unavailable | Refusal::NotOwner | Refusal::WrongShard => {
            Some(Duration::from_millis(250))
        }
        Refusal::OutcomeUnknown => Some(Duration::ZERO),
        _ => None,
    }
}

/// The gRPC code of a class of refusals.
#[must_use]
pub const fn code(class: Class) -> Code {
    match class {
        Class::Malformed => Code::InvalidArgument,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::Forbidden => Code::PermissionDenied,
        Class::NotFound => Code::NotFound,
        Class::Precondition => Code::FailedPrecondition,
        Class::AlreadyExists => Code::AlreadyExists,
        Class::Exhausted => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
        Class::Unknown => Code::DeadlineExceeded,
        Class::Unimplemented => Code::Unimplemented,
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let mut metadata = HashMap::new();
        if let Some(version) = refused.claim_version {
            metadata.insert("claim_version".to_owned(), version.to_string());
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(refused.refusal.code(), ERROR_DOMAIN, metadata);
        if let Some(after) = refused.retry_after {
            details.set_retry_info(Some(after));
        }
        if !refused.violations.is_empty() {
            details.set_bad_request(
                refused
                    .violations
                    .iter()
                    .map(|(field, problem)| FieldViolation::new(field, problem))
                    .collect::<Vec<_>>(),
            );
        }
        let message = match refused.violations.as_slice() {
            [] => refused.refusal.help().to_owned(),
            [(field, problem), ..] => format!("{field}: {problem}. {}", refused.refusal.help()),
        };
        Status::with_error_details(code(refused.refusal.class()), message, details)
    }
}

/// A refusal as a status, with the usual time to return.
#[must_use]
pub fn refuse(refusal: Refusal) -> Status {
    Refused::from(refusal).into()
}

/// The refusal inside a status that a Doseline service sent; `None` for others.
#[must_use]
pub fn read(status: &Status) -> Option<Refused> {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .filter(|info| info.domain == ERROR_DOMAIN)?;
    let violations = details.bad_request().map_or_else(Vec::new, |bad| {
        bad.field_violations
            .iter()
            .map(|v| (v.field.clone(), v.description.clone()))
            .collect()
    });
    Some(Refused {
        refusal: Refusal::from_code(&info.reason)?,
        retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        claim_version: info
            .metadata
            .get("claim_version")
            .and_then(|v| v.parse().ok())
            .map(ClaimVersion),
        violations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::ErrorReason;

    #[test]
    fn every_refusal_is_a_reason_of_the_api_and_the_other_way_round() {
        for refusal in Refusal::ALL {
            let name = format!("ERROR_REASON_{}", refusal.code());
            assert!(
                ErrorReason::from_str_name(&name).is_some(),
                "{name} is not in errors.proto"
            );
        }
        let in_proto = (1..1_000).filter_map(|n| ErrorReason::try_from(n).ok());
        for reason in in_proto {
            let code = reason.as_str_name().trim_start_matches("ERROR_REASON_");
            assert!(Refusal::from_code(code).is_some(), "{code} is no refusal");
        }
    }

    #[test]
    fn a_status_reads_back_as_the_refusal_it_was_made_from() {
        let refused = Refused::invalid(vec![("slots".into(), "must name one or two".into())])
            .with_claim_version(Some(ClaimVersion(7)))
            .retry_in(Duration::from_secs(2));
        let status = Status::from(refused.clone());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(read(&status), Some(refused));
        assert_eq!(read(&Status::internal("x")), None);
    }
}
