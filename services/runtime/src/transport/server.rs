//! Serves gRPC, and pages to browsers: accepts, limits, ages and drains connections.
//!
//! hyper is driven directly and not through tonic's server: that one loses hyper's limits where they are not set,
//! cannot close an aged connection gracefully and in bounded time, and leaves connections behind after a deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};

use super::Listener;
use super::deadline::DeadlineLayer;
use super::observe::ObserveLayer;
use super::peer::{PeerAddr, PeerIdentity};
use super::tls::{ALPN, ServerTls};
use crate::clock::Clock;
use crate::drain::Drain;
use crate::fields;
use crate::metrics::RpcMetrics;
use crate::tasks::StreamExecutor;
use crate::telemetry::LogLimit;

/// Long enough for every header we use; the usual 16 KiB feed header floods.
const HEADER_LIST_BYTES_MAX: u32 = 8 * 1024;

/// h2's own figure, written down because tonic's default switches it off (rapid reset, CVE-2023-44487).
const PENDING_ACCEPT_RESETS_MAX: usize = 20;

/// Resets that we cause and a peer provokes; hyper warns against none (RUSTSEC-2024-0003).
const LOCAL_ERROR_RESETS_MAX: usize = 256;

/// A stream's and a connection's window: small messages, but many streams share one connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// What one stream may have buffered towards a slow reader.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// A browser's head and our own cookie are far below this; a quiet HTTP/1.1 connection is closed after this long.
const HTTP1_BUFFER_BYTES_MAX: usize = 16 * 1024;
const HTTP1_HEAD_WITHIN: Duration = Duration::from_secs(30);

/// A short rest when the process has no file descriptors left: accepting at once would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

static ACCEPT_FAILED: LogLimit = LogLimit::every(Duration::from_secs(10));
static REFUSED: LogLimit = LogLimit::every(Duration::from_secs(10));

/// A server's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; more are closed as they come.
    pub connections_max: usize,
    /// Streams a connection may have open.
    pub streams_max: u32,
    /// TCP accepted until TLS done.
    pub handshake_within: Duration,
    /// A quiet connection is tried this often.
    pub keep_alive_every: Duration,
    /// And closed after this long without an answer.
    pub keep_alive_within: Duration,
    /// A connection is asked to go after this long, a tenth more or less.
    pub age_max: Duration,
    /// And cut after this much longer.
    pub age_grace: Duration,
    /// No call waits longer than this for its answer to begin.
    pub deadline_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            streams_max: 1_000,
            handshake_within: Duration::from_secs(5),
            keep_alive_every: Duration::from_secs(20),
            keep_alive_within: Duration::from_secs(10),
            age_max: Duration::from_secs(30 * 60),
            age_grace: Duration::from_secs(30),
            deadline_max: Duration::from_secs(30),
        }
    }
}

/// One port that serves gRPC.
#[derive(Clone, Debug)]
pub struct Server {
    name: &'static str,
    limits: Limits,
    tls: Option<ServerTls>,
    metrics: RpcMetrics,
    clock: Clock,
    /// HTTP/1.1 wherever HTTP/2 was not agreed on.
    browsers: bool,
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Connections and streams that had to be cut at the deadline.
    pub cut: usize,
}

/// Who is at the other end of a connection, shared by its requests.
#[derive(Clone)]
struct Peer {
    address: PeerAddr,
    identity: Option<Arc<PeerIdentity>>,
}

impl Server {
    /// A server without TLS. `name` is for logs.
    #[must_use]
    pub fn new(name: &'static str, limits: Limits, metrics: RpcMetrics) -> Self {
        Self {
            name,
            limits,
            tls: None,
            metrics,
            clock: Clock::system(),
            browsers: false,
        }
    }

    /// With TLS, if there is any.
    #[must_use]
    pub fn tls(mut self, tls: Option<ServerTls>) -> Self {
        self.tls = tls;
        self
    }

