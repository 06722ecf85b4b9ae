//! One doorkeeper for all rooms: whoever holds the key. It dies with its holder's session.
//!
//! Invariant: nothing rests on being alone. A doorkeeper that does not know yet that it was replaced cannot write,
//! because each of its writes expects its own key's revision.

use std::time::Duration;

use domain::InstanceId;
use runtime::drain::Drain;
use runtime::fields;
use runtime::keyspace::{Fault, Keyspace, Session, Txn};
use serde::{Deserialize, Serialize};

/// The key of the doorkeeper.
pub const KEY: &str = "/doseline/doorkeeper";
/// How long after a failed try the next one follows.
const AGAIN: Duration = Duration::from_millis(500);

/// Being the doorkeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Office {
    /// The key.
    pub key: String,
    /// The revision of our own write to it.
    pub revision: i64,
}

/// What the key says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doorkeeper {
    /// Who it is.
    pub instance: InstanceId,
}

/// Waits until this process is the doorkeeper; `None` when it drains.
pub async fn elected(
    keyspace: &Keyspace,
    session: &mut Session,
    instance: &InstanceId,
    drain: &Drain,
) -> Option<Office> {
    let mut mirror = keyspace.mirror(KEY);
    let seeking = async {
        loop {
            mirror.ready().await;
            if session.alive() && !mirror.snapshot().contains_key(KEY) {
                match claim(keyspace, session, instance).await {
                    Ok(Some(office)) => return office,
                    Ok(None) => {}
                    Err(error) => {
                        let error = fields::chain(&error);
                        tracing::debug!(error, "the doorkeeper's key could not be put");
                    }
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            tokio::select! {
                () = mirror.changed() => {}
                () = session.changed() => {}
                // A lease that lapsed and was renewed between two looks tells nobody.
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    };
    drain.interrupt(seeking).await
}

async fn claim(
    keyspace: &Keyspace,
    session: &Session,
    instance: &InstanceId,
) -> Result<Option<Office>, Fault> {
    let doorkeeper = Doorkeeper {
        instance: instance.clone(),
    };
    let json = serde_json::to_vec(&doorkeeper).expect("plain fields always serialise");
    let txn = Txn::new().expect_absent(KEY).put_leased(session, KEY, json);
    let outcome = keyspace.commit(txn).await?;
    Ok(outcome.revision().map(|revision| Office {
        key: KEY.to_owned(),
        revision,
    }))
}

/// Waits until the office is lost: the key is another's or gone, or the session's lease is.
pub async fn lost(keyspace: &Keyspace, session: &mut Session, office: &Office) {
    let mut mirror = keyspace.mirror(KEY);
    let generation = session.generation();
    mirror.ready().await;
    loop {
        let seen = mirror.snapshot().get(KEY).map(|entry| entry.mod_revision);
        // A listing from before our own write proves nothing.
        let replaced = seen.is_some_and(|seen| seen > office.revision);
        let gone = seen.is_none() && absent(keyspace, office).await;
        if replaced || gone || session.generation() != generation {
            return;
        }
        tokio::select! {
            () = mirror.changed() => {}
            () = session.changed() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Whether the office is certainly not ours any more, read strictly.
pub async fn absent(keyspace: &Keyspace, office: &Office) -> bool {
    let entry = keyspace.get(KEY).await;
    entry.is_ok_and(|entry| entry.is_none_or(|entry| entry.mod_revision != office.revision))
}

/// Gives the office up, so that the next one need not wait for the lease to end.
pub async fn resign(keyspace: &Keyspace, office: &Office) {
    let txn = Txn::new().expect_revision(KEY, office.revision).delete(KEY);
    if let Err(error) = keyspace.commit(txn).await {
        tracing::debug!(
            error = fields::chain(&error),
            "the doorkeeper's key is left to its lease"
        );
    }
}

#[cfg(test)]
mod tests {
    use runtime::drain::Cause;

    use super::*;

    fn names() -> [InstanceId; 2] {
        ["one", "two"].map(|name| name.parse().expect("slug"))
    }

    #[tokio::test]
    async fn one_is_elected_and_the_next_when_it_is_gone() {
        let keyspace = Keyspace::local(None).expect("in memory");
        let drain = Drain::within(Duration::from_secs(1));
        let [one, two] = names();
        let mut first = keyspace.session(Duration::from_secs(5));
        let mut second = keyspace.session(Duration::from_secs(5));
        first.ready().await;
        second.ready().await;
        let office = elected(&keyspace, &mut first, &one, &drain)
            .await
            .expect("free");
        {
            let waiting = elected(&keyspace, &mut second, &two, &drain);
            tokio::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending(), "taken");
            first.end().await;
            let next = waiting.await.expect("free again");
            assert!(next.revision > office.revision);
        }
        lost(&keyspace, &mut second, &office).await;
        drain.start(Cause::Requested);
        assert_eq!(elected(&keyspace, &mut second, &two, &drain).await, None);
    }

    #[tokio::test]
    async fn who_resigns_makes_room_at_once_and_takes_nobody_elses_office() {
        let keyspace = Keyspace::local(None).expect("in memory");
        let drain = Drain::within(Duration::from_secs(1));
        let [one, two] = names();
        let mut session = keyspace.session(Duration::from_secs(5));
        session.ready().await;
        let old = elected(&keyspace, &mut session, &one, &drain)
            .await
            .expect("free");
        resign(&keyspace, &old).await;
        let new = elected(&keyspace, &mut session, &two, &drain)
            .await
            .expect("free");
        resign(&keyspace, &old).await;
        let entry = keyspace.get(KEY).await.expect("read").expect("still there");
        assert_eq!(entry.mod_revision, new.revision);
        let holder: Doorkeeper = serde_json::from_slice(&entry.value).expect("a doorkeeper");
        assert_eq!(holder.instance, two);
    }
}
