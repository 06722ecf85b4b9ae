//! Doses left at the end of a day: who is called, in which order, and that no dose is promised twice.

use std::time::Duration;

use domain::leftover::{Place, PlaceState, Published, Report, RoundKey, Wish, audit, ticket_text};
use domain::place::{DrawTicket, draw_ticket};
use domain::room::Bytes32;
use domain::{Claimant, Refusal, RoundId, booking_code};
use inventory::ledger::{
    Accepted, AppointmentState, ClaimState, ClinicChange, ClinicOp, LeftoverAnswer, LeftoverChange,
    LeftoverOp, LeftoverVerdict, NewRound, OutboxCursor, PassedOn, Round, RoundState, SupplyRow,
    VisitChange,
};
use runtime::Clock;

use crate::clinics::{does, give, op, visit, with_stock};
use crate::desk::one;
use crate::world::{AN_HOUR, AT_ONCE, BODY, OTHER_BODY, World, clinic, offer, with_serial};

pub const DAY: i32 = 11_574;
/// So short that offers are over when anybody looks.
const AT_MOST: Duration = Duration::from_millis(1);

pub fn ticket(who: &Claimant) -> DrawTicket {
    draw_ticket(b"the campaign's key", &who.person)
}

pub fn any() -> Wish {
    Wish {
        districts: Vec::new(),
        near: None,
        vaccines: Vec::new(),
        from_minute: 0,
        to_minute: 1_440,
    }
}

pub fn ask(world: &World, who: &Claimant, change: LeftoverChange) -> LeftoverOp {
    LeftoverOp {
        claimant: who.clone(),
        ticket: ticket(who),
        request: world.request(),
        body_hash: BODY,
        change,
    }
}

pub fn answer(world: &World, who: &Claimant, round: RoundId, accept: bool) -> LeftoverOp {
    let change = LeftoverChange::Answer {
        clinic: clinic(0).clinic,
        round,
        accept,
        booking: world.booking(),
    };
    ask(world, who, change)
}

pub async fn said(world: &World, op: &LeftoverOp) -> LeftoverVerdict {
    world.ledger.leftover(op).await.expect("an answer")
}

pub async fn done(world: &World, op: &LeftoverOp) -> LeftoverAnswer {
    match said(world, op).await {
        LeftoverVerdict::Done(answer) => answer,
        other @ (LeftoverVerdict::Exists(_) | LeftoverVerdict::Refused(_)) => {
            panic!("not done: {other:?}")
        }
    }
}

pub async fn joins(world: &World, numbers: std::ops::Range<u64>) -> Vec<Claimant> {
    let mut people = Vec::new();
    for number in numbers {
        let who = world.person(number);
        done(world, &ask(world, &who, LeftoverChange::Join(any()))).await;
        people.push(who);
    }
    people
}

pub fn round_of(doses: u32, answer_within: Duration) -> NewRound {
    NewRound {
        campaign: "kr-2021-fifties".parse().expect("a campaign"),
        vaccine: "mrna".parse().expect("a vaccine"),
        doses,
        seed: Bytes32([42; 32]),
        notice: AT_MOST,
        answer_within,
        closes_at: Clock::system().wall().plus(AN_HOUR),
        day: DAY,
        minutes: (17 * 60, 18 * 60),
    }
}

pub fn offering(world: &World, round: NewRound) -> ClinicOp {
    op(world, ClinicChange::OfferLeftovers(round))
}

/// Offers doses; the round.
pub async fn offers(world: &World, doses: u32, answer_within: Duration) -> RoundId {
    let told = does(world, &offering(world, round_of(doses, answer_within))).await;
    told.round.expect("a round").round
}

/// Passes on until enough has happened.
pub async fn passes_on(world: &World, enough: impl Fn(&PassedOn) -> bool) -> PassedOn {
    let mut all = PassedOn::default();
    for _ in 0..200_000 {
        all += world.ledger.pass_on_leftovers().await.expect("passing on");
        if enough(&all) {
            return all;
        }
        tokio::task::yield_now().await;
    }
    panic!("not enough: {all:?}");
}

