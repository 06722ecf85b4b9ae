//! Who somebody is, and their place in line: verifies assertions, checks the age rule, issues permits, opens rooms.
//!
//! Invariant: an identifier or a birth date of a person is never stored, logged or passed on. Identity knows nothing
//! of slots.

pub mod assertion;
pub mod caller;
pub mod campaigns;
pub mod config;
pub mod development;
pub mod doorkeeper;
pub mod eligibility;
pub mod issue;
pub mod member;
pub mod metrics;
pub mod people;
pub mod person;
pub mod region_changes;
pub mod rooms;
pub mod rpc;
pub mod server;
pub mod tickets;
pub mod workers;

pub use config::{Config, Raw};
pub use runtime::signing_keys as keys;
pub use server::{Identity, Parts, run, start};
