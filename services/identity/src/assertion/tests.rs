//! What a hostile caller cannot do with an assertion.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::development;

const NOW: i64 = 1_626_000_000;
const NOON: Timestamp = Timestamp::from_secs(NOW);
const MAX_AGE: Duration = Duration::from_secs(600);

struct World {
    folder: tempfile::TempDir,
    provider: development::Provider,
    verifier: Verifier,
}

fn world() -> World {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let provider = development::Provider::load_or_create(folder.path()).expect("writable");
    let verifier = verifier(development::ISSUER, provider.jwks_file());
    World {
        folder,
        provider,
        verifier,
    }
}

fn verifier(issuer: &str, jwks: &Path) -> Verifier {
    let keys = KeySet::follow(jwks).expect("a key set");
    Verifier::new(
        vec![Provider {
            issuer: issuer.to_owned(),
            keys,
        }],
        "doseline",
        MAX_AGE,
    )
}

fn claims() -> Value {
    json!({
        "iss": development::ISSUER, "aud": "doseline", "sub": "ci-0001", "birthdate": "1965-02-28",
        "iat": NOW - 10, "exp": NOW + 300,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn part(value: &Value) -> String {
    B64.encode(value.to_string())
}

impl World {
    fn judge(&self, claims: &Value) -> Result<(), Rejected> {
        self.verifier
            .verify(&self.provider.sign_claims(claims), NOON)
            .map(|_| ())
    }
}

#[test]
fn a_good_assertion_names_person_and_birth_date_and_never_prints() {
    let world = world();
    let born = jiff::civil::date(1965, 2, 28);
    let text = world
        .provider
        .sign("ci-0001", born, "doseline", NOON, Duration::from_secs(300));
    let assertion = world.verifier.verify(&text, NOON).expect("believed");
    assert_eq!(
        (assertion.subject.as_str(), assertion.born),
        ("ci-0001", born)
    );
    assert_eq!(format!("{assertion:?}"), "[redacted]");
    assert_eq!(
        world.judge(&with("aud", json!(["other", "doseline"]))),
        Ok(())
    );
    assert_eq!(world.judge(&with("exp", json!(NOW as f64 + 300.5))), Ok(()));
}

#[test]
fn an_assertion_for_others_or_by_others_is_nothing() {
    let world = world();
    for (claims, expected) in [
        (
            with("iss", json!("https://elsewhere.example")),
            Rejected::Issuer,
        ),
        (
            with(
                "iss",
                json!("HTTPS://IDENTITY.DOSELINE.INVALID/development"),
            ),
            Rejected::Issuer,
        ),
        (with("aud", json!("doseline-test")), Rejected::Audience),
        (with("aud", json!(["a", "b"])), Rejected::Audience),
        (with("aud", json!([])), Rejected::Audience),
    ] {
        assert_eq!(world.judge(&claims), Err(expected), "{expected}");
    }
}

#[test]
fn every_claim_is_needed_and_must_make_sense() {
    let world = world();
    for name in ["iss", "aud", "exp", "sub", "birthdate"] {
        assert_eq!(
            world.judge(&without(name)),
            Err(Rejected::Claims),
            "without {name}"
        );
        assert_eq!(
            world.judge(&with(name, Value::Null)),
            Err(Rejected::Claims),
            "{name} null"
        );
        assert_eq!(
            world.judge(&with(name, json!({}))),
            Err(Rejected::Claims),
            "{name} an object"
        );
    }
    for birthdate in [
        "",
        "1965",
        "0000-02-28",
        "1965-2-28",
        "1965-02-30",
        "65-02-28",
        "1965-02-28T00:00",
        "+965-02-28",
        "1899-12-31",
    ] {
        assert_eq!(
            world.judge(&with("birthdate", json!(birthdate))),
            Err(Rejected::Claims),
            "{birthdate}"
        );
    }
    for subject in [
        String::new(),
        "x".repeat(256),
        "a\nb".to_owned(),
        "a\0".to_owned(),
    ] {
        assert_eq!(
            world.judge(&with("sub", json!(subject))),
            Err(Rejected::Claims)
        );
    }
    for time in [
        json!("1626000300"),
        json!(-1),
        json!(1e300),
        json!(i64::MAX),
        json!(u64::MAX),
    ] {
        for name in ["exp", "iat", "nbf"] {
            assert_eq!(
                world.judge(&with(name, time.clone())),
                Err(Rejected::Claims),
                "{name} {time}"
            );
        }
    }
}

#[test]
fn times_are_judged_by_our_clock_to_the_second() {
    let world = world();
    let skew = 30;
    let aged = |expires: i64| {
        let mut claims = with("iat", json!(NOW - 100));
        claims["exp"] = json!(expires);
        claims
    };
    for (claims, expected) in [
        (aged(NOW - skew), Err(Rejected::Expired)),
        (aged(NOW - skew + 1), Ok(())),
        (with("nbf", json!(NOW + skew)), Ok(())),
        (with("nbf", json!(NOW + skew + 1)), Err(Rejected::NotYet)),
        (with("iat", json!(NOW + skew)), Ok(())),
        (with("iat", json!(NOW + skew + 1)), Err(Rejected::NotYet)),
        (with("iat", json!(NOW - 600 - skew)), Ok(())),
        (
            with("iat", json!(NOW - 600 - skew - 1)),
            Err(Rejected::Expired),
        ),
        (with("iat", json!(NOW + 300)), Err(Rejected::NotYet)),
        (without("iat"), Ok(())),
    ] {
        assert_eq!(world.judge(&claims), expected, "{claims}");
    }
    let mut long = without("iat");
    long["exp"] = json!(NOW + 600 + skew + 1);
    assert_eq!(
        world.judge(&long),
        Err(Rejected::Claims),
        "an unknown age with a long life"
    );
    let mut backwards = with("iat", json!(NOW + 20));
    backwards["exp"] = json!(NOW + 10);
    assert_eq!(
        world.judge(&backwards),
        Err(Rejected::Claims),
        "over before it began"
    );
}

#[test]
fn no_algorithm_but_the_keys_own_is_believed() {
    let world = world();
    let jwks: Value = serde_json::from_str(&world.provider.jwks()).expect("JSON");
    let public = jwks["keys"][0]["x"].as_str().expect("a text");
    let public_bytes = B64.decode(public).expect("base64");
    let none = |alg: &str| {
        let header = part(&json!({ "alg": alg, "kid": "development", "typ": "JWT" }));
        format!("{header}.{}.", part(&claims()))
    };
    for alg in ["none", "None", "NONE", "nOnE", "", "EdDSA", "HS256"] {
        assert!(
            world.verifier.verify(&none(alg), NOON).is_err(),
            "alg {alg}"
        );
    }
    // The public key as an HMAC secret, in every form it is seen in.
    for secret in [
        public_bytes.as_slice(),
        public.as_bytes(),
        world.provider.jwks().as_bytes(),
    ] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("development".to_owned());
        let text = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret))
            .expect("signed");
        assert_eq!(world.verifier.verify(&text, NOON), Err(Rejected::Signature));
    }
    // A header that names another algorithm over a signature that would hold.
    let good = world.provider.sign_claims(&claims());
    let rest = good.split_once('.').expect("a dot").1;
    for alg in ["ES256", "RS256", "PS256", "HS256"] {
        let header = part(&json!({ "alg": alg, "kid": "development" }));
        assert_eq!(
            world.verifier.verify(&format!("{header}.{rest}"), NOON),
            Err(Rejected::Signature)
        );
    }
}

