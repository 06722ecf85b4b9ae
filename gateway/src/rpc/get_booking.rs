//! `GetBooking`: read from the ledger of the region in the name, or of the permit's region.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use domain::name::BookingName;
use domain::{Refusal, RegionId};
use proto::booking::GetBookingRequest;
use proto::convert::Fields;
use proto::status::Refused;
use serde::Deserialize;

use super::target::{self, Target};

/// What signature and length leave for the payload; see `domain::paseto`.
const SIGNATURE_LENGTH: usize = 64;

pub(super) fn parse(request: &GetBookingRequest) -> Result<Target, Refused> {
    let mut fields = Fields::default();
    target::permit(&mut fields, &request.permit);
    let name = fields.parse_optional::<BookingName>("name", &request.name);
    fields.finish(Some(()))?;
    let region = match name {
        Some(name) => name.region,
        None => return of_permit(&request.permit),
    };
    Ok(Target {
        region,
        clinic: None,
    })
}

/// Any member of the region that the permit speaks of.
pub(super) fn of_permit(permit: &str) -> Result<Target, Refused> {
    let region = unverified_region(permit).ok_or(Refusal::PermitInvalid)?;
    Ok(Target {
        region,
        clinic: None,
    })
}

/// The region a permit speaks of, believed only as far as the way to an inventory that verifies it.
fn unverified_region(permit: &str) -> Option<RegionId> {
    #[derive(Deserialize)]
    struct Claims {
        region: RegionId,
    }
    let (payload, _) = permit
        .strip_prefix(domain::paseto::HEADER)?
        .split_once('.')?;
    let mut message = B64.decode(payload).ok()?;
    message.truncate(message.len().checked_sub(SIGNATURE_LENGTH)?);
    serde_json::from_slice::<Claims>(&message)
        .ok()
        .map(|claims| claims.region)
}
