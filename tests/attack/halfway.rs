//! Parts that die in the middle of a change of region: nobody ends with two bookings, and nobody without a way on.

use std::time::Duration;

use anyhow::Context as _;
use domain::permit::Permit;
use system_tests::await_until::{await_some, await_until};
use system_tests::cluster::Options;
use system_tests::tcp_proxy::ReplyCut;

use crate::movers::Steps;
use crate::world::{CALLER, REGIONS, World, book};

const CAMPAIGN: &str = "halfway";
const VACCINE: &str = "mrna-one";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How far a change got before something died.
#[derive(Clone, Copy, Debug)]
enum Died {
    /// Identity has noted it.
    Begun,
    /// The old region has let the person go.
    Departed,
    /// The new permit was issued, and its answer lost.
    Completed,
}

/// What died.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Identity,
    Inventories,
    Gateway,
    All,
}

/// Somebody whose change stopped half-way.
struct Mover {
    what: String,
    old: String,
    person: Permit,
    /// Where they want to be when they ask again.
    wanted: &'static str,
}

struct Scene {
    world: World,
    slots: [String; 2],
}

impl Scene {
    async fn start() -> anyhow::Result<Self> {
        let world = World::with(|folder| Options {
            inventories: 1,
            identities: 1,
            proxies: true,
            ..Options::new(&REGIONS, folder)
        })
        .await?;
        world.campaign(CAMPAIGN, VACCINE).await?;
        let mut slots = Vec::new();
        for region in REGIONS {
            let clinic = format!("{region}-clinic");
            let made = world.clinic(region, &clinic, VACCINE, &[(1, 10, 500)]);
            slots.extend(made.await?);
        }
        world.open(CAMPAIGN).await?;
        let slots = [slots.remove(0), slots.remove(0)];
        for (region, slot) in REGIONS.iter().zip(&slots) {
            world.await_bookable(CAMPAIGN, region, slot).await?;
        }
        Ok(Self { world, slots })
    }

    fn slot(&self, region: &str) -> &str {
        &self.slots[usize::from(region != REGIONS[0])]
    }

    /// Somebody in Seoul, with a booking there or without.
    async fn mover(&self, sub: &str, booked: bool) -> anyhow::Result<(String, Permit)> {
        let old = self.world.permit_of(CAMPAIGN, "seoul", sub).await?;
        if booked {
            let request = book(&old, &[self.slot("seoul")]);
            self.world.book(CALLER, request).await?;
        }
        let person = self.world.read_permit(&old)?;
        Ok((old, person))
    }

    async fn kill(&mut self, victim: Victim) -> anyhow::Result<()> {
        let cluster = &mut self.world.cluster;
        let (identities, inventories) = (&mut cluster.identities, &mut cluster.inventories);
        let parts: Vec<_> = match victim {
            Victim::Identity => identities.iter_mut().collect(),
            Victim::Inventories => inventories.iter_mut().collect(),
            Victim::Gateway => cluster.gateways.iter_mut().collect(),
            Victim::All => identities
                .iter_mut()
                .chain(inventories)
                .chain(&mut cluster.gateways)
                .collect(),
        };
        for part in parts {
            part.process.kill()?;
            part.process.restart()?;
        }
        cluster.await_ready(READY_WITHIN).await
    }

