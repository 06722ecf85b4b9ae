//! Logs and traces: one subscriber for the process, a filter that can change, traces to a collector if one is named.
//!
//! Invariant: set up once, flushed once; a collector that is away never slows or stops the process.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, TelemetrySettings};
use crate::fields;

mod limit;
mod trace_context;

pub use limit::LogLimit;
pub use trace_context::{TraceContext, current_trace_context, inject};

/// An export that takes longer is given up.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A filter text is typed by a person; beyond this it is something else.
const FILTER_BYTES_MAX: usize = 4_096;

/// The process's logs and traces.
#[derive(Debug)]
pub struct Telemetry {
    filter: LogFilter,
    traces: Option<SdkTracerProvider>,
}

/// Changes what is logged while the process runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Arc<arc_swap::ArcSwap<String>>,
}

/// Why telemetry could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not a filter.
    #[error("not a log filter (write for instance `info,inventory=debug`)")]
    Filter(#[source] Option<tracing_subscriber::filter::ParseError>),
    /// Something else set a subscriber first.
    #[error("telemetry was set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone.
    #[error("the log filter cannot be changed any more")]
    Gone(#[source] reload::Error),
    /// The exporter could not be built.
    #[error("traces cannot be exported")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Spans may be missing at the collector.
    #[error("the last traces were not delivered")]
    Flush(#[source] opentelemetry_sdk::error::OTelSdkError),
}

/// Sets up logs and traces for the whole process. Call it inside the async runtime that will carry the export.
pub fn init(service: &'static str, settings: &TelemetrySettings) -> Result<Telemetry, Fault> {
    let filter = check_filter(&settings.filter)?;
    let current = Arc::new(arc_swap::ArcSwap::from_pointee(settings.filter.clone()));
    let (filter, handle) = reload::Layer::new(filter);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    let provider = settings
        .otlp_endpoint
        .as_deref()
        .map(|to| traces(service, to, settings))
        .transpose()?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("doseline"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(exported_spans())
    });
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init()
        .map_err(Fault::AlreadySet)?;
    log_panics();
    Ok(Telemetry {
        filter: LogFilter { handle, current },
        traces: provider,
    })
}

/// Parses a filter without using it.
pub fn check_filter(text: &str) -> Result<EnvFilter, Fault> {
    if text.trim().is_empty() || text.len() > FILTER_BYTES_MAX {
        return Err(Fault::Filter(None));
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| Fault::Filter(Some(error)))
}

// === impl Telemetry ===

impl Telemetry {
    /// The handle that changes the log filter.
    #[must_use]
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Delivers what is left, for at most `within`. Blocks: call it outside the async runtime, while that still runs.
    pub fn flush(&self, within: Duration) -> Result<(), Fault> {
        match &self.traces {
            Some(provider) => provider.shutdown_with_timeout(within).map_err(Fault::Flush),
            None => Ok(()),
        }
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// Replaces the filter; the new one counts from the next line on.
    pub fn set(&self, text: &str) -> Result<(), Fault> {
        let filter = check_filter(text)?;
        self.handle.reload(filter).map_err(Fault::Gone)?;
        let before = self.current.swap(Arc::new(text.trim().to_owned()));
        tracing::info!(filter = text.trim(), before = %before, "log filter changed");
        Ok(())
    }

    /// The filter that counts now.
    #[must_use]
    pub fn current(&self) -> String {
        self.current.load().as_ref().clone()
    }
}

fn traces(
    service: &'static str,
    endpoint: &str,
    settings: &TelemetrySettings,
) -> Result<SdkTracerProvider, Fault> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(Fault::Exporter)?;
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.namespace", "doseline"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_service_name(format!("doseline-{service}"))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            settings.sample_ratio,
        ))))
        .with_resource(resource)
        .build())
}

/// Spans of remote calls are exported although the log filter leaves them out. The exporter's own transport is
/// left out: its spans would be exported in turn.
fn exported_spans() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(fields::RPC_TARGET, LevelFilter::DEBUG)
        .with_targets(
            [
                "h2",
                "hyper",
                "hyper_util",
                "tonic",
                "tower",
                "opentelemetry",
                "opentelemetry_sdk",
                "opentelemetry_otlp",
            ]
            .map(|target| (target, LevelFilter::OFF)),
        )
}

/// A panic becomes a log line like any other, with its place; the standard hook would write around the format.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic
            .payload_as_str()
            .unwrap_or("panicked with something that is not a text");
        tracing::error!(error = message, at, "panic");
    }));
}

#[cfg(test)]
mod tests;
