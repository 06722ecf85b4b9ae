//! Where the people of a clinic that cannot serve them go: pure, over numbers only.
//!
//! Invariant: the same input gives the same plan, and no plan puts more people into a slot than it has free places.
//!
//! A crate of its own, because it knows nothing of bookings, ledgers or time: a caller numbers its clinics, slots and
//! bookings and translates back. So it is measured alone and checked against brute force.

mod flow;
mod grid;
mod redate;
mod relocate;

pub use flow::{Arc, Flow, Network, solve};
pub use redate::redate;
pub use relocate::relocate;

/// A clinic; its number is its place in the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clinic {
    /// WGS 84 degrees, -90 to 90.
    pub latitude: f64,
    /// WGS 84 degrees, -180 to 180.
    pub longitude: f64,
    /// The district's number.
    pub district: u32,
}

/// A slot with free places; its number is its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The clinic's number.
    pub clinic: u32,
    /// What is given there: a vaccine and a number in its series. People keep to theirs.
    pub kind: u32,
    /// Days since 1970-01-01 at the clinic.
    pub day: i32,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub starts_at: i64,
    /// People it can take besides those it has.
    pub free: u32,
}

/// An appointment that cannot stay where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booking {
    /// The number of the clinic that it is at.
    pub clinic: u32,
    /// What is to be given.
    pub kind: u32,
    /// Days since 1970-01-01 at the clinic.
    pub day: i32,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub starts_at: i64,
    /// The first day that keeps the distance to the other dose.
    pub earliest: i32,
    /// The last day that keeps it.
    pub latest: i32,
}

/// Why there is no place for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmoved {
    /// What is free in reach is not enough for everybody.
    NoPlaceInReach,
    /// There is something free, and none of it on a day that keeps the distance to the other dose.
    NoDayInInterval,
}

/// Where everybody goes, in the order of the bookings: a slot's number, or why nowhere.
pub type Plan = Vec<Result<u32, Unmoved>>;

/// How far a plan looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clinics looked at for each booking: the nearest that have a free place on a day allowed.
    pub clinics: usize,
    /// Days from the old appointment to the new one, before or after.
    pub days: u16,
}

impl Default for Limits {
    /// Fifty clinics is what a person might travel to; after four weeks an appointment is another one.
    fn default() -> Self {
        Self {
            clinics: 50,
            days: 28,
        }
    }
}
