//! Signing keys: one file per key in a folder, the newest usable one signs, all are published.
//!
//! A key is rotated by adding a file whose `not_before` lies ahead: verifiers know it before it signs, and know the
//! old one as long as its file stays. Invariant: a seed is never printed.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use domain::paseto::{SigningKeyWithId, TrustedKeys};
use domain::{InstanceId, Timestamp};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::reload::Reloading;
use crate::trusted_keys;

/// Key files are smaller than a kilobyte; anything larger is something else.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a folder gives no keys.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a key file. The parser's words are left out: they could quote the seed.
    #[error("{path} is not a key file: JSON with kid, seed (32 bytes in base64) and not_before")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Two files have the same id.
    #[error("{path} has the id of another key")]
    Duplicate {
        /// The second file.
        path: PathBuf,
    },
    /// Nothing that may sign now.
    #[error("{path} has no key that is in force yet")]
    None {
        /// The folder.
        path: PathBuf,
    },
}

/// All keys of a folder, oldest first.
pub struct SigningKeys(Vec<Key>);

struct Key {
    not_before: Timestamp,
    key: Arc<SigningKeyWithId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kid: String,
    seed: String,
    not_before: jiff::Timestamp,
}

/// Makes a new key in `folder`, which is made if it is missing, and returns its id.
pub fn generate(folder: &Path, not_before: Timestamp) -> Result<String, Fault> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Fault::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let kid = format!("k{}", hex::encode(rand::random::<[u8; 8]>()));
    let path = folder.join(format!("{kid}.json"));
    let file = KeyFile {
        kid: kid.clone(),
        seed: B64.encode(rand::random::<[u8; 32]>()),
        not_before: jiff::Timestamp::from_microsecond(not_before.as_micros())
            .map_err(|_| Fault::Malformed { path: path.clone() })?,
    };
    let json =
        serde_json::to_vec_pretty(&file).map_err(|_| Fault::Malformed { path: path.clone() })?;
    // Under another name first: a reader must never meet half a key.
    let partial = folder.join(format!(".{kid}.partial"));
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(io(&partial))?;
    out.write_all(&json)
        .and_then(|()| out.sync_all())
        .map_err(io(&partial))?;
    std::fs::rename(&partial, &path).map_err(io(&path))?;
    Ok(kid)
}

/// Writes the public halves of all keys in `folder` for those who verify.
pub fn publish(folder: &Path, public_set: &Path) -> Result<(), Fault> {
    let json = SigningKeys::read(folder)?.public_set();
    let partial = public_set.with_extension("partial");
    let written =
        std::fs::write(&partial, json).and_then(|()| std::fs::rename(&partial, public_set));
    written.map_err(|source| Fault::Io {
        path: public_set.to_owned(),
        source,
    })
}

// === impl SigningKeys ===

impl SigningKeys {
    /// Reads every `*.json` of a folder. Blocks.
    pub fn read(folder: &Path) -> Result<Self, Fault> {
        let io = |source| Fault::Io {
            path: folder.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                paths.push(path);
            }
        }
        paths.sort();
        let mut keys: Vec<Key> = Vec::with_capacity(paths.len());
        for path in paths {
            let key = read_key(&path)?;
            if keys.iter().any(|known| known.key.kid() == key.key.kid()) {
                return Err(Fault::Duplicate { path });
            }
            keys.push(key);
        }
        keys.sort_by(|a, b| (a.not_before, a.key.kid()).cmp(&(b.not_before, b.key.kid())));
        Ok(Self(keys))
    }

    /// Follows a folder; a key must be in force at the start.
    pub fn follow(folder: &Path, now: Timestamp) -> Result<Reloading<Self>, Fault> {
        let path = folder.to_owned();
        let keys = Reloading::load(vec![path.clone()], move || {
            let keys = Self::read(&path)?;
            // A folder emptied by mistake must not replace keys that work.
            if keys.0.is_empty() {
                Err(Fault::None { path: path.clone() })
            } else {
                Ok(keys)
            }
        })?;
        if keys.current().signer(now).is_none() {
            return Err(Fault::None {
                path: folder.to_owned(),
            });
        }
        Ok(keys)
    }

    /// The newest key that is in force at `now`.
    #[must_use]
    pub fn signer(&self, now: Timestamp) -> Option<Arc<SigningKeyWithId>> {
        self.0
            .iter()
            .rev()
            .find(|key| key.not_before <= now)
            .map(|key| Arc::clone(&key.key))
    }

    /// The public halves, as the file that gateways and inventories load.
    #[must_use]
    pub fn public_set(&self) -> String {
        trusted_keys::render(
            self.0
                .iter()
                .map(|key| (key.key.kid(), key.key.verifying_key().to_bytes())),
        )
    }

    /// The public halves, to verify with.
    #[must_use]
    pub fn trusted(&self) -> TrustedKeys {
        let keys = self
            .0
            .iter()
            .map(|key| (key.key.kid().to_owned(), key.key.verifying_key().to_bytes()));
        // Keys made from seeds are never weak.
        TrustedKeys::new(keys).unwrap_or_default()
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| &key.key))
            .finish()
    }
}