    /// Ends in the region wanted, with a permit that books there, and with one booking in all regions.
    async fn goes_on(&self, mover: &Mover) -> anyhow::Result<()> {
        let Mover {
            what,
            old,
            person,
            wanted,
        } = mover;
        let permit = await_some(&format!("{what} goes on"), READY_WITHIN, || async {
            let changed = self.world.change_region(old, wanted, true).await;
            changed.ok().map(|changed| changed.permit)
        })
        .await?;
        let new = self.world.read_permit(&permit)?;
        anyhow::ensure!(new.region.as_str() == *wanted, "{what}: in {}", new.region);
        anyhow::ensure!(new.serial > person.serial, "{what}: {:?}", new.serial);
        anyhow::ensure!(new.place == person.place, "{what}: another place");
        if self.world.regions_of(person).await?.is_empty() {
            let version = await_some(&format!("{what} looks"), READY_WITHIN, || async {
                let held = self.world.held(&permit).await;
                held.ok().map(|held| held.claim_version)
            })
            .await?;
            let mut request = book(&permit, &[self.slot(wanted)]);
            request.claim_version = version;
            await_until(&format!("{what} books"), READY_WITHIN, || async {
                self.world.book(CALLER, request.clone()).await.is_ok()
            })
            .await?;
        }
        let regions = self.world.regions_of(person).await?;
        anyhow::ensure!(regions == [*wanted], "{what}: bookings in {regions:?}");
        let late = book(old, &[self.slot("seoul")]);
        anyhow::ensure!(
            self.world.book(CALLER, late).await.is_err(),
            "{what}: the old permit took something"
        );
        let after = self.world.regions_of(person).await?;
        anyhow::ensure!(after == [*wanted], "{what}: bookings in {after:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_whichever_step_the_person_ends_with_one_booking() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    let victims = [
        Victim::Identity,
        Victim::Inventories,
        Victim::Gateway,
        Victim::All,
    ];
    for died in [Died::Begun, Died::Departed, Died::Completed] {
        for victim in victims {
            let mut movers = Vec::new();
            for (booked, wanted) in [(false, "jeju"), (true, "jeju"), (true, "seoul")] {
                let what = format!("{died:?}-{victim:?}-{booked}-{wanted}");
                let (old, person) = scene.mover(&what, booked).await?;
                let steps = Steps::of(&scene.world)?;
                let moving = steps.begin(&old, "jeju").await?;
                if matches!(died, Died::Departed | Died::Completed) {
                    let receipt = steps.receipt(&moving).await?;
                    if matches!(died, Died::Completed) {
                        let key = Some(steps.internal.as_str());
                        steps.complete(key, CALLER, &old, &receipt).await?;
                    }
                }
                // A permit that was superseded two serials ago takes nobody anywhere: the way back begins with the
                // new one.
                let lost = matches!(died, Died::Completed) && wanted == "seoul";
                let old = if lost {
                    let sub = what.as_str();
                    scene.world.permit_of(CAMPAIGN, "jeju", sub).await?
                } else {
                    old
                };
                movers.push(Mover {
                    what,
                    old,
                    person,
                    wanted,
                });
            }
            scene.kill(victim).await?;
            for mover in &movers {
                scene.goes_on(mover).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_in_the_middle_of_a_call_leaves_a_way_on() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    for frozen_identity in [false, true] {
        let sub = format!("called-{frozen_identity}");
        let (old, person) = scene.mover(&sub, true).await?;
        let cluster = &scene.world.cluster;
        let frozen = if frozen_identity {
            &cluster.identities[0].process
        } else {
            &cluster.inventories[0].process
        };
        frozen.freeze()?;
        let gateway = scene.world.gateways()[0].clone();
        let call = crate::world::said_by(
            CALLER,
            proto::identity::ChangeRegionRequest {
                permit: old.clone(),
                region: "jeju".to_owned(),
                give_up_booking: true,
                validate_only: false,
            },
        );
        let mut identity =
            proto::identity::identity_service_client::IdentityServiceClient::new(gateway);
        let calling = identity.change_region(call);
        let noted = async {
            if frozen_identity {
                return anyhow::Ok(());
            }
            let people = scene.world.cluster.postgres.session("people").await?;
            let of = "SELECT count(*) FROM region_change WHERE person = $1 AND outcome IS NULL";
            await_until("identity has noted the change", READY_WITHIN, || async {
                let bytes: &[u8] = person.person.as_bytes();
                let found = people.query_one(of, &[&bytes]).await;
                found.is_ok_and(|row| row.get::<_, i64>(0) == 1)
            })
            .await?;
            Ok(())
        };
        tokio::select! {
            answer = calling => anyhow::bail!("answered by a frozen part: {answer:?}"),
            noted = noted => noted?,
        }
        scene.world.cluster.gateways[0].process.kill()?;
        let cluster = &mut scene.world.cluster;
        if frozen_identity {
            cluster.identities[0].process.thaw()?;
        } else {
            cluster.inventories[0].process.thaw()?;
        }
        cluster.gateways[0].process.restart()?;
        cluster.await_ready(READY_WITHIN).await?;
        let mover = Mover {
            what: sub,
            old,
            person,
            wanted: "jeju",
        };
        scene.goes_on(&mover).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departure_whose_answer_was_lost_after_its_commit_is_the_same_when_asked_again()
-> anyhow::Result<()> {
    let scene = Scene::start().await?;
    for wanted in ["jeju", "seoul"] {
        let (old, person) = scene.mover(&format!("cut-{wanted}"), true).await?;
        let steps = Steps::of(&scene.world)?;
        steps.begin(&old, "jeju").await?;
        let proxy = scene.world.cluster.to_postgres.as_ref();
        let proxy = proxy.context("a proxy before the ledgers")?;
        let cuts = proxy.cuts();
        // The person's id in the statement's parameters; the answer never arrives.
        proxy.cut_replies(ReplyCut::reply_to(person.person.as_bytes()));
        let changed = scene.world.change_region(&old, wanted, true).await?;
        proxy.await_cuts(cuts + 1, READY_WITHIN).await?;
        anyhow::ensure!(changed.region == wanted, "in {}", changed.region);
        let mover = Mover {
            what: format!("cut-{wanted}"),
            old,
            person,
            wanted,
        };
        scene.goes_on(&mover).await?;
    }
    Ok(())
}