#[test]
fn a_key_comes_from_the_key_set_and_nowhere_else() {
    let world = world();
    let other_folder = tempfile::tempdir().expect("a temporary folder");
    let other = development::Provider::load_or_create(other_folder.path()).expect("writable");
    // The same key id, another key.
    assert_eq!(
        world.verifier.verify(&other.sign_claims(&claims()), NOON),
        Err(Rejected::Signature)
    );
    let signed = |header: Value| {
        let text = format!("{}.{}", part(&header), part(&claims()));
        let (_, rest) = other
            .sign_claims(&claims())
            .rsplit_once('.')
            .map(|(a, b)| (a.len(), b.to_owned()))
            .expect("dots");
        format!("{text}.{rest}")
    };
    let unknown = signed(json!({ "alg": "EdDSA", "kid": "../../development" }));
    assert_eq!(world.verifier.verify(&unknown, NOON), Err(Rejected::Key));
    let jwks: Value = serde_json::from_str(&other.jwks()).expect("JSON");
    let carried = signed(json!({ "alg": "EdDSA", "kid": "development", "jwk": jwks["keys"][0] }));
    assert_eq!(
        world.verifier.verify(&carried, NOON),
        Err(Rejected::Signature)
    );
    let critical = signed(json!({ "alg": "EdDSA", "kid": "development", "crit": ["exp"] }));
    assert_eq!(
        world.verifier.verify(&critical, NOON),
        Err(Rejected::Malformed)
    );
}

#[test]
fn a_flipped_bit_anywhere_spoils_it() {
    let world = world();
    let good = world.provider.sign_claims(&claims());
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(
                world.verifier.verify(&text, NOON).is_err(),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn a_piece_of_it_and_a_flood_of_it_are_nothing() {
    let world = world();
    let good = world.provider.sign_claims(&claims());
    for length in 0..good.len() {
        assert!(
            world.verifier.verify(&good[..length], NOON).is_err(),
            "the first {length} bytes"
        );
    }
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}="),
    ] {
        assert!(world.verifier.verify(text, NOON).is_err(), "{text:?}");
    }
    let long = world
        .provider
        .sign_claims(&with("padding", json!("x".repeat(LENGTH_MAX))));
    assert_eq!(world.verifier.verify(&long, NOON), Err(Rejected::Malformed));
    let twice = good.replacen('.', &format!(".{}", B64.encode("{}")), 1);
    assert!(world.verifier.verify(&twice, NOON).is_err());
}

