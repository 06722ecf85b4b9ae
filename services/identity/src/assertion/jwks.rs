//! A provider's public keys (RFC 7517), each pinned to one algorithm.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use runtime::reload::Reloading;
use serde::Deserialize;

/// Larger files are not key sets.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Providers publish a handful.
const KEYS_MAX: usize = 64;
/// RFC 7518, 3.3: RSA keys have at least 2,048 bits.
const RSA_BYTES_MIN: usize = 256;
const RSA_BYTES_MAX: usize = 1_024;

/// Why a file is no key set.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a JSON object with a list of keys.
    #[error("{path} is not a JWK set")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too large, or too many keys.
    #[error("{path} is larger than any key set")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Two keys with one id, or one without an id beside others.
    #[error("{path} has keys that cannot be told apart by their ids")]
    Ambiguous {
        /// The file.
        path: PathBuf,
    },
    /// Nothing that could have signed an assertion.
    #[error("{path} has no key for EdDSA (Ed25519), ES256 or RS256 (2048 bits or more)")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The keys of one provider.
pub struct KeySet(Vec<PinnedKey>);

/// A key with the only algorithm it is used for.
pub struct PinnedKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    // One by one, so that a kind of key that is not known yet does not spoil the others.
    keys: Vec<serde_json::Value>,
}

// === impl KeySet ===

impl KeySet {
    /// Follows a file.
    pub fn follow(path: &Path) -> Result<Reloading<Self>, Fault> {
        let path = path.to_owned();
        Reloading::load(vec![path.clone()], move || Self::read(&path))
    }

    /// Reads a file. Blocks.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let unreadable = |source| Fault::Unreadable {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(Fault::TooLarge {
                path: path.to_owned(),
            });
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        let document: Document =
            serde_json::from_slice(&text).map_err(|source| Fault::Malformed {
                path: path.to_owned(),
                source,
            })?;
        if document.keys.len() > KEYS_MAX {
            return Err(Fault::TooLarge {
                path: path.to_owned(),
            });
        }
        let keys: Vec<_> = document
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
            .filter_map(|key| pin(&key))
            .collect();
        if keys.is_empty() {
            return Err(Fault::Empty {
                path: path.to_owned(),
            });
        }
        let alike = |(at, key): (usize, &PinnedKey)| {
            key.id.is_none() && keys.len() > 1 || keys[..at].iter().any(|other| other.id == key.id)
        };
        if keys.iter().enumerate().any(alike) {
            return Err(Fault::Ambiguous {
                path: path.to_owned(),
            });
        }
        Ok(Self(keys))
    }

    /// The key with the id; without an id the only key there is.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&PinnedKey> {
        match (id, self.0.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        }
    }
}

/// A key we can use, with the algorithm that its kind and its `alg` agree on.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of keys that are not named are never used"
)]
fn pin(key: &Jwk) -> Option<PinnedKey> {
    let algorithm = match &key.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (length(&pair.x)? == 32).then_some(Algorithm::EdDSA)?
        }
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            (length(&point.x)? == 32 && length(&point.y)? == 32).then_some(Algorithm::ES256)?
        }
        AlgorithmParameters::RSA(rsa) => (RSA_BYTES_MIN..=RSA_BYTES_MAX)
            .contains(&length(&rsa.n)?)
            .then_some(Algorithm::RS256)?,
        // Symmetric keys above all: whoever can verify with one can sign.
        _ => return None,
    };
    if key
        .common
        .key_algorithm
        .is_some_and(|named| named != algorithm.into())
    {
        return None;
    }
    if !matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let id = key.common.key_id.clone();
    Some(PinnedKey {
        id,
        algorithm,
        key: DecodingKey::from_jwk(key).ok()?,
    })
}

fn length(base64: &str) -> Option<usize> {
    B64.decode(base64).ok().map(|bytes| bytes.len())
}
