//! The naive way: each booking a transaction of its own that updates the slot's row, as one would write it first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use system_tests::postgres::{Postgres, Session};
use tokio::task::JoinSet;

const DATABASE: &str = "naive";
const SLOTS: i64 = 1_000;
/// Sessions: more only wait for each other.
const SESSIONS: usize = 32;
const LASTS: Duration = Duration::from_secs(4);

/// A table of slots and one of bookings, with sessions to it.
pub(crate) struct Naive {
    sessions: Vec<Arc<Session>>,
    next: Arc<AtomicU64>,
}

impl Naive {
    pub(crate) async fn start(postgres: &Postgres) -> anyhow::Result<Self> {
        postgres.create_database(DATABASE).await?;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(Arc::new(postgres.session(DATABASE).await?));
        }
        let schema = format!(
            "CREATE TABLE slot (slot_id bigint PRIMARY KEY, capacity int NOT NULL, booked int NOT NULL,
                 CHECK (booked BETWEEN 0 AND capacity));
             CREATE TABLE booking (person bigint PRIMARY KEY, slot_id bigint NOT NULL, at timestamptz NOT NULL);
             INSERT INTO slot SELECT n, 100000000, 0 FROM generate_series(1, {SLOTS}) n;"
        );
        sessions[0].batch_execute(&schema).await?;
        Ok(Self {
            sessions,
            next: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Bookings in a second, all at one slot or spread over all.
    pub(crate) async fn per_second(&self, hot: bool) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut loops = JoinSet::new();
        for session in &self.sessions {
            let (session, next) = (Arc::clone(session), Arc::clone(&self.next));
            loops.spawn(async move { book_until(&session, &next, hot, began + LASTS).await });
        }
        let mut booked = 0u32;
        while let Some(ended) = loops.join_next().await {
            booked += ended??;
        }
        Ok(f64::from(booked) / began.elapsed().as_secs_f64())
    }
}

async fn book_until(
    session: &Session,
    next: &AtomicU64,
    hot: bool,
    end: Instant,
) -> anyhow::Result<u32> {
    let take = session
        .prepare("UPDATE slot SET booked = booked + 1 WHERE slot_id = $1 AND booked < capacity")
        .await?;
    let note = session
        .prepare("INSERT INTO booking (person, slot_id, at) VALUES ($1, $2, now())")
        .await?;
    let mut booked = 0;
    while Instant::now() < end {
        let person = i64::try_from(next.fetch_add(1, Ordering::Relaxed))?;
        let slot = if hot { 1 } else { person % SLOTS + 1 };
        session.batch_execute("BEGIN").await?;
        let taken = session.execute(&take, &[&slot]).await?;
        anyhow::ensure!(taken == 1, "the naive slot is full");
        session.execute(&note, &[&person, &slot]).await?;
        session.batch_execute("COMMIT").await?;
        booked += 1;
    }
    Ok(booked)
}
