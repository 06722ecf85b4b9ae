//! What clinics' terminals change: stock, slots and visits.

use std::collections::BTreeMap;

use domain::{BookingId, Refusal, SlotId, Timestamp, VaccineId, booking_code};
use inventory::ledger::{
    ClinicAnswer, ClinicChange, ClinicOp, ClinicSupply, ClinicVerdict, OutboxCursor, StockChange,
    StockRow, SupplyRow, VisitChange,
};

use crate::desk::{Desk, one, refused};
use crate::world::{AN_HOUR, BODY, OTHER_BODY, Offer, World, clinic, offer};

/// Days since 1970-01-01 of the first slots.
pub const DAY: i32 = 47_482;

fn mrna() -> VaccineId {
    "mrna".parse().expect("a vaccine")
}

/// The start of the slot of an hour.
pub fn hour(hour: usize) -> Timestamp {
    offer(0, 1).starting_at(hour).starts_at
}

/// A change by the clinic of shard 0, before any slot begins.
pub fn op(world: &World, change: ClinicChange) -> ClinicOp {
    ClinicOp {
        clinic: clinic(0).clinic,
        request: world.request(),
        body_hash: BODY,
        now: Timestamp::from_secs(1_000),
        dry_run: false,
        change,
    }
}

fn stock(what: StockChange) -> ClinicChange {
    ClinicChange::Stock {
        what,
        vaccine: mrna(),
    }
}

fn open(hours: &[usize], capacity: u32) -> ClinicChange {
    let slots = hours.iter().map(|h| offer(0, capacity).starting_at(*h));
    ClinicChange::Open {
        slots: slots.collect(),
    }
}

pub fn visit(world: &World, booking: BookingId, today: i32, what: VisitChange) -> ClinicOp {
    let code = booking_code::of(booking);
    let today = BTreeMap::from([(world.campaign.clone(), today)]);
    op(world, ClinicChange::Visit { code, what, today })
}

pub fn give(dose: u8) -> VisitChange {
    VisitChange::Give {
        dose,
        vaccine: mrna(),
        lot: "EK-1.7".to_owned(),
    }
}

pub async fn does(world: &World, op: &ClinicOp) -> ClinicAnswer {
    match asked(world, op).await {
        ClinicVerdict::Done(answer) => answer,
        other @ (ClinicVerdict::Exists(_) | ClinicVerdict::Refused(_)) => {
            panic!("not done: {other:?}")
        }
    }
}

pub async fn asked(world: &World, op: &ClinicOp) -> ClinicVerdict {
    world.ledger.clinic(op).await.expect("an answer")
}

/// Everything a terminal can change, as far as it can be read.
#[derive(Debug, PartialEq)]
struct Everything(Vec<SupplyRow>, Vec<domain::SlotState>, OutboxCursor);

async fn everything(world: &World) -> Everything {
    let changes = world
        .ledger
        .outside_changes(OutboxCursor::default(), 10_000);
    let changes = changes.await.expect("the outbox");
    Everything(
        world.ledger.supply().await.expect("figures"),
        world.all_slots().await,
        changes.cursor,
    )
}

/// The op is refused for this reason, and nothing at all has changed; what its notes say.
pub async fn refuses(world: &World, op: &ClinicOp, why: Refusal) -> Vec<(String, String)> {
    let before = everything(world).await;
    let notes = match asked(world, op).await {
        ClinicVerdict::Refused(refused) => {
            assert_eq!(refused.refusal, why, "{refused:?}");
            refused.notes
        }
        other @ (ClinicVerdict::Done(_) | ClinicVerdict::Exists(_)) => {
            panic!("not refused: {other:?}")
        }
    };
    assert_eq!(everything(world).await, before, "changed although refused");
    notes
}

/// A clinic with so many doses and slots; the ids of those in their order.
pub async fn with_stock(world: &World, received: u32, offers: &[Offer]) -> Vec<SlotId> {
    world.ledger.ensure_shards(1).await.expect("shards");
    let slots = offers.iter().enumerate().map(|(h, o)| o.starting_at(h));
    let supply = ClinicSupply {
        clinic: clinic(0),
        received: [(mrna(), received)].into(),
        slots: slots.collect(),
    };
    world.ledger.apply(&[supply], false).await.expect("supply");
    let mut slots = world.all_slots().await;
    slots.sort_by_key(|slot| slot.starts_at);
    slots.into_iter().map(|slot| slot.slot).collect()
}

