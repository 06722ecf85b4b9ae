//! Requests that make no sense: the code says so, and every wrong field is named at once.

use domain::Refusal;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::availability::{ListClinicsRequest, ListSlotsRequest};
use proto::booking::{BookRequest, CancelBookingRequest, MoveBookingRequest};
use proto::identity::IssuePermitRequest;
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::status::Refused;
use tonic::{Code, Status};

use crate::signing::somebody;
use crate::world::{CALLER, Rows, World, book, expect_refused, said_by};

const CAMPAIGN: &str = "malformed";
const VACCINE: &str = "mrna-one";

/// Checks that exactly these fields are named.
fn names(what: &str, told: &Refused, fields: &[&str]) -> anyhow::Result<()> {
    let mut found: Vec<&str> = told
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    found.sort_unstable();
    found.dedup();
    anyhow::ensure!(found == fields, "{what}: {found:?} instead of {fields:?}");
    Ok(())
}

fn invalid<T>(what: &str, answer: Result<T, Status>, fields: &[&str]) -> anyhow::Result<()> {
    if let Err(status) = &answer {
        anyhow::ensure!(status.code() == Code::InvalidArgument, "{what}: {status:?}");
    }
    names(
        what,
        &expect_refused(what, answer, Refusal::Invalid)?,
        fields,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_every_wrong_field() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    let slots = world
        .clinic(
            "seoul",
            "front-door",
            VACCINE,
            &[(1, 10, 50), (2, 35, 50), (2, 36, 50)],
        )
        .await?;
    world.open(CAMPAIGN).await?;
    world.await_bookable(CAMPAIGN, "seoul", &slots[0]).await?;
    let before = world.all_rows("seoul").await?;
    let person = somebody(CAMPAIGN, "seoul")?;
    let permit = person.sign(&world.permit_key()?.signer()?);

    bookings(&world, &permit, &slots).await?;
    others(&world, &permit).await?;
    listings(&world).await?;
    anyhow::ensure!(
        world.rows_of(&person).await? == Rows::NONE,
        "the person has rows"
    );
    anyhow::ensure!(
        world.all_rows("seoul").await? == before,
        "the ledger has new rows"
    );
    world
        .book(CALLER, book(&permit, &[&slots[0], &slots[1]]))
        .await?;
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "a list of what makes no sense")]
async fn bookings(world: &World, permit: &str, slots: &[String]) -> anyhow::Result<()> {
    let good = book(permit, &[&slots[0]]);
    let empty = world.book(CALLER, BookRequest::default()).await;
    invalid(
        "an empty request",
        empty,
        &["permit", "request_id", "slots"],
    )?;
    let three = BookRequest {
        slots: slots.to_vec(),
        ..good.clone()
    };
    invalid("three slots", world.book(CALLER, three).await, &["slots"])?;
    let many = BookRequest {
        slots: vec![slots[0].clone(); 100],
        ..good.clone()
    };
    let told = expect_refused(
        "a hundred slots",
        world.book(CALLER, many).await,
        Refusal::Invalid,
    )?;
    anyhow::ensure!(
        told.violations.len() < 10,
        "{} violations",
        told.violations.len()
    );
    let plain = good.request_id.replace('-', "");
    for bad in [
        "7",
        "not-a-uuid",
        &plain,
        &format!("{{{}}}", good.request_id),
        "'; DROP TABLE claim; --",
    ] {
        let request = BookRequest {
            request_id: bad.to_owned(),
            ..good.clone()
        };
        invalid(
            &format!("the request id {bad:?}"),
            world.book(CALLER, request).await,
            &["request_id"],
        )?;
    }
    for bad in [
        "",
        "slots/1",
        "regions/seoul/clinics/front-door/slots/-1",
        "regions/seoul/clinics/../slots/1",
        "regions/seoul/clinics/front-door/slots/99999999999999999999",
    ] {
        let request = BookRequest {
            slots: vec![bad.to_owned()],
            ..good.clone()
        };
        invalid(
            &format!("the slot {bad:?}"),
            world.book(CALLER, request).await,
            &["slots[0]"],
        )?;
    }
    let wrong = BookRequest {
        request_id: "7".to_owned(),
        slots: vec!["x".to_owned(), "y".to_owned()],
        ..good.clone()
    };
    invalid(
        "three wrong fields",
        world.book(CALLER, wrong).await,
        &["request_id", "slots[0]", "slots[1]"],
    )?;
    let long = BookRequest {
        permit: "v".repeat(1_025),
        ..good.clone()
    };
    invalid(
        "a permit too long",
        world.book(CALLER, long).await,
        &["permit"],
    )?;

    let request = BookRequest {
        permit: "v".repeat(17 * 1_024),
        ..good
    };
    let answer = world.book(CALLER, request).await;
    let code = answer.as_ref().err().map(Status::code);
    anyhow::ensure!(code == Some(Code::OutOfRange), "17 KiB: {answer:?}");
    Ok(())
}