pub async fn drawn(world: &World, doses: u32, answer_within: Duration) -> RoundId {
    let id = offers(world, doses, answer_within).await;
    for _ in 0..200_000 {
        world.ledger.pass_on_leftovers().await.expect("passing on");
        if round(world, id).await.state == RoundState::Drawn {
            return id;
        }
    }
    panic!("never drawn");
}

pub async fn round(world: &World, round: RoundId) -> Round {
    let rounds = world.ledger.rounds(&clinic(0).clinic, Some(round)).await;
    rounds.expect("rounds").pop().expect("the round")
}

pub async fn places(world: &World, round: RoundId) -> Vec<Place> {
    world.ledger.places(round).await.expect("places")
}

/// Those to whom a dose is offered now, in the order drawn.
pub async fn offered(world: &World, round: RoundId, people: &[Claimant]) -> Vec<Claimant> {
    let places = places(world, round).await;
    let now = places.iter().filter(|p| p.state == PlaceState::Offered);
    let of = |place: &Place| {
        let mine = |who: &&Claimant| ticket_text(&ticket(who)) == place.ticket;
        people.iter().find(mine).expect("one of them").clone()
    };
    now.map(of).collect()
}

/// Holds the published round against the auditor.
pub async fn holds(world: &World, id: RoundId) -> Report {
    let round = round(world, id).await;
    let published = Published {
        key: RoundKey {
            campaign: round.campaign,
            clinic: round.clinic,
            round: round.round,
        },
        doses: round.doses,
        commitment: round.commitment,
        seed: round.seed.expect("revealed"),
        list_root: round.list_root.expect("fixed"),
        candidates: round.candidates,
        places: places(world, id).await,
    };
    audit(&published).expect("the round holds")
}

/// Everything that can be read of leftovers and of what they touch.
#[derive(Debug, PartialEq)]
struct Everything(
    Vec<SupplyRow>,
    Vec<domain::SlotState>,
    OutboxCursor,
    Vec<(Round, Vec<Place>)>,
);

async fn everything(world: &World) -> Everything {
    let changes = world
        .ledger
        .outside_changes(OutboxCursor::default(), 10_000);
    let cursor = changes.await.expect("the outbox").cursor;
    let mut rounds = Vec::new();
    for found in world
        .ledger
        .rounds(&clinic(0).clinic, None)
        .await
        .expect("rounds")
    {
        let places = places(world, found.round).await;
        rounds.push((found, places));
    }
    let supply = world.ledger.supply().await.expect("figures");
    Everything(supply, world.all_slots().await, cursor, rounds)
}

pub async fn is_refused(world: &World, op: &LeftoverOp, why: Refusal) {
    let before = everything(world).await;
    let claim = world.claim(&op.claimant).await;
    let called = world
        .ledger
        .called(&op.claimant.campaign, op.claimant.person);
    let called = called.await.expect("offers");
    match said(world, op).await {
        LeftoverVerdict::Refused(refused) => assert_eq!(refused.refusal, why),
        other @ (LeftoverVerdict::Done(_) | LeftoverVerdict::Exists(_)) => {
            panic!("not refused: {other:?}")
        }
    }
    assert_eq!(everything(world).await, before, "changed although refused");
    assert_eq!(world.claim(&op.claimant).await, claim);
    let after = world
        .ledger
        .called(&op.claimant.campaign, op.claimant.person);
    assert_eq!(after.await.expect("offers"), called);
}

