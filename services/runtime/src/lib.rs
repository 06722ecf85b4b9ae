//! What every process of Doseline needs: start and stop, configuration, telemetry, owned tasks, gRPC transport.
//!
//! Invariant: this crate knows no protobuf message and decides nothing about slots, people or rooms.

pub mod boot;
pub mod clock;
pub mod config;
pub mod drain;
mod etcd;
pub mod fields;
pub mod keyspace;
pub mod metrics;
pub mod readiness;
pub mod reload;
pub mod secret;
pub mod signing_keys;
pub mod tasks;
pub mod telemetry;
pub mod transport;
pub mod trusted_keys;

pub use boot::{Boot, boot};
pub use clock::Clock;
pub use drain::Drain;
pub use readiness::Readiness;
pub use tasks::{OnExit, Tasks};
