//! Between protobuf and the domain: parsing collects every wrong field, encoding cannot fail.

use domain::time::Timestamp;
use prost_types::Timestamp as PbTimestamp;

/// A protobuf timestamp of a domain one.
#[must_use]
pub fn timestamp(at: Timestamp) -> PbTimestamp {
    let micros = at.as_micros();
    PbTimestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// A domain timestamp of a protobuf one.
#[must_use]
pub fn from_timestamp(at: &PbTimestamp) -> Timestamp {
    Timestamp::from_micros(
        at.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(at.nanos / 1_000)),
    )
}

/// Collects what is wrong with a request, so that all of it is told at once.
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<(String, String)>,
}

impl Fields {
    /// Notes a wrong field.
    pub fn wrong(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.violations.push((field.into(), problem.into()));
    }

    /// Parses a field; notes why it is wrong where it is.
    pub fn parse<T>(&mut self, field: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(problem) => {
                self.wrong(field, problem.to_string());
                None
            }
        }
    }

    /// Like [`Fields::parse`], but empty means absent.
    pub fn parse_optional<T>(&mut self, field: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        if text.is_empty() {
            None
        } else {
            self.parse(field, text)
        }
    }

    /// The value, or everything that was wrong. `value` is `None` only when something was noted.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, crate::status::Refused> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => {
                if self.violations.is_empty() {
                    self.wrong("request", "is incomplete");
                }
                Err(crate::status::Refused::invalid(self.violations))
            }
        }
    }
}
