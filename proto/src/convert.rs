//! Between protobuf and the domain: parsing collects every wrong field, encoding cannot fail.

use domain::time::Timestamp;
use jiff::civil;
use prost_types::Timestamp as PbTimestamp;

use crate::common::Date;

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

/// Days since 1970-01-01; `None` for a day that no calendar has.
#[must_use]
pub fn day_number(day: &Date) -> Option<i32> {
    let date = civil_date(day)?;
    Some(date.since(civil::date(1970, 1, 1)).ok()?.get_days())
}

/// The day in the calendar; `None` for a day that it does not have. Years 1 to 9999.
#[must_use]
pub fn civil_date(day: &Date) -> Option<civil::Date> {
    let year = i16::try_from(day.year).ok().filter(|year| *year >= 1)?;
    let month = i8::try_from(day.month).ok()?;
    civil::Date::new(year, month, i8::try_from(day.day).ok()?).ok()
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

    /// Parses a booking code as a person may have typed it; its check digit must fit.
    pub fn booking_code(&mut self, field: &str, typed: &str) -> Option<String> {
        let code = domain::booking_code::parse(typed);
        if code.is_none() {
            let problem =
                "is no booking code: twelve symbols, the last a check digit; read it again";
            self.wrong(field, problem);
        }
        code
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970_and_impossible_ones_are_none() {
        let of = |year, month, day| day_number(&Date { year, month, day });
        assert_eq!(of(1970, 1, 1), Some(0));
        assert_eq!(of(1969, 12, 31), Some(-1));
        assert_eq!(of(2021, 8, 26), Some(18_865));
        for (year, month, day) in [
            (2021, 2, 29),
            (2021, 13, 1),
            (2021, 0, 1),
            (0, 1, 1),
            (10_000, 1, 1),
            (2021, 1, 300),
        ] {
            assert_eq!(of(year, month, day), None, "{year}-{month}-{day}");
        }
    }
}
