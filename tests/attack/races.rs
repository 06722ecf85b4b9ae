//! Everybody at once: one person with two hundred devices, two thousand people for five hundred places.

use std::collections::BTreeMap;

use domain::Refusal;
use futures::StreamExt as _;
use proto::booking::{BookRequest, BookResponse};
use tonic::Status;

use crate::clinics::slot_number;
use crate::world::{CALLER, Rows, World, book, refusal};

const CAMPAIGN: &str = "races";
const VACCINE: &str = "mrna-one";
const DEVICES: usize = 200;
const PEOPLE: usize = 2_000;
const PLACES: u32 = 500;
/// Permits asked for at once; the rest of the time is not what is tested.
const ASKING_MAX: usize = 64;

/// Books until the answer is one: whoever is told to come back does, with the same request id.
async fn decided(world: &World, request: BookRequest) -> Result<BookResponse, Status> {
    loop {
        match world.book(CALLER, request.clone()).await {
            Err(status)
                if matches!(
                    refusal(&status),
                    Some(Refusal::Overloaded | Refusal::Unavailable)
                ) => {}
            answer => return answer,
        }
    }
}

async fn all(
    world: &World,
    requests: Vec<BookRequest>,
) -> anyhow::Result<(Vec<BookResponse>, BTreeMap<&'static str, usize>)> {
    let tries = requests.into_iter().map(|request| decided(world, request));
    let answers = futures::future::join_all(tries).await;
    let (mut taken, mut refusals) = (Vec::new(), BTreeMap::new());
    for answer in answers {
        match answer {
            Ok(answer) => taken.push(answer),
            Err(status) => match refusal(&status) {
                Some(why) => *refusals.entry(why.code()).or_default() += 1,
                None => anyhow::bail!("{status:?}"),
            },
        }
    }
    Ok((taken, refusals))
}

async fn booked(world: &World, slot: &str) -> anyhow::Result<i32> {
    let row = world.ledger("seoul").await?;
    Ok(row
        .query_one(
            "SELECT booked FROM slot WHERE slot_id = $1",
            &[&slot_number(slot)?],
        )
        .await?
        .get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_with_two_hundred_devices_gets_one_booking() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    // Clinics of both shards: two owners decide about one person.
    let mut slots = Vec::new();
    for clinic in ["door-1", "door-2", "door-3", "door-4", "door-5", "door-6"] {
        slots.extend(
            world
                .clinic("seoul", clinic, VACCINE, &[(1, 10, 300), (1, 11, 300)])
                .await?,
        );
    }
    let of = "SELECT count(DISTINCT shard_id) FROM clinic";
    let shards: i64 = world
        .ledger("seoul")
        .await?
        .query_one(of, &[])
        .await?
        .get(0);
    anyhow::ensure!(shards == 2, "all clinics in {shards} shard");
    let permit = world.permit_of(CAMPAIGN, "seoul", "greedy").await?;
    let person = world.read_permit(&permit)?;
    world.open(CAMPAIGN).await?;
    for slot in &slots {
        world.await_bookable(CAMPAIGN, "seoul", slot).await?;
    }

    let requests = (0..DEVICES)
        .map(|at| book(&permit, &[&slots[at % slots.len()]]))
        .collect();
    let (taken, refusals) = all(&world, requests).await?;
    anyhow::ensure!(taken.len() == 1, "{} bookings, {refusals:?}", taken.len());
    let others: usize = refusals.values().sum();
    anyhow::ensure!(others == DEVICES - 1, "{refusals:?}");
    let expected = [
        Refusal::AlreadyBooked.code(),
        Refusal::ClaimVersionStale.code(),
    ];
    anyhow::ensure!(
        refusals.keys().all(|code| expected.contains(code)),
        "{refusals:?}"
    );
    let rows = world.rows_of(&person).await?;
    anyhow::ensure!(
        rows == Rows {
            claims: 1,
            requests: 1,
            bookings: 1
        },
        "{rows:?}"
    );
    let mut places = 0;
    for slot in &slots {
        places += booked(&world, slot).await?;
    }
    // One each by the control of every slot.
    anyhow::ensure!(
        places == i32::try_from(slots.len())? + 1,
        "{places} places taken"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_people_at_one_slot_take_exactly_its_five_hundred_places() -> anyhow::Result<()>
{
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    let slots = world
        .clinic(
            "seoul",
            "front-door",
            VACCINE,
            &[(1, 10, PLACES), (1, 11, 10)],
        )
        .await?;
    let world = &world;
    let asked = (0..PEOPLE).map(|at| async move {
        world
            .permit_of(CAMPAIGN, "seoul", &format!("runner-{at}"))
            .await
    });
    let mut asked = futures::stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(ASKING_MAX);
    let mut permits = Vec::with_capacity(PEOPLE);
    while let Some(permit) = asked.next().await {
        permits.push(permit?);
    }
    world.open(CAMPAIGN).await?;
    world.await_bookable(CAMPAIGN, "seoul", &slots[1]).await?;

    let requests = permits
        .iter()
        .map(|permit| book(permit, &[&slots[0]]))
        .collect();
    let (taken, refusals) = all(world, requests).await?;
    let full = BTreeMap::from([(Refusal::SlotFull.code(), PEOPLE - PLACES as usize)]);
    anyhow::ensure!(
        taken.len() == PLACES as usize,
        "{} bookings, {refusals:?}",
        taken.len()
    );
    anyhow::ensure!(refusals == full, "{refusals:?}");
    anyhow::ensure!(
        booked(world, &slots[0]).await? == i32::try_from(PLACES)?,
        "the slot's count"
    );
    let of = "SELECT count(*), count(DISTINCT person) FROM booking WHERE slot_id = $1 AND state = 'BOOKED'";
    let row = world
        .ledger("seoul")
        .await?
        .query_one(of, &[&slot_number(&slots[0])?])
        .await?;
    anyhow::ensure!(
        (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (i64::from(PLACES), i64::from(PLACES)),
        "{row:?}"
    );
    // With the control's own.
    let rows = world.all_rows("seoul").await?;
    let one_more = i64::from(PLACES) + 1;
    anyhow::ensure!(
        rows.requests == one_more && rows.bookings == one_more,
        "{rows:?}"
    );
    Ok(())
}
