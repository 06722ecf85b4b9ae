//! Identifiers as types, parsed once at the edge.
//!
//! Invariant: a slug id that exists is well-formed; a person's id never prints.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a piece of text is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Empty, too long, or with a character outside `a-z 0-9 -` (no dash at either end).
    #[error("{what} must be 1 to {max} of a-z, 0-9 and inner dashes")]
    Slug {
        /// Which identifier.
        what: &'static str,
        /// The longest allowed length in bytes.
        max: usize,
    },
    /// Not a UUID in its 36-character form.
    #[error("{what} must be a UUID in its 36-character form")]
    Uuid {
        /// Which identifier.
        what: &'static str,
    },
    /// Not a decimal number in range.
    #[error("{what} must be a decimal number above 0")]
    Number {
        /// Which identifier.
        what: &'static str,
    },
    /// Not a resource name of the expected form.
    #[error("must have the form {form}")]
    Name {
        /// The expected form, with placeholders in braces.
        form: &'static str,
    },
}

/// The longest slug: it must fit a DNS label, an etcd key and a metric label.
pub const SLUG_LENGTH_MAX: usize = 63;

fn is_slug(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= SLUG_LENGTH_MAX
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! slug_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The identifier's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                if is_slug(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(Malformed::Slug { what: $what, max: SLUG_LENGTH_MAX })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

slug_id!(
    /// A vaccination campaign, such as `kr-2021-fifties`.
    CampaignId, "campaign"
);
slug_id!(
    /// People a campaign lets in together, by birth date.
    CohortId, "cohort"
);
slug_id!(
    /// A region with a ledger of its own, such as `seoul`.
    RegionId, "region"
);
slug_id!(
    /// A clinic, unique inside its region, such as `1168-0042`.
    ClinicId, "clinic"
);
slug_id!(
    /// A vaccine product.
    VaccineId, "vaccine"
);
slug_id!(
    /// One running process, unique while it lives.
    InstanceId, "instance"
);
slug_id!(
    /// A system that calls the gateway, such as the back end of one mobile app.
    CallingSystem, "calling system"
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A shard of one region; 0-based.
    ShardId, u32
);
number_id!(
    /// One clinic's one start time, vaccine and dose; unique inside its region; above 0.
    SlotId, u64
);
number_id!(
    /// Doses that a clinic offers together at the end of a day; unique inside its region; above 0.
    RoundId, u64
);
number_id!(
    /// The number that fences an owner's writes, allocated by the ledger; rises by at least 1 a seize.
    Epoch, u64
);
number_id!(
    /// How often a person's permit was bound to a region; rises at each change of region; from 1.
    Serial, u64
);
number_id!(
    /// How often a person's claim has changed; 0 = never had one.
    ClaimVersion, u64
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// From 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                // Only the hyphenated form: one id has one spelling, so that a retry is a retry.
                if text.len() != 36 {
                    return Err(Malformed::Uuid { what: $what });
                }
                uuid::Uuid::try_parse(text).map(Self).map_err(|_| Malformed::Uuid { what: $what })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
    };
}

uuid_id!(
    /// Made by the end device before its first try; the same for every retry of one intent.
    RequestId, "request_id"
);
uuid_id!(
    /// A hold or the booking it became.
    BookingId, "booking"
);
uuid_id!(
    /// What happened to a clinic that cannot serve the people it has.
    IncidentId, "incident"
);

/// A person inside Doseline: a keyed hash made by identity. Never printed, never logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId([u8; 16]);

impl PersonId {
    /// From the 16 bytes of the keyed hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, for the ledger and the permit only.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_refuse_what_would_not_fit_a_key_or_a_label() {
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "가", &"x".repeat(64)] {
            assert!(bad.parse::<RegionId>().is_err(), "{bad:?} passed");
        }
        assert_eq!(
            "1168-0042".parse::<ClinicId>().map(String::from),
            Ok("1168-0042".to_owned())
        );
    }

    #[test]
    fn a_request_id_has_one_spelling() {
        let id = "0191d3c5-6d1e-4f3a-8a51-2f6d3c1b2a90";
        assert!(id.parse::<RequestId>().is_ok());
        assert!(id.replace('-', "").parse::<RequestId>().is_err());
        assert!(format!("{{{id}}}").parse::<RequestId>().is_err());
    }

    #[test]
    fn a_person_never_prints() {
        let person = PersonId::from_bytes([0xAB; 16]);
        assert_eq!(format!("{person:?}"), "[redacted]");
    }
}
