//! The doorkeeper in one process: real stores, real time, figures as inventories would give them.

use std::collections::BTreeMap;

use domain::place::{DrawTicket, Place};
use domain::room::{BucketDocument, Phase, RegionState, Room, Seen, bucket_key};
use domain::{PersonId, RegionId};
use proto::inventory::{
    GetFiguresResponse, RegionFigures, RoomFigures, ShardFigures, VaccineFigures,
};
use runtime::reload::Reloading;
use runtime::secret::Secret;
use tokio::time::timeout;

use super::*;
use crate::campaigns;
use crate::doorkeeper::history::History;
use crate::keys::{self, SigningKeys};
use crate::people::Stamp;
use crate::people::sqlite::SqlitePeople;
use crate::person::Blinding;

mod foretold;
mod reported;

const BOUND: Duration = Duration::from_secs(20);

struct World {
    keyspace: Keyspace,
    people: Arc<dyn People>,
    rooms: Rooms,
    keys: Reloading<SigningKeys>,
    campaigns: Campaigns,
    publisher: Publisher,
    gathered: Gathered,
    reports: Reports,
    clock: Clock,
    tasks: Tasks,
    drain: Drain,
    _folder: tempfile::TempDir,
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

async fn world() -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let drain = Drain::within(Duration::from_secs(1));
    let tasks = Tasks::new(drain.clone());
    let clock = Clock::system();
    let metrics = Metrics::unregistered();
    let path = folder.path().join("people.sqlite");
    let people = SqlitePeople::open(&path, &tasks, clock.clone(), metrics.clone()).expect("opened");
    let people: Arc<dyn People> = Arc::new(people);
    let key_folder = folder.path().join("room");
    keys::generate(&key_folder, domain::Timestamp::from_secs(0)).expect("writable");
    let keys = SigningKeys::follow(&key_folder, clock.wall()).expect("a key");
    let keyspace = Keyspace::local(None).expect("in memory");
    let mut document = campaigns::tests::document();
    document["last_appointment"] = "2199-12-31".into();
    document["room"] = serde_json::json!({ "bucket_seconds": 1 });
    campaigns::apply(&keyspace, &document.to_string(), false)
        .await
        .expect("applied");
    let (history, versions) = History::new();
    tasks.spawn(
        "keep_history",
        OnExit::Log,
        history::keep(Arc::clone(&people), versions, drain.clone()),
    );
    let publisher = Publisher::new(
        keyspace.clone(),
        keys.clone(),
        clock.clone(),
        (Arc::clone(&people), history),
    );
    let ttl = Duration::from_secs(10);
    let rooms = Rooms::new(
        keyspace.clone(),
        publisher.clone(),
        Arc::clone(&people),
        ttl,
        clock.clone(),
        metrics,
    );
    let blinding = Blinding::new(Secret::new([1; 32]), Secret::new([2; 32])).expect("long enough");
    let campaigns = Campaigns::new(blinding);
    let mut mirror = keyspace.mirror(campaigns::PREFIX);
    mirror.ready().await;
    campaigns.take(&mirror.snapshot());
    tasks.spawn(
        "follow_campaigns",
        OnExit::Log,
        campaigns.clone().follow(mirror, drain.clone()),
    );
    World {
        keyspace,
        people,
        rooms,
        keys,
        campaigns,
        publisher,
        gathered: Gathered::default(),
        reports: Reports::default(),
        clock,
        tasks,
        drain,
        _folder: folder,
    }
}

impl World {
    /// A process that wants to be the doorkeeper, until its session ends or the returned drain starts.
    fn candidate(&self, name: &str) -> (Session, Drain) {
        let session = self.keyspace.session(Duration::from_secs(5));
        let drain = Drain::within(Duration::from_secs(1));
        let secret = Secret::new(*b"secret");
        let inventories =
            Inventories::new(self.keyspace.clone(), None, &secret, self.clock.clone());
        let candidate = Candidate {
            instance: name.parse().expect("slug"),
            keyspace: self.keyspace.clone(),
            session: session.clone(),
            inventories: inventories.expect("ASCII"),
            tasks: self.tasks.clone(),
        };
        let parts = Parts {
            publisher: self.publisher.clone(),
            operators: self.rooms.clone(),
            people: Arc::clone(&self.people),
            campaigns: self.campaigns.clone(),
            rooms: self.keyspace.mirror(publish::PREFIX),
            controls: self.keyspace.mirror(control::PREFIX),
            gathered: self.gathered.clone(),
            reports: self.reports.clone(),
            settings: settings::Settings {
                start_per_second: 100.0,
                presence: 1.0,
                ..settings::Settings::default()
            },
            clock: self.clock.clone(),
            metrics: Metrics::unregistered(),
        };
        let work = run(candidate, Arc::new(parts), drain.clone());
        self.tasks.spawn("doorkeeper", OnExit::Log, work);
        (session, drain)
    }

