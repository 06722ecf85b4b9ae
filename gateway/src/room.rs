//! Serves rooms and places from memory; admits nobody.
//!
//! Invariant: only documents signed with a room key are served, and never an older one after a newer one.

mod answers;
mod published;
mod rules;
mod standing;
mod state;
mod streams;

pub(crate) use standing::{CohortStanding, RegionStanding};
pub(crate) use state::{Rooms, watch_rooms};
pub(crate) use streams::Streams;
