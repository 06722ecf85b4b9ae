//! The method × role table.
//!
//! Invariant: the match is exhaustive and written by hand: adding a method to a proto stops the build here.

use proto::Method;

use super::Role;

/// Whether a role may call a method.
#[must_use]
pub fn may(role: Role, method: Method) -> bool {
    allowed(method).contains(&role)
}

const fn allowed(method: Method) -> &'static [Role] {
    /// Speaks for a person who holds a permit.
    const FOR_PEOPLE: &[Role] = &[Role::Mobile, Role::Clinic];
    /// Public figures.
    const EVERYBODY: &[Role] = &[Role::Mobile, Role::Clinic, Role::Operator, Role::Auditor];
    /// A clinic itself; which clinic is looked at where its name is read.
    const TERMINALS: &[Role] = &[Role::Clinic];
    /// A clinic itself, or an operator for any of them.
    const INCIDENTS: &[Role] = &[Role::Clinic, Role::Operator];
    /// A clinic's own view and those who oversee it.
    const STAFF: &[Role] = &[Role::Clinic, Role::Operator, Role::Auditor];
    match method {
        Method::HoldSlots
        | Method::ConfirmHold
        | Method::ReleaseHold
        | Method::Book
        | Method::MoveBooking
        | Method::CancelBooking
        | Method::GetBooking
        | Method::JoinLeftovers
        | Method::LeaveLeftovers
        | Method::ListLeftoverOffers
        | Method::AnswerLeftoverOffer => FOR_PEOPLE,
        Method::IssuePermit | Method::ChangeRegion | Method::GetPlace => FOR_PEOPLE,
        Method::GetRoom | Method::WatchRoom => EVERYBODY,
        Method::GetDraw
        | Method::ListTickets
        | Method::GetInclusionProof
        | Method::ListRoomVersions => EVERYBODY,
        Method::ListClinics
        | Method::ListSlots
        | Method::WatchAvailability
        | Method::GetSupply
        | Method::ListLeftovers
        | Method::GetLeftovers => EVERYBODY,
        Method::QueryInventory | Method::WatchInventory => STAFF,
        Method::DeliverStock
        | Method::RecordWastage
        | Method::SetWalkIns
        | Method::RecordWalkIn
        | Method::OpenSlots
        | Method::ResizeSlot
        | Method::CloseSlots
        | Method::ListAppointments
        | Method::CheckIn
        | Method::RecordDoseGiven
        | Method::RecordNoShow
        | Method::OfferLeftovers
        | Method::CloseLeftovers => TERMINALS,
        Method::OpenIncident
        | Method::PreviewPlan
        | Method::ApplyPlan
        | Method::GetIncident
        | Method::ListIncidentLines => INCIDENTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out once more, so that a slip in the table is a difference and not a new rule.
    #[test]
    fn the_table_says_what_the_api_promises() {
        for method in Method::ALL.iter().copied() {
            let who: Vec<_> = Role::ALL
                .into_iter()
                .filter(|r| may(*r, method))
                .map(Role::as_str)
                .collect();
            let expected: &[&str] = match method.op() {
                "hold_slots"
                | "confirm_hold"
                | "release_hold"
                | "book"
                | "move_booking"
                | "cancel_booking"
                | "get_booking"
                | "issue_permit"
                | "change_region"
                | "get_place"
                | "join_leftovers"
                | "leave_leftovers"
                | "list_leftover_offers"
                | "answer_leftover_offer" => &["mobile", "clinic"],
                "query_inventory" | "watch_inventory" => &["clinic", "operator", "auditor"],
                "deliver_stock" | "record_wastage" | "set_walk_ins" | "record_walk_in"
                | "open_slots" | "resize_slot" | "close_slots" | "list_appointments"
                | "check_in" | "record_dose_given" | "record_no_show" | "offer_leftovers"
                | "close_leftovers" => &["clinic"],
                "open_incident"
                | "preview_plan"
                | "apply_plan"
                | "get_incident"
                | "list_incident_lines" => &["clinic", "operator"],
                "get_room"
                | "watch_room"
                | "get_draw"
                | "list_tickets"
                | "get_inclusion_proof"
                | "list_room_versions"
                | "list_clinics"
                | "list_slots"
                | "watch_availability"
                | "get_supply"
                | "list_leftovers"
                | "get_leftovers" => &["mobile", "clinic", "operator", "auditor"],
                other => panic!("{other} is new: say here who may call it"),
            };
            assert_eq!(who, expected, "{}", method.op());
        }
    }

    #[test]
    fn an_auditor_changes_nothing() {
        for method in [
            Method::Book,
            Method::HoldSlots,
            Method::CancelBooking,
            Method::IssuePermit,
            Method::ChangeRegion,
        ] {
            assert!(!may(Role::Auditor, method) && !may(Role::Operator, method));
        }
    }
}
