//! Child processes that can be killed, frozen and woken, and that never outlive the test.
//!
//! Invariant: no descendant of a [`Process`] lives on after its drop, nor after this process is killed (see `reaper`).

mod launch;
mod reaper;
mod tree;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

pub use launch::{Launch, User, find_program};

use crate::await_until::await_some;

/// A running child in a process group of its own, with its output in a log file.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it; standard output and error are appended to the launch's log file.
    ///
    /// # Errors
    /// When the program or the log file cannot be opened.
    pub fn start(launch: Launch) -> anyhow::Result<Self> {
        let child = launch.spawn()?;
        let process = Self {
            launch,
            child,
            ended: None,
        };
        reaper::watch(process.id())?;
        Ok(process)
    }

    /// The name it was launched under.
    #[must_use]
    pub fn name(&self) -> &str {
        self.launch.name()
    }

    /// Its process id, which is also its group's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.launch.log_path()
    }

    /// What it has written so far.
    ///
    /// # Errors
    /// When the log file cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        read_log(&self.log_path())
    }

    /// The last lines of its output, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        const LINES: usize = 30;
        let log = self.log().unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Whether it has not ended; a frozen process counts as running.
    ///
    /// # Errors
    /// When the operating system refuses to say.
    pub fn running(&mut self) -> anyhow::Result<bool> {
        Ok(self.ended()?.is_none())
    }

    /// SIGSTOP to it and all its descendants: it is there, holds its sockets, and does nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// SIGCONT to it and all its descendants.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// SIGTERM to the process alone: asks it to drain and stop.
    ///
    /// # Errors
    /// When it has ended.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// A signal to the process alone.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if let Some(status) = self.ended {
            bail!("{} has ended: {status}", self.name());
        }
        rustix::process::kill_process(self.pid(), signal)
            .with_context(|| format!("send {signal:?} to {}", self.name()))
    }

    /// SIGKILL to it and all its descendants, and waits until the operating system has buried it.
    ///
    /// # Errors
    /// When it cannot be waited for. Killing what has ended is no error.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        // Collected first: once their parent is gone, descendants belong to nobody.
        let descendants = tree::descendants(self.id());
        self.child
            .kill()
            .with_context(|| format!("kill {}", self.name()))?;
        tree::signal_group(self.pid(), Signal::KILL);
        tree::signal_each(&descendants, Signal::KILL);
        let status = self
            .child
            .wait()
            .with_context(|| format!("wait for {}", self.name()))?;
        Ok(self.bury(status))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs at the bound; the message carries the end of its log.
    pub async fn await_exit(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let label = format!("end of {}", self.name());
        let waited = await_some(&label, bound, || {
            std::future::ready(self.ended().transpose())
        })
        .await;
        waited.with_context(|| self.log_tail())?
    }

    /// The bytes of memory that it has now.
    ///
    /// # Errors
    /// When it has ended, or the operating system does not tell.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib = kib.with_context(|| format!("{path} names no resident memory"))?;
        Ok(kib.trim().parse::<u64>()? * 1_024)
    }

    /// Starts it again as it was launched; kills it first if it still runs.
    ///
    /// # Errors
    /// When it cannot be killed or started.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.child = self.launch.spawn()?;
        self.ended = None;
        reaper::watch(self.id())
    }

    /// An error with the end of the log if it has ended, for loops that wait for it to become ready.
    ///
    /// # Errors
    /// When it has ended.
    pub fn expect_running(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early: {status}\n{}", self.name(), self.log_tail()),
        }
    }

    fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let status = self
                .child
                .try_wait()
                .with_context(|| format!("look at {}", self.launch.name()))?;
            if let Some(status) = status {
                self.bury(status);
            }
        }
        Ok(self.ended)
    }

    /// Children of a process that ended by itself may still live in its group.
    fn bury(&mut self, status: ExitStatus) -> ExitStatus {
        tree::signal_group(self.pid(), Signal::KILL);
        reaper::forget(self.id());
        self.ended = Some(status);
        status
    }

    fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        tree::signal_group(self.pid(), signal);
        tree::signal_each(&tree::descendants(self.id()), signal);
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(error = %format!("{error:#}"), "a child process may have been left behind");
        }
    }
}

/// Whether it was ended by SIGKILL.
#[must_use]
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

fn read_log(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
