//! One back end that has enough to do, others that have not, and what identity hears of it.

use std::time::Duration;

use domain::Refusal;
use gateway::Shedding;
use gateway::shedding::Bounds;
use proto::booking::{BookRequest, GetBookingRequest};
use proto::identity::IssuePermitRequest;
use proto::identity::IssuePermitResponse;
use proto::identity::identity_service_client::IdentityServiceClient;
use tonic::Code;

use crate::fake_identity::FakeIdentity;
use crate::fake_inventory::{FakeInventory, Reaction};
use crate::setup::{SECRET, Setup, await_until, details, refusal, wide};

/// Each back end gets so many calls at once.
const EACH: u32 = 4;

fn narrow() -> Shedding {
    let bounds = Bounds {
        floor: EACH,
        ceiling: EACH,
        calm: Duration::from_secs(1),
        target: Duration::from_secs(1),
    };
    Shedding {
        back_end: bounds,
        ..wide()
    }
}

/// Two inventories: the first decides clinic c1, the second c2.
async fn two() -> (Setup, FakeInventory, FakeInventory) {
    let it = Setup::with(narrow()).await;
    let (first, second) = (FakeInventory::start().await, FakeInventory::start().await);
    first.own(0, 1, "c1", 1);
    second.own(1, 1, "c2", 1);
    for (shard, owner) in [(0, &first), (1, &second)] {
        it.member(&format!("i{shard}"), owner.addr, false).await;
        it.owner(shard, 1, owner.addr).await;
    }
    it.ready().await;
    (it, first, second)
}

fn at(it: &Setup, clinic: &str) -> BookRequest {
    BookRequest {
        slots: vec![format!("regions/seoul/clinics/{clinic}/slots/1")],
        ..it.booking()
    }
}

#[tokio::test]
async fn an_inventory_with_enough_to_do_turns_away_its_own_calls_only() {
    let (it, first, second) = two().await;
    first.on(|_| Reaction::Silence);
    let stuck = (0..EACH).map(|_| it.book_within(at(&it, "c1"), Duration::from_secs(3)));
    let stuck = futures::future::join_all(stuck);
    let others = async {
        await_until("four are stuck", async || {
            first.commands().len() == EACH as usize
        })
        .await;
        let status = it.book(at(&it, "c1")).await.expect_err("turned away");
        assert_eq!(
            (status.code(), refusal(&status)),
            (Code::Unavailable, Refusal::Overloaded)
        );
        assert!(details(&status).retry_after >= Some(Duration::from_secs(1)));
        assert_eq!(first.commands().len(), EACH as usize, "it was not asked");
        for _ in 0..10 {
            it.book(at(&it, "c2")).await.expect("the other one goes on");
            let get = GetBookingRequest {
                permit: it.permit(),
                name: String::new(),
            };
            let got = it.bookings().get_booking(get).await;
            got.expect("any member can answer, so the other one does");
        }
        let page = it.host.registry.encode();
        for line in [
            "doseline_gateway_shed_total{class=\"commands\"} 1",
            "doseline_gateway_back_end_limit{class=\"commands\",of=\"sum\"} 8",
            "doseline_gateway_back_end_in_flight{class=\"commands\",of=\"max\"} 4",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
    };
    let (_, ()) = tokio::join!(stuck, others);
    await_until("places are given back", async || {
        first.on(|command| Reaction::Answer(crate::fake_inventory::agreed(command)));
        it.book(at(&it, "c1")).await.is_ok()
    })
    .await;
    assert!(second.commands().len() >= 20);
}

#[tokio::test]
async fn an_inventory_that_is_gone_is_forgotten() {
    let (it, _first, second) = two().await;
    let sum = |sum: u32| {
        let line =
            format!("doseline_gateway_back_end_limit{{class=\"commands\",of=\"sum\"}} {sum}\n");
        it.host.registry.encode().contains(&line)
    };
    await_until("two are known", async || sum(2 * EACH)).await;
    // Its shard has another owner, and its membership ends.
    it.owner(0, 2, second.addr).await;
    it.keyspace
        .delete("/doseline/seoul/member/i0")
        .await
        .expect("removed");
    await_until("one is known", async || sum(EACH)).await;
}

#[tokio::test]
async fn a_member_of_identity_with_enough_to_do_leaves_permits_to_another() {
    let it = Setup::with(Shedding {
        back_end: Bounds {
            floor: 1,
            ceiling: 1,
            ..narrow().back_end
        },
        ..wide()
    })
    .await;
    let issue = |_: &IssuePermitRequest| Ok(IssuePermitResponse::default());
    let (busy, free) = (
        FakeIdentity::stuck().await,
        FakeIdentity::start(issue).await,
    );
    it.identity("a", busy.addr).await;
    let client = || IdentityServiceClient::new(it.channel.clone());
    let ask = || IssuePermitRequest {
        campaign: "kr".to_owned(),
        region: "seoul".to_owned(),
        assertion: "a.b.c".to_owned(),
    };
    let mut waiting = client();
    let stuck = waiting.issue_permit(ask());
    let others = async {
        await_until("one is stuck", async || busy.calls().len() == 1).await;
        let status = client().issue_permit(ask()).await.expect_err("full");
        assert_eq!(refusal(&status), Refusal::Overloaded);
        assert!(details(&status).retry_after >= Some(Duration::from_secs(1)));
        it.identity("b", free.addr).await;
        await_until("the other one is asked", async || {
            client().issue_permit(ask()).await.is_ok()
        })
        .await;
        assert_eq!(busy.calls().len(), 1);
    };
    // Identity is asked again elsewhere after a while, so the one that was stuck is answered as well.
    let (stuck, ()) = tokio::join!(stuck, others);
    stuck.expect("answered by the other one");
}

#[tokio::test]
async fn identity_hears_of_calls_and_of_those_turned_away() {
    let (it, first, _second) = two().await;
    let identity = FakeIdentity::start(|_| Ok(IssuePermitResponse::default())).await;
    it.identity("a", identity.addr).await;
    for _ in 0..5 {
        it.book(at(&it, "c1")).await.expect("booked");
    }
    first.on(|_| crate::fake_inventory::refused("OVERLOADED"));
    it.book(at(&it, "c1")).await.expect_err("turned away");
    await_until("a report says so", async || {
        identity.reports().iter().any(|(_, report)| {
            (report.calls, report.shed, report.in_flight) == (6, 1, 0)
                && report.answer_times.iter().sum::<u64>() == 5
                && report.in_flight_max == 2 * EACH
                && report.gateway == "gateway-1"
        })
    })
    .await;
    let reports = identity.reports();
    assert!(reports.iter().all(|(secret, _)| secret == SECRET));
    assert!(
        reports
            .windows(2)
            .all(|two| two[0].1.calls <= two[1].1.calls),
        "counters rise"
    );
}
