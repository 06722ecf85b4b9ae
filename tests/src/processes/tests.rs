//! Children are logged, signalled, and gone in the end.

use super::*;
use crate::await_until::await_until;

const BOUND: Duration = Duration::from_secs(20);

fn shell(folder: &Path, script: &str) -> anyhow::Result<Process> {
    Process::start(Launch::new("shell", "/bin/sh", folder).args(["-c", script]))
}

/// The state letter of `/proc/<id>/stat`: `T` is stopped; `None` is gone (or a zombie nobody buried).
fn state(id: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .trim_start()
        .chars()
        .next()
        .filter(|state| *state != 'Z')
}

async fn logged_ids(process: &Process, count: usize) -> anyhow::Result<Vec<u32>> {
    let log = await_some("the children's ids", BOUND, || async {
        process
            .log()
            .ok()
            .filter(|log| log.lines().count() >= count)
    })
    .await?;
    log.lines()
        .map(|line| line.parse().with_context(|| format!("not an id: {line}")))
        .collect()
}

#[tokio::test]
async fn output_and_exit_status_are_kept() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut process = shell(folder.path(), "echo out; echo err >&2; exit 3")?;
    let status = process.await_exit(BOUND).await?;
    assert_eq!(status.code(), Some(3));
    assert_eq!(process.log()?, "out\nerr\n");
    assert!(!process.running()?);
    assert!(
        process.terminate().is_err(),
        "a signal to a dead process must not pass silently"
    );
    let error = process
        .expect_running()
        .expect_err("it has ended")
        .to_string();
    assert!(
        error.contains("exit status: 3") && error.contains("err"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn kill_takes_grandchildren_along_even_those_in_sessions_of_their_own() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let script = "sleep 600 & echo $!; setsid sh -c 'echo $$; exec sleep 600' & wait";
    let mut process = shell(folder.path(), script)?;
    let ids = logged_ids(&process, 2).await?;
    assert!(was_killed(process.kill()?));
    await_until("grandchildren to be gone", BOUND, || async {
        ids.iter().all(|id| state(*id).is_none())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn drop_kills() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let process = shell(folder.path(), "sleep 600 & echo $!; wait")?;
    let mut ids = logged_ids(&process, 1).await?;
    ids.push(process.id());
    drop(process);
    await_until("all to be gone", BOUND, || async {
        ids.iter().all(|id| state(*id).is_none())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn frozen_is_not_ended_and_thaws() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut process = shell(
        folder.path(),
        "trap 'exit 7' TERM; echo $$; while :; do :; done",
    )?;
    let id = logged_ids(&process, 1).await?[0];
    process.freeze()?;
    await_until("stopped", BOUND, || async { state(id) == Some('T') }).await?;
    process.terminate()?;
    assert!(
        process.running()?,
        "a frozen process cannot have handled SIGTERM"
    );
    process.thaw()?;
    assert_eq!(process.await_exit(BOUND).await?.code(), Some(7));
    Ok(())
}

#[tokio::test]
async fn restart_appends_to_the_same_log() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut process = shell(folder.path(), "echo $$; exec sleep 600")?;
    let first = logged_ids(&process, 1).await?[0];
    process.restart()?;
    let ids = logged_ids(&process, 2).await?;
    assert_eq!(ids[0], first);
    assert_eq!(ids[1], process.id());
    assert!(state(first).is_none() && state(ids[1]).is_some());
    Ok(())
}

#[test]
fn a_missing_program_fails() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let launch = Launch::new("ghost", "/nowhere/ghost", folder.path());
    let error = Process::start(launch)
        .expect_err("it does not exist")
        .to_string();
    assert!(error.contains("/nowhere/ghost"), "{error}");
}
