//! From what the ledger said to what the caller is told.

use std::sync::Arc;

use domain::command::Done;
use domain::name::{BookingName, ClinicName, HoldName, SlotName};
use domain::{Recorded, RegionId, SlotState, Verdict, booking_code};
use proto::booking::appointment::State;
use proto::booking::{
    Appointment, BookResponse, Booking, CancelBookingResponse, ConfirmHoldResponse,
    GetBookingResponse, Hold, HoldSlotsResponse, MoveBookingResponse, ReleaseHoldResponse,
};
use proto::inventory::answer::Outcome;
use proto::inventory::{Answer, FieldViolation, Owner, Refused as PbRefused};
use proto::status::Refused;
use proto::{convert, status};

use crate::ledger::{AppointmentState, ClaimState, ClaimView};
use crate::owner::{Answered, Call, CallKind};

/// A refusal as it travels to the gateway.
pub(super) fn refused(id: u64, refused: Refused, owner: Option<Owner>) -> Answer {
    let wait = refused.retry_after.map_or(0, |after| after.as_millis());
    let outcome = Outcome::Refused(PbRefused {
        reason: refused.refusal.code().to_owned(),
        retry_after_ms: u32::try_from(wait).unwrap_or(u32::MAX),
        claim_version: refused.claim_version.map(|version| version.0),
        violations: refused
            .violations
            .into_iter()
            .map(|(field, problem)| FieldViolation { field, problem })
            .collect(),
        owner,
    });
    Answer {
        call_id: id,
        outcome: Some(outcome),
    }
}

/// An owner's or the ledger's answer as it travels to the gateway.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of command")]
pub(super) fn answer(answered: Answered<Call>) -> Answer {
    let Answered {
        call,
        verdict,
        slots,
    } = answered;
    let (recorded, repeated) = match verdict {
        Verdict::Done(recorded) => (recorded, false),
        Verdict::Exists(recorded) => (recorded, true),
        Verdict::Refused {
            refusal,
            claim_version,
        } => {
            return refused(
                call.id,
                Refused::from(refusal).with_claim_version(claim_version),
                None,
            );
        }
    };
    let region = &call.names.region;
    let claim_version = recorded.claim_version.0;
    let repeated_answer = repeated;
    let outcome = match call.kind {
        CallKind::HoldSlots => {
            let hold = hold(region, &recorded, &slots);
            Outcome::HoldSlots(HoldSlotsResponse {
                hold,
                claim_version,
                repeated_answer,
            })
        }
        CallKind::ConfirmHold => {
            let booking = Some(booking(region, &recorded, &slots));
            Outcome::ConfirmHold(ConfirmHoldResponse {
                booking,
                claim_version,
                repeated_answer,
            })
        }
        CallKind::ReleaseHold => Outcome::ReleaseHold(ReleaseHoldResponse {
            claim_version,
            repeated_answer,
        }),
        CallKind::Book => {
            let booking = Some(booking(region, &recorded, &slots));
            Outcome::Book(BookResponse {
                booking,
                claim_version,
                repeated_answer,
            })
        }
        CallKind::MoveBooking => {
            let booking = Some(booking(region, &recorded, &slots));
            Outcome::MoveBooking(MoveBookingResponse {
                booking,
                claim_version,
                repeated_answer,
            })
        }
        // None of the others is answered with a verdict.
        CallKind::CancelBooking
        | CallKind::GetBooking
        | CallKind::JoinLeftovers
        | CallKind::LeaveLeftovers
        | CallKind::ListLeftoverOffers
        | CallKind::AnswerLeftoverOffer => Outcome::CancelBooking(CancelBookingResponse {
            claim_version,
            repeated_answer,
        }),
    };
    Answer {
        call_id: call.id,
        outcome: Some(outcome),
    }
}

/// Whether answers of the kind name slots; the others need none to be read.
pub(super) const fn shows_slots(kind: CallKind) -> bool {
    match kind {
        CallKind::HoldSlots | CallKind::ConfirmHold | CallKind::Book | CallKind::MoveBooking => {
            true
        }
        CallKind::ReleaseHold
        | CallKind::CancelBooking
        | CallKind::GetBooking
        | CallKind::JoinLeftovers
        | CallKind::LeaveLeftovers
        | CallKind::ListLeftoverOffers
        | CallKind::AnswerLeftoverOffer => false,
    }
}

