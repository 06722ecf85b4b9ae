//! An opening from the draw to the audit: late comers, a pause, a killed doorkeeper, etcd away in the middle of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use domain::Timestamp;
use domain::paseto::TrustedKeys;
use domain::room::{BucketDocument, Phase, Room, Seen};
use futures::future::join_all;
use proto::room::room_service_client::RoomServiceClient;
use proto::room::{
    GetDrawRequest, GetInclusionProofRequest, GetPlaceRequest, GetRoomRequest,
    ListRoomVersionsRequest, WatchRoomRequest,
};
use system_tests::await_until::await_until;

use crate::hall::{Board, Booked, CAMPAIGN, COHORT, Hall, Visitor, WITHIN, now, said};

/// People with a permit before the doors.
const EARLY: usize = 150;
/// People who come while they are open.
const LATE: usize = 12;
/// People a second.
const RATE: &str = "8";

#[tokio::test(flavor = "multi_thread")]
async fn a_drawn_room_opens_keeps_its_order_through_every_trouble_and_can_be_audited()
-> anyhow::Result<()> {
    let mut hall = Hall::start(500, 10).await?;
    hall.await_room("a lobby", |room| room["phase"] == "LOBBY")
        .await?;
    let early = join_all((0..EARLY).map(|number| hall.visitor(number))).await;
    let early = early.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(early.iter().all(|one| one.permit.place.bucket == 0));
    draw(&hall, EARLY).await?;

    // Everybody insists from the first moment on.
    let board = Arc::new(Board::default());
    let insisting = insist(&hall, early, &board);
    let people = tokio::spawn(insisting);
    await_until("everybody was refused", WITHIN, || async {
        board.not_admitted.load(Ordering::SeqCst) >= EARLY
    })
    .await?;
    anyhow::ensure!(board.booked.load(Ordering::SeqCst) == 0, "before the doors");
    hall.room("rate", &[RATE]).await?;
    hall.room("doors", &[]).await?;
    anyhow::ensure!(
        hall.refused("doors", &[])
            .await?
            .contains("DRAW_STEP_REFUSED")
    );

    board.await_booked(15).await?;
    let late = join_all((EARLY..EARLY + LATE).map(|number| hall.visitor(number))).await;
    let late = late.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(
        late.iter().all(|one| one.permit.place.bucket > 0),
        "late comers stand behind"
    );
    let late_people = tokio::spawn(insist(&hall, late, &board));
    pause(&hall, &board).await?;
    killed_doorkeeper(&mut hall, &board).await?;
    etcd_away(&mut hall, &board).await?;

    board.await_booked(EARLY + LATE).await?;
    let mut booked = people.await?;
    booked.extend(late_people.await?);
    anyhow::ensure!(booked.len() == EARLY + LATE, "{} booked", booked.len());
    check_order(&hall, &booked).await?;
    audit(&hall, &booked).await
}

/// Commit, freeze, reveal, beacon: and nothing out of order.
pub(crate) async fn draw(hall: &Hall, people: usize) -> anyhow::Result<()> {
    let early = hall.refused("freeze", &[]).await?;
    anyhow::ensure!(early.contains("next comes COMMIT"), "{early}");
    let published = now().plus(Duration::from_secs(8)).as_micros();
    let at = |micros: i64| {
        Ok::<_, anyhow::Error>(jiff::Timestamp::from_microsecond(micros)?.to_string())
    };
    let (published_at, reveal_by) = (at(published)?, at(published - 1_000_000)?);
    let commit = [
        "--source=a public source",
        "--round=77",
        &format!("--published-at={published_at}"),
        &format!("--reveal-by={reveal_by}"),
    ];
    let committed = hall.room("commit", &commit).await?;
    anyhow::ensure!(committed["step"] == 1, "{committed}");
    hall.refused("commit", &commit).await?;
    hall.refused("reveal", &[]).await?;
    hall.room("freeze", &[]).await?;
    hall.room("reveal", &[]).await?;
    let known = hall.refused("beacon", &["the value"]).await?;
    anyhow::ensure!(known.contains("before its announced time"), "{known}");
    await_until("the value is published", WITHIN, || async {
        now().as_micros() >= published
    })
    .await?;
    let other = ["another value", "--source=elsewhere", "--round=1"];
    let other = hall.refused("beacon", &other).await?;
    anyhow::ensure!(other.contains("was not announced"), "{other}");
    hall.room("beacon", &["the value"]).await?;
    hall.await_room("the order is known", |room| {
        room["phase"] == "DRAWN" && room["draw"]["n0"] == people
    })
    .await?;
    Ok(())
}

