//! The one place where this layer starts tasks.
//!
//! Each belongs to a mirror or a session and ends when its last handle is dropped; a panic in one is an error line
//! and shows as growing staleness or a lapsed lease, which whoever holds the handle must heed anyway.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tracing::Instrument as _;

#[expect(
    clippy::disallowed_methods,
    reason = "a handle owns the task and ends it by being dropped; the process's Tasks would outlive it"
)]
pub(crate) fn spawn_named(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let guarded = async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a coordination task panicked");
        }
    };
    tokio::spawn(guarded.instrument(tracing::info_span!("task", name)));
}
