//! Commands from protobuf to the domain: every wrong field is told at once.

use domain::command::BodyHash;
use domain::name::{BookingName, HoldName, SlotName};
use domain::{
    BookingId, CallingSystem, ClaimVersion, ClinicId, RegionId, RequestId, ShardId, SlotPair,
};
use proto::convert::Fields;
use proto::inventory::{Command, command};
use proto::status::Refused;
use sha2::{Digest as _, Sha256};

use super::leftovers;
use crate::owner::CallKind;

/// A command whose fields are well-formed.
pub(super) struct Parsed {
    pub(super) id: u64,
    pub(super) caller: CallingSystem,
    pub(super) region: RegionId,
    pub(super) shard: ShardId,
    pub(super) timeout_ms: u32,
    pub(super) traceparent: String,
    pub(super) permit: String,
    pub(super) ask: Asked,
}

/// What is asked.
pub(super) enum Asked {
    Take {
        kind: CallKind,
        mutation: Mutation,
        clinic: ClinicId,
        slots: SlotPair,
    },
    Hold {
        kind: CallKind,
        mutation: Mutation,
        hold: BookingId,
    },
    Move {
        mutation: Mutation,
        booking: BookingId,
        dose: u8,
        to: SlotName,
    },
    Cancel {
        mutation: Mutation,
        booking: BookingId,
        dose: Option<u8>,
    },
    Get {
        booking: Option<BookingId>,
    },
    Leftovers(leftovers::Asked),
}

/// What every change carries.
#[derive(Clone, Copy)]
pub(super) struct Mutation {
    pub(super) request: RequestId,
    pub(super) version: ClaimVersion,
    pub(super) body_hash: BodyHash,
}

impl Asked {
    pub(super) fn kind(&self) -> CallKind {
        match self {
            Self::Take { kind, .. } | Self::Hold { kind, .. } => *kind,
            Self::Move { .. } => CallKind::MoveBooking,
            Self::Cancel { .. } => CallKind::CancelBooking,
            Self::Get { .. } => CallKind::GetBooking,
            Self::Leftovers(asked) => asked.kind(),
        }
    }
}

/// Parses one command; on failure its number and every wrong field.
pub(super) fn parse(command: Command) -> Result<Parsed, (u64, Refused)> {
    let id = command.call_id;
    let mut fields = Fields::default();
    let caller = fields.parse("caller", &command.caller);
    let region = fields.parse::<RegionId>("region", &command.region);
    let action = command
        .action
        .and_then(|action| asked(&mut fields, action, region.as_ref()));
    let whole = caller.zip(region).zip(action);
    let ((caller, region), (permit, ask)) =
        fields.finish(whole).map_err(|refused| (id, refused))?;
    Ok(Parsed {
        id,
        caller,
        region,
        shard: ShardId(command.shard),
        timeout_ms: command.timeout_ms,
        traceparent: command.traceparent,
        permit,
        ask,
    })
}

#[expect(clippy::too_many_lines, reason = "one arm for each method of the API")]
fn asked(
    fields: &mut Fields,
    action: command::Action,
    region: Option<&RegionId>,
) -> Option<(String, Asked)> {
    use command::Action;
    match action {
        Action::HoldSlots(r) => {
            let taken = take(
                fields,
                CallKind::HoldSlots,
                &r.request_id,
                r.claim_version,
                &r.slots,
                region,
            );
            Some((r.permit, taken?))
        }
        Action::Book(r) => {
            let taken = take(
                fields,
                CallKind::Book,
                &r.request_id,
                r.claim_version,
                &r.slots,
                region,
            );
            Some((r.permit, taken?))
        }
        Action::ConfirmHold(r) => {
            let held = hold(
                fields,
                CallKind::ConfirmHold,
                &r.request_id,
                r.claim_version,
                &r.hold,
                region,
            );
            Some((r.permit, held?))
        }
        Action::ReleaseHold(r) => {
            let held = hold(
                fields,
                CallKind::ReleaseHold,
                &r.request_id,
                r.claim_version,
                &r.hold,
                region,
            );
            Some((r.permit, held?))
        }
        Action::MoveBooking(r) => {
            let booking = booking(fields, "booking", &r.booking, region);
            let to = fields.parse::<SlotName>("slot", &r.slot);
            if let Some(to) = &to {
                same_region(fields, "slot", &to.clinic.region, region);
            }
            let dose = dose(fields, r.dose);
            let request = fields.parse("request_id", &r.request_id);
            let (request, (booking, (dose, to))) = request.zip(booking.zip(dose.zip(to)))?;
            let body = format!("{booking} {dose} {to}");
            let mutation = mutation(CallKind::MoveBooking, request, r.claim_version, &body);
            Some((
                r.permit,
                Asked::Move {
                    mutation,
                    booking,
                    dose,
                    to,
                },
            ))
        }
        Action::CancelBooking(r) => {
            let booking = booking(fields, "booking", &r.booking, region);
            let dose = if r.dose == 0 {
                Some(None)
            } else {
                dose(fields, r.dose).map(Some)
            };
            let request = fields.parse("request_id", &r.request_id);
            let (request, (booking, dose)) = request.zip(booking.zip(dose))?;
            let body = format!("{booking} {}", r.dose);
            let mutation = mutation(CallKind::CancelBooking, request, r.claim_version, &body);
            Some((
                r.permit,
                Asked::Cancel {
                    mutation,
                    booking,
                    dose,
                },
            ))
        }
        Action::GetBooking(r) => {
            let booking = match r.name.as_str() {
                "" => None,
                name => Some(booking(fields, "name", name, region)?),
            };
            Some((r.permit, Asked::Get { booking }))
        }
        Action::JoinLeftovers(_)
        | Action::LeaveLeftovers(_)
        | Action::ListLeftoverOffers(_)
        | Action::AnswerLeftoverOffer(_) => {
            let (permit, asked) = leftovers::asked(fields, action, region)?;
            Some((permit, Asked::Leftovers(asked)))
        }
        Action::DeliverStock(_)
        | Action::RecordWastage(_)
        | Action::SetWalkIns(_)
        | Action::RecordWalkIn(_)
        | Action::OpenSlots(_)
        | Action::ResizeSlot(_)
        | Action::CloseSlots(_)
        | Action::ListAppointments(_)
        | Action::CheckIn(_)
        | Action::RecordDoseGiven(_)
        | Action::RecordNoShow(_)
        | Action::OfferLeftovers(_)
        | Action::CloseLeftovers(_)
        | Action::ListLeftovers(_)
        | Action::GetLeftovers(_)
        | Action::OpenIncident(_)
        | Action::PreviewPlan(_)
        | Action::ApplyPlan(_)
        | Action::GetIncident(_)
        | Action::ListIncidentLines(_)
        | Action::ReadSupply(_)
        | Action::Depart(_) => {
            fields.wrong("action", "is not a person's");
            None
        }
    }
}

