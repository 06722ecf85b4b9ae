//! A person's place in line: two numbers in the permit, and the pure functions that order them.
//!
//! Formulas: design of the room, section 5. Equal ordinals are admitted together.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The random-looking name a person has in the public draw: `HMAC(campaign key, person)`, first 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrawTicket(pub [u8; 16]);

impl fmt::Debug for DrawTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A ticket is one person's for a campaign; it is public only in the sorted list.
        f.write_str("[redacted]")
    }
}

/// Where a person stands: the bucket stamped by identity, and the draw ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 for everybody who had a permit before the freeze.
    pub bucket: u32,
    /// Decides the order inside the bucket.
    pub ticket: DrawTicket,
}

/// `HMAC(campaign_key, person)[0..16]`.
#[must_use]
pub fn draw_ticket(campaign_key: &[u8], person: &crate::ids::PersonId) -> DrawTicket {
    let mut out = [0u8; 16];
    out.copy_from_slice(&hmac_sha256(campaign_key, &[person.as_bytes()])[..16]);
    DrawTicket(out)
}

/// The final seed, prepared for drawing: half the work of a draw is the same for everybody.
#[derive(Clone)]
pub struct DrawKey(Hmac<Sha256>);

impl fmt::Debug for DrawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrawKey")
    }
}

impl DrawKey {
    /// From a final seed.
    #[must_use]
    pub fn new(final_seed: &[u8; 32]) -> Self {
        Self(keyed(final_seed))
    }

    /// `r = u64be(HMAC-SHA256(final_seed, u32be(bucket) || ticket)[0..8])`.
    #[must_use]
    pub fn draw(&self, place: &Place) -> u64 {
        let mut mac = self.0.clone();
        mac.update(&place.bucket.to_be_bytes());
        mac.update(&place.ticket.0);
        let mac: [u8; 32] = mac.finalize().into_bytes().into();
        let mut first = [0u8; 8];
        first.copy_from_slice(&mac[..8]);
        u64::from_be_bytes(first)
    }
}

/// `C + floor(n * r / 2^64)` in 128 bits: the place in line of drawn number `r` in a bucket of `size` after `before`.
#[must_use]
pub fn ordinal(before: u64, size: u64, r: u64) -> u64 {
    let within = (u128::from(size) * u128::from(r)) >> 64;
    // The shift leaves less than `size`, which is a u64.
    before.saturating_add(u64::try_from(within).unwrap_or(u64::MAX))
}

/// `HMAC-SHA256(key, message)`.
#[must_use]
pub fn keyed_hash(key: &[u8], message: &[u8]) -> [u8; 32] {
    hmac_sha256(key, &[message])
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_fill_the_bucket_and_never_leave_it() {
        assert_eq!(ordinal(100, 10, 0), 100);
        assert_eq!(ordinal(100, 10, u64::MAX), 109);
        assert_eq!(ordinal(100, 10, 1 << 63), 105);
        assert_eq!(ordinal(7, 0, u64::MAX), 7);
        assert_eq!(ordinal(0, u64::MAX, u64::MAX), u64::MAX - 1);
    }

    #[test]
    fn the_draw_spreads_people_evenly() {
        let key = DrawKey::new(&[7u8; 32]);
        let mut tenths = [0u32; 10];
        for person in 0u128..20_000 {
            let place = Place {
                bucket: 0,
                ticket: DrawTicket(person.to_be_bytes()),
            };
            tenths[usize::try_from(ordinal(0, 10, key.draw(&place))).expect("below ten")] += 1;
        }
        // 2,000 expected a tenth; 6 sigma is about 255.
        assert!(
            tenths.iter().all(|n| (1_745..2_255).contains(n)),
            "{tenths:?}"
        );
    }
}
