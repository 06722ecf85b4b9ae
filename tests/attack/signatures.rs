//! Signatures that hold by some reading of Ed25519 and must not hold by ours.
//!
//! Source: RFC 8032 section 5.1.7; "Taming the many EdDSAs" (2020). Whoever could make most of these has the key; what
//! they show is that a batch and a single check never differ, so that no permit is good in one place and bad in another.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use domain::paseto::HEADER;
use domain::permit::{PURPOSE, Permit};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha512};

use crate::signing::Key;

/// Makes a permit's text with a doubtful signature.
pub(crate) type Make = fn(&Permit, &Key) -> anyhow::Result<String>;

/// All of them.
pub(crate) const ALL: [(&str, Make); 6] = [
    ("signature with S + L", with_s_plus_l),
    (
        "signature with a torsion point added to R",
        with_torsion_in_r,
    ),
    ("signature with R of small order", with_small_r),
    ("signature of zeros", |permit, key| {
        with(permit, key, [0; 64])
    }),
    ("signature with R = identity and S = 0", |permit, key| {
        let mut signature = [0; 64];
        signature[0] = 1;
        with(permit, key, signature)
    }),
    ("signature of ones", |permit, key| {
        with(permit, key, [0xFF; 64])
    }),
];

/// The order of the group, little-endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Message, signature and footer of a text.
pub(crate) fn parts(text: &str) -> anyhow::Result<(Vec<u8>, [u8; 64], String)> {
    let body = text.strip_prefix(HEADER).context("the header")?;
    let (payload, footer) = body.split_once('.').context("a footer")?;
    let mut message = B64.decode(payload)?;
    let at = message.len().checked_sub(64).context("a signature")?;
    let signature = message.split_off(at).try_into().ok().context("64 bytes")?;
    Ok((message, signature, footer.to_owned()))
}

/// The text of its parts.
pub(crate) fn joined(message: &[u8], signature: &[u8; 64], footer: &str) -> String {
    format!(
        "{HEADER}{}.{footer}",
        B64.encode([message, signature].concat())
    )
}

fn with(permit: &Permit, key: &Key, signature: [u8; 64]) -> anyhow::Result<String> {
    let (message, _, footer) = parts(&permit.sign(&key.signer()?))?;
    Ok(joined(&message, &signature, &footer))
}

/// The same number modulo the group's order.
fn with_s_plus_l(permit: &Permit, key: &Key) -> anyhow::Result<String> {
    let (message, mut signature, footer) = parts(&permit.sign(&key.signer()?))?;
    let mut carry = 0u16;
    for (byte, l) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    anyhow::ensure!(carry == 0, "S + L has 32 bytes");
    Ok(joined(&message, &signature, &footer))
}

/// Holds when multiplied by the cofactor, and only then.
fn with_torsion_in_r(permit: &Permit, key: &Key) -> anyhow::Result<String> {
    let nonce = Scalar::from_bytes_mod_order(rand::random());
    signed_with_r(
        permit,
        key,
        nonce,
        EdwardsPoint::mul_base(&nonce) + EIGHT_TORSION[1],
    )
}

fn with_small_r(permit: &Permit, key: &Key) -> anyhow::Result<String> {
    signed_with_r(permit, key, Scalar::ZERO, EIGHT_TORSION[3])
}

/// Signs by the book, but for what is put in R's place.
fn signed_with_r(
    permit: &Permit,
    key: &Key,
    nonce: Scalar,
    r: EdwardsPoint,
) -> anyhow::Result<String> {
    let signing = SigningKey::from_bytes(&key.seed()?);
    let (message, _, footer) = parts(&permit.sign(&key.signer()?))?;
    let plain = B64.decode(&footer)?;
    let signed = pae(&[HEADER.as_bytes(), &message, &plain, PURPOSE.as_bytes()]);
    let r = r.compress();
    let hash = Sha512::new()
        .chain_update(r.as_bytes())
        .chain_update(signing.verifying_key().as_bytes())
        .chain_update(signed)
        .finalize();
    let challenge = Scalar::from_bytes_mod_order_wide(&hash.into());
    let s = nonce + challenge * signing.to_scalar();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(r.as_bytes());
    signature[32..].copy_from_slice(s.as_bytes());
    Ok(joined(&message, &signature, &footer))
}

/// Pre-authentication encoding of PASETO, written once more.
fn pae(pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = (pieces.len() as u64).to_le_bytes().to_vec();
    for piece in pieces {
        out.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}

/// Without this, a slip in the arithmetic above would be refused as well, for the wrong reason.
#[test]
fn signing_by_hand_with_an_honest_r_holds() -> anyhow::Result<()> {
    let seed: [u8; 32] = rand::random();
    let text = serde_json::json!({
        "kid": "by-hand",
        "seed": base64::engine::general_purpose::STANDARD.encode(seed),
        "not_before": "2021-07-01T00:00:00Z",
    });
    let key: Key = serde_json::from_value(text)?;
    let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let trusted = domain::paseto::TrustedKeys::new([("by-hand".to_owned(), public)])?;
    let permit = crate::signing::somebody("by-hand", "seoul")?;
    let nonce = Scalar::from_bytes_mod_order(rand::random());
    let by_hand = signed_with_r(&permit, &key, nonce, EdwardsPoint::mul_base(&nonce))?;
    let read = Permit::verify(&trusted, &by_hand, crate::signing::now())?;
    anyhow::ensure!(read.person == permit.person, "another person");
    for (name, make) in ALL {
        let verdict = Permit::verify(&trusted, &make(&permit, &key)?, crate::signing::now());
        anyhow::ensure!(verdict.is_err(), "{name} holds");
    }
    Ok(())
}
