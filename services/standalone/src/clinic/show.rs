//! Answers as tables for people and as JSON for programs.

use std::io::Write as _;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use proto::availability::Slot;
use proto::booking::appointment::State;
use proto::clinic as pb;
use proto::convert::from_timestamp;
use serde_json::{Map, Value, json};

use super::Output;
use crate::client::print;

/// An answer to a change.
pub(super) struct Shown {
    json: Map<String, Value>,
    tables: Vec<String>,
}

impl Shown {
    pub(super) fn of(request_id: String, repeated_answer: bool) -> Self {
        let mut json = Map::new();
        json.insert("request_id".to_owned(), request_id.into());
        json.insert("repeated_answer".to_owned(), repeated_answer.into());
        let tables = if repeated_answer {
            vec!["answered before to the same request\n".to_owned()]
        } else {
            Vec::new()
        };
        Self { json, tables }
    }

    /// Something that was read: no request of its own.
    pub(super) fn read() -> Self {
        Self {
            json: Map::new(),
            tables: Vec::new(),
        }
    }

    pub(super) fn stock(self, stock: impl IntoIterator<Item = pb::Stock>) -> Self {
        let stock: Vec<_> = stock.into_iter().collect();
        let rows = stock.iter().map(|s| {
            vec![
                s.vaccine.clone(),
                s.received.to_string(),
                s.wasted.to_string(),
                s.walk_in.to_string(),
                s.opened.to_string(),
                s.given.to_string(),
            ]
        });
        let heads = [
            "VACCINE", "RECEIVED", "WASTED", "WALK-IN", "OPENED", "GIVEN",
        ];
        let table = table(&heads, &rows.collect::<Vec<_>>());
        let value = |s: &pb::Stock| {
            json!({
                "vaccine": s.vaccine, "received": s.received, "wasted": s.wasted, "walk_in": s.walk_in,
                "opened": s.opened, "given": s.given, "walk_in_given": s.walk_in_given,
            })
        };
        let values = stock.iter().map(value).collect();
        self.add("stock", values, table)
    }

    pub(super) fn slots(self, slots: Vec<pb::ClinicSlot>) -> Self {
        let rows = slots.iter().map(|s| {
            vec![
                number(&s.name),
                at(s.start_time.as_ref()),
                s.vaccine.clone(),
                s.dose.to_string(),
                s.capacity.to_string(),
                s.booked.to_string(),
                if s.open { "open" } else { "closed" }.to_owned(),
            ]
        });
        let heads = [
            "SLOT", "START", "VACCINE", "DOSE", "CAPACITY", "BOOKED", "STATE",
        ];
        let table = table(&heads, &rows.collect::<Vec<_>>());
        let value = |s: &pb::ClinicSlot| {
            json!({
                "name": s.name, "start_time": instant(s.start_time.as_ref()), "vaccine": s.vaccine,
                "dose": s.dose, "capacity": s.capacity, "booked": s.booked, "open": s.open,
            })
        };
        let values = slots.iter().map(value).collect();
        self.add("slots", values, table)
    }

    pub(super) fn appointment(self, appointment: Option<pb::ClinicAppointment>) -> Self {
        let rows: Vec<_> = appointment.into_iter().collect();
        let table = sheet_table(&rows);
        let value = rows.first().map_or(Value::Null, sheet_json);
        self.add("appointment", value, table)
    }

    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.tables.push(format!("{name}: {value}\n"));
        self.json.insert(name.to_owned(), value);
        self
    }

    pub(super) fn with_table(self, name: &str, value: Value, table: &str) -> Self {
        self.add(name, value, table.to_owned())
    }

    pub(super) fn add(mut self, name: &str, value: Value, table: String) -> Self {
        // Nothing is no table of its own.
        if value.as_array().is_none_or(|rows| !rows.is_empty()) {
            self.tables.push(table);
        }
        self.json.insert(name.to_owned(), value);
        self
    }

    pub(super) fn print(self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Json => print(&Value::Object(self.json)),
            Output::Table => write(&self.tables.concat()),
        }
    }
}

