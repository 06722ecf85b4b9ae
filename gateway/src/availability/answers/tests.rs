//! Listings as a caller sees them: filters, pages, tokens, freshness; and watches.

use domain::Timestamp;
use futures::StreamExt as _;
use prost::Message as _;
use proto::common::Date;
use proto::inventory::watch_shards_response::Update;
use proto::inventory::{ClinicInfo, ShardSnapshot, SlotChanges, SlotInfo, WatchShardsResponse};

use super::*;

const DAY_US: i64 = 86_400_000_000;

fn clinic(id: &str, district: &str) -> ClinicInfo {
    ClinicInfo {
        clinic: id.to_owned(),
        district: district.to_owned(),
        ..ClinicInfo::default()
    }
}

fn slot(clinic: &str, id: u64, day: i32, left: u32) -> SlotInfo {
    SlotInfo {
        slot: id,
        clinic: clinic.to_owned(),
        starts_at_us: i64::from(day) * DAY_US,
        day,
        vaccine: if id.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        dose: if id.is_multiple_of(3) { 2 } else { 1 },
        capacity: 10,
        left,
        open: true,
    }
}

fn said(shard: u32, sequence: u64, update: Update) -> WatchShardsResponse {
    let at = Timestamp::from_secs(1_000 + i64::try_from(sequence).expect("small"));
    WatchShardsResponse {
        shard,
        epoch: 1,
        sequence,
        as_of: Some(timestamp(at)),
        update: Some(update),
    }
}

/// Three clinics in two districts and two shards, five slots each on days 10 to 14; every fifth slot is full.
fn answers() -> Answers {
    let answers = Answers::new(
        Availability::new(["seoul".parse().expect("slug")]),
        PageKey::new(b"fleet"),
        4,
        Drain::within(Duration::from_secs(1)),
    );
    let region = region(&answers);
    for (shard, clinics) in [
        (0, vec![("c1", "jongno"), ("c3", "mapo")]),
        (1, vec![("c2", "mapo")]),
    ] {
        let slots = clinics.iter().flat_map(|(id, _)| {
            let base = u64::from(id.as_bytes()[1] - b'0') * 10;
            (0..5).map(move |n: u64| {
                slot(
                    id,
                    base + n,
                    10 + i32::try_from(n).expect("few"),
                    if n == 4 { 0 } else { 3 },
                )
            })
        });
        let snapshot = ShardSnapshot {
            slots: slots.collect(),
            clinics: clinics
                .iter()
                .map(|(id, district)| clinic(id, district))
                .collect(),
        };
        region.apply(said(shard, 1, Update::Snapshot(snapshot)));
    }
    region.publish();
    answers
}

fn region(answers: &Answers) -> Arc<Region> {
    Arc::clone(answers.availability.named("seoul").expect("configured"))
}

fn all() -> ListSlotsRequest {
    ListSlotsRequest {
        region: "seoul".to_owned(),
        ..ListSlotsRequest::default()
    }
}

fn slots(answers: &Answers, request: &ListSlotsRequest) -> ListSlotsResponse {
    let answer = answers.list_slots(request).expect("listed");
    ListSlotsResponse::decode(answer.bytes().clone()).expect("our own bytes")
}

fn ids(answers: &Answers, request: &ListSlotsRequest) -> Vec<u64> {
    let number = |slot: &PbSlot| slot.name.rsplit('/').next().and_then(|id| id.parse().ok());
    slots(answers, request)
        .slots
        .iter()
        .map(|slot| number(slot).expect("a number"))
        .collect()
}

#[test]
fn slots_are_listed_by_clinic_and_start_and_full_ones_only_when_asked() {
    let it = answers();
    assert_eq!(
        ids(&it, &all()),
        [10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33]
    );
    let full = ListSlotsRequest {
        include_full: true,
        ..all()
    };
    assert_eq!(ids(&it, &full).len(), 15);
    let answer = slots(&it, &all());
    assert_eq!(answer.slots[0].name, "regions/seoul/clinics/c1/slots/10");
    assert_eq!((answer.slots[0].left, answer.slots[0].capacity), (3, 10));
    assert_eq!(answer.as_of, Some(timestamp(Timestamp::from_secs(1_001))));
    assert_eq!(answer.next_page_token, "");
}

/// The whole list, narrowed by one change of the request.
fn narrowed(narrow: impl FnOnce(&mut ListSlotsRequest)) -> ListSlotsRequest {
    let mut request = all();
    narrow(&mut request);
    request
}

