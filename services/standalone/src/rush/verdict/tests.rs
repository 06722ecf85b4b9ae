//! The verdict must see each kind of broken promise, or it is worth nothing.

use super::facts::{Appointment, Claim, Counts, Request};
use super::*;
use domain::{BookingId, ClaimVersion, RequestId, SlotId};

struct World {
    ledgers: BTreeMap<String, Facts>,
    places: HashMap<[u8; 16], Place>,
    acks: Vec<Ack>,
}

/// Two people with a booking each in a slot for two.
fn world() -> World {
    let mut facts = Facts::default();
    facts.slots.insert(
        7,
        Counts {
            capacity: 2,
            booked: 2,
        },
    );
    let mut places = HashMap::new();
    let mut acks = Vec::new();
    for n in 1..=2u8 {
        let (person, booking, request) = ([n; 16], [n + 10; 16], [n + 20; 16]);
        let state = "BOOKED".to_owned();
        facts.appointments.push(Appointment {
            booking,
            slot: 7,
            state: state.clone(),
            person,
            ours: true,
        });
        facts.claims.insert(
            person,
            Claim {
                state: state.clone(),
                serial: 1,
                version: 1,
                booking: Some(booking),
            },
        );
        facts.requests.insert(
            (person, request),
            Request {
                verdict: state,
                booking,
                slots: [7, 0],
                version: 1,
            },
        );
        places.insert(
            person,
            Place {
                region: "seoul".into(),
                serial: 1,
                bucket: 0,
                ticket: [n; 16],
            },
        );
        acks.push(Ack {
            person,
            region: 0,
            kind: Kind::Booked,
            request: RequestId::from_bytes(request),
            booking: BookingId::from_bytes(booking),
            slots: [SlotId(7), SlotId(0)],
            version: ClaimVersion(1),
        });
    }
    World {
        ledgers: [("seoul".to_owned(), facts)].into(),
        places,
        acks,
    }
}

impl World {
    fn seoul(&mut self) -> &mut Facts {
        self.ledgers.get_mut("seoul").expect("there")
    }

    fn judged(&self) -> Verdict {
        let regions: Vec<String> = self.ledgers.keys().cloned().rev().collect();
        weigh(&regions, &self.ledgers, &self.places, &self.acks)
    }
}

#[test]
fn a_sound_world_holds() {
    let verdict = world().judged();
    assert!(verdict.holds(), "{verdict:?}");
    assert_eq!((verdict.booked, verdict.unanswered), (2, 0));
}

#[test]
fn one_too_many_is_oversold() {
    let mut it = world();
    it.seoul().slots.insert(
        7,
        Counts {
            capacity: 1,
            booked: 2,
        },
    );
    assert_eq!(it.judged().oversold, 1);
}

#[test]
fn a_counter_that_lies_is_seen() {
    let mut it = world();
    it.seoul().slots.insert(
        7,
        Counts {
            capacity: 2,
            booked: 1,
        },
    );
    assert_eq!(it.judged().miscounted, 1);
}

#[test]
fn an_acknowledged_booking_without_a_row_is_lost() {
    let mut it = world();
    it.seoul().requests.remove(&([1; 16], [21; 16]));
    assert_eq!(it.judged().lost, 1);
}

#[test]
fn a_booking_that_was_taken_away_again_is_lost() {
    let mut it = world();
    it.seoul().claims.get_mut(&[1; 16]).expect("there").state = "FREE".into();
    assert_eq!(it.judged().lost, 1);
}

#[test]
fn a_later_change_whose_answer_was_lost_is_no_loss() {
    let mut it = world();
    let claim = it.seoul().claims.get_mut(&[1; 16]).expect("there");
    (claim.state, claim.version) = ("FREE".into(), 2);
    assert_eq!(it.judged().lost, 0);
}

#[test]
fn the_same_person_in_two_regions_has_two_bookings() {
    let mut it = world();
    let mut busan = Facts::default();
    let (person, booking) = ([1; 16], [99; 16]);
    busan.slots.insert(
        1,
        Counts {
            capacity: 1,
            booked: 1,
        },
    );
    busan.appointments.push(Appointment {
        booking,
        slot: 1,
        state: "BOOKED".into(),
        person,
        ours: true,
    });
    busan.claims.insert(
        person,
        Claim {
            state: "BOOKED".into(),
            serial: 1,
            version: 1,
            booking: Some(booking),
        },
    );
    it.ledgers.insert("busan".to_owned(), busan);
    let verdict = it.judged();
    assert_eq!((verdict.doubled, verdict.without_permit), (1, 1));
}

#[test]
fn a_stranger_has_no_permit() {
    let mut it = world();
    it.places.remove(&[2; 16]);
    assert_eq!(it.judged().without_permit, 1);
}

#[test]
fn nothing_read_is_nothing_verified() {
    assert!(!Verdict::default().holds());
}
