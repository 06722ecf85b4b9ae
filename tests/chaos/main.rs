//! Things break while people book: owners killed, frozen and drained; etcd, PostgreSQL and single links gone.
//!
//! Invariant: every fault is shown to have hit work under way, and the verdict comes from the ledgers or from callers.

mod drain;
mod frozen;
mod killed;
mod load;
mod rush;
mod watched;
