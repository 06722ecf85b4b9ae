//! What operators do with rooms, against real stores of one process.

use std::collections::BTreeMap;

use domain::place::{DrawTicket, Place};
use domain::room::{BucketDocument, Bytes32, Seen, bucket_key};
use domain::{PersonId, Timestamp};
use runtime::reload::Reloading;
use runtime::{Drain, Tasks};

use super::*;
use crate::doorkeeper::history::History;
use crate::keys::{self, SigningKeys};
use crate::people::Stamp;
use crate::people::sqlite::SqlitePeople;

const NOW: Timestamp = Timestamp::from_secs(1_626_000_000);

struct World {
    rooms: Rooms,
    keyspace: Keyspace,
    people: Arc<dyn People>,
    keys: Reloading<SigningKeys>,
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
    let people: Arc<dyn People> = Arc::new(people);
    let key_folder = folder.path().join("room");
    keys::generate(&key_folder, NOW).expect("writable");
    let keys = SigningKeys::follow(&key_folder, NOW).expect("a key");
    let keyspace = Keyspace::local(None).expect("in memory");
    let document = crate::campaigns::tests::document().to_string();
    campaigns::apply(&keyspace, &document, false)
        .await
        .expect("applied");
    let (history, _) = History::new();
    let publisher = Publisher::new(
        keyspace.clone(),
        keys.clone(),
        clock.clone(),
        (Arc::clone(&people), history),
    );
    let rooms = Rooms::new(
        keyspace.clone(),
        publisher,
        Arc::clone(&people),
        Duration::from_secs(10),
        clock.clone(),
        metrics,
    );
    World {
        rooms,
        keyspace,
        people,
        keys,
        clock,
        folder,
    }
}

fn campaign() -> CampaignId {
    "kr-2021".parse().expect("slug")
}

fn cohort() -> CohortId {
    "fifties".parse().expect("slug")
}

fn seoul() -> RegionId {
    "seoul".parse().expect("slug")
}

impl World {
    async fn stamp(&self, person: u8) -> Place {
        let stamp = Stamp {
            campaign: campaign(),
            person: PersonId::from_bytes([person; 16]),
            cohort: cohort(),
            region: seoul(),
            ticket: DrawTicket([person; 16]),
            caller: "app".parse().expect("slug"),
        };
        self.people.stamp(stamp).await.expect("stamped").place
    }

    async fn open(&self, rate: u64) -> Result<Written, Refused> {
        self.rooms.open(&campaign(), &cohort(), rate).await
    }

    async fn pause(&self, reason: &str) -> Result<Written, Refused> {
        self.rooms.pause(&campaign(), &cohort(), reason).await
    }

    async fn step(&self, ask: Ask) -> Result<StepTaken, String> {
        let taken = self.rooms.step((&campaign(), &cohort()), ask).await;
        taken.map_err(|refused| format!("{} {:?}", refused.refusal.code(), refused.violations))
    }

    async fn text(&self, key: &str) -> String {
        let entry = self.keyspace.get(key).await.expect("read").expect("there");
        String::from_utf8(entry.value.to_vec()).expect("text")
    }

    async fn room(&self) -> Room {
        let text = self.text("/doseline/room/kr-2021/fifties").await;
        Room::verify(&self.keys.current().trusted(), &text).expect("signed by us")
    }

    /// The room with its bucket 0, as a reader knows it.
    async fn seen(&self) -> Seen {
        let text = self.text(&bucket_key(&campaign(), &cohort(), 0)).await;
        let keys = self.keys.current().trusted();
        let (bucket, hash) = BucketDocument::verify(&keys, &text).expect("signed by us");
        let mut seen = Seen::new(self.room().await, BTreeMap::new());
        seen.learn_bucket(&bucket, hash).expect("fits its room");
        seen
    }
}

fn commit(world: &World) -> Ask {
    let after = |secs| world.clock.wall().plus(Duration::from_secs(secs));
    Ask::Commit {
        beacon: Announcement {
            source: "drand quicknet".to_owned(),
            round: "77".to_owned(),
            published_at: Some(after(120)),
        },
        second: None,
        reveal_by: after(100),
    }
}

fn beacon(value: &str) -> Ask {
    Ask::Beacon {
        named: None,
        value: value.to_owned(),
    }
}

