//! What a room needs: buckets, the seed of its draw, its history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use domain::{RegionId, Timestamp};
use futures::future::join_all;
use identity::people::{ClosedBucket, DrawSeed, KeptDocument, People, Placed};

use crate::{Backend, campaign, cohort, stamp};

/// Asks that are under way at once in each copy.
const DEVICES: u32 = 40;

pub(crate) async fn close(store: &dyn People, id: u32) -> ClosedBucket {
    let closed = store.close_bucket(&campaign(), &cohort(), id).await;
    closed.expect("closed").expect("it was open")
}

/// Closes so many buckets one after the other while every copy issues without a pause, then holds the counts against
/// the answers. Whoever closes must get through.
pub(crate) async fn close_while_issuing(copies: &[Arc<dyn People>], buckets: u32) {
    let (next, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let device = async |store: &dyn People| {
        let mut mine: Vec<Placed> = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            mine.push(store.stamp(stamp(number)).await.expect("stamped"));
        }
        mine
    };
    let devices = copies
        .iter()
        .flat_map(|store| (0..DEVICES).map(|_| device(&**store)));
    let closing = async {
        let mut closed = Vec::new();
        for id in 0..buckets {
            // Somebody in each, so that the counts have something to say.
            let from = next.load(Ordering::SeqCst);
            while next.load(Ordering::SeqCst) < from + 2 * DEVICES {
                tokio::task::yield_now().await;
            }
            let store = &*copies[id as usize % copies.len()];
            let bound = tokio::time::timeout(Duration::from_secs(20), close(store, id));
            closed.push(bound.await.expect("nobody issues for ever before a closer"));
        }
        over.store(true, Ordering::SeqCst);
        closed
    };
    let (places, closed) = tokio::join!(join_all(devices), closing);

    let mut expected: BTreeMap<u32, BTreeMap<RegionId, u64>> = BTreeMap::new();
    for placed in places.into_iter().flatten() {
        let of_bucket = expected.entry(placed.place.bucket).or_default();
        *of_bucket.entry(placed.region).or_default() += 1;
    }
    let mut before = 0;
    for bucket in &closed {
        assert_eq!(
            Some(&bucket.regions),
            expected.get(&bucket.id),
            "bucket {}",
            bucket.id
        );
        assert_eq!(bucket.before, before);
        before += bucket.size();
        let tickets = copies[0]
            .tickets(&campaign(), &cohort(), bucket.id)
            .await
            .expect("read");
        assert_eq!(tickets.len() as u64, bucket.size());
        assert!(tickets.is_sorted());
    }
    let listed = copies[0]
        .closed_buckets(&campaign(), &cohort(), 0, 1_000)
        .await;
    assert_eq!(listed.expect("read"), closed);
}

pub(crate) async fn a_bucket_has_everybody_who_was_answered_before_it_closed_and_nobody_after(
    backend: Backend,
) {
    let store = backend.open().await;
    close_while_issuing(&[store], 20).await;
}

pub(crate) async fn closing_again_says_what_was_closed_and_skips_nothing(backend: Backend) {
    let store = backend.open().await;
    let (campaign, cohort) = (campaign(), cohort());
    assert_eq!(
        store
            .close_bucket(&campaign, &cohort, 1)
            .await
            .expect("asked"),
        None
    );
    for number in 0..5 {
        store.stamp(stamp(number)).await.expect("stamped");
    }
    // Two doorkeepers at once, and one who never heard the answer.
    let both = join_all((0..4).map(|_| close(&*store, 0))).await;
    assert!(both.iter().all(|one| *one == both[0]));
    assert_eq!((both[0].id, both[0].before, both[0].size()), (0, 0, 5));
    let late = store.stamp(stamp(5)).await.expect("stamped");
    assert_eq!(late.place.bucket, 1, "only one bucket was opened");
    assert_eq!(
        store.stamp(stamp(0)).await.expect("stamped").place.bucket,
        0,
        "a place stays"
    );
    assert_eq!(
        store
            .close_bucket(&campaign, &cohort, 2)
            .await
            .expect("asked"),
        None
    );

    assert_eq!(close(&*store, 1).await.size(), 1);
    let empty = close(&*store, 2).await;
    assert_eq!((empty.before, empty.regions), (6, BTreeMap::new()));
    assert_eq!(close(&*store, 0).await, both[0], "as it was");
    let some = store
        .closed_buckets(&campaign, &cohort, 1, 1)
        .await
        .expect("read");
    assert_eq!(some.iter().map(|one| one.id).collect::<Vec<_>>(), [1]);

    let other = "forties".parse().expect("slug");
    let closed = store
        .close_bucket(&campaign, &other, 0)
        .await
        .expect("asked")
        .expect("open");
    assert_eq!(closed.size(), 0, "rooms are counted apart");
}

