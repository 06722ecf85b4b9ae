//! Who somebody is, and their place in line: verifies assertions, checks the age rule, issues permits, opens rooms.
//!
//! Invariant: an identifier or a birth date of a person is never stored, logged or passed on. Identity knows nothing
//! of slots.

pub mod assertion;
pub mod development;
pub mod eligibility;
pub mod keys;
pub mod metrics;
pub mod people;
pub mod person;
