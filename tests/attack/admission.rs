//! Nobody books before the doors open or while they are shut, whatever they ask.

use domain::Refusal;
use proto::booking::HoldSlotsRequest;
use system_tests::await_until::await_until;

use crate::signing::somebody;
use crate::world::{
    CALLER, HEARD_WITHIN, Rows, World, book, expect_refused, refusal, refused, said_by,
};

const CAMPAIGN: &str = "doors";
const VACCINE: &str = "mrna-one";

#[tokio::test(flavor = "multi_thread")]
async fn before_the_doors_open_and_while_they_are_shut_nobody_books() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    let slot = world
        .clinic("seoul", "front-door", VACCINE, &[(1, 10, 1_000)])
        .await?
        .remove(0);
    let permit = world.permit_of(CAMPAIGN, "seoul", "early").await?;
    let early = world.read_permit(&permit)?;

    let request = book(&permit, &[&slot]);
    for _ in 0..3 {
        let told = expect_refused(
            "a booking",
            world.book(CALLER, request.clone()).await,
            Refusal::NotAdmitted,
        )?;
        anyhow::ensure!(
            told.retry_after.is_some_and(|after| !after.is_zero()),
            "no time to return: {told:?}"
        );
    }
    let hold = HoldSlotsRequest {
        permit: permit.clone(),
        request_id: uuid::Uuid::new_v4().to_string(),
        claim_version: 0,
        slots: vec![slot.clone()],
    };
    let answer = world
        .bookings()
        .hold_slots(said_by(CALLER, hold.clone()))
        .await;
    let told = expect_refused("a hold", answer, Refusal::NotAdmitted)?;
    anyhow::ensure!(told.retry_after.is_some(), "no time to return: {told:?}");
    anyhow::ensure!(
        !world.recorded(&request.request_id).await?,
        "the booking was recorded"
    );
    anyhow::ensure!(
        !world.recorded(&hold.request_id).await?,
        "the hold was recorded"
    );
    anyhow::ensure!(
        world.all_rows("seoul").await? == Rows::NONE,
        "the ledger has rows"
    );

    // The very request that was refused, once the doors are open: a refusal decides nothing for later.
    world.open(CAMPAIGN).await?;
    await_until("the early request is let in", HEARD_WITHIN, || async {
        world.book(CALLER, request.clone()).await.is_ok()
    })
    .await?;
    let rows = world.rows_of(&early).await?;
    anyhow::ensure!(
        rows == Rows {
            claims: 1,
            requests: 1,
            bookings: 1
        },
        "{rows:?}"
    );

    paused(&world, &slot).await?;
    let again = world.book(CALLER, request).await?;
    anyhow::ensure!(
        again.repeated_answer,
        "an answer once given is repeated while the doors are shut"
    );
    Ok(())
}

async fn paused(world: &World, slot: &str) -> anyhow::Result<()> {
    world.pause(CAMPAIGN).await?;
    let key = world.permit_key()?.signer()?;
    await_until("the doors are shut", HEARD_WITHIN, || async {
        let Ok(somebody) = somebody(CAMPAIGN, "seoul") else {
            return false;
        };
        let answer = world
            .book(CALLER, book(&somebody.sign(&key), &[slot]))
            .await;
        answer.is_err_and(|status| refusal(&status) == Some(Refusal::RoomPaused))
    })
    .await?;
    let before = world.all_rows("seoul").await?;
    let late = somebody(CAMPAIGN, "seoul")?;
    for _ in 0..4 {
        let told = refused(
            "a booking",
            world.book(CALLER, book(&late.sign(&key), &[slot])).await,
        )?;
        anyhow::ensure!(
            told.refusal == Refusal::RoomPaused && told.retry_after.is_some(),
            "{told:?}"
        );
    }
    anyhow::ensure!(
        world.rows_of(&late).await? == Rows::NONE,
        "the late one has rows"
    );
    anyhow::ensure!(
        world.all_rows("seoul").await? == before,
        "the ledger has new rows"
    );
    Ok(())
}
