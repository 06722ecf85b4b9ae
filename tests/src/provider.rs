//! What the development identity provider of a cluster says about people.

use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::json;

/// The provider with its key.
pub struct Provider(SigningKey);

impl Provider {
    /// The provider of the cluster in `folder`.
    ///
    /// # Errors
    /// When it has no provider.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let seed = std::fs::read(folder.join("development/development_provider.seed"))?;
        let seed = <[u8; 32]>::try_from(seed)
            .ok()
            .context("a seed has 32 bytes")?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// A signed assertion about somebody, good for ten minutes.
    #[must_use]
    pub fn assertion(&self, sub: &str, born: &str) -> String {
        let now = runtime::Clock::system().wall().as_secs();
        let header = json!({ "alg": "EdDSA", "kid": "development", "typ": "JWT" });
        let claims = json!({
            "iss": "https://identity.doseline.invalid/development", "aud": "doseline",
            "sub": sub, "birthdate": born, "iat": now, "exp": now + 600,
        });
        let signed = format!(
            "{}.{}",
            B64.encode(header.to_string()),
            B64.encode(claims.to_string())
        );
        let signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", B64.encode(signature.to_bytes()))
    }
}
