//! Straight to the ports that are meant for gateways: without their key nobody is heard, with it nobody is believed.

use domain::Refusal;
use domain::permit::Permit;
use futures::StreamExt as _;
use proto::booking::BookRequest;
use proto::identity::IssuePermitRequest;
use proto::identity::identity_service_client::IdentityServiceClient;
use proto::inventory::inventory_service_client::InventoryServiceClient;
use proto::inventory::{Answer, Command, ExecuteRequest, WatchShardsRequest, answer, command};
use system_tests::await_until::await_until;
use tonic::{Request, Status};

use crate::signing::{in_secs, own_key, somebody};
use crate::world::{CALLER, HEARD_WITHIN, Rows, World, book, channel, expect_refused, said_by};

const INTERNAL: &str = "x-doseline-internal";
const VACCINE: &str = "mrna-one";

/// The process that decides a clinic.
struct Owner {
    addr: String,
    shard: u32,
}

impl Owner {
    async fn of(world: &World, clinic: &str) -> anyhow::Result<Self> {
        let of = "SELECT addr, shard_id FROM clinic JOIN shard USING (shard_id) WHERE clinic = $1";
        let row = world
            .ledger("seoul")
            .await?
            .query_one(of, &[&clinic])
            .await?;
        Ok(Self {
            addr: row.get(0),
            shard: u32::try_from(row.get::<_, i32>(1))?,
        })
    }

    /// Sends one command as a gateway would.
    async fn ask(
        &self,
        key: Option<&str>,
        caller: &str,
        body: BookRequest,
    ) -> Result<Answer, Status> {
        let command = Command {
            call_id: 7,
            caller: caller.to_owned(),
            region: "seoul".to_owned(),
            shard: self.shard,
            timeout_ms: 5_000,
            traceparent: String::new(),
            action: Some(command::Action::Book(body)),
        };
        ask(&self.addr, key, command).await
    }
}

/// Sends one command to an inventory as a gateway would.
pub(crate) async fn ask(addr: &str, key: Option<&str>, command: Command) -> Result<Answer, Status> {
    let message = ExecuteRequest {
        commands: vec![command],
    };
    // The stream stays open until the answer is there.
    let messages = futures::stream::iter([message]).chain(futures::stream::pending());
    let channel = channel(addr).map_err(|error| Status::internal(error.to_string()))?;
    let mut answers = InventoryServiceClient::new(channel)
        .execute(shown(key, messages))
        .await?
        .into_inner();
    let first = answers
        .message()
        .await?
        .and_then(|mut message| message.answers.pop());
    first.ok_or_else(|| Status::internal("the stream ended without an answer"))
}

fn shown<T>(key: Option<&str>, message: T) -> Request<T> {
    let mut request = said_by(CALLER, message);
    if let Some(key) = key.and_then(|key| key.parse().ok()) {
        request.metadata_mut().insert(INTERNAL, key);
    }
    request
}

