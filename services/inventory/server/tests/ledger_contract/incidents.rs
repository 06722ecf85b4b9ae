//! When a clinic cannot serve the people it has: closing, plans, moves and what came of them.

use domain::{Claimant, IncidentId, Refusal, ShardId, SlotId, Timestamp};
use inventory::ledger::{
    Closing, DueMove, IncidentChange, IncidentKind, IncidentOp, IncidentState, IncidentVerdict,
    IncidentView, LineRow, LineState, MoveOp, PlanLine, Scene, Settled, SideAnswer,
};

use crate::clinics::{DAY, does, visit, with_stock};
use crate::desk::{Desk, done, one, refused, two};
use crate::world::{AN_HOUR, BODY, OTHER_BODY, World, clinic, offer};
use inventory::ledger::VisitChange;

const NOW: Timestamp = Timestamp::from_secs(1_000);

fn op(world: &World, incident: IncidentId, change: IncidentChange) -> IncidentOp {
    IncidentOp {
        clinic: clinic(0).clinic,
        request: world.request(),
        body_hash: BODY,
        incident,
        change,
    }
}

/// Everything of the vaccine on the first day.
fn closing() -> Closing {
    Closing {
        kind: IncidentKind::FridgeFailure,
        vaccine: Some("mrna".parse().expect("a vaccine")),
        from_day: DAY,
        to_day: DAY,
        now: NOW,
    }
}

async fn asked(world: &World, op: &IncidentOp) -> IncidentVerdict {
    let verdict = world.ledger.incident(op).await;
    verdict.expect("the change is answered")
}

async fn changed(world: &World, op: &IncidentOp) -> (IncidentView, Vec<SlotId>) {
    match asked(world, op).await {
        IncidentVerdict::Done(view, slots) => (view, slots),
        other @ (IncidentVerdict::Exists(_) | IncidentVerdict::Refused(_)) => {
            panic!("not done: {other:?}")
        }
    }
}

async fn refuses(world: &World, op: &IncidentOp, refusal: Refusal) {
    match asked(world, op).await {
        IncidentVerdict::Refused(why) => assert_eq!(why.refusal, refusal),
        other @ (IncidentVerdict::Exists(_) | IncidentVerdict::Done(..)) => {
            panic!("not refused: {other:?}")
        }
    }
}

async fn opened(world: &World) -> IncidentId {
    let incident = IncidentId::from_bytes(*world.request().as_bytes());
    let open = op(world, incident, IncidentChange::Open(closing()));
    changed(world, &open).await;
    incident
}

async fn lines(world: &World, incident: IncidentId, plan: u32) -> Vec<LineRow> {
    let lines = world.ledger.incident_lines(incident, plan, 0, 1_000).await;
    lines.expect("lines")
}

async fn view(world: &World, incident: IncidentId) -> IncidentView {
    let view = world
        .ledger
        .incident_view(&clinic(0).clinic, incident)
        .await;
    view.expect("a view").expect("the incident exists")
}

async fn scene(world: &World, incident: IncidentId) -> Scene {
    let scene = world
        .ledger
        .incident_scene(&clinic(0).clinic, incident, NOW)
        .await;
    scene.expect("a scene").expect("the incident exists")
}

async fn due(world: &World, shard: u32) -> Vec<DueMove> {
    let due = world.ledger.due_moves(&[ShardId(shard)], 100).await;
    due.expect("what is due")
}

/// Keeps a plan that sends everybody's appointment of each dose to a slot, and applies it.
async fn applied(world: &World, incident: IncidentId, to: &[SlotId]) -> u32 {
    let scene = scene(world, incident).await;
    let mut plan: Vec<PlanLine> = Vec::new();
    let mut affected = scene.affected;
    affected.sort_by_key(|one| one.slot.dose);
    for who in affected {
        let target = to[usize::from(who.slot.dose) - 1];
        let first = plan.iter().position(|line| line.who.booking == who.booking);
        plan.push(PlanLine {
            wave: u32::from(who.slot.dose),
            after: first.map(|at| u32::try_from(at + 1).expect("few")),
            to: Ok((target, world.request())),
            who,
        });
    }
    let (view, _) = changed(world, &op(world, incident, IncidentChange::Plan(plan))).await;
    let apply = IncidentChange::Apply { plan: view.plan };
    let (view, _) = changed(world, &op(world, incident, apply)).await;
    view.plan
}

async fn moves(world: &World, desk: &Desk, due: &DueMove) -> SideAnswer {
    let op = MoveOp {
        claimant: Claimant {
            campaign: due.campaign.clone(),
            person: due.person,
            serial: due.serial,
        },
        request: due.request,
        body_hash: BODY,
        claim_version: due.version,
        booking: due.booking,
        dose: due.dose,
        to: due.to,
    };
    world.moved(desk, &op).await
}

