//! Brings each command to whoever decides it, and is the only place that retries.
//!
//! Invariant: a command is repeated only with the `request_id` it came with, inside its caller's deadline; a route
//! never goes back to a lower epoch.

mod attempt;
mod backoff;
mod line;
mod owners;
mod routes;
mod table;
mod target;
mod verb;
mod watch;

pub(crate) use attempt::{Call, Router};
pub(crate) use backoff::Backoff;
pub use owners::NotAHeader;
pub(crate) use owners::{ANSWER_BYTES_MAX, Connector, Owners};
pub(crate) use routes::{RegionRoutes, Routes};
pub(crate) use table::Addr;
pub(crate) use verb::Verb;
pub(crate) use watch::watch_region;

/// The header of calls between our own services; its value is the shared secret.
pub const INTERNAL_HEADER: &str = "x-doseline-internal";
