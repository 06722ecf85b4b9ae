//! Many permits verified together: about a third of the work of one by one.
//!
//! Invariant: what single strict verification refuses is refused here. A batch equation alone is weaker: it may
//! pass signatures whose point R lies outside the prime-order group. Keys are checked when they become trusted
//! ([`TrustedKeys::new`]); encodings of R that are not canonical or of small order are sent to strict verification
//! one by one. What is left, R with a torsion component under an honest key, nobody can make without that key.

use std::sync::LazyLock;

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha512};

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

/// The batch equation `sum(z h) A + sum(z R) = sum(z s) B`, with one term for each key instead of one for each
/// signature: permits have a key or two, and that halves the points. `ed25519_dalek::verify_batch` has the general form.
///
/// Source: Bernstein, Duif, Lange, Schwabe, Yang: High-speed high-security signatures, section 5.
fn holds(many: &[(usize, Parsed)]) -> bool {
    let mut challenges = Vec::with_capacity(many.len());
    // Coefficients that nobody can choose signatures by: they depend on every key, message and signature.
    let mut transcript = Sha512::new_with_prefix(b"doseline/permit-batch/v1");
    for (_, one) in many {
        let challenge: [u8; 64] = Sha512::new()
            .chain_update(one.signature.r_bytes())
            .chain_update(one.key.as_bytes())
            .chain_update(&one.signed)
            .finalize()
            .into();
        transcript.update(challenge);
        transcript.update(one.signature.s_bytes());
        challenges.push(Scalar::from_bytes_mod_order_wide(&challenge));
    }
    let coefficients = coefficients(&transcript.finalize().into(), many.len());
    let mut of_base = Scalar::ZERO;
    let mut of_keys: Vec<(&VerifyingKey, Scalar)> = Vec::with_capacity(2);
    for (((_, one), h), z) in many.iter().zip(&challenges).zip(&coefficients) {
        let s = Scalar::from_canonical_bytes(*one.signature.s_bytes());
        let Some(s) = Option::<Scalar>::from(s) else {
            return false;
        };
        of_base -= z * s;
        match of_keys.iter_mut().find(|(key, _)| **key == one.key) {
            Some((_, of_key)) => *of_key += z * h,
            None => of_keys.push((&one.key, z * h)),
        }
    }
    let points = many
        .iter()
        .map(|(_, one)| CompressedEdwardsY(*one.signature.r_bytes()).decompress())
        .chain(of_keys.iter().map(|(key, _)| Some(key.to_edwards())))
        .chain([Some(ED25519_BASEPOINT_POINT)]);
    let scalars = coefficients
        .iter()
        .chain(of_keys.iter().map(|(_, of_key)| of_key))
        .chain([&of_base]);
    EdwardsPoint::optional_multiscalar_mul(scalars, points).is_some_and(|sum| sum.is_identity())
}

/// So many numbers of 128 bits.
fn coefficients(seed: &[u8; 64], count: usize) -> Vec<Scalar> {
    (0..count as u64)
        .map(|at| {
            let digest: [u8; 64] = Sha512::new()
                .chain_update(seed)
                .chain_update(at.to_be_bytes())
                .finalize()
                .into();
            let mut low = [0u8; 16];
            low.copy_from_slice(&digest[..16]);
            Scalar::from(u128::from_le_bytes(low))
        })
        .collect()
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

    /// Some honest signatures of `key`, as a batch has them.
    fn honest(key: &SigningKeyWithId, trusted: &TrustedKeys, count: usize) -> Vec<(usize, Parsed)> {
        let texts = texts(key, count);
        let parse = |text: &String| trusted.parse(text, PURPOSE).expect("just signed");
        texts.iter().map(parse).enumerate().collect()
    }

    #[test]
    fn published_edge_cases_fail_at_the_key_or_in_the_batch() {
        let (key, trusted) = keys();
        let (mut at_the_key, mut in_the_batch) = (0, 0);
        for line in include_str!("ed25519_edge_cases.txt").lines().skip(1) {
            let parts: Vec<_> = line
                .split(' ')
                .map(|part| hex::decode(part).expect("hex"))
                .collect();
            let bytes: [u8; 32] = parts[1].as_slice().try_into().expect("a key's length");
            if TrustedKeys::new([("edge".to_owned(), bytes)]).is_err() {
                at_the_key += 1;
                continue;
            }
            let edge = Parsed {
                message: parts[0].clone(),
                signed: parts[0].clone(),
                signature: ed25519_dalek::Signature::from_slice(&parts[2]).expect("64 bytes"),
                key: VerifyingKey::from_bytes(&bytes).expect("a point"),
            };
            assert!(
                edge.key
                    .verify_strict(&edge.signed, &edge.signature)
                    .is_err()
            );
            let mut batch = honest(&key, &trusted, 7);
            assert!(holds(&batch));
            batch.push((7, edge));
            assert!(!holds(&batch), "{line}");
            in_the_batch += 1;
        }
        assert_eq!((at_the_key, in_the_batch), (10, 2));
    }

    #[test]
    fn signatures_that_only_cancel_each_other_out_do_not_hold() {
        let (key, trusted) = keys();
        let mut batch = honest(&key, &trusted, 8);
        let shifted = |signature: &ed25519_dalek::Signature, by: Scalar| {
            let s = Scalar::from_bytes_mod_order(*signature.s_bytes()) + by;
            ed25519_dalek::Signature::from_components(*signature.r_bytes(), s.to_bytes())
        };
        // Without coefficients the two errors would add up to nothing.
        batch[2].1.signature = shifted(&batch[2].1.signature, Scalar::ONE);
        batch[5].1.signature = shifted(&batch[5].1.signature, -Scalar::ONE);
        assert!(!holds(&batch));
    }

    #[test]
    fn two_keys_in_one_batch_hold_each_with_its_own() {
        let (first, second) = (keys().0, SigningKeyWithId::new("second", [9; 32].into()));
        let both =
            [&first, &second].map(|key| (key.kid().to_owned(), key.verifying_key().to_bytes()));
        let trusted = TrustedKeys::new(both).expect("good keys");
        let mut batch = honest(&first, &trusted, 5);
        batch.extend(honest(&second, &trusted, 5));
        assert!(holds(&batch));
        let (of_first, of_second) = (batch[0].1.key, batch[9].1.key);
        (batch[0].1.key, batch[9].1.key) = (of_second, of_first);
        assert!(!holds(&batch));
    }
}