fn take(
    fields: &mut Fields,
    kind: CallKind,
    request: &str,
    version: u64,
    slots: &[String],
    region: Option<&RegionId>,
) -> Option<Asked> {
    let request = fields.parse("request_id", request);
    let names: Vec<_> = slots
        .iter()
        .take(3)
        .enumerate()
        .filter_map(|(at, name)| fields.parse::<SlotName>(&format!("slots[{at}]"), name))
        .collect();
    if !(1..=2).contains(&slots.len()) {
        fields.wrong("slots", "must name one slot, or two: dose 1 and dose 2");
    }
    let first = names.first()?;
    same_region(fields, "slots[0]", &first.clinic.region, region);
    let second = names.get(1);
    if let Some(second) = second {
        if second.clinic != first.clinic {
            fields.wrong("slots[1]", "must be at the clinic of slots[0]");
        }
        if second.slot == first.slot {
            fields.wrong("slots[1]", "must be another slot than slots[0]");
        }
    }
    let pair = SlotPair {
        first: first.slot,
        second: second.map(|name| name.slot),
    };
    let body = format!("{} {} {:?}", first.clinic, pair.first, pair.second);
    let mutation = mutation(kind, request?, version, &body);
    Some(Asked::Take {
        kind,
        mutation,
        clinic: first.clinic.clinic.clone(),
        slots: pair,
    })
}

fn hold(
    fields: &mut Fields,
    kind: CallKind,
    request: &str,
    version: u64,
    name: &str,
    region: Option<&RegionId>,
) -> Option<Asked> {
    let request = fields.parse("request_id", request);
    let name = fields.parse::<HoldName>("hold", name)?;
    same_region(fields, "hold", &name.clinic.region, region);
    let mutation = mutation(kind, request?, version, &name.to_string());
    Some(Asked::Hold {
        kind,
        mutation,
        hold: name.hold,
    })
}

fn booking(
    fields: &mut Fields,
    field: &str,
    name: &str,
    region: Option<&RegionId>,
) -> Option<BookingId> {
    let name = fields.parse::<BookingName>(field, name)?;
    same_region(fields, field, &name.region, region);
    Some(name.booking)
}

fn dose(fields: &mut Fields, dose: u32) -> Option<u8> {
    match dose {
        1 => Some(1),
        2 => Some(2),
        _ => {
            fields.wrong("dose", "must be 1 or 2");
            None
        }
    }
}

/// The gateway routes by the name; a name of another region here is a gateway's mistake or somebody's trick.
fn same_region(fields: &mut Fields, field: &str, named: &RegionId, routed: Option<&RegionId>) {
    if routed.is_some_and(|routed| routed != named) {
        fields.wrong(field, "is of another region than the one asked");
    }
}

/// The version is left out: after a lost answer a client may read it anew and still mean the same request.
fn mutation(kind: CallKind, request: RequestId, version: u64, body: &str) -> Mutation {
    let digest = Sha256::new()
        .chain_update([kind as u8])
        .chain_update(body)
        .finalize();
    let mut half = [0u8; 16];
    half.copy_from_slice(&digest[..16]);
    Mutation {
        request,
        version: ClaimVersion(version),
        body_hash: BodyHash(half),
    }
}
