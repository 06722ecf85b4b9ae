//! The code a person reads out at a clinic's desk: twelve symbols, the last of them a check digit.
//!
//! Eleven symbols carry 55 bits of the booking's id in Crockford's alphabet (no I, L, O, U); the twelfth is a
//! Luhn digit in base 32, which catches every single wrong symbol and nearly every swap of two neighbours.

use crate::ids::BookingId;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SYMBOLS: usize = 11;

/// The code of a booking, written `XXXX-XXXX-XXXX`.
#[must_use]
pub fn of(booking: BookingId) -> String {
    let mut bits = u128::from_be_bytes(*booking.as_bytes());
    let mut values = [0u8; SYMBOLS];
    for value in &mut values {
        // The low bits of a version 4 UUID are all random.
        *value = (bits & 31) as u8;
        bits >>= 5;
    }
    let check = check_digit(&values);
    let mut code = String::with_capacity(14);
    for (index, value) in values.iter().chain([&check]).enumerate() {
        if index > 0 && index % 4 == 0 {
            code.push('-');
        }
        code.push(char::from(ALPHABET[usize::from(*value)]));
    }
    code
}

/// The canonical form of a code as a person may have typed it; `None` when it is no code.
///
/// Lower case, blanks and dashes are forgiven; `I` and `L` read as 1, `O` as 0.
#[must_use]
pub fn parse(typed: &str) -> Option<String> {
    let mut values = Vec::with_capacity(SYMBOLS + 1);
    for symbol in typed.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let symbol = match symbol.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            other => other,
        };
        let value = ALPHABET.iter().position(|a| char::from(*a) == symbol)?;
        values.push(u8::try_from(value).ok()?);
        if values.len() > SYMBOLS + 1 {
            return None;
        }
    }
    let (check, data) = values.split_last()?;
    if data.len() != SYMBOLS || check_digit(data) != *check {
        return None;
    }
    let text: String = values
        .iter()
        .map(|v| char::from(ALPHABET[usize::from(*v)]))
        .collect();
    Some(format!("{}-{}-{}", &text[..4], &text[4..8], &text[8..]))
}

/// Luhn's digit in base 32: doubling every second symbol from the right, digits of a product added.
fn check_digit(values: &[u8]) -> u8 {
    let mut sum = 0u32;
    for (distance, value) in values.iter().rev().enumerate() {
        let product = u32::from(*value) * if distance % 2 == 0 { 2 } else { 1 };
        sum += product / 32 + product % 32;
    }
    ((32 - sum % 32) % 32) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booking(seed: u128) -> BookingId {
        BookingId::from_bytes(
            (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)).to_be_bytes(),
        )
    }

    #[test]
    fn every_single_wrong_symbol_is_caught() {
        for seed in 1..50 {
            let code = of(booking(seed));
            assert_eq!(parse(&code), Some(code.clone()));
            assert_eq!(
                parse(&code.to_lowercase().replace('-', " ")),
                Some(code.clone())
            );
            for at in (0..code.len()).filter(|at| code.as_bytes()[*at] != b'-') {
                for symbol in ALPHABET {
                    let mut wrong = code.clone().into_bytes();
                    if wrong[at] == *symbol {
                        continue;
                    }
                    wrong[at] = *symbol;
                    assert_eq!(parse(&String::from_utf8_lossy(&wrong)), None);
                }
            }
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for bad in ["", "0", "UUUU-UUUU-UUUU", "0000-0000-00000", "가나다"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
