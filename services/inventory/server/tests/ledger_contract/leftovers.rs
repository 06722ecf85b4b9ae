//! Doses left at the end of a day: who is called, in which order, and that no dose is promised twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::leftover::{Place, PlaceState, Published, Report, RoundKey, Wish, audit, ticket_text};
use domain::place::{DrawTicket, draw_ticket};
use domain::room::Bytes32;
use domain::{BookingId, Claimant, Refusal, RoundId, SlotId, Timestamp, booking_code};
use inventory::ledger::{
    Accepted, AppointmentState, ClaimState, ClinicAnswer, ClinicChange, ClinicOp, ClinicSupply,
    ClinicVerdict, LeftoverAnswer, LeftoverChange, LeftoverOp, LeftoverVerdict, NewRound, NewSlot,
    OutboxCursor, PassedOn, Round, RoundState, StockChange, SupplyRow, VisitChange,
};
use runtime::Clock;
use tokio::task::JoinSet;

use crate::clinics::{asked, books, does, give, op, refuses, visit, with_stock};
use crate::desk::{Desk, one};
use crate::world::{AN_HOUR, AT_ONCE, BODY, OTHER_BODY, World, clinic, offer, with_serial};

/// Long ago: slots of then have begun.
const YESTERDAY: i64 = 1_000_000_000;
const DAY: i32 = 11_574;
/// So short that offers are over when anybody looks.
const AT_MOST: Duration = Duration::from_millis(1);

fn ticket(who: &Claimant) -> DrawTicket {
    draw_ticket(b"the campaign's key", &who.person)
}

fn any() -> Wish {
    Wish {
        districts: Vec::new(),
        near: None,
        vaccines: Vec::new(),
        from_minute: 0,
        to_minute: 1_440,
    }
}

fn ask(world: &World, who: &Claimant, change: LeftoverChange) -> LeftoverOp {
    LeftoverOp {
        claimant: who.clone(),
        ticket: ticket(who),
        request: world.request(),
        body_hash: BODY,
        change,
    }
}

fn answer(world: &World, who: &Claimant, round: RoundId, accept: bool) -> LeftoverOp {
    let change = LeftoverChange::Answer {
        clinic: clinic(0).clinic,
        round,
        accept,
        booking: world.booking(),
    };
    ask(world, who, change)
}

async fn said(world: &World, op: &LeftoverOp) -> LeftoverVerdict {
    world.ledger.leftover(op).await.expect("an answer")
}

async fn done(world: &World, op: &LeftoverOp) -> LeftoverAnswer {
    match said(world, op).await {
        LeftoverVerdict::Done(answer) => answer,
        other => panic!("not done: {other:?}"),
    }
}

async fn joins(world: &World, numbers: std::ops::Range<u64>) -> Vec<Claimant> {
    let mut people = Vec::new();
    for number in numbers {
        let who = world.person(number);
        done(world, &ask(world, &who, LeftoverChange::Join(any()))).await;
        people.push(who);
    }
    people
}

