//! A shell that kills what a killed test process leaves behind.
//!
//! It reads the ids of process groups from a pipe whose only other end is in this process. The pipe breaks however
//! this process ends, also by SIGKILL, and then the shell kills every group it still knows.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::Context;

const SCRIPT: &str = r#"
trap '' INT TERM HUP
groups=' '
while read -r verb group; do
    case $verb in
    watch) groups="$groups$group " ;;
    forget) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"#;

static REAPER: Mutex<Option<Child>> = Mutex::new(None);

/// From now on the group dies with this process.
pub(super) fn watch(group: u32) -> anyhow::Result<()> {
    let mut reaper = REAPER.lock().expect("nothing here panics with it");
    if reaper.is_none() {
        *reaper = Some(start()?);
    }
    tell(reaper.as_mut(), "watch", group).context("tell the reaper")
}

/// The group is gone and its id may soon be somebody else's.
pub(super) fn forget(group: u32) {
    let mut reaper = REAPER.lock().expect("nothing here panics with it");
    if let Err(error) = tell(reaper.as_mut(), "forget", group) {
        tracing::warn!(%error, "the reaper has ended");
    }
}

fn tell(reaper: Option<&mut Child>, verb: &str, group: u32) -> std::io::Result<()> {
    match reaper.and_then(|child| child.stdin.as_mut()) {
        Some(pipe) => writeln!(pipe, "{verb} {group}"),
        None => Ok(()),
    }
}

fn start() -> anyhow::Result<Child> {
    Command::new("sh")
        .args(["-c", SCRIPT])
        // Not in the runner's group, or it would be killed together with the test it guards.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the reaper")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn it_kills_what_it_watches_and_spares_what_it_was_told_to_forget() -> anyhow::Result<()> {
        let victim = || Command::new("sleep").arg("20").process_group(0).spawn();
        let (mut first, mut spared, mut last) = (victim()?, victim()?, victim()?);
        let mut reaper = Some(start()?);
        for child in [&first, &spared, &last] {
            tell(reaper.as_mut(), "watch", child.id())?;
        }
        tell(reaper.as_mut(), "forget", spared.id())?;
        let mut reaper = reaper.context("it was just started")?;
        // What the end of this process would do to the pipe; `wait` closes it first.
        reaper.wait()?;
        assert_eq!(first.wait()?.signal(), Some(9));
        assert_eq!(last.wait()?.signal(), Some(9));
        assert!(
            spared.try_wait()?.is_none(),
            "the reaper killed a group it had forgotten"
        );
        spared.kill()?;
        spared.wait()?;
        Ok(())
    }
}
