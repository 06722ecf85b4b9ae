//! TLS from files that may change while the process runs, for both ends.
//!
//! Invariant: a connection is made with one whole set of files; sessions of replaced files cannot be resumed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::drain::Drain;
use crate::reload::Reloading;
use crate::tasks::{TaskHandle, Tasks};

/// HTTP/2 and nothing else.
pub(super) const ALPN: &[u8] = b"h2";
/// What browsers speak where HTTP/2 is not agreed on.
const ALPN_BROWSERS: &[u8] = b"http/1.1";

/// What a server does about certificates of its callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Never asked for.
    #[default]
    Ignored,
    /// Verified where there is one.
    Optional,
    /// No connection without one.
    Required,
}

/// A server's files, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The certificate and those between it and the root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// What callers' certificates are verified against; needed unless they are ignored.
    pub client_ca: Option<PathBuf>,
    /// What is done about them.
    pub client_certificates: ClientCertificates,
}

/// A client's files, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// What the server's certificate is verified against.
    pub ca: PathBuf,
    /// The own certificate and its key, for servers that ask.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name the server's certificate must carry, if not the host connected to.
    pub server_name: Option<String>,
}

/// A server's TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Reloading<ServerConfig>,
}

/// A client's TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Reloading<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// Why files make no TLS. Never quotes a file's content.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// Missing, unreadable or no PEM.
    #[error("{path} holds no readable {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// Why not.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file without what was wanted.
    #[error("{path} holds no {what}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// Certificates are verified, but against what is not said.
    #[error("client certificates are verified, but no client_ca is named")]
    NoClientCa,
    /// No DNS name or address.
    #[error("`{0}` is no server name")]
    ServerName(String),
    /// The certificate and the key do not belong together, or the like.
    #[error("the files do not make a TLS configuration")]
    Unusable(#[source] rustls::Error),
    /// The CA file cannot verify anything.
    #[error("the CA file cannot be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

impl ServerTls {
    /// Reads the files.
    pub fn load(files: ServerTlsFiles) -> Result<Self, TlsFault> {
        let paths = [&files.certificate, &files.key]
            .into_iter()
            .chain(&files.client_ca);
        let paths = paths.cloned().collect();
        let config = Reloading::load(paths, move || server_config(&files))?;
        Ok(Self { config })
    }

    /// Reads the files, for a port that browsers come to: HTTP/1.1 is offered beside HTTP/2.
    pub fn load_for_browsers(files: ServerTlsFiles) -> Result<Self, TlsFault> {
        let paths = [&files.certificate, &files.key]
            .into_iter()
            .chain(&files.client_ca);
        let paths = paths.cloned().collect();
        let config = Reloading::load(paths, move || {
            let mut config = server_config(&files)?;
            config.alpn_protocols.push(ALPN_BROWSERS.to_vec());
            Ok::<_, TlsFault>(config)
        })?;
        Ok(Self { config })
    }

    /// Follows the files until the process stops.
    pub fn watch(&self, tasks: &Tasks, drain: &Drain) -> TaskHandle {
        self.config.watch("watch_server_certificate", tasks, drain)
    }

    /// Looks at the files once.
    pub fn check(&self) -> bool {
        self.config.check()
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.config.current()
    }
}

impl ClientTls {
    /// Reads the files.
    pub fn load(files: ClientTlsFiles) -> Result<Self, TlsFault> {
        let server_name = files
            .server_name
            .as_ref()
            .map(|name| {
                ServerName::try_from(name.clone()).map_err(|_| TlsFault::ServerName(name.clone()))
            })
            .transpose()?;
        let mut paths = vec![files.ca.clone()];
        if let Some((certificate, key)) = &files.identity {
            paths.extend([certificate.clone(), key.clone()]);
        }
        let config = Reloading::load(paths, move || client_config(&files))?;
        Ok(Self {
            config,
            server_name,
        })
    }

    /// Follows the files until the process stops; connections made from then on use the new ones.
    pub fn watch(&self, tasks: &Tasks, drain: &Drain) -> TaskHandle {
        self.config.watch("watch_client_certificate", tasks, drain)
    }

    /// Looks at the files once.
    pub fn check(&self) -> bool {
        self.config.check()
    }

    pub(super) fn current(&self) -> Arc<ClientConfig> {
        self.config.current()
    }

    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsFault> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| TlsFault::ServerName(host.to_owned())),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn server_config(files: &ServerTlsFiles) -> Result<ServerConfig, TlsFault> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsFault::Unusable)?;
    let builder = match files.client_certificates {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Optional | ClientCertificates::Required => {
            let roots = roots(files.client_ca.as_deref().ok_or(TlsFault::NoClientCa)?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = match files.client_certificates {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                ClientCertificates::Required | ClientCertificates::Ignored => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(TlsFault::Verifier)?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(&files.certificate)?, key(&files.key)?)
        .map_err(TlsFault::Unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn client_config(files: &ClientTlsFiles) -> Result<ClientConfig, TlsFault> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&files.ca)?), provider())
            .build()
            .map_err(TlsFault::Verifier)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsFault::Unusable)?
        .with_webpki_verifier(verifier);
    let mut config = match &files.identity {
        Some((certificate, own_key)) => builder
            .with_client_auth_cert(certificates(certificate)?, key(own_key)?)
            .map_err(TlsFault::Unusable)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let what = "certificate";
    let file = |source| TlsFault::File {
        path: path.to_owned(),
        what,
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(file)?
        .collect::<Result<_, _>>()
        .map_err(file)?;
    if found.is_empty() {
        return Err(TlsFault::Empty {
            path: path.to_owned(),
            what,
        });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsFault::File {
        path: path.to_owned(),
        what: "private key",
        source,
    })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(TlsFault::Unusable)?;
    }
    Ok(store)
}
