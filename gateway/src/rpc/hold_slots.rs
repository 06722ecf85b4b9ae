//! `HoldSlots`: decided by the shard of the slots' clinic.

use proto::booking::HoldSlotsRequest;
use proto::convert::Fields;
use proto::status::Refused;

use super::target::{self, Target};

pub(super) fn parse(request: &HoldSlotsRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::common(&mut fields, &request.permit, &request.request_id);
    let target = target::slots(&mut fields, &request.slots);
    fields.finish(target)
}
