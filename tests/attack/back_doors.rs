//! The ways in of July 2021, tried at the public face: another clock, a call from the console, a direct link, somebody
//! else's permit, a second device. Each is refused for its own reason, counted by it, and leaves no row.

use domain::Refusal;
use domain::permit::Permit;
use futures::future::join_all;
use proto::booking::{BookRequest, ConfirmHoldRequest, HoldSlotsRequest};
use proto::room::GetPlaceRequest;
use proto::room::room_service_client::RoomServiceClient;
use std::time::Duration;
use tonic::Request;
use uuid::Uuid;

use crate::world::{CALLER, Rows, World, book, expect_refused, refused, said_by};

const VACCINE: &str = "mrna-one";
/// Its doors are shut.
const SHUT: &str = "not-yet";
/// Its doors are open, and nobody's turn comes while the test runs.
const SLOW: &str = "slow";
/// Everybody may book here.
const OPEN: &str = "open-to-all";

/// What a browser's clock, console or proxy can put beside a request.
const CLAIMS: [(&str, &str); 9] = [
    ("date", "Sat, 01 Mar 2031 11:00:00 GMT"),
    ("x-doseline-now", "2031-03-01T20:00:00+09:00"),
    ("x-request-start", "t=1930000000000000"),
    ("x-doseline-admitted", "true"),
    ("x-doseline-position", "0"),
    ("x-doseline-frontier", "18446744073709551615"),
    ("x-doseline-internal", "a guess"),
    ("x-forwarded-for", "127.0.0.1"),
    ("cookie", "admitted=1; turn=1; key=queue-passed"),
];

struct Scene {
    world: World,
    slots: Vec<String>,
}

async fn scene() -> anyhow::Result<Scene> {
    let world = World::start().await?;
    for campaign in [SHUT, SLOW, OPEN] {
        world.campaign(campaign, VACCINE).await?;
    }
    let places = [(1, 10, 1_000), (1, 11, 1_000)];
    let slots = world
        .clinic("seoul", "front-door", VACCINE, &places)
        .await?;
    world.permit_of(SLOW, "seoul", "first-in-line").await?;
    // One person in a thousand seconds: the line stands as good as still.
    world.open_at(SLOW, 1).await?;
    world.open(OPEN).await?;
    world.await_bookable(OPEN, "seoul", &slots[0]).await?;
    Ok(Scene { world, slots })
}

