//! Whoever decides a clinic is found, and a booking survives whatever happens to them.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::Refusal;
use domain::room::Phase;
use proto::booking::{CancelBookingRequest, GetBookingRequest};
use proto::inventory::{Refused, answer};
use runtime::Clock;
use tonic::Code;

use crate::fake_inventory::{
    FakeInventory, Reaction, agreed, not_owner, refused, request_id, snapshot,
};
use crate::setup::{SECRET, Setup, await_until, details, refusal};

#[tokio::test]
async fn a_booking_reaches_the_owner_with_all_it_needs() {
    let (it, owner) = Setup::with_owner().await;
    let request = it.booking();
    let answer = it.book(request.clone()).await.expect("booked");
    let name = answer.booking.expect("a booking").name;
    assert_eq!(
        name,
        format!("regions/seoul/bookings/{}", request.request_id)
    );
    let commands = owner.commands();
    assert_eq!(commands.len(), 1);
    let command = &commands[0];
    assert_eq!(
        (
            command.caller.as_str(),
            command.region.as_str(),
            command.shard
        ),
        ("dev", "seoul", 0)
    );
    assert!(
        (4_000..=5_000).contains(&command.timeout_ms),
        "{}",
        command.timeout_ms
    );
    assert_eq!(request_id(command), request.request_id);
    assert!(owner.secrets().iter().all(|secret| secret == SECRET));
}

#[tokio::test]
async fn a_hint_is_followed_with_the_same_request_id() {
    let (it, first) = Setup::with_owner().await;
    let second = FakeInventory::start().await;
    let addr = second.addr;
    first.on(move |_| not_owner(2, addr));
    let request = it.booking();
    it.book(request.clone())
        .await
        .expect("booked by the second");
    let asked: Vec<_> = first
        .commands()
        .into_iter()
        .chain(second.commands())
        .collect();
    assert!(asked.len() >= 2);
    assert!(
        asked
            .iter()
            .all(|command| request_id(command) == request.request_id)
    );

    it.book(it.booking()).await.expect("booked");
    assert_eq!(first.commands().len(), 1, "the route is kept");
}

#[tokio::test]
async fn a_hint_to_a_lower_epoch_leads_nowhere() {
    let it = Setup::start().await;
    let (old, new) = (FakeInventory::start().await, FakeInventory::start().await);
    new.own(0, 5, "c1", 1);
    it.member("i1", old.addr, false).await;
    it.member("i2", new.addr, false).await;
    it.owner(0, 5, new.addr).await;
    it.ready().await;
    let stale = old.addr;
    new.on(move |_| not_owner(4, stale));
    // A deadline that ends while an attempt is under way leaves a doubt; most end between two attempts.
    let mut ends = Vec::new();
    while !ends.contains(&Refusal::Unavailable) && ends.len() < 20 {
        let status = it
            .book_within(it.booking(), Duration::from_millis(400))
            .await
            .expect_err("nobody");
        ends.push(refusal(&status));
    }
    assert_eq!(
        ends.last(),
        Some(&Refusal::Unavailable),
        "every attempt was refused: nothing is in doubt"
    );
    assert!(old.commands().is_empty());
    assert!(new.commands().len() > 1, "asked again");
}

#[tokio::test]
async fn a_broken_stream_is_no_lost_booking() {
    let (it, owner) = Setup::with_owner().await;
    let broken = std::sync::atomic::AtomicBool::new(false);
    owner.on(move |command| {
        if broken.swap(true, std::sync::atomic::Ordering::SeqCst) {
            Reaction::Answer(agreed(command))
        } else {
            Reaction::BreakStream
        }
    });
    let request = it.booking();
    it.book(request.clone())
        .await
        .expect("booked at the second try");
    let ids: BTreeSet<_> = owner
        .commands()
        .iter()
        .map(|c| request_id(c).to_owned())
        .collect();
    assert_eq!(ids, BTreeSet::from([request.request_id]));
}

#[tokio::test]
async fn a_killed_owner_is_replaced_without_an_error_at_the_caller() {
    let (it, first) = Setup::with_owner().await;
    it.book(it.booking()).await.expect("booked");
    first.kill().await;
    let second = FakeInventory::start().await;
    let booking = it.book(it.booking());
    let takeover = async {
        second.own(0, 2, "c1", 1);
        it.member("i2", second.addr, false).await;
        it.owner(0, 2, second.addr).await;
    };
    let (answer, ()) = tokio::join!(booking, takeover);
    answer.expect("booked by the second");
    assert_eq!(second.commands().len(), 1);
}