#[expect(
    clippy::too_many_lines,
    reason = "one round from its offer to its audit"
)]
pub async fn a_round_is_drawn_among_those_who_asked_before_and_holds_in_the_audit(world: &World) {
    with_stock(world, 10, &[]).await;
    let people = joins(world, 1..21).await;
    for (number, unsuited) in [
        (
            90,
            Wish {
                districts: vec!["mapo".into()],
                ..any()
            },
        ),
        (
            91,
            Wish {
                vaccines: vec!["vector".parse().expect("slug")],
                ..any()
            },
        ),
        (
            92,
            Wish {
                to_minute: 17 * 60,
                ..any()
            },
        ),
        (
            93,
            Wish {
                from_minute: 18 * 60,
                ..any()
            },
        ),
    ] {
        let who = world.person(number);
        done(world, &ask(world, &who, LeftoverChange::Join(unsuited))).await;
    }
    let told = does(world, &offering(world, round_of(3, AN_HOUR))).await;
    let announced = told.round.expect("a round");
    assert_eq!(announced.state, RoundState::Announced);
    assert_eq!(announced.commitment, Bytes32::sha256([42; 32]));
    assert_eq!(
        (announced.seed, announced.list_root),
        (None, None),
        "told before the draw"
    );
    assert_eq!((told.stock[0].walk_in, told.stock[0].opened), (3, 0));
    passes_on(world, |all| all.drawn == 1 && all.offered == 3).await;
    let late = joins(world, 30..31).await;
    assert_eq!(
        world.ledger.pass_on_leftovers().await.expect("again"),
        PassedOn::default()
    );
    let found = round(world, announced.round).await;
    assert_eq!((found.state, found.candidates), (RoundState::Drawn, 20));
    assert_eq!(found.seed, Some(Bytes32([42; 32])));
    let key = RoundKey {
        campaign: found.campaign.clone(),
        clinic: found.clinic.clone(),
        round: found.round,
    };
    let tickets = people.iter().map(ticket).collect();
    let expected = domain::leftover::draw(&key, &Bytes32([42; 32]), tickets).expect("a list");
    let order: Vec<_> = expected.order.iter().map(ticket_text).collect();
    let places = places(world, found.round).await;
    assert_eq!(
        places.iter().map(|p| p.ticket.clone()).collect::<Vec<_>>(),
        order
    );
    let states: Vec<_> = places.iter().take(4).map(|p| p.state).collect();
    assert_eq!(states[..3], [PlaceState::Offered; 3]);
    assert_eq!(states[3], PlaceState::Waiting);
    let report = holds(world, found.round).await;
    assert_eq!((report.candidates, report.offered), (20, 3));
    is_refused(
        world,
        &answer(world, &late[0], found.round, true),
        Refusal::OfferUnknown,
    )
    .await;
}

#[expect(clippy::too_many_lines, reason = "one dose from its offer to the desk")]
pub async fn an_accepted_dose_is_a_booking_like_any_other(world: &World) {
    with_stock(world, 5, &[]).await;
    let people = joins(world, 1..4).await;
    let id = drawn(world, 2, AN_HOUR).await;
    let who = offered(world, id, &people).await[0].clone();
    let accept = answer(world, &who, id, true);
    let Some(Accepted {
        booking,
        slot,
        version,
    }) = done(world, &accept).await.accepted
    else {
        panic!("accepted without a booking");
    };
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(
        (claim.state, claim.version, claim.booking),
        (ClaimState::Booked, version, Some(booking))
    );
    assert_eq!(world.booked(slot).await, 1);
    // The same request again, another body, and another method under its id.
    let repeated = said(world, &accept).await;
    let expected = LeftoverAnswer {
        accepted: Some(Accepted {
            booking,
            slot,
            version,
        }),
    };
    assert_eq!(repeated, LeftoverVerdict::Exists(expected));
    let mut other = accept.clone();
    other.body_hash = OTHER_BODY;
    is_refused(world, &other, Refusal::RequestIdReused).await;
    let mut desk = world.desk(0).await;
    let mut book = world.book(&who, 1, one(slot));
    book.request = accept.request;
    book.body_hash = OTHER_BODY;
    crate::desk::reused(&desk.one(&book).await);
    // Nobody else gets in: the slot is closed.
    let stranger = world.person(9);
    let refused = desk.one(&world.book(&stranger, 0, one(slot))).await;
    crate::desk::refused(&refused, Refusal::SlotClosed, 0);
    // The desk knows it.
    let sheet = world
        .ledger
        .day_sheet(&clinic(0).clinic, DAY, None, 10)
        .await
        .expect("a sheet");
    assert_eq!(sheet.len(), 1);
    assert_eq!(
        (sheet[0].code.clone(), sheet[0].state),
        (booking_code::of(booking), AppointmentState::Booked)
    );
    does(world, &visit(world, booking, DAY, VisitChange::CheckIn)).await;
    let given = does(world, &visit(world, booking, DAY, give(1))).await;
    let stock = &given.stock[0];
    assert_eq!((stock.given, stock.walk_in, stock.walk_in_given), (1, 1, 0));
    let figures = world
        .ledger
        .supply()
        .await
        .expect("figures")
        .pop()
        .expect("a vaccine");
    assert_eq!(
        (figures.booked, figures.stock.opened, figures.left),
        (1, 1, 0)
    );
    is_refused(
        world,
        &answer(world, &who, id, true),
        Refusal::OfferAnswered,
    )
    .await;
    assert_eq!(holds(world, id).await.accepted, 1);
    // Another one accepts and gives it up: the dose is the clinic's again.
    let other = offered(world, id, &people).await[0].clone();
    let accepted = done(world, &answer(world, &other, id, true))
        .await
        .accepted
        .expect("a booking");
    world
        .cancelled(&world.cancel_op(&other, 1, accepted.booking, None))
        .await;
    assert_eq!(world.booked(slot).await, 1);
    assert_eq!(offers(world, 3, AN_HOUR).await, RoundId(id.0 + 1));
}

