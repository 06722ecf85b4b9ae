//! Etcd away in the middle of an opening for longer than any plan lasts, and etcd away at the second of the opening.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use domain::Timestamp;
use domain::room::Phase;
use futures::future::join_all;
use serde_json::json;
use system_tests::await_until::await_until;

use crate::hall::{Board, Booked, Hall, Schedule, Visitor, WITHIN, now};
use crate::room::{check_order, draw, history, insist};

/// People with a permit before the doors.
const PEOPLE: usize = 80;
/// People a second.
const RATE: &str = "8";
/// The shortest that configuration allows.
const PLAN_TTL_SECS: u64 = 2;
/// How often each of those who wait has to be refused before the line counts as standing.
const ROUNDS: usize = 12;
/// `./dev chaos` sets it: etcd stays away for at least so many seconds.
const AWAY_SECS: &str = "DOSELINE_ETCD_AWAY_SECS";

fn away_secs() -> anyhow::Result<u64> {
    match std::env::var(AWAY_SECS) {
        Ok(text) => text.parse().with_context(|| format!("{AWAY_SECS}={text}")),
        Err(_) => Ok(0),
    }
}

async fn visitors(hall: &Hall) -> anyhow::Result<Vec<Visitor>> {
    let all = join_all((0..PEOPLE).map(|number| hall.visitor(number))).await;
    let all = all.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(all.iter().all(|one| one.permit.place.bucket == 0));
    Ok(all)
}

async fn await_clock(what: &str, at: Timestamp) -> anyhow::Result<()> {
    let left =
        Duration::from_micros(u64::try_from(at.as_micros() - now().as_micros()).unwrap_or(0));
    await_until(what, left + WITHIN, || async { now() >= at }).await?;
    Ok(())
}

/// `waiting` people are refused `ROUNDS` times each, as if it were not their turn and for no other reason.
async fn refused_all_round(board: &Board, waiting: usize) -> anyhow::Result<()> {
    board.not_admitted.store(0, Ordering::SeqCst);
    await_until("everybody was refused again and again", WITHIN, || async {
        board.not_admitted.load(Ordering::SeqCst) >= ROUNDS * waiting
    })
    .await?;
    Ok(())
}

async fn etcd_is_back(hall: &mut Hall) -> anyhow::Result<()> {
    hall.cluster.etcd.restart().await?;
    hall.cluster.etcd.await_healthy(WITHIN).await
}

