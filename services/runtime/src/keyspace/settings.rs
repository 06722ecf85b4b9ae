//! Where etcd is, as it stands in a configuration file: the section `etcd` of every role in cluster mode.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{EtcdConfig, EtcdTls};
use crate::config::{HumanDuration, Problems, RawConfig};

/// The section `etcd`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawEtcd {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// PEM file: what etcd's certificates are verified against; empty for no TLS, which needs `--dev`.
    pub ca: PathBuf,
    /// PEM file: the own certificate.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// The name etcd's certificates must carry, if not the host connected to.
    pub server_name: String,
    /// File with one line `user:password`, when certificates do not name the user.
    pub credentials_file: PathBuf,
    /// Bound of each single request.
    pub request_timeout: HumanDuration,
    /// How long this process's keys outlive it; 3 s to 60 s.
    pub session_ttl: HumanDuration,
}

impl Default for RawEtcd {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            server_name: String::new(),
            credentials_file: PathBuf::new(),
            request_timeout: HumanDuration::from_millis(2_000),
            session_ttl: HumanDuration::from_millis(5_000),
        }
    }
}

impl RawConfig for RawEtcd {
    type Config = (EtcdConfig, std::time::Duration);

    fn validate(self, problems: &mut Problems) -> Option<Self::Config> {
        let set = |path: &PathBuf| !path.as_os_str().is_empty();
        problems.check(
            !self.endpoints.is_empty(),
            "endpoints",
            "must name at least one member of etcd",
        );
        let pair = set(&self.certificate) == set(&self.key);
        problems.check(pair, "key", "a certificate and its key belong together");
        if !set(&self.ca)
            && problems.check(
                !set(&self.certificate),
                "ca",
                "is needed with a certificate",
            )
        {
            problems.unsafe_choice("ca", "no CA means no TLS");
        }
        let ms = HumanDuration::from_millis;
        let request_timeout =
            problems.within("request_timeout", self.request_timeout, ms(50)..=ms(60_000));
        let ttl = problems.within("session_ttl", self.session_ttl, ms(3_000)..=ms(60_000));
        let mut config = EtcdConfig::new(self.endpoints);
        config.request_timeout = request_timeout.get();
        config.credentials_file = set(&self.credentials_file).then_some(self.credentials_file);
        config.tls = set(&self.ca).then(|| EtcdTls {
            ca_file: self.ca,
            identity: set(&self.certificate).then_some((self.certificate, self.key)),
            server_name: (!self.server_name.is_empty()).then_some(self.server_name),
        });
        Some((config, ttl.get()))
    }
}
