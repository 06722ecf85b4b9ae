//! From the key space to routes, streams and feeds of one region.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use domain::{Epoch, RegionId, ShardId};
use runtime::Tasks;
use runtime::keyspace::{Entry, Keyspace};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::owners::Owners;
use super::routes::{Member, RegionRoutes};
use super::table::Addr;
use crate::availability::Follow;

/// The part of `/doseline/{region}/member/{instance}` that a gateway uses.
#[derive(Deserialize)]
struct MemberValue {
    addr: String,
    draining: bool,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OwnerState {
    Seizing,
    Active,
}

/// The part of `/doseline/{region}/shard/{s}/owner` that a gateway uses.
#[derive(Deserialize)]
struct OwnerValue {
    addr: String,
    epoch: Epoch,
    state: OwnerState,
}

/// Follows a region's members and owners until it is dropped. Runs one feed for each address.
pub(crate) async fn watch_region(
    keyspace: Keyspace,
    region: RegionId,
    routes: Arc<RegionRoutes>,
    owners: Owners,
    follow: Follow,
    tasks: Tasks,
) -> Infallible {
    let prefix = format!("/doseline/{region}/");
    let mut mirror = keyspace.mirror(&prefix);
    let mut changes = routes.changes();
    let mut feeds: BTreeMap<Addr, DropGuard> = BTreeMap::new();
    loop {
        if mirror.listed() {
            let (members, owning) = read(&prefix, &mirror.snapshot());
            routes.listed(members, &owning);
        }
        // Also those that only feeds and hints told of, and owners whose lease is gone: they may still decide.
        changes.mark_unchanged();
        let known = routes.known();
        let addrs: BTreeSet<Addr> = known
            .members
            .iter()
            .map(|m| &m.addr)
            .chain(known.table.addrs())
            .map(Arc::clone)
            .collect();
        feeds.retain(|addr, _| addrs.contains(addr));
        for addr in &addrs {
            feeds.entry(Arc::clone(addr)).or_insert_with(|| {
                let stop = CancellationToken::new();
                follow.start(Arc::clone(addr), stop.clone(), &tasks);
                stop.drop_guard()
            });
        }
        owners.want(&region, addrs);
        tokio::select! {
            () = mirror.changed() => {}
            _ = changes.changed() => {}
        }
    }
}

fn read(
    prefix: &str,
    entries: &BTreeMap<String, Entry>,
) -> (Vec<Member>, Vec<(ShardId, Epoch, Addr)>) {
    let (mut members, mut owners) = (Vec::new(), Vec::new());
    for (key, entry) in entries {
        let Some(key) = key.strip_prefix(prefix) else {
            continue;
        };
        let parts: Vec<_> = key.split('/').collect();
        match parts.as_slice() {
            ["member", _] => members.extend(decode::<MemberValue>(entry).map(|value| Member {
                addr: value.addr.into(),
                draining: value.draining,
            })),
            ["shard", shard, "owner"] => {
                let value = decode::<OwnerValue>(entry);
                // Who is only named as the next owner has no epoch of its own yet.
                let value = value.filter(|value| value.state == OwnerState::Active);
                if let (Ok(shard), Some(value)) = (shard.parse(), value) {
                    owners.push((ShardId(shard), value.epoch, value.addr.into()));
                }
            }
            _ => {}
        }
    }
    members.sort();
    members.dedup_by(|a, b| a.addr == b.addr);
    (members, owners)
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    match serde_json::from_slice(&entry.value) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(key = entry.key, error = %error, "a key has a value that is not understood");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> BTreeMap<String, Entry> {
        pairs
            .iter()
            .map(|(key, value)| {
                let entry = Entry {
                    key: (*key).to_owned(),
                    value: (*value).to_owned().into(),
                    create_revision: 1,
                    mod_revision: 1,
                    leased: true,
                };
                ((*key).to_owned(), entry)
            })
            .collect()
    }

    #[test]
    fn members_and_active_owners_are_read_and_the_rest_is_left_alone() {
        let (members, owners) = read(
            "/doseline/seoul/",
            &entries(&[
                (
                    "/doseline/seoul/member/i1",
                    r#"{"addr":"a:1","failure_domain":"r","build":"1","draining":false}"#,
                ),
                (
                    "/doseline/seoul/member/i2",
                    r#"{"addr":"b:1","failure_domain":"r","build":"1","draining":true}"#,
                ),
                ("/doseline/seoul/member/i3", "not JSON"),
                (
                    "/doseline/seoul/shard/0/owner",
                    r#"{"instance":"i1","addr":"a:1","epoch":7,"state":"ACTIVE"}"#,
                ),
                (
                    "/doseline/seoul/shard/1/owner",
                    r#"{"instance":"i2","addr":"b:1","epoch":9,"state":"SEIZING"}"#,
                ),
                ("/doseline/seoul/shard/1/floor", "9"),
                (
                    "/doseline/seoul/shard/x/owner",
                    r#"{"instance":"i2","addr":"b:1","epoch":9,"state":"ACTIVE"}"#,
                ),
            ]),
        );
        let seen: Vec<_> = members
            .iter()
            .map(|m| (m.addr.as_ref(), m.draining))
            .collect();
        assert_eq!(seen, [("a:1", false), ("b:1", true)]);
        assert_eq!(owners, [(ShardId(0), Epoch(7), Addr::from("a:1"))]);
    }
}
