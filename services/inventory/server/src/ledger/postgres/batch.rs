//! A batch of ops as arrays, and the arrays that come back as verdicts.

use std::time::SystemTime;

use domain::command::Done;
use domain::{
    Action, BookingId, ClaimVersion, Op, Recorded, Refusal, SlotId, SlotPair, Timestamp, Verdict,
    booking_code,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::trouble::Garbled;
use super::values::{RequestRow, column, signed, slot_pair, timestamp, unsigned, unsigned_32};
use crate::ledger::{BatchAnswer, BoxError, SlotCount};

/// Ops by columns, sorted by claim, with their turn beside. Indexes count from 1, 0 is none.
pub(super) struct Columns<'a> {
    turn: Vec<i32>,
    fresh: Vec<i32>,
    rest: Vec<i32>,
    campaign: Vec<&'a str>,
    person: Vec<&'a [u8]>,
    serial: Vec<i64>,
    version: Vec<i64>,
    request: Vec<Uuid>,
    hash: Vec<&'a [u8]>,
    method: Vec<&'static str>,
    done: Vec<&'static str>,
    booking: Vec<Uuid>,
    code: Vec<Option<String>>,
    ttl_ms: Vec<i64>,
    first: Vec<i32>,
    second: Vec<i32>,
    slots: Vec<i64>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(ops: &'a [Op]) -> Self {
        let mut sorted: Vec<(usize, &Op)> = ops.iter().enumerate().collect();
        sorted.sort_unstable_by(|(_, a), (_, b)| {
            let key = |op: &'a Op| (&op.claimant.campaign, op.claimant.person);
            key(a).cmp(&key(b))
        });
        let mut slots: Vec<i64> = ops
            .iter()
            .filter_map(|op| op.action.wants())
            .flat_map(SlotPair::iter)
            .map(|slot| signed(slot.0))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        let mut columns = Self::with_capacity(ops.len(), slots);
        columns.turn = vec![0; ops.len()];
        for (turn, op) in sorted {
            columns.push(op);
            columns.turn[turn] = index(columns.person.len());
        }
        columns
    }

    fn with_capacity(number: usize, slots: Vec<i64>) -> Self {
        Self {
            turn: Vec::new(),
            fresh: Vec::with_capacity(number),
            rest: Vec::new(),
            campaign: Vec::with_capacity(number),
            person: Vec::with_capacity(number),
            serial: Vec::with_capacity(number),
            version: Vec::with_capacity(number),
            request: Vec::with_capacity(number),
            hash: Vec::with_capacity(number),
            method: Vec::with_capacity(number),
            done: Vec::with_capacity(number),
            booking: Vec::with_capacity(number),
            code: Vec::with_capacity(number),
            ttl_ms: Vec::with_capacity(number),
            first: Vec::with_capacity(number),
            second: Vec::with_capacity(number),
            slots,
        }
    }

    fn push(&mut self, op: &'a Op) {
        self.campaign.push(op.claimant.campaign.as_str());
        self.person.push(op.claimant.person.as_bytes());
        self.serial.push(signed(op.claimant.serial.0));
        self.version.push(signed(op.claim_version.0));
        self.request.push(op.request.0);
        self.hash.push(&op.body_hash.0);
        self.method.push(op.action.op());
        self.done.push(done(&op.action).code());
        self.booking.push(booking(&op.action).0);
        self.ttl_ms.push(ttl_ms(&op.action));
        let wants = op.action.wants();
        self.code
            .push(wants.map(|_| booking_code::of(booking(&op.action))));
        let at = |slot: SlotId| {
            self.slots
                .binary_search(&signed(slot.0))
                .map_or(0, |at| index(at + 1))
        };
        self.first.push(wants.map_or(0, |slots| at(slots.first)));
        let second = wants.and_then(|slots| slots.second);
        self.second.push(second.map_or(0, at));
        let me = index(self.person.len());
        if wants.is_some() && op.claim_version == ClaimVersion(0) {
            self.fresh.push(me);
        } else {
            self.rest.push(me);
        }
    }

    /// The arguments of `batch_v1` after shard, epoch and sequence.
    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 17] {
        [
            &self.turn,
            &self.fresh,
            &self.rest,
            &self.campaign,
            &self.person,
            &self.serial,
            &self.version,
            &self.request,
            &self.hash,
            &self.method,
            &self.done,
            &self.booking,
            &self.code,
            &self.ttl_ms,
            &self.first,
            &self.second,
            &self.slots,
        ]
    }

    /// The verdicts of the ops given, in their order.
    pub(super) fn answer(&self, ops: &[Op], row: &Row) -> Result<BatchAnswer, BoxError> {
        let answer = Answer::read(row)?;
        let mut verdicts = Vec::with_capacity(ops.len());
        for (op, at) in ops.iter().zip(&self.turn) {
            let at = usize::try_from(*at - 1)?;
            verdicts.push(answer.verdict(op, at)?);
        }
        Ok(BatchAnswer {
            verdicts,
            slots: slot_counts(row)?,
        })
    }
}

