//! Owns shards of clinics, decides allocations, writes the region's ledger.
//!
//! Invariant: the ledger decides whose writes count; everything else here makes that fast.

pub mod admission;
pub mod config;
pub mod figures;
mod incident;
pub mod internal;
pub mod lease;
pub mod ledger;
pub mod metrics;
pub mod owner;
pub mod permits;
pub mod placement;
pub mod probe;
mod region;
pub mod rpc;
pub mod server;
mod tail;

pub use owner::Pace;
pub use server::{Inventory, OpenRegion, Parts, run, start};