async fn others(world: &World, permit: &str) -> anyhow::Result<()> {
    let request = MoveBookingRequest {
        permit: permit.to_owned(),
        dose: 3,
        ..MoveBookingRequest::default()
    };
    let answer = world
        .bookings()
        .move_booking(said_by(CALLER, request))
        .await;
    invalid(
        "a move of nothing",
        answer,
        &["booking", "dose", "request_id", "slot"],
    )?;
    let request = CancelBookingRequest {
        permit: permit.to_owned(),
        dose: 9,
        ..CancelBookingRequest::default()
    };
    let answer = world
        .bookings()
        .cancel_booking(said_by(CALLER, request))
        .await;
    invalid(
        "a cancellation of nothing",
        answer,
        &["booking", "dose", "request_id"],
    )?;
    let mut identity = IdentityServiceClient::new(world.gateway());
    let answer = identity
        .issue_permit(said_by(CALLER, IssuePermitRequest::default()))
        .await;
    invalid(
        "a permit for nobody",
        answer,
        &["assertion", "campaign", "region"],
    )
}

#[expect(clippy::too_many_lines, reason = "a list of what makes no sense")]
async fn listings(world: &World) -> anyhow::Result<()> {
    let mut lists = AvailabilityServiceClient::new(world.gateway());
    let seoul = ListSlotsRequest {
        region: "seoul".to_owned(),
        include_full: true,
        ..ListSlotsRequest::default()
    };
    let negative = ListSlotsRequest {
        page_size: -1,
        dose: 3,
        ..seoul.clone()
    };
    invalid(
        "a negative page",
        lists.list_slots(said_by(CALLER, negative)).await,
        &["dose", "page_size"],
    )?;
    let negative = ListClinicsRequest {
        region: "seoul".to_owned(),
        page_size: -1,
        ..ListClinicsRequest::default()
    };
    invalid(
        "a negative page of clinics",
        lists.list_clinics(said_by(CALLER, negative)).await,
        &["page_size"],
    )?;
    let answer = lists
        .list_slots(said_by(CALLER, ListSlotsRequest::default()))
        .await;
    invalid("no region", answer, &["region"])?;

    let first = ListSlotsRequest {
        page_size: 1,
        ..seoul.clone()
    };
    let token = lists
        .list_slots(said_by(CALLER, first.clone()))
        .await?
        .into_inner()
        .next_page_token;
    anyhow::ensure!(!token.is_empty(), "one page only");
    let changed: String = token.chars().rev().collect();
    let foreign = [
        ListSlotsRequest {
            dose: 2,
            page_token: token.clone(),
            ..first.clone()
        },
        ListSlotsRequest {
            region: "jeju".to_owned(),
            page_token: token.clone(),
            ..first.clone()
        },
        ListSlotsRequest {
            include_full: false,
            page_token: token.clone(),
            ..first.clone()
        },
        ListSlotsRequest {
            page_token: changed,
            ..first.clone()
        },
        ListSlotsRequest {
            page_token: "A".repeat(10_000),
            ..first.clone()
        },
    ];
    for (at, request) in foreign.into_iter().enumerate() {
        let answer = lists.list_slots(said_by(CALLER, request)).await;
        expect_refused(
            &format!("another listing's token {at}"),
            answer,
            Refusal::PageTokenInvalid,
        )?;
    }
    let clinics = ListClinicsRequest {
        region: "seoul".to_owned(),
        page_token: token.clone(),
        ..ListClinicsRequest::default()
    };
    let answer = lists.list_clinics(said_by(CALLER, clinics)).await;
    expect_refused(
        "a token of slots for clinics",
        answer,
        Refusal::PageTokenInvalid,
    )?;
    let next = lists
        .list_slots(said_by(
            CALLER,
            ListSlotsRequest {
                page_token: token,
                ..first
            },
        ))
        .await?;
    anyhow::ensure!(
        next.into_inner().slots.len() == 1,
        "the token's own listing goes on"
    );
    Ok(())
}
