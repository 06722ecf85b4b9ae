//! A gateway that lies: it has the secret of Doseline's parts and speaks to inventories as gateways do, and says what
//! it likes of people and their turns. It books nobody before their turn, and nobody under a permit it was not shown.

use std::collections::BTreeMap;

use domain::Refusal;
use domain::permit::Permit;
use domain::place::{DrawTicket, Place};
use domain::room::Phase;
use proto::booking::{ConfirmHoldRequest, GetBookingRequest, HoldSlotsRequest};
use proto::inventory::{Answer, Command, ExecuteRequest, answer, command};
use system_tests::await_until::{await_some, await_until};
use tonic::Request;
use uuid::Uuid;

use crate::inside::Owner;
use crate::signatures::{joined, parts};
use crate::signing::own_key;
use crate::straight::{ask, command, reason, shown};
use crate::world::{CALLER, HEARD_WITHIN, REGIONS, Rows, World, book, said_by};

/// Nobody's turn comes here while the test runs.
const STILL: &str = "standing-still";
/// Everybody may book here.
const OPEN: &str = "open-to-all";
const VACCINE: &str = "mrna-one";
const WAITING: usize = 24;
/// What it claims besides: no part of Doseline has ever heard of most of it.
const CLAIMS: [(&str, &str); 6] = [
    ("x-doseline-admitted", "true"),
    ("x-doseline-role", "operator"),
    ("x-doseline-caller", "app-two"),
    ("x-doseline-frontier", "18446744073709551615"),
    ("x-doseline-now", "2031-03-01T20:00:00+09:00"),
    ("date", "Sat, 01 Mar 2031 11:00:00 GMT"),
];

/// Somebody with a permit, as the gateway sees them.
struct Guest {
    text: String,
    permit: Permit,
}

/// One kind of lie, told of one or more people at once.
struct Lie {
    name: &'static str,
    commands: Vec<Command>,
    why: Refusal,
}

struct Scene {
    world: World,
    slot: String,
    waiting: Vec<Guest>,
    /// It is their turn.
    admitted: Vec<Guest>,
    internal: String,
}

// === impl Scene ===

impl Scene {
    async fn start() -> anyhow::Result<Self> {
        let world = World::start().await?;
        world.campaign(STILL, VACCINE).await?;
        world.campaign(OPEN, VACCINE).await?;
        let places = [(1, 10, 1_000)];
        let slot = world.clinic("seoul", "front-door", VACCINE, &places);
        let slot = slot.await?.remove(0);
        let mut waiting = Vec::new();
        for number in 0..WAITING {
            waiting.push(guest(&world, STILL, &format!("waiting-{number}"), CALLER).await?);
        }
        let mut admitted = Vec::new();
        for (number, caller) in [CALLER, CALLER, CALLER, "app-two"].into_iter().enumerate() {
            admitted.push(guest(&world, OPEN, &format!("admitted-{number}"), caller).await?);
        }
        // One person in a thousand seconds: the line stands as good as still.
        world.open_at(STILL, 1).await?;
        world.open(OPEN).await?;
        world.await_bookable(OPEN, "seoul", &slot).await?;
        let etcd = world.etcd().await?;
        await_until("both doors are open", HEARD_WITHIN, || async {
            let stored = world.stored(&etcd, STILL).await;
            stored.is_ok_and(|(_, room)| matches!(room.phase, Phase::Open | Phase::Exhausted))
        })
        .await?;
        let internal = world.internal()?;
        Ok(Self {
            world,
            slot,
            waiting,
            admitted,
            internal,
        })
    }

    /// Speaks as a gateway with all its claims.
    async fn say(&self, addr: &str, commands: Vec<Command>) -> anyhow::Result<Vec<Answer>> {
        let request = |message: ExecuteRequest| -> Request<ExecuteRequest> {
            let mut request = shown(Some(&self.internal), message);
            for (name, value) in CLAIMS {
                let value = value.parse().expect("ASCII");
                request.metadata_mut().insert(name, value);
            }
            request
        };
        Ok(ask(addr, request, commands).await?)
    }

    fn book(&self, permit: &str) -> command::Action {
        command::Action::Book(book(permit, &[&self.slot]))
    }

    /// The answers of whoever decides the clinic, once it does not name another.
    async fn decided(&self, commands: &[Command]) -> anyhow::Result<Vec<Answer>> {
        await_some("the owner decides", HEARD_WITHIN, || async {
            let owner = Owner::of(&self.world, "front-door").await.ok()?;
            let mine = |command: &Command| Command {
                shard: owner.shard,
                ..command.clone()
            };
            let commands = commands.iter().map(mine).collect();
            let answers = self.say(&owner.addr, commands).await.ok()?;
            let elsewhere = answers.iter().any(|answer| {
                matches!(&answer.outcome, Some(answer::Outcome::Refused(refused))
                    if refused.reason == Refusal::NotOwner.code())
            });
            (!elsewhere).then_some(answers)
        })
        .await
    }

    fn of_all_waiting(&self, make: impl Fn(&Guest) -> Command) -> Vec<Command> {
        self.waiting.iter().map(make).collect()
    }

