//! 32 bytes that documents carry in lower-case hex: hashes, roots and seeds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A hash, a root or a seed. Has exactly one spelling: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes32(pub [u8; 32]);

/// Not 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 lower-case hex digits")]
pub struct NotHex;

// === impl Bytes32 ===

impl Bytes32 {
    /// 32 zero bytes: the seed of an operator who did not reveal in time.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }
}

impl fmt::Display for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Bytes32 {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        let mut bytes = [0; 32];
        read_hex(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Bytes32 {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        text.parse()
    }
}

impl From<Bytes32> for String {
    fn from(bytes: Bytes32) -> Self {
        bytes.to_string()
    }
}

/// Fills `out` from exactly twice as many lower-case hex digits.
pub fn read_hex(text: &str, out: &mut [u8]) -> Result<(), NotHex> {
    if text.len() != out.len() * 2 {
        return Err(NotHex);
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(NotHex),
    };
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_spelling() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<Bytes32>().map(String::from), Ok(text.clone()));
        for bad in [
            &text[1..],
            &text.to_uppercase(),
            &"é".repeat(32),
            &format!("{text}0"),
        ] {
            assert_eq!(bad.parse::<Bytes32>(), Err(NotHex), "{bad}");
        }
    }
}
