//! What a hostile caller cannot do: against real processes, real etcd and real PostgreSQL.
//!
//! Invariant: every attack is refused with its own reason, and afterwards the ledgers are as they were before. Each
//! test also makes a request that must succeed, so that nothing is refused for a reason nobody meant.

mod admission;
mod ages;
mod clinics;
mod doses;
mod inside;
mod malformed;
mod permits;
mod races;
mod replays;
mod rooms;
mod signatures;
mod signing;
mod terminals;
mod world;