/// A day's appointments.
pub(super) fn sheet(
    day: Date,
    rows: &[pb::ClinicAppointment],
    output: Output,
) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            let rows: Vec<_> = rows.iter().map(sheet_json).collect();
            print(&json!({ "day": day, "appointments": rows }))
        }
        Output::Table => write(&sheet_table(rows)),
    }
}

fn sheet_table(rows: &[pb::ClinicAppointment]) -> String {
    let rows = rows.iter().map(|row| {
        vec![
            row.code.clone(),
            at(row.start_time.as_ref()),
            row.vaccine.clone(),
            row.dose.to_string(),
            state(row)
                .trim_start_matches("STATE_")
                .to_lowercase()
                .replace('_', "-"),
        ]
    });
    let heads = ["CODE", "START", "VACCINE", "DOSE", "STATE"];
    table(&heads, &rows.collect::<Vec<_>>())
}

fn sheet_json(row: &pb::ClinicAppointment) -> Value {
    json!({
        "code": row.code, "start_time": instant(row.start_time.as_ref()), "vaccine": row.vaccine,
        "dose": row.dose, "state": state(row),
    })
}

fn state(row: &pb::ClinicAppointment) -> &'static str {
    State::try_from(row.state).map_or("STATE_UNSPECIFIED", |state| state.as_str_name())
}

/// Slots as everybody sees them.
pub(super) fn inventory(slots: &[Slot]) -> String {
    let rows = slots.iter().map(|s| {
        vec![
            number(&s.name),
            at(s.start_time.as_ref()),
            s.vaccine.clone(),
            s.dose.to_string(),
            s.capacity.to_string(),
            s.left.to_string(),
            if s.closed { "closed" } else { "open" }.to_owned(),
        ]
    });
    let heads = [
        "SLOT", "START", "VACCINE", "DOSE", "CAPACITY", "LEFT", "STATE",
    ];
    table(&heads, &rows.collect::<Vec<_>>())
}

pub(super) fn inventory_json(slots: &[Slot]) -> Value {
    let value = |s: &Slot| {
        json!({
            "name": s.name, "start_time": instant(s.start_time.as_ref()), "vaccine": s.vaccine,
            "dose": s.dose, "capacity": s.capacity, "left": s.left, "closed": s.closed,
        })
    };
    slots.iter().map(value).collect()
}

/// Columns as wide as their widest cell; numbers are read from the right.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let numeric =
        |at: usize| !rows.is_empty() && rows.iter().all(|row| row[at].parse::<i64>().is_ok());
    let columns: Vec<(usize, bool)> = heads
        .iter()
        .enumerate()
        .map(|(at, head)| {
            let widest = rows.iter().map(|row| row[at].chars().count()).max();
            (widest.unwrap_or(0).max(head.chars().count()), numeric(at))
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, (width, right)) in cells.zip(&columns) {
            if *right {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
            }
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut heads.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

pub(super) fn write(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The day it is where this machine is.
pub(super) fn today() -> Date {
    let now = runtime::Clock::system().wall();
    local(now).map_or(Date::ZERO, |at| at.date())
}

fn local(at: domain::Timestamp) -> Option<DateTime> {
    let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
    Some(TimeZone::system().to_datetime(at))
}

/// A start as a person at this machine reads it.
pub(super) fn at(time: Option<&prost_types::Timestamp>) -> String {
    let at = time.and_then(|time| local(from_timestamp(time)));
    at.map_or_else(String::new, |at| {
        format!("{} {:02}:{:02}", at.date(), at.hour(), at.minute())
    })
}

pub(super) fn instant(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.map(|time| from_timestamp(time).to_string())
}

/// The number at the end of a slot's name.
pub(super) fn number(name: &str) -> String {
    name.rsplit('/')
        .next()
        .filter(|n| !n.is_empty())
        .unwrap_or("-")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            vec!["a".to_owned(), "10".to_owned()],
            vec!["한국어".to_owned(), "7".to_owned()],
        ];
        assert_eq!(table(&["X", "N"], &rows), "X     N\na    10\n한국어   7\n");
        assert_eq!(table(&["X", "N"], &[]), "X  N\n");
    }
}
