//! Keeps a session's lease alive, and gets a new one when it is gone.
//!
//! Invariant: the deadline handed to the session is the moment a renewal was *sent*, plus what etcd granted. Only
//! etcd's own word that it does not know the lease makes it gone; silence only lets it lapse.

use std::time::Duration;

use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, sleep_until, timeout};

use super::EtcdBackend;
use super::calls::Repeat;
use super::clients::Link;
use super::fault::{Silent, Verdict, verdict};
use crate::keyspace::{Backoff, BoxError, Fault, SessionCore, now};

/// Sessions matter within seconds: never wait longer before asking again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Attempts to revoke at the end; then the TTL does it.
const REVOKES_MAX: usize = 3;

struct Grant {
    id: i64,
    ttl: Duration,
}

/// Why a keep-alive stream ended.
enum End {
    /// etcd does not know the lease.
    Gone,
    Broken(BoxError),
}

/// Holds leases for the session, one after the other, until it is to end.
pub(super) async fn hold(etcd: &EtcdBackend, core: &SessionCore) {
    while let Some(grant) = core.ending.run_until_cancelled(granted(etcd, core)).await {
        let kept = core.ending.run_until_cancelled(async {
            tokio::select! {
                () = Box::pin(keep(etcd, core, &grant)) => {}
                never = core.note_lapses() => match never {},
            }
        });
        if kept.await.is_none() {
            revoke(etcd, &grant).await;
            break;
        }
        core.lost();
        tracing::warn!(lease.id = grant.id, "lease lost; asking for a new one");
    }
    core.ended();
}

async fn granted(etcd: &EtcdBackend, core: &SessionCore) -> Grant {
    let mut backoff = Backoff::up_to(BACKOFF_MAX);
    // etcd counts whole seconds.
    let seconds = core.ttl.as_secs() + u64::from(core.ttl.subsec_nanos() > 0);
    let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
    loop {
        let sent = now();
        // Granting is a write, but one whose loss costs nothing: a lease that nobody renews dies by itself.
        let answer = etcd
            .call(Repeat::Writes, move |client| async move {
                client.lease_client().grant(seconds, None).await
            })
            .await;
        match answer {
            Ok(answer) => {
                let ttl = Duration::from_secs(answer.ttl().unsigned_abs());
                let grant = Grant {
                    id: answer.id(),
                    ttl,
                };
                let generation = core.granted(grant.id, Some(sent + ttl));
                tracing::info!(lease.id = grant.id, generation, ?ttl, "lease granted");
                return grant;
            }
            Err(fault) => {
                if !backoff.failing() {
                    tracing::warn!(
                        error = &fault as &dyn std::error::Error,
                        "no lease granted; retrying"
                    );
                }
                backoff.wait().await;
            }
        }
    }
}

/// Returns when the lease is gone.
async fn keep(etcd: &EtcdBackend, core: &SessionCore, grant: &Grant) {
    let mut backoff = Backoff::up_to(BACKOFF_MAX.min(grant.ttl / 3));
    loop {
        match renew_on_one_stream(etcd, core, grant, &mut backoff).await {
            End::Gone => return,
            End::Broken(error) => {
                if !backoff.failing() {
                    tracing::warn!(
                        lease.id = grant.id,
                        error = &*error,
                        "keep-alive broke off; reopening"
                    );
                }
                backoff.wait().await;
            }
        }
    }
}

async fn renew_on_one_stream(
    etcd: &EtcdBackend,
    core: &SessionCore,
    grant: &Grant,
    backoff: &mut Backoff,
) -> End {
    let link = match etcd.streams.link().await {
        Ok(link) => link,
        Err(error) => return End::Broken(error.into()),
    };
    let end = match renew_over(etcd, core, grant, backoff, &link).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    if matches!(end, End::Broken(_)) {
        etcd.streams.failed(&link);
    }
    end
}