#[test]
fn es256_and_rs256_are_believed_with_their_own_keys() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("jwks.json");
    let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let ec = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).expect("a key");
    let rsa = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).expect("a key");
    let jwk = |key: &EncodingKey, algorithm, id: &str| {
        let mut jwk =
            jsonwebtoken::jwk::Jwk::from_encoding_key(key, algorithm).expect("a public key");
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    };
    let (ec_jwk, rsa_jwk) = (
        jwk(&ec, Algorithm::ES256, "ec"),
        jwk(&rsa, Algorithm::RS256, "rsa"),
    );
    let symmetric = json!({ "kty": "oct", "k": B64.encode([7; 32]), "kid": "oct" });
    let set = json!({ "keys": [ec_jwk, rsa_jwk, symmetric, { "kty": "future" }] });
    std::fs::write(&path, set.to_string()).expect("writable");
    let verifier = verifier(development::ISSUER, &path);
    let judge = |algorithm, id: &str, key: &EncodingKey| {
        let mut header = Header::new(algorithm);
        header.kid = Some(id.to_owned());
        let text = jsonwebtoken::encode(&header, &claims(), key).expect("signed");
        verifier.verify(&text, NOON).map(|_| ())
    };
    assert_eq!(judge(Algorithm::ES256, "ec", &ec), Ok(()));
    assert_eq!(judge(Algorithm::RS256, "rsa", &rsa), Ok(()));
    // Crossed ids, another padding of the same key, and the symmetric key of the set.
    assert_eq!(
        judge(Algorithm::ES256, "rsa", &ec),
        Err(Rejected::Signature)
    );
    assert_eq!(
        judge(Algorithm::RS256, "ec", &rsa),
        Err(Rejected::Signature)
    );
    assert_eq!(
        judge(Algorithm::PS256, "rsa", &rsa),
        Err(Rejected::Signature)
    );
    assert_eq!(
        judge(Algorithm::RS512, "rsa", &rsa),
        Err(Rejected::Signature)
    );
    assert_eq!(
        judge(Algorithm::HS256, "oct", &EncodingKey::from_secret(&[7; 32])),
        Err(Rejected::Key)
    );
}

#[test]
fn a_new_key_set_counts_and_a_bad_one_does_not() {
    let world = world();
    let path = world.provider.jwks_file().to_owned();
    let keys = &world.verifier.providers[0].keys;
    let write = |text: &str| {
        // As mounted secrets change: another file takes the name.
        let next = world.folder.path().join("next");
        std::fs::write(&next, text).expect("writable");
        std::fs::rename(&next, &path).expect("same folder");
    };
    for bad in [
        "",
        "{",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
    ] {
        write(bad);
        assert!(!keys.check(), "{bad}");
        assert_eq!(world.judge(&claims()), Ok(()), "the old keys stay in force");
    }
    let other_folder = tempfile::tempdir().expect("a temporary folder");
    let other = development::Provider::load_or_create(other_folder.path()).expect("writable");
    write(&other.jwks());
    assert!(keys.check());
    assert_eq!(
        world.judge(&claims()),
        Err(Rejected::Signature),
        "the old key is out of force"
    );
    assert!(
        world
            .verifier
            .verify(&other.sign_claims(&claims()), NOON)
            .is_ok()
    );
}

#[test]
fn key_sets_that_are_weak_or_ambiguous_are_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("jwks.json");
    let open = |set: Value| {
        std::fs::write(&path, set.to_string()).expect("writable");
        KeySet::read(&path).map(|_| ())
    };
    let ed = |kid: Value| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": B64.encode([3; 32]) });
    assert!(open(json!({ "keys": [ed(json!("a"))] })).is_ok());
    assert!(
        open(json!({ "keys": [ed(Value::Null)] })).is_ok(),
        "one key needs no id"
    );
    assert!(matches!(
        open(json!({ "keys": [ed(json!("a")), ed(json!("a"))] })),
        Err(jwks::Fault::Ambiguous { .. })
    ));
    assert!(matches!(
        open(json!({ "keys": [ed(json!("a")), ed(Value::Null)] })),
        Err(jwks::Fault::Ambiguous { .. })
    ));
    let mut encryption = ed(json!("a"));
    encryption["use"] = json!("enc");
    let mut mismatch = ed(json!("a"));
    mismatch["alg"] = json!("HS256");
    let short_rsa = json!({ "kty": "RSA", "kid": "r", "n": B64.encode([0x81; 128]), "e": "AQAB" });
    for useless in [encryption, mismatch, short_rsa] {
        assert!(matches!(
            open(json!({ "keys": [useless] })),
            Err(jwks::Fault::Empty { .. })
        ));
    }
}
