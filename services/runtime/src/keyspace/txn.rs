//! Transactions: what is expected, what is written, and the limits of both.

use std::collections::HashSet;

use bytes::Bytes;

use super::{Fault, Session};

/// etcd's own default limit of operations in one transaction; kept for both backends, so that what works on a
/// laptop works in a cluster.
const OPS_MAX: usize = 128;
/// Keys are short paths; this leaves room for the longest resource name twice over.
const KEY_BYTES_MAX: usize = 1_024;
/// Below etcd's 1.5 MiB for a whole request, with room for keys and framing.
const TXN_BYTES_MAX: usize = 1_280 * 1_024;

/// What must hold of a key for a transaction to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and its last write was at this revision.
    Revision(i64),
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub enum Write {
    /// Sets a key; an existing key changes its lease to the given one, or to none.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The session the key shall die with.
        session: Option<Session>,
    },
    /// Removes a key; no error if there is none.
    Delete {
        /// The key.
        key: String,
    },
}

/// Writes that happen all together if all expectations hold. Each key may be written once.
#[derive(Debug, Clone, Default)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Txn {
    /// What must hold.
    pub expect: Vec<(String, Expect)>,
    /// What is then written.
    pub writes: Vec<Write>,
}

/// The answer of the store to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All writes happened, at this revision.
    Committed {
        /// Becomes the `mod_revision` of every key written.
        revision: i64,
    },
    /// An expectation did not hold; nothing was written.
    Conflict,
}

/// A checked transaction with its sessions resolved to leases.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) expect: Vec<(String, Expect)>,
    pub(crate) actions: Vec<Action>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Put {
        key: String,
        value: Bytes,
        lease: Option<i64>,
    },
    Delete {
        key: String,
    },
}

// === impl Expect ===

impl Expect {
    /// The `mod_revision` that a key must have, where 0 stands for no such key.
    pub(crate) fn mod_revision(self) -> i64 {
        match self {
            Self::Absent => 0,
            Self::Revision(revision) => revision,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The revision of the commit, if it happened.
    #[must_use]
    pub fn revision(self) -> Option<i64> {
        match self {
            Self::Committed { revision } => Some(revision),
            Self::Conflict => None,
        }
    }

    /// Whether the writes happened.
    #[must_use]
    pub fn committed(self) -> bool {
        self.revision().is_some()
    }
}

// === impl Txn ===

impl Txn {
    /// A transaction that expects and writes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects that `key` does not exist.
    pub fn expect_absent(self, key: impl Into<String>) -> Self {
        self.expect(key, Expect::Absent)
    }

    /// Expects that the last write to `key` was at `revision`.
    pub fn expect_revision(self, key: impl Into<String>, revision: i64) -> Self {
        self.expect(key, Expect::Revision(revision))
    }

    /// Expects something of `key`.
    pub fn expect(mut self, key: impl Into<String>, expect: Expect) -> Self {
        self.expect.push((key.into(), expect));
        self
    }

    /// Sets an unleased key.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put {
            key: key.into(),
            value: value.into(),
            session: None,
        });
        self
    }

    /// Sets a key that dies with `session`.
    pub fn put_leased(
        mut self,
        session: &Session,
        key: impl Into<String>,
        value: impl Into<Bytes>,
    ) -> Self {
        self.writes.push(Write::Put {
            key: key.into(),
            value: value.into(),
            session: Some(session.clone()),
        });
        self
    }

    /// Removes a key if it exists.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    pub(super) fn plan(self, origin: u64) -> Result<(Plan, Vec<Session>), Fault> {
        self.check()?;
        let mut sessions = Vec::new();
        let mut actions = Vec::with_capacity(self.writes.len());
        for write in self.writes {
            actions.push(match write {
                Write::Put {
                    key,
                    value,
                    session,
                } => {
                    let lease = session.as_ref().map(|it| it.lease_at(origin)).transpose()?;
                    sessions.extend(session);
                    Action::Put { key, value, lease }
                }
                Write::Delete { key } => Action::Delete { key },
            });
        }
        let plan = Plan {
            expect: self.expect,
            actions,
        };
        Ok((plan, sessions))
    }

    fn check(&self) -> Result<(), Fault> {
        if self.expect.len() > OPS_MAX || self.writes.len() > OPS_MAX {
            return Err(Fault::invalid(format!(
                "more than {OPS_MAX} operations in one transaction"
            )));
        }
        let mut bytes = 0;
        let mut written = HashSet::with_capacity(self.writes.len());
        for (key, _) in &self.expect {
            check_key(key)?;
            bytes += key.len();
        }
        for write in &self.writes {
            let (key, value_bytes) = match write {
                Write::Put { key, value, .. } => (key, value.len()),
                Write::Delete { key } => (key, 0),
            };
            check_key(key)?;
            bytes += key.len() + value_bytes;
            if !written.insert(key) {
                return Err(Fault::invalid("a key is written twice in one transaction"));
            }
        }
        if bytes > TXN_BYTES_MAX {
            return Err(Fault::invalid(format!(
                "transaction of more than {TXN_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }
}

pub(super) fn check_key(key: &str) -> Result<(), Fault> {
    if key.is_empty() {
        return Err(Fault::invalid("empty key"));
    }
    check_prefix(key)
}

pub(super) fn check_prefix(prefix: &str) -> Result<(), Fault> {
    if prefix.len() > KEY_BYTES_MAX {
        return Err(Fault::invalid(format!(
            "key of more than {KEY_BYTES_MAX} bytes"
        )));
    }
    if prefix.contains('\0') {
        return Err(Fault::invalid("key with a zero byte"));
    }
    Ok(())
}
