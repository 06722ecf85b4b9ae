//! Ports that nobody else takes.
//!
//! Invariant: a port handed out is handed to no other test process of this user until this process ends,
//! so that a server may be stopped and started again on the same port.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, bail};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that a
/// connection to one server never occupies the port of another.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// Open files hold their advisory locks; the kernel gives them back however the process ends.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 on which nothing listens, kept for this process until its end.
///
/// # Errors
/// When the lock folder cannot be written or every port is taken.
pub fn free_port() -> anyhow::Result<u16> {
    let folder = folder()?;
    let span = u32::from(LAST - FIRST) + 1;
    // Processes start their search at different ports, so that they seldom meet.
    let start = std::process::id().wrapping_mul(97) % span;
    for step in 0..span {
        let port = FIRST + u16::try_from((start + step) % span).context("the span fits 16 bits")?;
        let path = folder.join(port.to_string());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("take {}", path.display()));
            }
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().expect("pushing cannot panic").push(file);
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {LAST}")
}

/// One folder per user: a file made by root could not be opened by others.
fn folder() -> anyhow::Result<PathBuf> {
    let user = fs::metadata("/proc/self").context("read /proc/self")?.uid();
    let folder = std::env::temp_dir().join(format!("doseline-ports-{user}"));
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_differ_can_be_bound_and_stay_taken() -> anyhow::Result<()> {
        let ports = (0..20)
            .map(|_| free_port())
            .collect::<anyhow::Result<BTreeSet<_>>>()?;
        assert_eq!(ports.len(), 20, "one was given twice");
        for port in &ports {
            TcpListener::bind(("127.0.0.1", *port))?;
            let rival = File::options()
                .write(true)
                .open(folder()?.join(port.to_string()))?;
            assert!(
                matches!(rival.try_lock(), Err(TryLockError::WouldBlock)),
                "another process could take {port}"
            );
        }
        Ok(())
    }
}
