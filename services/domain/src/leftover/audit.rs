//! Whether a published round holds: its seed, its list, its order, and who was offered a dose when.

use super::{Place, PlaceState, Published, commitment, draw};
use crate::place::DrawTicket;
use crate::room::read_hex;
use crate::time::Timestamp;

/// What a round that holds comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tickets on the list.
    pub candidates: usize,
    /// Doses.
    pub doses: u32,
    /// People to whom a dose was offered.
    pub offered: usize,
    /// Of those, how many accepted.
    pub accepted: usize,
}

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Another seed than the one committed to.
    #[error("the seed is not the one that was committed to")]
    Seed,
    /// A ticket that is none.
    #[error("the ticket of place {place} is not 32 lower-case hex digits")]
    Ticket {
        /// The place, from 1.
        place: usize,
    },
    /// Somebody is on the list twice.
    #[error("a ticket is on the list twice")]
    Twice,
    /// Another list.
    #[error("the list is not the one of the published root and number")]
    List,
    /// Another order.
    #[error("place {place} has another ticket than the one drawn for it")]
    Order {
        /// The first such place, from 1.
        place: usize,
    },
    /// Somebody was offered a dose before somebody drawn earlier.
    #[error("place {place} was offered a dose before the one in front of it")]
    Jumped {
        /// The first such place, from 1.
        place: usize,
    },
    /// The times of a place do not fit what became of it.
    #[error("the times of place {place} contradict its state")]
    Times {
        /// The first such place, from 1.
        place: usize,
    },
    /// More people had or could get a dose at one moment than there are.
    #[error("at one moment more people were offered or had accepted a dose than there are doses")]
    TooMany,
}

/// Computes everything again.
pub fn audit(round: &Published) -> Result<Report, Finding> {
    if commitment(&round.seed) != round.commitment {
        return Err(Finding::Seed);
    }
    let tickets = tickets(&round.places)?;
    let drawn = draw(&round.key, &round.seed, tickets.clone()).map_err(|_| Finding::Twice)?;
    if drawn.list_root != round.list_root
        || usize::try_from(round.candidates) != Ok(round.places.len())
    {
        return Err(Finding::List);
    }
    let other = |(had, due): (&DrawTicket, &DrawTicket)| had != due;
    if let Some(at) = tickets.iter().zip(&drawn.order).position(other) {
        return Err(Finding::Order { place: at + 1 });
    }
    times(&round.places)?;
    at_once(round)?;
    let count = |what: fn(&Place) -> bool| round.places.iter().filter(|place| what(place)).count();
    Ok(Report {
        candidates: tickets.len(),
        doses: round.doses,
        offered: count(|place| place.offered_at.is_some()),
        accepted: count(|place| place.state == PlaceState::Accepted),
    })
}

fn tickets(places: &[Place]) -> Result<Vec<DrawTicket>, Finding> {
    let read = |(at, place): (usize, &Place)| {
        let mut ticket = [0u8; 16];
        read_hex(&place.ticket, &mut ticket).map_err(|_| Finding::Ticket { place: at + 1 })?;
        Ok(DrawTicket(ticket))
    };
    places.iter().enumerate().map(read).collect()
}

/// Nobody is reached before those in front, and each place's times are those of what became of it.
fn times(places: &[Place]) -> Result<(), Finding> {
    let (mut reached, mut waiting) = (Timestamp::from_micros(i64::MIN), false);
    for (at, place) in places.iter().enumerate() {
        let number = at + 1;
        let wrong = Err(Finding::Times { place: number });
        let since = match place.state {
            PlaceState::Waiting => {
                if place.offered_at.is_some() || place.ended_at.is_some() {
                    return wrong;
                }
                waiting = true;
                continue;
            }
            PlaceState::Offered => place.offered_at.filter(|_| place.ended_at.is_none()),
            PlaceState::Accepted | PlaceState::Declined => {
                // Answered before the deadline.
                place
                    .offered_at
                    .filter(|_| place.ended_at.is_some() && place.ended_at < place.deadline)
            }
            PlaceState::Expired => place
                .offered_at
                .filter(|_| place.ended_at.is_some() && place.ended_at >= place.deadline),
            PlaceState::Left | PlaceState::Passed => place.offered_at.or(place.ended_at),
        };
        let Some(since) = since else { return wrong };
        if place.ended_at.is_some_and(|ended| ended < since) {
            return wrong;
        }
        if waiting || since < reached {
            return Err(Finding::Jumped { place: number });
        }
        reached = since;
    }
    Ok(())
}

/// At every moment, those who could accept and those who had are at most as many as the doses.
fn at_once(round: &Published) -> Result<(), Finding> {
    let mut steps = Vec::new();
    for place in &round.places {
        let Some(from) = place.offered_at else {
            continue;
        };
        steps.push((from, 1));
        if let Some(ended) = place.ended_at
            && place.state != PlaceState::Accepted
        {
            steps.push((ended, -1));
        }
    }
    // What ends at a moment makes room for what begins at it.
    steps.sort_unstable();
    let mut now = 0i64;
    for (_, step) in steps {
        now += step;
        if now > i64::from(round.doses) {
            return Err(Finding::TooMany);
        }
    }
    Ok(())
}