    #[expect(clippy::too_many_lines, reason = "a table of lies")]
    fn lies(&self) -> anyhow::Result<Vec<Lie>> {
        let (one, other) = (&self.waiting[0], &self.waiting[1]);
        let mut lies = Vec::new();
        let mut lie = |name, why, commands| {
            lies.push(Lie {
                name,
                commands,
                why,
            });
        };

        let booked = |guest: &Guest| command(CALLER, self.book(&guest.text));
        let mut backwards = self.of_all_waiting(booked);
        backwards.reverse();
        lie(
            "that all are admitted, the last first",
            Refusal::NotAdmitted,
            backwards,
        );
        let held = |guest: &Guest| {
            command(
                CALLER,
                command::Action::HoldSlots(hold(&guest.text, &self.slot)),
            )
        };
        lie(
            "that all may hold",
            Refusal::NotAdmitted,
            self.of_all_waiting(held),
        );
        let mut twice = vec![booked(one); 20];
        twice.extend(vec![booked(other); 20]);
        lie("the same over and over", Refusal::NotAdmitted, twice);
        let times = [0, u32::MAX].map(|timeout_ms| Command {
            timeout_ms,
            ..booked(one)
        });
        lie(
            "that there is all the time of the world",
            Refusal::NotAdmitted,
            times.to_vec(),
        );
        let shards = [1, 77, u32::MAX].map(|shard| Command {
            shard,
            ..booked(one)
        });
        lie(
            "that another shard decides",
            Refusal::NotAdmitted,
            shards.to_vec(),
        );

        let callers = ["app-two", "gateway", "operator"];
        let callers = callers.map(|caller| command(caller, self.book(&one.text)));
        lie("who asks", Refusal::PermitForeignCaller, callers.to_vec());
        let elsewhere = ["jeju", "atlantis", "gangwon"].map(|region| {
            let slot = self
                .slot
                .replace("regions/seoul", &format!("regions/{region}"));
            let action = command::Action::Book(book(&one.text, &[&slot]));
            Command {
                region: region.to_owned(),
                ..command(CALLER, action)
            }
        });
        lie(
            "that the permit is for elsewhere",
            Refusal::PermitForeignRegion,
            elsewhere.to_vec(),
        );

        let mut forged = Vec::new();
        let admitted = parts(&self.admitted[0].text)?;
        let refused = parts(&one.text)?;
        forged.push(joined(&admitted.0, &refused.1, &refused.2));
        forged.push(joined(&refused.0, &admitted.1, &admitted.2));
        let place = Place {
            bucket: 0,
            ticket: DrawTicket([0; 16]),
        };
        let kid = self.world.permit_key()?.kid;
        forged.push(
            Permit {
                place,
                ..one.permit.clone()
            }
            .sign(&own_key(&kid)),
        );
        let person = one.permit.person;
        forged.push(
            Permit {
                person,
                ..self.admitted[0].permit.clone()
            }
            .sign(&own_key(&kid)),
        );
        forged.push(String::new());
        let forged = forged.iter().map(|text| command(CALLER, self.book(text)));
        lie(
            "what identity said",
            Refusal::PermitInvalid,
            forged.collect(),
        );
        Ok(lies)
    }

    async fn no_rows_of_those_who_wait(&self) -> anyhow::Result<()> {
        for guest in &self.waiting {
            let rows = self.world.rows_of(&guest.permit).await?;
            anyhow::ensure!(rows == Rows::NONE, "somebody waiting has {rows:?}");
        }
        Ok(())
    }

    async fn all_rows(&self) -> anyhow::Result<Vec<Rows>> {
        let mut all = Vec::new();
        for region in REGIONS {
            all.push(self.world.all_rows(region).await?);
        }
        Ok(all)
    }
}

async fn guest(world: &World, campaign: &str, sub: &str, caller: &str) -> anyhow::Result<Guest> {
    let text = world
        .permit(campaign, "seoul", sub, "1965-01-01", caller)
        .await?;
    let permit = world.read_permit(&text)?;
    Ok(Guest { text, permit })
}