async fn settle(world: &World, settled: &[Settled]) {
    let done = world.ledger.settle_moves(settled).await;
    done.expect("settled");
}

pub async fn an_incident_closes_slots_at_once_and_lists_who_is_booked(world: &World) {
    let offers = [
        offer(0, 5),
        offer(0, 5).of_vaccine("vector"),
        offer(0, 5),
        offer(1, 5),
    ];
    let slots = world.offers(2, &offers).await;
    let mut desk = world.desk(0).await;
    let mut codes = Vec::new();
    for number in 1..=3 {
        let who = world.person(number);
        let booking = desk.does(&world.book(&who, 0, one(slots[0]))).await.booking;
        codes.push(domain::booking_code::of(booking));
    }
    codes.sort();
    let held = world.person(4);
    desk.does(&world.hold(&held, 0, one(slots[2]), AN_HOUR))
        .await;
    let incident = IncidentId::from_bytes([7; 16]);
    let open = op(world, incident, IncidentChange::Open(closing()));
    let (view, closed) = changed(world, &open).await;
    assert_eq!(closed, [slots[0], slots[2]]);
    assert_eq!((view.state, view.plan), (IncidentState::Open, 0));
    assert_eq!((view.affected, view.held), (3, 1));
    assert_eq!(self::view(world, incident).await, view);
    let listed = lines(world, incident, 0).await;
    let told: Vec<_> = listed.iter().map(|line| line.code.clone()).collect();
    assert_eq!(told, codes);
    assert!(listed.iter().all(|line| line.state == LineState::Affected
        && line.from.slot == slots[0]
        && line.to.is_none()));
    let late = world.person(5);
    let verdict = desk.one(&world.book(&late, 0, one(slots[0]))).await;
    refused(&verdict, Refusal::SlotClosed, 0);
    desk.does(&world.book(&late, 0, one(slots[1]))).await;
    // The same again, and another intent under its id.
    assert_eq!(asked(world, &open).await, IncidentVerdict::Exists(view));
    let mut reused = open.clone();
    reused.body_hash = OTHER_BODY;
    refuses(world, &reused, Refusal::RequestIdReused).await;
    let mut nowhere = op(world, incident, IncidentChange::Apply { plan: 1 });
    nowhere.clinic = "nowhere".parse().expect("a clinic");
    refuses(world, &nowhere, Refusal::ClinicUnknown).await;
    // Its stock is free for other slots: only who is booked or holds still counts.
    let supply = world.ledger.supply().await.expect("figures");
    let mrna = supply
        .iter()
        .find(|row| row.clinic == clinic(0).clinic && row.stock.vaccine.as_str() == "mrna");
    assert_eq!(mrna.map(|row| (row.stock.opened, row.left)), Some((4, 0)));
}

pub async fn a_scene_has_who_is_booked_now_and_what_is_free(world: &World) {
    let offers = [
        offer(0, 5),
        offer(0, 5).second_dose(),
        offer(1, 1),
        offer(1, 2),
        offer(1, 3).closed(),
        offer(1, 4).of_vaccine("vector"),
    ];
    let slots = with_stock(world, 20, &offers[..2]).await;
    let more = world.offers(2, &offers).await;
    let mut desk = world.desk(0).await;
    let mut next_door = world.desk(1).await;
    let full = world.person(9);
    next_door.does(&world.book(&full, 0, one(more[2]))).await;
    let who = world.person(1);
    let pair = desk
        .does(&world.book(&who, 0, two(slots[0], slots[1])))
        .await;
    let gone = world.person(2);
    let cancelled = desk
        .does(&world.book(&gone, 0, one(slots[0])))
        .await
        .booking;
    let there = world.person(3);
    let begun = desk
        .does(&world.book(&there, 0, one(slots[0])))
        .await
        .booking;
    let incident = opened(world).await;
    assert_eq!(view(world, incident).await.affected, 4);
    done(
        world
            .cancelled(&world.cancel_op(&gone, 1, cancelled, None))
            .await
            .verdict,
    );
    does(world, &visit(world, begun, DAY, VisitChange::CheckIn)).await;
    let scene = scene(world, incident).await;
    let mut seen: Vec<_> = scene
        .affected
        .iter()
        .map(|one| (one.booking, one.slot.dose, one.begun, one.other_day))
        .collect();
    seen.sort();
    let mut expected = vec![
        (pair.booking, 1, false, Some(DAY)),
        (pair.booking, 2, false, Some(DAY)),
        (begun, 1, true, None),
    ];
    expected.sort();
    assert_eq!(seen, expected);
    let free: Vec<_> = scene.free.iter().map(|slot| slot.slot).collect();
    assert_eq!(free, [more[3]]);
    assert_eq!(scene.clinics.len(), 2);
    let elsewhere = clinic(1).clinic;
    let foreign = world.ledger.incident_scene(&elsewhere, incident, NOW).await;
    assert_eq!(foreign.expect("an answer"), None);
}

