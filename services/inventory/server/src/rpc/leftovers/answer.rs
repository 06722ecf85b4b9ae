//! From what the ledger did to what people, clinics and auditors are told.

use domain::leftover::{Place, PlaceState, Wish};
use domain::name::{BookingName, ClinicName, LeftoversName};
use domain::{RegionId, SlotState, booking_code};
use proto::booking::{Booking, appointment::State};
use proto::convert::timestamp;
use proto::inventory::Answer;
use proto::inventory::answer::Outcome;
use proto::leftover as pb;
use proto::status::Refused;

use crate::ledger::{Called, LeftoverVerdict, Round, RoundState};
use crate::rpc::answer;
use crate::rpc::leftovers::Kind;

/// Four thousand polls a second from 120,000 people who wait: what a ledger's reads carry beside bookings.
const POLL_AFTER_SECONDS: u32 = 30;

fn said(call_id: u64, outcome: Outcome) -> Answer {
    Answer {
        call_id,
        outcome: Some(outcome),
    }
}

pub(super) fn change(
    id: u64,
    kind: Kind,
    region: &RegionId,
    verdict: LeftoverVerdict,
    slot: Option<&SlotState>,
) -> Answer {
    let (done, repeated_answer) = match verdict {
        LeftoverVerdict::Done(done) => (done, false),
        LeftoverVerdict::Exists(done) => (done, true),
        LeftoverVerdict::Refused(why) => {
            let mut refused = Refused::from(why.refusal);
            refused.violations = why.notes;
            return answer::refused(id, refused, None);
        }
    };
    let outcome = match kind {
        Kind::Join => Outcome::JoinLeftovers(pb::JoinLeftoversResponse { repeated_answer }),
        Kind::Leave => Outcome::LeaveLeftovers(pb::LeaveLeftoversResponse { repeated_answer }),
        Kind::Answer => Outcome::AnswerLeftoverOffer(pb::AnswerLeftoverOfferResponse {
            booking: done.accepted.map(|accepted| Booking {
                name: BookingName {
                    region: region.clone(),
                    booking: accepted.booking,
                }
                .to_string(),
                code: booking_code::of(accepted.booking),
                appointments: slot
                    .map(|slot| answer::appointment(region, slot, State::Booked))
                    .into_iter()
                    .collect(),
            }),
            claim_version: done.accepted.map_or(0, |accepted| accepted.version.0),
            repeated_answer,
        }),
    };
    said(id, outcome)
}

pub(super) fn offers(id: u64, region: &RegionId, called: Called) -> Answer {
    let offers = called.offers.into_iter().map(|offer| pb::Offer {
        leftovers: name_of(region, &offer.round),
        vaccine: offer.round.vaccine.to_string(),
        deadline: offer.place.deadline.map(timestamp),
        come_by: Some(timestamp(offer.round.closes_at)),
        state: state(offer.place.state).into(),
    });
    said(
        id,
        Outcome::ListLeftoverOffers(pb::ListLeftoverOffersResponse {
            offers: offers.collect(),
            wish: called.wish.map(wish),
            poll_after_seconds: POLL_AFTER_SECONDS,
        }),
    )
}

pub(super) fn rounds(id: u64, region: &RegionId, rounds: Vec<Round>) -> Answer {
    let rounds = rounds.into_iter().map(|round| round_of(region, round));
    said(
        id,
        Outcome::ListLeftovers(Box::new(pb::ListLeftoversResponse {
            rounds: rounds.collect(),
        })),
    )
}

pub(super) fn round(id: u64, region: &RegionId, round: Round, places: Vec<Place>) -> Answer {
    said(
        id,
        Outcome::GetLeftovers(Box::new(pb::GetLeftoversResponse {
            round: Some(round_of(region, round)),
            places: places.into_iter().map(place_of).collect(),
        })),
    )
}

fn name_of(region: &RegionId, round: &Round) -> String {
    LeftoversName {
        clinic: ClinicName {
            region: region.clone(),
            clinic: round.clinic.clone(),
        },
        round: round.round,
    }
    .to_string()
}

/// A round as everybody may see it.
pub(in crate::rpc) fn round_of(region: &RegionId, round: Round) -> pb::Round {
    let stage = match round.state {
        RoundState::Announced => pb::round::State::Announced,
        RoundState::Drawn => pb::round::State::Drawn,
        RoundState::Closed => pb::round::State::Closed,
    };
    pb::Round {
        name: name_of(region, &round),
        campaign: round.campaign.to_string(),
        vaccine: round.vaccine.to_string(),
        doses: round.doses,
        accepted: round.accepted,
        state: stage.into(),
        commitment: round.commitment.to_string(),
        seed: round.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        list_root: round
            .list_root
            .map(|root| root.to_string())
            .unwrap_or_default(),
        candidates: round.candidates,
        offer_time: Some(timestamp(round.offered_at)),
        draw_time: Some(timestamp(round.draws_at)),
        close_time: Some(timestamp(round.closes_at)),
    }
}

fn place_of(place: Place) -> pb::Place {
    pb::Place {
        state: state(place.state).into(),
        offer_time: place.offered_at.map(timestamp),
        deadline: place.deadline.map(timestamp),
        end_time: place.ended_at.map(timestamp),
        ticket: place.ticket,
    }
}

const fn state(state: PlaceState) -> pb::PlaceState {
    match state {
        PlaceState::Waiting => pb::PlaceState::Waiting,
        PlaceState::Offered => pb::PlaceState::Offered,
        PlaceState::Accepted => pb::PlaceState::Accepted,
        PlaceState::Declined => pb::PlaceState::Declined,
        PlaceState::Expired => pb::PlaceState::Expired,
        PlaceState::Left => pb::PlaceState::Left,
        PlaceState::Passed => pb::PlaceState::Passed,
    }
}

fn wish(wish: Wish) -> pb::Wish {
    pb::Wish {
        districts: wish.districts,
        near: wish.near.map(|near| pb::Near {
            latitude: near.latitude,
            longitude: near.longitude,
            distance_metres: near.distance_metres,
        }),
        vaccines: wish.vaccines.iter().map(ToString::to_string).collect(),
        from_minute: wish.from_minute,
        to_minute: wish.to_minute,
    }
}
