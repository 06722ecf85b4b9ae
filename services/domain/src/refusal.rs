//! The expected answers that are not a yes: part of the API, only ever added to.
//!
//! Invariant: a refusal says that this attempt wrote nothing.

/// How a refusal is to be understood; the edge maps it to a gRPC code in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request can never succeed as it is.
    Malformed,
    /// Who asks is not proven.
    Unauthenticated,
    /// Who asks may not.
    Forbidden,
    /// What is asked about does not exist.
    NotFound,
    /// The state of the world says no; choose again or wait.
    Precondition,
    /// It exists already.
    AlreadyExists,
    /// A limit for this caller or person is reached.
    Exhausted,
    /// The system is too busy or in transition; the same request may succeed later.
    Unavailable,
    /// The outcome is not known; repeat the same request id.
    Unknown,
    /// Not built.
    Unimplemented,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $class:ident, $help:literal;)+) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal {
            $($(#[$doc])* #[doc = $help] $name,)+
        }

        impl Refusal {
            /// Every refusal, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable reason, as in `ErrorInfo.reason`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// How it is to be understood.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }

            /// What happened and what to do, for the message of the error.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)+ }
            }

            /// The refusal of a stable reason; `None` for an unknown one.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|refusal| refusal.code() == code)
            }
        }
    };
}

