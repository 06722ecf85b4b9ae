//! Who tries to be in two regions, and who tries to move somebody else.

use std::time::Duration;

use domain::paseto::SigningKeyWithId;
use domain::permit::Permit;
use domain::region_change::{Departure, Moving, Receipt};
use domain::{Refusal, Serial};
use proto::booking::HoldSlotsRequest;
use proto::inventory::Depart;
use uuid::Uuid;

use crate::movers::Steps;
use crate::signing::{Key, in_secs, now, own_key};
use crate::straight::reason;
use crate::world::{CALLER, World, book, expect_refused, said_by};

const CAMPAIGN: &str = "movers";
const VACCINE: &str = "mrna-one";

struct Scene {
    world: World,
    /// One slot of each region.
    seoul: String,
    jeju: String,
}

async fn scene() -> anyhow::Result<Scene> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    let mut slots = Vec::new();
    for region in ["seoul", "jeju"] {
        let clinic = format!("{region}-clinic");
        let made = world.clinic(region, &clinic, VACCINE, &[(1, 10, 500)]);
        slots.extend(made.await?);
    }
    world.open(CAMPAIGN).await?;
    let [seoul, jeju] = [slots.remove(0), slots.remove(0)];
    world.await_bookable(CAMPAIGN, "seoul", &seoul).await?;
    world.await_bookable(CAMPAIGN, "jeju", &jeju).await?;
    Ok(Scene { world, seoul, jeju })
}

impl World {
    fn receipt_key(&self, region: &str) -> anyhow::Result<SigningKeyWithId> {
        Key::of(&self.folder().join(format!("receipt-signing-{region}")))?.signer()
    }
}

