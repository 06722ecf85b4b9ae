//! Where the pages are served, and to how many at once.

use std::net::SocketAddr;

use runtime::config::{Problems, RawConfig};
use runtime::transport::{RawServer, ServerSettings};
use serde::{Deserialize, Serialize};

/// The section `web`, as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawWeb {
    /// Whether there are pages at all; by default `serve` has them and the role `gateway` has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The port for browsers. Certificates of clinics' browsers are looked at where `tls` says so; `required` would shut
    /// the public out of the board.
    pub server: RawServer,
    /// Pages that follow what changes, at once; others ask again by themselves. 1 to 1,000,000.
    pub streams_max: usize,
}

/// `web`, validated.
#[derive(Clone, Debug)]
pub struct WebSettings {
    /// The port for browsers.
    pub server: ServerSettings,
    /// Pages that follow what changes, at once.
    pub streams_max: usize,
}

impl Default for RawWeb {
    fn default() -> Self {
        Self {
            enabled: None,
            server: RawServer {
                listen: SocketAddr::from(([127, 0, 0, 1], 7_703)),
                ..RawServer::default()
            },
            streams_max: 5_000,
        }
    }
}

impl RawConfig for RawWeb {
    type Config = Option<WebSettings>;

    fn validate(self, problems: &mut Problems) -> Option<Option<WebSettings>> {
        if self.enabled != Some(true) {
            return Some(None);
        }
        let server = problems.section("server", |problems| self.server.validate(problems));
        let streams_max = problems.within("streams_max", self.streams_max, 1..=1_000_000);
        let server = server?;
        problems.check(
            streams_max <= server.limits.connections_max,
            "streams_max",
            "must not exceed server.limits.connections_max",
        );
        Some(Some(WebSettings {
            server,
            streams_max,
        }))
    }
}
