//! Identity's signed word: this person, this campaign, this region, this place in line.

pub mod batch;

use serde::{Deserialize, Serialize};

use crate::command::Claimant;
use crate::ids::{CallingSystem, CampaignId, CohortId, PersonId, RegionId, Serial};
use crate::paseto::{SigningKeyWithId, TrustedKeys, Untrusted};
use crate::place::{DrawTicket, Place};
use crate::time::Timestamp;

/// Signed along with every permit and carried by none: a room document never passes for a permit.
pub const PURPOSE: &str = "doseline/permit/v1";
/// A permit is below 700 bytes; anything longer is not one.
pub const LENGTH_MAX: usize = 1_024;
/// How far our own servers' clocks may differ, in seconds, at issue and expiry.
pub const CLOCK_SKEW_SECS: i64 = 30;

/// What identity says about a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The person, blinded.
    pub person: PersonId,
    /// The campaign.
    pub campaign: CampaignId,
    /// The cohort whose room the person waits in.
    pub cohort: CohortId,
    /// The only region in which the person may book.
    pub region: RegionId,
    /// Rises at each change of region.
    pub serial: Serial,
    /// The place in line.
    pub place: Place,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// From when on it is worth nothing; ask again, the place is kept.
    pub expires_at: Timestamp,
    /// The only calling system that may use it.
    pub caller: CallingSystem,
}

/// Why a permit does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not identity's word.
    #[error("not signed by identity")]
    Untrusted(#[from] Untrusted),
    /// Over.
    #[error("expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    person: String,
    campaign: CampaignId,
    cohort: CohortId,
    region: RegionId,
    serial: Serial,
    bucket: u32,
    ticket: String,
    issued_at: i64,
    expires_at: i64,
    caller: CallingSystem,
}

impl Permit {
    /// Signs the permit.
    #[must_use]
    pub fn sign(&self, key: &SigningKeyWithId) -> String {
        let claims = Claims {
            person: hex(self.person.as_bytes()),
            campaign: self.campaign.clone(),
            cohort: self.cohort.clone(),
            region: self.region.clone(),
            serial: self.serial,
            bucket: self.place.bucket,
            ticket: hex(&self.place.ticket.0),
            issued_at: self.issued_at.as_secs(),
            expires_at: self.expires_at.as_secs(),
            caller: self.caller.clone(),
        };
        let message = serde_json::to_vec(&claims).expect("plain fields always serialise");
        key.sign(&message, PURPOSE)
    }

    /// Verifies one permit at `now`.
    pub fn verify(keys: &TrustedKeys, text: &str, now: Timestamp) -> Result<Self, Unusable> {
        if text.len() > LENGTH_MAX {
            return Err(Untrusted::Malformed.into());
        }
        Self::decode(&keys.verify(text, PURPOSE)?, now)
    }

    /// What a text says of itself, not to be believed: good for telling a place in line, for nothing else.
    pub fn unverified(text: &str, now: Timestamp) -> Result<Self, Unusable> {
        if text.len() > LENGTH_MAX {
            return Err(Untrusted::Malformed.into());
        }
        Self::decode(&crate::paseto::unverified(text)?, now)
    }

    /// Reads a message whose signature was verified.
    pub(crate) fn decode(message: &[u8], now: Timestamp) -> Result<Self, Unusable> {
        let claims: Claims = serde_json::from_slice(message).map_err(|_| Untrusted::Malformed)?;
        let permit = Self {
            person: PersonId::from_bytes(unhex(&claims.person).ok_or(Untrusted::Malformed)?),
            campaign: claims.campaign,
            cohort: claims.cohort,
            region: claims.region,
            serial: claims.serial,
            place: Place {
                bucket: claims.bucket,
                ticket: DrawTicket(unhex(&claims.ticket).ok_or(Untrusted::Malformed)?),
            },
            issued_at: Timestamp::from_secs(claims.issued_at),
            expires_at: Timestamp::from_secs(claims.expires_at),
            caller: claims.caller,
        };
        let now = now.as_secs();
        if now >= claims.expires_at || claims.issued_at > now.saturating_add(CLOCK_SKEW_SECS) {
            return Err(Unusable::Expired);
        }
        Ok(permit)
    }

    /// Who asks, for the ledger.
    #[must_use]
    pub fn claimant(&self) -> Claimant {
        Claimant {
            campaign: self.campaign.clone(),
            person: self.person,
            serial: self.serial,
        }
    }
}

pub(crate) fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    // One spelling: 32 lower-case digits.
    let plain = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !plain {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests;