#[expect(clippy::too_many_lines, reason = "the life of one plan")]
pub async fn a_plan_is_applied_once_and_only_while_it_is_the_last_one(world: &World) {
    let slots = world.offers(2, &[offer(0, 5), offer(1, 5)]).await;
    let mut desk = world.desk(0).await;
    let next_door = world.desk(1).await;
    let who = world.person(1);
    desk.does(&world.book(&who, 0, one(slots[0]))).await;
    let incident = opened(world).await;
    let apply = |plan| op(world, incident, IncidentChange::Apply { plan });
    refuses(world, &apply(1), Refusal::PlanStale).await;
    let scene = scene(world, incident).await;
    let planned = |to: Result<SlotId, Refusal>| {
        vec![PlanLine {
            who: scene.affected[0].clone(),
            to: to.map(|slot| (slot, world.request())),
            wave: u32::from(to.is_ok()),
            after: None,
        }]
    };
    let nobody = IncidentChange::Plan(planned(Err(Refusal::NoPlaceInReach)));
    let (view, _) = changed(world, &op(world, incident, nobody)).await;
    assert_eq!((view.plan, view.unmovable, view.planned), (1, 1, 0));
    let listed = lines(world, incident, 1).await;
    assert_eq!(listed[0].reason, Some(Refusal::NoPlaceInReach));
    let plan = IncidentChange::Plan(planned(Ok(slots[1])));
    let (view, _) = changed(world, &op(world, incident, plan)).await;
    assert_eq!(
        (view.plan, view.state, view.planned),
        (2, IncidentState::Planned, 1)
    );
    refuses(world, &apply(1), Refusal::PlanStale).await;
    assert_eq!(
        due(world, 1).await,
        [],
        "nobody moves before somebody said yes"
    );
    let yes = apply(2);
    let (view, _) = changed(world, &yes).await;
    assert_eq!(view.state, IncidentState::Applying);
    refuses(world, &apply(2), Refusal::PlanInProgress).await;
    let again = IncidentChange::Plan(Vec::new());
    refuses(world, &op(world, incident, again), Refusal::PlanInProgress).await;
    assert_eq!(due(world, 0).await, [], "the target's shard moves");
    let due = due(world, 1).await;
    assert_eq!(due.len(), 1);
    let moved = done(moves(world, &next_door, &due[0]).await.verdict);
    let settled = Settled {
        at: due[0].at,
        outcome: Ok(moved.claim_version),
    };
    settle(world, &[settled]).await;
    // Settled is settled.
    let otherwise = Settled {
        outcome: Err(Refusal::SlotFull),
        ..settled
    };
    settle(world, &[otherwise]).await;
    let view = self::view(world, incident).await;
    assert_eq!(
        (view.state, view.moved, view.failed),
        (IncidentState::Applied, 1, 0)
    );
    refuses(world, &apply(2), Refusal::PlanApplied).await;
    let IncidentVerdict::Exists(told) = asked(world, &yes).await else {
        panic!("the answer is repeated");
    };
    assert_eq!(told.state, IncidentState::Applying);
    let listed = lines(world, incident, 2).await;
    assert_eq!(listed[0].state, LineState::Moved);
    assert_eq!(listed[0].to.as_ref().map(|slot| slot.slot), Some(slots[1]));
    // The person hears of it as of any change: their version is older.
    let claim = world.claim(&who).await.expect("a claim");
    assert_eq!(
        (claim.version.0, claim.appointments[0].slot.slot),
        (2, slots[1])
    );
    let booking = claim.booking.expect("a booking");
    let late = world
        .cancelled(&world.cancel_op(&who, 1, booking, None))
        .await;
    refused(&late.verdict, Refusal::ClaimVersionStale, 2);
    // Nobody is left.
    assert_eq!(self::scene(world, incident).await.affected, []);
}

