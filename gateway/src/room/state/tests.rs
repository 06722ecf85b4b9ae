//! Which documents are believed and served.

use domain::paseto::{SigningKeyWithId, TrustedKeys};
use domain::permit::Permit;
use domain::place::{DrawTicket, Place};
use domain::room::{BucketDocument, Bytes32, Frontier, Phase};
use domain::{PersonId, Serial};
use ed25519_dalek::SigningKey;
use prost::Message as _;

use super::*;

const NOW: i64 = 1_800_000_000;

struct Setup {
    rooms: Rooms,
    clock: Clock,
    key: SigningKeyWithId,
    _folder: tempfile::TempDir,
}

fn key(byte: u8) -> SigningKeyWithId {
    SigningKeyWithId::new("k1", SigningKey::from_bytes(&[byte; 32]))
}

fn setup() -> Setup {
    setup_with(true)
}

fn unverified() -> Setup {
    setup_with(false)
}

fn setup_with(verify_places: bool) -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(7);
    let path = folder.path().join("keys.json");
    let public = key.verifying_key().to_bytes();
    assert!(TrustedKeys::new([("k1".to_owned(), public)]).is_ok());
    std::fs::write(&path, runtime::trusted_keys::render([("k1", public)])).expect("writable");
    let keys = TrustedKeysFile::open(&path).expect("good keys");
    let clock = Clock::manual(Timestamp::from_secs(NOW));
    let keyspace = Keyspace::local(None).expect("in memory");
    let rooms = Rooms::new(&keyspace, keys.clone(), keys, verify_places, clock.clone());
    Setup {
        rooms,
        clock,
        key,
        _folder: folder,
    }
}

fn room(version: u64, phase: Phase) -> Room {
    let line = Frontier {
        f0: 10,
        per_kilosecond: 1_000_000,
        ttl_ms: 2_000,
        f_end: 5_000,
        ..Frontier::default()
    };
    let mut room = Room::lobby("c".parse().expect("slug"), "h".parse().expect("slug"), []);
    room.version = version;
    room.phase = phase;
    room.draw.final_seed = Some(Bytes32([0x11; 32]));
    room.last_closed_bucket = Some(0);
    room.regions.insert("seoul".parse().expect("slug"), line);
    room
}

fn bucket() -> BucketDocument {
    BucketDocument {
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        id: 0,
        before: 0,
        size: 2_000,
        regions: [("seoul".parse().expect("slug"), 2_000)].into(),
        list_root: None,
        prev_hash: None,
    }
}

fn entry(key: &str, document: &str, revision: i64) -> (String, Entry) {
    let entry = Entry {
        key: key.to_owned(),
        value: document.to_owned().into(),
        create_revision: 1,
        mod_revision: revision,
        leased: false,
    };
    (key.to_owned(), entry)
}

fn entries(document: &str, revision: i64) -> BTreeMap<String, Entry> {
    BTreeMap::from([entry("/doseline/room/c/h", document, revision)])
}

fn served(it: &Setup) -> Option<String> {
    let answer = it.rooms.document(&request_of("c", "h"))?;
    Some(
        GetRoomResponse::decode(answer.bytes().clone())
            .expect("our own bytes")
            .document,
    )
}

#[tokio::test]
async fn only_signed_and_newer_documents_are_served() {
    let it = setup();
    assert_eq!(served(&it), None);
    let first = room(1, Phase::Lobby).sign(&it.key);
    it.rooms.take(&entries(&first, 1));
    assert_eq!(served(&it), Some(first.clone()));

    let forged = room(2, Phase::Open).sign(&key(8));
    it.rooms.take(&entries(&forged, 2));
    assert_eq!(served(&it), Some(first.clone()), "signed with another key");
    it.rooms
        .take(&entries(&room(1, Phase::Open).sign(&it.key), 3));
    assert_eq!(served(&it), Some(first), "not newer");
    let second = room(2, Phase::Open).sign(&it.key);
    it.rooms.take(&entries(&second, 4));
    assert_eq!(served(&it), Some(second.clone()));
    let mut redrawn = room(3, Phase::Open);
    redrawn.draw.final_seed = Some(Bytes32([0x22; 32]));
    it.rooms.take(&entries(&redrawn.sign(&it.key), 5));
    assert_eq!(served(&it), Some(second.clone()), "the draw never changes");
    it.rooms.take(&BTreeMap::new());
    assert_eq!(served(&it), Some(second), "an absent key closes nothing");
}