pub async fn books(world: &World, desk: &mut Desk, person: u64, slot: SlotId) -> BookingId {
    let who = world.person(person);
    desk.does(&world.book(&who, 0, one(slot))).await.booking
}

fn row(received: u64, wasted: u64, walk_in: u64, opened: u64) -> StockRow {
    StockRow {
        vaccine: mrna(),
        received,
        wasted,
        walk_in,
        opened,
        given: 0,
        walk_in_given: 0,
    }
}

/// Capacity and openness of slots, now.
async fn sizes(world: &World, slots: &[SlotId]) -> Vec<(u32, bool)> {
    let found = world.ledger.slots(slots).await.expect("slots");
    let of = |id: &SlotId| found.iter().find(|slot| slot.slot == *id).expect("there");
    slots
        .iter()
        .map(|id| (of(id).capacity, of(id).open))
        .collect()
}

pub async fn a_terminals_change_is_recorded_and_repeated(world: &World) {
    with_stock(world, 10, &[]).await;
    let delivery = op(world, stock(StockChange::Deliver(5)));
    let answer = does(world, &delivery).await;
    assert_eq!(answer.stock, [row(15, 0, 0, 0)]);
    assert_eq!(
        asked(world, &delivery).await,
        ClinicVerdict::Exists(answer.clone())
    );
    does(world, &op(world, stock(StockChange::Deliver(1)))).await;
    // As it was then, not as it is now.
    assert_eq!(asked(world, &delivery).await, ClinicVerdict::Exists(answer));
    let mut other = delivery.clone();
    other.body_hash = OTHER_BODY;
    refuses(world, &other, Refusal::RequestIdReused).await;
    let mut foreign = op(world, stock(StockChange::Deliver(5)));
    foreign.clinic = clinic(7).clinic;
    refuses(world, &foreign, Refusal::ClinicUnknown).await;
    // A refusal is not recorded: its id may still succeed.
    let mut template = op(world, open(&[0], 17));
    refuses(world, &template, Refusal::StockExceeded).await;
    template.change = open(&[0], 16);
    does(world, &template).await;
}

