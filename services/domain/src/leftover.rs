//! Leftover doses: who may be called for a round, and in which order; both are pure.
//!
//! Invariant: the order follows from a seed that was committed to before the list was fixed, and from the list. Whoever
//! chose the seed did not know the list, and whoever joined did not know the seed.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{CampaignId, ClinicId, RoundId, VaccineId};
use crate::place::{DrawTicket, keyed_hash};
use crate::room::Bytes32;
use crate::room::list::{ListBuilder, Unsorted};
use crate::time::Timestamp;

mod audit;

pub use audit::{Finding, Report, audit};

/// Hashed into every final seed.
pub const FORMULA: &str = "doseline/leftovers/v1";
/// Minutes of a day; a window ends at most here.
pub const MINUTES_OF_DAY: u32 = 1_440;
/// The mean radius of the Earth.
const EARTH_METRES: f64 = 6_371_008.8;

/// When and where somebody would come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// Districts; none = all.
    pub districts: Vec<String>,
    /// Not farther than this.
    pub near: Option<Near>,
    /// Vaccines; none = any.
    pub vaccines: Vec<VaccineId>,
    /// In minutes after midnight, 0 to 1,439.
    pub from_minute: u32,
    /// In minutes after midnight; above `from_minute`.
    pub to_minute: u32,
}

/// A place and how far from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Near {
    /// WGS 84 degrees, -90 to 90.
    pub latitude: f64,
    /// WGS 84 degrees, -180 to 180.
    pub longitude: f64,
    /// As the crow flies.
    pub distance_metres: u32,
}

/// Where and when doses are left.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    /// The clinic's district.
    pub district: String,
    /// WGS 84 degrees.
    pub latitude: f64,
    /// WGS 84 degrees.
    pub longitude: f64,
    /// What is given.
    pub vaccine: VaccineId,
    /// From when on people may come, in minutes after midnight.
    pub from_minute: u32,
    /// Until when, in minutes after midnight.
    pub to_minute: u32,
}

/// What makes a round's draw another one than every other round's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundKey {
    /// Whose people are called.
    pub campaign: CampaignId,
    /// Whose doses they are.
    pub clinic: ClinicId,
    /// The round.
    pub round: RoundId,
}

/// A list and its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Root of the sorted list, as in RFC 6962.
    pub list_root: Bytes32,
    /// The tickets in the order in which doses are offered to them.
    pub order: Vec<DrawTicket>,
}

/// What became of a place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PlaceState {
    /// Not reached.
    Waiting,
    /// A dose is offered now.
    Offered,
    /// Accepted.
    Accepted,
    /// Declined.
    Declined,
    /// Not answered in time.
    Expired,
    /// The person left, or has accepted another clinic's dose.
    Left,
    /// Passed over when reached: the person had a booking or had moved away.
    Passed,
}

/// One place in the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The draw ticket in lower-case hex.
    pub ticket: String,
    /// What became of it.
    pub state: PlaceState,
    /// When a dose was offered.
    pub offered_at: Option<Timestamp>,
    /// Until when it could be answered.
    pub deadline: Option<Timestamp>,
    /// When it was answered, expired or was passed over.
    pub ended_at: Option<Timestamp>,
}

/// Everything that is published of a round after its draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Which round.
    pub key: RoundKey,
    /// Doses offered.
    pub doses: u32,
    /// SHA-256 of the seed, told before the list was fixed.
    pub commitment: Bytes32,
    /// The seed.
    pub seed: Bytes32,
    /// Root of the sorted list.
    pub list_root: Bytes32,
    /// How many tickets the list has.
    pub candidates: u32,
    /// The places in the order drawn.
    pub places: Vec<Place>,
}

// === impl Wish ===

impl Wish {
    /// Whether the person is to be called for doses there and then: district, distance and vaccine fit, and the hours
    /// have at least a minute in common.
    #[must_use]
    pub fn fits(&self, spot: &Spot) -> bool {
        let district = self.districts.is_empty() || self.districts.contains(&spot.district);
        let vaccine = self.vaccines.is_empty() || self.vaccines.contains(&spot.vaccine);
        let near = self.near.is_none_or(|near| {
            metres(
                (near.latitude, near.longitude),
                (spot.latitude, spot.longitude),
            ) <= f64::from(near.distance_metres)
        });
        let hours = self.from_minute < spot.to_minute && spot.from_minute < self.to_minute;
        district && vaccine && near && hours
    }
}

/// Between two points in WGS 84 degrees, on a sphere (haversine).
fn metres((lat1, lon1): (f64, f64), (lat2, lon2): (f64, f64)) -> f64 {
    let half = |from: f64, to: f64| ((to - from).to_radians() / 2.0).sin().powi(2);
    let h = half(lat1, lat2) + lat1.to_radians().cos() * lat2.to_radians().cos() * half(lon1, lon2);
    2.0 * EARTH_METRES * h.clamp(0.0, 1.0).sqrt().asin()
}

/// A ticket as documents carry it: 32 lower-case hex digits.
#[must_use]
pub fn ticket_text(ticket: &DrawTicket) -> String {
    crate::permit::hex(&ticket.0)
}

/// What is told of a seed before the list is fixed.
#[must_use]
pub fn commitment(seed: &Bytes32) -> Bytes32 {
    Bytes32::sha256(seed.0)
}

/// The order of a list: by `HMAC-SHA256(final_seed, ticket)`, lowest first, where
/// `final_seed = SHA-256(LP("doseline/leftovers/v1") LP(campaign) LP(clinic) u64be(round) root[32] u64be(n) seed[32])`,
/// `LP` = u32be length, then the bytes. The tickets may come in any order; one that comes twice is an error.
pub fn draw(
    key: &RoundKey,
    seed: &Bytes32,
    mut tickets: Vec<DrawTicket>,
) -> Result<Drawn, Unsorted> {
    tickets.sort_unstable();
    let mut list = ListBuilder::new();
    for ticket in &tickets {
        list.push(ticket)?;
    }
    let list = list.finish();
    let mut hash = Sha256::new();
    for text in [FORMULA, key.campaign.as_str(), key.clinic.as_str()] {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        hash.update(length.to_be_bytes());
        hash.update(text);
    }
    hash.update(key.round.0.to_be_bytes());
    hash.update(list.root.0);
    hash.update(list.n.to_be_bytes());
    hash.update(seed.0);
    let final_seed: [u8; 32] = hash.finalize().into();
    tickets.sort_by_cached_key(|ticket| keyed_hash(&final_seed, &ticket.0));
    Ok(Drawn {
        list_root: list.root,
        order: tickets,
    })
}

#[cfg(test)]
mod tests;
