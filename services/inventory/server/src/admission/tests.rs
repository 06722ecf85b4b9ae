//! Which documents are believed, and in which order.

use std::time::Duration;

use domain::paseto::SigningKeyWithId;
use domain::place::{DrawTicket, Place};
use domain::room::Frontier;
use domain::{PersonId, Serial, Timestamp};
use ed25519_dalek::SigningKey;

use super::*;

const ROOM: &str = "/doseline/room/c/h";

struct World {
    admission: Admission,
    key: SigningKeyWithId,
    keys: TrustedKeysFile,
    clock: Clock,
    rooms: BTreeMap<String, Entry>,
    revision: i64,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = key(7);
    let file = folder.path().join("keys.json");
    let public = [(key.kid(), key.verifying_key().to_bytes())];
    std::fs::write(&file, runtime::trusted_keys::render(public)).expect("writable");
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    World {
        admission: Admission::new(clock.clone(), RefusedDocuments::default()),
        keys: TrustedKeysFile::open(file).expect("keys"),
        key,
        clock,
        rooms: BTreeMap::new(),
        revision: 0,
        _folder: folder,
    }
}

fn key(seed: u8) -> SigningKeyWithId {
    SigningKeyWithId::new("k", SigningKey::from_bytes(&[seed; 32]))
}

fn seoul() -> RegionId {
    "seoul".parse().expect("slug")
}

fn room(version: u64, phase: Phase, f0: u64) -> Room {
    let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
    room.version = version;
    room.phase = phase;
    room.draw.final_seed = Some(Bytes32([0x11; 32]));
    room.last_closed_bucket = Some(0);
    let line = Frontier {
        f0,
        f_end: 1_000,
        ttl_ms: 10_000,
        per_kilosecond: 10_000,
        ..Frontier::default()
    };
    room.regions.insert(seoul(), line);
    room
}

fn bucket(id: u32, before: u64, prev_hash: Option<Bytes32>) -> BucketDocument {
    BucketDocument {
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        id,
        before,
        size: 100,
        regions: [(seoul(), 100)].into(),
        list_root: None,
        prev_hash,
    }
}

/// Somebody in a bucket.
fn permit(bucket: u32) -> Permit {
    Permit {
        person: PersonId::from_bytes([1; 16]),
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        region: seoul(),
        serial: Serial(1),
        place: Place {
            bucket,
            ticket: DrawTicket([9; 16]),
        },
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(9_000),
        caller: "app".parse().expect("slug"),
    }
}

impl World {
    fn put(&mut self, key: &str, text: String) {
        self.revision += 1;
        let entry = Entry {
            key: key.to_owned(),
            value: text.into(),
            create_revision: 1,
            mod_revision: self.revision,
            leased: false,
        };
        self.rooms.insert(key.to_owned(), entry);
        self.admission
            .take(&self.rooms, &BTreeMap::new(), &self.keys);
    }

    fn version(&self) -> u64 {
        self.admission.seen(&seoul())[0].version
    }

    fn refused(&self, reason: &'static str) -> u64 {
        self.admission.refused.count(reason)
    }
}

#[test]
fn replayed_foreign_and_misplaced_documents_are_refused_and_counted_once() {
    let mut it = world();
    let (first, second) = (room(1, Phase::Open, 0), room(2, Phase::Open, 5));
    it.put(ROOM, first.sign(&it.key));
    it.put(ROOM, second.sign(&it.key));
    assert_eq!(it.version(), 2);
    it.put(ROOM, first.sign(&it.key));
    assert_eq!((it.version(), it.refused("an older version")), (2, 1));
    // Another change beside it: what was wrong is not told again.
    it.put("/doseline/room/c/other", String::from("?"));
    assert_eq!(it.refused("an older version"), 1);
    assert_eq!(it.refused("not signed by a trusted key"), 1);
    it.put(ROOM, room(3, Phase::Open, 1_000).sign(&key(8)));
    assert_eq!(
        (it.version(), it.refused("not signed by a trusted key")),
        (2, 2)
    );
    it.put(
        "/doseline/room/c/other",
        room(9, Phase::Open, 1_000).sign(&it.key),
    );
    assert_eq!((it.version(), it.refused("another room's")), (2, 1));
    let mut same = second.clone();
    same.regions.clear();
    it.put(ROOM, same.sign(&it.key));
    assert_eq!(
        (it.version(), it.refused("an older version")),
        (2, 2),
        "the same version once more"
    );
    let mut redrawn = room(3, Phase::Open, 9);
    redrawn.draw.final_seed = Some(Bytes32([0x22; 32]));
    it.put(ROOM, redrawn.sign(&it.key));
    assert_eq!((it.version(), it.refused("another draw")), (2, 1));
}

