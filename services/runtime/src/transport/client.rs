//! Channels to other parts: made at once, connected when used, given up in bounded time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use super::Fault;
use super::tls::ClientTls;
use crate::tasks::BoxError;

/// How a channel behaves. The defaults fit processes of one data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// A quiet connection is tried this often.
    pub keep_alive_every: Duration,
    /// And given up after this long without an answer.
    pub keep_alive_within: Duration,
    /// Calls that may wait for the connection; more than that wait in their callers.
    pub buffer: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keep_alive_every: Duration::from_secs(10),
            keep_alive_within: Duration::from_secs(5),
            buffer: 1_024,
        }
    }
}

/// A channel to `address` (`host:port`). It connects at its first call, and again when the connection is lost;
/// each new connection takes the certificates of that moment.
///
/// One connection has one lock: open several channels to an owner and spread calls over them.
pub fn connect(
    address: &str,
    tls: Option<ClientTls>,
    settings: &ClientSettings,
) -> Result<Channel, Fault> {
    let malformed = || Fault::Address {
        address: address.to_owned(),
    };
    // TLS is ours to make: with an https address tonic would insist on its own, whose files never change.
    let uri: Uri = format!("http://{address}")
        .parse()
        .map_err(|_| malformed())?;
    let host = uri.host().ok_or_else(malformed)?;
    if uri.port().is_none() || uri.path() != "/" || uri.query().is_some() {
        return Err(malformed());
    }
    let mut endpoint = Endpoint::from(uri.clone());
    if let Some(tls) = &tls {
        tls.server_name(host).map_err(Fault::Tls)?;
        let origin = format!("https://{address}")
            .parse()
            .map_err(|_| malformed())?;
        endpoint = endpoint.origin(origin);
    }
    let endpoint = endpoint
        .http2_keep_alive_interval(settings.keep_alive_every)
        .keep_alive_timeout(settings.keep_alive_within)
        .keep_alive_while_idle(true)
        .buffer_size(settings.buffer)
        .initial_connection_window_size(4 << 20)
        .initial_stream_window_size(1 << 20);
    Ok(endpoint.connect_with_connector_lazy(Connector {
        tls,
        within: settings.connect_timeout,
    }))
}

/// Where a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server said so.
    Answered,
    /// It never left this process: nothing happened, anybody may repeat it.
    NotSent,
    /// It may have left and may have been done: only the same request id may be repeated.
    Lost,
    /// Its deadline passed on this side; like lost, and there is no time left.
    TimedOut,
}

impl Failure {
    /// Reads what tonic kept about a failed call; a status code alone does not tell.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let mut cause = std::error::Error::source(status);
        if cause.is_none() {
            return Self::Answered;
        }
        while let Some(error) = cause {
            if error.is::<tonic::TimeoutExpired>() {
                return Self::TimedOut;
            }
            // hyper cancels what still waits when its connection closes, and only that.
            let unsent = error
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_canceled);
            if unsent || error.is::<tonic::ConnectError>() {
                return Self::NotSent;
            }
            cause = error.source();
        }
        Self::Lost
    }
}

/// The status callers expect. tonic's channel says CANCELLED where a deadline passed on this side and where a
/// connection closed under a waiting call, and INTERNAL or UNKNOWN where it broke under a running one.
#[must_use]
pub fn normalised(status: Status) -> Status {
    match Failure::of(&status) {
        Failure::Answered => status,
        Failure::NotSent => Status::unavailable("the call could not be sent"),
        Failure::Lost => Status::unavailable("the connection was lost; what happened is unknown"),
        Failure::TimedOut => Status::deadline_exceeded("no answer within the deadline"),
    }
}

#[derive(Clone, Debug)]
struct Connector {
    tls: Option<ClientTls>,
    within: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (this, within) = (self.clone(), self.within);
        // Not the endpoint's own timeout: that one is told apart from no other failure.
        Box::pin(async move { tokio::time::timeout(within, this.open(uri)).await? })
    }
}

impl Connector {
    async fn open(self, uri: Uri) -> Result<TokioIo<Io>, BoxError> {
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err("the address has no host or no port".into());
        };
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = self.tls else {
            return Ok(TokioIo::new(Io::Plain(tcp)));
        };
        let name = tls.server_name(host)?;
        let stream = TlsConnector::from(tls.current()).connect(name, tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server does not speak HTTP/2".into());
        }
        Ok(TokioIo::new(Io::Tls(Box::new(stream))))
    }
}

/// A connection with or without TLS.
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tonic::Code;
    use tonic::body::Body;

    use super::*;
    use crate::transport::Listener;

    #[tokio::test]
    async fn only_host_and_port_make_an_address() {
        let settings = ClientSettings::default();
        for fine in ["127.0.0.1:7700", "[::1]:7700", "gateway.example:443"] {
            assert!(connect(fine, None, &settings).is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "host",
            "host:99999",
            "http://host:1",
            "host:1/path",
            "host:1?x",
            "a b:1",
        ] {
            assert!(connect(wrong, None, &settings).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn where_a_call_failed_is_told_apart() {
        let answered = Status::cancelled("Timeout expired");
        assert_eq!(Failure::of(&answered), Failure::Answered);
        assert_eq!(normalised(answered).code(), Code::Cancelled);

        let own = Status::from_error(tonic::TimeoutExpired(()).into());
        assert_eq!(
            (own.code(), Failure::of(&own)),
            (Code::Cancelled, Failure::TimedOut)
        );
        assert_eq!(normalised(own).code(), Code::DeadlineExceeded);

        let broken = Status::from_error(std::io::Error::other("reset").into());
        assert_eq!(Failure::of(&broken), Failure::Lost);
        assert_eq!(normalised(broken).code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_sends_nothing() {
        let unused = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .expect("a free port");
        let address = unused.local_addr().to_string();
        drop(unused);
        let channel = connect(&address, None, &ClientSettings::default()).expect("an address");
        let error = tower::ServiceExt::oneshot(channel, http::Request::new(Body::empty()))
            .await
            .map_err(|error| Status::from_error(error.into()))
            .expect_err("nobody listens");
        assert_eq!(Failure::of(&error), Failure::NotSent);
    }
}
