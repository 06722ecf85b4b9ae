//! Two doses that do not belong together are taken neither together nor one by one.

use domain::Refusal;
use proto::booking::HoldSlotsRequest;
use uuid::Uuid;

use crate::clinics::slot_number;
use crate::signing::somebody;
use crate::world::{CALLER, Rows, World, book, expect_refused, said_by};

const CAMPAIGN: &str = "doses";
const VACCINE: &str = "mrna-one";

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of attacks")]
async fn two_doses_that_do_not_belong_together_are_refused_whole() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    // Days 20 and 43 after the first dose are one too few and one too many; 21 and 42 are the border.
    let wanted = [
        (1, 10, 50),
        (2, 30, 50),
        (2, 31, 50),
        (2, 52, 50),
        (2, 53, 50),
        (1, 31, 50),
        (2, 10, 50),
    ];
    let near = world
        .clinic("seoul", "front-door", VACCINE, &wanted)
        .await?;
    let far = world
        .clinic("seoul", "other-door", VACCINE, &[(1, 10, 50), (2, 31, 50)])
        .await?;
    let jeju = world
        .clinic("jeju", "island", VACCINE, &[(2, 31, 50)])
        .await?;
    world.open(CAMPAIGN).await?;
    world.await_bookable(CAMPAIGN, "seoul", &near[0]).await?;
    world.await_bookable(CAMPAIGN, "seoul", &far[0]).await?;
    let [
        first,
        too_soon,
        soonest,
        latest,
        too_late,
        other_first,
        same_day,
    ] = &near[..]
    else {
        anyhow::bail!("seven slots")
    };
    let renamed = format!(
        "regions/seoul/clinics/front-door/slots/{}",
        slot_number(&far[1])?
    );
    let nowhere = "regions/seoul/clinics/front-door/slots/999999999".to_owned();
    let attacks = [
        ("two clinics", first, &far[1], Refusal::Invalid),
        ("two regions", first, &jeju[0], Refusal::Invalid),
        ("one slot twice", first, first, Refusal::Invalid),
        (
            "the second dose first",
            soonest,
            first,
            Refusal::SlotsMismatch,
        ),
        (
            "two first doses",
            first,
            other_first,
            Refusal::SlotsMismatch,
        ),
        ("two second doses", soonest, latest, Refusal::SlotsMismatch),
        ("a day too soon", first, too_soon, Refusal::SlotsMismatch),
        ("a day too late", first, too_late, Refusal::SlotsMismatch),
        ("both on one day", first, same_day, Refusal::SlotsMismatch),
        (
            "another clinic's slot under this clinic's name",
            first,
            &renamed,
            Refusal::SlotUnknown,
        ),
        (
            "a slot that is not there",
            first,
            &nowhere,
            Refusal::SlotUnknown,
        ),
    ];
    let key = world.permit_key()?.signer()?;
    let before = world.all_rows("seoul").await?;
    for (name, one, two, why) in attacks {
        let person = somebody(CAMPAIGN, "seoul")?;
        let request = book(&person.sign(&key), &[one, two]);
        let hold = HoldSlotsRequest {
            permit: request.permit.clone(),
            request_id: Uuid::new_v4().to_string(),
            claim_version: 0,
            slots: request.slots.clone(),
        };
        expect_refused(
            &format!("booking: {name}"),
            world.book(CALLER, request).await,
            why,
        )?;
        let answer = world.bookings().hold_slots(said_by(CALLER, hold)).await;
        expect_refused(&format!("holding: {name}"), answer, why)?;
        let rows = world.rows_of(&person).await?;
        anyhow::ensure!(rows == Rows::NONE, "{name}: {rows:?}");
    }
    anyhow::ensure!(
        world.all_rows("seoul").await? == before,
        "the ledger has new rows"
    );
    let of = "SELECT sum(booked) FROM slot";
    let taken: i64 = world
        .ledger("seoul")
        .await?
        .query_one(of, &[])
        .await?
        .get(0);
    anyhow::ensure!(
        taken == before.bookings,
        "{taken} places for {} bookings",
        before.bookings
    );

    for second in [soonest, latest] {
        let person = somebody(CAMPAIGN, "seoul")?;
        world
            .book(CALLER, book(&person.sign(&key), &[first, second]))
            .await?;
        let rows = world.rows_of(&person).await?;
        anyhow::ensure!(
            rows == Rows {
                claims: 1,
                requests: 1,
                bookings: 2
            },
            "{rows:?}"
        );
    }
    Ok(())
}
