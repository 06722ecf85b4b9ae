//! What a gateway serves from memory.

use domain::Refusal;
use domain::room::Phase;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::availability::{ListClinicsRequest, ListSlotsRequest, WatchAvailabilityRequest};
use proto::clinic::QueryInventoryRequest;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::inventory::SlotChanges;
use proto::inventory::watch_shards_response::Update;
use proto::room::room_service_client::RoomServiceClient;
use proto::room::{GetPlaceRequest, GetRoomRequest};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fake_inventory::{FakeInventory, said, slot, snapshot};
use crate::setup::{Setup, await_until, refusal};

fn seoul() -> ListSlotsRequest {
    ListSlotsRequest {
        region: "seoul".to_owned(),
        ..ListSlotsRequest::default()
    }
}

async fn listed(it: &Setup) -> Vec<(String, u32)> {
    let mut client = AvailabilityServiceClient::new(it.channel.clone());
    let answer = client
        .list_slots(seoul())
        .await
        .expect("listed")
        .into_inner();
    assert!(answer.as_of.is_some());
    answer
        .slots
        .into_iter()
        .map(|slot| (slot.name, slot.left))
        .collect()
}

fn name(clinic: &str, slot: u64) -> String {
    format!("regions/seoul/clinics/{clinic}/slots/{slot}")
}

async fn health(it: &Setup, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(it.channel.clone())
        .check(request)
        .await
        .expect("answered");
    answer.into_inner().status()
}

#[tokio::test]
async fn the_region_is_what_all_its_owners_say() {
    let it = Setup::start().await;
    let (first, second) = (FakeInventory::start().await, FakeInventory::start().await);
    first.say(snapshot(0, 1, 1, &[("c1", &[(1, 5), (2, 4)])]));
    second.say(snapshot(1, 1, 1, &[("c2", &[(3, 3)])]));
    it.member("i1", first.addr, false).await;
    it.member("i2", second.addr, false).await;
    it.owner(0, 1, first.addr).await;
    it.owner(1, 1, second.addr).await;
    it.ready().await;
    let all = vec![(name("c1", 1), 5), (name("c1", 2), 4), (name("c2", 3), 3)];
    await_until("both are heard", async || listed(&it).await == all).await;

    first.say(said(
        0,
        1,
        2,
        Update::Changes(SlotChanges {
            slots: vec![slot("c1", 1, 0)],
        }),
    ));
    await_until("the change is served", async || {
        listed(&it).await == all[1..]
    })
    .await;

    // The first dies: what it said stays. The second takes over: what it says counts.
    first.kill().await;
    assert_eq!(listed(&it).await, all[1..]);
    second.say(snapshot(0, 2, 1, &[("c1", &[(1, 2)])]));
    let after = vec![(name("c1", 1), 2), (name("c2", 3), 3)];
    await_until("the successor is believed", async || {
        listed(&it).await == after
    })
    .await;
}

#[tokio::test]
async fn a_feed_that_lost_a_message_starts_again() {
    let (it, owner) = Setup::with_owner().await;
    owner.say(snapshot(0, 1, 4, &[("c1", &[(1, 5)])]));
    // Number 5 is lost on the way; what follows it is not enough.
    owner.say(said(
        0,
        1,
        6,
        Update::Changes(SlotChanges {
            slots: vec![slot("c1", 1, 4)],
        }),
    ));
    owner.say(snapshot(0, 1, 7, &[("c1", &[(1, 4), (2, 1)])]));
    let whole = vec![(name("c1", 1), 4), (name("c1", 2), 1)];
    await_until("it is whole again", async || listed(&it).await == whole).await;
}

#[tokio::test]
async fn health_says_not_serving_until_every_shard_was_heard() {
    let it = Setup::start().await;
    let service = "doseline.booking.v1.BookingService";
    assert_eq!(health(&it, service).await, ServingStatus::NotServing);
    let owner = FakeInventory::start().await;
    it.member("i1", owner.addr, false).await;
    it.owner(0, 1, owner.addr).await;
    let mut client = AvailabilityServiceClient::new(it.channel.clone());
    let status = client.list_slots(seoul()).await.expect_err("nothing heard");
    assert_eq!(refusal(&status), Refusal::Unavailable);
    owner.own(0, 1, "c1", 1);
    for service in [service, "doseline.availability.v1.AvailabilityService", ""] {
        await_until("serving", async || {
            health(&it, service).await == ServingStatus::Serving
        })
        .await;
    }
    it.host.drain.start(runtime::drain::Cause::Requested);
    assert!(!it.host.readiness.is_ready());
}