struct Answer<'a> {
    now: Timestamp,
    refusal: Vec<Option<&'a str>>,
    version: Vec<Option<i64>>,
    recorded: Vec<Option<&'a str>>,
    booking: Option<Vec<Option<Uuid>>>,
    first: Option<Vec<Option<i64>>>,
    second: Option<Vec<Option<i64>>>,
    until: Option<Vec<Option<SystemTime>>>,
}

impl<'a> Answer<'a> {
    fn read(row: &'a Row) -> Result<Self, BoxError> {
        Ok(Self {
            now: timestamp(column(row, "o_now")?),
            refusal: column(row, "o_refusal")?,
            version: column(row, "o_version")?,
            recorded: column(row, "o_recorded")?,
            booking: column(row, "o_booking")?,
            first: column(row, "o_first")?,
            second: column(row, "o_second")?,
            until: column(row, "o_until")?,
        })
    }

    fn verdict(&self, op: &Op, at: usize) -> Result<Verdict, BoxError> {
        let version = self.version.get(at).copied().flatten();
        if let Some(code) = self.refusal.get(at).copied().flatten() {
            return Ok(Verdict::Refused {
                refusal: Refusal::from_code(code).ok_or(Garbled("refusal"))?,
                claim_version: version.map(|version| ClaimVersion(unsigned(version))),
            });
        }
        if let Some(verdict) = self.recorded.get(at).copied().flatten() {
            let request = RequestRow {
                verdict,
                booking: cell(self.booking.as_deref(), at),
                first: cell(self.first.as_deref(), at),
                second: cell(self.second.as_deref(), at),
                until: cell(self.until.as_deref(), at),
                version,
            };
            return Ok(Verdict::Exists(request.recorded()?));
        }
        let done = done(&op.action);
        let slots = match op.action.wants() {
            Some(slots) => slots,
            None => {
                let first = cell(self.first.as_deref(), at).ok_or(Garbled("slots"))?;
                slot_pair(first, cell(self.second.as_deref(), at))
            }
        };
        let held = std::time::Duration::from_millis(unsigned(ttl_ms(&op.action)));
        Ok(Verdict::Done(Recorded {
            done,
            booking: booking(&op.action),
            slots,
            hold_until: (done == Done::Held).then(|| self.now.plus(held)),
            claim_version: ClaimVersion(op.claim_version.0 + 1),
        }))
    }
}

fn slot_counts(row: &Row) -> Result<Vec<SlotCount>, BoxError> {
    let slots: Vec<i64> = column(row, "o_slot")?;
    let capacity: Option<Vec<Option<i32>>> = column(row, "o_capacity")?;
    let free: Option<Vec<i32>> = column(row, "o_free")?;
    let open: Option<Vec<bool>> = column(row, "o_open")?;
    let (Some(capacity), Some(free), Some(open)) = (capacity, free, open) else {
        return Ok(Vec::new());
    };
    let all = slots.into_iter().zip(capacity).zip(free).zip(open);
    Ok(all
        .filter_map(|(((slot, capacity), free), open)| {
            // No capacity: there is no such slot.
            capacity.map(|capacity| SlotCount {
                slot: SlotId(unsigned(slot)),
                capacity: unsigned_32(capacity),
                booked: unsigned_32(capacity - free),
                open,
            })
        })
        .collect())
}

fn cell<T: Copy>(column: Option<&[Option<T>]>, at: usize) -> Option<T> {
    column.and_then(|column| column.get(at).copied().flatten())
}

/// A batch has at most 512 ops, so every index fits.
fn index(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

fn done(action: &Action) -> Done {
    match action {
        Action::Book { .. } => Done::Booked,
        Action::Hold { .. } => Done::Held,
        Action::Confirm { .. } => Done::Confirmed,
        Action::Release { .. } => Done::Released,
    }
}

fn booking(action: &Action) -> BookingId {
    match action {
        Action::Book { booking, .. } | Action::Hold { booking, .. } => *booking,
        Action::Confirm { hold } | Action::Release { hold } => *hold,
    }
}

fn ttl_ms(action: &Action) -> i64 {
    match action {
        Action::Hold { ttl, .. } => i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX),
        Action::Book { .. } | Action::Confirm { .. } | Action::Release { .. } => 0,
    }
}
