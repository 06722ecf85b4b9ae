//! Who comes to a clinic: check-in, dose, no-show, day sheet.

use domain::{Refusal, Timestamp, booking_code};
use inventory::ledger::{AppointmentState, ClinicChange, ClinicVerdict, SheetRow, VisitChange};

use crate::clinics::{DAY, asked, books, does, give, hour, refuses, visit, with_stock};
use crate::desk::{done, one, refused, two};
use crate::world::{AN_HOUR, World, clinic, offer};

async fn sheet(world: &World, after: Option<(Timestamp, String)>, limit: u32) -> Vec<SheetRow> {
    let clinic = clinic(0).clinic;
    let page = world.ledger.day_sheet(&clinic, DAY, after, limit);
    page.await.expect("a sheet")
}

pub async fn a_visit_is_checked_in_and_the_dose_counted(world: &World) {
    let slots = with_stock(world, 10, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let other = books(world, &mut desk, 2, slots[0]).await;
    let early = visit(world, booking, DAY, give(1));
    refuses(world, &early, Refusal::NotCheckedIn).await;
    let check_in = visit(world, booking, DAY, VisitChange::CheckIn);
    let answer = does(world, &check_in).await;
    let line = answer.appointment.clone().expect("an appointment");
    assert_eq!(line.state, AppointmentState::CheckedIn);
    assert_eq!(
        (line.code, line.dose, line.starts_at),
        (booking_code::of(booking), 1, hour(0))
    );
    assert_eq!(asked(world, &check_in).await, ClinicVerdict::Exists(answer));
    // Its holder sees it.
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(claim.appointments[0].state, AppointmentState::CheckedIn);
    let answer = does(world, &visit(world, booking, DAY, give(1))).await;
    assert_eq!(
        answer.appointment.expect("one").state,
        AppointmentState::Given
    );
    assert_eq!(answer.stock[0].given, 1);
    for what in [give(1), VisitChange::CheckIn, VisitChange::NoShow] {
        let again = visit(world, booking, DAY, what);
        refuses(world, &again, Refusal::AppointmentOver).await;
    }
    // Who did not come may come late on the same day.
    does(world, &visit(world, other, DAY, VisitChange::NoShow)).await;
    let answer = does(world, &visit(world, other, DAY, VisitChange::CheckIn)).await;
    assert_eq!(
        answer.appointment.expect("one").state,
        AppointmentState::CheckedIn
    );
    let states = sheet(world, None, 10).await;
    let given = states
        .iter()
        .filter(|row| row.state == AppointmentState::Given);
    assert_eq!((states.len(), given.count()), (2, 1));
}

pub async fn a_visit_is_refused_with_what_is_wrong_about_it(world: &World) {
    let here = with_stock(world, 10, &[offer(0, 5)]).await;
    let there = world.offers(2, &[offer(1, 5)]).await;
    let mut desk = world.desk(0).await;
    let booking = books(world, &mut desk, 1, here[0]).await;
    let mut next_door = world.desk(1).await;
    let elsewhere = books(world, &mut next_door, 2, there[0]).await;
    let nobody = world.booking();
    let check_in = |booking, today| visit(world, booking, today, VisitChange::CheckIn);
    refuses(world, &check_in(nobody, DAY), Refusal::CodeUnknown).await;
    let foreign = check_in(elsewhere, DAY);
    refuses(world, &foreign, Refusal::AppointmentElsewhere).await;
    for today in [DAY - 1, DAY + 1] {
        let wrong_day = check_in(booking, today);
        let notes = refuses(world, &wrong_day, Refusal::AppointmentOtherDay).await;
        assert!(notes[0].1.contains("2100-01-01"), "{notes:?}");
    }
    let mut nowhere = check_in(booking, DAY);
    if let ClinicChange::Visit { today, .. } = &mut nowhere.change {
        today.clear();
    }
    refuses(world, &nowhere, Refusal::CampaignUnknown).await;
    does(world, &check_in(booking, DAY)).await;
    let notes = refuses(
        world,
        &visit(world, booking, DAY, give(2)),
        Refusal::DoseMismatch,
    )
    .await;
    assert!(notes[0].1.contains("dose 1"), "{notes:?}");
    let vector = VisitChange::Give {
        dose: 1,
        vaccine: "vector".parse().expect("a vaccine"),
        lot: "1".to_owned(),
    };
    let wrong = visit(world, booking, DAY, vector);
    let notes = refuses(world, &wrong, Refusal::VaccineMismatch).await;
    assert!(notes[0].1.contains("mrna"), "{notes:?}");
    let yesterdays = visit(world, booking, DAY + 1, give(1));
    refuses(world, &yesterdays, Refusal::InThePast).await;
    let tomorrows = visit(world, booking, DAY - 1, give(1));
    refuses(world, &tomorrows, Refusal::AppointmentOtherDay).await;
    let too_early = visit(world, booking, DAY - 1, VisitChange::NoShow);
    refuses(world, &too_early, Refusal::AppointmentOtherDay).await;
    // A no-show of yesterday may still be noted.
    does(world, &visit(world, booking, DAY + 1, VisitChange::NoShow)).await;
    // A held place is no booking yet.
    let held = world.person(3);
    let held = desk
        .does(&world.hold(&held, 0, one(here[0]), AN_HOUR))
        .await
        .booking;
    refuses(world, &check_in(held, DAY), Refusal::CodeUnknown).await;
}

pub async fn an_appointment_that_has_begun_is_neither_moved_nor_cancelled(world: &World) {
    let slots = with_stock(
        world,
        20,
        &[offer(0, 5), offer(0, 5), offer(0, 5).second_dose()],
    )
    .await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let pair = two(slots[0], slots[2]);
    let booking = desk.does(&world.book(&who, 0, pair)).await.booking;
    does(world, &visit(world, booking, DAY, VisitChange::CheckIn)).await;
    let away = world.move_op(&who, 1, booking, 1, slots[1]);
    let moved = world.moved(&desk, &away).await;
    refused(&moved.verdict, Refusal::AppointmentBegun, 1);
    for dose in [Some(1), None] {
        let given_up = world.cancel_op(&who, 1, booking, dose);
        let cancelled = world.cancelled(&given_up).await;
        refused(&cancelled.verdict, Refusal::AppointmentBegun, 1);
    }
    assert_eq!(world.booked(slots[0]).await, 1);
    // The other dose has not begun.
    let second = world.cancel_op(&who, 1, booking, Some(2));
    done(world.cancelled(&second).await.verdict);
    // Who did not come may go on.
    let late = world.person(2);
    let missed = desk
        .does(&world.book(&late, 0, one(slots[0])))
        .await
        .booking;
    does(world, &visit(world, missed, DAY, VisitChange::NoShow)).await;
    let later = world.move_op(&late, 1, missed, 1, slots[1]);
    done(world.moved(&desk, &later).await.verdict);
}

pub async fn a_cancelled_appointment_is_over_at_the_desk(world: &World) {
    let slots = with_stock(world, 5, &[offer(0, 5)]).await;
    let mut desk = world.desk(0).await;
    let who = world.person(1);
    let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
    let given_up = world.cancel_op(&who, 1, booking, None);
    done(world.cancelled(&given_up).await.verdict);
    let check_in = visit(world, booking, DAY, VisitChange::CheckIn);
    refuses(world, &check_in, Refusal::AppointmentOver).await;
    assert!(sheet(world, None, 10).await.is_empty());
}

pub async fn a_day_sheet_is_read_in_pages_without_loss(world: &World) {
    let slots = with_stock(world, 20, &[offer(0, 9), offer(0, 9)]).await;
    let mut desk = world.desk(0).await;
    let mut booked = Vec::new();
    for person in 1..=7 {
        let at = usize::try_from(person % 2).expect("small");
        let booking = books(world, &mut desk, person, slots[at]).await;
        booked.push((hour(at), booking_code::of(booking)));
    }
    booked.sort();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = sheet(world, after, 3).await;
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some((last.starts_at, last.code.clone()));
        read.extend(page.into_iter().map(|row| (row.starts_at, row.code)));
    }
    assert_eq!(read, booked);
    for (clinic, day) in [(clinic(0).clinic, DAY + 1), (clinic(5).clinic, DAY)] {
        let empty = world.ledger.day_sheet(&clinic, day, None, 10).await;
        assert!(empty.expect("a sheet").is_empty());
    }
}