#[tokio::test]
async fn a_frozen_owner_is_left_as_soon_as_another_is_named() {
    let (it, first) = Setup::with_owner().await;
    let second = FakeInventory::start().await;
    second.own(0, 2, "c1", 1);
    first.on(|_| Reaction::Silence);
    let began = Clock::system().monotonic();
    let booking = it.book(it.booking());
    let takeover = async {
        await_until("the first was asked", async || !first.commands().is_empty()).await;
        it.owner(0, 2, second.addr).await;
    };
    let (answer, ()) = tokio::join!(booking, takeover);
    answer.expect("booked by the second");
    assert!(
        Clock::system().monotonic() - began < Duration::from_secs(3),
        "long before the deadline"
    );
}

#[tokio::test]
async fn when_time_is_over_the_caller_hears_what_is_known() {
    let (it, owner) = Setup::with_owner().await;
    owner.on(|_| Reaction::Silence);
    let status = it
        .book_within(it.booking(), Duration::from_millis(300))
        .await
        .expect_err("silence");
    assert_eq!(
        (status.code(), refusal(&status)),
        (Code::DeadlineExceeded, Refusal::OutcomeUnknown)
    );
    owner.kill().await;
    let status = it
        .book_within(it.booking(), Duration::from_millis(300))
        .await
        .expect_err("nobody");
    assert_eq!(
        (status.code(), refusal(&status)),
        (Code::Unavailable, Refusal::Unavailable)
    );
    assert!(details(&status).retry_after.is_some());
}

#[tokio::test]
async fn a_clinic_that_moved_is_found_at_its_new_shard() {
    let (it, owner) = Setup::with_owner().await;
    owner.on(|command| {
        if command.shard == 1 {
            Reaction::Answer(agreed(command))
        } else {
            refused("WRONG_SHARD")
        }
    });
    let booking = it.book(it.booking());
    let moved = async {
        await_until("the old shard was asked", async || {
            !owner.commands().is_empty()
        })
        .await;
        owner.say(snapshot(0, 2, 1, &[]));
        owner.say(snapshot(1, 3, 1, &[("c1", &[(1, 5)])]));
    };
    let (answer, ()) = tokio::join!(booking, moved);
    answer.expect("booked at shard 1");
}

#[tokio::test]
async fn an_inventory_whose_room_is_behind_ours_is_asked_again() {
    let (it, owner) = Setup::with_owner().await;
    it.room(1, Phase::Open, 1_000).await;
    let tries = std::sync::atomic::AtomicUsize::new(0);
    owner.on(move |command| {
        if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3 {
            refused("NOT_ADMITTED")
        } else {
            Reaction::Answer(agreed(command))
        }
    });
    it.book(it.booking()).await.expect("admitted in the end");
    assert_eq!(owner.commands().len(), 4);
}

#[tokio::test]
async fn whoever_is_not_admitted_by_our_room_either_hears_it_at_once() {
    let (it, owner) = Setup::with_owner().await;
    it.room(1, Phase::Open, 0).await;
    owner.on(|_| refused("NOT_ADMITTED"));
    let status = it.book(it.booking()).await.expect_err("not admitted");
    assert_eq!(
        (status.code(), refusal(&status)),
        (Code::FailedPrecondition, Refusal::NotAdmitted)
    );
    assert!(details(&status).retry_after.is_some());
    assert_eq!(owner.commands().len(), 1);
}

#[tokio::test]
async fn not_admitted_is_believed_after_two_seconds() {
    let (it, owner) = Setup::with_owner().await;
    it.room(1, Phase::Open, 1_000).await;
    owner.on(|_| refused("NOT_ADMITTED"));
    let began = Clock::system().monotonic();
    let status = it.book(it.booking()).await.expect_err("not admitted");
    assert_eq!(refusal(&status), Refusal::NotAdmitted);
    let took = Clock::system().monotonic() - began;
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
    assert!(owner.commands().len() > 5);
}

#[tokio::test]
async fn many_bookings_share_messages_and_each_gets_its_own_answer() {
    let (it, owner) = Setup::with_owner().await;
    let bookings = (0..400).map(|_| async {
        let request = it.booking();
        let id = request.request_id.clone();
        let answer = it.book(request).await.expect("booked");
        assert!(answer.booking.expect("a booking").name.ends_with(&id));
    });
    futures::future::join_all(bookings).await;
    let batches = owner.batches();
    assert_eq!(batches.iter().sum::<usize>(), 400);
    assert!(batches.len() < 400, "{} messages", batches.len());
    assert!(batches.iter().all(|size| (1..=256).contains(size)));
}

