//! `MoveBooking`: decided by the shard of the clinic that is wanted instead.

use domain::name::{BookingName, SlotName};
use proto::booking::MoveBookingRequest;
use proto::convert::Fields;
use proto::status::Refused;

use super::target::{self, Target};

pub(super) fn parse(request: &MoveBookingRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::common(&mut fields, &request.permit, &request.request_id);
    let booking = fields.parse::<BookingName>("booking", &request.booking);
    if !(1..=2).contains(&request.dose) {
        fields.wrong("dose", "must be 1 or 2");
    }
    let slot = fields.parse::<SlotName>("slot", &request.slot);
    if let (Some(booking), Some(slot)) = (&booking, &slot)
        && booking.region != slot.clinic.region
    {
        fields.wrong("slot", "must be in the booking's region");
    }
    fields.finish(slot.map(|slot| slot.clinic.into()))
}
