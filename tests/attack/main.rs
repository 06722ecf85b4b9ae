//! What a hostile caller cannot do: against real processes, real etcd and real PostgreSQL.
//!
//! Invariant: every attack is refused with its own reason, and afterwards the ledgers are as they were before. Each
//! test also makes a request that must succeed, so that nothing is refused for a reason nobody meant.

mod admission;
mod ages;
mod back_doors;
mod clinics;
mod doses;
mod halfway;
mod inside;
mod leftovers;
mod liar;
mod malformed;
mod movers;
mod permits;
mod races;
mod region_changes;
mod replays;
mod rooms;
mod rotation;
mod signatures;
mod signing;
mod straight;
mod terminals;
mod world;
