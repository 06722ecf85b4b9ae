//! Orders, wishes, and every cheat that an audit must find.

use super::*;

fn key(round: u64) -> RoundKey {
    RoundKey {
        campaign: "fifties".parse().expect("slug"),
        clinic: "1168-0042".parse().expect("slug"),
        round: RoundId(round),
    }
}

fn tickets(n: u8) -> Vec<DrawTicket> {
    (0..n)
        .map(|number| DrawTicket([number.wrapping_mul(37); 16]))
        .collect()
}

fn at(secs: i64) -> Option<Timestamp> {
    Some(Timestamp::from_secs(secs))
}

fn place(ticket: &DrawTicket, state: PlaceState, times: [Option<Timestamp>; 3]) -> Place {
    Place {
        ticket: ticket_text(ticket),
        state,
        offered_at: times[0],
        deadline: times[1],
        ended_at: times[2],
    }
}

/// Two doses: one accepted, one declined and passed on, then passed over a person with a booking, then expired.
fn round() -> Published {
    let seed = Bytes32([7; 32]);
    let drawn = draw(&key(3), &seed, tickets(6)).expect("a list");
    let states = [
        (PlaceState::Accepted, [at(10), at(70), at(30)]),
        (PlaceState::Declined, [at(10), at(70), at(20)]),
        (PlaceState::Passed, [None, None, at(20)]),
        (PlaceState::Expired, [at(20), at(80), at(81)]),
        (PlaceState::Offered, [at(81), at(141), None]),
        (PlaceState::Waiting, [None, None, None]),
    ];
    let places = drawn.order.iter().zip(states);
    Published {
        key: key(3),
        doses: 2,
        commitment: commitment(&seed),
        seed,
        list_root: drawn.list_root,
        candidates: 6,
        places: places.map(|(t, (s, times))| place(t, s, times)).collect(),
    }
}

#[test]
fn the_order_depends_on_seed_list_and_round_and_not_on_who_came_first() {
    let seed = Bytes32([1; 32]);
    let drawn = draw(&key(1), &seed, tickets(50)).expect("a list");
    let mut turned = tickets(50);
    turned.reverse();
    assert_eq!(draw(&key(1), &seed, turned), Ok(drawn.clone()));
    let mut sorted = drawn.order.clone();
    sorted.sort_unstable();
    assert_ne!(sorted, drawn.order, "an order that is sorted is not drawn");
    let other = |key, seed, n| draw(&key, &seed, tickets(n)).expect("a list").order;
    assert_ne!(other(key(2), seed, 50), drawn.order);
    assert_ne!(other(key(1), Bytes32([2; 32]), 50), drawn.order);
    // One more on the list draws everybody anew.
    let more = other(key(1), seed, 51);
    let same: Vec<_> = more.iter().filter(|t| drawn.order.contains(t)).collect();
    assert_ne!(same, drawn.order.iter().collect::<Vec<_>>());
    let twice = [tickets(3), tickets(1)].concat();
    assert!(draw(&key(1), &seed, twice).is_err());
}

#[test]
fn every_place_of_the_order_is_as_likely_for_everybody() {
    let mut first = [0u32; 10];
    for round in 0..5_000 {
        let drawn = draw(&key(round), &Bytes32([9; 32]), tickets(10)).expect("a list");
        let mine = tickets(10).iter().position(|t| *t == drawn.order[0]);
        first[mine.expect("on the list")] += 1;
    }
    // 500 expected each; 6 sigma is about 127.
    assert!(first.iter().all(|n| (373..627).contains(n)), "{first:?}");
}

#[test]
fn a_wish_fits_by_district_distance_vaccine_and_hours() {
    let spot = Spot {
        district: "Gangnam".to_owned(),
        latitude: 37.4979,
        longitude: 127.0276,
        vaccine: "mrna".parse().expect("slug"),
        from_minute: 17 * 60,
        to_minute: 18 * 60,
    };
    let any = Wish {
        districts: Vec::new(),
        near: None,
        vaccines: Vec::new(),
        from_minute: 0,
        to_minute: MINUTES_OF_DAY,
    };
    assert!(any.fits(&spot));
    let with = |change: fn(&mut Wish)| {
        let mut wish = any.clone();
        change(&mut wish);
        wish.fits(&spot)
    };
    assert!(with(|w| w.districts = vec!["Mapo".into(), "Gangnam".into()]));
    assert!(!with(|w| w.districts = vec!["Mapo".into()]));
    assert!(with(|w| w.vaccines = vec!["mrna".parse().expect("slug")]));
    assert!(!with(|w| w.vaccines = vec!["vector".parse().expect("slug")]));
    // Seoul's city hall is 8.8 km away.
    let city_hall = |distance_metres| Near {
        latitude: 37.5663,
        longitude: 126.9779,
        distance_metres,
    };
    for (metres, fits) in [(8_000, false), (9_500, true)] {
        let mut wish = any.clone();
        wish.near = Some(city_hall(metres));
        assert_eq!(wish.fits(&spot), fits, "{metres} m");
    }
    assert!(with(
        |w| (w.from_minute, w.to_minute) = (17 * 60 + 59, 1_440)
    ));
    assert!(!with(|w| w.from_minute = 18 * 60));
    assert!(!with(|w| w.to_minute = 17 * 60));
}

#[test]
fn a_round_that_holds_is_reported() {
    let report = Report {
        candidates: 6,
        doses: 2,
        offered: 4,
        accepted: 1,
    };
    assert_eq!(audit(&round()), Ok(report));
}

#[test]
fn every_cheat_is_found() {
    let found = |cheat: &dyn Fn(&mut Published)| {
        let mut round = round();
        cheat(&mut round);
        audit(&round)
    };
    type Cheat = (&'static dyn Fn(&mut Published), Finding);
    let cheats: &[Cheat] = &[
        (&|r| r.seed.0[0] ^= 1, Finding::Seed),
        (&|r| r.key.round = RoundId(4), Finding::Order { place: 1 }),
        (&|r| drop(r.places.pop()), Finding::List),
        (&|r| r.candidates = 7, Finding::List),
        (
            &|r| r.places[5].ticket = r.places[0].ticket.clone(),
            Finding::Twice,
        ),
        (
            &|r| r.places[2].ticket.push('0'),
            Finding::Ticket { place: 3 },
        ),
        // An answer after its time.
        (
            &|r| r.places[0].ended_at = at(70),
            Finding::Times { place: 1 },
        ),
        // Taken from somebody before their time was over.
        (
            &|r| r.places[3].ended_at = at(79),
            Finding::Times { place: 4 },
        ),
        // Somebody is reached while one in front still waits.
        (
            &|r| {
                r.places[2].state = PlaceState::Waiting;
                r.places[2].ended_at = None;
            },
            Finding::Jumped { place: 4 },
        ),
        (
            &|r| r.places[4].offered_at = at(19),
            Finding::Jumped { place: 5 },
        ),
        (&|r| r.doses = 1, Finding::TooMany),
        (&|r| r.places[4].offered_at = at(80), Finding::TooMany),
    ];
    for (number, (cheat, finding)) in cheats.iter().enumerate() {
        assert_eq!(found(cheat), Err(*finding), "cheat {number}");
    }
    // Two who change places.
    let mut swapped = round();
    let last = swapped.places[5].ticket.clone();
    swapped.places[5].ticket = std::mem::replace(&mut swapped.places[4].ticket, last);
    assert_eq!(audit(&swapped), Err(Finding::Order { place: 5 }));
}
