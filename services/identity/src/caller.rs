//! Which calling system asks, as the gateway says; and that it is a gateway who says so.
//!
//! Invariant: without the internal key, and in TLS mode without a gateway's certificate, nobody is believed.

use std::fmt;
use std::sync::Arc;

use domain::{CallingSystem, Refusal};
use runtime::secret::Secret;
use runtime::transport::{PeerIdentity, PeerRole};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::Request;
use tonic::metadata::MetadataMap;

/// The metadata that carries the secret shared by all parts.
pub const INTERNAL_HEADER: &str = "x-doseline-internal";
/// The metadata that carries the calling system's id.
pub const CALLER_HEADER: &str = "x-doseline-caller";

/// Checks who calls. Cheap to clone.
#[derive(Clone)]
pub struct Callers {
    digest: Arc<[u8; 32]>,
    certificates: bool,
}

/// Checks operators on the port of their own.
#[derive(Clone, Copy, Debug)]
pub struct Operators {
    /// Whether an operator's certificate is asked for; without TLS whoever reaches the port is one.
    pub certificates: bool,
}

// === impl Callers ===

impl Callers {
    /// Believes gateways with the secret; with `certificates` only if their certificate says gateway, too.
    #[must_use]
    pub fn new(secret: &Secret, certificates: bool) -> Self {
        Self {
            digest: Arc::new(Sha256::digest(secret.expose()).into()),
            certificates,
        }
    }

    /// The calling system of a request that a gateway passes on.
    pub fn check<T>(&self, request: &Request<T>) -> Result<CallingSystem, Refusal> {
        self.check_gateway(request)?;
        let caller = request
            .metadata()
            .get(CALLER_HEADER)
            .ok_or(Refusal::CallerUnknown)?;
        let caller = caller.to_str().map_err(|_| Refusal::CallerUnknown)?;
        caller.parse().map_err(|_| Refusal::CallerUnknown)
    }

    /// Whether a gateway asks, on its own behalf.
    pub fn check_gateway<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        self.check_key(request.metadata())?;
        if self.certificates && role(request) != Some(PeerRole::Gateway) {
            return Err(Refusal::CallerUnknown);
        }
        Ok(())
    }

    fn check_key(&self, metadata: &MetadataMap) -> Result<(), Refusal> {
        let shown = metadata
            .get(INTERNAL_HEADER)
            .ok_or(Refusal::CallerUnknown)?;
        // Digests, so that not even the length takes part in the comparison.
        let shown: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        if bool::from(shown.ct_eq(&*self.digest)) {
            Ok(())
        } else {
            Err(Refusal::CallerUnknown)
        }
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

// === impl Operators ===

impl Operators {
    /// Whether an operator asks.
    pub fn check<T>(self, request: &Request<T>) -> Result<(), Refusal> {
        match role(request) {
            Some(PeerRole::Operator) => Ok(()),
            Some(_) => Err(Refusal::CallerForbidden),
            None if self.certificates => Err(Refusal::CallerUnknown),
            None => Ok(()),
        }
    }
}

fn role<T>(request: &Request<T>) -> Option<PeerRole> {
    request
        .extensions()
        .get::<Arc<PeerIdentity>>()
        .map(|peer| peer.role)
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;

    use super::*;

    fn request(
        key: Option<&str>,
        caller: Option<&'static [u8]>,
        role: Option<PeerRole>,
    ) -> Request<()> {
        let mut request = Request::new(());
        if let Some(key) = key {
            request
                .metadata_mut()
                .insert(INTERNAL_HEADER, key.parse().expect("ASCII"));
        }
        if let Some(caller) = caller {
            let value = http::HeaderValue::from_bytes(caller).expect("a header value");
            let mut headers = request.metadata().clone().into_headers();
            headers.insert(CALLER_HEADER, value);
            *request.metadata_mut() = MetadataMap::from_headers(headers);
        }
        if let Some(role) = role {
            let system = "peer".parse().expect("slug");
            let peer = PeerIdentity {
                role,
                system,
                not_after: Timestamp::from_secs(1),
            };
            request.extensions_mut().insert(Arc::new(peer));
        }
        request
    }

    #[test]
    fn only_who_has_the_key_says_who_calls() {
        let callers = Callers::new(&Secret::new("open-sesame"), false);
        let good = callers.check(&request(Some("open-sesame"), Some(b"app-one"), None));
        assert_eq!(
            good.map(|caller| caller.to_string()),
            Ok("app-one".to_owned())
        );
        for (key, caller) in [
            (None, Some(b"app-one".as_slice())),
            (Some("open-sesam"), Some(b"app-one")),
            (Some("open-sesame "), Some(b"app-one")),
            (Some(""), Some(b"app-one")),
            (Some("open-sesame"), None),
            (Some("open-sesame"), Some(b"")),
            (Some("open-sesame"), Some(b"App One")),
            (Some("open-sesame"), Some(b"\xff\xfe")),
        ] {
            assert_eq!(
                callers.check(&request(key, caller, None)),
                Err(Refusal::CallerUnknown),
                "{key:?}"
            );
        }
        assert!(!format!("{callers:?}").contains("sesame"));
    }

    #[test]
    fn with_tls_only_a_gateways_certificate_counts_as_well() {
        let callers = Callers::new(&Secret::new("open-sesame"), true);
        let ask = |role| callers.check(&request(Some("open-sesame"), Some(b"app-one"), role));
        assert!(ask(Some(PeerRole::Gateway)).is_ok());
        for role in PeerRole::ALL
            .into_iter()
            .filter(|role| *role != PeerRole::Gateway)
        {
            assert_eq!(ask(Some(role)), Err(Refusal::CallerUnknown), "{role}");
        }
        assert_eq!(ask(None), Err(Refusal::CallerUnknown));
    }

    #[test]
    fn operators_show_their_certificate_where_there_is_tls() {
        let ask = |certificates, role| Operators { certificates }.check(&request(None, None, role));
        assert_eq!(ask(true, Some(PeerRole::Operator)), Ok(()));
        assert_eq!(
            ask(true, Some(PeerRole::Mobile)),
            Err(Refusal::CallerForbidden)
        );
        assert_eq!(
            ask(false, Some(PeerRole::Mobile)),
            Err(Refusal::CallerForbidden)
        );
        assert_eq!(ask(true, None), Err(Refusal::CallerUnknown));
        assert_eq!(ask(false, None), Ok(()));
    }
}
