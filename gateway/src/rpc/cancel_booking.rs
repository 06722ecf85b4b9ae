//! `CancelBooking`: any member of the booking's region can do it.

use domain::name::BookingName;
use proto::booking::CancelBookingRequest;
use proto::convert::Fields;
use proto::status::Refused;

use super::target::{self, Target};

pub(super) fn parse(request: &CancelBookingRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::common(&mut fields, &request.permit, &request.request_id);
    let booking = fields.parse::<BookingName>("booking", &request.booking);
    if request.dose > 2 {
        fields.wrong("dose", "must be 1 or 2, or 0 for the whole booking");
    }
    fields.finish(booking.map(|name| Target {
        region: name.region,
        clinic: None,
    }))
}
