//! The settings every process has, whatever its role: the section `process`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HumanDuration, Problems, RawConfig};
use crate::drain;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `process` as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawProcess {
    /// Threads that run tasks; 0 takes one for each processor this process may use.
    pub worker_threads: usize,
    /// From readiness off until new work is refused.
    pub drain_notice: HumanDuration,
    /// From then on until whatever is left is cut; keep it below the platform's own kill time.
    pub drain_deadline: HumanDuration,
    /// Logs and traces.
    pub telemetry: RawTelemetry,
    /// The port for metrics, health and the log filter.
    pub admin: RawAdmin,
}

/// `process.telemetry` as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTelemetry {
    /// `text` or `json`.
    pub format: LogFormat,
    /// What is logged, such as `info` or `info,inventory=debug`.
    pub filter: String,
    /// Where traces go (OTLP over gRPC, such as `http://127.0.0.1:4317`); empty for nowhere.
    pub otlp_endpoint: String,
    /// The part of new traces that is kept, 0 to 1. A caller's own choice is followed.
    pub sample_ratio: f64,
}

/// `process.admin` as it stands in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether `PUT /log-filter` is answered.
    pub log_filter_changes: bool,
}

/// `process`, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Threads that run tasks; `None` takes one for each processor.
    pub worker_threads: Option<usize>,
    /// How long stopping may take.
    pub drain: drain::Settings,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
    /// The port for metrics, health and the log filter.
    pub admin: Admin,
}

/// `process.telemetry`, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetrySettings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged.
    pub filter: String,
    /// Where traces go.
    pub otlp_endpoint: Option<String>,
    /// The part of new traces that is kept.
    pub sample_ratio: f64,
}

/// `process.admin`, validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether the log filter may be changed here.
    pub log_filter_changes: bool,
}

impl Default for RawProcess {
    fn default() -> Self {
        Self {
            worker_threads: 0,
            drain_notice: HumanDuration::from_secs(0),
            drain_deadline: HumanDuration::from_secs(25),
            telemetry: RawTelemetry::default(),
            admin: RawAdmin::default(),
        }
    }
}

impl Default for RawTelemetry {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
            otlp_endpoint: String::new(),
            sample_ratio: 0.01,
        }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            log_filter_changes: false,
        }
    }
}

impl RawConfig for RawProcess {
    type Config = Process;

    fn validate(self, problems: &mut Problems) -> Option<Process> {
        problems.within("worker_threads", self.worker_threads, 0..=1_024);
        let drain = drain::Settings {
            notice: self.drain_notice.get(),
            deadline: self.drain_deadline.get(),
        };
        problems.check(
            !drain.deadline.is_zero(),
            "drain_deadline",
            "must be above 0",
        );
        problems.check(
            drain.notice + drain.deadline <= Duration::from_secs(3_600),
            "drain_deadline",
            "with the notice this is more than an hour; no platform waits that long",
        );
        let telemetry = problems.section("telemetry", |problems| self.telemetry.validate(problems));
        Some(Process {
            worker_threads: (self.worker_threads > 0).then_some(self.worker_threads),
            drain,
            telemetry: telemetry?,
            admin: Admin {
                listen: self.admin.listen,
                log_filter_changes: self.admin.log_filter_changes,
            },
        })
    }
}

impl RawConfig for RawTelemetry {
    type Config = TelemetrySettings;

    fn validate(self, problems: &mut Problems) -> Option<TelemetrySettings> {
        problems.take("filter", crate::telemetry::check_filter(&self.filter));
        problems.within("sample_ratio", self.sample_ratio, 0.0..=1.0);
        let endpoint = self.otlp_endpoint;
        // Spans carry no personal data, but they leave the machine: a collector beside the process
        // forwards them over whatever the site trusts.
        problems.check(
            endpoint.is_empty()
                || (endpoint.starts_with("http://") && endpoint.parse::<http::Uri>().is_ok()),
            "otlp_endpoint",
            "write http://HOST:PORT of a collector on this host or pod",
        );
        Some(TelemetrySettings {
            format: self.format,
            filter: self.filter,
            otlp_endpoint: (!endpoint.is_empty()).then_some(endpoint),
            sample_ratio: self.sample_ratio,
        })
    }
}
