//! Page tokens: where a listing goes on, opaque and bound to that listing.
//!
//! Invariant: a token opens only with the fleet's key and with the very filter it was made for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const MAC_BYTES: usize = 16;
/// The longest offset is a clinic's id and two numbers.
const TOKEN_LENGTH_MAX: usize = 256;

/// The key of all gateways of a fleet. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PageKey(Hmac<Sha256>);

/// What a listing is: its method, region and filter, each with its length.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing(Vec<u8>);

impl Listing {
    pub(super) fn of(method: &str) -> Self {
        Self::default().with(method.as_bytes())
    }

    pub(super) fn with(mut self, part: &[u8]) -> Self {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }
}

impl PageKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    pub(super) fn seal(&self, listing: &Listing, offset: &[u8]) -> String {
        let mut bytes = offset.to_vec();
        bytes.extend_from_slice(&self.mac(listing, offset).finalize().into_bytes()[..MAC_BYTES]);
        B64.encode(bytes)
    }

    pub(super) fn open(&self, listing: &Listing, token: &str) -> Option<Vec<u8>> {
        if token.len() > TOKEN_LENGTH_MAX {
            return None;
        }
        let mut bytes = B64.decode(token).ok()?;
        let mac = bytes.split_off(bytes.len().checked_sub(MAC_BYTES)?);
        self.mac(listing, &bytes).verify_truncated_left(&mac).ok()?;
        Some(bytes)
    }

    fn mac(&self, listing: &Listing, offset: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&(listing.0.len() as u64).to_be_bytes());
        mac.update(&listing.0);
        mac.update(offset);
        mac
    }
}

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_for_its_listing_and_key_only() {
        let key = PageKey::new(b"a key of the fleet");
        let listing = Listing::of("list_slots").with(b"seoul").with(b"jongno");
        let token = key.seal(&listing, b"offset");
        assert_eq!(key.open(&listing, &token).as_deref(), Some(&b"offset"[..]));
        let shifted = Listing::of("list_slots").with(b"seouljongno").with(b"");
        let shorter = Listing::of("list_slots").with(b"seoul").with(b"jongn");
        for other in [
            shifted,
            shorter,
            Listing::of("list_clinics").with(b"seoul").with(b"jongno"),
        ] {
            assert_eq!(key.open(&other, &token), None);
        }
        assert_eq!(PageKey::new(b"another key").open(&listing, &token), None);
    }

    #[test]
    fn no_change_of_a_token_opens() {
        let key = PageKey::new(b"a key of the fleet");
        let listing = Listing::of("list_slots");
        let token = key.seal(&listing, b"offset");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(key.open(&listing, &changed), None, "at {at}");
        }
        for strange in ["", "=", "AAAA", "가", &"A".repeat(300)] {
            assert_eq!(key.open(&listing, strange), None);
        }
    }
}