pub async fn what_is_declined_expired_or_left_goes_to_the_next_in_order(world: &World) {
    with_stock(world, 9, &[offer(0, 1)]).await;
    let people = joins(world, 1..9).await;
    let id = drawn(world, 2, AN_HOUR).await;
    let first = offered(world, id, &people).await;
    done(world, &answer(world, &first[0], id, false)).await;
    done(world, &ask(world, &first[1], LeftoverChange::Leave)).await;
    let all = passes_on(world, |all| all.offered == 2).await;
    assert_eq!((all.left, all.expired), (1, 0));
    let second = offered(world, id, &people).await;
    let states: Vec<_> = places(world, id).await.iter().map(|p| p.state).collect();
    assert_eq!(
        states[..5],
        [
            PlaceState::Declined,
            PlaceState::Left,
            PlaceState::Offered,
            PlaceState::Offered,
            PlaceState::Waiting
        ]
    );
    // Who joins again stays behind this round; who booked meanwhile is passed over.
    done(world, &ask(world, &first[1], LeftoverChange::Join(any()))).await;
    is_refused(
        world,
        &answer(world, &first[1], id, true),
        Refusal::OfferExpired,
    )
    .await;
    let order = places(world, id).await;
    let next = people
        .iter()
        .find(|who| ticket_text(&ticket(who)) == order[4].ticket);
    let next = next.expect("the fifth").clone();
    let slots = world.all_slots().await;
    let free = slots
        .iter()
        .find(|slot| slot.open)
        .expect("an open slot")
        .slot;
    let mut desk = world.desk(0).await;
    desk.does(&world.book(&next, 0, one(free))).await;
    done(world, &answer(world, &second[0], id, false)).await;
    let all = passes_on(world, |all| all.offered == 1).await;
    assert_eq!(all.passed, 1);
    let states: Vec<_> = places(world, id).await.iter().map(|p| p.state).collect();
    assert_eq!(states[4..6], [PlaceState::Passed, PlaceState::Offered]);
    holds(world, id).await;
    // Offers that nobody answers: all are asked in turn, and at the end the list is used up.
    let short = drawn(world, 3, AT_MOST).await;
    let called = round(world, short).await.candidates;
    assert_eq!(called, 8);
    passes_on(world, |all| all.expired == 7).await;
    let report = holds(world, short).await;
    assert_eq!((report.offered, report.accepted), (7, 0));
}