#[tokio::test]
async fn admission_follows_the_frontier_by_the_monotonic_clock() {
    let it = setup();
    let document = room(1, Phase::Open).sign(&it.key);
    it.rooms.take(&entries(&document, 1));
    let mut seen = Seen::new(room(1, Phase::Open), BTreeMap::new());
    seen.learn_bucket(&bucket(), Bytes32::ZERO).expect("fits");
    let place = (0u128..)
        .map(|n| Place {
            bucket: 0,
            ticket: DrawTicket(n.to_be_bytes()),
        })
        .find(|place| {
            seen.ordinal(place)
                .is_some_and(|o| (900..1_000).contains(&o))
        })
        .expect("somebody stands there");
    let permit = Permit {
        person: PersonId::from_bytes([1; 16]),
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        region: "seoul".parse().expect("slug"),
        serial: Serial(1),
        place,
        issued_at: Timestamp::from_secs(NOW),
        expires_at: Timestamp::from_secs(NOW + 600),
        caller: "app".parse().expect("slug"),
    };
    let text = permit.sign(&it.key);
    assert!(!it.rooms.admits(&text));
    it.clock.advance(Duration::from_secs(1));
    assert!(!it.rooms.admits(&text), "its bucket is not known yet");
    let mut both = entries(&document, 1);
    let bucket_key = "/doseline/room/c/h/bucket/0000000000";
    both.extend([entry(bucket_key, &bucket().sign(&it.key), 2)]);
    it.rooms.take(&both);
    assert!(it.rooms.admits(&text), "1,000 people a second have gone in");
    assert!(
        !it.rooms.admits(&permit.sign(&key(8))),
        "not identity's word"
    );
    it.clock.advance(Duration::from_secs(700));
    assert!(!it.rooms.admits(&text), "expired");
}

#[tokio::test]
async fn watchers_get_each_newer_document_once_and_never_an_older_one() {
    let it = setup();
    let id = request_of("c", "h");
    assert!(it.rooms.newer(&id, 0).is_none());
    let mut changes = it.rooms.changes();
    let decoded = |encoded: Encoded| {
        let watched = WatchRoomResponse::decode(encoded.bytes().clone()).expect("a message");
        watched.document
    };
    let first = room(1, Phase::Open).sign(&it.key);
    it.rooms.take(&entries(&first, 1));
    changes.changed().await.expect("told");
    let (version, document) = it.rooms.newer(&id, 0).expect("one");
    assert_eq!((version, decoded(document)), (1, first.clone()));
    assert!(it.rooms.newer(&id, 1).is_none());
    let third = room(3, Phase::Open).sign(&it.key);
    it.rooms.take(&entries(&third, 5));
    it.rooms.take(&entries(&first, 9));
    let (version, document) = it.rooms.newer(&id, 1).expect("a newer one");
    assert_eq!((version, decoded(document)), (3, third));
}

#[tokio::test]
async fn what_the_order_is_made_of_is_served_as_far_as_it_is_believed() {
    let it = setup();
    let id = request_of("c", "h");
    assert!(it.rooms.published(&id, 0).is_err(), "no such room");
    let mut both = entries(&room(1, Phase::Open).sign(&it.key), 1);
    let text = bucket().sign(&it.key);
    both.extend([entry("/doseline/room/c/h/bucket/0000000000", &text, 2)]);
    both.extend([entry("/doseline/room/c/h/bucket/0000000001", "forged", 3)]);
    it.rooms.take(&both);
    let draw = it.rooms.published(&id, 0).expect("there");
    assert_eq!((draw.steps.len(), draw.more_buckets), (0, false));
    // The key space of this test holds nothing: what was believed is known, its text is not there to be passed on.
    assert!(draw.buckets.is_empty());
    let keys = runtime::trusted_keys::parse(draw.keys.as_bytes()).expect("keys");
    assert!(Room::verify(&keys, &room(1, Phase::Open).sign(&it.key)).is_ok());
}

#[tokio::test]
async fn a_place_is_told_without_a_signature_only_where_that_is_set() {
    let it = setup();
    it.rooms
        .take(&entries(&room(1, Phase::Open).sign(&it.key), 1));
    let permit = Permit {
        person: PersonId::from_bytes([1; 16]),
        campaign: "c".parse().expect("slug"),
        cohort: "h".parse().expect("slug"),
        region: "seoul".parse().expect("slug"),
        serial: Serial(1),
        place: Place {
            bucket: 0,
            ticket: DrawTicket([3; 16]),
        },
        issued_at: it.clock.wall(),
        expires_at: it.clock.wall().plus(Duration::from_secs(600)),
        caller: "app".parse().expect("slug"),
    };
    let forged = permit.sign(&key(8));
    assert!(it.rooms.permit(&forged).is_err());
    let Setup { rooms, .. } = unverified();
    assert_eq!(
        rooms.permit(&forged).map(|read| read.place),
        Ok(permit.place)
    );
    assert!(rooms.permit("v4.public.AAAA").is_err() && rooms.permit("").is_err());
    assert!(
        !rooms.admits(&forged),
        "what inventories are asked for is verified all the same"
    );
}
