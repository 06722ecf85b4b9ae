//! Signed texts, and everything that must not pass for one.

use super::*;

fn key(kid: &str, seed: u8) -> SigningKeyWithId {
    SigningKeyWithId::new(kid, SigningKey::from_bytes(&[seed; 32]))
}

fn trust(keys: &[&SigningKeyWithId]) -> TrustedKeys {
    TrustedKeys::new(
        keys.iter()
            .map(|k| (k.kid().to_owned(), k.verifying_key().to_bytes())),
    )
    .expect("honest keys")
}

/// Vector 4-S-2 of the PASETO test vectors (v4.public with a footer), and its implicit-assertion sibling 4-S-3.
#[test]
fn published_vectors_come_out_the_same() {
    let secret = "b4cbfb43df4ce210727d953e4a713307fa19bb7d9f85041438d9e11b942a3774";
    let bytes: [u8; 32] = hex::decode(secret)
        .expect("hex")
        .try_into()
        .expect("32 bytes");
    let key = SigningKeyWithId::new(
        "zVhMiPBP9fRf2snEcT7gFTioeA9COcNy9DfgL1W60haN",
        SigningKey::from_bytes(&bytes),
    );
    let message = br#"{"data":"this is a signed message","exp":"2022-01-01T00:00:00+00:00"}"#;
    let signed = key.sign(message, "");
    assert_eq!(
        signed,
        "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9v3Jt8mx_TdM2ceTGoqwrh4yDFn0XsHvvV_D0DtwQxVrJEBMl0F2caAdgnpKlt4p7xBnx1HcO-SPo8FPp214HDw.eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9"
    );
    assert_eq!(trust(&[&key]).verify(&signed, ""), Ok(message.to_vec()));
}

#[test]
fn another_purpose_key_or_id_is_refused() {
    let (good, other) = (key("k1", 1), key("k2", 2));
    let text = good.sign(b"hello", "permit");
    let trusted = trust(&[&good]);
    assert_eq!(trusted.verify(&text, "permit"), Ok(b"hello".to_vec()));
    assert_eq!(trusted.verify(&text, "room"), Err(Untrusted::BadSignature));
    assert_eq!(
        trust(&[&other]).verify(&text, "permit"),
        Err(Untrusted::UnknownKey)
    );
    let impostor = key("k1", 2).sign(b"hello", "permit");
    assert_eq!(
        trusted.verify(&impostor, "permit"),
        Err(Untrusted::BadSignature)
    );
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = key("k1", 1);
    let text = good.sign(b"some message", "permit").into_bytes();
    let trusted = trust(&[&good]);
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut wrong = text.clone();
            wrong[at] ^= 1 << bit;
            if let Ok(wrong) = String::from_utf8(wrong) {
                assert!(
                    trusted.verify(&wrong, "permit").is_err(),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }
    for length in 0..text.len() {
        let cut = std::str::from_utf8(&text[..length]).expect("ascii");
        assert!(trusted.verify(cut, "permit").is_err(), "cut to {length}");
    }
}

#[test]
fn keys_of_small_order_are_never_trusted() {
    let identity_point = {
        let mut p = [0u8; 32];
        p[0] = 1;
        p
    };
    assert!(TrustedKeys::new([("k".to_owned(), identity_point)]).is_err());
    assert!(TrustedKeys::new([("k".to_owned(), [0u8; 32])]).is_err());
}