#[tokio::test]
async fn everybody_before_the_doors_is_let_in_at_once_and_who_is_late_waits_for_a_bucket() {
    let world = world().await;
    let mut places = Vec::new();
    for person in 0..20 {
        places.push(world.stamp(person).await);
    }
    let opened = world.open(0).await.expect("opened");
    assert_eq!(opened.people, 20);
    let late = world.stamp(200).await;
    assert_eq!(late.bucket, 1, "bucket 0 is closed");
    let seen = world.seen().await;
    let admitted = |place| seen.admitted(place, &seoul(), Duration::ZERO);
    assert!(places.iter().all(|place| admitted(place).is_ok()));
    assert_eq!(admitted(&late), Err(Refusal::NotAdmitted));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "the five steps, one after the other")]
async fn a_draw_takes_its_steps_once_and_in_order() {
    let world = world().await;
    for person in 0..9 {
        world.stamp(person).await;
    }
    let early = world
        .step(Ask::Freeze)
        .await
        .expect_err("nothing is committed");
    assert!(
        early.contains("DRAW_STEP_REFUSED") && early.contains("next comes COMMIT"),
        "{early}"
    );
    assert_eq!(
        world.stamp(10).await.bucket,
        0,
        "a refused freeze closes nothing"
    );
    assert!(
        world.rooms.resume(&campaign(), &cohort()).await.is_err(),
        "there is no room"
    );

    assert_eq!(world.step(commit(&world)).await.expect("first").number, 1);
    assert!(world.step(commit(&world)).await.is_err(), "once");
    let lobby = world.room().await;
    assert_eq!(
        (lobby.phase, lobby.version, lobby.draw.list_root),
        (Phase::Lobby, 1, None)
    );
    assert!(world.step(beacon("x")).await.is_err());
    assert!(
        world.pause("x").await.is_err(),
        "closed doors cannot be paused"
    );

    assert_eq!(world.step(Ask::Freeze).await.expect("second").number, 2);
    let frozen = world.room().await;
    assert_eq!(
        (frozen.phase, frozen.draw.n0, frozen.last_closed_bucket),
        (Phase::Frozen, Some(10), Some(0))
    );
    assert!(frozen.draw.seed.is_none());
    assert_eq!(world.stamp(11).await.bucket, 1);

    world.step(Ask::Reveal).await.expect("third");
    let revealed = world.room().await;
    let seed = revealed.draw.seed.expect("published");
    let committed = revealed.draw.commit.expect("published").seed_hash;
    assert_eq!(Bytes32::sha256(seed.0), committed);
    let known = world
        .step(beacon("beacon of round 77"))
        .await
        .expect_err("not published yet");
    assert!(known.contains("before its announced time"), "{known}");
    assert!(world.step(Ask::Doors).await.is_err());

    world.clock.advance(Duration::from_secs(121));
    world
        .step(beacon("beacon of round 77"))
        .await
        .expect("fourth");
    let drawn = world.room().await;
    assert_eq!(drawn.phase, Phase::Drawn);
    assert!(drawn.draw.final_seed.is_some());
    assert_eq!(world.step(Ask::Doors).await.expect("fifth").number, 5);
    let open = world.room().await;
    assert_eq!(
        (open.phase, &open.draw.final_seed),
        (Phase::Open, &drawn.draw.final_seed)
    );
    assert_eq!(
        open.regions[&seoul()].f_end,
        0,
        "the doorkeeper moves lines"
    );
    assert!(world.step(Ask::Doors).await.is_err(), "no step is repeated");
    let shown = world
        .rooms
        .show(&campaign(), &cohort())
        .await
        .expect("shown");
    assert_eq!((shown.next_step, shown.control), (None, Control::default()));
}

#[tokio::test]
async fn a_seed_that_comes_too_late_is_zero() {
    let world = world().await;
    world.stamp(1).await;
    world.step(commit(&world)).await.expect("committed");
    world.step(Ask::Freeze).await.expect("frozen");
    world.clock.advance(Duration::from_secs(101));
    world.step(Ask::Reveal).await.expect("revealed");
    assert_eq!(world.room().await.draw.seed, Some(Bytes32::ZERO));
}