    async fn stamp(&self, from: u32, to: u32) -> Vec<Place> {
        let mut places = Vec::new();
        for number in from..to {
            let mut id = [7; 16];
            id[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            let stamp = Stamp {
                campaign: campaign(),
                person: PersonId::from_bytes(id),
                cohort: cohort(),
                region: seoul(),
                ticket: DrawTicket(id),
                caller: "app".parse().expect("slug"),
            };
            places.push(self.people.stamp(stamp).await.expect("stamped").place);
        }
        places
    }

    /// What an inventory tells of every region to which nobody has come.
    fn show(&self, left: u64) {
        self.show_arrived(left, &[]);
    }

    /// What an inventory tells of every region, all of these people having come to each.
    fn show_arrived(&self, left: u64, arrived: &[DrawTicket]) {
        let mut registers = vec![0; domain::headcount::REGISTERS];
        for ticket in arrived {
            let (at, rank) = domain::headcount::mark(ticket);
            registers[at] = registers[at].max(rank);
        }
        let campaign = self.campaigns.get(&campaign()).expect("in force");
        let vaccine = campaign.campaign.rules.vaccines.first().expect("one");
        let regions = campaign
            .campaign
            .regions
            .iter()
            .map(|region| RegionFigures {
                region: region.to_string(),
                shards: vec![ShardFigures {
                    shard: 0,
                    epoch: 1,
                    vaccines: vec![VaccineFigures {
                        vaccine: vaccine.to_string(),
                        left,
                        taken: 0,
                    }],
                }],
                rooms: vec![RoomFigures {
                    campaign: campaign.campaign.campaign.to_string(),
                    cohort: cohort().to_string(),
                    arrived: registers.clone().into(),
                }],
                ..RegionFigures::default()
            });
        let answer = GetFiguresResponse {
            regions: regions.collect(),
        };
        self.gathered.take("one", answer, self.clock.monotonic());
    }

    async fn room(&self) -> Option<Room> {
        let entry = self
            .keyspace
            .get("/doseline/room/kr-2021/fifties")
            .await
            .expect("read")?;
        let text = String::from_utf8(entry.value.to_vec()).expect("text");
        Some(Room::verify(&self.keys.current().trusted(), &text).expect("signed by us"))
    }

    /// The room once it is as expected.
    async fn until(&self, what: &str, holds: impl Fn(&Room) -> bool) -> Room {
        let waiting = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            loop {
                looks.tick().await;
                if let Some(room) = self.room().await.filter(&holds) {
                    return room;
                }
            }
        };
        let found = timeout(BOUND, waiting).await;
        match found {
            Ok(room) => room,
            Err(_) => panic!("{what}: {:?}", self.room().await),
        }
    }

    async fn seen(&self) -> Seen {
        let room = self.room().await.expect("there");
        let last = room.last_closed_bucket.expect("frozen");
        let mut seen = Seen::new(room, BTreeMap::new());
        for id in 0..=last {
            let key = bucket_key(&campaign(), &cohort(), id);
            let entry = self.keyspace.get(&key).await.expect("read").expect("there");
            let text = String::from_utf8_lossy(&entry.value).into_owned();
            let (bucket, hash) =
                BucketDocument::verify(&self.keys.current().trusted(), &text).expect("ours");
            seen.learn_bucket(&bucket, hash).expect("in order");
        }
        seen
    }

    async fn open(&self, per_kilosecond: u64) {
        let opened = self
            .rooms
            .open(&campaign(), &cohort(), per_kilosecond)
            .await;
        opened.expect("opened");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.drain.start(runtime::drain::Cause::Requested);
    }
}

