//! The one place where roles are enforced, for all services.

use std::task::{Context, Poll};

use domain::Refusal;
use futures::future::Either;
use proto::Method;
use proto::status::refuse;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Caller, Callers, Vouched, may};
use crate::early::Early;
use crate::metrics::Refusals;

/// Puts [`CallersService`] around a service.
#[derive(Clone, Debug)]
pub struct CallersLayer {
    callers: Callers,
    refusals: Refusals,
}

/// Refuses calls of unknown or unfit systems; adds the [`Caller`] to the others.
#[derive(Clone, Debug)]
pub struct CallersService<S> {
    callers: Callers,
    refusals: Refusals,
    inner: S,
}

impl CallersLayer {
    /// Recognises callers with `callers`, and counts those it turns away.
    #[must_use]
    pub const fn new(callers: Callers, refusals: Refusals) -> Self {
        Self { callers, refusals }
    }
}

impl<S> Layer<S> for CallersLayer {
    type Service = CallersService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallersService {
            callers: self.callers.clone(),
            refusals: self.refusals.clone(),
            inner,
        }
    }
}

impl<S> CallersService<S> {
    fn caller<B>(&self, method: Method, request: &http::Request<B>) -> Result<Caller, Refusal> {
        let caller = match request.extensions().get::<Vouched>() {
            Some(Vouched(caller)) => caller.clone(),
            None => self
                .callers
                .identify(request.headers(), request.extensions())?,
        };
        if may(caller.role, method) {
            Ok(caller)
        } else {
            Err(Refusal::CallerForbidden)
        }
    }
}

impl<S, B> Service<http::Request<B>> for CallersService<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    B: http_body::Body + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Early<B, S::Error>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // Health and reflection say nothing about anybody and must answer a platform's probes.
        if let Some(method) = Method::from_path(request.uri().path()) {
            match self.caller(method, &request) {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                }
                Err(refusal) => {
                    self.refusals.count(refusal);
                    return Either::Left(Early::new(request, refuse(refusal).into_http()));
                }
            }
        }
        Either::Right(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn call(layer: &CallersLayer, path: &str, role: &'static str) -> (String, bool) {
        let reached = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = reached.clone();
        let mut service = layer.layer(tower::service_fn(move |request: http::Request<Body>| {
            seen.store(
                request.extensions().get::<Caller>().is_some(),
                std::sync::atomic::Ordering::SeqCst,
            );
            async { Ok::<_, Infallible>(http::Response::new(Body::empty())) }
        }));
        let request = http::Request::builder()
            .uri(path)
            .header(super::super::ROLE_HEADER, role)
            .body(Body::empty())
            .expect("a request");
        let answer = service.call(request).await.expect("infallible");
        let status = answer
            .headers()
            .get("grpc-status")
            .map_or("0", |s| s.to_str().expect("digits"));
        (
            status.to_owned(),
            reached.load(std::sync::atomic::Ordering::SeqCst),
        )
    }

    #[tokio::test]
    async fn every_method_is_refused_to_every_role_that_may_not_and_to_no_other() {
        let layer = CallersLayer::new(Callers::believed(), Refusals::default());
        for method in Method::ALL.iter().copied() {
            for role in super::super::Role::ALL {
                let (status, reached) = call(&layer, method.path(), role.as_str()).await;
                assert_eq!(
                    reached,
                    may(role, method),
                    "{} as {}",
                    method.op(),
                    role.as_str()
                );
                assert_eq!(status == "7", !reached, "PERMISSION_DENIED or through");
            }
        }
    }

    #[tokio::test]
    async fn without_a_proof_nothing_of_the_api_is_reached() {
        let layer = CallersLayer::new(Callers::proven(None), Refusals::default());
        for method in Method::ALL.iter().copied() {
            let (status, reached) = call(&layer, method.path(), "operator").await;
            assert_eq!((status.as_str(), reached), ("16", false), "{}", method.op());
        }
        let (status, _) = call(&layer, "/grpc.health.v1.Health/Check", "mobile").await;
        assert_eq!(status, "0");
    }
}
