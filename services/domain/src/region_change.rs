//! The two signed words of a change of region: identity's that it has begun, and the old region's what came of it.
//!
//! Invariant: about one person and one serial a region gives one departure for ever, either left or stayed; so the
//! next serial is issued for one region only.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{CampaignId, PersonId, RegionId, Serial};
use crate::paseto::{SigningKeyWithId, TrustedKeys, Untrusted};
use crate::permit::{CLOCK_SKEW_SECS, Unusable, hex, unhex};
use crate::time::Timestamp;

/// Signed along with every word that a change has begun, and carried by none.
pub const MOVING_PURPOSE: &str = "doseline/moving/v1";
/// Signed along with every receipt, and carried by none.
pub const RECEIPT_PURPOSE: &str = "doseline/receipt/v1";
/// Both are below 700 bytes; anything longer is neither.
pub const LENGTH_MAX: usize = 1_024;
/// For how long a region acts on identity's word; whoever comes later asks identity again.
pub const MOVING_TTL: Duration = Duration::from_secs(300);

/// Identity's word: this person is about to leave `from`, where `serial` is in force, for `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// The campaign.
    pub campaign: CampaignId,
    /// The person, blinded.
    pub person: PersonId,
    /// The serial in force in the region to be left; the next one is issued for whichever region it becomes.
    pub serial: Serial,
    /// The region to be left.
    pub from: RegionId,
    /// The region wanted.
    pub to: RegionId,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// From when on no region acts on it.
    pub expires_at: Timestamp,
}

/// What became of one serial of a person in a region, once for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Surrendered: this serial and every lower one is worth nothing there, and nothing taken with it is active.
    Left {
        /// The region that the next serial is for.
        to: RegionId,
    },
    /// Taken back: the next serial is for the same region.
    Stayed,
}

