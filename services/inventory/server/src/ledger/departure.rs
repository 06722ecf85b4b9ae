//! Leaving a region: what becomes of one serial of a person, decided once.

use domain::region_change::Departure;
use domain::{Claimant, Refusal, RegionId};

use super::SlotCount;

/// Surrenders a person's serial: the region accepts it never again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurrenderOp {
    /// The person, with the serial that is given up.
    pub claimant: Claimant,
    /// The region that the next serial will be for.
    pub to: RegionId,
    /// Give up an active booking.
    pub give_up_booking: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartureAnswer {
    /// What became of the serial, now or before; or why nothing was decided and nothing written: `BookingActive`,
    /// `AppointmentBegun`.
    pub decided: Result<Departure, Refusal>,
    /// The slots that got places back.
    pub slots: Vec<SlotCount>,
}
