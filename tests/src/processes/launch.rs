//! How a child process is started: program, arguments, user, log file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// What to start, kept so that it can be started again in the same way.
#[derive(Clone, Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    folder: PathBuf,
    user: Option<User>,
}

impl Launch {
    /// A program under a name; its log is `<folder>/<name>.log` and its working folder is `folder`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            folder: folder.to_owned(),
            user: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it as this user; `None` is the one who runs the tests.
    #[must_use]
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed; the message carries its output.
    pub fn run(&self) -> anyhow::Result<()> {
        self.output().map(drop)
    }

    /// Runs it to its end; what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed; the message carries its output.
    pub fn output(&self) -> anyhow::Result<String> {
        let output = self
            .command()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "{} failed: {}\n{}{}",
                self.program.display(),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn spawn(&self) -> anyhow::Result<Child> {
        let path = self.log_path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        self.command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("second handle of the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(&self.folder)
            .process_group(0);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        if let Some(user) = &self.user {
            // The standard library drops the supplementary groups of root with the user id.
            command
                .uid(user.uid)
                .gid(user.gid)
                .env("HOME", &self.folder)
                .env("USER", &user.name);
        }
        command
    }
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// The user for a server that refuses to run as root: `None` when the tests do not run as root.
    ///
    /// # Errors
    /// When the tests run as root and there is no user `postgres`.
    pub fn for_servers_that_refuse_root() -> anyhow::Result<Option<Self>> {
        if std::fs::metadata("/proc/self")
            .context("read /proc/self")?
            .uid()
            != 0
        {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let user = Self::find(&users, "postgres");
        user.map(Some)
            .context("running as root, and there is no user `postgres` to start PostgreSQL as")
    }

    /// Makes the user the owner of a file or folder.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn own(&self, path: &Path) -> anyhow::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("give {} to {}", path.display(), self.name))
    }

    fn find(users: &str, name: &str) -> Option<Self> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (found, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (found == name).then(|| Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }
}

/// Looks for a program in `folders`, then in `PATH`.
///
/// # Errors
/// When it is in none of them.
pub fn find_program(name: &str, folders: &[&str]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|candidate| executable(candidate))
        .with_context(|| format!("the program `{name}` is missing; ./dev test installs it"))
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:\npostgres:x:103:104:,,:/:/bin/sh\n";
        let found = User::find(users, "postgres").expect("it is the third line");
        assert_eq!((found.uid, found.gid), (103, 104));
        assert_eq!(User::find(users, "postg"), None);
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = find_program("no-such-program-anywhere", &["/usr/bin"]);
        let text = error.expect_err("it does not exist").to_string();
        assert!(text.contains("no-such-program-anywhere"), "{text}");
        assert!(find_program("sh", &[]).is_ok());
    }
}
