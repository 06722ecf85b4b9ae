//! The commands as types: how each is wrapped on its way to an inventory and unwrapped on its way back.

use proto::Method;
use proto::booking as pb;
use proto::clinic as terminal;
use proto::inventory::{answer, command};
use proto::leftover;

/// A command of the public API that an inventory answers.
pub(crate) trait Verb: Send + 'static {
    /// Its answer.
    type Response: Send + 'static;
    /// Its method.
    const METHOD: Method;
    /// Wraps it.
    fn into_action(self) -> command::Action;
    /// Unwraps its answer; `None` for another command's.
    fn from_outcome(outcome: answer::Outcome) -> Option<Self::Response>;
}

macro_rules! verbs {
    (
        people { $($name:ident, $request:ident, $response:ident;)+ }
        terminals { $($clinics:ident, $ask:ident, $answer:ident;)+ }
        called { $($called:ident, $join:ident, $joined:ident;)+ }
        rounds { $($rounds:ident, $offer:ident, $offered:ident;)+ }
    ) => {
        $(verbs!(@ $name, pb::$request, pb::$response);)+
        $(verbs!(@ $clinics, terminal::$ask, terminal::$answer);)+
        $(verbs!(@ $called, leftover::$join, leftover::$joined);)+
        $(verbs!(@ $rounds, leftover::$offer, leftover::$offered, boxed);)+

        /// The permit inside a wrapped command; empty where a clinic asks, or ourselves.
        pub(crate) fn permit_of(action: &command::Action) -> &str {
            match action {
                $(command::Action::$name(request) => &request.permit,)+
                $(command::Action::$called(request) => &request.permit,)+
                $(command::Action::$clinics(_) => "",)+
                $(command::Action::$rounds(_) => "",)+
                command::Action::ReadSupply(_) | command::Action::Depart(_) => "",
            }
        }
    };
    (* $response:ident, boxed) => { *$response };
    (* $response:ident) => { $response };
    (@ $name:ident, $request:ty, $response:ty $(, $boxed:ident)?) => {
        impl Verb for $request {
            type Response = $response;
            const METHOD: Method = Method::$name;

            fn into_action(self) -> command::Action {
                command::Action::$name(self)
            }

            fn from_outcome(outcome: answer::Outcome) -> Option<$response> {
                if let answer::Outcome::$name(response) = outcome { Some(verbs!(* response $(, $boxed)?)) } else { None }
            }
        }
    };
}

verbs! {
    people {
        HoldSlots, HoldSlotsRequest, HoldSlotsResponse;
        ConfirmHold, ConfirmHoldRequest, ConfirmHoldResponse;
        ReleaseHold, ReleaseHoldRequest, ReleaseHoldResponse;
        Book, BookRequest, BookResponse;
        MoveBooking, MoveBookingRequest, MoveBookingResponse;
        CancelBooking, CancelBookingRequest, CancelBookingResponse;
        GetBooking, GetBookingRequest, GetBookingResponse;
    }
    terminals {
        DeliverStock, DeliverStockRequest, DeliverStockResponse;
        RecordWastage, RecordWastageRequest, RecordWastageResponse;
        SetWalkIns, SetWalkInsRequest, SetWalkInsResponse;
        RecordWalkIn, RecordWalkInRequest, RecordWalkInResponse;
        OpenSlots, OpenSlotsRequest, OpenSlotsResponse;
        ResizeSlot, ResizeSlotRequest, ResizeSlotResponse;
        CloseSlots, CloseSlotsRequest, CloseSlotsResponse;
        ListAppointments, ListAppointmentsRequest, ListAppointmentsResponse;
        CheckIn, CheckInRequest, CheckInResponse;
        RecordDoseGiven, RecordDoseGivenRequest, RecordDoseGivenResponse;
        RecordNoShow, RecordNoShowRequest, RecordNoShowResponse;
        OpenIncident, OpenIncidentRequest, OpenIncidentResponse;
        PreviewPlan, PreviewPlanRequest, PreviewPlanResponse;
        ApplyPlan, ApplyPlanRequest, ApplyPlanResponse;
        GetIncident, GetIncidentRequest, GetIncidentResponse;
        ListIncidentLines, ListIncidentLinesRequest, ListIncidentLinesResponse;
    }
    called {
        JoinLeftovers, JoinLeftoversRequest, JoinLeftoversResponse;
        LeaveLeftovers, LeaveLeftoversRequest, LeaveLeftoversResponse;
        ListLeftoverOffers, ListLeftoverOffersRequest, ListLeftoverOffersResponse;
        AnswerLeftoverOffer, AnswerLeftoverOfferRequest, AnswerLeftoverOfferResponse;
    }
    rounds {
        OfferLeftovers, OfferLeftoversRequest, OfferLeftoversResponse;
        CloseLeftovers, CloseLeftoversRequest, CloseLeftoversResponse;
        ListLeftovers, ListLeftoversRequest, ListLeftoversResponse;
        GetLeftovers, GetLeftoversRequest, GetLeftoversResponse;
    }
}
