//! Durations and sizes as people write them: `30s`, `1m30s`, `250ms`, `8MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration that is written with its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

/// A number of bytes that is written with its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanSize(u64);

/// A text that is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: write {example}")]
pub struct NotAUnit {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Nanoseconds per unit, largest first.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Bytes per unit; the binary ones first, largest first, because those are printed.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// Sums parts such as `1m` and `30s`; `None` if any part has no number, no known unit, or overflows.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = next.trim_start();
    }
    Some(total)
}

/// The largest unit that leaves no rest.
fn print(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units
        .iter()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => write!(f, "0{}", if units == DURATION_UNITS { "s" } else { "B" }),
    }
}

macro_rules! human_text {
    ($name:ident, $units:ident, $what:literal, $example:literal, $make:expr, $value:expr) => {
        impl FromStr for $name {
            type Err = NotAUnit;

            fn from_str(text: &str) -> Result<Self, NotAUnit> {
                parse(text, &$units).map($make).ok_or_else(|| NotAUnit {
                    text: text.to_owned(),
                    what: $what,
                    example: $example,
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print($value(self), &$units, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what, " with its unit, such as ", $example))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

human_text!(
    HumanDuration,
    DURATION_UNITS,
    "duration",
    "\"30s\"",
    |nanos| Self(Duration::from_nanos(nanos)),
    |this: &HumanDuration| u64::try_from(this.0.as_nanos()).unwrap_or(u64::MAX)
);
human_text!(
    HumanSize,
    SIZE_UNITS,
    "size",
    "\"8MiB\"",
    Self,
    |this: &HumanSize| this.0
);

impl HumanDuration {
    /// Wraps a duration, for defaults.
    #[must_use]
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// Whole seconds, for defaults.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Milliseconds, for defaults.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl HumanSize {
    /// A number of bytes, for defaults.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_with_their_unit() {
        for (text, millis, printed) in [
            ("30s", 30_000, "30s"),
            ("250ms", 250, "250ms"),
            ("1m30s", 90_000, "90s"),
            (" 2 h ", 7_200_000, "2h"),
            ("90m", 5_400_000, "90m"),
            ("0s", 0, "0s"),
        ] {
            let duration: HumanDuration = text.parse().expect(text);
            assert_eq!(duration.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), printed);
        }
        for wrong in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "3 weeks",
            "1s!",
            "99999999999999999999s",
            "30000000d",
        ] {
            assert!(wrong.parse::<HumanDuration>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_and_print_with_their_unit() {
        for (text, bytes, printed) in [
            ("8MiB", 8 << 20, "8MiB"),
            ("16kB", 16_000, "16000B"),
            ("0B", 0, "0B"),
            ("1536KiB", 1_572_864, "1536KiB"),
        ] {
            let size: HumanSize = text.parse().expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed));
        }
        assert!("8mib".parse::<HumanSize>().is_err());
    }
}
