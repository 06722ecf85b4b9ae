//! Opening and pausing rooms, against real stores of one process.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::place::DrawTicket;
use domain::room::Seen;
use domain::{PersonId, RegionId};
use runtime::{Drain, Tasks};

use super::*;
use crate::keys;
use crate::people::Stamp;
use crate::people::sqlite::SqlitePeople;

const NOW: Timestamp = Timestamp::from_secs(1_626_000_000);

struct World {
    rooms: Rooms,
    keyspace: Keyspace,
    people: Arc<SqlitePeople>,
    clock: Clock,
    folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tasks = Tasks::new(Drain::within(Duration::from_secs(1)));
    let clock = Clock::manual(NOW);
    let metrics = Metrics::unregistered();
    let path = folder.path().join("people.sqlite");
    let people = SqlitePeople::open(&path, &tasks, clock.clone(), metrics.clone()).expect("opened");
    let people = Arc::new(people);
    let key_folder = folder.path().join("room");
    keys::generate(&key_folder, NOW).expect("writable");
    let signing = SigningKeys::follow(&key_folder, NOW).expect("a key");
    let keyspace = Keyspace::local(None).expect("in memory");
    let document = crate::campaigns::tests::document().to_string();
    campaigns::apply(&keyspace, &document, false)
        .await
        .expect("applied");
    let store: Arc<dyn People> = Arc::clone(&people) as _;
    let rooms = Rooms::new(keyspace.clone(), store, signing, clock.clone(), metrics);
    World {
        rooms,
        keyspace,
        people,
        clock,
        folder,
    }
}

impl World {
    async fn stamp(&self, person: u8) -> domain::place::Place {
        let stamp = Stamp {
            campaign: "kr-2021".parse().expect("slug"),
            person: PersonId::from_bytes([person; 16]),
            cohort: "fifties".parse().expect("slug"),
            region: "seoul".parse().expect("slug"),
            ticket: DrawTicket([person; 16]),
            caller: "app".parse().expect("slug"),
        };
        self.people.stamp(stamp).await.expect("stamped").place
    }

    async fn open(&self, rate: u64) -> Result<Written, Refused> {
        self.rooms
            .open(
                &"kr-2021".parse().expect("slug"),
                &"fifties".parse().expect("slug"),
                rate,
            )
            .await
    }

    async fn pause(&self, reason: &str) -> Result<Written, Refused> {
        self.rooms
            .pause(
                &"kr-2021".parse().expect("slug"),
                &"fifties".parse().expect("slug"),
                reason,
            )
            .await
    }

    async fn room(&self) -> Room {
        let entry = self
            .keyspace
            .get("/doseline/room/kr-2021/fifties")
            .await
            .expect("read")
            .expect("there");
        let text = String::from_utf8(entry.value.to_vec()).expect("text");
        Room::verify(&self.rooms.keys.current().trusted(), &text).expect("signed by us")
    }

    /// The room with its bucket 0, as a reader knows it.
    async fn seen(&self) -> Seen {
        let key = "/doseline/room/kr-2021/fifties/bucket/0000000000";
        let entry = self.keyspace.get(key).await.expect("read").expect("there");
        let text = String::from_utf8(entry.value.to_vec()).expect("text");
        let keys = self.rooms.keys.current().trusted();
        let (bucket, hash) = BucketDocument::verify(&keys, &text).expect("signed by us");
        let mut seen = Seen::new(self.room().await, BTreeMap::new());
        seen.learn_bucket(&bucket, hash).expect("fits its room");
        seen
    }
}

#[tokio::test]
async fn who_is_counted_and_who_comes_later_are_let_in() {
    let world = world().await;
    let mut places = Vec::new();
    for person in 0..20 {
        places.push(world.stamp(person).await);
    }
    assert_eq!(
        world.open(0).await,
        Ok(Written {
            version: 1,
            people: 20
        })
    );
    places.push(world.stamp(200).await);
    let seen = world.seen().await;
    let seoul: RegionId = "seoul".parse().expect("slug");
    for place in &places {
        assert_eq!(place.bucket, 0, "only bucket 0 exists yet");
        assert_eq!(seen.admitted(place, &seoul, Duration::ZERO), Ok(()));
    }
}

