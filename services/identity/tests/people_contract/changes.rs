//! A person's change of region.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::region_change::{Departure, Receipt};
use domain::{RegionId, Serial};
use futures::future::join_all;
use identity::people::{Change, People, Placed, Standing};

use crate::{Backend, campaign, person, stamp};

fn region(name: &str) -> RegionId {
    name.parse().expect("slug")
}

fn change(number: u32, serial: u64, from: &str, to: &str) -> Change {
    Change {
        campaign: campaign(),
        person: person(number),
        serial: Serial(serial),
        from: region(from),
        to: region(to),
    }
}

/// What the region to be left says: that they left for `to`, or that they stayed.
fn receipt(number: u32, serial: u64, from: &str, to: Option<&str>) -> Receipt {
    Receipt {
        campaign: campaign(),
        person: person(number),
        serial: Serial(serial),
        region: region(from),
        departure: to.map_or(Departure::Stayed, |to| Departure::Left { to: region(to) }),
    }
}

async fn begins(store: &Arc<dyn People>, change: &Change) -> Standing {
    let found = store.begin_change(change).await.expect("noted");
    change.standing(found)
}

async fn ends(store: &Arc<dyn People>, receipt: &Receipt) -> Option<Placed> {
    store.complete_change(receipt).await.expect("answered")
}

/// A person with a place in `region`.
async fn placed(store: &Arc<dyn People>, number: u32, at: &str) -> Placed {
    let mut ask = stamp(number);
    ask.region = region(at);
    store.stamp(ask).await.expect("stamped")
}

fn moving(to: &str) -> Standing {
    Standing::Moving { to: region(to) }
}

pub(crate) async fn a_change_is_durable_and_ends_once_with_the_place_kept(backend: Backend) {
    let store = backend.open().await;
    let before = placed(&store, 1, "seoul").await;
    let asked = change(1, 1, "seoul", "busan");
    assert_eq!(begins(&store, &asked).await, moving("busan"));
    drop(store);
    let store = backend.open().await;
    // Another device, after a restart: the old permit, and where it is on its way to.
    let found = placed(&store, 1, "busan").await;
    let halfway = Placed {
        moving_to: Some(region("busan")),
        ..before.clone()
    };
    assert_eq!(found, halfway, "the serial is in force until the receipt");
    let read = store.place(&campaign(), person(1)).await.expect("read");
    assert_eq!(read, Some(halfway));
    assert_eq!(begins(&store, &asked).await, moving("busan"));
    let left = receipt(1, 1, "seoul", Some("busan"));
    let after = Placed {
        region: region("busan"),
        serial: Serial(2),
        ..before
    };
    for _ in 0..2 {
        assert_eq!(ends(&store, &left).await, Some(after.clone()));
    }
    drop(store);
    let store = backend.open().await;
    assert_eq!(placed(&store, 1, "seoul").await, after);
    assert_eq!(
        begins(&store, &asked).await,
        Standing::Settled(after),
        "whoever lost the answer asks again with the old permit"
    );
}

pub(crate) async fn a_change_taken_back_gives_the_next_serial_of_the_same_region(backend: Backend) {
    let store = backend.open().await;
    let before = placed(&store, 1, "seoul").await;
    begins(&store, &change(1, 1, "seoul", "busan")).await;
    let back = change(1, 1, "seoul", "seoul");
    assert_eq!(begins(&store, &back).await, moving("busan"));
    let stayed = receipt(1, 1, "seoul", None);
    let after = Placed {
        serial: Serial(2),
        ..before.clone()
    };
    for _ in 0..2 {
        assert_eq!(ends(&store, &stayed).await, Some(after.clone()));
    }
    assert_eq!(
        begins(&store, &change(1, 2, "seoul", "seoul")).await,
        Standing::Settled(after)
    );
    begins(&store, &change(1, 2, "seoul", "jeju")).await;
    let gone = ends(&store, &receipt(1, 2, "seoul", Some("jeju"))).await;
    let gone = gone.expect("the newest change");
    assert_eq!((gone.serial, gone.region), (Serial(3), region("jeju")));
    assert_eq!(gone.place, before.place);
}

