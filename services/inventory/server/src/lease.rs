//! Capacity leases: who *should* decide a shard, for routing and liveness. Safety is the ledger's.
//!
//! Keys, under `/doseline/{region}/`: `member/{instance}` and `shard/{s}/owner` die with the process's session;
//! `shard/{s}/floor` stays. Invariant: an owner key is only ever replaced by compare-and-set on what was seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{Epoch, InstanceId, RegionId, ShardId};
use runtime::keyspace::{Entry, Fault, Keyspace, Mirror, Session, Txn};
use serde::{Deserialize, Serialize};

use crate::placement::Member;

/// The value of a member key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberValue {
    /// Where it listens, `host:port`.
    pub addr: String,
    /// What fails together, such as a rack.
    pub failure_domain: String,
    /// The program's version.
    pub build: String,
    /// It gives its shards away.
    pub draining: bool,
}

/// How far an owner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OwnerState {
    /// Named as the next owner; the ledger has not said yes.
    Seizing,
    /// The ledger gave it the epoch.
    Active,
}

/// The value of an owner key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerValue {
    /// Who.
    pub instance: InstanceId,
    /// Where it listens.
    pub addr: String,
    /// The epoch it has, or had when it was `SEIZING`.
    pub epoch: Epoch,
    /// How far it has come.
    pub state: OwnerState,
}

/// An owner key as seen at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSeen {
    /// Its value.
    pub value: OwnerValue,
    /// The revision to compare with.
    pub revision: i64,
}

/// Who is there and who decides what, as last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Live members.
    pub members: Vec<Member>,
    /// Owners.
    pub owners: BTreeMap<ShardId, OwnerSeen>,
    /// The highest epoch ever published.
    pub floors: BTreeMap<ShardId, Epoch>,
}

/// One region's capacity leases as one process handles them. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    keyspace: Keyspace,
    session: Session,
    mirror: Mirror,
    region: RegionId,
    me: Arc<Me>,
}

struct Me {
    instance: InstanceId,
    addr: String,
    failure_domain: String,
}

// === impl Leases ===

impl Leases {
    /// Watches a region's leases. Nothing is written yet.
    #[must_use]
    pub fn new(
        keyspace: Keyspace,
        session: Session,
        region: RegionId,
        instance: InstanceId,
        addr: String,
        failure_domain: String,
    ) -> Self {
        let mirror = keyspace.mirror(&format!("/doseline/{region}/"));
        Self {
            keyspace,
            session,
            mirror,
            region,
            me: Arc::new(Me {
                instance,
                addr,
                failure_domain,
            }),
        }
    }

    /// Who this process is.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.me.instance
    }

    /// Where this process listens.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.me.addr
    }

    /// Waits for a change of what [`Leases::view`] says.
    pub async fn changed(&mut self) {
        self.mirror.changed().await;
    }

    /// The session's generation; a rise means that this process's keys are gone and must be put again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.session.generation()
    }

    /// Whether anything was heard yet.
    #[must_use]
    pub fn listed(&self) -> bool {
        self.mirror.listed()
    }

    /// What was heard last.
    #[must_use]
    pub fn view(&self) -> View {
        view(&self.region, &self.mirror.snapshot())
    }

    /// Puts this process's member key.
    pub async fn announce(&self, draining: bool) -> Result<(), Fault> {
        let value = MemberValue {
            addr: self.me.addr.clone(),
            failure_domain: self.me.failure_domain.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            draining,
        };
        let key = format!("/doseline/{}/member/{}", self.region, self.me.instance);
        let txn = Txn::new().put_leased(&self.session, key, encode(&value));
        self.keyspace.commit(txn).await.map(|_| ())
    }

    /// Names this process the next owner if the key is still as `seen` (`None` = absent).
    pub async fn claim(&self, shard: ShardId, seen: Option<&OwnerSeen>) -> Result<bool, Fault> {
        let epoch = seen.map_or(Epoch(0), |seen| seen.value.epoch);
        let key = self.owner_key(shard);
        let txn = match seen {
            None => Txn::new().expect_absent(&key),
            Some(seen) => Txn::new().expect_revision(&key, seen.revision),
        };
        let txn = txn.put_leased(&self.session, &key, self.owner(epoch, OwnerState::Seizing));
        Ok(self.keyspace.commit(txn).await?.committed())
    }

    /// Publishes an epoch that the ledger gave, unless a higher one is published. `false`: somebody else came between.
    pub async fn publish(&self, shard: ShardId, epoch: Epoch) -> Result<bool, Fault> {
        let key = self.owner_key(shard);
        let floor_key = format!("/doseline/{}/shard/{shard}/floor", self.region);
        let current = self.keyspace.get(&key).await?;
        let floor = self.keyspace.get(&floor_key).await?;
        let published = floor.as_ref().and_then(decode::<Epoch>).unwrap_or_default();
        // The key of a later owner may be gone already; what it published stays.
        if published > epoch {
            return Ok(false);
        }
        let mut txn = match &current {
            None => Txn::new().expect_absent(&key),
            Some(entry) => {
                let theirs = decode::<OwnerValue>(entry);
                if theirs.is_some_and(|value| value.epoch > epoch) {
                    return Ok(false);
                }
                Txn::new().expect_revision(&key, entry.mod_revision)
            }
        };
        txn = txn.put_leased(&self.session, &key, self.owner(epoch, OwnerState::Active));
        if epoch > published {
            txn = match &floor {
                None => txn.expect_absent(&floor_key),
                Some(entry) => txn.expect_revision(&floor_key, entry.mod_revision),
            };
            txn = txn.put(&floor_key, encode(&epoch));
        }
        Ok(self.keyspace.commit(txn).await?.committed())
    }

    /// Names `next` as the owner to come, or nobody, if the key is still this process's.
    pub async fn hand_over(
        &self,
        shard: ShardId,
        epoch: Epoch,
        next: Option<&Member>,
    ) -> Result<(), Fault> {
        let key = self.owner_key(shard);
        let Some(entry) = self.keyspace.get(&key).await? else {
            return Ok(());
        };
        if decode::<OwnerValue>(&entry).is_none_or(|value| value.instance != self.me.instance) {
            return Ok(());
        }
        let txn = Txn::new().expect_revision(&key, entry.mod_revision);
        let txn = match next {
            None => txn.delete(&key),
            Some(next) => txn.put_leased(
                &self.session,
                &key,
                encode(&OwnerValue {
                    instance: next.instance.clone(),
                    addr: next.addr.clone(),
                    epoch,
                    state: OwnerState::Seizing,
                }),
            ),
        };
        self.keyspace.commit(txn).await.map(|_| ())
    }

    fn owner_key(&self, shard: ShardId) -> String {
        format!("/doseline/{}/shard/{shard}/owner", self.region)
    }

    fn owner(&self, epoch: Epoch, state: OwnerState) -> Vec<u8> {
        let (instance, addr) = (self.me.instance.clone(), self.me.addr.clone());
        encode(&OwnerValue {
            instance,
            addr,
            epoch,
            state,
        })
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain fields always serialise")
}

