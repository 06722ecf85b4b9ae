//! Where a command goes, read from the names in it; and the parts that several commands have in common.

use domain::name::{ClinicName, HoldName, SlotName};
use domain::{ClinicId, RegionId, RequestId};
use proto::convert::Fields;
use proto::status::Refused;

/// Where a command goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The region whose ledger decides.
    pub(crate) region: RegionId,
    /// The clinic whose shard decides; `None` where any member of the region can answer.
    pub(crate) clinic: Option<ClinicId>,
}

impl From<ClinicName> for Target {
    fn from(name: ClinicName) -> Self {
        Self {
            region: name.region,
            clinic: Some(name.clinic),
        }
    }
}

/// A region that this gateway does not serve.
pub(crate) fn unknown_region() -> Refused {
    Refused::invalid(vec![("region".to_owned(), "is not served here".to_owned())])
}

/// Notes what is wrong with the fields that every command has.
pub(super) fn common(fields: &mut Fields, permit: &str, request_id: &str) {
    self::permit(fields, permit);
    self::request_id(fields, request_id);
}

/// Notes a request id that is missing or none.
pub(super) fn request_id(fields: &mut Fields, request_id: &str) {
    if request_id.is_empty() {
        fields.wrong(
            "request_id",
            "is required: a UUID made by the end device before its first try",
        );
    } else {
        fields.parse::<RequestId>("request_id", request_id);
    }
}

/// Notes a permit that cannot be one; whether it is good is for inventories to say.
pub(super) fn permit(fields: &mut Fields, permit: &str) {
    if permit.is_empty() {
        fields.wrong("permit", "is required: ask IssuePermit for it");
    } else if permit.len() > domain::permit::LENGTH_MAX {
        fields.wrong("permit", "is longer than any permit");
    }
}

/// One slot, or two of one clinic.
pub(super) fn slots(fields: &mut Fields, slots: &[String]) -> Option<Target> {
    if !(1..=2).contains(&slots.len()) {
        fields.wrong("slots", "must name one slot, or two of one clinic");
    }
    let names: Vec<_> = slots
        .iter()
        .take(2)
        .enumerate()
        .map(|(at, text)| fields.parse::<SlotName>(&format!("slots[{at}]"), text))
        .collect();
    if let [Some(first), Some(second)] = names.as_slice() {
        if first.clinic != second.clinic {
            fields.wrong("slots[1]", "must be of the same clinic as slots[0]");
        } else if first.slot == second.slot {
            fields.wrong("slots[1]", "must be another slot than slots[0]");
        }
    }
    names
        .into_iter()
        .next()
        .flatten()
        .map(|slot| slot.clinic.into())
}

/// A hold's clinic.
pub(super) fn hold(fields: &mut Fields, hold: &str) -> Option<Target> {
    fields
        .parse::<HoldName>("hold", hold)
        .map(|name| name.clinic.into())
}