pub async fn whoever_moves_first_wins_and_the_line_says_so(world: &World) {
    let slots = world
        .offers(2, &[offer(0, 5), offer(1, 5), offer(1, 5)])
        .await;
    let mut desk = world.desk(0).await;
    let next_door = world.desk(1).await;
    let (quick, gone) = (world.person(1), world.person(2));
    let booking = desk
        .does(&world.book(&quick, 0, one(slots[0])))
        .await
        .booking;
    let other = desk
        .does(&world.book(&gone, 0, one(slots[0])))
        .await
        .booking;
    let incident = opened(world).await;
    applied(world, incident, &[slots[1]]).await;
    let due = due(world, 1).await;
    assert_eq!(due.len(), 2);
    let own = world.move_op(&quick, 1, booking, 1, slots[2]);
    done(world.moved(&next_door, &own).await.verdict);
    done(
        world
            .cancelled(&world.cancel_op(&gone, 1, other, None))
            .await
            .verdict,
    );
    for line in &due {
        let verdict = moves(world, &next_door, line).await.verdict;
        let (why, version) = if line.booking == booking {
            (Refusal::ClaimVersionStale, 2)
        } else {
            (Refusal::BookingUnknown, 2)
        };
        refused(&verdict, why, version);
        let outcome = Err(why);
        settle(
            world,
            &[Settled {
                at: line.at,
                outcome,
            }],
        )
        .await;
    }
    let view = view(world, incident).await;
    assert_eq!(
        (view.state, view.failed, view.moved),
        (IncidentState::Applied, 2, 0)
    );
    let mut reasons: Vec<_> = lines(world, incident, 1)
        .await
        .iter()
        .map(|l| l.reason)
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            Some(Refusal::ClaimVersionStale),
            Some(Refusal::BookingUnknown)
        ]
    );
    let claim = world.claim(&quick).await.expect("a claim");
    assert_eq!(claim.appointments[0].slot.slot, slots[2]);
}

pub async fn the_second_dose_moves_after_the_first_at_the_version_it_left(world: &World) {
    let offers = [
        offer(0, 5),
        offer(0, 5).second_dose(),
        offer(1, 5),
        offer(1, 5).second_dose(),
    ];
    let slots = world.offers(2, &offers).await;
    let mut desk = world.desk(0).await;
    let next_door = world.desk(1).await;
    let (both, unlucky) = (world.person(1), world.person(2));
    for who in [&both, &unlucky] {
        desk.does(&world.book(who, 0, two(slots[0], slots[1])))
            .await;
    }
    let incident = opened(world).await;
    applied(world, incident, &[slots[2], slots[3]]).await;
    let first = due(world, 1).await;
    assert_eq!(
        first.iter().map(|line| line.dose).collect::<Vec<_>>(),
        [1, 1]
    );
    for line in &first {
        let outcome = if line.person == both.person {
            Ok(done(moves(world, &next_door, line).await.verdict).claim_version)
        } else {
            Err(Refusal::SlotFull)
        };
        settle(
            world,
            &[Settled {
                at: line.at,
                outcome,
            }],
        )
        .await;
    }
    let second = due(world, 1).await;
    assert_eq!(
        second.iter().map(|line| line.dose).collect::<Vec<_>>(),
        [2, 2]
    );
    for line in &second {
        let expected = if line.person == both.person { 2 } else { 1 };
        assert_eq!(line.version.0, expected);
        let version = done(moves(world, &next_door, line).await.verdict).claim_version;
        // A try that was lost is answered as it was decided.
        let again = moves(world, &next_door, line).await.verdict;
        assert!(matches!(again, domain::Verdict::Exists(r) if r.claim_version == version));
        settle(
            world,
            &[Settled {
                at: line.at,
                outcome: Ok(version),
            }],
        )
        .await;
    }
    let view = view(world, incident).await;
    assert_eq!(
        (view.state, view.moved, view.failed),
        (IncidentState::Applied, 3, 1)
    );
}

pub async fn only_the_clinic_it_happened_to_changes_an_incident(world: &World) {
    let slots = world.offers(2, &[offer(0, 5), offer(1, 5)]).await;
    let mut desk = world.desk(0).await;
    desk.does(&world.book(&world.person(1), 0, one(slots[0])))
        .await;
    let incident = opened(world).await;
    let mut foreign = op(world, incident, IncidentChange::Plan(Vec::new()));
    foreign.clinic = clinic(1).clinic;
    refuses(world, &foreign, Refusal::IncidentUnknown).await;
    let seen = world
        .ledger
        .incident_view(&clinic(1).clinic, incident)
        .await;
    assert_eq!(seen.expect("an answer"), None);
    let unknown = IncidentId::from_bytes([1; 16]);
    let nothing = op(world, unknown, IncidentChange::Apply { plan: 1 });
    refuses(world, &nothing, Refusal::IncidentUnknown).await;
    // A plan for nobody is done as soon as it is begun.
    let (view, _) = changed(
        world,
        &op(world, incident, IncidentChange::Plan(Vec::new())),
    )
    .await;
    let apply = IncidentChange::Apply { plan: view.plan };
    let (view, _) = changed(world, &op(world, incident, apply)).await;
    assert_eq!((view.state, view.affected), (IncidentState::Applied, 0));
}
