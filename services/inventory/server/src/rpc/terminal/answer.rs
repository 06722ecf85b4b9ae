//! From what the ledger did to what the terminal is told.

use domain::name::{ClinicName, SlotName};
use domain::{ClinicId, RegionId, Timestamp};
use proto::clinic as pb;
use proto::convert::timestamp;
use proto::inventory::answer::Outcome;
use proto::inventory::{Answer, SupplyFigures, SupplyRow as PbSupplyRow};
use proto::leftover::{CloseLeftoversResponse, OfferLeftoversResponse};
use proto::status::Refused;

use super::Kind;
use crate::ledger::{ClinicAnswer, ClinicSlot, ClinicVerdict, SheetRow, StockRow, SupplyRow};
use crate::rpc::answer;
use crate::rpc::leftovers::round_of;

pub(super) fn change(
    id: u64,
    kind: Kind,
    region: &RegionId,
    clinic: &ClinicId,
    verdict: ClinicVerdict,
) -> Answer {
    let (done, repeated_answer) = match verdict {
        ClinicVerdict::Done(done) => (done, false),
        ClinicVerdict::Exists(done) => (done, true),
        ClinicVerdict::Refused(why) => {
            let mut refused = Refused::from(why.refusal);
            refused.violations = why.notes;
            return answer::refused(id, refused, None);
        }
    };
    let clinic = ClinicName {
        region: region.clone(),
        clinic: clinic.clone(),
    };
    Answer {
        call_id: id,
        outcome: Some(outcome(kind, &clinic, done, repeated_answer)),
    }
}

fn outcome(kind: Kind, clinic: &ClinicName, done: ClinicAnswer, repeated_answer: bool) -> Outcome {
    let mut stock: Vec<pb::Stock> = done.stock.into_iter().map(stock_of).collect();
    let slots: Vec<pb::ClinicSlot> = done
        .slots
        .into_iter()
        .map(|slot| slot_of(clinic, slot))
        .collect();
    let appointment = done.appointment.map(appointment_of);
    let round = done.round.map(|round| round_of(&clinic.region, round));
    let only = |stock: &mut Vec<pb::Stock>| stock.pop();
    match kind {
        Kind::DeliverStock => Outcome::DeliverStock(pb::DeliverStockResponse {
            stock: only(&mut stock),
            repeated_answer,
        }),
        Kind::RecordWastage => Outcome::RecordWastage(pb::RecordWastageResponse {
            stock: only(&mut stock),
            slots,
            short: done.short,
            repeated_answer,
        }),
        Kind::SetWalkIns => Outcome::SetWalkIns(pb::SetWalkInsResponse {
            stock: only(&mut stock),
            repeated_answer,
        }),
        Kind::RecordWalkIn => Outcome::RecordWalkIn(pb::RecordWalkInResponse {
            stock: only(&mut stock),
            repeated_answer,
        }),
        Kind::OpenSlots => Outcome::OpenSlots(pb::OpenSlotsResponse {
            slots,
            stock: only(&mut stock),
            repeated_answer,
        }),
        Kind::ResizeSlot => Outcome::ResizeSlot(pb::ResizeSlotResponse {
            slot: slots.into_iter().next(),
            stock: only(&mut stock),
            repeated_answer,
        }),
        Kind::CloseSlots => Outcome::CloseSlots(pb::CloseSlotsResponse {
            slots,
            stock,
            repeated_answer,
        }),
        Kind::CheckIn => Outcome::CheckIn(pb::CheckInResponse {
            appointment,
            repeated_answer,
        }),
        Kind::RecordDoseGiven => Outcome::RecordDoseGiven(pb::RecordDoseGivenResponse {
            appointment,
            stock: only(&mut stock),
            repeated_answer,
        }),
        Kind::OfferLeftovers => Outcome::OfferLeftovers(Box::new(OfferLeftoversResponse {
            round,
            stock: only(&mut stock),
            repeated_answer,
        })),
        Kind::CloseLeftovers => Outcome::CloseLeftovers(Box::new(CloseLeftoversResponse {
            round,
            stock: only(&mut stock),
            repeated_answer,
        })),
        Kind::RecordNoShow => Outcome::RecordNoShow(pb::RecordNoShowResponse {
            appointment,
            repeated_answer,
        }),
    }
}

/// A page of a day sheet, from one row more than it may have if there is another page.
pub(super) fn sheet(id: u64, mut rows: Vec<SheetRow>, limit: u32) -> Answer {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_page_token = rows
        .last()
        .filter(|_| more)
        .map(|last| format!("{} {}", last.starts_at.as_micros(), last.code))
        .unwrap_or_default();
    Answer {
        call_id: id,
        outcome: Some(Outcome::ListAppointments(pb::ListAppointmentsResponse {
            appointments: rows.into_iter().map(appointment_of).collect(),
            next_page_token,
        })),
    }
}

/// A region's figures as they travel to gateways.
pub(super) fn figures(rows: Vec<SupplyRow>, as_of: Timestamp) -> SupplyFigures {
    SupplyFigures {
        rows: rows.into_iter().map(supply_row).collect(),
        as_of: Some(timestamp(as_of)),
    }
}

pub(super) fn supply(id: u64, figures: SupplyFigures) -> Answer {
    Answer {
        call_id: id,
        outcome: Some(Outcome::ReadSupply(figures)),
    }
}

fn supply_row(row: SupplyRow) -> PbSupplyRow {
    PbSupplyRow {
        clinic: row.clinic.to_string(),
        district: row.district,
        vaccine: row.stock.vaccine.to_string(),
        received: row.stock.received,
        wasted: row.stock.wasted,
        walk_in: row.stock.walk_in,
        opened: row.stock.opened,
        held: row.held,
        booked: row.booked,
        given: row.stock.given,
        left: row.left,
    }
}

fn stock_of(row: StockRow) -> pb::Stock {
    pb::Stock {
        vaccine: row.vaccine.to_string(),
        received: row.received,
        wasted: row.wasted,
        walk_in: row.walk_in,
        opened: row.opened,
        given: row.given,
        walk_in_given: row.walk_in_given,
    }
}

fn slot_of(clinic: &ClinicName, slot: ClinicSlot) -> pb::ClinicSlot {
    let name = SlotName {
        clinic: clinic.clone(),
        slot: slot.slot,
    };
    pb::ClinicSlot {
        name: if slot.slot.0 == 0 {
            String::new()
        } else {
            name.to_string()
        },
        start_time: Some(timestamp(slot.starts_at)),
        vaccine: slot.vaccine.to_string(),
        dose: u32::from(slot.dose),
        capacity: slot.capacity,
        booked: slot.booked,
        open: slot.open,
    }
}

fn appointment_of(row: SheetRow) -> pb::ClinicAppointment {
    pb::ClinicAppointment {
        code: row.code,
        start_time: Some(timestamp(row.starts_at)),
        vaccine: row.vaccine.to_string(),
        dose: u32::from(row.dose),
        state: answer::state(row.state).into(),
    }
}