pub(crate) fn insist(
    hall: &Hall,
    visitors: Vec<Visitor>,
    board: &Arc<Board>,
) -> impl Future<Output = Vec<Booked>> + Send + use<> {
    let gateways = hall.gateways.clone();
    let board = Arc::clone(board);
    let each = visitors.into_iter().enumerate();
    let all = each.map(move |(at, visitor)| {
        visitor.insist(gateways[at % gateways.len()].clone(), Arc::clone(&board))
    });
    let all: Vec<_> = all.collect();
    async move { join_all(all).await.into_iter().flatten().collect() }
}

async fn pause(hall: &Hall, board: &Board) -> anyhow::Result<()> {
    hall.room("pause", &["--reason=a test"]).await?;
    // Everybody who still insists hears it, twice over.
    board.paused.store(0, Ordering::SeqCst);
    await_until("everybody hears of the pause", WITHIN, || async {
        board.paused.load(Ordering::SeqCst) >= 2 * (EARLY + LATE)
    })
    .await?;
    let before = board.booked.load(Ordering::SeqCst);
    board.paused.store(0, Ordering::SeqCst);
    await_until("it lasts", WITHIN, || async {
        board.paused.load(Ordering::SeqCst) >= 2 * (EARLY + LATE)
    })
    .await?;
    anyhow::ensure!(
        board.booked.load(Ordering::SeqCst) == before,
        "somebody booked in a pause"
    );
    hall.room("resume", &[]).await?;
    board.await_booked(before + 5).await
}

async fn killed_doorkeeper(hall: &mut Hall, board: &Board) -> anyhow::Result<()> {
    let at = hall.doorkeeper().await?;
    hall.cluster.identities[at].process.kill()?;
    hall.identities.retain(|other| *other != at);
    let before = board.booked.load(Ordering::SeqCst);
    let next = hall.doorkeeper().await?;
    anyhow::ensure!(next != at, "nobody took over");
    let room = hall.room("show", &[]).await?;
    let version = room["room"]["version"].as_u64().context("a version")?;
    hall.await_room("the next doorkeeper writes", |room| {
        room["version"].as_u64() > Some(version + 1)
    })
    .await?;
    board.await_booked(before + 10).await
}

async fn etcd_away(hall: &mut Hall, board: &Board) -> anyhow::Result<()> {
    let before = board.booked.load(Ordering::SeqCst);
    hall.cluster.etcd.kill()?;
    // The plan is followed without it.
    board.await_booked(before + 5).await?;
    hall.cluster.etcd.restart().await?;
    hall.cluster.etcd.await_healthy(WITHIN).await?;
    let room = hall.await_room("the room can be read", |_| true).await?;
    let version = room["version"].as_u64().context("a version")?;
    hall.await_room("the doorkeeper writes again", |room| {
        room["version"].as_u64() > Some(version)
    })
    .await?;
    Ok(())
}

/// By the published history, nobody booked before anybody could have known their turn.
pub(crate) async fn check_order(hall: &Hall, booked: &[Booked]) -> anyhow::Result<()> {
    let keys = std::fs::read(hall.folder().join("room_keys.json"))?;
    let keys = runtime::trusted_keys::parse(&keys)?;
    let history = history(hall, &keys).await?;
    let (_, newest) = history.last().context("a history")?;
    let mut seen = Seen::new(newest.clone(), BTreeMap::new());
    let mut client = RoomServiceClient::new(hall.gateways[0].clone());
    let draw = client
        .get_draw(said(GetDrawRequest {
            campaign: CAMPAIGN.to_owned(),
            cohort: COHORT.to_owned(),
            first_bucket: 0,
        }))
        .await?
        .into_inner();
    for text in &draw.buckets {
        let (bucket, hash) = BucketDocument::verify(&keys, text)?;
        seen.learn_bucket(&bucket, hash)?;
    }
    let mut first_late = u64::MAX;
    for one in booked {
        let permit = &one.visitor.permit;
        let ordinal = seen.ordinal(&permit.place).context("a closed bucket")?;
        if permit.place.bucket > 0 {
            first_late = first_late.min(ordinal);
        }
        let reached = reached(&history, permit, one.at);
        anyhow::ensure!(
            ordinal < reached,
            "booked at ordinal {ordinal} when the frontier was at {reached} at most"
        );
    }
    anyhow::ensure!(
        first_late >= EARLY as u64,
        "a late comer stands at {first_late}"
    );
    Ok(())
}

