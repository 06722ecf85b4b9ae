//! How tasks end, and what happens then.

use std::future::pending;
use std::sync::mpsc;

use super::*;

fn fixture() -> (Drain, Tasks) {
    let drain = Drain::within(Duration::from_secs(1));
    (drain.clone(), Tasks::new(drain))
}

async fn panics(message: &str) {
    tokio::task::yield_now().await;
    panic!("{message}");
}

#[tokio::test]
async fn a_panic_in_a_needed_task_stops_the_process() {
    let (drain, tasks) = fixture();
    tasks.spawn(
        "renew_lease",
        OnExit::StopProcess,
        panics("epoch went backwards"),
    );
    drain.signalled().await;
    assert_eq!(drain.cause(), Some(Cause::TaskEnded("renew_lease")));
}

#[tokio::test]
async fn a_needed_task_may_not_even_end_well() {
    let (drain, tasks) = fixture();
    tasks
        .spawn("watch_owners", OnExit::StopProcess, async {})
        .ended()
        .await;
    assert_eq!(drain.cause(), Some(Cause::TaskEnded("watch_owners")));
}

#[tokio::test]
async fn failures_and_panics_of_other_tasks_stop_nothing() {
    let (drain, tasks) = fixture();
    let failed = async { Err::<(), _>(std::io::Error::other("no route")) };
    tasks
        .spawn("report_load", OnExit::Log, failed)
        .ended()
        .await;
    tasks
        .spawn("report_load", OnExit::Log, panics("odd"))
        .ended()
        .await;
    tasks
        .spawn("answer", OnExit::Ignore, panics("odd"))
        .ended()
        .await;
    assert!(!drain.is_draining());
    assert!(tasks.running_names().is_empty());
}

#[tokio::test]
async fn a_needed_task_may_end_while_draining() {
    let (drain, tasks) = fixture();
    drain.start(Cause::Requested);
    tasks
        .spawn("renew_lease", OnExit::StopProcess, async {})
        .ended()
        .await;
    assert_eq!(drain.cause(), Some(Cause::Requested));
}

#[tokio::test(start_paused = true)]
async fn joining_waits_then_names_and_aborts_what_is_left() {
    let (_drain, tasks) = fixture();
    let quick = tasks.spawn(
        "quick",
        OnExit::Log,
        tokio::time::sleep(Duration::from_secs(1)),
    );
    let stuck = tasks.spawn("stuck", OnExit::StopProcess, pending::<()>());
    let joined = tasks.join(Duration::from_secs(5)).await;
    assert_eq!(joined, Joined { cut: vec!["stuck"] });
    assert!(quick.is_finished() && stuck.is_finished());
    assert!(tasks.running_names().is_empty());
}

#[tokio::test]
async fn threads_are_owned_like_tasks() {
    let (drain, tasks) = fixture();
    let (close, closed) = mpsc::channel::<()>();
    tasks
        .spawn_thread(
            "ledger_writer",
            OnExit::Log,
            move || while closed.recv().is_ok() {},
        )
        .expect("a thread can be started");
    assert_eq!(tasks.running_names(), ["ledger_writer"]);
    drop(close);
    assert_eq!(
        tasks.join(Duration::from_secs(5)).await,
        Joined { cut: vec![] }
    );

    tasks
        .spawn_thread("ledger_writer", OnExit::StopProcess, || -> () {
            panic!("disk gone")
        })
        .expect("a thread can be started");
    drain.signalled().await;
    assert_eq!(drain.cause(), Some(Cause::TaskEnded("ledger_writer")));
}

#[tokio::test(start_paused = true)]
async fn streams_are_cut_together() {
    let streams = StreamExecutor::default();
    streams.spawn(tokio::time::sleep(Duration::from_secs(1)));
    streams.spawn(pending::<()>());
    let until = tokio::time::sleep(Duration::from_secs(3));
    assert_eq!(streams.finish(until).await, 1);
    assert!(streams.tracker.is_empty());
}