#[test]
fn every_filter_counts_and_they_add_up() {
    let it = answers();
    let date = |day| {
        Some(Date {
            year: 1970,
            month: 1,
            day,
        })
    };
    let cases: [(ListSlotsRequest, &[u64]); 9] = [
        (
            narrowed(|r| r.district = "mapo".into()),
            &[20, 21, 22, 23, 30, 31, 32, 33],
        ),
        (
            narrowed(|r| r.clinic = "regions/seoul/clinics/c2".into()),
            &[20, 21, 22, 23],
        ),
        (
            narrowed(|r| r.vaccine = "odd".into()),
            &[11, 13, 21, 23, 31, 33],
        ),
        (narrowed(|r| r.dose = 2), &[12, 21, 30, 33]),
        (narrowed(|r| r.from = date(14)), &[13, 23, 33]),
        (narrowed(|r| r.to = date(11)), &[10, 20, 30]),
        (
            narrowed(|r| (r.from, r.to) = (date(12), date(13))),
            &[11, 12, 21, 22, 31, 32],
        ),
        (
            narrowed(|r| (r.district, r.vaccine, r.dose) = ("mapo".into(), "odd".into(), 2)),
            &[21, 33],
        ),
        (narrowed(|r| r.district = "nowhere".into()), &[]),
    ];
    for (request, expected) in cases {
        assert_eq!(ids(&it, &request), expected, "{request:?}");
        assert_eq!(
            ids(&it, &request),
            expected,
            "the same from the answers encoded before"
        );
    }
}

#[test]
fn pages_of_any_size_make_the_whole_and_the_last_has_no_token() {
    let it = answers();
    for include_full in [false, true] {
        let whole = ids(
            &it,
            &ListSlotsRequest {
                include_full,
                ..all()
            },
        );
        for page_size in 1..=16 {
            let mut request = ListSlotsRequest {
                include_full,
                page_size,
                ..all()
            };
            let mut found = Vec::new();
            loop {
                found.extend(ids(&it, &request));
                request.page_token = slots(&it, &request).next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
                assert!(found.len() < whole.len(), "a token only where more follows");
            }
            assert_eq!(found, whole, "in pages of {page_size}");
        }
    }
}

#[test]
fn a_page_token_of_another_listing_is_refused() {
    let it = answers();
    let first = slots(
        &it,
        &ListSlotsRequest {
            page_size: 2,
            ..all()
        },
    );
    let token = first.next_page_token;
    let larger = ListSlotsRequest {
        page_size: 7,
        page_token: token.clone(),
        ..all()
    };
    assert!(
        it.list_slots(&larger).is_ok(),
        "the size of a page may change"
    );
    for request in [
        ListSlotsRequest {
            page_token: token.clone(),
            district: "mapo".into(),
            ..all()
        },
        ListSlotsRequest {
            page_token: token.clone(),
            include_full: true,
            ..all()
        },
        ListSlotsRequest {
            page_token: token.clone(),
            dose: 1,
            ..all()
        },
        ListSlotsRequest {
            page_token: format!("{token}A"),
            ..all()
        },
        ListSlotsRequest {
            page_token: "x".into(),
            ..all()
        },
    ] {
        let refused = it.list_slots(&request).expect_err("not its token");
        assert_eq!(refused.refusal, Refusal::PageTokenInvalid, "{request:?}");
    }
    let clinics = ListClinicsRequest {
        region: "seoul".to_owned(),
        page_token: token,
        ..ListClinicsRequest::default()
    };
    let refused = it.list_clinics(&clinics).expect_err("a token of slots");
    assert_eq!(refused.refusal, Refusal::PageTokenInvalid);
}

#[test]
fn clinics_are_listed_in_pages_too() {
    let it = answers();
    let mut request = ListClinicsRequest {
        region: "seoul".to_owned(),
        page_size: 2,
        ..ListClinicsRequest::default()
    };
    let page = |request: &ListClinicsRequest| {
        let answer = it.list_clinics(request).expect("listed");
        ListClinicsResponse::decode(answer.bytes().clone()).expect("our own bytes")
    };
    let first = page(&request);
    request.page_token = first.next_page_token;
    let second = page(&request);
    let names: Vec<_> = first
        .clinics
        .iter()
        .chain(&second.clinics)
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "regions/seoul/clinics/c1",
            "regions/seoul/clinics/c2",
            "regions/seoul/clinics/c3"
        ]
    );
    assert_eq!(second.next_page_token, "");
}

