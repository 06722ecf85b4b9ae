//! Many permits verified together: about half the work of one by one.
//!
//! Invariant: what single strict verification refuses is refused here. A batch equation alone is weaker: it may
//! pass signatures whose point R lies outside the prime-order group. Keys are checked when they become trusted
//! ([`TrustedKeys::new`]); encodings of R that are not canonical or of small order are sent to strict verification
//! one by one. What is left, R with a torsion component under an honest key, nobody can make without that key.

use std::sync::LazyLock;

use curve25519_dalek::constants::EIGHT_TORSION;

use super::{LENGTH_MAX, PURPOSE, Permit, Unusable};
use crate::paseto::{Parsed, TrustedKeys, Untrusted};
use crate::time::Timestamp;

/// Verifies permits at `now`; one verdict for each, in their order. Good sizes are 16 to 128.
#[must_use]
pub fn verify_all(
    keys: &TrustedKeys,
    texts: &[&str],
    now: Timestamp,
) -> Vec<Result<Permit, Unusable>> {
    let mut verdicts: Vec<_> = texts
        .iter()
        .map(|_| Err(Untrusted::BadSignature.into()))
        .collect();
    let mut parsed = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let one = if text.len() > LENGTH_MAX {
            Err(Untrusted::Malformed)
        } else {
            keys.parse(text, PURPOSE)
        };
        match one {
            Ok(one) if is_plain(one.signature.r_bytes()) => parsed.push((at, one)),
            Ok(one) => verdicts[at] = strict(&one, now),
            Err(why) => verdicts[at] = Err(why.into()),
        }
    }
    settle(&parsed, now, &mut verdicts);
    verdicts
}

/// Bisects until the bad ones are alone: honest ones beside them still pass.
fn settle(parsed: &[(usize, Parsed)], now: Timestamp, verdicts: &mut [Result<Permit, Unusable>]) {
    match parsed {
        [] => {}
        [(at, one)] => verdicts[*at] = strict(one, now),
        many if holds(many) => {
            for (at, one) in many {
                verdicts[*at] = Permit::decode(&one.message, now);
            }
        }
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            settle(left, now, verdicts);
            settle(right, now, verdicts);
        }
    }
}

fn holds(many: &[(usize, Parsed)]) -> bool {
    let messages: Vec<_> = many.iter().map(|(_, one)| one.signed.as_slice()).collect();
    let signatures: Vec<_> = many.iter().map(|(_, one)| one.signature).collect();
    let keys: Vec<_> = many.iter().map(|(_, one)| one.key).collect();
    ed25519_dalek::verify_batch(&messages, &signatures, &keys).is_ok()
}

fn strict(one: &Parsed, now: Timestamp) -> Result<Permit, Unusable> {
    one.key
        .verify_strict(&one.signed, &one.signature)
        .map_err(|_| Untrusted::BadSignature)?;
    Permit::decode(&one.message, now)
}

/// Whether R's encoding is canonical and not one of the eight points of small order.
fn is_plain(r: &[u8; 32]) -> bool {
    static SMALL_ORDER: LazyLock<[[u8; 32]; 8]> =
        LazyLock::new(|| EIGHT_TORSION.map(|point| point.compress().to_bytes()));
    // y >= 2^255 - 19 is written with all middle bytes 0xFF and a first byte from 0xED on.
    let above = r[31] & 0x7F == 0x7F && r[1..31].iter().all(|b| *b == 0xFF) && r[0] >= 0xED;
    // The sign bit of x is free only where x = 0, which is y = 1 or -1: both of small order.
    let mut unsigned = *r;
    unsigned[31] &= 0x7F;
    let small = SMALL_ORDER.iter().any(|point| {
        let mut point = *point;
        point[31] &= 0x7F;
        point == unsigned
    });
    !above && !small
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paseto::SigningKeyWithId;
    use crate::permit::tests::{keys, permit};

    fn texts(key: &SigningKeyWithId, count: usize) -> Vec<String> {
        (0..count)
            .map(|n| {
                let mut one = permit();
                one.serial = crate::ids::Serial(n as u64 + 1);
                one.sign(key)
            })
            .collect()
    }

    #[test]
    fn a_batch_says_what_single_verification_says_wherever_the_bad_ones_stand() {
        let (key, trusted) = keys();
        let now = Timestamp::from_secs(1_001);
        for bad in [
            vec![],
            vec![0],
            vec![31],
            vec![5, 6, 20],
            (0..32).collect::<Vec<_>>(),
        ] {
            let mut all = texts(&key, 32);
            for at in &bad {
                // Another byte of the message: its signature no longer fits.
                let other = if all[*at].as_bytes()[60] == b'A' {
                    "B"
                } else {
                    "A"
                };
                all[*at].replace_range(60..61, other);
            }
            let borrowed: Vec<_> = all.iter().map(String::as_str).collect();
            let together = verify_all(&trusted, &borrowed, now);
            for (at, verdict) in together.iter().enumerate() {
                assert_eq!(
                    *verdict,
                    Permit::verify(&trusted, &all[at], now),
                    "{at} with {bad:?} bad"
                );
                assert_eq!(verdict.is_err(), bad.contains(&at), "{at} with {bad:?} bad");
            }
        }
    }

    #[test]
    fn an_r_of_small_order_or_odd_spelling_never_reaches_the_batch() {
        for point in EIGHT_TORSION {
            let mut bytes = point.compress().to_bytes();
            assert!(!is_plain(&bytes));
            bytes[31] ^= 0x80;
            assert!(!is_plain(&bytes));
        }
        let mut above = [0xFF; 32];
        above[31] = 0x7F;
        for first in 0xED..=0xFF {
            above[0] = first;
            assert!(!is_plain(&above));
        }
        above[0] = 0xEC - 1;
        assert!(is_plain(&above));
    }
}
