//! How long served calls took, by method and status; counted also when the handler was dropped.
//!
//! Invariant: every call that began is counted exactly once.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tonic::Code;

use super::Metrics;
use crate::clock::Clock;

/// Seconds. The usual ones begin at 5 ms, where a booking is long done.
const BUCKETS: [f64; 18] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0,
];

/// What a method is counted as that this server does not have.
const OTHER: &str = "_OTHER";

const CODES: usize = 17;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc_method: String,
    rpc_status_code: &'static str,
}

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The one family of the process.
#[derive(Clone, Debug)]
pub(super) struct Calls(Durations);

/// The methods of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RpcMetrics(Arc<Methods>);

#[derive(Debug)]
struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    other: Arc<Method>,
    clock: Clock,
}

/// Histograms found once, so that a call costs no lookup by label.
#[derive(Debug)]
struct Method {
    name: String,
    durations: Durations,
    by_code: [OnceLock<Histogram>; CODES],
}

/// A call being served. Dropped without an end it counts as cancelled.
#[derive(Debug)]
#[must_use]
pub struct RpcTimer {
    method: Arc<Method>,
    began: Instant,
    clock: Clock,
    code: Code,
}

impl Calls {
    pub(super) fn register(all: &mut Metrics) -> Self {
        let durations =
            Durations::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        all.register(
            "rpc_server_call_duration_seconds",
            "How long served calls took, by method and gRPC status",
            durations.clone(),
        );
        Self(durations)
    }

    pub(super) fn of<M: Into<String>>(&self, methods: impl IntoIterator<Item = M>) -> RpcMetrics {
        let method = |name: String| {
            Arc::new(Method {
                name,
                durations: self.0.clone(),
                by_code: [const { OnceLock::new() }; CODES],
            })
        };
        let by_path = methods
            .into_iter()
            .map(|name| {
                let name = name.into();
                let name = name.trim_start_matches('/');
                (format!("/{name}"), method(name.to_owned()))
            })
            .collect();
        RpcMetrics(Arc::new(Methods {
            by_path,
            other: method(OTHER.to_owned()),
            clock: Clock::system(),
        }))
    }
}

impl RpcMetrics {
    /// A call to the method at `path` begins.
    pub fn begin(&self, path: &str) -> RpcTimer {
        let method = self.0.by_path.get(path).unwrap_or(&self.0.other);
        RpcTimer {
            method: Arc::clone(method),
            began: self.0.clock.monotonic(),
            clock: self.0.clock.clone(),
            code: Code::Cancelled,
        }
    }
}

impl Method {
    fn histogram(&self, code: Code) -> &Histogram {
        // Code's numbers are the protocol's: 0 to 16.
        let at = usize::try_from(i32::from(code)).unwrap_or(0).min(CODES - 1);
        self.by_code[at].get_or_init(|| {
            self.durations.get_or_create_owned(&Labels {
                rpc_method: self.name.clone(),
                rpc_status_code: code_name(code),
            })
        })
    }
}

impl RpcTimer {
    /// The method's name, without a leading slash.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method.name
    }

    /// The call ended with `code`.
    pub fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for RpcTimer {
    fn drop(&mut self) {
        let took = self.clock.monotonic().saturating_duration_since(self.began);
        self.method.histogram(self.code).observe(took.as_secs_f64());
    }
}

/// The status code's name as in the protocol, such as `DEADLINE_EXCEEDED`.
pub(crate) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// How many calls the page says ended so.
#[cfg(test)]
pub(crate) fn counted(registry: &super::Registry, path: &str, code: Code) -> u64 {
    let (method, code) = (path.trim_start_matches('/'), code_name(code));
    let key = format!(
        "rpc_server_call_duration_seconds_count{{rpc_method=\"{method}\",rpc_status_code=\"{code}\"}} "
    );
    registry
        .encode()
        .lines()
        .find_map(|line| line.strip_prefix(&key)?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    const BOOK: &str = "/doseline.booking.v1.BookingService/Book";

    #[test]
    fn every_call_is_counted_once_also_when_it_is_dropped() {
        let registry = Registry::new();
        let calls = registry.rpc_metrics([BOOK]);
        let again = registry.rpc_metrics([BOOK.trim_start_matches('/')]);
        calls.begin(BOOK).end(Code::Ok);
        again.begin(BOOK).end(Code::Ok);
        drop(calls.begin(BOOK));
        calls.begin("/made.up/Path-4711").end(Code::Unimplemented);
        assert_eq!(
            counted(&registry, BOOK, Code::Ok),
            2,
            "one family for all servers"
        );
        assert_eq!(counted(&registry, BOOK, Code::Cancelled), 1);
        let page = registry.encode();
        assert!(page.contains("le=\"0.00025\""), "{page}");
        assert!(
            page.contains("rpc_method=\"_OTHER\"") && !page.contains("4711"),
            "{page}"
        );
        assert_eq!(
            page.matches("# TYPE rpc_server_call_duration_seconds")
                .count(),
            1
        );
    }

    #[test]
    fn our_own_metrics_carry_our_prefix() {
        let registry = Registry::new();
        let shed = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register(|metrics| metrics.register("shed", "Requests shed", shed.clone()));
        shed.inc();
        assert!(registry.encode().contains("\ndoseline_shed_total 1\n"));
    }
}
