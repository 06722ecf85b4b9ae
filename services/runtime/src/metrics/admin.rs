//! The port for machines that watch: `/metrics`, `/healthz`, `/readyz`, and the log filter where that is allowed.
//!
//! Invariant: it answers until the process ends, and shows nothing about people.

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::Registry;
use crate::fields;
use crate::readiness::Readiness;
use crate::telemetry::LogFilter;
use crate::transport::Listener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const FILTER_BYTES_MAX: usize = 4_096;

/// What the port shows. It has no TLS and no callers' identities: bind it where only the platform reaches it.
#[derive(Clone, Debug)]
pub struct AdminPort {
    /// Shown at `/metrics`.
    pub registry: Registry,
    /// Shown at `/readyz`.
    pub readiness: Readiness,
    /// Changed by `PUT /log-filter`; without it there is no such path.
    pub log_filter: Option<LogFilter>,
}

impl AdminPort {
    /// Answers until the future is dropped.
    pub async fn serve(self, listener: Listener) -> std::io::Result<()> {
        axum::serve(listener.into_tcp(), self.router()).await
    }

    fn router(self) -> Router {
        let mut router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "alive\n"))
            .route("/readyz", get(ready));
        if self.log_filter.is_some() {
            router = router.route("/log-filter", get(show_filter).put(change_filter));
        }
        router
            .layer(DefaultBodyLimit::max(FILTER_BYTES_MAX))
            .with_state(self)
    }
}

async fn metrics(State(port): State<AdminPort>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, OPENMETRICS)],
        port.registry.encode(),
    )
}

async fn ready(State(port): State<AdminPort>) -> (StatusCode, String) {
    if port.readiness.is_ready() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let waiting = port.readiness.waiting().join(", ");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {waiting}\n"),
        )
    }
}

async fn show_filter(State(port): State<AdminPort>) -> (StatusCode, String) {
    match &port.log_filter {
        Some(filter) => (StatusCode::OK, format!("{}\n", filter.current())),
        None => (StatusCode::NOT_FOUND, String::new()),
    }
}

async fn change_filter(State(port): State<AdminPort>, text: String) -> (StatusCode, String) {
    let Some(filter) = &port.log_filter else {
        return (StatusCode::NOT_FOUND, String::new());
    };
    match filter.set(text.trim()) {
        Ok(()) => (StatusCode::OK, format!("{}\n", filter.current())),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            format!("{}\n", fields::chain(&error)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(to: std::net::SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(to)
            .await
            .expect("the port listens");
        let request = format!("{request}\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("writable");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn the_port_tells_health_readiness_and_metrics() {
        let readiness = Readiness::new();
        let latch = readiness.register("shards");
        let port = AdminPort {
            registry: Registry::new(),
            readiness: readiness.clone(),
            log_filter: None,
        };
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .expect("a free port");
        let to = listener.local_addr();
        let serving = port.serve(listener);
        let asking = async {
            let answer = ask(to, "GET /readyz HTTP/1.1").await;
            assert!(
                answer.starts_with("HTTP/1.1 503") && answer.contains("shards"),
                "{answer}"
            );
            assert!(
                ask(to, "GET /healthz HTTP/1.1")
                    .await
                    .starts_with("HTTP/1.1 200")
            );
            latch.release();
            assert!(
                ask(to, "GET /readyz HTTP/1.1")
                    .await
                    .starts_with("HTTP/1.1 200")
            );
            readiness.close();
            let answer = ask(to, "GET /readyz HTTP/1.1").await;
            assert!(
                answer.starts_with("HTTP/1.1 503") && answer.contains("draining"),
                "{answer}"
            );
            let answer = ask(to, "GET /metrics HTTP/1.1").await;
            assert!(
                answer.contains("openmetrics-text") && answer.ends_with("# EOF\n"),
                "{answer}"
            );
            let answer = ask(to, "PUT /log-filter HTTP/1.1\r\ncontent-length: 0").await;
            assert!(answer.starts_with("HTTP/1.1 404"), "not enabled: {answer}");
        };
        tokio::select! {
            ended = serving => panic!("the port ended: {ended:?}"),
            () = asking => {}
        }
    }
}