#[test]
fn every_wrong_field_is_named() {
    let it = answers();
    let date = |month, day| {
        Some(Date {
            year: 2021,
            month,
            day,
        })
    };
    let wrong = ListSlotsRequest {
        clinic: "regions/busan/clinics/c1".into(),
        vaccine: "No Slug".into(),
        from: date(2, 30),
        dose: 3,
        page_size: -1,
        district: "x".repeat(129),
        ..all()
    };
    let refused = it.list_slots(&wrong).expect_err("wrong");
    let fields: Vec<_> = refused
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    assert_eq!(refused.refusal, Refusal::Invalid);
    assert_eq!(
        fields,
        ["page_size", "district", "clinic", "vaccine", "from", "dose"]
    );
    let backwards = ListSlotsRequest {
        from: date(2, 2),
        to: date(2, 1),
        ..all()
    };
    assert_eq!(
        it.list_slots(&backwards).expect_err("wrong").violations[0].0,
        "to"
    );
    let elsewhere = ListSlotsRequest {
        region: "busan".into(),
        ..all()
    };
    assert_eq!(
        it.list_slots(&elsewhere).expect_err("wrong").violations[0].0,
        "region"
    );
    let large = ListSlotsRequest {
        page_size: i32::MAX,
        ..all()
    };
    assert!(it.list_slots(&large).is_ok(), "taken as 1,000");
}

#[test]
fn before_the_first_snapshot_nothing_is_said() {
    let it = Answers::new(
        Availability::new(["seoul".parse().expect("slug")]),
        PageKey::new(b"fleet"),
        4,
        Drain::within(Duration::from_secs(1)),
    );
    assert_eq!(
        it.list_slots(&all()).expect_err("nothing heard").refusal,
        Refusal::Unavailable
    );
}

#[test]
fn a_change_is_in_the_next_view_and_never_in_an_old_answer() {
    let it = answers();
    assert_eq!(ids(&it, &all())[0], 10);
    region(&it).apply(said(
        0,
        2,
        Update::Changes(SlotChanges {
            slots: vec![slot("c1", 10, 10, 0)],
        }),
    ));
    region(&it).publish();
    assert_eq!(ids(&it, &all())[0], 11);
    let name = "regions/seoul/clinics/c1".parse().expect("a name");
    let inventory = it.query_inventory(&name).expect("known");
    assert_eq!(inventory.slots.len(), 5, "full ones too");
    assert_eq!(inventory.slots[0].left, 0);
}

fn decode(message: Option<Result<Encoded, Status>>) -> WatchAvailabilityResponse {
    let message = message.expect("goes on").expect("no error");
    WatchAvailabilityResponse::decode(message.bytes().clone()).expect("our own bytes")
}

#[tokio::test]
async fn a_watch_is_a_snapshot_then_changes_then_signs_of_life() {
    let mut it = answers();
    it.sign_of_life_every = Duration::from_millis(50);
    let start = WatchAvailabilityRequest {
        region: "seoul".to_owned(),
        cursor: String::new(),
    };
    let mut watch = it.watch(&start).expect("watched");
    let snapshot = decode(watch.next().await);
    assert!(snapshot.snapshot_complete && snapshot.slots.len() == 15);
    let alive = decode(watch.next().await);
    assert!(alive.slots.is_empty() && alive.cursor == snapshot.cursor);

    for (sequence, left) in [(2, 2), (3, 1)] {
        let change = SlotChanges {
            slots: vec![slot("c1", 10, 10, left)],
        };
        region(&it).apply(said(0, sequence, Update::Changes(change)));
        region(&it).publish();
    }
    let first = decode(watch.next().await);
    assert_eq!(first.slots.iter().map(|s| s.left).collect::<Vec<_>>(), [2]);
    drop(watch);
    let resumed = WatchAvailabilityRequest {
        region: "seoul".to_owned(),
        cursor: first.cursor,
    };
    let mut watch = it.watch(&resumed).expect("resumed");
    assert_eq!(
        decode(watch.next().await).slots[0].left,
        1,
        "nothing twice and nothing lost"
    );
}