pub async fn wastage_closes_what_nobody_has_and_tells_what_is_short(world: &World) {
    let slots = with_stock(world, 15, &[offer(0, 5), offer(0, 5), offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let cursor = world.ledger.outbox_cursor().await.expect("a cursor");
    books(world, &mut desk, 1, slots[1]).await;
    // The latest goes first, whole; of the next one only as much as is needed.
    let answer = does(world, &op(world, stock(StockChange::Waste(7)))).await;
    assert_eq!(answer.stock, [row(15, 7, 0, 8)]);
    assert_eq!(answer.short, 0);
    let changed: Vec<_> = answer.slots.iter().map(|slot| slot.slot).collect();
    assert_eq!(changed, [slots[1], slots[2]]);
    assert_eq!(
        sizes(world, &slots).await,
        [(5, true), (3, true), (5, false)]
    );
    // Owners hear of it.
    let outside = world.ledger.outside_changes(cursor, 100).await;
    let outside = outside.expect("changes").slots;
    let heard: Vec<_> = outside.iter().map(|slot| slot.slot).collect();
    assert_eq!(heard, [slots[1], slots[2]]);
    // What has begun goes before all others: nobody can book it any more.
    let mut later = op(world, stock(StockChange::Waste(1)));
    later.now = hour(0);
    let answer = does(world, &later).await;
    assert_eq!(answer.slots[0].slot, slots[0]);
    assert_eq!(
        sizes(world, &slots).await,
        [(4, true), (3, true), (5, false)]
    );
    // Always accepted: in the end people are booked for doses that are not there.
    let answer = does(world, &op(world, stock(StockChange::Waste(20)))).await;
    assert_eq!(answer.short, 1 + 13);
    assert_eq!(answer.stock, [row(15, 28, 0, 1)]);
    assert_eq!(
        sizes(world, &slots).await,
        [(4, false), (3, false), (5, false)]
    );
    let full = world.person(2);
    refused(
        &desk.one(&world.book(&full, 0, one(slots[0]))).await,
        Refusal::SlotClosed,
        0,
    );
    // Of a vaccine that never came, too.
    let never = ClinicChange::Stock {
        what: StockChange::Waste(2),
        vaccine: "vector".parse().expect("a vaccine"),
    };
    let answer = does(world, &op(world, never)).await;
    assert_eq!((answer.stock[0].wasted, answer.short), (2, 2));
}

pub async fn walk_ins_are_set_aside_within_stock_and_given_from_it(world: &World) {
    with_stock(world, 10, &[offer(0, 7)]).await;
    let too_many = op(world, stock(StockChange::SetWalkIns(4)));
    let notes = refuses(world, &too_many, Refusal::StockExceeded).await;
    assert_eq!(notes, [("doses".to_owned(), "1 too many".to_owned())]);
    let give_one = || op(world, stock(StockChange::GiveWalkIn("EK-2".to_owned())));
    refuses(world, &give_one(), Refusal::WalkInsExceeded).await;
    let answer = does(world, &op(world, stock(StockChange::SetWalkIns(2)))).await;
    assert_eq!(answer.stock, [row(10, 0, 2, 7)]);
    does(world, &give_one()).await;
    let answer = does(world, &give_one()).await;
    let given = StockRow {
        given: 2,
        walk_in_given: 2,
        ..row(10, 0, 2, 7)
    };
    assert_eq!(answer.stock, [given]);
    refuses(world, &give_one(), Refusal::WalkInsExceeded).await;
    let fewer = op(world, stock(StockChange::SetWalkIns(1)));
    refuses(world, &fewer, Refusal::WalkInsExceeded).await;
    // What is set aside cannot be opened.
    refuses(world, &op(world, open(&[5], 2)), Refusal::StockExceeded).await;
    does(world, &op(world, open(&[5], 1))).await;
}

pub async fn a_template_is_opened_whole_or_not_at_all(world: &World) {
    let slots = with_stock(world, 20, &[offer(0, 5), offer(0, 2).closed()]).await;
    let notes = refuses(
        world,
        &op(world, open(&[2, 3, 4], 6)),
        Refusal::StockExceeded,
    )
    .await;
    assert_eq!(
        notes,
        [("capacity".to_owned(), "3 doses too many".to_owned())]
    );
    let mut late = op(world, open(&[2, 3], 5));
    late.now = hour(2);
    refuses(world, &late, Refusal::InThePast).await;
    refuses(world, &op(world, open(&[0, 2], 1)), Refusal::SlotExists).await;
    // A preview says the same and changes nothing, not even what is recorded.
    let mut template = op(world, open(&[1, 2, 3], 5));
    template.dry_run = true;
    let before = everything(world).await;
    let preview = does(world, &template).await;
    assert_eq!(everything(world).await, before);
    template.dry_run = false;
    let answer = does(world, &template).await;
    assert_eq!(preview.stock, answer.stock);
    assert_eq!(answer.stock, [row(20, 0, 0, 20)]);
    assert_eq!(preview.slots.len(), 3);
    for (shown, made) in preview.slots.iter().zip(&answer.slots) {
        assert_eq!((shown.starts_at, shown.capacity), (made.starts_at, 5));
        // The closed one was there before and is open again.
        assert_eq!(shown.slot.0 == 0, made.slot != slots[1]);
    }
    assert_eq!(answer.slots[0].slot, slots[1]);
    assert!(answer.slots.iter().all(|slot| slot.open));
    let mut over = template.clone();
    over.dry_run = true;
    over.request = world.request();
    over.change = open(&[9], 1);
    refuses(world, &over, Refusal::StockExceeded).await;
    // New slots can be booked, also on a day that had none.
    let mut desk = world.desk(0).await;
    books(world, &mut desk, 1, answer.slots[2].slot).await;
}

pub async fn a_slot_is_not_made_smaller_than_the_people_it_has(world: &World) {
    let slots = with_stock(world, 10, &[offer(0, 5), offer(0, 3)]).await;
    let mut desk = world.desk(0).await;
    let mut codes = Vec::new();
    for person in 1..=3 {
        let booking = books(world, &mut desk, person, slots[0]).await;
        codes.push(booking_code::of(booking));
    }
    codes.sort();
    let resize = |capacity| {
        let slot = slots[0];
        op(world, ClinicChange::Resize { slot, capacity })
    };
    let notes = refuses(world, &resize(2), Refusal::BelowBooked).await;
    assert_eq!(
        notes,
        [
            ("capacity".to_owned(), "3 people are booked".to_owned()),
            ("booking_codes".to_owned(), codes.join(", ")),
        ]
    );
    let answer = does(world, &resize(3)).await;
    assert_eq!(answer.stock, [row(10, 0, 0, 6)]);
    assert_eq!((answer.slots[0].capacity, answer.slots[0].booked), (3, 3));
    let full = world.person(4);
    let full = desk.one(&world.book(&full, 0, one(slots[0]))).await;
    refused(&full, Refusal::SlotFull, 0);
    refuses(world, &resize(8), Refusal::StockExceeded).await;
    does(world, &resize(7)).await;
    let mut late = resize(8);
    late.now = hour(0);
    refuses(world, &late, Refusal::InThePast).await;
    let unknown = ClinicChange::Resize {
        slot: SlotId(4_711),
        capacity: 1,
    };
    refuses(world, &op(world, unknown), Refusal::SlotUnknown).await;
}

pub async fn closed_slots_keep_their_people_and_give_their_stock_back(world: &World) {
    let slots = with_stock(world, 10, &[offer(0, 5), offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    books(world, &mut desk, 1, slots[0]).await;
    let close = |slots: &[SlotId]| {
        let slots = slots.to_vec();
        op(world, ClinicChange::Close { slots })
    };
    let foreign = close(&[slots[0], SlotId(4_711)]);
    refuses(world, &foreign, Refusal::SlotUnknown).await;
    let closing = close(&slots);
    let answer = does(world, &closing).await;
    assert_eq!(answer.stock, [row(10, 0, 0, 1)]);
    let told: Vec<_> = answer.slots.iter().map(|s| (s.booked, s.open)).collect();
    assert_eq!(told, [(1, false), (0, false)]);
    let late = world.person(2);
    let late = desk.one(&world.book(&late, 0, one(slots[0]))).await;
    refused(&late, Refusal::SlotClosed, 0);
    // Once more changes nothing and tells owners nothing.
    let cursor = everything(world).await.2;
    does(world, &close(&slots)).await;
    let again = world.ledger.outside_changes(cursor, 10).await;
    assert!(again.expect("changes").slots.is_empty());
}

pub async fn supply_figures_add_up(world: &World) {
    let slots = with_stock(world, 30, &[offer(0, 9), offer(0, 6), offer(0, 4).closed()]).await;
    let mut desk = world.desk(0).await;
    let booking = books(world, &mut desk, 1, slots[0]).await;
    let late = books(world, &mut desk, 2, slots[1]).await;
    let held = world.person(3);
    desk.does(&world.hold(&held, 0, one(slots[0]), AN_HOUR))
        .await;
    does(world, &op(world, stock(StockChange::SetWalkIns(2)))).await;
    does(world, &op(world, stock(StockChange::Waste(3)))).await;
    let lot = "EK-2".to_owned();
    does(world, &op(world, stock(StockChange::GiveWalkIn(lot)))).await;
    does(world, &visit(world, booking, DAY, VisitChange::CheckIn)).await;
    does(world, &visit(world, booking, DAY, give(1))).await;
    let slots = vec![slots[1]];
    does(world, &op(world, ClinicChange::Close { slots })).await;
    let expected = |opened, booked| SupplyRow {
        clinic: clinic(0).clinic,
        district: "jongno".to_owned(),
        stock: StockRow {
            given: 2,
            walk_in_given: 1,
            ..row(30, 3, 2, opened)
        },
        held: 1,
        booked,
        left: 7,
    };
    assert_eq!(
        world.ledger.supply().await.expect("figures"),
        [expected(10, 2)]
    );
    // At a closed slot a cancellation takes what was open with it.
    let given_up = world.cancel_op(&world.person(2), 1, late, None);
    crate::desk::done(world.cancelled(&given_up).await.verdict);
    assert_eq!(
        world.ledger.supply().await.expect("figures"),
        [expected(9, 1)]
    );
}

pub async fn many_who_open_at_once_never_exceed_the_stock(world: &World) {
    with_stock(world, 10, &[]).await;
    let openings: Vec<_> = (0..24).map(|hour| op(world, open(&[hour], 1))).collect();
    let all = openings.iter().map(|op| asked(world, op));
    let verdicts = futures::future::join_all(all).await;
    let opened = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, ClinicVerdict::Done(_)));
    assert_eq!(opened.count(), 10);
    let figures = world.ledger.supply().await.expect("figures");
    assert_eq!((figures[0].stock.opened, figures[0].left), (10, 10));
    assert_eq!(world.all_slots().await.len(), 10);
}
