//! Connections to the members of the cluster.
//!
//! The library's own balancing picks members at random, dead ones too. Here one member is used until it fails; then
//! its connection is thrown away (a frozen or cut-off peer gives no error, only silence) and the next one is tried.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};

use super::EtcdConfig;
use crate::keyspace::Fault;

/// etcd closes connections of clients that ping more often.
const PING_EVERY: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(3);

pub(super) struct Pool {
    members: Vec<Member>,
    options: ConnectOptions,
    connect_timeout: Duration,
    preferred: AtomicUsize,
}

struct Member {
    endpoint: String,
    client: ArcSwapOption<Client>,
}

/// A client and the member it talks to.
pub(super) struct Link {
    index: usize,
    client: Arc<Client>,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        endpoints: Vec<String>,
        options: ConnectOptions,
        connect_timeout: Duration,
    ) -> Self {
        let member = |endpoint| Member {
            endpoint,
            client: ArcSwapOption::empty(),
        };
        Self {
            members: endpoints.into_iter().map(member).collect(),
            options,
            connect_timeout,
            preferred: AtomicUsize::new(0),
        }
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// A link to the member now preferred. Connects lazily; only a login needs an answer, within the bound.
    pub(super) async fn link(&self) -> Result<Link, Error> {
        let index = self.preferred.load(Ordering::Relaxed);
        let member = &self.members[index];
        if let Some(client) = member.client.load_full() {
            return Ok(Link { index, client });
        }
        let connecting = Client::connect([&member.endpoint], Some(self.options.clone()));
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(client)) => {
                let client = Arc::new(client);
                member.client.store(Some(Arc::clone(&client)));
                Ok(Link { index, client })
            }
            Ok(Err(error)) => {
                self.prefer_next(index);
                Err(error)
            }
            Err(_) => {
                self.prefer_next(index);
                Err(Error::EndpointError("no answer to the login".to_owned()))
            }
        }
    }

    /// The link failed or fell silent: drop its connection and go on with the next member. Of many callers that
    /// failed on one connection only the first has an effect.
    pub(super) fn failed(&self, link: &Link) {
        let before = self.members[link.index]
            .client
            .compare_and_swap(&link.client, None);
        if before
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, &link.client))
        {
            self.prefer_next(link.index);
        }
    }

    fn prefer_next(&self, index: usize) {
        let next = (index + 1) % self.members.len();
        // If another caller has moved on already, its choice stands.
        let _ = self
            .preferred
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

// === impl Link ===

impl Link {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// The endpoints as URLs; TLS or not is decided once, for all of them.
pub(super) fn endpoints(config: &EtcdConfig) -> Result<Vec<String>, Fault> {
    if config.endpoints.is_empty() {
        return Err(Fault::invalid("no etcd endpoints"));
    }
    let (scheme, other) = match config.tls {
        Some(_) => ("https://", "http://"),
        None => ("http://", "https://"),
    };
    let url = |endpoint: &String| {
        if endpoint.starts_with(other) {
            return Err(Fault::invalid(format!(
                "etcd endpoint {endpoint} does not go with the TLS setting"
            )));
        }
        let url = format!(
            "{scheme}{}",
            endpoint.strip_prefix(scheme).unwrap_or(endpoint)
        );
        match url.parse::<http::Uri>() {
            Ok(uri) if uri.host().is_some_and(|it| !it.is_empty()) => Ok(url),
            _ => Err(Fault::invalid(format!(
                "etcd endpoint {endpoint} is no address"
            ))),
        }
    };
    config.endpoints.iter().map(url).collect()
}

pub(super) async fn options(config: &EtcdConfig) -> Result<ConnectOptions, Fault> {
    let bounds = [
        config.request_timeout,
        config.connect_timeout,
        config.watch_silence,
    ];
    if bounds.iter().any(Duration::is_zero) {
        return Err(Fault::invalid("etcd time limits must be above zero"));
    }
    // No request timeout here: it would end streams too. Each request has its own.
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.connect_timeout)
        .with_keep_alive(PING_EVERY, PONG_WITHIN)
        .with_keep_alive_while_idle(true)
        .with_tcp_keepalive(PING_EVERY)
        .with_require_leader(true);
    if let Some(tls) = &config.tls {
        let mut layer =
            TlsOptions::new().ca_certificate(Certificate::from_pem(read(&tls.ca_file).await?));
        if let Some((certificate, key)) = &tls.identity {
            layer = layer.identity(Identity::from_pem(
                read(certificate).await?,
                read(key).await?,
            ));
        }
        if let Some(name) = &tls.server_name {
            layer = layer.domain_name(name.clone());
        }
        options = options.with_tls(layer);
    }
    if let Some(file) = &config.credentials_file {
        let text = String::from_utf8(read(file).await?)
            .map_err(|_| Fault::invalid("the etcd credentials file is not text"))?;
        let (user, password) = text
            .trim_end()
            .split_once(':')
            .ok_or_else(|| Fault::invalid("the etcd credentials file has no line user:password"))?;
        options = options
            .with_user(user, password)
            .with_auto_token_refresh(true);
    }
    Ok(options)
}

async fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    tokio::fs::read(path)
        .await
        .map_err(|error| Fault::invalid(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdTls;

    #[test]
    fn scheme_follows_the_tls_setting() {
        let mut config = EtcdConfig::new(["10.0.0.1:2379", "http://etcd-1:2379"]);
        let urls = endpoints(&config).expect("both are addresses");
        assert_eq!(urls, ["http://10.0.0.1:2379", "http://etcd-1:2379"]);
        config.tls = Some(EtcdTls {
            ca_file: "ca.pem".into(),
            identity: None,
            server_name: None,
        });
        assert!(matches!(endpoints(&config), Err(Fault::Invalid { .. })));
    }

    #[test]
    fn configuration_that_cannot_work_is_refused() {
        assert!(endpoints(&EtcdConfig::new(Vec::<String>::new())).is_err());
        assert!(endpoints(&EtcdConfig::new(["not an address"])).is_err());
        assert!(endpoints(&EtcdConfig::new([""])).is_err());
    }
}
