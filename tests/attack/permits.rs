//! Permits that are not identity's word, or not for this: each is refused for what it is and leaves no row.

use domain::permit::Permit;
use domain::{Refusal, Timestamp};
use futures::StreamExt as _;
use proto::room::GetRoomRequest;
use proto::room::room_service_client::RoomServiceClient;

use crate::signing::{in_secs, own_key, somebody};
use crate::world::{CALLER, COHORT, REGIONS, Rows, World, book, expect_refused};

const CAMPAIGN: &str = "permits";
const VACCINE: &str = "mrna-one";

/// One attack.
struct Attack {
    name: &'static str,
    permit: Permit,
    text: String,
    slot: String,
    caller: &'static str,
    why: Refusal,
}

struct Scene {
    world: World,
    seoul: String,
    jeju: String,
}

/// Two campaigns with a vaccine each, open; a clinic of the first in each region.
async fn scene() -> anyhow::Result<Scene> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    world.campaign("other", "mrna-two").await?;
    let seoul = world
        .clinic("seoul", "front-door", VACCINE, &[(1, 10, 5_000)])
        .await?
        .remove(0);
    let jeju = world
        .clinic("jeju", "island", VACCINE, &[(1, 10, 100)])
        .await?
        .remove(0);
    let other = world
        .clinic("seoul", "other-door", "mrna-two", &[(1, 10, 100)])
        .await?
        .remove(0);
    world.open(CAMPAIGN).await?;
    world.open("other").await?;
    world.await_bookable(CAMPAIGN, "seoul", &seoul).await?;
    world.await_bookable(CAMPAIGN, "jeju", &jeju).await?;
    world.await_bookable("other", "seoul", &other).await?;
    Ok(Scene { world, seoul, jeju })
}

