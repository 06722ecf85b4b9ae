//! What is refused before it reaches anybody, and what is passed on to identity.

use std::time::Duration;

use domain::Refusal;
use gateway::Shedding;
use gateway::shedding::Limit;
use proto::booking as pb;
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::identity::{IssuePermitRequest, IssuePermitResponse};
use proto::status::refuse;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::{v1, v1alpha};

use crate::fake_identity::FakeIdentity;
use crate::fake_inventory::{FakeInventory, Reaction};
use crate::setup::{SECRET, Setup, await_until, details, refusal, wide};

/// The wrong fields that a refusal names.
fn fields(status: &Status) -> Vec<String> {
    let refused = details(status);
    assert_eq!(
        (status.code(), refused.refusal),
        (Code::InvalidArgument, Refusal::Invalid)
    );
    refused
        .violations
        .into_iter()
        .map(|(field, _)| field)
        .collect()
}

#[tokio::test]
async fn a_bad_booking_is_told_every_wrong_field_and_asks_nobody() {
    let (it, owner) = Setup::with_owner().await;
    let good = it.booking();
    let with = |wrong: fn(&mut pb::BookRequest)| {
        let mut request = good.clone();
        wrong(&mut request);
        request
    };
    let cases: [(pb::BookRequest, &[&str]); 12] = [
        (with(|r| r.permit.clear()), &["permit"]),
        (with(|r| r.permit = "x".repeat(1_025)), &["permit"]),
        (with(|r| r.request_id.clear()), &["request_id"]),
        (with(|r| r.request_id = "7".into()), &["request_id"]),
        (with(|r| r.slots.clear()), &["slots"]),
        (with(|r| r.slots = vec!["c1".into()]), &["slots[0]"]),
        (
            with(|r| r.slots = vec![slot("c1", 1), slot("c1", 0)]),
            &["slots[1]"],
        ),
        (
            with(|r| r.slots = vec![slot("c1", 1), slot("c2", 2)]),
            &["slots[1]"],
        ),
        (
            with(|r| r.slots = vec![slot("c1", 1), slot("c1", 1)]),
            &["slots[1]"],
        ),
        (
            with(|r| r.slots = vec![slot("c1", 1), slot("c1", 2), slot("c1", 3)]),
            &["slots"],
        ),
        (
            with(|r| r.slots = vec!["regions/busan/clinics/c1/slots/1".into()]),
            &["region"],
        ),
        (
            pb::BookRequest::default(),
            &["permit", "request_id", "slots"],
        ),
    ];
    for (request, expected) in cases {
        let told = (request.slots.clone(), request.request_id.clone());
        let status = it.book(request).await.expect_err("wrong");
        assert_eq!(fields(&status), expected, "{told:?}");
    }
    assert!(owner.commands().is_empty());
}

fn slot(clinic: &str, slot: u64) -> String {
    format!("regions/seoul/clinics/{clinic}/slots/{slot}")
}

