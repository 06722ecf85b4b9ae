//! Permits of a key that was rotated away: good while the key is published, nobody's word from then on.

use domain::Refusal;
use domain::permit::Permit;
use system_tests::await_until::await_until;
use system_tests::cluster::program;
use system_tests::processes::Launch;

use crate::signatures::parts;
use crate::signing::{Key, somebody};
use crate::world::{CALLER, HEARD_WITHIN, Rows, World, book, expect_refused, refusal};

const CAMPAIGN: &str = "rotated";
const VACCINE: &str = "mrna-one";
const TRIES: u64 = 6;

impl World {
    /// Adds a signing key that is in force at once, with the operator's own command, and publishes all that there are.
    fn add_permit_key(&self) -> anyhow::Result<()> {
        Launch::new("rotate", program()?, self.folder())
            .arg("keys")
            .arg("--signing")
            .arg(self.folder().join("permit-signing"))
            .arg("--public")
            .arg(self.folder().join("permit_keys.json"))
            .run()?;
        Ok(())
    }

    /// Takes a key out: no longer there to sign, no longer published.
    fn take_out(&self, key: &Key) -> anyhow::Result<()> {
        let signing = self.folder().join("permit-signing");
        std::fs::remove_file(signing.join(format!("{}.json", key.kid)))?;
        let public = self.folder().join("permit_keys.json");
        let mut set: serde_json::Value = serde_json::from_slice(&std::fs::read(&public)?)?;
        let taken = set.as_object_mut().and_then(|set| set.remove(&key.kid));
        anyhow::ensure!(taken.is_some(), "the key was not published");
        let partial = public.with_extension("partial");
        std::fs::write(&partial, set.to_string())?;
        std::fs::rename(&partial, &public)?;
        Ok(())
    }

    /// Whether a new permit is signed with another key than `old`.
    async fn signs_with_another(&self, old: &Key, sub: &str) -> bool {
        let issued = self.permit_of(CAMPAIGN, "seoul", sub).await;
        let footer = issued.and_then(|text| Ok(parts(&text)?.2));
        footer.is_ok_and(|footer| footer != footer_of(old))
    }
}

/// The end of every permit that a key signed.
fn footer_of(key: &Key) -> String {
    let signed = somebody(CAMPAIGN, "seoul").and_then(|one| Ok(one.sign(&key.signer()?)));
    let parts = signed.and_then(|text| parts(&text));
    parts.map(|parts| parts.2).unwrap_or_default()
}

/// What identity said once: signed with a key that it had.
async fn before(world: &World, sub: &str) -> anyhow::Result<(String, Permit)> {
    let text = world.permit_of(CAMPAIGN, "seoul", sub).await?;
    let permit = world.read_permit(&text)?;
    Ok((text, permit))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_outlives_a_rotation_and_dies_with_its_key() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign(CAMPAIGN, VACCINE).await?;
    let places = [(1, 10, 1_000)];
    let slot = world.clinic("seoul", "front-door", VACCINE, &places);
    let slot = slot.await?.remove(0);
    let old = world.permit_key()?;
    let (used, _) = before(&world, "used").await?;
    let (kept, keeper) = before(&world, "keeper").await?;
    world.open(CAMPAIGN).await?;
    world.await_bookable(CAMPAIGN, "seoul", &slot).await?;

    world.add_permit_key()?;
    await_until("the new key signs", HEARD_WITHIN, || async {
        Box::pin(world.signs_with_another(&old, "keeper")).await
    })
    .await?;
    // Both keys count, and so does what either of them signed.
    world.book(CALLER, book(&used, &[&slot])).await?;
    let (_, again) = before(&world, "keeper").await?;
    anyhow::ensure!(again.place == keeper.place && again.serial == keeper.serial);
    world.await_bookable(CAMPAIGN, "seoul", &slot).await?;

    world.take_out(&old)?;
    let signer = old.signer()?;
    await_until("the old key is forgotten", HEARD_WITHIN, || async {
        refuses_the_old_key(&world, &signer, &slot).await
    })
    .await?;
    let counted = world.turned_away(Refusal::PermitInvalid).await?;
    for _ in 0..TRIES {
        let request = book(&kept, &[&slot]);
        let answer = world.book(CALLER, request).await;
        expect_refused("a permit of an old key", answer, Refusal::PermitInvalid)?;
        let fresh = somebody(CAMPAIGN, "seoul")?;
        let answer = world
            .book(CALLER, book(&fresh.sign(&signer), &[&slot]))
            .await;
        expect_refused("a new permit of an old key", answer, Refusal::PermitInvalid)?;
        anyhow::ensure!(world.rows_of(&fresh).await? == Rows::NONE, "there are rows");
    }
    world
        .expect_turned_away(Refusal::PermitInvalid, counted + 2 * TRIES)
        .await?;
    anyhow::ensure!(
        world.rows_of(&keeper).await? == Rows::NONE,
        "the keeper has rows"
    );

    // Nothing is lost: asked again, identity says the same with the key that counts.
    let (text, again) = before(&world, "keeper").await?;
    anyhow::ensure!(again.place == keeper.place, "the keeper's place changed");
    world.book(CALLER, book(&text, &[&slot])).await?;
    Ok(())
}

/// Whether whoever decides the clinic refuses a new permit that is signed with the old key.
async fn refuses_the_old_key(
    world: &World,
    signer: &domain::paseto::SigningKeyWithId,
    slot: &str,
) -> bool {
    let Ok(fresh) = somebody(CAMPAIGN, "seoul") else {
        return false;
    };
    let answer = world.book(CALLER, book(&fresh.sign(signer), &[slot])).await;
    answer.is_err_and(|status| refusal(&status) == Some(Refusal::PermitInvalid))
}
