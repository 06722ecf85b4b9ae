//! What the pages measure.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::metrics::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PageLabels {
    page: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignInLabels {
    outcome: &'static str,
}

/// Counters of the pages. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct WebMetrics {
    requests: Family<PageLabels, Counter>,
    sign_ins: Family<SignInLabels, Counter>,
    streams: Gauge,
}

/// How an attempt to sign in ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignIn {
    Accepted,
    Refused,
    /// Too many from one place.
    TurnedAway,
}

/// Counts a page that follows what changes until it leaves.
#[derive(Debug)]
pub(super) struct Following(Gauge);

impl WebMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|metrics| {
            metrics.register(
                "gateway_web_requests",
                "Requests of browsers, by kind of page and outcome",
                it.requests.clone(),
            );
            metrics.register(
                "gateway_web_sign_ins",
                "Attempts of clinics to sign in, by outcome",
                it.sign_ins.clone(),
            );
            metrics.register(
                "gateway_web_streams",
                "Pages that follow what changes now",
                it.streams.clone(),
            );
        });
        it
    }

    pub(super) fn answered(&self, page: &'static str, status: http::StatusCode) {
        let outcome = match status.as_u16() {
            200..=399 => "ok",
            503 => "shed",
            400..=499 => "refused",
            _ => "fault",
        };
        self.requests
            .get_or_create(&PageLabels { page, outcome })
            .inc();
    }

    pub(super) fn sign_in(&self, outcome: SignIn) {
        let outcome = match outcome {
            SignIn::Accepted => "accepted",
            SignIn::Refused => "refused",
            SignIn::TurnedAway => "turned_away",
        };
        self.sign_ins.get_or_create(&SignInLabels { outcome }).inc();
    }

    pub(super) fn following(&self) -> Following {
        self.streams.inc();
        Following(self.streams.clone())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.dec();
    }
}