async fn renew_over(
    etcd: &EtcdBackend,
    core: &SessionCore,
    grant: &Grant,
    backoff: &mut Backoff,
    link: &Link,
) -> Result<std::convert::Infallible, End> {
    let limit = grant.ttl / 3;
    let mut sent = now();
    let (mut keeper, mut replies) = open(etcd, grant, link, limit).await?;
    loop {
        // After silence, an answer on this stream is not enough: some versions of etcd answer for a revoked lease.
        if core.lapsed() && !known(etcd, grant).await? {
            return Err(End::Gone);
        }
        core.renewed(sent + grant.ttl);
        if backoff.failing() {
            tracing::info!(lease.id = grant.id, "lease is kept alive again");
            backoff.reset();
        }
        rest(core, &mut replies, sent + limit).await?;
        sent = now();
        renew(&mut keeper, &mut replies, limit).await?;
    }
}

async fn open(
    etcd: &EtcdBackend,
    grant: &Grant,
    link: &Link,
    limit: Duration,
) -> Result<(LeaseKeeper, LeaseKeepAliveStream), End> {
    let mut client = link.client().lease_client();
    match timeout(limit, client.keep_alive(grant.id)).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) if verdict(&error) == Verdict::NoLease => Err(End::Gone),
        // The library reports an unknown lease and a stream that closed alike: ask.
        Ok(Err(error @ Error::LeaseKeepAliveError(_))) => match known(etcd, grant).await? {
            true => Err(End::Broken(error.into())),
            false => Err(End::Gone),
        },
        Ok(Err(error)) => Err(End::Broken(error.into())),
        Err(_) => Err(End::Broken(Silent(limit).into())),
    }
}

/// Waits for the next renewal's time, or less if somebody found the lease missing.
async fn rest(
    core: &SessionCore,
    replies: &mut LeaseKeepAliveStream,
    until: Instant,
) -> Result<(), End> {
    tokio::select! {
        () = sleep_until(until) => Ok(()),
        () = core.suspected.notified() => Ok(()),
        // Nothing is asked, so this is the stream's end or a late word on the lease.
        reply = replies.message() => judge(reply),
    }
}

async fn renew(
    keeper: &mut LeaseKeeper,
    replies: &mut LeaseKeepAliveStream,
    limit: Duration,
) -> Result<(), End> {
    let renewal = async {
        keeper
            .keep_alive()
            .await
            .map_err(|error| End::Broken(error.into()))?;
        judge(replies.message().await)
    };
    timeout(limit, renewal)
        .await
        .unwrap_or_else(|_| Err(End::Broken(Silent(limit).into())))
}

fn judge(reply: Result<Option<etcd_client::LeaseKeepAliveResponse>, Error>) -> Result<(), End> {
    match reply {
        Ok(Some(reply)) if reply.ttl() > 0 => Ok(()),
        Ok(Some(_)) => Err(End::Gone),
        Ok(None) => Err(End::Broken("etcd closed the keep-alive stream".into())),
        Err(error) if verdict(&error) == Verdict::NoLease => Err(End::Gone),
        Err(error) => Err(End::Broken(error.into())),
    }
}

/// Asks whether etcd has the lease still.
async fn known(etcd: &EtcdBackend, grant: &Grant) -> Result<bool, End> {
    let id = grant.id;
    let answer = etcd
        .call(Repeat::Reads, move |client| async move {
            client.lease_client().time_to_live(id, None).await
        })
        .await;
    match answer {
        Ok(answer) => Ok(answer.ttl() > 0),
        Err(Fault::SessionLost) => Ok(false),
        Err(fault) => Err(End::Broken(fault.into())),
    }
}

async fn revoke(etcd: &EtcdBackend, grant: &Grant) {
    let id = grant.id;
    let mut backoff = Backoff::up_to(BACKOFF_MAX);
    for _ in 0..REVOKES_MAX {
        let answer = etcd
            .call(Repeat::Writes, move |client| async move {
                client.lease_client().revoke(id).await
            })
            .await;
        match answer {
            // Unknown to etcd: expired, or an earlier attempt did it.
            Ok(_) | Err(Fault::SessionLost) => return,
            Err(fault) => {
                tracing::warn!(
                    lease.id = grant.id,
                    error = &fault as &dyn std::error::Error,
                    "lease not revoked"
                );
                backoff.wait().await;
            }
        }
    }
}
