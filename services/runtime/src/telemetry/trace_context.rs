//! W3C trace context: in headers of calls, and as a text for commands that share one stream.
//!
//! Invariant: what a caller sends is parsed, never trusted: a malformed header is no header, and a vendor's
//! `tracestate` and baggage go no further than the process that received them.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tonic::metadata::MetadataMap;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Where a piece of work belongs: a trace and the span above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    parent: SpanId,
    sampled: bool,
}

/// A text that is no trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceparent;

impl TraceContext {
    /// From a call's headers, if they carry one.
    #[must_use]
    pub fn from_headers(headers: &http::HeaderMap) -> Option<Self> {
        headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
    }

    /// From a call's metadata, if it carries one.
    #[must_use]
    pub fn from_metadata(metadata: &MetadataMap) -> Option<Self> {
        metadata.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
    }

    /// What a span belongs to; `None` when traces are not exported or the span is not recorded.
    #[must_use]
    pub fn of(span: &tracing::Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| Self {
            trace: span.trace_id(),
            parent: span.span_id(),
            sampled: span.is_sampled(),
        })
    }

    /// Makes `span` a child of this.
    pub fn adopt(&self, span: &tracing::Span) {
        // Fails only where no traces are exported, or the span has begun; then there is nothing to connect.
        let _ =
            span.set_parent(opentelemetry::Context::new().with_remote_span_context(self.span()));
    }

    /// Links `span` to this: a batch has many origins and adopts none of them.
    pub fn link(&self, span: &tracing::Span) {
        span.add_link(self.span());
    }

    /// The trace's id in hexadecimal, as log lines show it.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.trace.to_string()
    }

    /// Whether the trace is kept.
    #[must_use]
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    fn span(&self) -> SpanContext {
        let flags = if self.sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        SpanContext::new(self.trace, self.parent, flags, true, TraceState::default())
    }
}

/// What the current span belongs to, for a command that travels on a shared stream.
#[must_use]
pub fn current_trace_context() -> Option<TraceContext> {
    TraceContext::of(&tracing::Span::current())
}

/// Adds the current span's context to a call's metadata, if there is one.
pub fn inject(metadata: &mut MetadataMap) {
    if let Some(context) = current_trace_context()
        && let Ok(value) = context.to_string().parse()
    {
        metadata.insert(TRACEPARENT, value);
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace,
            self.parent,
            u8::from(self.sampled)
        )
    }
}

impl FromStr for TraceContext {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        let lower_hex = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let mut parts = text.trim().split('-');
        let mut next = |length: usize| {
            parts
                .next()
                .filter(|part| part.len() == length && lower_hex(part))
                .ok_or(NotATraceparent)
        };
        let (version, trace, parent, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // Later versions may append parts; version ff is forbidden.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(NotATraceparent);
        }
        let trace = TraceId::from_hex(trace).map_err(|_| NotATraceparent)?;
        let parent = SpanId::from_hex(parent).map_err(|_| NotATraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NotATraceparent)?;
        if trace == TraceId::INVALID || parent == SpanId::INVALID {
            return Err(NotATraceparent);
        }
        Ok(Self {
            trace,
            parent,
            sampled: flags & 1 == 1,
        })
    }
}
