//! What becomes of appointments.

use domain::{BookingId, SlotId};
use rusqlite::params;

use super::super::rows::{appointment_state, parsed};
use super::Terminal;
use crate::ledger::terminal::Candidate;
use crate::ledger::{AppointmentState, ClinicAnswer, SheetRow, VisitChange};

impl Terminal<'_> {
    /// What the code may mean; and whether it has an appointment today at another clinic.
    pub(super) fn candidates(
        &self,
        code: &str,
        today: &[i32],
    ) -> rusqlite::Result<(Vec<Candidate>, bool)> {
        let found: Vec<Candidate> = self
            .db
            .prepare_cached(
                "SELECT b.slot_id, b.booking, b.campaign, b.day, s.vaccine, b.dose,
                    CASE WHEN b.state = 'BOOKED' THEN coalesce(v.state, b.state) ELSE b.state END
                 FROM slot s JOIN booking b ON b.slot_id = s.slot_id
                 LEFT JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking
                 WHERE s.clinic = ?1 AND b.code = ?2 AND b.state <> 'HELD' ORDER BY b.day, b.dose, b.slot_id",
            )?
            .query_map(params![self.clinic, code], |row| {
                Ok(Candidate {
                    slot: SlotId(row.get(0)?),
                    booking: BookingId::from_bytes(row.get(1)?),
                    campaign: parsed(row, 2)?,
                    day: row.get(3)?,
                    vaccine: parsed(row, 4)?,
                    dose: row.get(5)?,
                    state: appointment_state(row, 6)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        if found
            .iter()
            .any(|one| one.state != AppointmentState::Cancelled)
        {
            return Ok((found, false));
        }
        let mut elsewhere = self.db.prepare_cached(
            "SELECT 1 FROM booking WHERE day = ?1 AND code = ?2 AND state = 'BOOKED'",
        )?;
        for day in today {
            if elsewhere.exists(params![day, code])? {
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }

    pub(super) fn visit(
        &self,
        what: &VisitChange,
        meant: &Candidate,
        code: &str,
    ) -> rusqlite::Result<ClinicAnswer> {
        self.db
            .prepare_cached(
                "INSERT INTO visit (slot_id, booking, state, lot, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (slot_id, booking) DO UPDATE SET state = excluded.state, lot = excluded.lot,
                    at = excluded.at",
            )?
            .execute(params![
                meant.slot.0,
                meant.booking.as_bytes(),
                what.after().word(),
                what.lot(),
                self.at.as_micros(),
            ])?;
        let mut stock = Vec::new();
        if let VisitChange::Give { .. } = what {
            self.db
                .prepare_cached(
                    "UPDATE stock SET given = given + 1 WHERE clinic = ?1 AND vaccine = ?2",
                )?
                .execute(params![self.clinic, meant.vaccine.as_str()])?;
            stock.push(self.stock_row(&meant.vaccine)?);
        }
        let slot = self.own(meant.slot)?;
        Ok(ClinicAnswer {
            stock,
            appointment: slot.map(|slot| SheetRow {
                code: code.to_owned(),
                starts_at: slot.starts_at,
                vaccine: slot.vaccine,
                dose: slot.dose,
                state: what.after(),
            }),
            ..ClinicAnswer::default()
        })
    }
}
