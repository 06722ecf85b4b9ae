//! Settings of servers and channels as they stand in a configuration file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::server::Limits;
use super::tls::{ClientCertificates, ClientTlsFiles, ServerTlsFiles};
use crate::config::{HumanDuration, Problems, RawConfig};

/// One port, as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawServer {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Without a certificate there is no TLS, which needs `--dev`.
    pub tls: RawServerTls,
    /// Bounds.
    pub limits: RawLimits,
}

/// A server's certificates, as they stand in the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawServerTls {
    /// PEM file: the certificate and those between it and the root.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
    /// PEM file: what callers' certificates are verified against.
    pub client_ca: PathBuf,
    /// `ignored`, `optional` or `required`.
    pub client_certificates: ClientCertificates,
}

/// A client's certificates, as they stand in the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawClientTls {
    /// PEM file: what servers' certificates are verified against; empty for no TLS, which needs `--dev`.
    pub ca: PathBuf,
    /// PEM file: the own certificate.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// The name servers' certificates must carry, if not the host connected to.
    pub server_name: String,
}

/// A server's bounds, as they stand in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Open connections.
    pub connections_max: usize,
    /// Streams a connection may have open.
    pub streams_max: u32,
    /// TCP accepted until TLS done.
    pub handshake_within: HumanDuration,
    /// A quiet connection is tried this often.
    pub keep_alive_every: HumanDuration,
    /// And closed after this long without an answer.
    pub keep_alive_within: HumanDuration,
    /// A connection is asked to go after this long, a tenth more or less.
    pub connection_age_max: HumanDuration,
    /// And cut after this much longer.
    pub connection_age_grace: HumanDuration,
    /// No call waits longer than this for its answer to begin.
    pub deadline_max: HumanDuration,
}

/// One port, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// TLS; `None` only with `--dev`.
    pub tls: Option<ServerTlsFiles>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for RawServer {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: RawServerTls::default(),
            limits: RawLimits::default(),
        }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            connections_max: limits.connections_max,
            streams_max: limits.streams_max,
            handshake_within: HumanDuration::new(limits.handshake_within),
            keep_alive_every: HumanDuration::new(limits.keep_alive_every),
            keep_alive_within: HumanDuration::new(limits.keep_alive_within),
            connection_age_max: HumanDuration::new(limits.age_max),
            connection_age_grace: HumanDuration::new(limits.age_grace),
            deadline_max: HumanDuration::new(limits.deadline_max),
        }
    }
}

impl RawConfig for RawServer {
    type Config = ServerSettings;

    fn validate(self, problems: &mut Problems) -> Option<ServerSettings> {
        let limits = problems.section("limits", |problems| self.limits.validate(problems));
        let tls = problems.section("tls", |problems| self.tls.validate(problems));
        Some(ServerSettings {
            listen: self.listen,
            tls: tls?,
            limits: limits?,
        })
    }
}

impl RawConfig for RawServerTls {
    type Config = Option<ServerTlsFiles>;

    fn validate(self, problems: &mut Problems) -> Option<Option<ServerTlsFiles>> {
        let verifies = self.client_certificates != ClientCertificates::Ignored;
        if self.certificate.as_os_str().is_empty() {
            let alone = self.key.as_os_str().is_empty() && !verifies;
            if problems.check(
                alone,
                "certificate",
                "is needed with the other settings of tls",
            ) {
                problems.unsafe_choice("certificate", "no certificate means no TLS");
            }
            return Some(None);
        }
        problems.check(
            !self.key.as_os_str().is_empty(),
            "key",
            "is needed with a certificate",
        );
        let client_ca = (!self.client_ca.as_os_str().is_empty()).then_some(self.client_ca);
        problems.check(
            !verifies || client_ca.is_some(),
            "client_ca",
            "is needed to verify client certificates",
        );
        Some(Some(ServerTlsFiles {
            certificate: self.certificate,
            key: self.key,
            client_ca,
            client_certificates: self.client_certificates,
        }))
    }
}

impl RawConfig for RawClientTls {
    type Config = Option<ClientTlsFiles>;

    fn validate(self, problems: &mut Problems) -> Option<Option<ClientTlsFiles>> {
        let set = |path: &PathBuf| !path.as_os_str().is_empty();
        problems.check(
            set(&self.certificate) == set(&self.key),
            "key",
            "a certificate and its key belong together",
        );
        if !set(&self.ca) {
            if problems.check(
                !set(&self.certificate),
                "ca",
                "is needed with a certificate",
            ) {
                problems.unsafe_choice("ca", "no CA means no TLS");
            }
            return Some(None);
        }
        let identity = set(&self.certificate).then_some((self.certificate, self.key));
        let server_name = (!self.server_name.is_empty()).then_some(self.server_name);
        Some(Some(ClientTlsFiles {
            ca: self.ca,
            identity,
            server_name,
        }))
    }
}

impl RawConfig for RawLimits {
    type Config = Limits;

    fn validate(self, problems: &mut Problems) -> Option<Limits> {
        let mut bounded = |key: &str, value: HumanDuration, low: u64, high: u64| -> Duration {
            let bounds = HumanDuration::from_millis(low)..=HumanDuration::from_millis(high);
            problems.within(key, value, bounds).get()
        };
        let limits = Limits {
            handshake_within: bounded("handshake_within", self.handshake_within, 100, 60_000),
            keep_alive_every: bounded("keep_alive_every", self.keep_alive_every, 1_000, 3_600_000),
            keep_alive_within: bounded("keep_alive_within", self.keep_alive_within, 100, 60_000),
            age_max: bounded(
                "connection_age_max",
                self.connection_age_max,
                1_000,
                86_400_000,
            ),
            age_grace: bounded(
                "connection_age_grace",
                self.connection_age_grace,
                100,
                3_600_000,
            ),
            deadline_max: bounded("deadline_max", self.deadline_max, 10, 600_000),
            connections_max: self.connections_max,
            streams_max: self.streams_max,
        };
        problems.within("connections_max", self.connections_max, 1..=1_000_000);
        problems.within("streams_max", self.streams_max, 1..=100_000);
        Some(limits)
    }
}
