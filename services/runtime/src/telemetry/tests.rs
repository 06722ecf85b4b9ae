//! Log lines, traces and their context.

use std::sync::Mutex;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Export};
use tonic::metadata::MetadataMap;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl Export for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no panic while held").extend(batch);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("no panic while held")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn a_traceparent_is_read_strictly_and_written_the_same() {
    let context: TraceContext = PARENT.parse().expect("the example of the standard");
    assert_eq!(context.to_string(), PARENT);
    assert!(context.sampled());
    assert!(
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more"
            .parse::<TraceContext>()
            .is_ok()
    );
    for wrong in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert!(wrong.parse::<TraceContext>().is_err(), "{wrong}");
    }
}

#[test]
fn a_span_continues_the_callers_trace_and_hands_it_on() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(kept.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let incoming: TraceContext = PARENT.parse().expect("valid");
        let span = tracing::info_span!("decide");
        incoming.adopt(&span);
        let mut metadata = MetadataMap::new();
        span.in_scope(|| inject(&mut metadata));
        let outgoing = TraceContext::from_metadata(&metadata).expect("injected");
        assert_eq!(outgoing.trace_id(), incoming.trace_id());
        assert_ne!(outgoing, incoming, "the parent is now our span");

        let batch = tracing::info_span!("append");
        incoming.link(&batch);
        let own = TraceContext::of(&batch).expect("recorded");
        assert_ne!(
            own.trace_id(),
            incoming.trace_id(),
            "a batch adopts nobody's trace"
        );
    });
    let spans = kept.0.lock().expect("no panic while held");
    let append = spans
        .iter()
        .find(|span| span.name == "append")
        .expect("exported");
    assert_eq!(append.links.len(), 1);
    let decide = spans
        .iter()
        .find(|span| span.name == "decide")
        .expect("exported");
    assert_eq!(decide.parent_span_id.to_string(), "b7ad6b7169203331");
}

#[test]
fn without_an_exporter_there_is_nothing_to_inject() {
    let mut metadata = MetadataMap::new();
    tracing::info_span!("decide").in_scope(|| inject(&mut metadata));
    assert!(metadata.is_empty());
}

#[test]
fn the_log_filter_changes_while_running_and_a_bad_one_changes_nothing() {
    let lines = Lines::default();
    let (filter, handle) = reload::Layer::new(check_filter("info").expect("valid"));
    let current = Arc::new(arc_swap::ArcSwap::from_pointee("info".to_owned()));
    let filter_handle = LogFilter { handle, current };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines.clone())
        .with_filter(filter);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::debug!("line-1");
        filter_handle.set("debug").expect("valid");
        tracing::debug!("line-2");
        assert!(filter_handle.set("inventory=loud").is_err());
        assert!(filter_handle.set("").is_err());
        tracing::debug!("line-3");
    });
    assert_eq!(filter_handle.current(), "debug");
    let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    assert!(
        !text.contains("line-1") && text.contains("line-2") && text.contains("line-3"),
        "{text}"
    );
}
