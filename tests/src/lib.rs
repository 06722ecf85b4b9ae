//! What the system tests stand on: real processes, real etcd, real PostgreSQL, and a network that can be cut.
//!
//! Invariant: whatever is started here is gone when its value is dropped, and also when the test process is killed.
//! A missing program is an error, never a skipped test.

pub mod await_until;
pub mod cluster;
pub mod etcd;
pub mod ports;
pub mod postgres;
pub mod processes;
pub mod provider;
pub mod scrape;
pub mod tcp_proxy;
pub mod town;