pub(crate) async fn a_look_at_the_open_bucket_counts_up_to_a_limit(backend: Backend) {
    let store = backend.open().await;
    let look = async |most| {
        store
            .open_bucket(&campaign(), &cohort(), most)
            .await
            .expect("read")
    };
    assert_eq!(look(10).await, None, "nobody has come");
    for number in 0..7 {
        store.stamp(stamp(number)).await.expect("stamped");
    }
    let seen = async |most| look(most).await.map(|open| (open.id, open.people));
    assert_eq!(
        (seen(5).await, seen(50).await),
        (Some((0, 5)), Some((0, 7)))
    );
    let before = look(1).await.expect("open").open_for;
    while look(1).await.expect("open").open_for <= before {
        tokio::task::yield_now().await;
    }
    close(&*store, 0).await;
    assert_eq!(seen(50).await, Some((1, 0)));
    assert!(look(1).await.expect("open").open_for < Duration::from_secs(3_600));
}

pub(crate) async fn a_draw_has_one_seed_for_ever(backend: Backend) {
    let store = backend.open().await;
    let (campaign, cohort) = (campaign(), cohort());
    let keep = async |byte| {
        let kept = store
            .keep_seed(&campaign, &cohort, DrawSeed([byte; 32]))
            .await;
        kept.expect("kept").0[0]
    };
    assert!(
        store
            .seed(&campaign, &cohort)
            .await
            .expect("read")
            .is_none()
    );
    let first = keep(1).await;
    let all = [keep(2).await, keep(1).await, keep(3).await];
    assert_eq!((first, all), (1, [1; 3]));
    drop(store);
    let store = backend.open().await;
    let kept = store
        .seed(&campaign, &cohort)
        .await
        .expect("read")
        .expect("kept");
    assert!(kept == DrawSeed([1; 32]), "after a restart");
    let other = "forties".parse().expect("slug");
    assert!(store.seed(&campaign, &other).await.expect("read").is_none());
}

pub(crate) async fn every_version_of_a_room_is_kept_as_it_was_first(backend: Backend) {
    let store = backend.open().await;
    let (campaign, cohort) = (campaign(), cohort());
    let version = |number: u64, text: &str| KeptDocument {
        version: number,
        document: text.to_owned(),
        written_at: Timestamp::from_micros(
            1_626_000_000_000_007 + i64::try_from(number).expect("small"),
        ),
    };
    let keep = async |documents: &[KeptDocument]| {
        store
            .keep_documents(&campaign, &cohort, documents)
            .await
            .expect("kept");
    };
    let newest = async || {
        store
            .newest_document(&campaign, &cohort)
            .await
            .expect("read")
    };
    keep(&[]).await;
    assert_eq!(newest().await, None);
    keep(&[version(1, "one"), version(2, "two")]).await;
    keep(&[version(2, "another"), version(4, "four")]).await;
    let read = async |after, limit| {
        store
            .documents(&campaign, &cohort, after, limit)
            .await
            .expect("read")
    };
    let all = [version(1, "one"), version(2, "two"), version(4, "four")];
    assert_eq!(read(0, 10).await, all);
    assert_eq!(read(1, 1).await, all[1..2]);
    assert_eq!(read(4, 10).await, []);
    assert_eq!(newest().await, Some(version(4, "four")));
}
