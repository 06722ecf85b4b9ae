//! Old requests sent again: they answer what they answered then, and change nothing now.

use domain::Refusal;
use proto::booking::{BookRequest, CancelBookingRequest, GetBookingRequest};
use uuid::Uuid;

use crate::world::{CALLER, World, book, expect_refused, said_by};

const CAMPAIGN: &str = "replays";
const VACCINE: &str = "mrna-one";

struct Scene {
    world: World,
    slots: Vec<String>,
}

async fn scene() -> anyhow::Result<Scene> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    let slots = world
        .clinic(
            "seoul",
            "front-door",
            VACCINE,
            &[(1, 10, 100), (1, 11, 100)],
        )
        .await?;
    world.open(CAMPAIGN).await?;
    world.await_bookable(CAMPAIGN, "seoul", &slots[0]).await?;
    Ok(Scene { world, slots })
}

async fn booked(world: &World, slot: &str) -> anyhow::Result<i32> {
    let number = crate::clinics::slot_number(slot)?;
    let ledger = world.ledger("seoul").await?;
    Ok(ledger
        .query_one("SELECT booked FROM slot WHERE slot_id = $1", &[&number])
        .await?
        .get(0))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_cancelled_booking_is_not_brought_back_by_its_old_request() -> anyhow::Result<()> {
    let Scene { world, slots } = scene().await?;
    let permit = world.permit_of(CAMPAIGN, "seoul", "canceller").await?;
    let person = world.read_permit(&permit)?;
    let before = booked(&world, &slots[0]).await?;
    let request = book(&permit, &[&slots[0]]);
    let first = world.book(CALLER, request.clone()).await?;
    let name = first
        .booking
        .as_ref()
        .map(|booking| booking.name.clone())
        .unwrap_or_default();
    let cancel = CancelBookingRequest {
        permit: permit.clone(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: first.claim_version,
        booking: name.clone(),
        dose: 0,
    };
    let cancelled = world
        .bookings()
        .cancel_booking(said_by(CALLER, cancel.clone()))
        .await?
        .into_inner();
    anyhow::ensure!(
        booked(&world, &slots[0]).await? == before,
        "the place was not given back"
    );
    let rows = world.rows_of(&person).await?;

    for _ in 0..8 {
        let again = world.book(CALLER, request.clone()).await?;
        anyhow::ensure!(again.repeated_answer, "not said to be an old answer");
        anyhow::ensure!(
            again.claim_version == first.claim_version,
            "another version: {again:?}"
        );
        anyhow::ensure!(
            again.booking.map(|booking| booking.name) == Some(name.clone()),
            "another booking"
        );
        let again = world
            .bookings()
            .cancel_booking(said_by(CALLER, cancel.clone()))
            .await?
            .into_inner();
        anyhow::ensure!(
            again.repeated_answer && again.claim_version == cancelled.claim_version,
            "{again:?}"
        );
    }
    for version in [0, first.claim_version] {
        let stale = BookRequest {
            claim_version: version,
            ..book(&permit, &[&slots[0]])
        };
        let id = stale.request_id.clone();
        let told = expect_refused(
            "an old version",
            world.book(CALLER, stale).await,
            Refusal::ClaimVersionStale,
        )?;
        let current = told.claim_version.map(|version| version.0);
        anyhow::ensure!(
            current == Some(cancelled.claim_version),
            "the version told: {current:?}"
        );
        anyhow::ensure!(
            !world.recorded(&id).await?,
            "the stale request was recorded"
        );
    }
    anyhow::ensure!(
        booked(&world, &slots[0]).await? == before,
        "a replay took a place"
    );
    anyhow::ensure!(world.rows_of(&person).await? == rows, "a replay left a row");
    let get = GetBookingRequest {
        permit: permit.clone(),
        name: String::new(),
    };
    let now = world
        .bookings()
        .get_booking(said_by(CALLER, get))
        .await?
        .into_inner();
    anyhow::ensure!(
        now.booking.is_none() && now.claim_version == cancelled.claim_version,
        "{now:?}"
    );

    // Who read the version may book anew.
    let anew = BookRequest {
        claim_version: cancelled.claim_version,
        ..book(&permit, &[&slots[0]])
    };
    world.book(CALLER, anew).await?;
    anyhow::ensure!(
        booked(&world, &slots[0]).await? == before + 1,
        "the new booking has no place"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_stands_for_one_body_of_one_person() -> anyhow::Result<()> {
    let Scene { world, slots } = scene().await?;
    let permit = world.permit_of(CAMPAIGN, "seoul", "reuser").await?;
    let person = world.read_permit(&permit)?;
    let request = book(&permit, &[&slots[0]]);
    let first = world.book(CALLER, request.clone()).await?;
    let rows = world.rows_of(&person).await?;
    let free = booked(&world, &slots[1]).await?;

    let other = BookRequest {
        slots: vec![slots[1].clone()],
        ..request.clone()
    };
    expect_refused(
        "another slot",
        world.book(CALLER, other).await,
        Refusal::RequestIdReused,
    )?;
    let hold = proto::booking::HoldSlotsRequest {
        permit: permit.clone(),
        request_id: request.request_id.clone(),
        claim_version: 0,
        slots: request.slots.clone(),
    };
    let answer = world.bookings().hold_slots(said_by(CALLER, hold)).await;
    expect_refused("another method", answer, Refusal::RequestIdReused)?;
    let cancel = CancelBookingRequest {
        permit: permit.clone(),
        request_id: request.request_id.clone(),
        claim_version: first.claim_version,
        booking: first
            .booking
            .map(|booking| booking.name)
            .unwrap_or_default(),
        dose: 0,
    };
    let answer = world
        .bookings()
        .cancel_booking(said_by(CALLER, cancel.clone()))
        .await;
    expect_refused("a cancellation", answer, Refusal::RequestIdReused)?;
    anyhow::ensure!(world.rows_of(&person).await? == rows, "there are new rows");
    anyhow::ensure!(booked(&world, &slots[1]).await? == free, "a place is gone");

    // Another person's request ids are not mine, and their bookings neither.
    let thief = world.permit_of(CAMPAIGN, "seoul", "thief").await?;
    let stolen = CancelBookingRequest {
        permit: thief.clone(),
        request_id: Uuid::new_v4().to_string(),
        ..cancel
    };
    let name = stolen.booking.clone();
    let answer = world
        .bookings()
        .cancel_booking(said_by(CALLER, stolen))
        .await;
    expect_refused("somebody else's booking", answer, Refusal::BookingUnknown)?;
    let get = GetBookingRequest {
        permit: thief.clone(),
        name,
    };
    let answer = world.bookings().get_booking(said_by(CALLER, get)).await;
    expect_refused("a look at it", answer, Refusal::BookingUnknown)?;
    let mine = world
        .book(
            CALLER,
            BookRequest {
                permit: thief,
                ..request
            },
        )
        .await?;
    anyhow::ensure!(!mine.repeated_answer, "somebody else's answer");
    Ok(())
}
