//! The public face: recognises callers, answers reads from memory, brings commands to whoever decides them.
//!
//! Invariant: a gateway keeps nothing that matters, admits nobody and signs nothing; killing one loses nothing.

mod availability;
pub mod callers;
pub mod config;
mod early;
mod metrics;
mod permits;
mod report;
mod room;
mod routing;
mod rpc;
mod server;
pub mod shedding;
mod web;

pub use config::{
    CallerSettings, Config, Raw, RawCallers, RawGateway, RawShedding, Settings, Shedding,
};
pub use routing::{INTERNAL_HEADER, NotAHeader};
pub use server::{
    Fault, Gateway, Host, Pages, Parts, callers as recognise_callers, methods, run, start,
};
pub use web::{RawWeb, WebSettings};
