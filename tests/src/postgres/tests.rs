//! What was committed is there after every kind of stop.

use super::*;
use crate::await_until::await_until;

const BOUND: Duration = Duration::from_secs(30);

async fn show(session: &Session, setting: &str) -> anyhow::Result<String> {
    Ok(session
        .query_one(&format!("SHOW {setting}"), &[])
        .await?
        .get(0))
}

async fn count(postgres: &Postgres) -> anyhow::Result<i64> {
    let session = postgres.session("ledger").await?;
    Ok(session
        .query_one("SELECT count(*) FROM kept", &[])
        .await?
        .get(0))
}

#[tokio::test]
async fn committed_rows_survive_every_stop() -> anyhow::Result<()> {
    let mut postgres = Postgres::start(Options::default()).await?;
    let url = postgres.create_database("ledger").await?;
    let first = session(&url).await?;
    assert_eq!(show(&first, "fsync").await?, "on");
    assert_eq!(show(&first, "max_connections").await?, "300");
    first
        .batch_execute("CREATE TABLE kept (id int PRIMARY KEY)")
        .await?;
    for (id, how) in [Stop::Fast, Stop::Immediate, Stop::Kill]
        .into_iter()
        .enumerate()
    {
        let session = session(&url).await?;
        session
            .execute("INSERT INTO kept VALUES ($1)", &[&i32::try_from(id)?])
            .await?;
        let began = std::time::Instant::now();
        postgres
            .restart(how)
            .await
            .with_context(|| format!("{how:?}"))?;
        assert!(
            began.elapsed() < BOUND,
            "{how:?} took {:?}",
            began.elapsed()
        );
        let ended = session.query("SELECT 1", &[]).await;
        assert!(
            ended.is_err(),
            "{how:?} left a session of the old server alive"
        );
        assert_eq!(
            count(&postgres).await?,
            i64::try_from(id)? + 1,
            "{how:?} lost a commit"
        );
    }
    Ok(())
}

#[tokio::test]
async fn options_are_applied_and_bad_names_refused() -> anyhow::Result<()> {
    let settings = vec![("work_mem".to_owned(), "5MB".to_owned())];
    let options = Options {
        fsync: false,
        connections_max: 20,
        settings,
    };
    let postgres = Postgres::start(options).await?;
    let session = postgres.session("postgres").await?;
    assert_eq!(show(&session, "fsync").await?, "off");
    assert_eq!(show(&session, "max_connections").await?, "20");
    assert_eq!(show(&session, "work_mem").await?, "5MB");
    assert!(postgres.create_database("a\"; DROP").await.is_err());
    assert!(postgres.create_database("").await.is_err());
    assert!(
        postgres.create_database("postgres").await.is_err(),
        "it exists"
    );
    Ok(())
}

#[tokio::test]
async fn a_bad_setting_is_told_at_once_with_the_servers_own_words() {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let began = std::time::Instant::now();
    let error = Postgres::start(Options {
        settings,
        ..Options::default()
    })
    .await;
    let text = format!("{:#}", error.expect_err("the server cannot start"));
    assert!(text.contains("no_such_setting"), "{text}");
    assert!(began.elapsed() < BOUND);
}

#[tokio::test]
async fn a_frozen_server_answers_nothing_and_everything_once_awake() -> anyhow::Result<()> {
    let mut postgres = Postgres::start(Options::default()).await?;
    let session = postgres.session("postgres").await?;
    postgres.process().freeze()?;
    let short = Duration::from_millis(300);
    let frozen = tokio::time::timeout(short, session.query_one("SELECT 1", &[])).await;
    assert!(frozen.is_err(), "a frozen backend answered");
    postgres.process().thaw()?;
    await_until("an answer", BOUND, || async {
        session.query_one("SELECT 1", &[]).await.is_ok()
    })
    .await?;
    Ok(())
}