#[tokio::test]
async fn an_announced_draw_is_not_finished_with_a_value_of_our_own() {
    let world = world().await;
    world.stamp(1).await;
    world.step(commit(&world)).await.expect("committed");
    world.clock.advance(Duration::from_secs(99));
    let refused = world
        .open(0)
        .await
        .expect_err("the value is not ours to make");
    assert_eq!(refused.refusal, Refusal::DrawStepRefused);
    let room = world.room().await;
    assert_eq!((room.phase, room.draw.beacon), (Phase::Frozen, None));
}

#[tokio::test]
async fn the_draw_stays_whatever_happens_to_the_room() {
    let world = world().await;
    world.stamp(1).await;
    let opened = world.open(1_000).await.expect("opened");
    let first = world.room().await;
    world.stamp(2).await;
    world.clock.advance(Duration::from_secs(60));
    let paused = world.pause("power cut").await.expect("paused");
    assert_eq!(paused.version, opened.version + 1);
    assert_eq!(world.pause("power cut").await, Ok(paused), "the same again");
    let room = world.room().await;
    assert_eq!(
        (room.phase, room.reason.as_str()),
        (Phase::Paused, "power cut")
    );
    let again = world.open(0).await.expect("opened again");
    assert_eq!((again.version, again.people), (paused.version + 1, 1));
    let third = world.room().await;
    assert_eq!(
        (&third.draw, third.last_bucket_hash),
        (&first.draw, first.last_bucket_hash)
    );
    assert_eq!((third.phase, third.reason.as_str()), (Phase::Open, ""));
    assert_ne!(third.prev_hash, room.prev_hash);
}

#[tokio::test]
async fn operators_who_open_at_once_draw_once() {
    let world = world().await;
    world.stamp(1).await;
    let all = futures::future::join_all((0..4).map(|_| world.open(0))).await;
    assert!(
        all.iter()
            .all(|one| one.as_ref().is_ok_and(|one| one.people == 1)),
        "{all:?}"
    );
    assert_eq!(world.room().await.phase, Phase::Open);
}

#[tokio::test]
async fn rate_and_ceiling_are_kept_beside_the_room() {
    let world = world().await;
    let (campaign, cohort) = (campaign(), cohort());
    let set = world
        .rooms
        .ceiling(&campaign, &cohort, Some(9_000))
        .await
        .expect("set");
    assert_eq!(set.ceiling_per_kilosecond, Some(9_000));
    let set = world
        .rooms
        .rate(&campaign, &cohort, Some(500))
        .await
        .expect("set");
    assert_eq!(
        (set.rate, set.ceiling_per_kilosecond),
        (
            Rate::Fixed {
                per_kilosecond: 500
            },
            Some(9_000)
        )
    );
    let set = world
        .rooms
        .rate(&campaign, &cohort, None)
        .await
        .expect("set");
    assert_eq!(set.rate, Rate::Adaptive);
    world.open(0).await.expect("opened");
    let shown = world.rooms.show(&campaign, &cohort).await.expect("shown");
    assert_eq!((shown.control.rate, shown.next_step), (Rate::AtOnce, None));
}

#[tokio::test]
async fn what_does_not_exist_is_refused_and_a_foreign_room_is_left_alone() {
    let world = world().await;
    let unknown = "kr-2099".parse().expect("slug");
    let refused = world
        .rooms
        .open(&unknown, &cohort(), 0)
        .await
        .expect_err("no campaign");
    assert_eq!(refused.refusal, Refusal::CampaignUnknown);
    let unknown = "nineties".parse().expect("slug");
    let refused = world
        .rooms
        .open(&campaign(), &unknown, 0)
        .await
        .expect_err("no cohort");
    assert_eq!(refused.violations[0].0, "cohort");
    let refused = world.pause("x").await.expect_err("no room");
    assert_eq!(refused.violations[0].0, "cohort");

    let other = world.folder.path().join("other");
    keys::generate(&other, NOW).expect("writable");
    let other = SigningKeys::read(&other).expect("a key");
    let foreign = Room::lobby(campaign(), cohort(), [seoul()]);
    let foreign = foreign.sign(&other.signer(NOW).expect("in force"));
    let key = "/doseline/room/kr-2021/fifties";
    world
        .keyspace
        .put(key, foreign.clone())
        .await
        .expect("written");
    let refused = world.open(0).await.map_err(|refused| refused.refusal);
    assert_eq!(refused, Err(Refusal::Unavailable));
    assert_eq!(world.text(key).await, foreign);
}
