//! One suite over both stores of people: what a place is must not depend on the database.

use std::sync::Arc;
use std::time::Duration;

use domain::place::DrawTicket;
use domain::{CampaignId, CohortId, PersonId, RegionId};
use futures::future::join_all;
use identity::metrics::Metrics;
use identity::people::postgres::{PostgresPeople, Settings};
use identity::people::sqlite::SqlitePeople;
use identity::people::{Fault, People, Stamp};
use runtime::secret::Secret;
use runtime::{Clock, Drain, Tasks};

#[path = "people_contract/changes.rs"]
mod changes;
#[path = "people_contract/places.rs"]
mod places;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "people_contract/rooms.rs"]
mod rooms;

use rooms::close;

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

macro_rules! contract {
    ($($subject:ident::$rule:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                $crate::$subject::$rule(super::Backend::sqlite()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                $crate::$subject::$rule(super::Backend::postgres()).await;
            })+
        }
    };
}

contract! {
    places::place_is_the_same_for_ever,
    places::a_crowd_gets_one_place_each,
    changes::a_change_is_durable_and_ends_once_with_the_place_kept,
    changes::a_change_taken_back_gives_the_next_serial_of_the_same_region,
    changes::a_change_begins_only_from_the_permit_in_force_and_keeps_its_target,
    changes::a_receipt_that_is_not_about_the_newest_change_ends_nothing,
    changes::whatever_order_steps_come_in_each_serial_is_for_one_region,
    rooms::a_bucket_has_everybody_who_was_answered_before_it_closed_and_nobody_after,
    rooms::closing_again_says_what_was_closed_and_skips_nothing,
    rooms::a_look_at_the_open_bucket_counts_up_to_a_limit,
    rooms::a_draw_has_one_seed_for_ever,
    rooms::every_version_of_a_room_is_kept_as_it_was_first,
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
    assert_eq!(close(&*one, 0).await.size(), 500);
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

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_counted_exactly_while_four_copies_issue_without_a_pause() {
    let backend = Backend::postgres();
    let mut copies = Vec::new();
    for _ in 0..4 {
        copies.push(backend.open().await);
    }
    rooms::close_while_issuing(&copies, 12).await;
}
