//! `Book`: decided by the shard of the slots' clinic.

use proto::booking::BookRequest;
use proto::convert::Fields;
use proto::status::Refused;

use super::target::{self, Target};

pub(super) fn parse(request: &BookRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::common(&mut fields, &request.permit, &request.request_id);
    let target = target::slots(&mut fields, &request.slots);
    fields.finish(target)
}