fn frontier(room: &Room) -> u64 {
    room.regions[&seoul()].f0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_gets_its_lobbies_and_late_comers_get_buckets_of_their_own() {
    let world = world().await;
    let _one = world.candidate("one");
    let lobby = world
        .until("a lobby", |room| room.phase == Phase::Lobby)
        .await;
    assert_eq!(lobby.version, 1);
    let early = world.stamp(0, 5).await;
    world.open(0).await;
    let late = world.stamp(5, 8).await;
    assert!(late.iter().all(|place| place.bucket == 1), "{late:?}");
    world
        .until("their bucket is closed", |room| {
            room.last_closed_bucket == Some(1)
        })
        .await;
    let later = world.stamp(8, 9).await;
    world
        .until("and the next", |room| room.last_closed_bucket >= Some(2))
        .await;
    let seen = world.seen().await;
    assert_eq!(seen.buckets().people(), 9);
    let all = early.iter().chain(&late).chain(&later);
    for place in all {
        assert_eq!(
            seen.admitted(place, &seoul(), Duration::ZERO),
            Ok(()),
            "{place:?}"
        );
    }
    let after = seen.ordinal(&later[0]).expect("closed");
    assert!(late.iter().all(|place| seen.ordinal(place) < Some(after)));
    // Nobody came since: no empty buckets are made, and nothing is written.
    let quiet = world.room().await.expect("there").version;
    let old = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let open = world.people.open_bucket(&campaign(), &cohort(), 1).await;
            let open = open.expect("read").expect("there");
            if open.open_for > 2 * closing::EVERY {
                return open.id;
            }
        }
    };
    let open = timeout(BOUND, old).await.expect("it grows old");
    let room = world.room().await.expect("there");
    assert_eq!(
        (room.version, room.last_closed_bucket),
        (quiet, Some(open - 1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_rate_moves_the_line_to_what_is_left_and_on_when_places_come_back() {
    let world = world().await;
    let _one = world.candidate("one");
    world.stamp(0, 400).await;
    world.until("a lobby", |_| true).await;
    world.open(200_000).await;
    world.stamp(400, 401).await;
    let standing = world
        .until("the room is kept", |room| {
            room.last_closed_bucket == Some(1)
        })
        .await;
    assert_eq!(frontier(&standing), 0, "nobody has said what is left");
    assert_eq!(standing.regions[&seoul()].state, RegionState::Open);
    world.show(100);
    let moving = world
        .until("the line moves", |room| frontier(room) > 20)
        .await;
    assert!(moving.regions[&seoul()].per_kilosecond > 0);
    assert_eq!(moving.regions[&seoul()].left, 100);
    let end = moving.regions[&seoul()].f_end;
    assert!((60..=110).contains(&end), "not beyond what is left: {end}");
    world.show(0);
    let gone = world.until("told at once", |room| {
        room.phase == Phase::Exhausted && room.regions[&seoul()].state == RegionState::Exhausted
    });
    let gone = gone.await;
    let line = &gone.regions[&seoul()];
    assert_eq!(line.f0, line.f_end, "nobody more is let in");
    world.show(200);
    world
        .until("places came back", |room| {
            room.phase == Phase::Open && frontier(room) > frontier(&gone)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_doorkeeper_dies_another_goes_on_from_there() {
    let world = world().await;
    let (first, _drain) = world.candidate("one");
    world.until("a lobby", |_| true).await;
    world.stamp(0, 5_000).await;
    world.open(100_000).await;
    world.show(5_000);
    world
        .until("the line moves", |room| frontier(room) > 50)
        .await;
    let (_second, second_drain) = world.candidate("two");
    first.end().await;
    let before = world.room().await.expect("there");
    world.show(5_000);
    let after = world
        .until("the other one writes", |room| {
            room.version > before.version + 2
        })
        .await;
    assert!(
        frontier(&after) >= frontier(&before),
        "nobody is pushed back"
    );
    let holder = world
        .keyspace
        .get(elect::KEY)
        .await
        .expect("read")
        .expect("there");
    let holder: elect::Doorkeeper = serde_json::from_slice(&holder.value).expect("a doorkeeper");
    assert_eq!(holder.instance.as_str(), "two");
    // Every version was kept, also the dead one's last.
    let documents = world
        .people
        .documents(&campaign(), &cohort(), 0, 1_000)
        .await
        .expect("read");
    let versions: Vec<u64> = documents.iter().map(|one| one.version).collect();
    let last = *versions.last().expect("some");
    assert_eq!(versions, (1..=last).collect::<Vec<_>>());
    assert!(last >= before.version);
    second_drain.start(runtime::drain::Cause::Requested);
    let gone = async {
        let mut key = world.keyspace.mirror(elect::KEY);
        key.ready().await;
        while key.snapshot().contains_key(elect::KEY) {
            key.changed().await;
        }
    };
    timeout(BOUND, gone).await.expect("who drains resigns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_the_line_whoever_is_the_doorkeeper() {
    let world = world().await;
    let _one = world.candidate("one");
    world.until("a lobby", |_| true).await;
    world.stamp(0, 2_000).await;
    world.open(100_000).await;
    world.show(2_000);
    world
        .until("the line moves", |room| frontier(room) > 20)
        .await;
    world
        .rooms
        .pause(&campaign(), &cohort(), "maintenance")
        .await
        .expect("paused");
    let paused = world.room().await.expect("there");
    assert_eq!(paused.phase, Phase::Paused);
    world.stamp(2_000, 2_001).await;
    world
        .until("late comers have an order also in a pause", |room| {
            room.last_closed_bucket == Some(1)
        })
        .await;
    let still = world.room().await.expect("there");
    assert_eq!(
        (still.phase, frontier(&still)),
        (Phase::Paused, frontier(&paused))
    );
    world
        .rooms
        .resume(&campaign(), &cohort())
        .await
        .expect("resumed");
    world.show(2_000);
    let on = world
        .until("it goes on", |room| frontier(room) > frontier(&paused))
        .await;
    assert_eq!((on.phase, on.reason.as_str()), (Phase::Open, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_closer_died_is_told_by_the_next_doorkeeper() {
    let world = world().await;
    world.stamp(0, 3).await;
    world.open(0).await;
    world.stamp(3, 5).await;
    // Closed in the people store, and nobody was told.
    let closed = world.people.close_bucket(&campaign(), &cohort(), 1).await;
    assert_eq!(closed.expect("closed").expect("open").size(), 2);
    let _one = world.candidate("one");
    world
        .until("both are told", |room| room.last_closed_bucket == Some(1))
        .await;
    assert_eq!(world.seen().await.buckets().people(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_room_put_into_the_key_space_is_overwritten_with_the_newest() {
    let world = world().await;
    let _one = world.candidate("one");
    world.stamp(0, 3).await;
    world.until("a lobby", |_| true).await;
    world.open(0).await;
    let open = world.room().await.expect("there");
    let key = "/doseline/room/kr-2021/fifties";
    let older = world
        .keyspace
        .get(key)
        .await
        .expect("read")
        .expect("there")
        .value;
    world
        .rooms
        .pause(&campaign(), &cohort(), "maintenance")
        .await
        .expect("paused");
    let paused = world.room().await.expect("there");
    world.keyspace.put(key, older).await.expect("written");
    let again = world
        .until("the pause is back", |room| room.version > paused.version)
        .await;
    assert_eq!(
        (again.phase, again.reason.as_str()),
        (Phase::Paused, "maintenance")
    );
    assert_eq!(again.draw, open.draw);
    world.keyspace.delete(key).await.expect("removed");
    let back = world
        .until("it is there again", |room| room.version > again.version)
        .await;
    assert_eq!((back.phase, &back.draw), (Phase::Paused, &open.draw));
    let steps = world.keyspace.list("/doseline/draw/").await.expect("read");
    assert_eq!(steps.len(), 5);
    for step in &steps {
        world
            .keyspace
            .delete(step.key.clone())
            .await
            .expect("removed");
    }
    let redraw = world.rooms.open(&campaign(), &cohort(), 0).await;
    assert_eq!(
        redraw.map_err(|refused| refused.refusal),
        Err(domain::Refusal::Unavailable)
    );
    assert_eq!(
        world.room().await.expect("there").draw,
        open.draw,
        "a draw is never repeated"
    );
}