fn read_key(path: &Path) -> Result<Key, Fault> {
    let io = |source| Fault::Io {
        path: path.to_owned(),
        source,
    };
    let malformed = || Fault::Malformed {
        path: path.to_owned(),
    };
    if std::fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
        return Err(malformed());
    }
    let file: KeyFile =
        serde_json::from_slice(&std::fs::read(path).map_err(io)?).map_err(|_| malformed())?;
    // The id goes into footers unescaped: it has the form of every other id.
    let kid = file.kid.parse::<InstanceId>().map_err(|_| malformed())?;
    let seed = B64
        .decode(&file.seed)
        .ok()
        .and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let key = SigningKey::from_bytes(&seed.ok_or_else(malformed)?);
    Ok(Key {
        not_before: Timestamp::from_micros(file.not_before.as_microsecond()),
        key: Arc::new(SigningKeyWithId::new(kid.as_str(), key)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_625_000_000);

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_key_that_comes_later_is_published_before_it_signs() {
        let folder = folder();
        let old = generate(folder.path(), NOW).expect("writable");
        let keys = SigningKeys::follow(folder.path(), NOW).expect("a key in force");
        let signed_by_old = keys
            .current()
            .signer(NOW)
            .expect("in force")
            .sign(b"x", "test");

        let later = NOW.plus(std::time::Duration::from_secs(3_600));
        let new = generate(folder.path(), later).expect("writable");
        assert!(keys.check(), "a new file is a change of the folder");
        let keys = keys.current();
        assert_eq!(keys.signer(NOW).expect("in force").kid(), old);
        assert_eq!(keys.signer(later).expect("in force").kid(), new);
        assert!(keys.signer(Timestamp::from_secs(0)).is_none());
        let trusted = trusted_keys::parse(keys.public_set().as_bytes()).expect("good keys");
        assert!(trusted.verify(&signed_by_old, "test").is_ok());
        let signed_by_new = keys.signer(later).expect("in force").sign(b"x", "test");
        assert!(trusted.verify(&signed_by_new, "test").is_ok());
        assert!(keys.trusted().verify(&signed_by_new, "test").is_ok());
    }

    #[test]
    fn a_bad_file_stops_the_start_but_not_a_running_process() {
        let folder = folder();
        assert!(matches!(
            SigningKeys::follow(folder.path(), NOW),
            Err(Fault::None { .. })
        ));
        generate(folder.path(), NOW).expect("writable");
        let keys = SigningKeys::follow(folder.path(), NOW).expect("a key in force");
        let canary = "c2VjcmV0LWNhbmFyeQ==";
        let bad =
            format!(r#"{{"kid":"k1","seed":"{canary}","not_before":"2021-07-01T00:00:00Z"}}"#);
        std::fs::write(folder.path().join("bad.json"), bad).expect("writable");
        assert!(!keys.check());
        assert!(keys.current().signer(NOW).is_some());
        let fault = SigningKeys::read(folder.path()).expect_err("a bad file");
        assert!(!format!("{fault:?} {fault}").contains(canary));
    }

    #[test]
    fn two_keys_with_one_id_are_refused() {
        let folder = folder();
        let kid = generate(folder.path(), NOW).expect("writable");
        let path = folder.path().join(format!("{kid}.json"));
        std::fs::copy(&path, folder.path().join("again.json")).expect("writable");
        assert!(matches!(
            SigningKeys::read(folder.path()),
            Err(Fault::Duplicate { .. })
        ));
    }

    #[test]
    fn key_files_are_the_owners_alone_and_the_public_file_has_no_seed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder();
        let kid = generate(&folder.path().join("permit"), NOW).expect("writable");
        let file = folder.path().join("permit").join(format!("{kid}.json"));
        assert_eq!(
            file.metadata().expect("there").permissions().mode() & 0o777,
            0o600
        );
        let public = folder.path().join("permit_keys.json");
        publish(&folder.path().join("permit"), &public).expect("writable");
        let text = std::fs::read_to_string(&public).expect("readable");
        assert!(text.contains(&kid) && !text.contains("seed"));
        let seed: KeyFile =
            serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("a key");
        assert!(!text.contains(&seed.seed));
    }
}
