//! What only PostgreSQL can get wrong: sessions that die, freeze or are ended in the middle of a write, commits that no
//! standby has, and many writers at once. The rules both backends share are held by the contract suite.

#[path = "support/postgres.rs"]
mod postgres;

#[path = "ledger_postgres/fencing.rs"]
mod fencing;
#[path = "ledger_postgres/races.rs"]
mod races;
#[path = "ledger_postgres/world.rs"]
mod world;
