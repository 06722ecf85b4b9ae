//! Plans against every other plan there is, where there are few.

use planner::{
    Arc, Booking, Clinic, Limits, Network, Plan, Slot, Unmoved, redate, relocate, solve,
};
use proptest::prelude::*;

/// Metres from one degree of latitude to the next.
const DEGREE: f64 = 111_195.0;
const DAY: i64 = 2_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// A failure is told with its input; none is kept in a file.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Tries every place for everybody; the fewest left over, then the least cost.
fn best(choices: &[Vec<(usize, i64)>], room: &mut Vec<u32>) -> (usize, i64) {
    let Some((first, rest)) = choices.split_first() else {
        return (0, 0);
    };
    let (left, cost) = best(rest, room);
    let mut least = (left + 1, cost);
    for (place, own) in first {
        if room[*place] > 0 {
            room[*place] -= 1;
            let (left, cost) = best(rest, room);
            least = least.min((left, cost + own));
            room[*place] += 1;
        }
    }
    least
}

fn network() -> impl Strategy<Value = Network> {
    let sizes = (1usize..=4, 1usize..=4);
    sizes.prop_flat_map(|(sources, sinks)| {
        let people = prop::collection::vec(0u32..=2, sources);
        let places = prop::collection::vec(0u32..=3, sinks);
        let cost = prop::option::weighted(0.7, 0i64..=9);
        let arcs = prop::collection::vec(prop::collection::vec(cost, sinks), sources);
        (people, places, arcs).prop_map(|(people, places, costs)| {
            let arcs_of = |costs: Vec<Option<i64>>| {
                let all = costs.into_iter().zip(0u32..);
                all.filter_map(|(cost, sink)| Some(Arc { sink, cost: cost? }))
                    .collect()
            };
            Network {
                people,
                places,
                arcs: costs.into_iter().map(arcs_of).collect(),
            }
        })
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_transport_leaves_fewer_or_costs_less(network in network()) {
        let flow = solve(network.clone());
        let mut taken = vec![0; network.places.len()];
        let (mut left, mut cost) = (0, 0);
        for (source, people) in network.people.iter().enumerate() {
            let sent: u32 = flow.to[source].iter().map(|(_, count)| count).sum();
            prop_assert_eq!(sent + flow.left[source], *people, "everybody is somewhere");
            left += flow.left[source] as usize;
            for (sink, count) in &flow.to[source] {
                taken[*sink as usize] += count;
                let arc = network.arcs[source].iter().find(|arc| arc.sink == *sink);
                cost += arc.expect("along arcs only").cost * i64::from(*count);
            }
        }
        for (taken, places) in taken.iter().zip(&network.places) {
            prop_assert!(taken <= places, "{taken} people at {places} places");
        }
        let people = network.people.iter().zip(&network.arcs);
        let choices: Vec<Vec<(usize, i64)>> = people
            .flat_map(|(count, arcs)| {
                let own: Vec<_> = arcs.iter().map(|arc| (arc.sink as usize, arc.cost)).collect();
                std::iter::repeat_n(own, *count as usize)
            })
            .collect();
        let least = best(&choices, &mut network.places.clone());
        prop_assert_eq!((left, cost), least);
        prop_assert_eq!(solve(network), flow, "the same again");
    }
}

/// Clinics along a meridian, so that a distance is a difference.
fn town() -> impl Strategy<Value = (Vec<Clinic>, Vec<Slot>, Vec<Booking>)> {
    let clinic = (0u32..5_000, 0u32..2).prop_map(|(at, district)| Clinic {
        latitude: 34.0 + f64::from(at) / 1_000.0,
        longitude: 127.0,
        district,
    });
    prop::collection::vec(clinic, 1..=5).prop_flat_map(|clinics| {
        let count = u32::try_from(clinics.len()).expect("few");
        let slot = (0..count, 0u32..2, 0i32..6, 0i64..4, 0u32..3);
        let slot = slot.prop_map(|(clinic, kind, day, hour, free)| Slot {
            clinic,
            kind,
            day,
            starts_at: i64::from(day) * DAY_MICROS + hour * 3_600_000_000,
            free,
        });
        let booking = (0..count, 0u32..2, 0i32..6, 0i64..4, -1i32..6, 0i32..7);
        let booking = booking.prop_map(|(clinic, kind, day, hour, earliest, span)| Booking {
            clinic,
            kind,
            day,
            starts_at: i64::from(day) * DAY_MICROS + hour * 3_600_000_000,
            earliest,
            latest: earliest + span,
        });
        let slots = prop::collection::vec(slot, 0..=6);
        let bookings = prop::collection::vec(booking, 0..=5);
        (Just(clinics), slots, bookings)
    })
}

/// Nobody is anywhere they cannot be, and no slot has more people than places.
fn holds(slots: &[Slot], bookings: &[Booking], plan: &Plan) -> Result<(), TestCaseError> {
    let mut taken = vec![0; slots.len()];
    prop_assert_eq!(plan.len(), bookings.len());
    for (booking, target) in bookings.iter().zip(plan) {
        let Ok(target) = target else { continue };
        let slot = &slots[*target as usize];
        taken[*target as usize] += 1;
        prop_assert_eq!(slot.kind, booking.kind);
        prop_assert!((booking.earliest..=booking.latest).contains(&slot.day));
    }
    for (taken, slot) in taken.iter().zip(slots) {
        prop_assert!(
            *taken <= slot.free,
            "{taken} people at {} places",
            slot.free
        );
    }
    Ok(())
}

fn cost(clinics: &[Clinic], booking: &Booking, slot: &Slot) -> i64 {
    let home = clinics[booking.clinic as usize].latitude * DEGREE;
    let there = clinics[slot.clinic as usize].latitude * DEGREE;
    #[expect(clippy::cast_possible_truncation, reason = "below a million")]
    let metres = (home - there).abs().round() as i64;
    i64::from(booking.day.abs_diff(slot.day)) * DAY + metres
}

fn may(booking: &Booking, slot: &Slot, limits: &Limits) -> bool {
    slot.free > 0
        && slot.kind == booking.kind
        && slot.clinic != booking.clinic
        && (booking.earliest..=booking.latest).contains(&slot.day)
        && booking.day.abs_diff(slot.day) <= u32::from(limits.days)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_plan_moves_more_people_or_moves_them_less_far(
        (clinics, slots, bookings) in town(), few in 1usize..=4, days in 0u16..5,
    ) {
        let limits = Limits { clinics: few, days };
        let plan = relocate(&clinics, &slots, &bookings, &limits);
        holds(&slots, &bookings, &plan)?;
        let (mut left, mut sum) = (0, 0);
        for (booking, target) in bookings.iter().zip(&plan) {
            match target {
                Ok(target) => {
                    let slot = &slots[*target as usize];
                    prop_assert!(may(booking, slot, &limits));
                    sum += cost(&clinics, booking, slot);
                }
                Err(_) => left += 1,
            }
        }
        let choices: Vec<Vec<(usize, i64)>> = bookings
            .iter()
            .map(|booking| {
                let open = slots.iter().filter(|slot| may(booking, slot, &limits));
                let mut near: Vec<(i64, u32)> = open
                    .map(|slot| (cost(&clinics, booking, slot) % DAY, slot.clinic))
                    .collect();
                near.sort_unstable();
                near.dedup();
                near.truncate(few);
                let reach = |slot: &Slot| near.iter().any(|(_, clinic)| *clinic == slot.clinic);
                let all = slots.iter().enumerate();
                all.filter(|(_, slot)| may(booking, slot, &limits) && reach(slot))
                    .map(|(at, slot)| (at, cost(&clinics, booking, slot)))
                    .collect()
            })
            .collect();
        let mut room: Vec<u32> = slots.iter().map(|slot| slot.free).collect();
        prop_assert_eq!((left, sum), best(&choices, &mut room));
        prop_assert_eq!(relocate(&clinics, &slots, &bookings, &limits), plan, "the same again");
    }

    #[test]
    fn whoever_was_earlier_is_earlier_again((clinics, slots, mut bookings) in town()) {
        for booking in bookings.iter_mut().filter(|booking| booking.kind == 0) {
            (booking.earliest, booking.latest) = (i32::MIN, i32::MAX);
        }
        let plan = redate(&clinics, &slots, &bookings, &Limits::default());
        holds(&slots, &bookings, &plan)?;
        let start = |at: usize| plan[at].ok().map(|slot| slots[slot as usize].starts_at);
        for (one, first) in bookings.iter().enumerate() {
            let Some(new) = start(one) else { continue };
            let slot = slots[plan[one].expect("moved") as usize];
            prop_assert!(new > first.starts_at, "later");
            let district = |clinic: u32| clinics[clinic as usize].district;
            prop_assert_eq!(district(slot.clinic), district(first.clinic));
            for (other, second) in bookings.iter().enumerate() {
                let alike = first.clinic == second.clinic && first.kind == second.kind;
                let free = |b: &Booking| b.earliest <= 0 && b.latest >= 5;
                if alike && free(first) && free(second) && first.starts_at < second.starts_at {
                    let then = start(other);
                    prop_assert!(then.is_none_or(|then| then >= new), "{new} {then:?}");
                }
            }
        }
        prop_assert_eq!(redate(&clinics, &slots, &bookings, &Limits::default()), plan);
    }
}

fn at(latitude: f64) -> Clinic {
    Clinic {
        latitude,
        longitude: 127.0,
        district: 0,
    }
}

fn slot(clinic: u32, day: i32, hour: i64, free: u32) -> Slot {
    Slot {
        clinic,
        kind: 0,
        day,
        starts_at: i64::from(day) * DAY_MICROS + hour * 3_600_000_000,
        free,
    }
}

fn booking(day: i32, hour: i64) -> Booking {
    Booking {
        clinic: 0,
        kind: 0,
        day,
        starts_at: i64::from(day) * DAY_MICROS + hour * 3_600_000_000,
        earliest: i32::MIN,
        latest: i32::MAX,
    }
}

#[test]
fn the_same_day_comes_before_the_nearest_clinic_and_the_hour_after_both() {
    let clinics = [at(37.0), at(37.01), at(37.2)];
    let slots = [
        slot(1, 11, 9, 9),
        slot(2, 10, 9, 1),
        slot(2, 10, 15, 9),
        slot(0, 10, 9, 9),
    ];
    let people = [booking(10, 15), booking(10, 9)];
    let plan = relocate(&clinics, &slots, &people, &Limits::default());
    assert_eq!(plan, [Ok(2), Ok(1)]);
}

#[test]
fn somebody_who_could_go_elsewhere_makes_room_for_somebody_who_could_not() {
    let clinics = [at(37.0), at(37.01), at(37.02)];
    let slots = [slot(1, 10, 9, 1), slot(2, 11, 9, 1)];
    let mut bound = booking(10, 9);
    bound.latest = 10;
    let plan = relocate(
        &clinics,
        &slots,
        &[booking(10, 9), bound],
        &Limits::default(),
    );
    assert_eq!(plan, [Ok(1), Ok(0)]);
}

#[test]
fn who_cannot_be_moved_is_told_why() {
    let clinics = [at(37.0), at(37.01)];
    let slots = [slot(1, 12, 9, 1)];
    let mut bound = booking(10, 9);
    bound.latest = 11;
    let limits = Limits::default();
    let plan = relocate(
        &clinics,
        &slots,
        &[booking(10, 9), booking(10, 9), bound],
        &limits,
    );
    assert_eq!(
        plan,
        [
            Ok(0),
            Err(Unmoved::NoPlaceInReach),
            Err(Unmoved::NoDayInInterval)
        ]
    );
    let plan = redate(
        &clinics,
        &slots,
        &[booking(10, 9), booking(10, 8), bound],
        &limits,
    );
    assert_eq!(
        plan,
        [
            Err(Unmoved::NoPlaceInReach),
            Ok(0),
            Err(Unmoved::NoPlaceInReach)
        ]
    );
}