fn hold(permit: &str, slot: &str) -> HoldSlotsRequest {
    HoldSlotsRequest {
        permit: permit.to_owned(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: 0,
        slots: vec![slot.to_owned()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_gateway_says_nobody_books_before_their_turn_or_under_anothers_permit()
-> anyhow::Result<()> {
    let scene = Scene::start().await?;
    told_of_turns(&scene).await?;
    swapped_and_replayed(&scene).await?;
    Ok(())
}

/// Every lie at every inventory: refused for its own reason, counted as often as it was told, and nothing written.
async fn told_of_turns(scene: &Scene) -> anyhow::Result<()> {
    let Scene { world, .. } = scene;
    let rows = scene.all_rows().await?;
    let lies = scene.lies()?;
    let mut tries = BTreeMap::new();
    for lie in &lies {
        if !tries.contains_key(lie.why.code()) {
            tries.insert(lie.why.code(), (lie.why, world.turned_away(lie.why).await?));
        }
        for part in &world.cluster.inventories {
            for answer in scene.say(&part.addr, lie.commands.clone()).await? {
                let found = reason(lie.name, answer)?;
                let why = lie.why.code();
                anyhow::ensure!(found == why, "{}: {found} instead of {why}", lie.name);
            }
            if let Some((_, count)) = tries.get_mut(lie.why.code()) {
                *count += lie.commands.len() as u64;
            }
        }
    }
    for (why, count) in tries.into_values() {
        world.expect_turned_away(why, count).await?;
    }
    for part in &world.cluster.inventories {
        let page = system_tests::scrape::metrics(&part.metrics).await?;
        anyhow::ensure!(!page.contains("atlantis"), "a lie became a label");
    }
    scene.no_rows_of_those_who_wait().await?;
    anyhow::ensure!(scene.all_rows().await? == rows, "a ledger has new rows");
    Ok(())
}

/// A permit books its own person and nobody else, once, whoever's wish it is sent with.
async fn swapped_and_replayed(scene: &Scene) -> anyhow::Result<()> {
    let Scene {
        world,
        slot,
        waiting,
        admitted,
        ..
    } = scene;
    let (waits, first) = (&waiting[0], &admitted[0]);
    let once = Rows {
        claims: 1,
        requests: 1,
        bookings: 1,
    };

    // The wish of somebody who waits, with the permit of somebody whose turn it is: it is the latter's booking.
    let wish = book(&waits.text, &[slot]);
    let mut swapped = wish.clone();
    swapped.permit.clone_from(&first.text);
    let swapped = command(CALLER, command::Action::Book(swapped));
    let done = scene.decided(std::slice::from_ref(&swapped)).await?;
    anyhow::ensure!(
        matches!(done[0].outcome, Some(answer::Outcome::Book(_))),
        "{done:?}"
    );
    anyhow::ensure!(
        world.rows_of(&first.permit).await? == once,
        "not the permit's person"
    );
    let asked = GetBookingRequest {
        permit: waits.text.clone(),
        name: String::new(),
    };
    let theirs = world.bookings().get_booking(said_by(CALLER, asked)).await?;
    anyhow::ensure!(
        theirs.into_inner().booking.is_none(),
        "a booking of somebody else"
    );
    // And the other way round.
    let waiters = command(CALLER, command::Action::Book(wish));
    for answer in scene.decided(&[waiters]).await? {
        let found = reason("the wish itself", answer)?;
        anyhow::ensure!(found == Refusal::NotAdmitted.code(), "{found}");
    }

    replayed(scene, swapped).await?;
    anothers_hold(scene).await?;

    // What a permit passes through can use it, for its own person in their own turn: the limit of a bearer's word.
    let shown = &admitted[3];
    let used = command("app-two", scene.book(&shown.text));
    let used = scene.decided(&[used]).await?;
    anyhow::ensure!(
        matches!(used[0].outcome, Some(answer::Outcome::Book(_))),
        "{used:?}"
    );
    anyhow::ensure!(
        world.rows_of(&shown.permit).await? == once,
        "not the permit's person"
    );
    let not_shown = world.rows_of(&admitted[2].permit).await?;
    anyhow::ensure!(
        not_shown == Rows::NONE,
        "booked under a permit that was never shown"
    );
    scene.no_rows_of_those_who_wait().await
}

/// As it was and under new names: one booking.
async fn replayed(scene: &Scene, booked: Command) -> anyhow::Result<()> {
    let first = &scene.admitted[0];
    for answer in scene.decided(&vec![booked; 20]).await? {
        let Some(answer::Outcome::Book(answer)) = answer.outcome else {
            anyhow::bail!("a replay got {answer:?}");
        };
        anyhow::ensure!(answer.repeated_answer, "a replay was decided anew");
    }
    let again = (0..20).map(|_| command(CALLER, scene.book(&first.text)));
    for answer in scene.decided(&again.collect::<Vec<_>>()).await? {
        reason("a second booking", answer)?;
    }
    let rows = scene.world.rows_of(&first.permit).await?;
    anyhow::ensure!(
        rows.bookings == 1 && rows.requests == 1,
        "booked twice: {rows:?}"
    );
    Ok(())
}

/// A hold is nobody else's to confirm.
async fn anothers_hold(scene: &Scene) -> anyhow::Result<()> {
    let (waits, holder) = (&scene.waiting[0], &scene.admitted[1]);
    let held = command::Action::HoldSlots(hold(&holder.text, &scene.slot));
    let held = scene.decided(&[command(CALLER, held)]).await?;
    let Some(answer::Outcome::HoldSlots(held)) = &held[0].outcome else {
        anyhow::bail!("no hold: {held:?}");
    };
    let taken = command::Action::ConfirmHold(ConfirmHoldRequest {
        permit: waits.text.clone(),
        request_id: Uuid::new_v4().to_string(),
        claim_version: 0,
        hold: held.hold.clone().unwrap_or_default().name,
    });
    for answer in scene.decided(&[command(CALLER, taken)]).await? {
        reason("another's hold", answer)?;
    }
    Ok(())
}
