//! The whole system in separate processes: real etcd, real PostgreSQL, real gRPC, and a rush judged from the ledgers.

mod hall;
mod incident;
mod outage;
mod room;
mod rush;