/// What a region could say about this permit.
fn receipt_about(permit: &Permit) -> anyhow::Result<Receipt> {
    Ok(Receipt {
        campaign: permit.campaign.clone(),
        person: permit.person,
        serial: permit.serial,
        region: permit.region.clone(),
        departure: Departure::Left {
            to: "jeju".parse()?,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn nobody_is_in_two_regions_and_a_booking_is_given_up_only_when_that_is_said()
-> anyhow::Result<()> {
    let Scene { world, seoul, jeju } = scene().await?;
    let old = world.permit_of(CAMPAIGN, "seoul", "mover").await?;
    let person = world.read_permit(&old)?;
    let early = world.book(CALLER, book(&old, &[&jeju])).await;
    expect_refused(
        "a permit of Seoul in Jeju",
        early,
        Refusal::PermitForeignRegion,
    )?;
    let booked = world.book(CALLER, book(&old, &[&seoul])).await?;
    let name = booked.booking.map(|one| one.name).unwrap_or_default();

    let told = world.foretell_change(&old, "jeju").await?;
    assert_eq!(
        (told.booking.as_str(), told.hold.as_str()),
        (name.as_str(), "")
    );
    assert!(told.permit.is_empty());
    let standings: Vec<_> = told
        .standings
        .iter()
        .map(|one| (one.region.as_str(), one.ordinal.is_some()))
        .collect();
    assert_eq!(standings, [("seoul", true), ("jeju", true)]);
    let admitted = |one: &proto::identity::RegionStanding| {
        one.place.as_ref().is_some_and(|place| place.admitted)
    };
    assert!(told.standings.iter().all(admitted), "{told:?}");
    let kept = world.change_region(&old, "jeju", false).await;
    expect_refused("a change with a booking", kept, Refusal::BookingActive)?;
    let held = world.held(&old).await?;
    assert_eq!(held.booking.map(|one| one.name), Some(name));
    assert_eq!(world.regions_of(&person).await?, ["seoul"]);
    let third = world.change_region(&old, "nowhere", true).await;
    expect_refused(
        "a region of no campaign",
        third,
        Refusal::RegionNotInCampaign,
    )?;

    let new = world.change_region(&old, "jeju", true).await?;
    assert_eq!((new.region.as_str(), new.serial), ("jeju", 2));
    assert!(world.regions_of(&person).await?.is_empty());
    let after = world.read_permit(&new.permit)?;
    assert_eq!((after.person, after.place), (person.person, person.place));
    let late = world.book(CALLER, book(&old, &[&seoul])).await;
    expect_refused("the old permit", late, Refusal::PermitSuperseded)?;
    let looks = world.held(&old).await;
    expect_refused(
        "a look with the old permit",
        looks,
        Refusal::PermitSuperseded,
    )?;
    world.book(CALLER, book(&new.permit, &[&jeju])).await?;
    // Who lost the answer asks again with the old permit, and gets what is in force.
    let again = world.change_region(&old, "jeju", false).await?;
    assert_eq!((again.region.as_str(), again.serial), ("jeju", 2));
    let permit = world.permit(CAMPAIGN, "seoul", "mover", "1965-01-01", CALLER);
    let bound = expect_refused("Seoul once more", permit.await, Refusal::RegionBound)?;
    assert!(bound.violations[0].1.contains("jeju"), "{bound:?}");
    assert_eq!(world.regions_of(&person).await?, ["jeju"]);

    // A hold goes without a word; what was held is somebody else's to take.
    let other = world.permit_of(CAMPAIGN, "seoul", "holder").await?;
    let hold = HoldSlotsRequest {
        permit: other.clone(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: 0,
        slots: vec![seoul.clone()],
    };
    world.bookings().hold_slots(said_by(CALLER, hold)).await?;
    let other_person = world.read_permit(&other)?;
    assert_eq!(world.regions_of(&other_person).await?, ["seoul"]);
    world.change_region(&other, "jeju", false).await?;
    assert!(world.regions_of(&other_person).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_receipt_but_the_regions_own_about_this_change_moves_anybody() -> anyhow::Result<()> {
    let Scene { world, jeju, .. } = scene().await?;
    let steps = Steps::of(&world)?;
    let key = Some(steps.internal.as_str());
    let permit = world.permit_of(CAMPAIGN, "seoul", "victim").await?;
    let person = world.read_permit(&permit)?;
    let stranger = world.permit_of(CAMPAIGN, "seoul", "stranger").await?;
    let strangers = steps
        .receipt(&steps.begin(&stranger, "jeju").await?)
        .await?;
    let moving = steps.begin(&permit, "jeju").await?;

    let seoul_key = world.receipt_key("seoul")?;
    let honest = receipt_about(&person)?;
    let next_serial = Receipt {
        serial: Serial(2),
        ..honest.clone()
    };
    let of_jeju = Receipt {
        region: "jeju".parse()?,
        ..honest.clone()
    };
    let forged = honest.sign(&own_key(seoul_key.kid()));
    let attacks = [
        ("a forged receipt", forged.as_str()),
        ("another person's receipt", strangers.as_str()),
        ("a receipt of another serial", &next_serial.sign(&seoul_key)),
        (
            "a receipt of another region",
            &of_jeju.sign(&world.receipt_key("jeju")?),
        ),
        (
            "another region's word",
            &honest.sign(&world.receipt_key("jeju")?),
        ),
        (
            "identity's key",
            &honest.sign(&world.permit_key()?.signer()?),
        ),
        ("identity's own word", moving.document.as_str()),
        ("no receipt", "v4.public.e30.e30"),
    ];
    for (what, receipt) in attacks {
        let answer = steps.complete(key, CALLER, &permit, receipt).await;
        expect_refused(what, answer, Refusal::ReceiptInvalid)?;
    }
    let receipt = steps.receipt(&moving).await?;
    let doors = [
        (None, CALLER, Refusal::CallerUnknown),
        (key, "app-two", Refusal::PermitForeignCaller),
    ];
    for (key, caller, why) in doors {
        let answer = steps.complete(key, caller, &permit, &receipt).await;
        expect_refused(caller, answer, why)?;
    }
    // All of it changed nothing, and the real one does.
    let issued = steps.complete(key, CALLER, &permit, &receipt).await?;
    assert_eq!((issued.region.as_str(), issued.serial), ("jeju", 2));
    world.book(CALLER, book(&issued.permit, &[&jeju])).await?;

    // There and back: the first receipt says nothing about the third change.
    let back = world.change_region(&issued.permit, "seoul", true).await?;
    assert_eq!((back.region.as_str(), back.serial), ("seoul", 3));
    steps.begin(&back.permit, "jeju").await?;
    let replayed = steps.complete(key, CALLER, &back.permit, &receipt).await;
    expect_refused("an earlier receipt", replayed, Refusal::ReceiptInvalid)?;
    let replayed = steps.complete(key, CALLER, &permit, &receipt).await;
    expect_refused("all of it", replayed, Refusal::ReceiptInvalid)?;
    assert!(world.regions_of(&person).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_region_lets_anybody_go_without_identitys_word_of_now_about_it() -> anyhow::Result<()> {
    let Scene { world, seoul, .. } = scene().await?;
    let steps = Steps::of(&world)?;
    let permit = world.permit_of(CAMPAIGN, "seoul", "sitter").await?;
    let person = world.read_permit(&permit)?;
    let booked = world.book(CALLER, book(&permit, &[&seoul])).await?;
    let trusted = world.permit_key()?.signer()?;
    let honest = Moving {
        campaign: person.campaign.clone(),
        person: person.person,
        serial: person.serial,
        from: "seoul".parse()?,
        to: "jeju".parse()?,
        issued_at: now(),
        expires_at: now().plus(Duration::from_secs(300)),
    };
    let of_jeju = Moving {
        from: "jeju".parse()?,
        ..honest.clone()
    };
    let stale = Moving {
        issued_at: in_secs(-600),
        expires_at: in_secs(-300),
        ..honest.clone()
    };
    let attacks = [
        ("forged", honest.sign(&own_key(trusted.kid()))),
        ("a receipt's key", honest.sign(&world.receipt_key("seoul")?)),
        ("of another region", of_jeju.sign(&trusted)),
        ("stale", stale.sign(&trusted)),
        ("a permit", permit.clone()),
        ("nothing", String::new()),
    ];
    let before = world.all_rows("seoul").await?;
    for (what, document) in attacks {
        for stay in [false, true] {
            let asked = Depart {
                document: document.clone(),
                stay,
                give_up_booking: true,
            };
            let why = reason(what, steps.depart("seoul", asked).await?)?;
            anyhow::ensure!(why == Refusal::MovingInvalid.code(), "{what}: {why}");
        }
    }
    anyhow::ensure!(world.all_rows("seoul").await? == before, "rows changed");
    let held = world.held(&permit).await?;
    let names = [held.booking, booked.booking].map(|one| one.map(|one| one.name));
    assert_eq!(names[0], names[1], "the booking is where it was");
    // The honest word works.
    let moving = steps.begin(&permit, "jeju").await?;
    steps.receipt(&moving).await?;
    assert!(world.regions_of(&person).await?.is_empty());
    Ok(())
}
