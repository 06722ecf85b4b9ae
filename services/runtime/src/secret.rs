//! Values that must never reach a log, a printed configuration or an error text.
//!
//! Invariant: the only way to the content is `expose`, which is easy to search for.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const REDACTED: &str = "[redacted]";

/// Files above this are not secrets but a mistyped path.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A secret text. Prints and serialises as `[redacted]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The path of a file that holds a secret; the path may be shown, the content not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFile(PathBuf);

/// Why a secret file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No path was configured.
    #[error("no file is named")]
    Unset,
    /// The operating system refused.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing in it.
    #[error("{path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Too large to be what was meant.
    #[error("{path} is larger than {SECRET_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

// === impl Secret ===

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(content: impl Into<Vec<u8>>) -> Self {
        Self(content.into())
    }

    /// The content.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The content as text, if it is text.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(content: String) -> Self {
        Self(content.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { REDACTED })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Refuses every other type in words of its own: serde's message would quote the value.
struct SecretVisitor;

macro_rules! refuse {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<Secret, E> {
            Err(E::custom("a secret must be a quoted text"))
        })*
    };
}

impl<'de> de::Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret text")
    }

    fn visit_str<E: de::Error>(self, content: &str) -> Result<Secret, E> {
        Ok(Secret(content.as_bytes().to_vec()))
    }

    refuse!(visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_bool: bool);

    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
        Err(de::Error::custom("a secret must be a quoted text"))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
        Err(de::Error::custom("a secret must be a quoted text"))
    }
}

// === impl SecretFile ===

impl SecretFile {
    /// Names a file; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether a file was named at all.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.0.as_os_str().is_empty()
    }

    /// Reads the secret. One line break at the end is an editor's, not the secret's.
    pub fn read(&self) -> Result<Secret, Fault> {
        let path = || self.0.clone();
        if !self.is_set() {
            return Err(Fault::Unset);
        }
        let unreadable = |source| Fault::Unreadable {
            path: path(),
            source,
        };
        if std::fs::metadata(&self.0).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
            return Err(Fault::TooLarge { path: path() });
        }
        let mut content = std::fs::read(&self.0).map_err(unreadable)?;
        if content.last() == Some(&b'\n') {
            content.pop();
            if content.last() == Some(&b'\r') {
                content.pop();
            }
        }
        if content.is_empty() {
            return Err(Fault::Empty { path: path() });
        }
        Ok(Secret(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Holder {
        pepper: Secret,
    }

    #[test]
    fn a_secret_is_never_printed() {
        let holder: Holder = toml::from_str("pepper = 'canary-5521'").expect("a valid holder");
        assert_eq!(holder.pepper.expose(), b"canary-5521");
        let everything = format!(
            "{holder:?} {:#?} {} {}",
            holder.pepper,
            holder.pepper,
            toml::to_string(&holder).expect("a holder serialises"),
        );
        assert!(!everything.contains("canary"), "{everything}");
        assert!(everything.contains("[redacted]"));
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_refused_without_quoting_it() {
        for wrong in [
            "pepper = 987651",
            "pepper = [987651]",
            "pepper = { a = 987651 }",
        ] {
            let error = toml::from_str::<toml::Table>(wrong)
                .expect("valid TOML")
                .try_into::<Holder>()
                .expect_err("not a text");
            assert!(!format!("{error} {error:?}").contains("987651"), "{error}");
        }
    }

    #[test]
    fn a_file_gives_its_content_without_the_last_line_break() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pepper");
        std::fs::write(&path, "two\nlines\r\n").expect("writable");
        assert_eq!(
            SecretFile::new(&path).read().expect("readable").expose(),
            b"two\nlines"
        );
        std::fs::write(&path, "\n").expect("writable");
        assert!(matches!(
            SecretFile::new(&path).read(),
            Err(Fault::Empty { .. })
        ));
        assert!(matches!(
            SecretFile::new(folder.path().join("none")).read(),
            Err(Fault::Unreadable { .. })
        ));
        assert!(matches!(SecretFile::default().read(), Err(Fault::Unset)));
    }
}