#[test]
fn late_buckets_are_learnt_when_their_room_calls_them_closed() {
    let mut it = world();
    it.put(ROOM, room(1, Phase::Open, 500).sign(&it.key));
    assert_eq!(
        it.admission.check(&permit(0)),
        Err(Refusal::NotAdmitted),
        "its bucket is not known"
    );
    let zero = bucket(0, 0, None).sign(&it.key);
    let one = bucket(1, 100, Some(Bytes32::sha256(&zero))).sign(&it.key);
    it.put("/doseline/room/c/h/bucket/0000000000", zero.clone());
    assert_eq!(it.admission.check(&permit(0)), Ok(()));
    it.put("/doseline/room/c/h/bucket/0000000001", one.clone());
    assert_eq!(
        it.admission.check(&permit(1)),
        Err(Refusal::NotAdmitted),
        "still open"
    );
    let mut next = room(2, Phase::Open, 500);
    next.last_closed_bucket = Some(1);
    it.put(ROOM, next.sign(&it.key));
    assert_eq!(it.admission.check(&permit(1)), Ok(()));

    let id = ("c".parse().expect("slug"), "h".parse().expect("slug"));
    let kept = it.admission.buckets_seen((&id.0, &id.1), 0, 10, &it.rooms);
    assert_eq!(
        kept.iter().map(|one| &one.document).collect::<Vec<_>>(),
        [&zero, &one]
    );
    assert_eq!(
        it.admission
            .buckets_seen((&id.0, &id.1), 1, 10, &it.rooms)
            .len(),
        1
    );
}

#[test]
fn a_restart_without_etcd_refuses_nobody_who_was_admitted_and_admits_nobody_more() {
    let mut it = world();
    let document = room(4, Phase::Open, 0).sign(&it.key);
    it.put(ROOM, document.clone());
    it.put(
        "/doseline/room/c/h/bucket/0000000000",
        bucket(0, 0, None).sign(&it.key),
    );
    // 10 ordinals a second.
    it.clock.advance(Duration::from_secs(8));
    let (rooms, id) = (it.admission.seen(&seoul()), permit(0));
    assert_eq!(rooms[0].frontier, 80);
    let of_room = (&id.campaign, &id.cohort);
    let buckets = it.admission.buckets_seen(of_room, 0, 10, &it.rooms);

    let again = Admission::new(it.clock.clone(), RefusedDocuments::default());
    again.restore(&seoul(), (&rooms, &buckets), &it.keys);
    let frontier = |admission: &Admission| admission.seen(&seoul())[0].frontier;
    assert_eq!(frontier(&again), 80);
    assert_eq!(again.check(&permit(0)), it.admission.check(&permit(0)));
    it.clock.advance(Duration::from_secs(1));
    assert_eq!(frontier(&again), 80, "the line stands until it is heard");
    again.take(&BTreeMap::new(), &BTreeMap::new(), &it.keys);
    let mut older = it.rooms.clone();
    let text = room(3, Phase::Open, 900).sign(&it.key);
    older.get_mut(ROOM).expect("there").value = text.into();
    again.take(&older, &BTreeMap::new(), &it.keys);
    assert_eq!(frontier(&again), 80, "older than what was stored");
    let mut newest = it.rooms.clone();
    newest.get_mut(ROOM).expect("there").mod_revision += 100;
    again.take(&newest, &BTreeMap::new(), &it.keys);
    it.clock.advance(Duration::from_secs(9));
    assert_eq!(frontier(&again), 90, "the same document, followed again");
}