pub(crate) async fn a_change_begins_only_from_the_permit_in_force_and_keeps_its_target(
    backend: Backend,
) {
    let store = backend.open().await;
    let nobody = change(9, 1, "seoul", "busan");
    assert_eq!(begins(&store, &nobody).await, Standing::Superseded);
    let before = placed(&store, 1, "seoul").await;
    for stranger in [
        change(1, 2, "seoul", "busan"),
        change(1, 1, "jeju", "busan"),
        change(1, 3, "busan", "jeju"),
    ] {
        assert_eq!(begins(&store, &stranger).await, Standing::Superseded);
    }
    let here = change(1, 1, "seoul", "seoul");
    assert_eq!(begins(&store, &here).await, Standing::Settled(before));
    assert_eq!(
        begins(&store, &change(1, 1, "seoul", "busan")).await,
        moving("busan")
    );
    let elsewhere = Standing::Elsewhere {
        to: region("busan"),
    };
    assert_eq!(
        begins(&store, &change(1, 1, "seoul", "jeju")).await,
        elsewhere
    );
    // The ledger has written down where to; it knows better than a store that lost its newest hours.
    let left = receipt(1, 1, "seoul", Some("jeju"));
    let after = ends(&store, &left).await.expect("the newest change");
    assert_eq!((after.serial, &after.region), (Serial(2), &region("jeju")));
    assert_eq!(ends(&store, &left).await, Some(after));
    let other = receipt(1, 1, "seoul", Some("busan"));
    assert_eq!(ends(&store, &other).await, None);
}

pub(crate) async fn a_receipt_that_is_not_about_the_newest_change_ends_nothing(backend: Backend) {
    let store = backend.open().await;
    let before = placed(&store, 1, "seoul").await;
    placed(&store, 2, "seoul").await;
    let left = receipt(1, 1, "seoul", Some("busan"));
    assert_eq!(ends(&store, &left).await, None, "nothing was begun");
    begins(&store, &change(1, 1, "seoul", "busan")).await;
    begins(&store, &change(2, 1, "seoul", "busan")).await;
    for wrong in [
        receipt(1, 2, "seoul", Some("busan")),
        receipt(1, 1, "jeju", Some("busan")),
        receipt(3, 1, "seoul", Some("busan")),
    ] {
        assert_eq!(ends(&store, &wrong).await, None, "{wrong:?}");
    }
    let found = store.place(&campaign(), person(1)).await.expect("read");
    assert_eq!(found.expect("placed").serial, before.serial);
    ends(&store, &left).await.expect("the newest change");
    begins(&store, &change(1, 2, "busan", "seoul")).await;
    assert!(ends(&store, &left).await.is_some(), "its own repetition");
    ends(&store, &receipt(1, 2, "busan", Some("seoul")))
        .await
        .expect("the newest change");
    let replayed = ends(&store, &left).await;
    assert_eq!(replayed, None, "an earlier change's");
    let stayed = ends(&store, &receipt(1, 2, "busan", None)).await;
    assert_eq!(stayed, None, "the other decision");
}

/// Every sequence of so many steps.
const LONG: u32 = 4;

pub(crate) async fn whatever_order_steps_come_in_each_serial_is_for_one_region(backend: Backend) {
    // One decision about each serial, as ledgers give it: 1 left Seoul for Busan; 2 stayed in Busan.
    let begin = |number| {
        [
            change(number, 1, "seoul", "busan"),
            change(number, 1, "seoul", "jeju"),
            change(number, 2, "busan", "seoul"),
            change(number, 3, "busan", "jeju"),
        ]
    };
    let end = |number| {
        [
            receipt(number, 1, "seoul", Some("busan")),
            receipt(number, 2, "busan", None),
        ]
    };
    let kinds = 6_usize;
    let store = &backend.open().await;
    let walks = (0..kinds.pow(LONG)).map(async |walk| {
        let number = u32::try_from(walk).expect("few");
        let first = placed(store, number, "seoul").await;
        let mut issued = BTreeMap::from([(first.serial, first.region)]);
        for at in 0..LONG {
            let step = walk / kinds.pow(at) % kinds;
            let found = match begin(number).get(step) {
                Some(change) => match begins(store, change).await {
                    Standing::Settled(placed) => Some(placed),
                    Standing::Moving { .. } | Standing::Elsewhere { .. } | Standing::Superseded => {
                        None
                    }
                },
                None => ends(store, &end(number)[step - 4]).await,
            };
            if let Some(Placed { serial, region, .. }) = found {
                let known = issued.entry(serial).or_insert_with(|| region.clone());
                assert_eq!(*known, region, "{serial:?} of walk {walk}");
            }
        }
        let last = store.place(&campaign(), person(number)).await;
        let last = last.expect("read").expect("placed");
        assert_eq!(last.place, first.place, "the place is kept");
        let highest = issued.keys().next_back().copied();
        assert!(Some(last.serial) >= highest, "{last:?}");
    });
    let walks: Vec<_> = walks.collect();
    let mut walks = walks.into_iter();
    loop {
        let some: Vec<_> = walks.by_ref().take(64).collect();
        if some.is_empty() {
            break;
        }
        join_all(some).await;
    }
}
