//! What changes something, and the day sheet.

use jiff::ToSpan as _;
use jiff::civil::{Date, Time};
use proto::clinic as pb;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::common::Date as PbDate;
use serde_json::json;

use super::show::{self, Shown};
use super::{Days, Doses, Open, Stock, Terminal};
use crate::client::Called;

/// Rows of a day sheet asked for at once.
const PAGE_SIZE: i32 = 500;
/// Days in one template; the server takes 62.
const DAYS_MAX: usize = 366;

impl Terminal {
    fn connect(&self) -> anyhow::Result<ClinicServiceClient<Called>> {
        Ok(ClinicServiceClient::new(
            self.target.connect_as_clinic(&self.clinic)?,
        ))
    }
}

pub(super) async fn stock(stock: Stock) -> anyhow::Result<()> {
    let (Stock::Deliver(doses) | Stock::Waste(doses) | Stock::WalkIns(doses)) = &stock;
    let Doses {
        terminal,
        vaccine,
        doses,
    } = doses;
    let mut client = terminal.connect()?;
    let (clinic, request_id) = (terminal.clinic.to_string(), terminal.request_id());
    let (vaccine, doses) = (vaccine.clone(), *doses);
    let shown = match &stock {
        Stock::Deliver(_) => {
            let request = pb::DeliverStockRequest {
                clinic,
                request_id: request_id.clone(),
                vaccine,
                doses,
            };
            let answer = client.deliver_stock(request).await?.into_inner();
            Shown::of(request_id, answer.repeated_answer).stock(answer.stock)
        }
        Stock::Waste(_) => {
            let request = pb::RecordWastageRequest {
                clinic,
                request_id: request_id.clone(),
                vaccine,
                doses,
            };
            let answer = client.record_wastage(request).await?.into_inner();
            Shown::of(request_id, answer.repeated_answer)
                .stock(answer.stock)
                .slots(answer.slots)
                .with("short", json!(answer.short))
        }
        Stock::WalkIns(_) => {
            let request = pb::SetWalkInsRequest {
                clinic,
                request_id: request_id.clone(),
                vaccine,
                doses,
            };
            let answer = client.set_walk_ins(request).await?.into_inner();
            Shown::of(request_id, answer.repeated_answer).stock(answer.stock)
        }
    };
    shown.print(terminal.output)
}

pub(super) async fn walk_in(
    terminal: Terminal,
    vaccine: String,
    lot: String,
) -> anyhow::Result<()> {
    let request_id = terminal.request_id();
    let request = pb::RecordWalkInRequest {
        clinic: terminal.clinic.to_string(),
        request_id: request_id.clone(),
        vaccine,
        lot,
    };
    let answer = terminal
        .connect()?
        .record_walk_in(request)
        .await?
        .into_inner();
    Shown::of(request_id, answer.repeated_answer)
        .stock(answer.stock)
        .print(terminal.output)
}

pub(super) async fn open(open: Open) -> anyhow::Result<()> {
    let request_id = open.terminal.request_id();
    let request = pb::OpenSlotsRequest {
        clinic: open.terminal.clinic.to_string(),
        request_id: request_id.clone(),
        campaign: open.campaign,
        vaccine: open.vaccine,
        dose: open.dose,
        days: days(&open.days)?,
        from_minute: minute(open.from),
        to_minute: minute(open.to),
        step_minutes: open.step,
        capacity: open.capacity,
        validate_only: open.preview,
    };
    let answer = open
        .terminal
        .connect()?
        .open_slots(request)
        .await?
        .into_inner();
    let shown = Shown::of(request_id, answer.repeated_answer)
        .stock(answer.stock)
        .slots(answer.slots);
    let shown = if open.preview {
        shown.with("preview", json!(true))
    } else {
        shown
    };
    shown.print(open.terminal.output)
}

