//! The doorkeeper: moves the rooms' frontiers.

pub mod steer;