/// The farthest frontier that any reader can have computed until `at`.
fn reached(history: &[(Timestamp, Room)], permit: &domain::permit::Permit, at: Timestamp) -> u64 {
    let until = history.iter().filter(|(written_at, _)| *written_at <= at);
    let open = until.filter(|(_, room)| matches!(room.phase, Phase::Open | Phase::Exhausted));
    let lines = open.filter_map(|(written_at, room)| {
        let line = room.regions.get(&permit.region)?;
        Some(line.after(at.since(*written_at)))
    });
    lines.max().unwrap_or(0)
}

pub(crate) async fn history(
    hall: &Hall,
    keys: &TrustedKeys,
) -> anyhow::Result<Vec<(Timestamp, Room)>> {
    let client = RoomServiceClient::new(hall.gateways[1].clone());
    let mut client = client.max_decoding_message_size(8 << 20);
    let request = ListRoomVersionsRequest {
        campaign: CAMPAIGN.to_owned(),
        cohort: COHORT.to_owned(),
        after_version: 0,
    };
    let mut parts = client.list_room_versions(said(request)).await?.into_inner();
    let mut history: Vec<(Timestamp, Room)> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    while let Some(part) = parts.message().await? {
        for version in part.versions {
            let room = Room::verify(keys, &version.document)?;
            let at = version.write_time.context("a time")?;
            let micros = at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000;
            let hash = texts.last().map(domain::room::Bytes32::sha256);
            anyhow::ensure!(
                room.version == 1 + texts.len() as u64 && room.prev_hash == hash,
                "version {} breaks the chain",
                room.version
            );
            texts.push(version.document);
            history.push((Timestamp::from_micros(micros), room));
        }
    }
    Ok(history)
}

/// What anybody can fetch proves the order, to two independent programs.
async fn audit(hall: &Hall, booked: &[Booked]) -> anyhow::Result<()> {
    let (gateway, place) = (hall.gateways[0].clone(), &booked[0].visitor.permit.place);
    let mut client = RoomServiceClient::new(gateway);
    let room = || (CAMPAIGN.to_owned(), COHORT.to_owned());
    let (campaign, cohort) = room();
    let served = client
        .get_room(said(GetRoomRequest { campaign, cohort }))
        .await?;
    let (campaign, cohort) = room();
    let mut watch = client
        .watch_room(said(WatchRoomRequest { campaign, cohort }))
        .await?
        .into_inner();
    let watched = watch.message().await?.context("the room as it is")?;
    anyhow::ensure!(
        watched.document == served.get_ref().document,
        "the same bytes for everybody"
    );
    let (campaign, cohort) = room();
    let proof = client
        .get_inclusion_proof(said(GetInclusionProofRequest {
            campaign,
            cohort,
            bucket: place.bucket,
            ticket: place.ticket.0.to_vec().into(),
        }))
        .await?
        .into_inner();
    anyhow::ensure!(proof.included && proof.size == EARLY as u64, "{proof:?}");
    let unknown = GetPlaceRequest {
        permit: "v4.public.x".to_owned(),
    };
    anyhow::ensure!(client.get_place(said(unknown)).await.is_err());

    let folder = hall.bundle();
    let folder = folder.to_str().context("text")?;
    let exported = hall.room("export", &[folder]).await?;
    anyhow::ensure!(
        exported["tickets"] == EARLY + LATE && exported["steps"] == 5,
        "{exported}"
    );
    let ticket: String = place
        .ticket
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let audited = hall
        .doseline(&["room", "audit", folder, "--ticket", &ticket])
        .await?;
    let audited = audited.map_err(|problem| anyhow::anyhow!(problem))?;
    anyhow::ensure!(audited.contains("verdict: holds"), "{audited}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/audit.py");
    let python = tokio::process::Command::new("python3")
        .args([script, folder])
        .output()
        .await?;
    let told = String::from_utf8_lossy(&python.stdout);
    anyhow::ensure!(python.status.success() && told.contains("holds"), "{told}");
    Ok(())
}