#[tokio::test]
async fn the_draw_stays_whatever_happens_to_the_room() {
    let world = world().await;
    world.stamp(1).await;
    assert_eq!(
        world.open(1_000).await,
        Ok(Written {
            version: 1,
            people: 1
        })
    );
    let first = world.room().await;
    world.stamp(2).await;
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(
        world
            .pause("power cut")
            .await
            .map(|written| written.version),
        Ok(2)
    );
    assert_eq!(
        world
            .pause("power cut")
            .await
            .map(|written| written.version),
        Ok(2),
        "the same again"
    );
    let paused = world.room().await;
    assert_eq!(
        (paused.phase, paused.reason.as_str()),
        (Phase::Paused, "power cut")
    );
    assert_eq!(
        world.open(0).await,
        Ok(Written {
            version: 3,
            people: 1
        })
    );
    let third = world.room().await;
    assert_eq!(
        (&third.draw, third.last_bucket_hash),
        (&first.draw, first.last_bucket_hash)
    );
    assert_eq!(third.phase, Phase::Open);
    assert_ne!(third.prev_hash, paused.prev_hash);
}

#[tokio::test]
async fn where_a_line_stood_is_known_after_a_restart() {
    let world = world().await;
    for person in 0..100 {
        world.stamp(person).await;
    }
    // One person a second.
    world.open(1_000).await.expect("opened");
    world.clock.advance(Duration::from_secs(30));
    world.pause("maintenance").await.expect("paused");
    let seoul: RegionId = "seoul".parse().expect("slug");
    assert_eq!(
        world.room().await.regions[&seoul].f0,
        32,
        "30 s and the margin"
    );
    world.clock.advance(Duration::from_secs(3_600));
    world.open(1_000).await.expect("opened");
    assert_eq!(
        world.room().await.regions[&seoul].f0,
        32,
        "the pause does not count"
    );
}

#[tokio::test]
async fn operators_who_open_at_once_draw_once() {
    let world = world().await;
    world.stamp(1).await;
    let all = futures::future::join_all((0..4).map(|_| world.open(0))).await;
    let mut versions: Vec<_> = all
        .into_iter()
        .map(|one| one.expect("opened").version)
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_does_not_exist_is_refused_and_a_foreign_room_is_left_alone() {
    let world = world().await;
    let (unknown, cohort) = (
        "kr-2099".parse().expect("slug"),
        "fifties".parse().expect("slug"),
    );
    let refused = world
        .rooms
        .open(&unknown, &cohort, 0)
        .await
        .expect_err("no campaign");
    assert_eq!(refused.refusal, Refusal::CampaignUnknown);
    let (campaign, unknown) = (
        "kr-2021".parse().expect("slug"),
        "nineties".parse().expect("slug"),
    );
    let refused = world
        .rooms
        .open(&campaign, &unknown, 0)
        .await
        .expect_err("no cohort");
    assert_eq!(refused.violations[0].0, "cohort");
    let refused = world.pause("x").await.expect_err("no room");
    assert_eq!(refused.violations[0].0, "cohort");

    let other = world.folder.path().join("other");
    keys::generate(&other, NOW).expect("writable");
    let other = SigningKeys::read(&other).expect("a key");
    let campaign = campaigns::get(&world.keyspace, &campaign)
        .await
        .expect("applied");
    let foreign =
        plan::first(&campaign, &cohort, 1, [9; 32], 0).sign(&other.signer(NOW).expect("in force"));
    world
        .keyspace
        .put("/doseline/room/kr-2021/fifties", foreign.clone())
        .await
        .expect("written");
    assert_eq!(
        world.open(0).await.map_err(|refused| refused.refusal),
        Err(Refusal::Unavailable)
    );
    let kept = world
        .keyspace
        .get("/doseline/room/kr-2021/fifties")
        .await
        .expect("read")
        .expect("there");
    assert_eq!(kept.value, foreign.as_bytes());
}