#[expect(clippy::too_many_lines, reason = "a table of attacks")]
async fn attacks(scene: &Scene) -> anyhow::Result<Vec<Attack>> {
    let Scene { world, seoul, jeju } = scene;
    let (trusted, room_key) = (world.permit_key()?.signer()?, world.room_key()?.signer()?);
    let mut attacks = Vec::new();
    let mut attack = |name, why, permit: Permit, text: String, slot: &str, caller| {
        attacks.push(Attack {
            name,
            permit,
            text,
            slot: slot.to_owned(),
            caller,
            why,
        });
    };
    let new = || somebody(CAMPAIGN, "seoul");

    let permit = new()?;
    let text = permit.sign(&own_key("mine"));
    attack(
        "forged with an own key",
        Refusal::PermitInvalid,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = new()?;
    let text = permit.sign(&own_key(trusted.kid()));
    attack(
        "forged under a trusted key's id",
        Refusal::PermitInvalid,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = new()?;
    let text = permit.sign(&room_key);
    attack(
        "signed with the key of rooms",
        Refusal::PermitInvalid,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = new()?;
    let text = re_signed_as_a_room(&permit, &trusted)?;
    attack(
        "signed for another purpose",
        Refusal::PermitInvalid,
        permit,
        text,
        seoul,
        CALLER,
    );

    let permit = Permit {
        issued_at: in_secs(-7_200),
        expires_at: in_secs(-1),
        ..new()?
    };
    let text = permit.sign(&trusted);
    attack(
        "expired a second ago",
        Refusal::PermitExpired,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = Permit {
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(1),
        ..new()?
    };
    let text = permit.sign(&trusted);
    attack(
        "expired in 1970",
        Refusal::PermitExpired,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = Permit {
        issued_at: in_secs(600),
        expires_at: in_secs(3_600),
        ..new()?
    };
    let text = permit.sign(&trusted);
    attack(
        "valid in ten minutes",
        Refusal::PermitExpired,
        permit,
        text,
        seoul,
        CALLER,
    );

    let permit = somebody("other", "seoul")?;
    let text = permit.sign(&trusted);
    attack(
        "of another campaign",
        Refusal::PermitForeignCampaign,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = somebody("never-applied", "seoul")?;
    let text = permit.sign(&trusted);
    attack(
        "of a campaign nobody applied",
        Refusal::NotAdmitted,
        permit,
        text,
        seoul,
        CALLER,
    );
    let permit = new()?;
    let text = permit.sign(&trusted);
    attack(
        "of another region",
        Refusal::PermitForeignRegion,
        permit,
        text,
        jeju,
        CALLER,
    );
    let permit = new()?;
    let text = permit.sign(&trusted);
    attack(
        "of another caller",
        Refusal::PermitForeignCaller,
        permit,
        text,
        seoul,
        "app-two",
    );
    let issued = world.permit_of(CAMPAIGN, "seoul", "honest").await?;
    let permit = world.read_permit(&issued)?;
    attack(
        "issued, shown by another caller",
        Refusal::PermitForeignCaller,
        permit,
        issued,
        seoul,
        "app-two",
    );

    for (name, signature) in crate::signatures::ALL {
        let permit = new()?;
        let text = signature(&permit, &world.permit_key()?)?;
        attack(name, Refusal::PermitInvalid, permit, text, seoul, CALLER);
    }
    Ok(attacks)
}

/// The very claims of a permit, signed with the trusted key, but not as a permit.
fn re_signed_as_a_room(
    permit: &Permit,
    key: &domain::paseto::SigningKeyWithId,
) -> anyhow::Result<String> {
    let (message, _, _) = crate::signatures::parts(&permit.sign(key))?;
    Ok(key.sign(&message, domain::room::PURPOSE))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_is_not_identitys_word_for_this_books_nothing() -> anyhow::Result<()> {
    let scene = scene().await?;
    let world = &scene.world;
    let before = [
        world.all_rows("seoul").await?,
        world.all_rows("jeju").await?,
    ];
    let attacks = attacks(&scene).await?;
    // All at once and twice: bad permits meet good ones and each other in one batch.
    let tries = attacks.iter().chain(&attacks).map(|attack| async move {
        let request = book(&attack.text, &[&attack.slot]);
        let id = request.request_id.clone();
        let answer = world.book(attack.caller, request).await;
        expect_refused(attack.name, answer, attack.why)?;
        anyhow::ensure!(
            !world.recorded(&id).await?,
            "{}: a request was recorded",
            attack.name
        );
        let rows = world.rows_of(&attack.permit).await?;
        anyhow::ensure!(rows == Rows::NONE, "{}: {rows:?}", attack.name);
        Ok(())
    });
    let mut tries = futures::stream::iter(tries.collect::<Vec<_>>()).buffer_unordered(8);
    while let Some(outcome) = tries.next().await {
        outcome?;
    }
    for (region, before) in REGIONS.iter().zip(before) {
        anyhow::ensure!(
            world.all_rows(region).await? == before,
            "{region} has new rows"
        );
    }
    // The same hand, with nothing wrong in it.
    let good = somebody(CAMPAIGN, "seoul")?.sign(&world.permit_key()?.signer()?);
    world.book(CALLER, book(&good, &[&scene.seoul])).await?;
    Ok(())
}

/// One flipped bit in every character, a different one each time, and every length that is too short.
fn broken(text: &str) -> anyhow::Result<Vec<String>> {
    let mut out = Vec::new();
    for at in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        // The highest bit would make it no text at all.
        bytes[at] ^= 1 << (at % 7);
        out.push(String::from_utf8(bytes)?);
    }
    out.extend((1..text.len()).step_by(2).map(|end| text[..end].to_owned()));
    let (message, signature, footer) = crate::signatures::parts(text)?;
    for at in 0..signature.len() {
        let mut changed = signature;
        changed[at] ^= 1 << (at % 8);
        out.push(crate::signatures::joined(&message, &changed, &footer));
    }
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1 << (at % 8);
        out.push(crate::signatures::joined(&changed, &signature, &footer));
    }
    out.extend([
        format!("{text}A"),
        format!("{text}."),
        format!("{text}="),
        format!(" {text}"),
    ]);
    Ok(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_with_one_flipped_bit_or_a_missing_end_books_nothing() -> anyhow::Result<()> {
    let scene = scene().await?;
    let world = &scene.world;
    let issued = world.permit_of(CAMPAIGN, "seoul", "flipped").await?;
    let holder = world.read_permit(&issued)?;
    let document = RoomServiceClient::new(world.gateway())
        .get_room(GetRoomRequest {
            campaign: CAMPAIGN.to_owned(),
            cohort: COHORT.to_owned(),
        })
        .await?
        .into_inner()
        .document;
    let before = world.all_rows("seoul").await?;
    let broken = broken(&issued)?;
    anyhow::ensure!(broken.len() > 900, "only {} broken permits", broken.len());
    let tries = broken.iter().enumerate().map(|(at, text)| {
        let slot = scene.seoul.as_str();
        async move {
            let answer = world.book(CALLER, book(text, &[slot])).await;
            expect_refused(
                &format!("broken permit {at}"),
                answer,
                Refusal::PermitInvalid,
            )
        }
    });
    let mut tries = futures::stream::iter(tries.collect::<Vec<_>>()).buffer_unordered(64);
    while let Some(outcome) = tries.next().await {
        outcome?;
    }
    // A room document is signed by us, too.
    let long = document.len() > domain::permit::LENGTH_MAX;
    let why = if long {
        Refusal::Invalid
    } else {
        Refusal::PermitInvalid
    };
    let answer = world.book(CALLER, book(&document, &[&scene.seoul])).await;
    expect_refused("a room document as a permit", answer, why)?;

    anyhow::ensure!(
        world.rows_of(&holder).await? == Rows::NONE,
        "the holder has rows"
    );
    anyhow::ensure!(
        world.all_rows("seoul").await? == before,
        "there are new rows"
    );
    world.book(CALLER, book(&issued, &[&scene.seoul])).await?;
    Ok(())
}