fn decode<T: for<'de> Deserialize<'de>>(entry: &Entry) -> Option<T> {
    serde_json::from_slice(&entry.value).ok()
}

/// Reads a listing; what does not parse is somebody else's and is left out.
fn view(region: &RegionId, entries: &BTreeMap<String, Entry>) -> View {
    let prefix = format!("/doseline/{region}/");
    let mut view = View::default();
    let mut members: BTreeMap<String, (i64, Member)> = BTreeMap::new();
    for (key, entry) in entries {
        let Some(rest) = key.strip_prefix(&prefix) else {
            continue;
        };
        let parts: Vec<_> = rest.split('/').collect();
        match parts.as_slice() {
            ["member", instance] => {
                if let (Ok(instance), Some(value)) =
                    (instance.parse(), decode::<MemberValue>(entry))
                {
                    let MemberValue { addr, draining, .. } = value;
                    let member = Member {
                        instance,
                        addr,
                        draining,
                    };
                    // A process that was killed and started again answers where it did: the key of its former self
                    // lives until the lease ends, and no sign of life must be taken for that one's.
                    let newest = members
                        .get(&member.addr)
                        .is_none_or(|(known, _)| *known < entry.mod_revision);
                    if newest {
                        members.insert(member.addr.clone(), (entry.mod_revision, member));
                    }
                }
            }
            ["shard", shard, what] => {
                let Ok(shard) = shard.parse().map(ShardId) else {
                    continue;
                };
                if *what == "owner" {
                    if let Some(value) = decode(entry) {
                        view.owners.insert(
                            shard,
                            OwnerSeen {
                                value,
                                revision: entry.mod_revision,
                            },
                        );
                    }
                } else if *what == "floor"
                    && let Some(epoch) = decode(entry)
                {
                    view.floors.insert(shard, epoch);
                }
            }
            _ => {}
        }
    }
    view.members = members.into_values().map(|(_, member)| member).collect();
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(instance: &str, addr: &str, revision: i64) -> (String, Entry) {
        let key = format!("/doseline/seoul/member/{instance}");
        let value = MemberValue {
            addr: addr.to_owned(),
            failure_domain: String::new(),
            build: String::new(),
            draining: false,
        };
        let entry = Entry {
            key: key.clone(),
            value: encode(&value).into(),
            create_revision: revision,
            mod_revision: revision,
            leased: true,
        };
        (key, entry)
    }

    #[test]
    fn of_two_members_at_one_address_only_the_newer_is_one() {
        let keys = [
            ("z-dead", "a:1", 3),
            ("a-born-again", "a:1", 9),
            ("other", "b:1", 4),
        ];
        let entries = keys
            .map(|(instance, addr, revision)| member(instance, addr, revision))
            .into();
        let region = "seoul".parse().expect("slug");
        let seen: Vec<_> = view(&region, &entries)
            .members
            .into_iter()
            .map(|member| member.instance.to_string())
            .collect();
        assert_eq!(seen, ["a-born-again", "other"]);
    }
}