fn days(ranges: &[Days]) -> anyhow::Result<Vec<PbDate>> {
    let mut days = Vec::new();
    for Days(from, to) in ranges {
        let mut day = *from;
        while day <= *to && days.len() < DAYS_MAX {
            days.push(pb_date(day));
            day = day.checked_add(1.day())?;
        }
    }
    Ok(days)
}

fn minute(time: Time) -> u32 {
    u32::from(time.hour().unsigned_abs()) * 60 + u32::from(time.minute().unsigned_abs())
}

pub(super) fn pb_date(day: Date) -> PbDate {
    PbDate {
        year: day.year().into(),
        month: day.month().into(),
        day: day.day().into(),
    }
}

pub(super) async fn resize(terminal: Terminal, slot: &str, capacity: u32) -> anyhow::Result<()> {
    let request_id = terminal.request_id();
    let request = pb::ResizeSlotRequest {
        slot: terminal.slot(slot),
        request_id: request_id.clone(),
        capacity,
    };
    let answer = terminal.connect()?.resize_slot(request).await?.into_inner();
    Shown::of(request_id, answer.repeated_answer)
        .stock(answer.stock)
        .slots(answer.slot.into_iter().collect())
        .print(terminal.output)
}

pub(super) async fn close(terminal: Terminal, slots: &[String]) -> anyhow::Result<()> {
    let request_id = terminal.request_id();
    let request = pb::CloseSlotsRequest {
        clinic: terminal.clinic.to_string(),
        request_id: request_id.clone(),
        slots: slots.iter().map(|slot| terminal.slot(slot)).collect(),
    };
    let answer = terminal.connect()?.close_slots(request).await?.into_inner();
    Shown::of(request_id, answer.repeated_answer)
        .stock(answer.stock)
        .slots(answer.slots)
        .print(terminal.output)
}

pub(super) async fn sheet(terminal: Terminal, day: Option<Date>) -> anyhow::Result<()> {
    let mut client = terminal.connect()?;
    let day = day.unwrap_or_else(show::today);
    let (mut rows, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListAppointmentsRequest {
            clinic: terminal.clinic.to_string(),
            day: Some(pb_date(day)),
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = client.list_appointments(request).await?.into_inner();
        rows.extend(page.appointments);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    show::sheet(day, &rows, terminal.output)
}

pub(super) async fn check_in(terminal: Terminal, code: String) -> anyhow::Result<()> {
    let request_id = terminal.request_id();
    let request = pb::CheckInRequest {
        clinic: terminal.clinic.to_string(),
        request_id: request_id.clone(),
        code,
    };
    let answer = terminal.connect()?.check_in(request).await?.into_inner();
    Shown::of(request_id, answer.repeated_answer)
        .appointment(answer.appointment)
        .print(terminal.output)
}

pub(super) async fn given(
    terminal: Terminal,
    code: String,
    vaccine: String,
    lot: String,
    dose: u32,
) -> anyhow::Result<()> {
    let request_id = terminal.request_id();
    let request = pb::RecordDoseGivenRequest {
        clinic: terminal.clinic.to_string(),
        request_id: request_id.clone(),
        code,
        dose,
        vaccine,
        lot,
    };
    let mut client = terminal.connect()?;
    let answer = client.record_dose_given(request).await?.into_inner();
    Shown::of(request_id, answer.repeated_answer)
        .appointment(answer.appointment)
        .stock(answer.stock)
        .print(terminal.output)
}

pub(super) async fn no_show(terminal: Terminal, code: String) -> anyhow::Result<()> {
    let request_id = terminal.request_id();
    let request = pb::RecordNoShowRequest {
        clinic: terminal.clinic.to_string(),
        request_id: request_id.clone(),
        code,
    };
    let answer = terminal
        .connect()?
        .record_no_show(request)
        .await?
        .into_inner();
    Shown::of(request_id, answer.repeated_answer)
        .appointment(answer.appointment)
        .print(terminal.output)
}