fn reason(what: &str, answer: Answer) -> anyhow::Result<String> {
    match answer.outcome {
        Some(answer::Outcome::Refused(refused)) => Ok(refused.reason),
        other => anyhow::bail!("{what} was not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of attacks")]
async fn the_inventorys_own_port_believes_no_key_less_caller_and_no_gateway() -> anyhow::Result<()>
{
    let world = World::start().await?;
    let internal = std::fs::read_to_string(world.folder().join("internal.key"))?;
    for campaign in ["opened", "unopened", "paused"] {
        world.campaign(campaign, VACCINE).await?;
    }
    let slot = world
        .clinic("seoul", "front-door", VACCINE, &[(1, 10, 1_000)])
        .await?
        .remove(0);
    let owner = Owner::of(&world, "front-door").await?;
    world.open("opened").await?;
    world.open("paused").await?;
    world.await_bookable("opened", "seoul", &slot).await?;
    let trusted = world.permit_key()?.signer()?;
    shut(&world, &owner, &internal, &slot).await?;
    let before = world.all_rows("seoul").await?;

    let honest = somebody("opened", "seoul")?;
    let mut untouched = vec![honest.clone()];
    for key in [None, Some(""), Some("wrong"), Some(&internal[1..])] {
        let request = book(&honest.sign(&trusted), &[&slot]);
        expect_refused(
            &format!("key {key:?}"),
            owner.ask(key, CALLER, request).await,
            Refusal::CallerUnknown,
        )?;
    }
    let early = somebody("unopened", "seoul")?;
    let late = somebody("paused", "seoul")?;
    let forged = somebody("opened", "seoul")?;
    let expired = Permit {
        issued_at: in_secs(-600),
        expires_at: in_secs(-1),
        ..somebody("opened", "seoul")?
    };
    let elsewhere = somebody("opened", "jeju")?;
    let attacks = [
        (
            "before the doors open",
            &early,
            early.sign(&trusted),
            CALLER,
            Refusal::NotAdmitted,
        ),
        (
            "while the doors are shut",
            &late,
            late.sign(&trusted),
            CALLER,
            Refusal::RoomPaused,
        ),
        (
            "forged",
            &forged,
            forged.sign(&own_key(trusted.kid())),
            CALLER,
            Refusal::PermitInvalid,
        ),
        (
            "expired",
            &expired,
            expired.sign(&trusted),
            CALLER,
            Refusal::PermitExpired,
        ),
        (
            "of another region",
            &elsewhere,
            elsewhere.sign(&trusted),
            CALLER,
            Refusal::PermitForeignRegion,
        ),
        (
            "of another caller",
            &honest,
            honest.sign(&trusted),
            "app-two",
            Refusal::PermitForeignCaller,
        ),
        (
            "without a permit",
            &honest,
            String::new(),
            CALLER,
            Refusal::PermitInvalid,
        ),
    ];
    for (name, person, text, caller, why) in attacks {
        let request = book(&text, &[&slot]);
        let id = request.request_id.clone();
        let found = reason(name, owner.ask(Some(&internal), caller, request).await?)?;
        anyhow::ensure!(
            found == why.code(),
            "{name}: {found} instead of {}",
            why.code()
        );
        anyhow::ensure!(
            !world.recorded(&id).await?,
            "{name}: a request was recorded"
        );
        untouched.push(person.clone());
    }
    for person in &untouched {
        anyhow::ensure!(
            world.rows_of(person).await? == Rows::NONE,
            "somebody refused has rows"
        );
    }
    anyhow::ensure!(
        world.all_rows("seoul").await? == before,
        "the ledger has new rows"
    );

    // What a gateway may ask, asked the same way; shards may have moved while the processes came up.
    let request = book(&honest.sign(&trusted), &[&slot]);
    await_until("the honest one is booked", HEARD_WITHIN, || async {
        let Ok(owner) = Owner::of(&world, "front-door").await else {
            return false;
        };
        let answer = owner.ask(Some(&internal), CALLER, request.clone()).await;
        answer.is_ok_and(|answer| matches!(answer.outcome, Some(answer::Outcome::Book(_))))
    })
    .await?;
    Ok(())
}

/// Shuts the doors of the paused campaign and waits until the owner itself has heard of it.
async fn shut(world: &World, owner: &Owner, internal: &str, slot: &str) -> anyhow::Result<()> {
    let trusted = world.permit_key()?.signer()?;
    world.await_bookable("paused", "seoul", slot).await?;
    world.pause("paused").await?;
    await_until("the owner has heard of the pause", HEARD_WITHIN, || async {
        let Ok(somebody) = somebody("paused", "seoul") else {
            return false;
        };
        let answer = owner
            .ask(
                Some(internal),
                CALLER,
                book(&somebody.sign(&trusted), &[slot]),
            )
            .await;
        let reason = answer
            .ok()
            .and_then(|answer| reason("a booking", answer).ok());
        reason.is_some_and(|reason| reason == Refusal::RoomPaused.code())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ports_behind_the_gateways_hear_nobody_without_the_key() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.campaign("inside", VACCINE).await?;
    let internal = std::fs::read_to_string(world.folder().join("internal.key"))?;
    let mut identity = IdentityServiceClient::new(channel(&world.cluster.identities[0].addr)?);
    let ask = || {
        anyhow::Ok(IssuePermitRequest {
            campaign: "inside".to_owned(),
            region: "seoul".to_owned(),
            assertion: world.assertion("direct", "1965-01-01")?,
        })
    };
    for key in [None, Some(""), Some("wrong"), Some(&internal[1..])] {
        let answer = identity.issue_permit(shown(key, ask()?)).await;
        expect_refused(
            &format!("identity with key {key:?}"),
            answer,
            Refusal::CallerUnknown,
        )?;
        for inventory in &world.cluster.inventories {
            let request = WatchShardsRequest {
                region: "seoul".to_owned(),
            };
            let mut inventory = InventoryServiceClient::new(channel(&inventory.addr)?);
            let answer = inventory.watch_shards(shown(key, request)).await;
            expect_refused(
                &format!("a watch with key {key:?}"),
                answer.map(|_| ()),
                Refusal::CallerUnknown,
            )?;
        }
    }
    let people = world.cluster.postgres.session("people").await?;
    let places: i64 = people
        .query_one("SELECT count(*) FROM place", &[])
        .await?
        .get(0);
    anyhow::ensure!(places == 0, "{places} places for people nobody vouched for");

    let permit = identity
        .issue_permit(shown(Some(&internal), ask()?))
        .await?
        .into_inner()
        .permit;
    anyhow::ensure!(
        world.read_permit(&permit)?.caller.as_str() == CALLER,
        "another caller"
    );
    Ok(())
}
