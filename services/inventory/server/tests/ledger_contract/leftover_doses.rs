//! Where leftover doses come from, and that none is promised or given twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::{BookingId, Refusal, RoundId, SlotId, Timestamp};
use inventory::ledger::{
    ClaimState, ClinicAnswer, ClinicChange, ClinicOp, ClinicSupply, ClinicVerdict, LeftoverChange,
    LeftoverOp, LeftoverVerdict, NewSlot, PassedOn, RoundState, StockChange, VisitChange,
};
use runtime::Clock;
use tokio::task::JoinSet;

use crate::clinics::{asked, books, does, op, refuses, visit, with_stock};
use crate::desk::Desk;
use crate::leftovers::{
    DAY, answer, any, ask, done, drawn, holds, is_refused, joins, offered, offering, offers,
    passes_on, round, round_of,
};
use crate::world::{AN_HOUR, OTHER_BODY, World, clinic};

/// Long ago: slots of then have begun.
const YESTERDAY: i64 = 1_000_000_000;

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

#[expect(
    clippy::too_many_lines,
    reason = "one race, and all that must hold after it"
)]
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
