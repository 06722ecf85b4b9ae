//! What a file must say, and that all that is wrong with one is told.

use std::collections::BTreeSet;

use runtime::config::Layers;

use super::*;

#[test]
fn every_problem_is_told_at_once() {
    let toml = r#"
        [gateway]
        channels_per_owner = 0
        regions = ["seoul", "Busan", "seoul"]
        watchers_max = 0
        [gateway.shedding]
        commands_max = 0
        answer_age_target = "1h"
        answer_age_calm = "2h"
        back_end_min = 9000
    "#;
    let invalid = Layers::new()
        .text(toml)
        .load::<Raw>()
        .err()
        .expect("a bad file");
    let keys: BTreeSet<_> = invalid.problems.iter().map(|p| p.key.as_str()).collect();
    for key in [
        "etcd.endpoints",
        "etcd.ca",
        "gateway.channels_per_owner",
        "gateway.regions[1]",
        "gateway.regions[2]",
        "gateway.watchers_max",
        "gateway.shedding.commands_max",
        "gateway.shedding.answer_age_target",
        "gateway.shedding.answer_age_calm",
        "gateway.shedding.back_end_min",
        "gateway.internal_key_file",
        "gateway.page_key_file",
        "gateway.permit_keys_file",
        "gateway.room_keys_file",
        "gateway.server.tls.certificate",
        "gateway.services.ca",
        "gateway.callers.jwks_file",
    ] {
        assert!(keys.contains(key), "{key} is missing in {keys:?}");
    }
}

#[test]
fn a_developers_file_is_enough_with_dev() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "secret\n").expect("writable");
    let key = key.display();
    let toml = format!(
        "[etcd]\nendpoints = ['127.0.0.1:2379']\n[gateway]\nregions = ['seoul']\n\
         internal_key_file = '{key}'\npage_key_file = '{key}'\n\
         permit_keys_file = 'p'\nroom_keys_file = 'r'\n"
    );
    let load = |dev| Layers::new().text(&toml).dev(dev).load::<Raw>();
    let config = load(true).expect("a good file").config;
    assert_eq!(config.gateway.callers, CallerSettings::Believed);
    assert_eq!(config.gateway.internal_key.expose(), b"secret");
    let refused = load(false).err().expect("unsafe");
    assert!(
        refused.problems.iter().all(|p| p.message.contains("--dev")),
        "{refused}"
    );
}
