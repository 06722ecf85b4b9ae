//! Waits for a state, never for a time.
//!
//! Invariant: every wait has a bound and a label, and this is the only place of the tests that sleeps.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::anyhow;

/// Short enough to measure a take-over of a second within a per cent, long enough to cost nothing.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Calls `predicate` until it holds; answers how long that took.
///
/// A predicate that does not return counts against the bound as well.
///
/// # Errors
/// When the bound has passed; the message carries the label.
pub async fn await_until<F, Fut>(
    label: &str,
    bound: Duration,
    mut predicate: F,
) -> anyhow::Result<Duration>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let began = Instant::now();
    await_some(label, bound, || {
        let held = predicate();
        async move { held.await.then_some(()) }
    })
    .await?;
    Ok(began.elapsed())
}

/// Calls `look` until it finds something, and answers what it found.
///
/// # Errors
/// When the bound has passed; the message carries the label.
pub async fn await_some<T, F, Fut>(label: &str, bound: Duration, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    attempts(label, bound, || {
        let found = look();
        async move { found.await.ok_or(None::<Infallible>) }
    })
    .await
}

/// Calls `attempt` until it succeeds, and answers its value.
///
/// # Errors
/// When the bound has passed; the message carries the label and the last attempt's error.
pub async fn await_ok<T, E, F, Fut>(
    label: &str,
    bound: Duration,
    mut attempt: F,
) -> anyhow::Result<T>
where
    E: fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    attempts(label, bound, || {
        let tried = attempt();
        async move { tried.await.map_err(Some) }
    })
    .await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the tests that sleeps"
)]
async fn attempts<T, E, F, Fut>(label: &str, bound: Duration, mut attempt: F) -> anyhow::Result<T>
where
    E: fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Option<E>>>,
{
    let began = Instant::now();
    let mut last: Option<E> = None;
    loop {
        let left = bound.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error.or(last),
            Err(_) => return Err(late(label, bound, last, "the last attempt did not return")),
        }
        if began.elapsed() >= bound {
            return Err(late(label, bound, last, "it never held"));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn late<E: fmt::Display>(
    label: &str,
    bound: Duration,
    last: Option<E>,
    how: &str,
) -> anyhow::Error {
    match last {
        Some(error) => anyhow!("not within {bound:?}: {label} ({how}; last: {error:#})"),
        None => anyhow!("not within {bound:?}: {label} ({how})"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SHORT: Duration = Duration::from_millis(60);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_returns_as_soon_as_the_state_is_there() -> anyhow::Result<()> {
        let calls = Cell::new(0);
        let took = await_until("third call", LONG, || {
            calls.set(calls.get() + 1);
            let now = calls.get();
            async move { now == 3 }
        })
        .await?;
        assert_eq!(calls.get(), 3);
        assert!(took < LONG / 2, "{took:?}");
        Ok(())
    }

    #[tokio::test]
    async fn it_gives_up_at_the_bound_and_names_what_it_waited_for() {
        let error = await_until("pigs to fly", SHORT, || async { false }).await;
        let text = error
            .expect_err("a false predicate cannot succeed")
            .to_string();
        assert!(
            text.contains("pigs to fly") && text.contains("never held"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_predicate_that_hangs_is_bounded_too() {
        let began = Instant::now();
        let error = await_until("an answer", SHORT, std::future::pending::<bool>).await;
        let text = error.expect_err("it never answers").to_string();
        assert!(text.contains("did not return"), "{text}");
        assert!(began.elapsed() < LONG / 2);
    }

    #[tokio::test]
    async fn the_last_error_is_told() {
        let outcome: anyhow::Result<()> =
            await_ok("a door", SHORT, || async { Err::<(), _>("it is shut") }).await;
        let text = outcome.expect_err("it always fails").to_string();
        assert!(
            text.contains("a door") && text.contains("it is shut"),
            "{text}"
        );
    }
}