fn round_of(doses: u32, answer_within: Duration) -> NewRound {
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

fn offering(world: &World, round: NewRound) -> ClinicOp {
    op(world, ClinicChange::OfferLeftovers(round))
}

/// Offers doses; the round.
async fn offers(world: &World, doses: u32, answer_within: Duration) -> RoundId {
    let told = does(world, &offering(world, round_of(doses, answer_within))).await;
    told.round.expect("a round").round
}

/// Passes on until enough has happened.
async fn passes_on(world: &World, enough: impl Fn(&PassedOn) -> bool) -> PassedOn {
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

async fn drawn(world: &World, doses: u32, answer_within: Duration) -> RoundId {
    let id = offers(world, doses, answer_within).await;
    for _ in 0..200_000 {
        world.ledger.pass_on_leftovers().await.expect("passing on");
        if round(world, id).await.state == RoundState::Drawn {
            return id;
        }
    }
    panic!("never drawn");
}

async fn round(world: &World, round: RoundId) -> Round {
    let rounds = world.ledger.rounds(&clinic(0).clinic, Some(round)).await;
    rounds.expect("rounds").pop().expect("the round")
}

async fn places(world: &World, round: RoundId) -> Vec<Place> {
    world.ledger.places(round).await.expect("places")
}

/// Those to whom a dose is offered now, in the order drawn.
async fn offered(world: &World, round: RoundId, people: &[Claimant]) -> Vec<Claimant> {
    let places = places(world, round).await;
    let now = places.iter().filter(|p| p.state == PlaceState::Offered);
    let of = |place: &Place| {
        let mine = |who: &&Claimant| ticket_text(&ticket(who)) == place.ticket;
        people.iter().find(mine).expect("one of them").clone()
    };
    now.map(of).collect()
}

/// Holds the published round against the auditor.
async fn holds(world: &World, id: RoundId) -> Report {
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

async fn is_refused(world: &World, op: &LeftoverOp, why: Refusal) {
    let before = everything(world).await;
    let claim = world.claim(&op.claimant).await;
    let called = world
        .ledger
        .called(&op.claimant.campaign, op.claimant.person);
    let called = called.await.expect("offers");
    match said(world, op).await {
        LeftoverVerdict::Refused(refused) => assert_eq!(refused.refusal, why),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(everything(world).await, before, "changed although refused");
    assert_eq!(world.claim(&op.claimant).await, claim);
    let after = world
        .ledger
        .called(&op.claimant.campaign, op.claimant.person);
    assert_eq!(after.await.expect("offers"), called);
}

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
    // Too late by the ledger's clock, whether or not anybody has passed it on.
    let short = drawn(world, 1, AT_MOST).await;
    passes_on(world, |all| all.expired >= 1).await;
    let late = places(world, short).await;
    let late = late
        .iter()
        .find(|p| p.state == PlaceState::Expired)
        .expect("expired");
    let late = people
        .iter()
        .find(|who| ticket_text(&ticket(who)) == late.ticket);
    is_refused(
        world,
        &answer(world, late.expect("one"), short, true),
        Refusal::OfferExpired,
    )
    .await;
    let clock = Clock::system();
    let (mut now, mut tries) = (Vec::new(), 0);
    while now.is_empty() && tries < 10 {
        now = offered(world, short, &people).await;
        world.ledger.pass_on_leftovers().await.expect("passing on");
        tries += 1;
    }
    if let Some(who) = now.first() {
        let called = world
            .ledger
            .called(&who.campaign, who.person)
            .await
            .expect("offers");
        let until = called.offers[0].place.deadline.expect("a deadline");
        while clock.wall() <= until {
            tokio::task::yield_now().await;
        }
        let op = answer(world, who, short, true);
        assert!(
            matches!(said(world, &op).await, LeftoverVerdict::Refused(why) if why.refusal == Refusal::OfferExpired)
        );
    }
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

/// The clinic with so many doses and slots that began yesterday, each of so many places.
async fn with_begun(world: &World, received: u32, capacities: &[u32]) -> Vec<SlotId> {
    world.ledger.ensure_shards(1).await.expect("shards");
    let slots = capacities
        .iter()
        .zip(0i64..)
        .map(|(capacity, hour)| NewSlot {
            starts_at: Timestamp::from_secs(YESTERDAY + hour * 3_600),
            day: DAY,
            vaccine: "mrna".parse().expect("a vaccine"),
            dose: 1,
            capacity: *capacity,
            open: true,
        });
    let supply = ClinicSupply {
        clinic: clinic(0),
        received: [("mrna".parse().expect("a vaccine"), received)].into(),
        slots: slots.collect(),
    };
    world.ledger.apply(&[supply], false).await.expect("supply");
    let mut slots = world.all_slots().await;
    slots.sort_by_key(|slot| slot.starts_at);
    slots.into_iter().map(|slot| slot.slot).collect()
}

pub async fn doses_come_from_what_nothing_is_promised_of(world: &World) {
    let slots = with_begun(world, 10, &[4, 3]).await;
    let mut desk = world.desk(0).await;
    books(world, &mut desk, 1, slots[0]).await;
    does(world, &set_walk_ins(world, 1)).await;
    // Ten came: one is booked, one set aside; what is open and has begun is not promised to anybody.
    let notes = refuses(
        world,
        &offering(world, round_of(9, AN_HOUR)),
        Refusal::StockExceeded,
    )
    .await;
    assert_eq!(notes, [("doses".to_owned(), "8 doses are left".to_owned())]);
    let told = does(world, &offering(world, round_of(8, AN_HOUR))).await;
    let stock = &told.stock[0];
    assert_eq!((stock.walk_in, stock.opened), (9, 1));
    let found = world.ledger.slots(&slots).await.expect("slots");
    assert!(found.iter().all(|slot| !slot.open), "begun and left open");
    refuses(
        world,
        &offering(world, round_of(1, AN_HOUR)),
        Refusal::StockExceeded,
    )
    .await;
    // An answer given before comes first, whatever is left; another body under its id is refused.
    let mut again = offering(world, round_of(1, AN_HOUR));
    let first = does(
        world,
        &op(
            world,
            ClinicChange::CloseLeftovers {
                round: told.round.expect("a round").round,
            },
        ),
    )
    .await;
    assert_eq!(first.stock[0].walk_in, 1);
    let made = does(world, &again).await;
    assert_eq!(asked(world, &again).await, ClinicVerdict::Exists(made));
    again.body_hash = OTHER_BODY;
    refuses(world, &again, Refusal::RequestIdReused).await;
    let mut past = round_of(1, AN_HOUR);
    past.closes_at = Clock::system().wall();
    refuses(world, &offering(world, past), Refusal::InThePast).await;
    let mut tomorrow = round_of(1, AN_HOUR);
    tomorrow.minutes = (0, 0);
    refuses(world, &offering(world, tomorrow), Refusal::Invalid).await;
    let mut foreign = offering(world, round_of(1, AN_HOUR));
    foreign.clinic = "nowhere".parse().expect("a clinic");
    refuses(world, &foreign, Refusal::ClinicUnknown).await;
}

fn set_walk_ins(world: &World, doses: u32) -> ClinicOp {
    stock(world, StockChange::SetWalkIns(doses))
}

fn stock(world: &World, what: StockChange) -> ClinicOp {
    let vaccine = "mrna".parse().expect("a vaccine");
    op(world, ClinicChange::Stock { what, vaccine })
}

async fn no_show(world: &World, booking: BookingId) -> ClinicAnswer {
    does(world, &visit(world, booking, DAY, VisitChange::NoShow)).await
}

pub async fn doses_of_people_who_did_not_come_are_offered_once(world: &World) {
    let slots = with_begun(world, 3, &[3]).await;
    let mut desk: Desk = world.desk(0).await;
    let mut bookings = Vec::new();
    for person in 1..4 {
        bookings.push(books(world, &mut desk, person, slots[0]).await);
    }
    refuses(
        world,
        &offering(world, round_of(1, AN_HOUR)),
        Refusal::StockExceeded,
    )
    .await;
    no_show(world, bookings[0]).await;
    no_show(world, bookings[1]).await;
    does(world, &visit(world, bookings[2], DAY, VisitChange::CheckIn)).await;
    refuses(
        world,
        &offering(world, round_of(3, AN_HOUR)),
        Refusal::StockExceeded,
    )
    .await;
    let told = does(world, &offering(world, round_of(1, AN_HOUR))).await;
    assert_eq!((told.stock[0].walk_in, told.stock[0].opened), (1, 2));
    // One of the two lost the appointment, and may be called or book again; a late comer hears it.
    let mut free = Vec::new();
    for (person, booking) in (1..3).zip(&bookings) {
        let claim = world.claim(&world.person(person)).await.expect("a claim");
        if claim.state == ClaimState::Free {
            free.push((person, *booking, claim.version));
        }
    }
    assert_eq!(free.len(), 1);
    let (person, booking, version) = free[0];
    assert_eq!(version.0, 2);
    refuses(
        world,
        &visit(world, booking, DAY, VisitChange::CheckIn),
        Refusal::AppointmentOver,
    )
    .await;
    let who = world.person(person);
    done(world, &ask(world, &who, LeftoverChange::Join(any()))).await;
    // The other dose is offered too, and then there is none.
    let id = drawn(world, 1, AN_HOUR).await;
    refuses(
        world,
        &offering(world, round_of(1, AN_HOUR)),
        Refusal::StockExceeded,
    )
    .await;
    let accepted = done(world, &answer(world, &who, id, true))
        .await
        .accepted
        .expect("a booking");
    assert_eq!(accepted.version.0, 3);
    assert_eq!(world.booked(slots[0]).await, 1);
}

pub async fn promised_doses_are_not_given_otherwise_and_come_back_at_the_end(world: &World) {
    with_stock(world, 6, &[]).await;
    let people = joins(world, 1..9).await;
    does(world, &set_walk_ins(world, 1)).await;
    let id = drawn(world, 4, AN_HOUR).await;
    // One of five set aside is not promised; it alone can be given or taken back.
    refuses(world, &set_walk_ins(world, 3), Refusal::WalkInsExceeded).await;
    let lot = || StockChange::GiveWalkIn("EK-1".to_owned());
    does(world, &stock(world, lot())).await;
    let notes = refuses(world, &stock(world, lot()), Refusal::WalkInsExceeded).await;
    assert_eq!(notes[0].1, "4 are promised as leftovers");
    refuses(world, &set_walk_ins(world, 4), Refusal::WalkInsExceeded).await;
    let called = offered(world, id, &people).await;
    done(world, &answer(world, &called[0], id, true)).await;
    let told = does(
        world,
        &op(world, ClinicChange::CloseLeftovers { round: id }),
    )
    .await;
    let ended = told.round.expect("the round");
    assert_eq!((ended.state, ended.accepted), (RoundState::Closed, 1));
    let row = &told.stock[0];
    assert_eq!((row.walk_in, row.walk_in_given, row.opened), (1, 1, 1));
    is_refused(
        world,
        &answer(world, &called[1], id, true),
        Refusal::OfferExpired,
    )
    .await;
    refuses(
        world,
        &op(world, ClinicChange::CloseLeftovers { round: id }),
        Refusal::LeftoversClosed,
    )
    .await;
    let unknown = RoundId(id.0 + 1);
    refuses(
        world,
        &op(world, ClinicChange::CloseLeftovers { round: unknown }),
        Refusal::LeftoversUnknown,
    )
    .await;
    assert_eq!(
        world.ledger.pass_on_leftovers().await.expect("nothing"),
        PassedOn::default()
    );
    holds(world, id).await;
    // One ends by itself, before anybody was called and after.
    let mut soon = round_of(2, AN_HOUR);
    soon.closes_at = Clock::system().wall().plus(Duration::from_millis(400));
    does(world, &offering(world, soon)).await;
    let all = passes_on(world, |all| all.closed == 1).await;
    assert_eq!((all.drawn, all.offered, all.expired), (1, 2, 2));
    let figures = world
        .ledger
        .supply()
        .await
        .expect("figures")
        .pop()
        .expect("a vaccine");
    assert_eq!((figures.stock.walk_in, figures.stock.opened), (1, 1));
}

pub async fn doses_that_spoiled_are_not_accepted_any_more(world: &World) {
    with_stock(world, 3, &[]).await;
    let people = joins(world, 1..4).await;
    let id = drawn(world, 3, AN_HOUR).await;
    let called = offered(world, id, &people).await;
    done(world, &answer(world, &called[0], id, true)).await;
    let wasted = does(world, &stock(world, StockChange::Waste(2))).await;
    assert_eq!(wasted.short, 2);
    is_refused(
        world,
        &answer(world, &called[1], id, true),
        Refusal::LeftoversGone,
    )
    .await;
    does(world, &stock(world, StockChange::Deliver(2))).await;
    done(world, &answer(world, &called[1], id, true)).await;
}

pub async fn of_300_who_race_for_9_doses_at_most_9_get_one(world: &World) {
    const PEOPLE: u64 = 300;
    const DOSES: u32 = 9;
    with_stock(world, 40, &[]).await;
    let people = Arc::new(joins(world, 1..PEOPLE + 1).await);
    let id = offers(world, DOSES, AN_HOUR).await;
    passes_on(world, |all| all.offered == u64::from(DOSES)).await;
    // Everybody answers at once and again and again, offered or not, until nobody is asked any more; one in three that
    // is offered a dose declines, one in seven leaves instead. Two pass on at the same time.
    let accepted = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for part in 0..16 {
        let (ledger, people) = (Arc::clone(&world.ledger), Arc::clone(&people));
        let (accepted, ended) = (Arc::clone(&accepted), Arc::clone(&ended));
        let ops: Vec<Vec<LeftoverOp>> = people
            .iter()
            .enumerate()
            .skip(part)
            .step_by(16)
            .map(|(number, who)| {
                let last = if number % 7 == 3 {
                    ask(world, who, LeftoverChange::Leave)
                } else {
                    answer(world, who, id, number % 3 != 1)
                };
                // The same request twice, and another one that accepts whatever was said.
                vec![last.clone(), last, answer(world, who, id, true)]
            })
            .collect();
        tasks.spawn(async move {
            while ended.load(Ordering::Relaxed) < 1 {
                for ops in &ops {
                    for op in ops {
                        if let LeftoverVerdict::Done(done) =
                            ledger.leftover(op).await.expect("an answer")
                        {
                            accepted
                                .fetch_add(usize::from(done.accepted.is_some()), Ordering::Relaxed);
                        }
                    }
                }
            }
        });
    }
    for _ in 0..2 {
        let (ledger, ended) = (Arc::clone(&world.ledger), Arc::clone(&ended));
        let accepted = Arc::clone(&accepted);
        tasks.spawn(async move {
            while accepted.load(Ordering::Relaxed) < 9 {
                ledger.pass_on_leftovers().await.expect("passing on");
                tokio::task::yield_now().await;
            }
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }
    tasks.join_all().await;
    assert_eq!(accepted.load(Ordering::Relaxed), 9);
    let found = round(world, id).await;
    assert_eq!((found.accepted, found.candidates), (DOSES, 300));
    let report = holds(world, id).await;
    assert_eq!(report.accepted, 9);
    let mut booked = 0;
    for who in people.iter() {
        let claim = world.claim(who).await;
        booked += u32::from(claim.is_some_and(|claim| claim.state == ClaimState::Booked));
    }
    assert_eq!(booked, DOSES);
    // Nobody is called for a dose that is not there.
    assert_eq!(
        world.ledger.pass_on_leftovers().await.expect("nothing"),
        PassedOn::default()
    );
    let row = world
        .ledger
        .supply()
        .await
        .expect("figures")
        .pop()
        .expect("a vaccine");
    assert_eq!((row.booked, row.stock.walk_in, row.stock.opened), (9, 0, 9));
}
