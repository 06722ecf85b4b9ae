//! One suite over both stores of people: what a place is must not depend on the database.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::place::DrawTicket;
use domain::{CampaignId, CohortId, PersonId, RegionId, Serial};
use futures::future::join_all;
use identity::metrics::Metrics;
use identity::people::postgres::{PostgresPeople, Settings};
use identity::people::sqlite::SqlitePeople;
use identity::people::{Fault, People, Placed, Stamp};
use runtime::secret::Secret;
use runtime::{Clock, Drain, Tasks};

#[path = "support/postgres.rs"]
mod postgres;

const PEOPLE: u32 = 2_000;

/// Opens the same store again and again, as restarts and second copies do.
enum Backend {
    Sqlite(tempfile::TempDir),
    Postgres(postgres::Postgres, String),
}

impl Backend {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a temporary folder"))
    }

    fn postgres() -> Self {
        let server = postgres::Postgres::start(false);
        let url = server.create_database();
        Self::Postgres(server, url)
    }

    async fn open(&self) -> Arc<dyn People> {
        let metrics = Metrics::unregistered();
        match self {
            Self::Sqlite(folder) => {
                let path = folder.path().join("people.sqlite");
                Arc::new(
                    SqlitePeople::open(&path, &tasks(), Clock::system(), metrics).expect("opened"),
                )
            }
            Self::Postgres(_, url) => {
                let tasks = tasks();
                let store =
                    PostgresPeople::open(settings(url, true), &tasks, Clock::system(), metrics);
                Arc::new(store.await.expect("opened"))
            }
        }
    }
}

fn settings(url: &str, single_copy: bool) -> Settings {
    Settings {
        url: Secret::new(url),
        ca_file: None,
        writers: 2,
        single_copy,
    }
}

fn tasks() -> Tasks {
    Tasks::new(Drain::within(Duration::from_secs(1)))
}

fn person(number: u32) -> PersonId {
    let mut bytes = [0; 16];
    // Spread like hashes, so that keys do not arrive in order.
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    PersonId::from_bytes(bytes)
}

fn campaign() -> CampaignId {
    "kr-2021".parse().expect("slug")
}

fn cohort() -> CohortId {
    "fifties".parse().expect("slug")
}

fn region(number: u32) -> RegionId {
    ["seoul", "busan", "jeju"][number as usize % 3]
        .parse()
        .expect("slug")
}

fn stamp(number: u32) -> Stamp {
    Stamp {
        campaign: campaign(),
        person: person(number),
        cohort: cohort(),
        region: region(number),
        ticket: DrawTicket(*person(number).as_bytes()),
        caller: "app-one".parse().expect("slug"),
    }
}

async fn place_is_the_same_for_ever(backend: Backend) {
    let store = backend.open().await;
    let first = store.stamp(stamp(1)).await.expect("stamped");
    assert_eq!(first.serial, Serial(1));
    assert_eq!((first.place.bucket, first.region.clone()), (0, region(1)));

    let again = Stamp {
        region: "gangwon".parse().expect("slug"),
        cohort: "forties".parse().expect("slug"),
        ticket: DrawTicket([9; 16]),
        caller: "app-two".parse().expect("slug"),
        ..stamp(1)
    };
    assert_eq!(
        store.stamp(again.clone()).await.expect("stamped"),
        first,
        "whatever is asked for"
    );
    assert_eq!(
        store.place(&campaign(), person(1)).await.expect("read"),
        Some(first.clone())
    );
    assert_eq!(
        store.place(&campaign(), person(2)).await.expect("read"),
        None
    );
    let elsewhere = Stamp {
        campaign: "kr-2022".parse().expect("slug"),
        ..again.clone()
    };
    assert_eq!(
        store.stamp(elsewhere).await.expect("stamped").region,
        again.region,
        "another campaign"
    );

    store.check().await.expect("reachable");
    drop(store);
    let store = backend.open().await;
    assert_eq!(
        store.stamp(again).await.expect("stamped"),
        first,
        "after a restart"
    );
}

