//! What a JWT must be to prove a calling system.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use domain::Timestamp;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    kid: &'static str,
    public: Value,
}

impl Signer {
    fn ed25519(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        Self {
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            algorithm: Algorithm::EdDSA,
            kid,
            public: json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": B64.encode(pair.public_key_raw())}),
        }
    }

    fn p256(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        // Uncompressed: a byte that says so, then both coordinates.
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        Self {
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            algorithm: Algorithm::ES256,
            kid,
            public: json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": B64.encode(x), "y": B64.encode(y)}),
        }
    }

    fn rsa(kid: &'static str) -> Self {
        let size = rcgen::RsaKeySize::_2048;
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).expect("a key");
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("PKCS 8");
        let public = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a public half");
        let mut public = serde_json::to_value(public).expect("serialises");
        public["kid"] = json!(kid);
        Self {
            key,
            algorithm: Algorithm::RS256,
            kid,
            public,
        }
    }

    fn public(&self) -> Value {
        self.public.clone()
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.to_owned());
        encode(&header, claims, &self.key).expect("signs")
    }
}

fn claims() -> Value {
    json!({"sub": "app-1", "role": "mobile", "aud": "doseline", "exp": NOW + 60})
}

struct Setup {
    callers: JwtCallers,
    clock: Clock,
    file: tempfile::NamedTempFile,
}

fn trusting(signers: &[&Signer]) -> Setup {
    let file = tempfile::NamedTempFile::new().expect("a file");
    write(&file, signers);
    let clock = Clock::manual(Timestamp::from_secs(NOW));
    let callers = JwtCallers::load(file.path().to_owned(), "doseline".to_owned(), clock.clone())
        .expect("a set");
    Setup {
        callers,
        clock,
        file,
    }
}

fn write(file: &tempfile::NamedTempFile, signers: &[&Signer]) {
    let keys: Vec<_> = signers.iter().map(|s| s.public()).collect();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).expect("writable");
}

#[test]
fn eddsa_es256_and_rs256_prove_a_system_and_its_role() {
    let (ed, ec, rsa) = (
        Signer::ed25519("ed"),
        Signer::p256("ec"),
        Signer::rsa("rsa"),
    );
    let it = trusting(&[&ed, &ec, &rsa]);
    for signer in [&ed, &ec, &rsa] {
        let caller = it.callers.verify(&signer.sign(&claims())).expect("proven");
        assert_eq!(
            (caller.system.as_str(), caller.role),
            ("app-1", Role::Mobile)
        );
    }
}

#[test]
fn a_jwt_is_over_when_it_says_so_although_it_was_verified_before() {
    let ed = Signer::ed25519("ed");
    let it = trusting(&[&ed]);
    let text = ed.sign(&claims());
    assert!(it.callers.verify(&text).is_some());
    it.clock.advance(Duration::from_secs(59));
    assert!(it.callers.verify(&text).is_some());
    it.clock.advance(Duration::from_secs(1));
    assert_eq!(it.callers.verify(&text), None);
}

#[test]
fn a_key_that_left_the_set_proves_nothing_any_more() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let it = trusting(&[&old]);
    let text = old.sign(&claims());
    assert!(it.callers.verify(&text).is_some());
    write(&it.file, &[&new]);
    // A rewrite within the clock's grain of the file system still differs in content, here in nothing else.
    std::fs::write(
        it.file.path(),
        json!({ "keys": [new.public()], "note": "rotated" }).to_string(),
    )
    .expect("writable");
    assert!(it.callers.0.keys.check());
    assert_eq!(it.callers.verify(&text), None);
    assert!(it.callers.verify(&new.sign(&claims())).is_some());
}

#[test]
fn everything_else_proves_nothing() {
    let (ed, stranger) = (Signer::ed25519("ed"), Signer::ed25519("ed"));
    let it = trusting(&[&ed]);
    let with = |field: &str, value: Value| {
        let mut changed = claims();
        changed[field] = value;
        ed.sign(&changed)
    };
    let without = |field: &str| {
        let mut changed = claims();
        changed.as_object_mut().expect("an object").remove(field);
        ed.sign(&changed)
    };
    let mut unsigned = ed.sign(&claims());
    unsigned.truncate(unsigned.rfind('.').expect("three parts") + 1);
    let symmetric = encode(
        &Header::new(Algorithm::HS256),
        &claims(),
        &EncodingKey::from_secret(b"public key"),
    )
    .expect("signs");
    for (what, text) in [
        ("another's key under our id", stranger.sign(&claims())),
        ("foreign audience", with("aud", json!("other"))),
        ("expired", with("exp", json!(NOW))),
        ("a role that does not exist", with("role", json!("root"))),
        ("a role of our own services", with("role", json!("gateway"))),
        ("no slug", with("sub", json!("App 1"))),
        ("no expiry", without("exp")),
        ("no audience", without("aud")),
        ("no system", without("sub")),
        ("no signature", unsigned),
        ("a shared secret", symmetric),
        ("too long", "x".repeat(LENGTH_MAX + 1)),
        ("nothing", String::new()),
    ] {
        assert_eq!(it.callers.verify(&text), None, "{what}");
    }
}