/// A region's word about a departure. It needs no expiry: what it says stays true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The campaign.
    pub campaign: CampaignId,
    /// The person, blinded.
    pub person: PersonId,
    /// The serial that this is about.
    pub serial: Serial,
    /// The region that speaks.
    pub region: RegionId,
    /// What became of it.
    pub departure: Departure,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MovingClaims {
    person: String,
    campaign: CampaignId,
    serial: Serial,
    from: RegionId,
    to: RegionId,
    issued_at: i64,
    expires_at: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptClaims {
    person: String,
    campaign: CampaignId,
    serial: Serial,
    region: RegionId,
    /// The region gone to; absent for one who stayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_for: Option<RegionId>,
}

// === impl Moving ===

impl Moving {
    /// Signs it with a key of permits.
    #[must_use]
    pub fn sign(&self, key: &SigningKeyWithId) -> String {
        let claims = MovingClaims {
            person: hex(self.person.as_bytes()),
            campaign: self.campaign.clone(),
            serial: self.serial,
            from: self.from.clone(),
            to: self.to.clone(),
            issued_at: self.issued_at.as_secs(),
            expires_at: self.expires_at.as_secs(),
        };
        let message = serde_json::to_vec(&claims).expect("plain fields always serialise");
        key.sign(&message, MOVING_PURPOSE)
    }

    /// Verifies it at `now`.
    pub fn verify(keys: &TrustedKeys, text: &str, now: Timestamp) -> Result<Self, Unusable> {
        let claims: MovingClaims = read(keys, text, MOVING_PURPOSE)?;
        let now = now.as_secs();
        if now >= claims.expires_at || claims.issued_at > now.saturating_add(CLOCK_SKEW_SECS) {
            return Err(Unusable::Expired);
        }
        Ok(Self {
            person: PersonId::from_bytes(unhex(&claims.person).ok_or(Untrusted::Malformed)?),
            campaign: claims.campaign,
            serial: claims.serial,
            from: claims.from,
            to: claims.to,
            issued_at: Timestamp::from_secs(claims.issued_at),
            expires_at: Timestamp::from_secs(claims.expires_at),
        })
    }
}

// === impl Receipt ===

impl Receipt {
    /// Signs it with a key of the region's receipts.
    #[must_use]
    pub fn sign(&self, key: &SigningKeyWithId) -> String {
        let left_for = match &self.departure {
            Departure::Left { to } => Some(to.clone()),
            Departure::Stayed => None,
        };
        let claims = ReceiptClaims {
            person: hex(self.person.as_bytes()),
            campaign: self.campaign.clone(),
            serial: self.serial,
            region: self.region.clone(),
            left_for,
        };
        let message = serde_json::to_vec(&claims).expect("plain fields always serialise");
        key.sign(&message, RECEIPT_PURPOSE)
    }

    /// Verifies it with the keys of one region; one that speaks of another region is not that region's word.
    pub fn verify(keys: &TrustedKeys, region: &RegionId, text: &str) -> Result<Self, Untrusted> {
        let claims: ReceiptClaims = read(keys, text, RECEIPT_PURPOSE)?;
        if claims.region != *region {
            return Err(Untrusted::UnknownKey);
        }
        Ok(Self {
            person: PersonId::from_bytes(unhex(&claims.person).ok_or(Untrusted::Malformed)?),
            campaign: claims.campaign,
            serial: claims.serial,
            region: claims.region,
            departure: match claims.left_for {
                Some(to) => Departure::Left { to },
                None => Departure::Stayed,
            },
        })
    }
}

fn read<T: for<'a> Deserialize<'a>>(
    keys: &TrustedKeys,
    text: &str,
    purpose: &str,
) -> Result<T, Untrusted> {
    if text.len() > LENGTH_MAX {
        return Err(Untrusted::Malformed);
    }
    let message = keys.verify(text, purpose)?;
    serde_json::from_slice(&message).map_err(|_| Untrusted::Malformed)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_626_048_000);

    fn key(seed: u8) -> (SigningKeyWithId, TrustedKeys) {
        let key = SigningKeyWithId::new("k1", SigningKey::from_bytes(&[seed; 32]));
        let public = ("k1".to_owned(), key.verifying_key().to_bytes());
        (key, TrustedKeys::new([public]).expect("a good key"))
    }

    fn region(name: &str) -> RegionId {
        name.parse().expect("slug")
    }

    fn moving() -> Moving {
        Moving {
            campaign: "kr-2021".parse().expect("slug"),
            person: PersonId::from_bytes([7; 16]),
            serial: Serial(3),
            from: region("seoul"),
            to: region("busan"),
            issued_at: NOW,
            expires_at: NOW.plus(MOVING_TTL),
        }
    }

    fn receipt(departure: Departure) -> Receipt {
        Receipt {
            campaign: "kr-2021".parse().expect("slug"),
            person: PersonId::from_bytes([7; 16]),
            serial: Serial(3),
            region: region("seoul"),
            departure,
        }
    }

    #[test]
    fn both_words_are_read_back_and_neither_passes_for_the_other() {
        let (signer, keys) = key(1);
        let text = moving().sign(&signer);
        assert_eq!(Moving::verify(&keys, &text, NOW), Ok(moving()));
        let seoul = region("seoul");
        assert_eq!(
            Receipt::verify(&keys, &seoul, &text),
            Err(Untrusted::BadSignature)
        );
        for departure in [
            Departure::Stayed,
            Departure::Left {
                to: region("busan"),
            },
        ] {
            let text = receipt(departure.clone()).sign(&signer);
            assert_eq!(
                Receipt::verify(&keys, &seoul, &text),
                Ok(receipt(departure))
            );
            let other = Moving::verify(&keys, &text, NOW);
            assert_eq!(other, Err(Untrusted::BadSignature.into()));
        }
    }

    #[test]
    fn a_receipt_of_another_region_or_key_is_none() {
        let (signer, keys) = key(1);
        let text = receipt(Departure::Stayed).sign(&signer);
        let busan = Receipt::verify(&keys, &region("busan"), &text);
        assert_eq!(busan, Err(Untrusted::UnknownKey));
        let (_, others) = key(2);
        let forged = Receipt::verify(&others, &region("seoul"), &text);
        assert_eq!(forged, Err(Untrusted::BadSignature));
    }

    #[test]
    fn nobody_acts_on_a_word_that_is_old_or_from_the_future() {
        let (signer, keys) = key(1);
        let text = moving().sign(&signer);
        let at = |secs| Moving::verify(&keys, &text, Timestamp::from_secs(NOW.as_secs() + secs));
        assert!(at(299).is_ok() && at(-CLOCK_SKEW_SECS).is_ok());
        assert_eq!(at(300), Err(Unusable::Expired));
        assert_eq!(at(-CLOCK_SKEW_SECS - 1), Err(Unusable::Expired));
    }
}