pub async fn an_answer_is_refused_with_its_reason_and_changes_nothing(world: &World) {
    let slots = with_stock(world, 9, &[offer(0, 3)]).await;
    let mut people = joins(world, 1..6).await;
    people.extend([world.person(70)]);
    let id = drawn(world, 2, AN_HOUR).await;
    let called = offered(world, id, &people).await;
    let stranger = people[5].clone();
    is_refused(
        world,
        &answer(world, &stranger, id, true),
        Refusal::OfferUnknown,
    )
    .await;
    let unknown = RoundId(id.0 + 7);
    is_refused(
        world,
        &answer(world, &called[0], unknown, true),
        Refusal::LeftoversUnknown,
    )
    .await;
    let mut elsewhere = answer(world, &called[0], id, true);
    if let LeftoverChange::Answer { clinic, .. } = &mut elsewhere.change {
        *clinic = "next-door".parse().expect("a clinic");
    }
    is_refused(world, &elsewhere, Refusal::LeftoversUnknown).await;
    let mut desk = world.desk(0).await;
    // Somebody with a hold, then with a booking, then under an older permit.
    let newer = with_serial(&called[0], 2);
    let held = desk
        .does(&world.hold(&newer, 0, one(slots[0]), AN_HOUR))
        .await;
    is_refused(
        world,
        &answer(world, &newer, id, true),
        Refusal::AlreadyHeld,
    )
    .await;
    is_refused(
        world,
        &answer(world, &called[0], id, true),
        Refusal::PermitSuperseded,
    )
    .await;
    is_refused(
        world,
        &ask(world, &called[0], LeftoverChange::Leave),
        Refusal::PermitSuperseded,
    )
    .await;
    desk.does(&world.confirm(&newer, 1, held.booking)).await;
    is_refused(
        world,
        &answer(world, &newer, id, true),
        Refusal::AlreadyBooked,
    )
    .await;
    // A dead hold is no reason: it is given back, and the dose accepted.
    let who = called[1].clone();
    desk.does(&world.hold(&who, 0, one(slots[0]), AT_ONCE))
        .await;
    done(world, &answer(world, &who, id, true)).await;
    assert_eq!(world.booked(slots[0]).await, 1);
}

pub async fn an_answer_after_the_deadline_is_too_late_by_the_ledgers_clock(world: &World) {
    with_stock(world, 9, &[]).await;
    let people = joins(world, 1..6).await;
    let id = drawn(world, 1, AT_MOST).await;
    let who = offered(world, id, &people).await.remove(0);
    let called = world.ledger.called(&who.campaign, who.person).await;
    let until = called.expect("offers").offers[0].place.deadline;
    let until = until.expect("a deadline");
    let clock = Clock::system();
    while clock.wall() <= until {
        tokio::task::yield_now().await;
    }
    // Nobody has passed it on yet; then somebody does.
    is_refused(world, &answer(world, &who, id, true), Refusal::OfferExpired).await;
    assert_eq!(places(world, id).await[0].state, PlaceState::Offered);
    passes_on(world, |all| all.expired >= 1).await;
    assert_eq!(places(world, id).await[0].state, PlaceState::Expired);
    is_refused(world, &answer(world, &who, id, true), Refusal::OfferExpired).await;
}

pub async fn joining_and_leaving_are_recorded_and_repeated(world: &World) {
    with_stock(world, 3, &[]).await;
    let who = world.person(1);
    is_refused(
        world,
        &ask(world, &who, LeftoverChange::Leave),
        Refusal::LeftoversNotJoined,
    )
    .await;
    let join = ask(world, &who, LeftoverChange::Join(any()));
    done(world, &join).await;
    let exists = LeftoverVerdict::Exists(LeftoverAnswer::default());
    assert_eq!(said(world, &join).await, exists);
    let mut other = join.clone();
    other.body_hash = OTHER_BODY;
    is_refused(world, &other, Refusal::RequestIdReused).await;
    let called = world
        .ledger
        .called(&who.campaign, who.person)
        .await
        .expect("offers");
    assert_eq!((called.wish, called.offers.len()), (Some(any()), 0));
    // Asked anew: another wish, the old time.
    let wish = Wish {
        from_minute: 600,
        ..any()
    };
    done(world, &ask(world, &who, LeftoverChange::Join(wish.clone()))).await;
    let called = world
        .ledger
        .called(&who.campaign, who.person)
        .await
        .expect("offers");
    assert_eq!(called.wish, Some(wish));
    let leave = ask(world, &who, LeftoverChange::Leave);
    done(world, &leave).await;
    assert_eq!(said(world, &leave).await, exists);
    // A repeated join after it does not bring the person back.
    assert_eq!(said(world, &join).await, exists);
    let called = world
        .ledger
        .called(&who.campaign, who.person)
        .await
        .expect("offers");
    assert_eq!(called.wish, None);
    let id = drawn(world, 1, AN_HOUR).await;
    assert_eq!(round(world, id).await.candidates, 0);
}