refusals! {
    Invalid = "INVALID_REQUEST", Malformed,
        "A field is missing or wrong; the details name each one. Correct them and send again.";
    RequestIdReused = "REQUEST_ID_REUSED", Malformed,
        "This request_id was used for another request. Make a new request_id for a new intent.";
    PageTokenInvalid = "PAGE_TOKEN_INVALID", Malformed,
        "The page token does not belong to this listing. Start again without one.";
    CallerUnknown = "CALLER_UNKNOWN", Unauthenticated,
        "The calling system is not proven. Present a client certificate or a signed caller token.";
    CallerForbidden = "CALLER_FORBIDDEN", Forbidden,
        "The role of this calling system may not use this method.";
    AssertionInvalid = "ASSERTION_INVALID", Unauthenticated,
        "The identity assertion is not one of a trusted provider for this audience. Sign in again.";
    AssertionExpired = "ASSERTION_EXPIRED", Unauthenticated,
        "The identity assertion is too old. Sign in again.";
    PermitInvalid = "PERMIT_INVALID", Unauthenticated,
        "The permit was not signed by identity. Ask for a permit again.";
    PermitExpired = "PERMIT_EXPIRED", Unauthenticated,
        "The permit has expired. Ask for it again; the place in line is kept.";
    PermitForeignCaller = "PERMIT_FOREIGN_CALLER", Unauthenticated,
        "The permit was issued through another calling system. Ask for it through this one.";
    PermitForeignRegion = "PERMIT_FOREIGN_REGION", Forbidden,
        "The permit is for another region. Choose a clinic of the permit's region.";
    PermitForeignCampaign = "PERMIT_FOREIGN_CAMPAIGN", Forbidden,
        "The slot does not belong to the permit's campaign.";
    PermitSuperseded = "PERMIT_SUPERSEDED", Unauthenticated,
        "A newer permit of this person is in force. Ask for the permit again.";
    NotEligible = "NOT_ELIGIBLE", Forbidden,
        "The person's birth date is in none of the campaign's cohorts.";
    RegionBound = "REGION_BOUND", Precondition,
        "The person's permit is bound to another region of this campaign; the details say which. Change it with ChangeRegion.";
    RegionNotInCampaign = "REGION_NOT_IN_CAMPAIGN", Precondition,
        "The campaign does not run in this region. Choose one of the campaign's regions.";
    CampaignUnknown = "CAMPAIGN_UNKNOWN", NotFound,
        "There is no such campaign.";
    CampaignEnded = "CAMPAIGN_ENDED", Precondition,
        "The campaign's last appointment has passed.";
    NotAdmitted = "NOT_ADMITTED", Precondition,
        "The person's turn has not come. Ask again after the time given; the place is kept.";
    RoomPaused = "ROOM_PAUSED", Precondition,
        "New holds and bookings are paused. Ask again after the time given; the place is kept.";
    RoomEnded = "ROOM_ENDED", Precondition,
        "The cohort's booking time has ended.";
    DrawStepRefused = "DRAW_STEP_REFUSED", Precondition,
        "The draw's step cannot be taken now; the details say why. Steps are commit, freeze, reveal, beacon and doors.";
    ClinicUnknown = "CLINIC_UNKNOWN", NotFound,
        "There is no such clinic in this region.";
    SlotUnknown = "SLOT_UNKNOWN", NotFound,
        "There is no such slot at this clinic.";
    SlotFull = "SLOT_FULL", Precondition,
        "The slot has no place left. Choose another.";
    SlotClosed = "SLOT_CLOSED", Precondition,
        "The clinic has closed this slot, or it has begun. Choose another.";
    SlotsMismatch = "SLOTS_MISMATCH", Precondition,
        "Two slots must be dose 1 and dose 2 of one vaccine at one clinic, in the campaign's interval.";
    HoldExpired = "HOLD_EXPIRED", Precondition,
        "The hold is over and its places were given back. Choose again.";
    AlreadyHeld = "ALREADY_HELD", AlreadyExists,
        "The person has a live hold. Confirm or release it first.";
    AlreadyBooked = "ALREADY_BOOKED", AlreadyExists,
        "The person has a booking in this campaign. Move or cancel it instead.";
    ClaimVersionStale = "CLAIM_VERSION_STALE", Precondition,
        "The person's booking changed since the client looked. Read it, then decide with its claim_version.";
    BookingUnknown = "BOOKING_UNKNOWN", NotFound,
        "This person has no such booking.";
    DoseUnknown = "DOSE_UNKNOWN", Precondition,
        "The booking has no active appointment for this dose.";
    StockExceeded = "STOCK_EXCEEDED", Precondition,
        "Opening these places would exceed the clinic's stock. Deliver stock first or open fewer.";
    BelowBooked = "BELOW_BOOKED", Precondition,
        "More people are booked than the new capacity. Move them first.";
    ClinicForeign = "CLINIC_FOREIGN", Forbidden,
        "The calling system belongs to another clinic. A clinic sees and changes its own data only.";
    SlotExists = "SLOT_EXISTS", AlreadyExists,
        "The clinic has an open slot of this start, vaccine and dose. Resize it, or leave it out.";
    InThePast = "IN_THE_PAST", Precondition,
        "The day or time has passed by the server's clock; what is past is not opened, resized or given.";
    WalkInsExceeded = "WALK_INS_EXCEEDED", Precondition,
        "More walk-in doses would be given than are set aside. Set more aside first.";
    CodeUnknown = "CODE_UNKNOWN", NotFound,
        "No booking of this clinic has this code, nor any of today in this region. Read it again.";
    AppointmentElsewhere = "APPOINTMENT_ELSEWHERE", Precondition,
        "The booking's appointment is at another clinic of this region today.";
    AppointmentOtherDay = "APPOINTMENT_OTHER_DAY", Precondition,
        "The booking's appointment at this clinic is on another day; the details say which.";
    VaccineMismatch = "VACCINE_MISMATCH", Precondition,
        "The appointment is for another vaccine; the details say which.";
    DoseMismatch = "DOSE_MISMATCH", Precondition,
        "The appointment is for another dose; the details say which.";
    NotCheckedIn = "NOT_CHECKED_IN", Precondition,
        "The person has not been checked in. Check in first.";
    AppointmentOver = "APPOINTMENT_OVER", Precondition,
        "The appointment was cancelled or moved away, or its dose has been given.";
    AppointmentBegun = "APPOINTMENT_BEGUN", Precondition,
        "The person has been checked in or has had the dose; the appointment is not moved or cancelled any more.";
    RegionChanging = "REGION_CHANGING", Precondition,
        "A change of region has begun and not ended; the details say where to. Call ChangeRegion with that region, or with the present one to stay.";
    BookingActive = "BOOKING_ACTIVE", Precondition,
        "The person has a booking in the region to be left. Give it up with give_up_booking, or stay.";
    RegionChangeClosed = "REGION_CHANGE_CLOSED", Precondition,
        "Changes of region are not offered from this region.";
    MovingInvalid = "MOVING_INVALID", Unauthenticated,
        "The word that a change of region has begun is not identity's, not of now, or not for this region. Call ChangeRegion again.";
    ReceiptInvalid = "RECEIPT_INVALID", Forbidden,
        "The receipt is not the region's word about the change under way. Call ChangeRegion again.";
    IncidentUnknown = "INCIDENT_UNKNOWN", NotFound,
        "The clinic has no such incident.";
    PlanStale = "PLAN_STALE", Precondition,
        "There is no such plan any more, or none yet. Look at the last one, or preview a new one.";
    PlanApplied = "PLAN_APPLIED", Precondition,
        "The plan has been applied. Preview a new one for those who are still to be moved.";
    PlanInProgress = "PLAN_IN_PROGRESS", Precondition,
        "The plan is being applied. Wait until every line was tried, then preview a new one.";
    NoPlaceInReach = "NO_PLACE_IN_REACH", Precondition,
        "No clinic in reach has a place left for this vaccine and dose. Open places or call the person.";
    NoDayInInterval = "NO_DAY_IN_INTERVAL", Precondition,
        "Places are left, but on no day that keeps the distance to the other dose. Open places or call the person.";
    LeftoversUnknown = "LEFTOVERS_UNKNOWN", NotFound,
        "The clinic has no such round of leftovers.";
    LeftoversClosed = "LEFTOVERS_CLOSED", Precondition,
        "The round of leftovers is over.";
    LeftoversGone = "LEFTOVERS_GONE", Precondition,
        "The round of leftovers has no dose left.";
    LeftoversNotJoined = "LEFTOVERS_NOT_JOINED", Precondition,
        "The person has not asked to be called for leftovers, or has left. Join first.";
    OfferUnknown = "OFFER_UNKNOWN", NotFound,
        "No dose of this round is offered to this person.";
    OfferExpired = "OFFER_EXPIRED", Precondition,
        "The offer's time is over; it goes to the next person.";
    OfferAnswered = "OFFER_ANSWERED", Precondition,
        "The offer was accepted or declined already.";
    CursorExpired = "CURSOR_EXPIRED", Precondition,
        "The watch cursor is older than what is kept. Watch again from the start.";
    Overloaded = "OVERLOADED", Unavailable,
        "Too busy just now. Send the same request again after the time given.";
    RateLimited = "RATE_LIMITED", Exhausted,
        "This caller or person asks too often. Slow down to the time given.";
    Unavailable = "UNAVAILABLE", Unavailable,
        "A part of the system is not reachable. Send the same request again after the time given.";
    NotOwner = "NOT_OWNER", Unavailable,
        "Another instance decides this shard now.";
    WrongShard = "WRONG_SHARD", Unavailable,
        "The clinic moved to another shard.";
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unknown,
        "The outcome is not known in time. Send the same request_id again: the answer is the recorded one.";
    NotImplemented = "NOT_IMPLEMENTED", Unimplemented,
        "This method is part of the API but not offered yet.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_screaming() {
        let mut seen = std::collections::BTreeSet::new();
        for refusal in Refusal::ALL {
            let code = refusal.code();
            assert!(seen.insert(code), "{code} twice");
            assert!(code.len() <= 63 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
            assert_eq!(Refusal::from_code(code), Some(*refusal));
        }
    }
}
