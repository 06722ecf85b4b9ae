//! What every process of Doseline needs: start and stop, configuration, telemetry, owned tasks, gRPC transport.
//!
//! Invariant: this crate knows no protobuf message and decides nothing about slots, people or rooms.

pub mod boot;
pub mod clock;
pub mod config;
pub mod drain;
pub mod fields;
pub mod metrics;
pub mod readiness;
pub mod secret;
pub mod tasks;
pub mod telemetry;
pub mod transport;

pub use boot::{Boot, boot};
pub use clock::Clock;
pub use drain::Drain;
pub use readiness::Readiness;
pub use tasks::{OnExit, Tasks};