#[tokio::test]
async fn clinics_pages_and_wrong_tokens_over_the_wire() {
    let (it, owner) = Setup::with_owner().await;
    owner.say(snapshot(
        0,
        1,
        2,
        &[("c1", &[(1, 5)]), ("c2", &[(2, 5)]), ("c3", &[])],
    ));
    let mut client = AvailabilityServiceClient::new(it.channel.clone());
    let mut request = ListClinicsRequest {
        region: "seoul".to_owned(),
        page_size: 2,
        ..ListClinicsRequest::default()
    };
    await_until("three clinics are known", async || {
        let all = ListClinicsRequest {
            page_size: 0,
            ..request.clone()
        };
        let mut client = client.clone();
        client
            .list_clinics(all)
            .await
            .expect("listed")
            .into_inner()
            .clinics
            .len()
            == 3
    })
    .await;
    let first = client
        .list_clinics(request.clone())
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(first.clinics.len(), 2);
    request.page_token = first.next_page_token.clone();
    let second = client
        .list_clinics(request.clone())
        .await
        .expect("listed")
        .into_inner();
    assert_eq!(
        (second.clinics.len(), second.next_page_token.as_str()),
        (1, "")
    );
    request.district = "elsewhere".to_owned();
    let status = client
        .list_clinics(request)
        .await
        .expect_err("another listing");
    assert_eq!(
        (status.code(), refusal(&status)),
        (Code::InvalidArgument, Refusal::PageTokenInvalid)
    );
    let negative = ListSlotsRequest {
        page_size: -1,
        ..seoul()
    };
    let status = client.list_slots(negative).await.expect_err("negative");
    assert_eq!(refusal(&status), Refusal::Invalid);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_left() {
    let (it, owner) = Setup::with_owner().await;
    let mut client = AvailabilityServiceClient::new(it.channel.clone());
    let mut request = WatchAvailabilityRequest {
        region: "seoul".to_owned(),
        cursor: String::new(),
    };
    let mut watch = client
        .watch_availability(request.clone())
        .await
        .expect("watched")
        .into_inner();
    let snapshot = watch.message().await.expect("no error").expect("goes on");
    assert!(snapshot.snapshot_complete && snapshot.slots.len() == 1);
    let change = |sequence, left| {
        owner.say(said(
            0,
            1,
            sequence,
            Update::Changes(SlotChanges {
                slots: vec![slot("c1", 1, left)],
            }),
        ));
    };
    change(2, 4);
    let first = watch.message().await.expect("no error").expect("goes on");
    assert_eq!(first.slots[0].left, 4);
    drop(watch);
    change(3, 3);
    request.cursor = first.cursor;
    let mut watch = client
        .watch_availability(request.clone())
        .await
        .expect("resumed")
        .into_inner();
    let next = watch.message().await.expect("no error").expect("goes on");
    assert_eq!(next.slots[0].left, 3);
    request.cursor = "f".repeat(32);
    let status = client
        .watch_availability(request)
        .await
        .expect_err("not ours");
    assert_eq!(refusal(&status), Refusal::CursorExpired);
}

#[tokio::test]
async fn a_clinics_inventory_is_for_staff() {
    let (it, _owner) = Setup::with_owner().await;
    let mut client = ClinicServiceClient::new(it.channel.clone());
    let ask = |clinic: &str, role: &'static str| {
        let mut request = Request::new(QueryInventoryRequest {
            clinic: format!("regions/seoul/clinics/{clinic}"),
        });
        request
            .metadata_mut()
            .insert("x-doseline-role", role.parse().expect("ASCII"));
        let system = format!("seoul--{clinic}");
        request
            .metadata_mut()
            .insert("x-doseline-caller", system.parse().expect("ASCII"));
        request
    };
    let answer = client
        .query_inventory(ask("c1", "clinic"))
        .await
        .expect("known")
        .into_inner();
    assert_eq!(answer.slots.len(), 1);
    let status = client
        .query_inventory(ask("c9", "clinic"))
        .await
        .expect_err("unknown");
    assert_eq!(refusal(&status), Refusal::ClinicUnknown);
    let status = client
        .query_inventory(ask("c1", "mobile"))
        .await
        .expect_err("not staff");
    assert_eq!(refusal(&status), Refusal::CallerForbidden);
}

#[tokio::test]
async fn rooms_and_places_come_from_the_signed_document() {
    let it = Setup::start().await;
    let mut client = RoomServiceClient::new(it.channel.clone());
    let ask = GetRoomRequest {
        campaign: "kr".to_owned(),
        cohort: "fifties".to_owned(),
    };
    let status = client.get_room(ask.clone()).await.expect_err("no room yet");
    assert_eq!(status.code(), Code::NotFound);
    it.room(1, Phase::Open, 1_000).await;
    let document = client
        .get_room(ask)
        .await
        .expect("served")
        .into_inner()
        .document;
    assert!(document.starts_with("v4.public."));

    let place = client
        .get_place(GetPlaceRequest {
            permit: it.permit(),
        })
        .await
        .expect("placed");
    assert!(place.get_ref().admitted && place.get_ref().room_version == 1);
    it.room(2, Phase::Open, 1_000).await;
    for (permit, expected) in [
        (it.permit_of("another-system"), Refusal::PermitForeignCaller),
        (format!("{}x", it.permit()), Refusal::PermitInvalid),
        (String::new(), Refusal::Invalid),
    ] {
        let status = client
            .get_place(GetPlaceRequest { permit })
            .await
            .expect_err("not good");
        assert_eq!(refusal(&status), expected);
    }
}

#[tokio::test]
async fn a_place_behind_the_frontier_says_how_far() {
    let it = Setup::start().await;
    it.room(1, Phase::Open, 1).await;
    let mut client = RoomServiceClient::new(it.channel.clone());
    let place = client
        .get_place(GetPlaceRequest {
            permit: it.permit(),
        })
        .await
        .expect("placed");
    let place = place.into_inner();
    assert!(
        !place.admitted && (1..1_000).contains(&place.position),
        "{}",
        place.position
    );
    assert!(place.poll_after.expect("always").seconds >= 1);
}
