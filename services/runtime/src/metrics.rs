//! Metrics of the process and the port that shows them.
//!
//! Invariant: labels come from closed sets known when the process starts; no id is ever a label.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text;
pub use prometheus_client::registry::Registry as Metrics;

mod admin;
mod process;
mod rpc;

pub use admin::AdminPort;
pub use rpc::{RpcMetrics, RpcTimer};

use rpc::Calls;
pub(crate) use rpc::code_name;
#[cfg(test)]
pub(crate) use rpc::counted;

/// Everything this process measures. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Mutex<Metrics>,
    calls: Calls,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry with the metrics every process has.
    #[must_use]
    pub fn new() -> Self {
        let mut all = Metrics::default();
        all.register_collector(Box::new(process::ProcessCollector));
        let calls = Calls::register(&mut all);
        Self(Arc::new(Inner {
            all: Mutex::new(all),
            calls,
        }))
    }

    /// Registers metrics of our own: names get the prefix `doseline_`.
    /// Each name once in a process, also when one process plays several roles.
    pub fn register<R>(&self, register: impl FnOnce(&mut Metrics) -> R) -> R {
        let mut all = self.0.all.lock().unwrap_or_else(PoisonError::into_inner);
        register(all.sub_registry_with_prefix("doseline"))
    }

    /// The histogram of served calls, for servers with these methods, written as
    /// `/package.Service/Method` (a leading slash may be left out). Others are counted as `_OTHER`.
    pub fn rpc_metrics<M: Into<String>>(&self, methods: impl IntoIterator<Item = M>) -> RpcMetrics {
        self.0.calls.of(methods)
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let all = self.0.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::with_capacity(16 * 1024);
        match text::encode(&mut page, &all) {
            Ok(()) => page,
            // Writing to a String does not fail; a collector might.
            Err(std::fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}
