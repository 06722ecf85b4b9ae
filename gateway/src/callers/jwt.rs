//! Calling systems that prove themselves with a signed JWT: `sub` = system, `role`, `aud`, `exp`.
//!
//! Invariant: only EdDSA, ES256 and RS256 count, only keys of the configured set, and only until `exp`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use runtime::reload::Reloading;
use runtime::{Clock, Drain, Tasks};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Caller, Role};

/// A JWT is about a kilobyte; anything longer is not verified.
const LENGTH_MAX: usize = 4_096;
/// Calling systems are few and reuse their JWT; beyond this the memory of verified ones starts afresh.
const VERIFIED_MAX: usize = 1_024;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];

/// Verifies JWTs of calling systems. Cheap to clone.
#[derive(Clone)]
pub struct JwtCallers(Arc<Inner>);

struct Inner {
    keys: Reloading<JwkSet>,
    audience: String,
    clock: Clock,
    /// Verified once, believed until it expires or the key set changes: a verification costs as much as a booking's
    /// whole way through the gateway. By digest, so that no credential is kept.
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

#[derive(Clone)]
struct Verified {
    caller: Caller,
    expires_at: i64,
    keys: Arc<JwkSet>,
}

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JwtFault {
    /// The file.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content.
    #[error("{path} is no JSON Web Key Set")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    role: String,
    exp: i64,
}

impl std::fmt::Debug for JwtCallers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtCallers")
            .field("audience", &self.0.audience)
            .finish_non_exhaustive()
    }
}

impl JwtCallers {
    /// Reads the key set.
    pub fn load(path: PathBuf, audience: String, clock: Clock) -> Result<Self, JwtFault> {
        let from = path.clone();
        let keys = Reloading::load(vec![path], move || read(&from))?;
        Ok(Self(Arc::new(Inner {
            keys,
            audience,
            clock,
            verified: Mutex::default(),
        })))
    }

    /// Follows the file until the process stops.
    pub fn watch(&self, tasks: &Tasks, drain: &Drain) {
        self.0.keys.watch("reload_caller_keys", tasks, drain);
    }

    /// The calling system that a JWT proves; `None` when it proves nothing.
    #[must_use]
    pub fn verify(&self, text: &str) -> Option<Caller> {
        self.verify_until(text).map(|(caller, _)| caller)
    }

    /// The calling system that a JWT proves, and the second since 1970 from which on it proves nothing.
    pub(crate) fn verify_until(&self, text: &str) -> Option<(Caller, i64)> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let keys = self.0.keys.current();
        let now = self.0.clock.wall().as_secs();
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(known) = self.remembered(&digest)
            && Arc::ptr_eq(&known.keys, &keys)
            && now < known.expires_at
        {
            return Some((known.caller, known.expires_at));
        }
        let (caller, expires_at) = self.0.check(&keys, text, now)?;
        let mut verified = self
            .0
            .verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(
            digest,
            Verified {
                caller: caller.clone(),
                expires_at,
                keys,
            },
        );
        Some((caller, expires_at))
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Verified> {
        self.0
            .verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned()
    }
}

impl Inner {
    fn check(&self, keys: &JwkSet, text: &str, now: i64) -> Option<(Caller, i64)> {
        let header = decode_header(text).ok()?;
        if !ALGORITHMS.contains(&header.alg) {
            return None;
        }
        let key = find(keys, header.kid.as_deref())?;
        let key = DecodingKey::from_jwk(key).ok()?;
        // The algorithm's family must be the key's: a public key never passes for a shared secret.
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "aud", "sub"]);
        rules.validate_exp = false;
        let claims = decode::<Claims>(text, &key, &rules).ok()?.claims;
        if now >= claims.exp {
            return None;
        }
        let caller = Caller {
            system: claims.sub.parse().ok()?,
            role: Role::from_name(&claims.role)?,
        };
        Some((caller, claims.exp))
    }
}

fn find<'a>(keys: &'a JwkSet, kid: Option<&str>) -> Option<&'a Jwk> {
    match (kid, keys.keys.as_slice()) {
        (Some(kid), _) => keys.find(kid),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

fn read(path: &PathBuf) -> Result<JwkSet, JwtFault> {
    let text = std::fs::read(path).map_err(|source| JwtFault::Unreadable {
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| JwtFault::Malformed {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
