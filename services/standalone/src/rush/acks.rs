//! What the services acknowledged: the client's side of the truth, to be held against the ledgers.

use domain::{BookingId, ClaimVersion, RequestId, SlotId};

/// What was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A booking, at once or by confirming a hold.
    Booked,
    /// A hold.
    Held,
    /// A booking at another slot.
    Moved,
    /// A booking given up.
    Cancelled,
}

/// One acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    /// The person, as the permit names them.
    pub person: [u8; 16],
    /// The region's number in the rush.
    pub region: u8,
    /// What was acknowledged.
    pub kind: Kind,
    /// Under which request.
    pub request: RequestId,
    /// Which booking.
    pub booking: BookingId,
    /// First dose and second; 0 = none.
    pub slots: [SlotId; 2],
    /// The claim's version afterwards.
    pub version: ClaimVersion,
}
