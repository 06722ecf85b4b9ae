//! Proof that a call comes from a part of Doseline: a secret shared by file, and in TLS mode the peer's certificate.

use std::sync::Arc;

use domain::Refusal;
use runtime::secret::Secret;
use runtime::transport::{PeerIdentity, PeerRole};
use sha2::{Digest as _, Sha256};
use tonic::Request;

/// The metadata that carries the secret.
pub const HEADER: &str = "x-doseline-internal";

/// Checks callers of the internal services. Cheap to clone.
#[derive(Clone)]
pub struct InternalKey {
    digest: Arc<[u8; 32]>,
    certificate: bool,
}

impl InternalKey {
    /// Believes callers with the secret; with `certificate`, only if their certificate also names the right part.
    #[must_use]
    pub fn new(secret: &Secret, certificate: bool) -> Self {
        Self {
            digest: Arc::new(Sha256::digest(secret.expose()).into()),
            certificate,
        }
    }

    /// Whether a gateway asks.
    pub fn check<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        self.check_role(request, PeerRole::Gateway)
    }

    /// Whether an identity asks, where the doorkeeper lives.
    pub fn check_doorkeeper<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        self.check_role(request, PeerRole::Identity)
    }

    fn check_role<T>(&self, request: &Request<T>, role: PeerRole) -> Result<(), Refusal> {
        let shown = request
            .metadata()
            .get(HEADER)
            .ok_or(Refusal::CallerUnknown)?;
        // Digests of equal length: the time to compare them tells nothing about the secret.
        let shown: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        if shown != *self.digest {
            return Err(Refusal::CallerUnknown);
        }
        let peer = request.extensions().get::<Arc<PeerIdentity>>();
        if self.certificate && peer.is_none_or(|peer| peer.role != role) {
            return Err(Refusal::CallerForbidden);
        }
        Ok(())
    }
}
