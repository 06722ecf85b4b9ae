//! Rooms that an attacker who can write into etcd puts there, and people who go past the gateway before their turn.

use domain::permit::Permit;
use domain::room::{BucketDocument, Phase, Room, Seen, bucket_key, room_key};
use domain::{CampaignId, CohortId, Refusal, RegionId};
use proto::inventory::command;
use runtime::keyspace::{EtcdConfig, Keyspace};
use system_tests::await_until::await_until;

use crate::signing::{own_key, somebody};
use crate::straight::{ask, command, reason, shown};
use crate::world::{CALLER, COHORT, HEARD_WITHIN, Rows, World, book, refusal, refused};

const VACCINE: &str = "mrna-one";

fn id(campaign: &str) -> anyhow::Result<(CampaignId, CohortId)> {
    Ok((campaign.parse()?, COHORT.parse()?))
}

impl World {
    pub(crate) async fn etcd(&self) -> anyhow::Result<Keyspace> {
        Ok(Keyspace::etcd(EtcdConfig::new(self.cluster.etcd.endpoints())).await?)
    }

    fn trusted(&self) -> anyhow::Result<domain::paseto::TrustedKeys> {
        let keys = std::fs::read(self.folder().join("room_keys.json"))?;
        Ok(runtime::trusted_keys::parse(&keys)?)
    }

    /// A room as it stands in etcd.
    pub(crate) async fn stored(
        &self,
        etcd: &Keyspace,
        campaign: &str,
    ) -> anyhow::Result<(String, Room)> {
        let (campaign, cohort) = id(campaign)?;
        let entry = etcd.get(&room_key(&campaign, &cohort)).await?;
        let entry = entry.ok_or_else(|| anyhow::anyhow!("no room"))?;
        let text = String::from_utf8(entry.value.to_vec())?;
        let room = Room::verify(&self.trusted()?, &text)?;
        Ok((text, room))
    }

