//! gRPC over HTTP/2 and TLS, with every limit set that is unsafe by default.
//!
//! Invariant: a connection, a stream, a handshake and a drain all end in bounded time.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

mod client;
mod deadline;
mod observe;
mod peer;
mod server;
mod settings;
mod tls;

pub use client::{ClientSettings, Failure, connect, normalised};
pub use deadline::{Deadline, DeadlineLayer};
pub use observe::ObserveLayer;
pub use peer::{NotAnIdentity, PeerAddr, PeerIdentity, PeerRole};
pub use server::{Drained, Limits, Server};
pub use settings::{RawClientTls, RawLimits, RawServer, RawServerTls, ServerSettings};
pub use tls::{ClientCertificates, ClientTls, ClientTlsFiles, ServerTls, ServerTlsFiles, TlsFault};

/// Connections that wait to be accepted; a rush arrives in one instant.
const BACKLOG: u32 = 4_096;

/// Why a server or a channel could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not an address to connect to.
    #[error("`{address}` is not HOST:PORT")]
    Address {
        /// The text given.
        address: String,
    },
    /// Certificates or keys.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsFault),
}

/// A bound port that accepts nothing yet.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    local_addr: SocketAddr,
}

impl Listener {
    /// Binds a port; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, Fault> {
        // Opening a socket does not wait, but it needs the runtime's reactor: async says so in the signature.
        std::future::ready(()).await;
        let bind = || {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let tcp = socket.listen(BACKLOG)?;
            let local_addr = tcp.local_addr()?;
            Ok(Self { tcp, local_addr })
        };
        bind().map_err(|source| Fault::Bind { address, source })
    }

    /// The real address, also where port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub(crate) fn into_tcp(self) -> TcpListener {
        self.tcp
    }
}

#[cfg(test)]
mod tests;
