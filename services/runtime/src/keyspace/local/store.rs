//! The state of the local key space: etcd's rules for revisions, transactions and leases, in a map.
//!
//! Invariant: disk first, then memory, then mirrors. After a commit whose outcome the disk does not tell, the store
//! refuses everything: memory and disk may differ, and only a restart reads the truth.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::moment::now;
use super::super::{Action, Change, Entry, Fault, Feed, Outcome, Plan};
use super::disk::{Disk, DiskFault, Row};

pub(super) struct Store {
    disk: Option<Disk>,
    revision: i64,
    entries: BTreeMap<String, Held>,
    leases: HashMap<i64, BTreeSet<String>>,
    last_lease: i64,
    feeds: Vec<(String, Arc<Feed>)>,
    broken: bool,
}

struct Held {
    entry: Entry,
    lease: Option<i64>,
}

struct Step {
    change: Change,
    lease: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
#[error("an earlier commit has no known outcome; a restart reads what the disk holds")]
struct Broken;

// === impl Store ===

impl Store {
    pub(super) fn new(disk: Option<Disk>, entries: Vec<Entry>, revision: i64) -> Self {
        let unleased = |entry: Entry| (entry.key.clone(), Held { entry, lease: None });
        Self {
            disk,
            revision,
            entries: entries.into_iter().map(unleased).collect(),
            leases: HashMap::new(),
            last_lease: 0,
            feeds: Vec::new(),
            broken: false,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).map(|held| held.entry.clone())
    }

    pub(super) fn list(&self, prefix: &str) -> Vec<Entry> {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, held)| held.entry.clone())
            .collect()
    }

    pub(super) fn follow(&mut self, prefix: String, feed: Arc<Feed>) {
        feed.replace(self.list(&prefix));
        if !self.broken {
            feed.prove_always();
        }
        self.feeds.push((prefix, feed));
    }

    /// From now on mirrors grow stale.
    pub(super) fn stop(&self) {
        let stopped_at = now();
        for (_, feed) in &self.feeds {
            feed.prove(stopped_at);
        }
    }

    pub(super) fn grant(&mut self) -> i64 {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, BTreeSet::new());
        self.last_lease
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        let Some(keys) = self.leases.remove(&lease) else {
            return;
        };
        let actions = keys.into_iter().map(|key| Action::Delete { key }).collect();
        // Leased keys are not on disk, so even a broken store can let go of them; should reserving revisions fail,
        // the store is broken or the next write reports the disk.
        let steps = self.steps(actions);
        if let Err(error) = self.write(&steps) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "revisions were not reserved"
            );
        }
        self.apply(steps);
    }

    pub(super) fn commit(&mut self, plan: Plan) -> Result<Outcome, Fault> {
        if self.broken {
            return Err(Fault::store(Broken));
        }
        let met = plan.expect.iter().all(|(key, expect)| {
            let actual = self
                .entries
                .get(key)
                .map_or(0, |held| held.entry.mod_revision);
            actual == expect.mod_revision()
        });
        if !met {
            return Ok(Outcome::Conflict);
        }
        // In etcd's order: expectations first, leases second.
        let lease_lost = plan.actions.iter().any(|action| match action {
            Action::Put {
                lease: Some(lease), ..
            } => !self.leases.contains_key(lease),
            Action::Put { lease: None, .. } | Action::Delete { .. } => false,
        });
        if lease_lost {
            return Err(Fault::SessionLost);
        }
        let steps = self.steps(plan.actions);
        self.write(&steps)?;
        self.apply(steps);
        Ok(Outcome::Committed {
            revision: self.revision,
        })
    }

    /// What the actions change, at the next revision. Deleting what does not exist changes nothing.
    fn steps(&self, actions: Vec<Action>) -> Vec<Step> {
        let revision = self.revision + 1;
        let mut steps = Vec::with_capacity(actions.len());
        for action in actions {
            match action {
                Action::Put { key, value, lease } => {
                    let known = self.entries.get(&key);
                    let entry = Entry {
                        key: key.clone(),
                        value,
                        create_revision: known.map_or(revision, |held| held.entry.create_revision),
                        mod_revision: revision,
                        leased: lease.is_some(),
                    };
                    let change = Change {
                        key,
                        revision,
                        entry: Some(entry),
                    };
                    steps.push(Step { change, lease });
                }
                Action::Delete { key } if self.entries.contains_key(&key) => {
                    let change = Change {
                        key,
                        revision,
                        entry: None,
                    };
                    steps.push(Step {
                        change,
                        lease: None,
                    });
                }
                Action::Delete { .. } => {}
            }
        }
        steps
    }

    fn write(&mut self, steps: &[Step]) -> Result<(), Fault> {
        let Some(disk) = self.disk.as_mut().filter(|_| !steps.is_empty()) else {
            return Ok(());
        };
        let on_disk = |key: &str| {
            self.entries
                .get(key)
                .is_some_and(|held| held.lease.is_none())
        };
        let rows: Vec<_> = steps
            .iter()
            .filter_map(|step| match &step.change.entry {
                Some(entry) if !entry.leased => Some(Row::Set(entry)),
                _ => on_disk(&step.change.key).then_some(Row::Unset(&step.change.key)),
            })
            .collect();
        let revision = self.revision + 1;
        if rows.is_empty() && !disk.must_reserve(revision) {
            return Ok(());
        }
        match disk.write(revision, &rows) {
            Ok(()) => Ok(()),
            Err(DiskFault::NotWritten(error)) => Err(Fault::store(error)),
            Err(DiskFault::Unknown(error)) => {
                self.broken = true;
                self.stop();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a local commit has no known outcome: the coordination store stops until a restart"
                );
                Err(Fault::unknown(error))
            }
        }
    }

    fn apply(&mut self, steps: Vec<Step>) {
        // Feeds whose mirrors are all dropped are held by nobody but us.
        self.feeds.retain(|(_, feed)| Arc::strong_count(feed) > 1);
        if steps.is_empty() {
            return;
        }
        self.revision += 1;
        for (prefix, feed) in &self.feeds {
            let seen = steps
                .iter()
                .filter(|step| step.change.key.starts_with(prefix.as_str()));
            let mut seen = seen.map(|step| step.change.clone()).peekable();
            if seen.peek().is_some() {
                feed.apply(seen);
            }
        }
        for Step { change, lease } in steps {
            let before = match change.entry {
                Some(entry) => self
                    .entries
                    .insert(change.key.clone(), Held { entry, lease }),
                None => self.entries.remove(&change.key),
            };
            let released = before.and_then(|held| held.lease);
            if let Some(keys) = released.and_then(|it| self.leases.get_mut(&it)) {
                keys.remove(&change.key);
            }
            if let Some(keys) = lease.and_then(|it| self.leases.get_mut(&it)) {
                keys.insert(change.key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