#[tokio::test]
async fn watchers_are_bounded_and_strange_cursors_expire() {
    let it = answers();
    let start = WatchAvailabilityRequest {
        region: "seoul".to_owned(),
        cursor: String::new(),
    };
    let watches: Vec<_> = (0..4).map(|_| it.watch(&start).expect("a seat")).collect();
    assert_eq!(
        it.watch(&start).err().expect("full").refusal,
        Refusal::Overloaded
    );
    drop(watches);
    let strange = WatchAvailabilityRequest {
        cursor: "x".to_owned(),
        ..start
    };
    assert_eq!(
        it.watch(&strange).err().expect("strange").refusal,
        Refusal::CursorExpired
    );
}

#[tokio::test]
async fn a_draining_gateway_sends_its_watchers_away() {
    let it = answers();
    let start = WatchAvailabilityRequest {
        region: "seoul".to_owned(),
        cursor: String::new(),
    };
    let mut watch = it.watch(&start).expect("watched");
    decode(watch.next().await);
    it.drain.start(runtime::drain::Cause::Requested);
    let status = watch
        .next()
        .await
        .expect("a last word")
        .expect_err("a refusal");
    assert_eq!(
        proto::status::read(&status).expect("ours").refusal,
        Refusal::Unavailable
    );
    assert!(watch.next().await.is_none());
}

/// The slots of a message of an inventory's watch, as id and places left.
fn told(message: &proto::clinic::WatchInventoryResponse) -> Vec<(&str, u32)> {
    let id = |slot: &'_ PbSlot| slot.name.rfind('/').map_or(0, |at| at + 1);
    let slots = message.slots.iter();
    slots.map(|s| (&s.name[id(s)..], s.left)).collect()
}

#[tokio::test]
async fn an_inventory_is_watched_over_a_hand_over_without_a_gap_or_a_double() {
    let mut it = answers();
    it.sign_of_life_every = Duration::from_millis(50);
    let name = "regions/seoul/clinics/c2".parse().expect("a name");
    let mut watch = it.watch_inventory(&name, "").expect("watched");
    let snapshot = watch.next().await.expect("goes on").expect("no error");
    assert!(snapshot.snapshot && snapshot.slots.len() == 5);
    // Another clinic's change is none of this one's.
    let others = SlotChanges {
        slots: vec![slot("c1", 10, 10, 2)],
    };
    region(&it).apply(said(0, 2, Update::Changes(others)));
    region(&it).publish();
    let alive = watch.next().await.expect("goes on").expect("no error");
    assert!(alive.slots.is_empty() && !alive.snapshot);
    // The next owner says everything again; only what is different is told.
    let mut slots: Vec<_> = (0..5).map(|n| slot("c2", 20 + n, 10, 3)).collect();
    for (n, slot) in slots.iter_mut().enumerate() {
        slot.day = 10 + i32::try_from(n).expect("few");
        slot.starts_at_us = i64::from(slot.day) * DAY_US;
    }
    slots[4].left = 0;
    slots[1].left = 2;
    let mut taken_over = said(
        1,
        1,
        Update::Snapshot(ShardSnapshot {
            clinics: vec![clinic("c2", "mapo")],
            slots: slots.clone(),
        }),
    );
    taken_over.epoch = 2;
    region(&it).apply(taken_over);
    region(&it).publish();
    let change = watch.next().await.expect("goes on").expect("no error");
    assert_eq!(told(&change), [("21", 2)]);
    drop(watch);
    slots[1].open = false;
    let mut closed = said(
        1,
        2,
        Update::Changes(SlotChanges {
            slots: vec![slots[1].clone()],
        }),
    );
    closed.epoch = 2;
    region(&it).apply(closed);
    region(&it).publish();
    // From the last cursor on; from an older one, what is newer than that.
    for (cursor, expected) in [
        (&change.cursor, vec![("21", 0)]),
        (&alive.cursor, vec![("21", 0)]),
    ] {
        let mut resumed = it.watch_inventory(&name, cursor).expect("resumed");
        let news = resumed.next().await.expect("goes on").expect("no error");
        assert_eq!(told(&news), expected);
        assert!(news.slots[0].closed && !news.snapshot);
        let quiet = resumed.next().await.expect("goes on").expect("no error");
        assert!(quiet.slots.is_empty(), "nothing twice");
    }
    let foreign = it
        .watch_inventory(&name, &"f".repeat(32))
        .err()
        .expect("not ours");
    assert_eq!(foreign.refusal, Refusal::CursorExpired);
}
