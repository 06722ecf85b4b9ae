//! Who is speaking: verifies a signed assertion of a trusted identity provider.
//!
//! Source: RFC 7515 and 7519, OpenID Connect Core (`birthdate`). Invariant: the algorithm is the key's, never the
//! header's; what is not signed by the provider named inside, for us, and fresh, says nothing.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use domain::{Refusal, Timestamp};
use jiff::civil::Date;
use jsonwebtoken::Validation;
use runtime::reload::Reloading;
use serde::Deserialize;

use self::jwks::KeySet;

pub mod jwks;

/// An RS256 assertion under a 4,096-bit key with generous claims stays below 3 KiB.
pub const LENGTH_MAX: usize = 8 * 1024;
/// OpenID Connect: `sub` has at most 255 characters.
const SUBJECT_LENGTH_MAX: usize = 255;
/// Nobody alive was born before; a year like 0000 means "not told" in OpenID Connect.
const BIRTH_YEAR_MIN: i16 = 1900;
/// How far a provider's clock may differ from ours.
pub const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// What a provider says about a person. Both fields are never stored, logged or passed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Assertion {
    /// The person identifier, unique per person, the same at every provider.
    pub subject: String,
    /// The birth date.
    pub born: Date,
}

/// Why an assertion was not believed. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not three parts, not base64, not JSON, too long.
    #[error("not a signed assertion")]
    Malformed,
    /// A provider that is not trusted.
    #[error("unknown issuer")]
    Issuer,
    /// No key of the provider has the id.
    #[error("unknown key")]
    Key,
    /// Not the key's algorithm, or no signature of it.
    #[error("signature does not hold")]
    Signature,
    /// Made for somebody else.
    #[error("another audience")]
    Audience,
    /// A claim is missing or has no sense.
    #[error("a claim is missing or wrong")]
    Claims,
    /// From the future.
    #[error("not valid yet")]
    NotYet,
    /// Too old.
    #[error("expired")]
    Expired,
}

/// A provider that is trusted.
pub struct Provider {
    /// Its `iss`, compared byte by byte.
    pub issuer: String,
    /// Its public keys.
    pub keys: Reloading<KeySet>,
}

/// Verifies assertions of all trusted providers.
pub struct Verifier {
    providers: Vec<Provider>,
    audience: String,
    max_age: Duration,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: Seconds,
    iat: Option<Seconds>,
    nbf: Option<Seconds>,
    sub: String,
    birthdate: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// RFC 7519 allows fractions; we decide by whole seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(i64),
    Fraction(f64),
}

// === impl Verifier ===

impl Verifier {
    /// Believes these providers when they speak to `audience` and not longer ago than `max_age`.
    #[must_use]
    pub fn new(providers: Vec<Provider>, audience: impl Into<String>, max_age: Duration) -> Self {
        Self {
            providers,
            audience: audience.into(),
            max_age,
        }
    }

    /// What the assertion says, if it is believed at `now`. Costs up to some hundred microseconds.
    pub fn verify(&self, text: &str, now: Timestamp) -> Result<Assertion, Rejected> {
        if text.len() > LENGTH_MAX {
            return Err(Rejected::Malformed);
        }
        let payload = payload(text)?;
        // Believed only once a key of this very issuer has signed it.
        let claimed: Issuer = serde_json::from_slice(&payload).map_err(|_| Rejected::Claims)?;
        let provider = self
            .providers
            .iter()
            .find(|provider| provider.issuer == claimed.iss)
            .ok_or(Rejected::Issuer)?;
        let claims = verify_signature(text, &provider.keys.current())?;
        self.check(claims, now)
    }