#[tokio::test]
async fn every_other_command_is_told_its_wrong_fields_too() {
    let (it, owner) = Setup::with_owner().await;
    let mut client = it.bookings();
    let common = ["permit", "request_id"];
    let names = |more: &[&str]| -> Vec<String> {
        common
            .iter()
            .chain(more)
            .map(|field| (*field).to_owned())
            .collect()
    };
    let status = client
        .hold_slots(pb::HoldSlotsRequest::default())
        .await
        .expect_err("wrong");
    assert_eq!(fields(&status), names(&["slots"]));
    let status = client
        .confirm_hold(pb::ConfirmHoldRequest::default())
        .await
        .expect_err("wrong");
    assert_eq!(fields(&status), names(&["hold"]));
    let status = client
        .release_hold(pb::ReleaseHoldRequest::default())
        .await
        .expect_err("wrong");
    assert_eq!(fields(&status), names(&["hold"]));
    let status = client
        .move_booking(pb::MoveBookingRequest::default())
        .await
        .expect_err("wrong");
    assert_eq!(fields(&status), names(&["booking", "dose", "slot"]));
    let cancel = pb::CancelBookingRequest {
        dose: 3,
        ..pb::CancelBookingRequest::default()
    };
    let status = client.cancel_booking(cancel).await.expect_err("wrong");
    assert_eq!(fields(&status), names(&["booking", "dose"]));
    let get = pb::GetBookingRequest {
        permit: it.permit(),
        name: "bookings/1".to_owned(),
    };
    let status = client.get_booking(get).await.expect_err("wrong");
    assert_eq!(fields(&status), ["name"]);
    let get = pb::GetBookingRequest {
        permit: "v4.public.x.y".to_owned(),
        name: String::new(),
    };
    let status = client.get_booking(get).await.expect_err("no region in it");
    assert_eq!(refusal(&status), Refusal::PermitInvalid);
    let across = pb::MoveBookingRequest {
        permit: it.permit(),
        request_id: uuid::Uuid::new_v4().to_string(),
        claim_version: 1,
        booking: format!("regions/busan/bookings/{}", uuid::Uuid::new_v4()),
        dose: 1,
        slot: "regions/seoul/clinics/c1/slots/1".to_owned(),
    };
    assert_eq!(
        fields(&client.move_booking(across).await.expect_err("wrong")),
        ["slot"]
    );
    assert!(owner.commands().is_empty());
}

#[tokio::test]
async fn a_request_beyond_16_kib_is_refused_unread() {
    let (it, owner) = Setup::with_owner().await;
    let mut request = it.booking();
    request.slots = vec!["x".repeat(17 * 1024)];
    let status = it.book(request).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(owner.commands().is_empty());
}

#[tokio::test]
async fn a_role_that_may_not_is_refused_and_a_strange_caller_is_nobody() {
    let (it, owner) = Setup::with_owner().await;
    for (header, value, code, expected) in [
        (
            "x-doseline-role",
            "auditor",
            Code::PermissionDenied,
            Refusal::CallerForbidden,
        ),
        (
            "x-doseline-role",
            "gateway",
            Code::Unauthenticated,
            Refusal::CallerUnknown,
        ),
        (
            "x-doseline-caller",
            "Not A Slug",
            Code::Unauthenticated,
            Refusal::CallerUnknown,
        ),
    ] {
        let mut request = Request::new(it.booking());
        request
            .metadata_mut()
            .insert(header, value.parse().expect("ASCII"));
        let status = it.bookings().book(request).await.expect_err("refused");
        assert_eq!(
            (status.code(), refusal(&status)),
            (code, expected),
            "{value}"
        );
    }
    let mut request = Request::new(it.booking());
    request
        .metadata_mut()
        .insert("x-doseline-caller", "app-7".parse().expect("ASCII"));
    it.bookings().book(request).await.expect("booked");
    assert_eq!(owner.commands().last().expect("one").caller, "app-7");
}