    /// Documents that the inventories did not believe, for that reason, together.
    async fn refused_documents(&self, reason: &str) -> u64 {
        let label = format!("reason=\"{reason}\"");
        let counted = self.counted(
            &self.cluster.inventories,
            "doseline_room_documents_refused_total",
            &label,
        );
        counted.await.unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_and_forged_room_documents_let_nobody_in() -> anyhow::Result<()> {
    let world = World::start().await?;
    let etcd = world.etcd().await?;
    world.campaign("replayed", VACCINE).await?;
    let slot = world
        .clinic("seoul", "front-door", VACCINE, &[(1, 10, 1_000)])
        .await?
        .remove(0);
    world.permit_of("replayed", "seoul", "early").await?;
    world.open("replayed").await?;
    world.await_bookable("replayed", "seoul", &slot).await?;
    let (open, _) = world.stored(&etcd, "replayed").await?;
    world.pause("replayed").await?;
    let key = world.permit_key()?.signer()?;
    let shut = async || {
        let Ok(late) = somebody("replayed", "seoul") else {
            return false;
        };
        let answer = world.book(CALLER, book(&late.sign(&key), &[&slot])).await;
        answer.is_err_and(|status| refusal(&status) == Some(Refusal::RoomPaused))
    };
    await_until("the doors are shut", HEARD_WITHIN, || async {
        shut().await
    })
    .await?;
    let rows = world.all_rows("seoul").await?;
    let (_, paused) = world.stored(&etcd, "replayed").await?;

    // Signed by the right key, and of yesterday.
    let (campaign, cohort) = id("replayed")?;
    etcd.put(room_key(&campaign, &cohort), open.clone()).await?;
    await_until("every inventory refused it", HEARD_WITHIN, || async {
        world.refused_documents("an older version").await >= 2
    })
    .await?;
    for _ in 0..10 {
        anyhow::ensure!(shut().await, "a replayed document opened the doors");
    }
    // And identity puts the newest one back.
    await_until("the pause is back", HEARD_WITHIN, || async {
        let stored = world.stored(&etcd, "replayed").await;
        stored.is_ok_and(|(_, room)| room.version > paused.version && room.phase == Phase::Paused)
    })
    .await?;

    // Newer, open, and signed by a key of the attacker's with the right name.
    let (_, mut forged) = world.stored(&etcd, "replayed").await?;
    forged.version += 1_000;
    forged.phase = Phase::Open;
    let foreign = own_key(&world.room_key()?.kid);
    etcd.put(room_key(&campaign, &cohort), forged.sign(&foreign))
        .await?;
    await_until("every inventory refused it", HEARD_WITHIN, || async {
        world.refused_documents("not signed by a trusted key").await >= 2
    })
    .await?;
    for _ in 0..10 {
        anyhow::ensure!(shut().await, "a forged document opened the doors");
    }
    anyhow::ensure!(
        world.all_rows("seoul").await? == rows,
        "the ledger has new rows"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_books_before_their_turn_straight_at_an_inventory() -> anyhow::Result<()> {
    let world = World::start().await?;
    let etcd = world.etcd().await?;
    world.campaign("ahead", VACCINE).await?;
    let slot = world
        .clinic("seoul", "front-door", VACCINE, &[(1, 10, 1_000)])
        .await?
        .remove(0);
    for number in 0..40 {
        let sub = format!("early-{number}");
        world.permit_of("ahead", "seoul", &sub).await?;
    }
    // One person in a hundred seconds: the line stands as good as still.
    world.open_at("ahead", 10).await?;
    let (campaign, cohort) = id("ahead")?;
    let (_, room) = world.stored(&etcd, "ahead").await?;
    let text = etcd.get(&bucket_key(&campaign, &cohort, 0)).await?;
    let text = text.ok_or_else(|| anyhow::anyhow!("no bucket"))?.value;
    let (bucket, hash) =
        BucketDocument::verify(&world.trusted()?, &String::from_utf8_lossy(&text))?;
    let mut seen = Seen::new(room, std::collections::BTreeMap::new());
    seen.learn_bucket(&bucket, hash)?;
    let mut last: Option<(u64, String, Permit)> = None;
    for number in 0..40 {
        let sub = format!("early-{number}");
        let text = world.permit_of("ahead", "seoul", &sub).await?;
        let permit = world.read_permit(&text)?;
        let ordinal = seen.ordinal(&permit.place).unwrap_or(0);
        if last
            .as_ref()
            .is_none_or(|(highest, _, _)| ordinal > *highest)
        {
            last = Some((ordinal, text, permit));
        }
    }
    let (ordinal, text, permit) = last.ok_or_else(|| anyhow::anyhow!("nobody"))?;
    let told = refused("a booking", world.book(CALLER, book(&text, &[&slot])).await)?;
    anyhow::ensure!(told.refusal == Refusal::NotAdmitted, "{told:?}");
    let seoul: RegionId = "seoul".parse()?;
    for part in &world.cluster.inventories {
        let why = straight(&world, &part.addr, &text, &slot).await?;
        anyhow::ensure!(why == "NOT_ADMITTED", "ordinal {ordinal}: {why}");
    }
    anyhow::ensure!(
        world.rows_of(&permit).await? == Rows::NONE,
        "{seoul} has rows"
    );
    Ok(())
}

/// Books past the gateway, with the secret of a part of Doseline; says the reason of the refusal.
async fn straight(world: &World, addr: &str, permit: &str, slot: &str) -> anyhow::Result<String> {
    let action = command::Action::Book(book(permit, &[slot]));
    let internal = world.internal()?;
    let mut answers = ask(
        addr,
        |message| shown(Some(&internal), message),
        vec![command(CALLER, action)],
    )
    .await?;
    let answer = answers.pop().ok_or_else(|| anyhow::anyhow!("no answer"))?;
    reason("a booking", answer)
}
