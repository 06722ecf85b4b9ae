//! What only PostgreSQL can get wrong: sessions that die, freeze or are ended in the middle of a write, commits that no
//! standby has, and many writers at once. The rules both backends share are held by the contract suite.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

#[path = "support/postgres.rs"]
pub mod postgres;

#[path = "ledger_postgres/fencing.rs"]
pub mod fencing;
#[path = "ledger_postgres/races.rs"]
pub mod races;
#[path = "ledger_postgres/world.rs"]
pub mod world;
