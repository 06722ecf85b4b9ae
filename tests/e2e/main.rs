//! The whole system in separate processes: real etcd, real PostgreSQL, real gRPC, and a rush judged from the ledgers.

mod hall;
mod room;
mod rush;
