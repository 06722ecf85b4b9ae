//! `ReleaseHold`: decided by the shard of the hold's clinic.

use proto::booking::ReleaseHoldRequest;
use proto::convert::Fields;
use proto::status::Refused;

use super::target::{self, Target};

pub(super) fn parse(request: &ReleaseHoldRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::common(&mut fields, &request.permit, &request.request_id);
    let target = target::hold(&mut fields, &request.hold);
    fields.finish(target)
}
