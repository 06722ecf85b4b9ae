//! Tells gateways where this process is, for as long as it lives.

use domain::InstanceId;
use runtime::drain::Drain;
use runtime::fields;
use runtime::keyspace::{Keyspace, Session, Txn};
use serde::{Deserialize, Serialize};

/// Below this prefix every living identity process has one key.
pub const PREFIX: &str = "/doseline/identity/member/";

/// What a member says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where gateways reach it, `host:port`.
    pub addr: String,
    /// Its version.
    pub build: String,
    /// It goes away soon: no new calls.
    pub draining: bool,
}

/// How long after a failed write the next one is tried.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// Keeps the key until the process drains, then says so; the key goes with the session.
pub async fn register(
    keyspace: Keyspace,
    mut session: Session,
    instance: InstanceId,
    addr: String,
    drain: Drain,
) {
    let key = format!("{PREFIX}{instance}");
    let mut member = Member {
        addr,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        draining: false,
    };
    let mut told = None;
    loop {
        if drain.is_draining() {
            member.draining = true;
        }
        let now = (session.generation(), member.draining);
        if session.alive() && told != Some(now) {
            match put(&keyspace, &session, &key, &member).await {
                Ok(()) => told = Some(now),
                Err(error) => {
                    tracing::warn!(error = fields::chain(&error), "membership was not written");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
        }
        if member.draining {
            return;
        }
        tokio::select! {
            () = session.changed() => {}
            () = drain.announced() => {}
        }
    }
}

async fn put(
    keyspace: &Keyspace,
    session: &Session,
    key: &str,
    member: &Member,
) -> Result<(), runtime::keyspace::Fault> {
    let json = serde_json::to_vec(member).expect("plain fields always serialise");
    keyspace
        .commit(Txn::new().put_leased(session, key, json))
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::drain::Cause;

    use super::*;

    #[tokio::test]
    async fn a_member_is_seen_says_that_it_goes_and_is_gone() {
        let keyspace = Keyspace::local(None).expect("in memory");
        let mut mirror = keyspace.mirror(PREFIX);
        mirror.ready().await;
        let session = keyspace.session(Duration::from_secs(5));
        let drain = Drain::within(Duration::from_secs(1));
        let instance = "identity-1".parse().expect("slug");
        let addr = "127.0.0.1:7".to_owned();
        let task = register(
            keyspace.clone(),
            session.clone(),
            instance,
            addr,
            drain.clone(),
        );
        let watch = async {
            let seen = |mirror: &runtime::keyspace::Mirror| {
                let entry = mirror
                    .snapshot()
                    .get("/doseline/identity/member/identity-1")
                    .cloned();
                entry.map(|entry| serde_json::from_slice::<Member>(&entry.value).expect("a member"))
            };
            mirror.changed().await;
            assert_eq!(seen(&mirror).map(|member| member.draining), Some(false));
            drain.start(Cause::Requested);
            mirror.changed().await;
            assert_eq!(seen(&mirror).map(|member| member.draining), Some(true));
            session.end().await;
            mirror.changed().await;
            assert_eq!(seen(&mirror), None);
        };
        tokio::join!(task, watch);
    }
}
