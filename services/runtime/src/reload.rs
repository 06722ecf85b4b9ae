//! Values that live in files and follow them: certificates, keys, key sets.
//!
//! Invariant: a reader always sees a whole value; files that cannot be used leave the last good one in place.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::drain::Drain;
use crate::fields;
use crate::tasks::{BoxError, OnExit, TaskHandle, Tasks};
use crate::telemetry::LogLimit;

/// Files are looked at this often: soon enough for a rotation, cheap enough to forget.
const LOOK_EVERY: Duration = Duration::from_secs(1);

static UNUSABLE: LogLimit = LogLimit::every(Duration::from_secs(60));

/// A value loaded from files. Cheap to clone; reading it takes no lock.
pub struct Reloading<T>(Arc<Inner<T>>);

type Load<T> = Box<dyn Fn() -> Result<T, BoxError> + Send + Sync>;

struct Inner<T> {
    files: Vec<PathBuf>,
    current: ArcSwap<T>,
    load: Load<T>,
    /// What the files looked like just before they were last loaded well.
    seen: Mutex<Vec<Option<Look>>>,
}

/// Changes whenever a file is written or, as mounted secrets are, replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: meta.modified().ok(),
            bytes: meta.len(),
            inode: meta.ino(),
        })
    }
}

impl<T> Clone for Reloading<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading")
            .field("files", &self.0.files)
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Loads the value for the first time; `load` runs again whenever one of `files` looks different.
    pub fn load<E>(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E>
    where
        E: Into<BoxError>,
    {
        // Looked at before loading: a change in between is then seen as a change.
        let seen = files.iter().map(|file| Look::at(file)).collect();
        let first = load()?;
        Ok(Self(Arc::new(Inner {
            files,
            current: ArcSwap::from_pointee(first),
            load: Box::new(move || load().map_err(Into::into)),
            seen: Mutex::new(seen),
        })))
    }

    /// The last good value.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.0.current.load_full()
    }

    /// Looks at the files once; says whether there is a new value. Reads files: not for async code.
    pub fn check(&self) -> bool {
        let looks: Vec<_> = self.0.files.iter().map(|file| Look::at(file)).collect();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == looks {
            return false;
        }
        match (self.0.load)() {
            Ok(value) => {
                self.0.current.store(Arc::new(value));
                *seen = looks;
                tracing::info!(files = ?self.0.files, "files reloaded");
                true
            }
            // Tried again at the next look: a certificate and its key are not replaced at the same instant.
            Err(error) => {
                if let Some(suppressed) = UNUSABLE.pass() {
                    let error = fields::chain(error.as_ref());
                    tracing::warn!(
                        files = ?self.0.files, error, suppressed,
                        "changed files cannot be used; the last good ones count"
                    );
                }
                false
            }
        }
    }

    /// Looks at the files each second until the process stops.
    pub fn watch(&self, name: &'static str, tasks: &Tasks, drain: &Drain) -> TaskHandle {
        let (this, drain) = (self.clone(), drain.clone());
        tasks.spawn(name, OnExit::StopProcess, async move {
            while drain
                .interrupt(tokio::time::sleep(LOOK_EVERY))
                .await
                .is_some()
            {
                let looking = this.clone();
                tokio::task::spawn_blocking(move || looking.check()).await?;
            }
            Ok::<_, tokio::task::JoinError>(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_counts_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("number");
        std::fs::write(&path, "1").expect("writable");
        let from = path.clone();
        let number = Reloading::load(vec![path.clone()], move || {
            std::fs::read_to_string(&from)?
                .parse::<u32>()
                .map_err(std::io::Error::other)
        })
        .expect("a number");
        assert!(!number.check(), "nothing changed");

        std::fs::write(&path, "broken").expect("writable");
        assert!(!number.check());
        assert_eq!(*number.current(), 1);

        // As mounted secrets change: another file takes the name.
        let next = folder.path().join("next");
        std::fs::write(&next, "22").expect("writable");
        std::fs::rename(&next, &path).expect("same folder");
        assert!(number.check());
        assert_eq!(*number.current(), 22);
        assert!(!number.check());

        std::fs::remove_file(&path).expect("exists");
        assert!(!number.check());
        assert_eq!(*number.current(), 22);
    }
}