async fn a_crowd_gets_one_place_each(backend: Backend) {
    let store = backend.open().await;
    // Everybody at once asks for one person, then each for many with repeats, in orders of their own.
    let answers: Vec<Vec<(u32, Placed)>> = join_all((0..64).map(|device| {
        let store = Arc::clone(&store);
        async move {
            let mut got = vec![(0, store.stamp(stamp(0)).await.expect("stamped"))];
            let numbers = (0..250).map(|step| (device * 31 + step * (1 + device % 7)) % PEOPLE);
            let asks = numbers.map(async |number| {
                let asked = Stamp {
                    region: region(number + device),
                    ..stamp(number)
                };
                (number, store.stamp(asked).await.expect("stamped"))
            });
            got.extend(join_all(asks).await);
            got
        }
    }))
    .await;
    let mut known: HashMap<u32, Placed> = HashMap::new();
    for (number, placed) in answers.into_iter().flatten() {
        let first = known.entry(number).or_insert_with(|| placed.clone());
        assert_eq!(*first, placed, "person {number} got two places");
        assert_eq!(placed.place.ticket, stamp(number).ticket);
    }
    // Those nobody has met yet, so that the number is round.
    let rest: Vec<_> = (0..PEOPLE)
        .filter(|number| !known.contains_key(number))
        .collect();
    let placed = join_all(rest.iter().map(|number| store.stamp(stamp(*number)))).await;
    for (number, placed) in rest.into_iter().zip(placed) {
        known.insert(number, placed.expect("stamped"));
    }
    let mut expected: BTreeMap<RegionId, u64> = BTreeMap::new();
    for placed in known.values() {
        *expected.entry(placed.region.clone()).or_default() += 1;
    }
    let count = store
        .count_open_bucket(&campaign(), &cohort())
        .await
        .expect("counted");
    assert_eq!((count.id, count.people()), (0, u64::from(PEOPLE)));
    assert_eq!(count.regions, expected);
}

async fn a_count_misses_nobody_who_was_answered(backend: Backend) {
    let store = backend.open().await;
    let count = async || {
        store
            .count_open_bucket(&campaign(), &cohort())
            .await
            .expect("counted")
            .people()
    };
    assert_eq!(count().await, 0, "a room that nobody waits in");
    let answered = AtomicU64::new(0);
    let stamping = async {
        for chunk in 0..20 {
            let asks = (0..50).map(|n| store.stamp(stamp(chunk * 50 + n)));
            for placed in join_all(asks).await {
                placed.expect("stamped");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let counting = async {
        loop {
            let before = answered.load(Ordering::SeqCst);
            let counted = count().await;
            assert!(
                counted >= before,
                "{counted} counted, {before} answered before"
            );
            if before == 1_000 {
                return;
            }
        }
    };
    tokio::join!(stamping, counting);
    assert_eq!(count().await, 1_000);
    let other = store
        .count_open_bucket(&campaign(), &"forties".parse().expect("slug"))
        .await;
    assert_eq!(
        other.expect("counted").people(),
        0,
        "rooms are counted apart"
    );
}

macro_rules! contract {
    ($($rule:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                super::$rule(super::Backend::sqlite()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                super::$rule(super::Backend::postgres()).await;
            })+
        }
    };
}

contract! {
    place_is_the_same_for_ever,
    a_crowd_gets_one_place_each,
    a_count_misses_nobody_who_was_answered,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_identity_agree_about_everybody() {
    let backend = Backend::postgres();
    // Both bring the schema up to date at the same moment.
    let (one, two) = tokio::join!(backend.open(), backend.open());
    let forwards = join_all((0..500).map(|number| one.stamp(stamp(number))));
    let backwards = join_all((0..500).rev().map(|number| {
        two.stamp(Stamp {
            region: region(number + 1),
            ..stamp(number)
        })
    }));
    let (forwards, backwards) = tokio::join!(forwards, backwards);
    for (a, b) in forwards.into_iter().zip(backwards.into_iter().rev()) {
        assert_eq!(a.expect("stamped"), b.expect("stamped"));
    }
    let count = one
        .count_open_bucket(&campaign(), &cohort())
        .await
        .expect("counted");
    assert_eq!(count.people(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_costs_a_retry_and_no_place() {
    let mut backend = Backend::postgres();
    let store = backend.open().await;
    let before = store.stamp(stamp(1)).await.expect("stamped");
    let Backend::Postgres(server, _) = &mut backend else {
        unreachable!("it was made so")
    };
    server.crash();
    for _ in 0..3 {
        assert!(matches!(
            store.stamp(stamp(2)).await,
            Err(Fault::Unavailable { .. })
        ));
    }
    assert!(store.check().await.is_err());
    server.resume();
    let after = store
        .stamp(stamp(2))
        .await
        .expect("the writer came back by itself");
    assert_eq!(after.region, region(2));
    assert_eq!(store.stamp(stamp(1)).await.expect("stamped"), before);
    assert_eq!(
        store.place(&campaign(), person(1)).await.expect("read"),
        Some(before)
    );
}

#[tokio::test]
async fn a_database_with_one_copy_is_refused_unless_allowed() {
    let Backend::Postgres(server, url) = Backend::postgres() else {
        unreachable!("it was made so")
    };
    let refused = PostgresPeople::open(
        settings(&url, false),
        &tasks(),
        Clock::system(),
        Metrics::unregistered(),
    )
    .await;
    let fault = refused.err().expect("refused");
    assert!(
        runtime::fields::chain(&fault).contains("standby"),
        "{fault:?}"
    );
    drop(server);
}