/// A claim as its holder reads it.
pub(super) fn claim(id: u64, region: &RegionId, claim: Option<&ClaimView>) -> Answer {
    let mut response = GetBookingResponse::default();
    if let Some(claim) = claim {
        response.claim_version = claim.version.0;
        if let Some(booking) = claim.booking {
            let appointments = claim.appointments.iter();
            match claim.state {
                ClaimState::Booked => {
                    response.booking = Some(Booking {
                        name: BookingName {
                            region: region.clone(),
                            booking,
                        }
                        .to_string(),
                        code: booking_code::of(booking),
                        appointments: appointments
                            .map(|one| appointment(region, &one.slot, state(one.state)))
                            .collect(),
                    });
                }
                ClaimState::Held => {
                    let first = claim.appointments.first();
                    response.hold = first.map(|first| Hold {
                        name: hold_name(region, &first.slot, booking),
                        expire_time: claim.hold_until.map(convert::timestamp),
                        slots: appointments
                            .map(|one| slot_name(region, &one.slot))
                            .collect(),
                    });
                }
                ClaimState::Free | ClaimState::Surrendered => {}
            }
        }
    }
    Answer {
        call_id: id,
        outcome: Some(Outcome::GetBooking(response)),
    }
}

fn booking(region: &RegionId, recorded: &Recorded, slots: &[Option<Arc<SlotState>>; 2]) -> Booking {
    let state = match recorded.done {
        Done::Held => State::Held,
        Done::Booked | Done::Confirmed | Done::Moved => State::Booked,
        Done::Released | Done::Cancelled => State::Cancelled,
    };
    Booking {
        name: BookingName {
            region: region.clone(),
            booking: recorded.booking,
        }
        .to_string(),
        code: booking_code::of(recorded.booking),
        appointments: slots
            .iter()
            .flatten()
            .map(|slot| appointment(region, slot, state))
            .collect(),
    }
}

fn hold(
    region: &RegionId,
    recorded: &Recorded,
    slots: &[Option<Arc<SlotState>>; 2],
) -> Option<Hold> {
    let first = slots[0].as_ref()?;
    Some(Hold {
        name: hold_name(region, first, recorded.booking),
        expire_time: recorded.hold_until.map(convert::timestamp),
        slots: slots
            .iter()
            .flatten()
            .map(|slot| slot_name(region, slot))
            .collect(),
    })
}

pub(super) fn appointment(region: &RegionId, slot: &SlotState, state: State) -> Appointment {
    Appointment {
        slot: slot_name(region, slot),
        dose: u32::from(slot.dose),
        state: state.into(),
        start_time: Some(convert::timestamp(slot.starts_at)),
        vaccine: slot.vaccine.to_string(),
    }
}

pub(super) const fn state(state: AppointmentState) -> State {
    match state {
        AppointmentState::CheckedIn => State::CheckedIn,
        AppointmentState::Given => State::Given,
        AppointmentState::NoShow => State::NoShow,
        AppointmentState::Held => State::Held,
        AppointmentState::Booked => State::Booked,
        AppointmentState::Cancelled => State::Cancelled,
    }
}

fn clinic_name(region: &RegionId, slot: &SlotState) -> ClinicName {
    ClinicName {
        region: region.clone(),
        clinic: slot.clinic.clone(),
    }
}

fn slot_name(region: &RegionId, slot: &SlotState) -> String {
    SlotName {
        clinic: clinic_name(region, slot),
        slot: slot.slot,
    }
    .to_string()
}

fn hold_name(region: &RegionId, slot: &SlotState, hold: domain::BookingId) -> String {
    HoldName {
        clinic: clinic_name(region, slot),
        hold,
    }
    .to_string()
}

/// What is told when something around us broke.
pub(super) fn unavailable(id: u64) -> Answer {
    refused(
        id,
        status::Refused::from(domain::Refusal::Unavailable),
        None,
    )
}
