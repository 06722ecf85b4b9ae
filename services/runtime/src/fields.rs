//! The names of log and span fields, so that a search for one finds every line that carries it.
//!
//! Invariant: a name is never reused for another meaning; none of them carries anything about a person.

/// The caller's idempotency id.
pub const REQUEST_ID: &str = "request.id";
/// The operation, such as `hold_slots`.
pub const OP: &str = "op";
/// `ok`, `refused`, `fault` or `unknown`.
pub const OUTCOME: &str = "outcome";
/// The code of a refusal.
pub const REFUSAL: &str = "refusal";
/// A shard of a region.
pub const SHARD_ID: &str = "shard.id";
/// The number that fences an owner's writes.
pub const EPOCH: &str = "epoch";
/// The inventory instance that decides a shard.
pub const OWNER_ID: &str = "owner.id";
/// The lease behind an owner.
pub const LEASE_ID: &str = "lease.id";
/// A clinic.
pub const CLINIC_ID: &str = "clinic.id";
/// A slot.
pub const SLOT_ID: &str = "slot.id";
/// A hold.
pub const HOLD_ID: &str = "hold.id";
/// A booking.
pub const BOOKING_ID: &str = "booking.id";
/// A campaign.
pub const CAMPAIGN_ID: &str = "campaign.id";
/// A region.
pub const REGION: &str = "region";
/// An error with its whole chain.
pub const ERROR: &str = "error";
/// Who may retry: `caller`, `gateway`, `owner` or `nobody`.
pub const RETRY: &str = "retry";
/// How long something took, in milliseconds.
pub const DURATION_MS: &str = "duration_ms";
/// How many wait in a queue.
pub const QUEUE_DEPTH: &str = "queue_depth";
/// The name of an owned task.
pub const TASK: &str = "task";
/// The trace a line belongs to.
pub const TRACE_ID: &str = "trace.id";
/// How many like lines were left out since the last one.
pub const SUPPRESSED: &str = "suppressed";

/// The span target of remote calls; a log filter can switch it by this name.
pub const RPC_TARGET: &str = "rpc";

/// An error and everything below it, in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}
