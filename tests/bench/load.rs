//! A closed loop: so many calls in flight over so many connections, the next one as soon as one is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Calls in flight, the same for every series.
pub(crate) const IN_FLIGHT: usize = 512;
/// Connections they share, the same for every series.
pub(crate) const CONNECTIONS: usize = 8;

/// How a series went.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Calls answered in a second.
    pub(crate) per_second: f64,
    /// Of a call, in a full closed loop.
    pub(crate) p50: Duration,
    /// The slowest of a hundred.
    pub(crate) p99: Duration,
}

/// Makes `calls` calls, `call(number)`; every one must succeed.
pub(crate) async fn closed_loop<F, Fut, T, E>(
    in_flight: usize,
    calls: usize,
    call: F,
) -> anyhow::Result<(Measured, Vec<T>)>
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send,
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let (call, next) = (Arc::new(call), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for _ in 0..in_flight {
        let (call, next) = (Arc::clone(&call), Arc::clone(&next));
        callers.spawn(async move {
            let mut latencies = histogram();
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls {
                    return Ok::<_, E>((latencies, answers));
                }
                let sent = Instant::now();
                answers.push((number, call(number).await?));
                let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                latencies.saturating_record(micros);
            }
        });
    }
    let (mut latencies, mut answers) = (histogram(), Vec::with_capacity(calls));
    while let Some(ended) = callers.join_next().await {
        let (own, theirs) = ended?.context("a call of the bench was refused")?;
        latencies.add(&own)?;
        answers.extend(theirs);
    }
    let took = began.elapsed();
    answers.sort_unstable_by_key(|(number, _)| *number);
    let measured = Measured {
        per_second: calls as f64 / took.as_secs_f64(),
        p50: Duration::from_micros(latencies.value_at_quantile(0.5)),
        p99: Duration::from_micros(latencies.value_at_quantile(0.99)),
    };
    Ok((
        measured,
        answers.into_iter().map(|(_, answer)| answer).collect(),
    ))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds and precision are in range")
}
