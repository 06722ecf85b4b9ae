//! What a permit says, and when it is worth nothing.

use super::*;
use ed25519_dalek::SigningKey;

pub(crate) fn permit() -> Permit {
    Permit {
        person: PersonId::from_bytes([7; 16]),
        campaign: "kr-2021-fifties".parse().expect("slug"),
        cohort: "born-1962-1966".parse().expect("slug"),
        region: "seoul".parse().expect("slug"),
        serial: Serial(1),
        place: Place {
            bucket: 0,
            ticket: DrawTicket([9; 16]),
        },
        issued_at: Timestamp::from_secs(1_000),
        expires_at: Timestamp::from_secs(1_600),
        caller: "app-one".parse().expect("slug"),
    }
}

pub(crate) fn keys() -> (SigningKeyWithId, TrustedKeys) {
    let key = SigningKeyWithId::new("k1", SigningKey::from_bytes(&[1; 32]));
    let trusted =
        TrustedKeys::new([("k1".to_owned(), key.verifying_key().to_bytes())]).expect("good");
    (key, trusted)
}

#[test]
fn a_permit_survives_the_journey_and_fits_its_limit() {
    let (key, trusted) = keys();
    let text = permit().sign(&key);
    assert!(text.len() < LENGTH_MAX, "{}", text.len());
    assert_eq!(
        Permit::verify(&trusted, &text, Timestamp::from_secs(1_001)),
        Ok(permit())
    );
}

#[test]
fn a_permit_ends_at_its_second_and_does_not_begin_in_the_future() {
    let (key, trusted) = keys();
    let text = permit().sign(&key);
    let at = |secs| Permit::verify(&trusted, &text, Timestamp::from_secs(secs)).map(|_| ());
    assert_eq!(at(1_599), Ok(()));
    assert_eq!(at(1_600), Err(Unusable::Expired));
    assert_eq!(at(1_000 - CLOCK_SKEW_SECS), Ok(()));
    assert_eq!(at(1_000 - CLOCK_SKEW_SECS - 1), Err(Unusable::Expired));
}

#[test]
fn neither_person_nor_ticket_prints() {
    let printed = format!("{:?}", permit());
    assert!(printed.contains("[redacted]"));
    assert!(
        !printed.contains("07070707") && !printed.contains("7, 7, 7") && !printed.contains("9, 9")
    );
}
