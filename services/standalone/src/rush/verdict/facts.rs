//! What a ledger holds, as far as the verdict needs it.

use std::collections::HashMap;

/// Everything read from one ledger.
#[derive(Default)]
pub(super) struct Facts {
    /// By slot.
    pub(super) slots: HashMap<i64, Counts>,
    /// Of all campaigns: they share the slots.
    pub(super) appointments: Vec<Appointment>,
    /// By person, of the campaign.
    pub(super) claims: HashMap<[u8; 16], Claim>,
    /// When a person first held or booked, of the campaign; microseconds since 1970.
    pub(super) taken: HashMap<[u8; 16], i64>,
    /// By person and request id, of the campaign.
    pub(super) requests: HashMap<([u8; 16], [u8; 16]), Request>,
}

pub(super) struct Counts {
    pub(super) capacity: u64,
    pub(super) booked: u64,
}

pub(super) struct Appointment {
    pub(super) booking: [u8; 16],
    pub(super) slot: i64,
    pub(super) state: String,
    pub(super) person: [u8; 16],
    /// Of the campaign that is judged.
    pub(super) ours: bool,
}

pub(super) struct Claim {
    pub(super) state: String,
    pub(super) serial: u64,
    pub(super) version: u64,
    pub(super) booking: Option<[u8; 16]>,
}

impl Claim {
    pub(super) fn active(&self) -> bool {
        matches!(self.state.as_str(), "HELD" | "BOOKED")
    }
}

pub(super) struct Request {
    pub(super) verdict: String,
    pub(super) booking: [u8; 16],
    pub(super) slots: [u64; 2],
    pub(super) version: u64,
}

/// Where identity says that a person belongs.
pub(super) struct Place {
    pub(super) region: String,
    pub(super) serial: u64,
    pub(super) bucket: u32,
    pub(super) ticket: [u8; 16],
}

pub(super) fn sixteen(bytes: &[u8]) -> anyhow::Result<[u8; 16]> {
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("an id of {} bytes", bytes.len()))
}
