//! The public keys that permits and rooms are believed by, from a file that is reloaded when it changes.
//!
//! The file is one JSON object: key id -> 32-byte Ed25519 public key in base64 (standard alphabet).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use domain::paseto::TrustedKeys;

use crate::drain::Drain;
use crate::reload::Reloading;
use crate::tasks::{TaskHandle, Tasks};

/// A rotation has two keys, an emergency three; more is a mistake.
const KEYS_MAX: usize = 64;

/// Why a file gives no set of public keys.
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
    /// It was read, but it is no set of keys.
    #[error("{path} cannot be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Malformed,
    },
}

/// Why a text is no set of public keys.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not one JSON object of texts.
    #[error("is not a JSON object of key ids and base64 keys")]
    Json(#[source] serde_json::Error),
    /// Nothing in it, or too much.
    #[error("must have 1 to {KEYS_MAX} keys")]
    Count,
    /// A value is not a good 32-byte Ed25519 public key in base64.
    #[error("the key {kid} is not a good 32-byte Ed25519 public key in base64")]
    Key {
        /// The key's id.
        kid: String,
    },
}

/// A set of public keys that follows its file. Clones share it.
#[derive(Clone, Debug)]
pub struct TrustedKeysFile(Reloading<TrustedKeys>);

/// Reads a set of public keys.
pub fn parse(json: &[u8]) -> Result<TrustedKeys, Malformed> {
    let texts: BTreeMap<String, String> = serde_json::from_slice(json).map_err(Malformed::Json)?;
    if texts.is_empty() || texts.len() > KEYS_MAX {
        return Err(Malformed::Count);
    }
    let mut keys = Vec::with_capacity(texts.len());
    for (kid, text) in texts {
        let bytes = B64
            .decode(&text)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let good = bytes.filter(|bytes| TrustedKeys::new([(kid.clone(), *bytes)]).is_ok());
        let Some(bytes) = good else {
            return Err(Malformed::Key { kid });
        };
        keys.push((kid, bytes));
    }
    TrustedKeys::new(keys).map_err(|_| Malformed::Count)
}

/// Writes a set of public keys as [`parse`] reads it.
#[must_use]
pub fn render<'a>(keys: impl IntoIterator<Item = (&'a str, [u8; 32])>) -> String {
    let texts: BTreeMap<&str, String> = keys
        .into_iter()
        .map(|(kid, key)| (kid, B64.encode(key)))
        .collect();
    let mut json = serde_json::to_string_pretty(&texts).unwrap_or_default();
    json.push('\n');
    json
}

// === impl TrustedKeysFile ===

impl TrustedKeysFile {
    /// Reads the file for the first time; here a bad file is a fault.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Fault> {
        let path = path.into();
        let files = vec![path.clone()];
        Reloading::load(files, move || {
            let unreadable = |source| Fault::Unreadable {
                path: path.clone(),
                source,
            };
            let json = std::fs::read(&path).map_err(unreadable)?;
            parse(&json).map_err(|source| Fault::Unusable {
                path: path.clone(),
                source,
            })
        })
        .map(Self)
    }

    /// The keys in force.
    #[must_use]
    pub fn current(&self) -> Arc<TrustedKeys> {
        self.0.current()
    }

    /// Looks at the file once; says whether there are new keys. Reads files: not for async code.
    pub fn check(&self) -> bool {
        self.0.check()
    }

    /// Looks at the file each second until the process stops.
    pub fn watch(&self, name: &'static str, tasks: &Tasks, drain: &Drain) -> TaskHandle {
        self.0.watch(name, tasks, drain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The base point of the curve: a good public key.
    const GOOD: [u8; 32] = [
        0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
        0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
        0x66, 0x66,
    ];

    #[test]
    fn what_is_rendered_is_parsed() {
        let json = render([("k1", GOOD), ("k2", GOOD)]);
        let keys = parse(json.as_bytes()).expect("good keys");
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["k1", "k2"]);
    }

    #[test]
    fn weak_short_and_missing_keys_are_refused_by_name() {
        let weak = render([("k1", GOOD), ("weak", [0; 32])]);
        assert!(matches!(parse(weak.as_bytes()), Err(Malformed::Key { kid }) if kid == "weak"));
        assert!(matches!(
            parse(br#"{"k":"AAAA"}"#),
            Err(Malformed::Key { .. })
        ));
        assert!(matches!(parse(b"{}"), Err(Malformed::Count)));
        assert!(matches!(parse(b"[]"), Err(Malformed::Json(_))));
    }

    #[test]
    fn a_bad_new_file_leaves_the_old_keys_in_force() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("permit_keys.json");
        assert!(matches!(
            TrustedKeysFile::open(&path),
            Err(Fault::Unreadable { .. })
        ));
        std::fs::write(&path, render([("k1", GOOD)])).expect("writable");
        let file = TrustedKeysFile::open(&path).expect("good keys");
        std::fs::write(&path, "{").expect("writable");
        assert!(!file.check());
        assert_eq!(file.current().ids().collect::<Vec<_>>(), ["k1"]);
        std::fs::write(&path, render([("k1", GOOD), ("k2", GOOD)])).expect("writable");
        assert!(file.check());
        assert_eq!(file.current().ids().collect::<Vec<_>>(), ["k1", "k2"]);
    }
}
