//! One contract, two backends: every case of `keys`, `sessions` and `mirrors` runs against the store of one process and against a real etcd.
//! `faults`, `members` and `access` are what only etcd can go through, `restart` what only the local store can.

#[path = "keyspace_contract/access.rs"]
mod access;
#[path = "keyspace_contract/faults.rs"]
mod faults;
#[path = "keyspace_contract/keys.rs"]
mod keys;
#[path = "keyspace_contract/launcher.rs"]
mod launcher;
#[path = "keyspace_contract/members.rs"]
mod members;
#[path = "keyspace_contract/mirrors.rs"]
mod mirrors;
#[path = "keyspace_contract/restart.rs"]
mod restart;
#[path = "keyspace_contract/sessions.rs"]
mod sessions;

use std::time::Duration;

use runtime::keyspace::{EtcdConfig, Keyspace, Mirror, Session, Txn};

use launcher::Etcd;

/// Far beyond what any state here takes, so that only a hang fails.
const SOON: Duration = Duration::from_secs(20);

/// A key space, and a second view of it as another process would have one.
struct World {
    keyspace: Keyspace,
    other: Keyspace,
    _folder: Option<tempfile::TempDir>,
    _etcd: Option<Etcd>,
}

impl World {
    fn local() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keyspace = Keyspace::local(Some(&folder.path().join("documents.db"))).expect("opens");
        Self {
            other: keyspace.clone(),
            keyspace,
            _folder: Some(folder),
            _etcd: None,
        }
    }

    async fn etcd() -> Self {
        let etcd = Etcd::start().await;
        Self {
            keyspace: connect(&etcd).await,
            other: connect(&etcd).await,
            _folder: None,
            _etcd: Some(etcd),
        }
    }
}

async fn connect(etcd: &Etcd) -> Keyspace {
    Keyspace::etcd(config(etcd))
        .await
        .expect("the configuration is sound")
}

fn config(etcd: &Etcd) -> EtcdConfig {
    EtcdConfig {
        watch_silence: Duration::from_millis(1_500),
        ..EtcdConfig::new(etcd.endpoints())
    }
}

/// Waits until `state` holds.
async fn await_until(what: &str, mut state: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(SOON, waiting).await.is_ok(),
        "not within {SOON:?}: {what}"
    );
}

/// Waits for a future that must end.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {SOON:?}: {what}"),
    }
}

const TTL: Duration = Duration::from_secs(2);

async fn session(keyspace: &Keyspace) -> Session {
    let mut session = keyspace.session(TTL);
    soon("a lease", session.ready()).await;
    session
}

async fn mirror(keyspace: &Keyspace, prefix: &str) -> Mirror {
    let mut mirror = keyspace.mirror(prefix);
    soon("the first listing", mirror.ready()).await;
    mirror
}

async fn absent(keyspace: &Keyspace, key: &str) -> bool {
    keyspace.get(key).await.expect("reads").is_none()
}

async fn put_leased(keyspace: &Keyspace, session: &Session, key: &str) {
    let txn = Txn::new().put_leased(session, key, "here");
    assert!(keyspace.commit(txn).await.expect("commits").committed());
}

macro_rules! contract {
    ($($group:ident: [$($case:ident),+ $(,)?]),+ $(,)?) => {
        mod local {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$group::$case(&super::World::local()).await;
            })+)+
        }
        mod etcd {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$group::$case(&super::World::etcd().await).await;
            })+)+
        }
    };
}

contract! {
    keys: [
        written_keys_are_read_back_in_order,
        revisions_rise_and_creation_is_remembered,
        delete_removes_and_repeats_harmlessly,
        expectation_of_absence_is_met_once,
        expectation_of_a_revision_fails_when_stale,
        conflict_writes_nothing,
        race_of_32_has_one_winner,
        counter_under_contention_loses_no_step,
        malformed_requests_are_refused,
    ],
    sessions: [
        ended_session_takes_its_keys_along,
        dropped_session_takes_its_keys_along,
        dead_session_writes_nothing,
        key_put_without_lease_outlives_the_session,
        key_moves_from_one_session_to_another,
        sessions_are_independent,
        successor_takes_over_when_the_session_ends,
        foreign_session_is_refused,
    ],
    mirrors: [
        mirror_follows_puts_and_deletes,
        mirror_of_a_prefix_shows_nothing_else,
        mirror_sees_revisions_in_order,
        transaction_is_seen_whole,
        fresh_mirror_is_not_stale,
    ],
}