    fn check(&self, claims: Claims, now: Timestamp) -> Result<Assertion, Rejected> {
        let for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.audience,
            Audience::Many(audiences) => audiences.contains(&self.audience),
        };
        if !for_us {
            return Err(Rejected::Audience);
        }
        self.check_times(&claims, now.as_secs())?;
        let plain = !claims.sub.chars().any(char::is_control);
        if claims.sub.is_empty() || claims.sub.len() > SUBJECT_LENGTH_MAX || !plain {
            return Err(Rejected::Claims);
        }
        let born = birthdate(&claims.birthdate).ok_or(Rejected::Claims)?;
        Ok(Assertion {
            subject: claims.sub,
            born,
        })
    }

    fn check_times(&self, claims: &Claims, now: i64) -> Result<(), Rejected> {
        let skew = i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or(0);
        let max_age = i64::try_from(self.max_age.as_secs()).unwrap_or(i64::MAX);
        let expires = claims.exp.whole().ok_or(Rejected::Claims)?;
        let read = |seconds: &Option<Seconds>| match seconds {
            Some(seconds) => seconds.whole().map(Some).ok_or(Rejected::Claims),
            None => Ok(None),
        };
        let (issued, not_before) = (read(&claims.iat)?, read(&claims.nbf)?);
        if now >= expires.saturating_add(skew) {
            return Err(Rejected::Expired);
        }
        if not_before.is_some_and(|at| at > now.saturating_add(skew)) {
            return Err(Rejected::NotYet);
        }
        match issued {
            Some(at) if at > now.saturating_add(skew) => Err(Rejected::NotYet),
            Some(at) if expires <= at => Err(Rejected::Claims),
            Some(at) if now.saturating_sub(at) > max_age.saturating_add(skew) => {
                Err(Rejected::Expired)
            }
            // Without a time of issue only a short life shows that it is fresh.
            None if expires.saturating_sub(now) > max_age.saturating_add(skew) => {
                Err(Rejected::Claims)
            }
            Some(_) | None => Ok(()),
        }
    }
}

// === impl Rejected ===

impl Rejected {
    /// The refusal the caller hears.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Expired => Refusal::AssertionExpired,
            Self::Malformed
            | Self::Issuer
            | Self::Key
            | Self::Signature
            | Self::Audience
            | Self::Claims
            | Self::NotYet => Refusal::AssertionInvalid,
        }
    }
}

// === impl Seconds ===

impl Seconds {
    fn whole(&self) -> Option<i64> {
        // Four-digit years: everything else is a mistake of units or an attack on arithmetic.
        const LIMIT: i64 = 253_402_300_800;
        match *self {
            Self::Whole(seconds) => Some(seconds),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "bounded in the same expression"
            )]
            Self::Fraction(seconds) => {
                (seconds.abs() < LIMIT as f64).then(|| seconds.floor() as i64)
            }
        }
        .filter(|seconds| (0..LIMIT).contains(seconds))
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuers: Vec<_> = self
            .providers
            .iter()
            .map(|provider| &provider.issuer)
            .collect();
        f.debug_struct("Verifier")
            .field("issuers", &issuers)
            .finish_non_exhaustive()
    }
}

fn payload(text: &str) -> Result<Vec<u8>, Rejected> {
    let mut parts = text.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Rejected::Malformed);
    };
    B64.decode(payload).map_err(|_| Rejected::Malformed)
}

fn verify_signature(text: &str, keys: &KeySet) -> Result<Claims, Rejected> {
    // Fails for `alg: none` and every other algorithm that is not known at all.
    let header = jsonwebtoken::decode_header(text).map_err(|_| Rejected::Signature)?;
    if header.crit.is_some() {
        // RFC 7515, 4.1.11: what must be understood and is not makes the whole invalid.
        return Err(Rejected::Malformed);
    }
    let key = keys.find(header.kid.as_deref()).ok_or(Rejected::Key)?;
    let mut validation = Validation::new(key.algorithm);
    // Times and audience are judged here, by our own clock and with our own reasons.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Claims>(text, &key.key, &validation)
        .map(|token| token.claims)
        .map_err(|error| {
            let readable = !matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_));
            if readable {
                Rejected::Signature
            } else {
                Rejected::Claims
            }
        })
}

fn birthdate(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let plain = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let date: Date = if plain {
        text.parse().ok()?
    } else {
        return None;
    };
    (date.year() >= BIRTH_YEAR_MIN).then_some(date)
}

#[cfg(test)]
mod tests;