fn hold(permit: &str, slot: &str) -> HoldSlotsRequest {
    HoldSlotsRequest {
        permit: permit.to_owned(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: 0,
        slots: vec![slot.to_owned()],
    }
}

/// A request with something beside it.
fn with<T>(message: T, (name, value): (&'static str, &str)) -> Request<T> {
    let mut request = said_by(CALLER, message);
    let value = value.parse().expect("ASCII");
    request.metadata_mut().insert(name, value);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clock_no_header_and_no_console_makes_it_somebodys_turn() -> anyhow::Result<()> {
    let Scene { world, slots } = scene().await?;
    let slot = &slots[0];
    let mut waiting = Vec::new();
    for (campaign, sub) in [(SHUT, "early"), (SLOW, "waiting")] {
        waiting.push(world.permit_of(campaign, "seoul", sub).await?);
    }
    let rows = world.all_rows("seoul").await?;
    let counted = world.turned_away(Refusal::NotAdmitted).await?;
    let mut tries = 0;
    for permit in &waiting {
        for claim in CLAIMS {
            let booked = with(book(permit, &[slot]), claim);
            let booked = world.bookings().book(booked).await;
            let what = format!("a booking with {claim:?}");
            let told = expect_refused(&what, booked, Refusal::NotAdmitted)?;
            anyhow::ensure!(told.retry_after.is_some(), "{what}: no time to return");
            let held = with(hold(permit, slot), claim);
            let held = world.bookings().hold_slots(held).await;
            expect_refused("a hold", held, Refusal::NotAdmitted)?;
            tries += 2;
        }
        // A deadline far ahead is the only time that a request names; it makes nobody wait their turn at the owner.
        let mut patient = said_by(CALLER, book(permit, &[slot]));
        patient.set_timeout(Duration::from_secs(90_000_000));
        let booked = world.bookings().book(patient).await;
        expect_refused(
            "a booking with three years' time",
            booked,
            Refusal::NotAdmitted,
        )?;
        tries += 1;
    }
    world
        .expect_turned_away(Refusal::NotAdmitted, counted + tries)
        .await?;
    deadlines_and_inventions(&world, &waiting, slot).await?;
    roles(&world, &waiting, slot).await?;
    for permit in &waiting {
        let rows = world.rows_of(&world.read_permit(permit)?).await?;
        anyhow::ensure!(rows == Rows::NONE, "somebody early has {rows:?}");
    }
    anyhow::ensure!(world.all_rows("seoul").await? == rows, "there are new rows");
    Ok(())
}

/// Times that are none, and a hold nobody gave: whatever is answered, it is no booking.
async fn deadlines_and_inventions(
    world: &World,
    waiting: &[String],
    slot: &str,
) -> anyhow::Result<()> {
    let (clinic, _) = slot.split_once("/slots/").unwrap_or_default();
    for permit in waiting {
        for timeout in ["0n", "1n", "1u", "-1S", "soon", "99999999H", "99999999999H"] {
            let booked = with(book(permit, &[slot]), ("grpc-timeout", timeout));
            let booked = world.bookings().book(booked).await;
            anyhow::ensure!(booked.is_err(), "booked with the deadline {timeout}");
        }
        let invented = ConfirmHoldRequest {
            permit: permit.clone(),
            request_id: Uuid::new_v4().to_string(),
            claim_version: 0,
            hold: format!("{clinic}/holds/{}", Uuid::new_v4()),
        };
        let confirmed = world
            .bookings()
            .confirm_hold(said_by(CALLER, invented))
            .await;
        refused("the confirmation of an invented hold", confirmed)?;
    }
    Ok(())
}

/// Whoever calls itself something else is stopped at the gateway, which counts it.
async fn roles(world: &World, waiting: &[String], slot: &str) -> anyhow::Result<()> {
    let unfit = [
        ("x-doseline-role", "auditor", Refusal::CallerForbidden),
        ("x-doseline-role", "gateway", Refusal::CallerUnknown),
        ("x-doseline-role", "root", Refusal::CallerUnknown),
        ("x-doseline-caller", "No Slug", Refusal::CallerUnknown),
    ];
    for (name, value, why) in unfit {
        let before = world.turned_away_by_gateways(why).await?;
        for permit in waiting {
            let booked = with(book(permit, &[slot]), (name, value));
            let booked = world.bookings().book(booked).await;
            expect_refused(&format!("a booking as {value}"), booked, why)?;
        }
        let after = world.turned_away_by_gateways(why).await?;
        let tries = waiting.len() as u64;
        anyhow::ensure!(after == before + tries, "{value}: {before} to {after}");
    }
    Ok(())
}

/// A person's permits by ten requests at once, through two calling systems.
async fn ten_devices(world: &World, campaign: &str, sub: &str) -> anyhow::Result<Vec<Device>> {
    let asked = (0..10).map(|number| async move {
        let caller = if number % 2 == 0 { CALLER } else { "app-two" };
        let text = world
            .permit(campaign, "seoul", sub, "1965-01-01", caller)
            .await?;
        let permit = world.read_permit(&text)?;
        anyhow::Ok(Device {
            caller,
            text,
            permit,
        })
    });
    let devices: Vec<Device> = join_all(asked)
        .await
        .into_iter()
        .collect::<anyhow::Result<_>>()?;
    let first = &devices[0].permit;
    for Device { permit, .. } in &devices {
        anyhow::ensure!(
            permit.person == first.person
                && permit.place == first.place
                && permit.serial == first.serial
                && permit.region == first.region,
            "a second device stands elsewhere"
        );
    }
    Ok(devices)
}

struct Device {
    caller: &'static str,
    text: String,
    permit: Permit,
}

async fn all_at_once(world: &World, devices: &[Device], slots: &[String]) -> Vec<Option<Refusal>> {
    let tries = devices.iter().enumerate().map(|(at, device)| async move {
        let request: BookRequest = book(&device.text, &[&slots[at % slots.len()]]);
        let answer = world.book(device.caller, request).await;
        answer
            .err()
            .and_then(|status| crate::world::refusal(&status))
    });
    join_all(tries).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_devices_stand_at_one_place_and_anothers_permit_is_worth_nothing() -> anyhow::Result<()>
{
    let Scene { world, slots } = scene().await?;
    // Before their turn: each device is refused, and each refusal counted.
    let devices = ten_devices(&world, SLOW, "many-hands").await?;
    let counted = world.turned_away(Refusal::NotAdmitted).await?;
    for told in all_at_once(&world, &devices, &slots).await {
        anyhow::ensure!(told == Some(Refusal::NotAdmitted), "{told:?}");
    }
    world
        .expect_turned_away(Refusal::NotAdmitted, counted + 10)
        .await?;
    let rows = world.rows_of(&devices[0].permit).await?;
    anyhow::ensure!(rows == Rows::NONE, "{rows:?}");

    // On their turn: one of them books.
    let devices = ten_devices(&world, OPEN, "open-hands").await?;
    world.permit_of(OPEN, "seoul", "open-hands").await?;
    let told = all_at_once(&world, &devices, &slots).await;
    let booked = told.iter().filter(|told| told.is_none()).count();
    anyhow::ensure!(booked == 1, "{booked} devices booked: {told:?}");
    let rows = world.rows_of(&devices[0].permit).await?;
    anyhow::ensure!(rows.bookings == 1 && rows.claims == 1, "{rows:?}");

    // Somebody else's permit, shown by another calling system: to book, to hold, to look.
    let text = world.permit_of(OPEN, "seoul", "victim").await?;
    let victim = world.read_permit(&text)?;
    let counted = world.turned_away(Refusal::PermitForeignCaller).await?;
    for _ in 0..3 {
        let booked = world.book("app-two", book(&text, &[&slots[0]])).await;
        expect_refused("another's permit", booked, Refusal::PermitForeignCaller)?;
        let held = said_by("app-two", hold(&text, &slots[0]));
        let held = world.bookings().hold_slots(held).await;
        expect_refused("another's permit", held, Refusal::PermitForeignCaller)?;
    }
    world
        .expect_turned_away(Refusal::PermitForeignCaller, counted + 6)
        .await?;
    let why = Refusal::PermitForeignCaller;
    let counted = world.turned_away_by_gateways(why).await?;
    let look = GetPlaceRequest {
        permit: text.clone(),
    };
    let place = RoomServiceClient::new(world.gateway())
        .get_place(said_by("app-two", look))
        .await;
    expect_refused("another's place", place, why)?;
    anyhow::ensure!(world.turned_away_by_gateways(why).await? == counted + 1);
    let rows = world.rows_of(&victim).await?;
    anyhow::ensure!(rows == Rows::NONE, "{rows:?}");
    world.book(CALLER, book(&text, &[&slots[0]])).await?;
    Ok(())
}
