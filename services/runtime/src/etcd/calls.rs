//! Requests with one answer: each with its time limit, and repeated only where that cannot do harm.

use etcd_client::{Client, Error};
use tokio::time::timeout;

use super::EtcdBackend;
use super::fault::{Silent, Verdict, of_read, of_write, verdict};
use crate::keyspace::{BoxError, Fault};

/// One round over the members and, for a single member, one more on a new connection; never more than this.
const ATTEMPTS_MAX: usize = 3;

/// What a request may be repeated after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing: after any failure that a new connection or another member may cure.
    Reads,
    /// It changes something: only if it was never sent.
    Writes,
}

// === impl EtcdBackend ===

impl EtcdBackend {
    /// Takes at most [`ATTEMPTS_MAX`] times the request timeout; a single silent member is not asked twice.
    pub(super) async fn call<T, F>(
        &self,
        repeat: Repeat,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let attempts = self.requests.members().clamp(2, ATTEMPTS_MAX);
        let mut attempt = 1;
        loop {
            let (fault, again) = match self.attempt(repeat, &request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !again || attempt == attempts {
                return Err(fault);
            }
            attempt += 1;
        }
    }

    /// A fault, and whether another attempt is harmless and has a chance.
    async fn attempt<T, F>(
        &self,
        repeat: Repeat,
        request: &impl Fn(Client) -> F,
    ) -> Result<T, (Fault, bool)>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let link = match self.requests.link().await {
            Ok(link) => link,
            // Only the login was sent.
            Err(error) => {
                let refused = verdict(&error) == Verdict::Refused;
                return Err((of_read(verdict(&error), error), !refused));
            }
        };
        let limit = self.config.request_timeout;
        let fault = |verdict: Verdict, error: BoxError| match repeat {
            Repeat::Reads => of_read(verdict, error),
            Repeat::Writes => of_write(verdict, error),
        };
        match timeout(limit, request(link.client().clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let verdict = verdict(&error);
                if matches!(verdict, Verdict::NotSent | Verdict::Open) {
                    self.requests.failed(&link);
                }
                let again = match repeat {
                    Repeat::Reads => matches!(verdict, Verdict::NotSent | Verdict::Open),
                    Repeat::Writes => verdict == Verdict::NotSent,
                };
                Err((fault(verdict, error.into()), again))
            }
            Err(_) => {
                self.requests.failed(&link);
                let others = self.requests.members() > 1;
                Err((
                    fault(Verdict::Open, Silent(limit).into()),
                    others && repeat == Repeat::Reads,
                ))
            }
        }
    }
}
