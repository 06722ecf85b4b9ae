//! A person's place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::place::DrawTicket;
use domain::{RegionId, Serial};
use futures::future::join_all;
use identity::people::{Placed, Stamp};

use crate::rooms::close;
use crate::{Backend, PEOPLE, campaign, person, region, stamp};

pub(crate) async fn place_is_the_same_for_ever(backend: Backend) {
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

pub(crate) async fn a_crowd_gets_one_place_each(backend: Backend) {
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
    let closed = close(&*store, 0).await;
    assert_eq!(closed.size(), u64::from(PEOPLE));
    assert_eq!(closed.regions, expected);
}