#[tokio::test]
async fn beyond_the_limit_commands_are_shed_and_reads_go_on() {
    let limit = Limit::new(4, Duration::from_secs(10));
    let it = Setup::with(Shedding {
        commands: limit,
        ..wide()
    })
    .await;
    let owner = FakeInventory::start().await;
    owner.own(0, 1, "c1", 1);
    it.member("i1", owner.addr, false).await;
    it.owner(0, 1, owner.addr).await;
    it.ready().await;
    owner.on(|_| Reaction::Silence);
    let stuck: Vec<_> = (0..4)
        .map(|_| it.book_within(it.booking(), Duration::from_secs(2)))
        .collect();
    let stuck = futures::future::join_all(stuck);
    let others = async {
        await_until("four are stuck", async || owner.commands().len() == 4).await;
        let status = it.book(it.booking()).await.expect_err("shed");
        assert_eq!(
            (status.code(), refusal(&status)),
            (Code::Unavailable, Refusal::Overloaded)
        );
        assert!(
            details(&status)
                .retry_after
                .is_some_and(|after| after >= Duration::from_secs(1))
        );
        let mut reads =
            proto::availability::availability_service_client::AvailabilityServiceClient::new(
                it.channel.clone(),
            );
        let list = proto::availability::ListSlotsRequest {
            region: "seoul".to_owned(),
            ..proto::availability::ListSlotsRequest::default()
        };
        reads.list_slots(list).await.expect("reads go on");
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    assert!(stuck.iter().all(|answer| {
        answer
            .as_ref()
            .is_err_and(|status| refusal(status) == Refusal::OutcomeUnknown)
    }));
    assert!(
        it.host
            .registry
            .encode()
            .contains("doseline_gateway_shed_total{class=\"commands\"} 1")
    );
}

fn issue() -> IssuePermitRequest {
    IssuePermitRequest {
        campaign: "kr".to_owned(),
        region: "seoul".to_owned(),
        assertion: "a.b.c".to_owned(),
    }
}

#[tokio::test]
async fn permits_come_from_identity_and_another_member_is_asked_when_one_is_away() {
    let it = Setup::start().await;
    let away = FakeIdentity::start(|_| Err(Status::unavailable("starting"))).await;
    let there = FakeIdentity::start(|request| {
        Ok(IssuePermitResponse {
            permit: "p".to_owned(),
            region: request.region.clone(),
            ..IssuePermitResponse::default()
        })
    })
    .await;
    it.identity("a", away.addr).await;
    it.identity("b", there.addr).await;
    for _ in 0..6 {
        let mut request = Request::new(issue());
        request
            .metadata_mut()
            .insert("x-doseline-caller", "app-7".parse().expect("ASCII"));
        let answer = IdentityServiceClient::new(it.channel.clone())
            .issue_permit(request)
            .await
            .expect("issued");
        assert_eq!(answer.get_ref().region, "seoul");
    }
    let calls = there.calls();
    assert_eq!(calls.len(), 6);
    assert!(
        calls
            .iter()
            .all(|call| *call == ("app-7".to_owned(), SECRET.to_owned()))
    );
}

#[tokio::test]
async fn identitys_refusal_is_passed_on_and_asked_once() {
    let it = Setup::start().await;
    let identity = FakeIdentity::start(|_| Err(refuse(Refusal::NotEligible))).await;
    it.identity("a", identity.addr).await;
    let mut client = IdentityServiceClient::new(it.channel.clone());
    let status = client.issue_permit(issue()).await.expect_err("refused");
    assert_eq!(
        (status.code(), refusal(&status)),
        (Code::PermissionDenied, Refusal::NotEligible)
    );
    assert_eq!(identity.calls().len(), 1);
    let wrong = IssuePermitRequest {
        campaign: "K R".to_owned(),
        ..IssuePermitRequest::default()
    };
    let status = client.issue_permit(wrong).await.expect_err("wrong");
    assert_eq!(fields(&status), ["campaign", "region", "assertion"]);
    assert_eq!(identity.calls().len(), 1);
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    let it = Setup::start().await;
    let ask = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(it.channel.clone());
    let mut answers = client
        .server_reflection_info(futures::stream::iter([ask]))
        .await
        .expect("offered")
        .into_inner();
    let answer = answers.message().await.expect("no error").expect("one");
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(
        names.contains(&"doseline.booking.v1.BookingService".to_owned()),
        "{names:?}"
    );
    assert!(
        !names
            .iter()
            .any(|name| name.contains("Inventory") || name.contains("Admin")),
        "{names:?}"
    );

    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "doseline.booking.v1.BookingService".to_owned(),
            ),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(it.channel.clone());
    let mut answers = client
        .server_reflection_info(futures::stream::iter([ask]))
        .await
        .expect("offered")
        .into_inner();
    let answer = answers.message().await.expect("no error").expect("one");
    assert!(matches!(
        answer.message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
    ));
}
