//! From a provider's identifier to the keyed hashes that stand for a person inside Doseline.
//!
//! Invariant: the identifier goes in and never comes out; without the pepper nobody can try identifiers.

use std::fmt;

use domain::place::{DrawTicket, draw_ticket};
use domain::{CampaignId, PersonId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use runtime::secret::Secret;
use sha2::Sha256;

/// Shorter secrets could be guessed.
pub const SECRET_BYTES_MIN: usize = 32;

/// The keys behind person ids and draw tickets.
#[derive(Clone)]
pub struct Blinding {
    pepper: Secret,
    draw_key: Secret,
}

/// The key behind a campaign's draw tickets.
#[derive(Clone)]
pub struct CampaignKey([u8; 32]);

/// A secret is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have at least {SECRET_BYTES_MIN} bytes")]
pub struct TooShort;

// === impl Blinding ===

impl Blinding {
    /// From the pepper of person ids and the key of draws.
    pub fn new(pepper: Secret, draw_key: Secret) -> Result<Self, TooShort> {
        if pepper.expose().len() < SECRET_BYTES_MIN || draw_key.expose().len() < SECRET_BYTES_MIN {
            return Err(TooShort);
        }
        Ok(Self { pepper, draw_key })
    }

    /// `HMAC-SHA256(pepper, identifier)[0..16]`: the same person whichever provider vouches for them.
    #[must_use]
    pub fn person(&self, identifier: &str) -> PersonId {
        let mut id = [0; 16];
        id.copy_from_slice(&hmac(self.pepper.expose(), identifier.as_bytes())[..16]);
        PersonId::from_bytes(id)
    }

    /// `HMAC-SHA256(draw key, "draw/" + campaign)`: tickets of two campaigns cannot be linked.
    #[must_use]
    pub fn campaign_key(&self, campaign: &CampaignId) -> CampaignKey {
        CampaignKey(hmac(
            self.draw_key.expose(),
            format!("draw/{campaign}").as_bytes(),
        ))
    }
}

impl CampaignKey {
    /// The person's ticket in this campaign's draws.
    #[must_use]
    pub fn ticket(&self, person: &PersonId) -> DrawTicket {
        draw_ticket(&self.0, person)
    }
}

impl fmt::Debug for Blinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for CampaignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blinding(pepper: u8) -> Blinding {
        Blinding::new(Secret::new([pepper; 32]), Secret::new([9; 32])).expect("long enough")
    }

    #[test]
    fn a_person_is_the_same_for_ever_and_another_under_another_pepper() {
        let person = blinding(1).person("ci-0001");
        assert_eq!(person, blinding(1).person("ci-0001"));
        assert_ne!(person, blinding(1).person("ci-0002"));
        assert_ne!(person, blinding(2).person("ci-0001"));
        // HMAC-SHA256 of "ci-0001" under 32 bytes of 1, computed by Python's hmac.
        assert_eq!(
            hex::encode(person.as_bytes()),
            "0961ec7077206ab86cf8bd29a222b05e"
        );
    }

    #[test]
    fn tickets_of_two_campaigns_have_nothing_in_common() {
        let blinding = blinding(1);
        let person = blinding.person("ci-0001");
        let key = |campaign: &str| blinding.campaign_key(&campaign.parse().expect("slug"));
        assert_eq!(key("a").ticket(&person), key("a").ticket(&person));
        assert_ne!(key("a").ticket(&person), key("b").ticket(&person));
    }

    #[test]
    fn nothing_of_the_keys_prints_and_short_keys_are_refused() {
        let key = blinding(1).campaign_key(&"a".parse().expect("slug"));
        assert_eq!(
            format!("{:?} {key:?}", blinding(7)),
            "[redacted] [redacted]"
        );
        assert!(Blinding::new(Secret::new([1; 31]), Secret::new([9; 32])).is_err());
        assert!(Blinding::new(Secret::new([1; 32]), Secret::new([9; 31])).is_err());
    }
}
