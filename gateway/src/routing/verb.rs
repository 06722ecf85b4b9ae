//! The seven commands as types: how each is wrapped on its way to an inventory and unwrapped on its way back.

use proto::Method;
use proto::booking as pb;
use proto::inventory::{answer, command};

/// A command of the booking API.
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
    ($($name:ident, $request:ident, $response:ident;)+) => {
        $(impl Verb for pb::$request {
            type Response = pb::$response;
            const METHOD: Method = Method::$name;

            fn into_action(self) -> command::Action {
                command::Action::$name(self)
            }

            fn from_outcome(outcome: answer::Outcome) -> Option<pb::$response> {
                if let answer::Outcome::$name(response) = outcome { Some(response) } else { None }
            }
        })+

        /// The permit inside a wrapped command.
        pub(crate) fn permit_of(action: &command::Action) -> &str {
            match action {
                $(command::Action::$name(request) => &request.permit,)+
            }
        }
    };
}

verbs! {
    HoldSlots, HoldSlotsRequest, HoldSlotsResponse;
    ConfirmHold, ConfirmHoldRequest, ConfirmHoldResponse;
    ReleaseHold, ReleaseHoldRequest, ReleaseHoldResponse;
    Book, BookRequest, BookResponse;
    MoveBooking, MoveBookingRequest, MoveBookingResponse;
    CancelBooking, CancelBookingRequest, CancelBookingResponse;
    GetBooking, GetBookingRequest, GetBookingResponse;
}