fn nothing_odd(board: &Board) -> anyhow::Result<()> {
    let odd = board.odd.lock().expect("not poisoned");
    anyhow::ensure!(odd.is_empty(), "answered otherwise: {:?}", odd.last());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_etcd_away_for_longer_than_a_plan_the_line_stands_and_moves_on_by_itself()
-> anyhow::Result<()> {
    let mut hall = Hall::start(500, PLAN_TTL_SECS).await?;
    hall.await_room("a lobby", |room| room["phase"] == "LOBBY")
        .await?;
    let mut insisting = visitors(&hall).await?;
    draw(&hall, PEOPLE).await?;
    // Half of the people look on at first: some of them are admitted by then, and have not booked.
    let onlookers = insisting.split_off(PEOPLE / 2);
    let board = Arc::new(Board::default());
    let people = tokio::spawn(insist(&hall, insisting, &board));
    hall.room("rate", &[RATE]).await?;
    hall.room("doors", &[]).await?;
    board.await_booked(PEOPLE / 8).await?;
    hall.cluster.etcd.kill()?;
    let gone = now();
    stands_still(&board).await?;

    // It stands for everybody alike: onlookers who were admitted book, the others hear that it is not their turn.
    let (mut booked, waiting) = each_once(&hall, onlookers, &board).await;
    anyhow::ensure!(
        !booked.is_empty(),
        "nobody admitted could book without etcd"
    );
    let until = gone.plus(Duration::from_secs(away_secs()?));
    await_clock("etcd was away for as long as asked", until).await?;
    let before = board.booked.load(Ordering::SeqCst);
    let (later, waiting) = each_once(&hall, waiting, &board).await;
    anyhow::ensure!(later.is_empty(), "the line moved on without a plan");
    refused_all_round(&board, PEOPLE - before - waiting.len()).await?;
    anyhow::ensure!(
        board.booked.load(Ordering::SeqCst) == before,
        "the line moved"
    );
    nothing_odd(&board)?;

    etcd_is_back(&mut hall).await?;
    let others = tokio::spawn(insist(&hall, waiting, &board));
    board.await_booked(PEOPLE).await?;
    booked.extend(people.await?);
    booked.extend(others.await?);
    anyhow::ensure!(booked.len() == PEOPLE, "{} booked", booked.len());
    check_order(&hall, &booked).await
}

/// Waits until nobody books any more although many ask.
async fn stands_still(board: &Board) -> anyhow::Result<()> {
    loop {
        let before = board.booked.load(Ordering::SeqCst);
        let waiting = PEOPLE / 2 - before;
        anyhow::ensure!(
            waiting > 0,
            "everybody who insists has booked: nothing is shown"
        );
        refused_all_round(board, waiting).await?;
        if board.booked.load(Ordering::SeqCst) == before {
            return Ok(());
        }
    }
}

/// Each asks once: who booked, and who still waits.
async fn each_once(
    hall: &Hall,
    people: Vec<Visitor>,
    board: &Board,
) -> (Vec<Booked>, Vec<Visitor>) {
    let gateways = hall.gateways.iter().cycle();
    let tries = people.into_iter().zip(gateways);
    let tries = tries.map(|(visitor, gateway)| visitor.try_once(gateway.clone(), board));
    let (mut booked, mut waiting) = (Vec::new(), Vec::new());
    for outcome in join_all(tries).await {
        match outcome {
            Ok(done) => booked.push(done),
            Err(visitor) => waiting.push(visitor),
        }
    }
    (booked, waiting)
}

/// So many seconds from now, or before it, as campaigns write it.
fn from_now(secs: i64) -> anyhow::Result<String> {
    let at = now().as_micros() + secs * 1_000_000;
    Ok(jiff::Timestamp::from_microsecond(at)?.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_etcd_away_at_the_second_of_a_scheduled_opening_the_doors_open_when_it_is_back()
-> anyhow::Result<()> {
    let mut hall = Hall::start(500, PLAN_TTL_SECS).await?;
    hall.await_room("a lobby", |room| room["phase"] == "LOBBY")
        .await?;
    let people = visitors(&hall).await?;
    let published = now().plus(Duration::from_secs(11));
    let mut schedule = Schedule {
        opens_at: from_now(3_600)?,
        draw: json!({
            "commit_at": from_now(-3)?, "freeze_at": from_now(-2)?, "reveal_at": from_now(-1)?,
            "reveal_by": from_now(10)?,
            "beacon": { "source": "a test", "round": "1", "published_at": from_now(11)? },
        }),
    };
    hall.apply_campaign(Some(&schedule)).await?;
    hall.await_room("the doorkeeper took every step that is its own", |room| {
        room["phase"] == "FROZEN" && !room["draw"]["seed"].is_null()
    })
    .await?;
    await_clock("the value is published", published).await?;
    hall.room("beacon", &["the value"]).await?;
    hall.await_room("the order is known", |room| room["phase"] == "DRAWN")
        .await?;
    hall.room("rate", &[RATE]).await?;

    let board = Arc::new(Board::default());
    let insisting = tokio::spawn(insist(&hall, people, &board));
    let opens = now().plus(Duration::from_secs(8));
    schedule.opens_at = from_now(8)?;
    hall.apply_campaign(Some(&schedule)).await?;
    refused_all_round(&board, PEOPLE / ROUNDS).await?;
    let shortly_before = Timestamp::from_micros(opens.as_micros() - 3_000_000);
    await_clock("it is nearly time", shortly_before).await?;
    let booked = board.booked.load(Ordering::SeqCst);
    anyhow::ensure!(booked == 0, "{booked} booked before the opening");
    hall.cluster.etcd.kill()?;
    anyhow::ensure!(
        now() < opens,
        "too slow to take etcd away before the opening"
    );
    await_clock(
        "the second of the opening is over",
        opens.plus(Duration::from_secs(1)),
    )
    .await?;
    refused_all_round(&board, PEOPLE).await?;
    let booked = board.booked.load(Ordering::SeqCst);
    anyhow::ensure!(booked == 0, "{booked} booked while nobody could open");
    nothing_odd(&board)?;

    let back = now();
    etcd_is_back(&mut hall).await?;
    board.await_booked(PEOPLE).await?;
    let booked = insisting.await?;
    anyhow::ensure!(booked.len() == PEOPLE, "{} booked", booked.len());
    check_order(&hall, &booked).await?;
    let keys = std::fs::read(hall.folder().join("room_keys.json"))?;
    let history = history(&hall, &runtime::trusted_keys::parse(&keys)?).await?;
    let opened = history
        .iter()
        .find(|(_, room)| matches!(room.phase, Phase::Open | Phase::Exhausted));
    let (opened, _) = opened.context("a version with open doors")?;
    anyhow::ensure!(
        *opened >= back,
        "opened at {opened:?}, etcd came back after {back:?}"
    );
    Ok(())
}