    /// Serves until the drain has ended: accepts no more, asks connections to go, waits for what is in flight,
    /// cuts the rest at the drain's deadline. `service` is a [`tonic::service::Routes`], or that in layers;
    /// deadlines, spans and the call histogram are put around it here.
    pub async fn serve<S>(self, listener: Listener, service: S, drain: &Drain) -> Drained
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let service = DeadlineLayer::new(self.limits.deadline_max).layer(service);
        let service = ObserveLayer::new(self.metrics.clone()).layer(service);
        self.accept(listener, service, drain).await
    }

    /// Serves pages to browsers in the same way: HTTP/1.1, and HTTP/2 where TLS agreed on it. There is no deadline and no
    /// histogram around the service: a page has its own.
    pub async fn serve_browsers<S>(self, listener: Listener, service: S, drain: &Drain) -> Drained
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let browsers = Self {
            browsers: true,
            ..self
        };
        browsers.accept(listener, service, drain).await
    }

    async fn accept<S>(self, listener: Listener, service: S, drain: &Drain) -> Drained
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let streams = StreamExecutor::default();
        let connections = Arc::new(Semaphore::new(self.limits.connections_max));
        tracing::info!(
            server = self.name,
            address = %listener.local_addr(),
            tls = self.tls.is_some(),
            "listening"
        );
        {
            let tcp = listener.into_tcp();
            let mut stop = pin!(drain.signalled());
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = &mut stop => break,
                    accepted = tcp.accept() => accepted,
                };
                match accepted {
                    Ok((tcp, address)) => {
                        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
                            self.refused("too many connections");
                            continue;
                        };
                        let connection = Connection {
                            server: self.clone(),
                            streams: streams.clone(),
                            drain: drain.clone(),
                            _permit: permit,
                        };
                        streams.spawn(connection.run(tcp, address, service.clone()));
                    }
                    Err(error) => {
                        if let Some(suppressed) = ACCEPT_FAILED.pass() {
                            let error = fields::chain(&error);
                            tracing::warn!(server = self.name, error, suppressed, "cannot accept");
                        }
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                }
            }
        }
        let cut = streams.finish(drain.expired()).await;
        if cut > 0 {
            tracing::warn!(server = self.name, cut, "connections and streams were cut");
        }
        tracing::info!(server = self.name, "drained");
        Drained { cut }
    }

    fn refused(&self, why: &'static str) {
        if let Some(suppressed) = REFUSED.pass() {
            tracing::warn!(server = self.name, why, suppressed, "connection refused");
        }
    }
}

struct Connection {
    server: Server,
    streams: StreamExecutor,
    drain: Drain,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run<S>(self, tcp: TcpStream, address: SocketAddr, service: S)
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        // A socket that refuses the option still works, only later.
        let _ = tcp.set_nodelay(true);
        let address = PeerAddr(address);
        let Some(tls) = self.server.tls.as_ref().map(ServerTls::current) else {
            let peer = Peer {
                address,
                identity: None,
            };
            let http2 = !self.server.browsers;
            return self.http(tcp, peer, service, http2).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(tcp);
        // Handshakes fail at scanners' whim: not worth a line each.
        let io = match tokio::time::timeout(self.server.limits.handshake_within, handshake).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => {
                tracing::debug!(error = fields::chain(&error), "TLS handshake failed");
                return;
            }
            Err(_) => return self.server.refused("TLS handshake took too long"),
        };
        let certificate = io
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        let identity = match certificate
            .map(|der| PeerIdentity::from_certificate(der))
            .transpose()
        {
            Ok(identity) => identity.map(Arc::new),
            // Verified by our CA and yet without a name: a mistake at issuing that must not pass as anonymous.
            Err(error) => {
                tracing::debug!(error = fields::chain(&error), "certificate names nobody");
                return self.server.refused("certificate names no calling system");
            }
        };
        let http2 = !self.server.browsers || io.get_ref().1.alpn_protocol() == Some(ALPN);
        self.http(io, Peer { address, identity }, service, http2)
            .await;
    }

    async fn http<I, S>(self, io: I, peer: Peer, service: S, http2: bool)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let age = self.age(&peer);
        let limits = self.server.limits;
        let handler = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.address);
            if let Some(identity) = &peer.identity {
                request.extensions_mut().insert(Arc::clone(identity));
            }
            service.clone().oneshot(request)
        });
        let io = TokioIo::new(io);
        if http2 {
            let connection = builder(&limits, self.streams.clone()).serve_connection(io, handler);
            self.drive(connection, age, |open| open.graceful_shutdown())
                .await;
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HTTP1_HEAD_WITHIN)
                .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
                .serve_connection(io, handler);
            self.drive(connection, age, |open| open.graceful_shutdown())
                .await;
        }
    }

    /// Drives a connection to its end: asked to go at its age or at the drain, cut a grace later.
    async fn drive<C>(self, connection: C, age: Duration, ask_to_go: impl FnOnce(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let mut old = pin!(tokio::time::sleep(age));
        let mut stop = pin!(self.drain.signalled());
        let ended = tokio::select! {
            ended = &mut connection => Some(ended),
            () = &mut old => None,
            () = &mut stop => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                ask_to_go(connection.as_mut());
                // While draining, the drain's own deadline is the bound; it cuts this task.
                let grace = async {
                    tokio::time::sleep(self.server.limits.age_grace).await;
                    if self.drain.is_draining() {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    ended = &mut connection => ended,
                    () = grace => return tracing::debug!("aged connection cut after its grace"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = fields::chain(&error), "connection ended badly");
        }
    }

    /// Connections made in one second must not end in one second. None outlives its certificate.
    fn age(&self, peer: &Peer) -> Duration {
        let age = self
            .server
            .limits
            .age_max
            .mul_f64(rand::random_range(0.9..=1.1));
        match &peer.identity {
            Some(identity) => age.min(identity.not_after.since(self.server.clock.wall())),
            None => age,
        }
    }
}

fn builder(limits: &Limits, streams: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_local_error_reset_streams(LOCAL_ERROR_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.keep_alive_every)
        .keep_alive_timeout(limits.keep_alive_within);
    builder
}
