//! What a bad configuration says, and what it must not say.

use runtime::config::{Invalid, Layers};

use super::*;

fn load(folder: &std::path::Path, more: &str, dev: bool) -> Result<Settings, Invalid> {
    for (name, content) in [
        ("key", "open-sesame"),
        ("pepper", &"p".repeat(32)),
        ("draw", &"d".repeat(32)),
        ("url", "postgres://localhost/i"),
    ] {
        std::fs::write(folder.join(name), content).expect("writable");
    }
    let at = folder.display();
    let text = format!(
        r#"
        [etcd]
        endpoints = ["127.0.0.1:2379"]
        [identity]
        internal_key_file = "{at}/key"
        pepper_file = "{at}/pepper"
        draw_key_file = "{at}/draw"
        permit_keys_dir = "{at}/permit"
        room_keys_dir = "{at}/room"
        [identity.people]
        url_file = "{at}/url"
        {more}
        "#
    );
    Layers::new()
        .text(text)
        .dev(dev)
        .load::<Raw>()
        .map(|loaded| loaded.config.identity)
}

const REAL: &str = r#"
    [[identity.providers]]
    issuer = "https://id.example"
    jwks_file = "/etc/doseline/jwks.json"
"#;

#[test]
fn a_development_provider_needs_dev_marked_or_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let marked = "[[identity.providers]]\nissuer = \"x\"\njwks_file = \"j\"\ndevelopment = true";
    let unmarked = format!(
        "[[identity.providers]]\nissuer = \"{}\"\njwks_file = \"j\"",
        development::ISSUER
    );
    for provider in [marked, &unmarked] {
        assert!(load(folder.path(), provider, true).is_ok());
        let invalid = load(folder.path(), provider, false).expect_err("without --dev");
        let keys: Vec<_> = invalid
            .problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        assert!(
            keys.contains(&"identity.providers[0].development"),
            "{keys:?}"
        );
    }
    // Only TLS is missing for a real one.
    let invalid = load(folder.path(), REAL, false).expect_err("without TLS");
    assert!(
        invalid
            .problems
            .iter()
            .all(|problem| !problem.key.contains("providers")),
        "{invalid}"
    );
}

#[test]
fn all_problems_are_told_at_once_and_no_secret_with_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = format!("{REAL}{REAL}");
    std::fs::write(folder.path().join("short"), "canary-771").expect("writable");
    let at = folder.path().join("short");
    let more = format!("writers = 0\n[identity.server]\n{bad}");
    let settings = load(folder.path(), &more, true);
    let invalid = settings.expect_err("two problems");
    let keys: Vec<_> = invalid
        .problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(
        keys,
        ["identity.people.writers", "identity.providers[1].issuer"]
    );
    let raw = RawIdentity {
        pepper_file: SecretFile::new(&at),
        ..RawIdentity::default()
    };
    let text = toml_of(&raw);
    assert!(!text.contains("canary-771"));
}

fn toml_of(raw: &RawIdentity) -> String {
    serde_json::to_string(raw).expect("serialises")
}