#[tokio::test]
async fn a_refusal_is_passed_on_as_it_is() {
    let (it, owner) = Setup::with_owner().await;
    for (reason, code, expected) in [
        ("SLOT_FULL", Code::FailedPrecondition, Refusal::SlotFull),
        (
            "ALREADY_BOOKED",
            Code::AlreadyExists,
            Refusal::AlreadyBooked,
        ),
        (
            "CLAIM_VERSION_STALE",
            Code::FailedPrecondition,
            Refusal::ClaimVersionStale,
        ),
        (
            "PERMIT_EXPIRED",
            Code::Unauthenticated,
            Refusal::PermitExpired,
        ),
        ("OVERLOADED", Code::Unavailable, Refusal::Overloaded),
    ] {
        owner.on(move |_| {
            Reaction::Answer(answer::Outcome::Refused(Refused {
                reason: reason.to_owned(),
                retry_after_ms: 1_500,
                claim_version: Some(7),
                ..Refused::default()
            }))
        });
        let before = owner.commands().len();
        let status = it.book(it.booking()).await.expect_err(reason);
        assert_eq!((status.code(), refusal(&status)), (code, expected));
        assert_eq!(details(&status).claim_version.map(|v| v.0), Some(7));
        assert_eq!(
            details(&status).retry_after,
            Some(Duration::from_millis(1_500))
        );
        assert_eq!(
            owner.commands().len(),
            before + 1,
            "{reason} is not for a gateway to repeat"
        );
    }
}

#[tokio::test]
async fn what_no_shard_decides_goes_to_a_member_that_stays() {
    let (it, first) = Setup::with_owner().await;
    let second = FakeInventory::start().await;
    it.member("i1", first.addr, true).await;
    it.member("i2", second.addr, false).await;
    let get = || GetBookingRequest {
        permit: it.permit(),
        name: String::new(),
    };
    await_until("the gateway has heard of the drain", async || {
        it.bookings().get_booking(get()).await.expect("answered");
        !second.commands().is_empty()
    })
    .await;
    let before = first.commands().len();
    for _ in 0..10 {
        it.bookings().get_booking(get()).await.expect("answered");
        let cancel = CancelBookingRequest {
            permit: it.permit(),
            request_id: uuid::Uuid::new_v4().to_string(),
            claim_version: 1,
            booking: format!("regions/seoul/bookings/{}", uuid::Uuid::new_v4()),
            dose: 0,
        };
        it.bookings()
            .cancel_booking(cancel)
            .await
            .expect("answered");
    }
    assert_eq!(first.commands().len(), before);
    second.kill().await;
    it.bookings()
        .get_booking(get())
        .await
        .expect_err("nobody stays");
}

#[tokio::test]
async fn a_silent_member_is_not_the_only_one_that_is_asked() {
    let (it, first) = Setup::with_owner().await;
    let second = FakeInventory::start().await;
    it.member("i2", second.addr, false).await;
    first.on(|_| Reaction::Silence);
    for _ in 0..4 {
        let get = GetBookingRequest {
            permit: it.permit(),
            name: String::new(),
        };
        it.bookings()
            .get_booking(get)
            .await
            .expect("answered by the second");
    }
}

#[tokio::test]
async fn an_unknown_clinic_is_refused_without_asking_anybody() {
    let (it, owner) = Setup::with_owner().await;
    let mut request = it.booking();
    request.slots = vec!["regions/seoul/clinics/nowhere/slots/1".to_owned()];
    let status = it.book(request).await.expect_err("unknown");
    assert_eq!(
        (status.code(), refusal(&status)),
        (Code::NotFound, Refusal::ClinicUnknown)
    );
    assert!(owner.commands().is_empty());
}

#[tokio::test]
async fn every_command_finds_its_way_and_its_own_answer() {
    let (it, owner) = Setup::with_owner().await;
    let mut client = it.bookings();
    let id = || uuid::Uuid::new_v4().to_string();
    let permit = it.permit();
    let hold = format!("regions/seoul/clinics/c1/holds/{}", id());
    let booking = format!("regions/seoul/bookings/{}", id());
    let slot = "regions/seoul/clinics/c1/slots/1".to_owned();
    let held = proto::booking::HoldSlotsRequest {
        permit: permit.clone(),
        request_id: id(),
        claim_version: 0,
        slots: vec![slot.clone()],
    };
    client.hold_slots(held).await.expect("held");
    let confirm = proto::booking::ConfirmHoldRequest {
        permit: permit.clone(),
        request_id: id(),
        claim_version: 1,
        hold: hold.clone(),
    };
    client.confirm_hold(confirm).await.expect("confirmed");
    let release = proto::booking::ReleaseHoldRequest {
        permit: permit.clone(),
        request_id: id(),
        claim_version: 1,
        hold,
    };
    client.release_hold(release).await.expect("released");
    let moved = proto::booking::MoveBookingRequest {
        permit,
        request_id: id(),
        claim_version: 1,
        booking,
        dose: 1,
        slot,
    };
    client.move_booking(moved).await.expect("moved");
    assert_eq!(owner.commands().len(), 4);
}
