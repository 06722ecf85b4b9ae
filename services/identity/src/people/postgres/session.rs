//! Sessions with PostgreSQL, and whether one of them was warned.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::tasks::{OnExit, Tasks};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::BoxError;
use super::Settings;

/// Longer than a fail-over of the network path, shorter than a caller's patience.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

const STAMP: &str = "SELECT at, o_cohort, o_region, o_serial, o_bucket, o_ticket
    FROM stamp_places($1, $2, $3, $4, $5, $6)";

/// Those of the group whose region is about to change; each looked up for itself, nearly always in an empty index.
const MOVING: &str = "SELECT asked.at, found.to_region
    FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS asked (campaign, person, at)
    CROSS JOIN LATERAL (
        SELECT c.to_region FROM region_change c
        WHERE c.person = asked.person AND c.campaign = asked.campaign AND c.outcome IS NULL
        OFFSET 0
    ) AS found";

/// Makes sessions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    tasks: Tasks,
}

/// A session; dropping it closes it.
pub(super) struct Session {
    pub(super) client: Client,
    warned: Arc<AtomicBool>,
}

/// A session that can stamp.
pub(super) struct StampSession {
    pub(super) session: Session,
    pub(super) stamp: Statement,
    pub(super) moving: Statement,
}

/// The server committed with a warning: what was written may exist on one machine only.
#[derive(Debug, thiserror::Error)]
#[error("the database committed with a warning")]
pub(super) struct Warned;

// === impl Connector ===

impl Connector {
    pub(super) fn new(settings: &Settings, tasks: &Tasks) -> Result<Self, BoxError> {
        let url = settings
            .url
            .expose_str()
            .ok_or("the database URL is not text")?;
        // The message of the parser does not quote the URL, but its source might.
        let mut config: Config = url.parse().map_err(|_| "the database URL cannot be read")?;
        config
            .connect_timeout(CONNECT_WITHIN)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .tcp_user_timeout(Duration::from_secs(10))
            .application_name("doseline-identity");
        let tls = settings.ca_file.as_deref().map(tls).transpose()?;
        if tls.is_some() {
            config.ssl_mode(SslMode::Require);
        }
        Ok(Self {
            config,
            tls,
            tasks: tasks.clone(),
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tls(&self) -> Option<&MakeRustlsConnect> {
        self.tls.as_ref()
    }

    pub(super) async fn plain_session(&self) -> Result<Session, BoxError> {
        let connecting = async {
            match &self.tls {
                Some(tls) => self.connect(tls.clone()).await,
                None => self.connect(NoTls).await,
            }
        };
        tokio::time::timeout(CONNECT_WITHIN, connecting).await?
    }

    pub(super) async fn stamp_session(&self) -> Result<StampSession, BoxError> {
        let session = self.plain_session().await?;
        let preparing = async {
            // Below our own limit, so that the server gives up before we do.
            session
                .client
                .batch_execute("SET statement_timeout = '4s'; SET lock_timeout = '3s'")
                .await?;
            let stamp = session.client.prepare(STAMP).await?;
            Ok::<_, tokio_postgres::Error>((stamp, session.client.prepare(MOVING).await?))
        };
        let (stamp, moving) = tokio::time::timeout(CONNECT_WITHIN, preparing).await??;
        Ok(StampSession {
            session,
            stamp,
            moving,
        })
    }

    async fn connect<T>(&self, tls: T) -> Result<Session, BoxError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = self.config.connect(tls).await?;
        let warned = Arc::new(AtomicBool::new(false));
        let driver = drive(connection, Arc::clone(&warned));
        self.tasks.spawn("people_session", OnExit::Ignore, driver);
        Ok(Session { client, warned })
    }
}

// === impl Session ===

impl Session {
    /// Whether the server warned since the last time: a commit then may exist on one machine only.
    pub(super) fn take_warning(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }
}

/// Moves the session's bytes until it ends. A notice comes before the answer it belongs to, and is noted here before
/// that answer is handed on.
async fn drive<S, T>(mut connection: Connection<S, T>, warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if notice.severity() == "WARNING" {
                    warned.store(true, Ordering::Release);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let error = runtime::fields::chain(&error);
                tracing::debug!(error, "a session with the people store ended");
                return;
            }
            None => return,
        }
    }
}

fn tls(ca_file: &Path) -> Result<MakeRustlsConnect, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
