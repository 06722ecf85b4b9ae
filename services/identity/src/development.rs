//! An identity provider for a developer's machine: vouches for anybody.
//!
//! Invariant: a process trusts it only when started with `--dev`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use domain::Timestamp;
use ed25519_dalek::{Signer as _, SigningKey};
use jiff::civil::Date;

/// The issuer of its assertions.
pub const ISSUER: &str = "https://identity.doseline.invalid/development";
/// The audience that Doseline expects when nothing else is configured.
pub const AUDIENCE: &str = "doseline";

const KEY_ID: &str = "development";
const SEED_FILE: &str = "development_provider.seed";
const JWKS_FILE: &str = "development_jwks.json";

/// The provider. Its key stays in its folder.
pub struct Provider {
    key: SigningKey,
    jwks: PathBuf,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The seed is not a seed.
    #[error("{path} does not have 32 bytes")]
    Seed {
        /// The file.
        path: PathBuf,
    },
}

// === impl Provider ===

impl Provider {
    /// Loads the provider of a folder or makes one, and writes its public key set beside it.
    pub fn load_or_create(folder: &Path) -> Result<Self, Fault> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Fault::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(SEED_FILE);
        let create = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match create {
            Ok(mut file) => {
                file.write_all(&rand::random::<[u8; 32]>())
                    .map_err(io(&path))?;
                file.sync_all().map_err(io(&path))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(&path)(error)),
        }
        let seed = std::fs::read(&path).map_err(io(&path))?;
        let seed = <[u8; 32]>::try_from(seed).map_err(|_| Fault::Seed { path: path.clone() })?;
        let provider = Self {
            key: SigningKey::from_bytes(&seed),
            jwks: folder.join(JWKS_FILE),
        };
        let jwks = provider.jwks();
        if std::fs::read(&provider.jwks).ok().as_deref() != Some(jwks.as_bytes()) {
            std::fs::write(&provider.jwks, jwks).map_err(io(&provider.jwks))?;
        }
        Ok(provider)
    }

    /// The file with the public key, for the configuration.
    #[must_use]
    pub fn jwks_file(&self) -> &Path {
        &self.jwks
    }

    /// The public key set.
    #[must_use]
    pub fn jwks(&self) -> String {
        let x = B64.encode(self.key.verifying_key().to_bytes());
        let key = serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": KEY_ID, "x": x,
        });
        serde_json::json!({ "keys": [key] }).to_string()
    }

    /// An assertion that the person with this identifier was born on that day.
    #[must_use]
    pub fn sign(
        &self,
        sub: &str,
        birthdate: Date,
        audience: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> String {
        let claims = serde_json::json!({
            "iss": ISSUER,
            "aud": audience,
            "sub": sub,
            "birthdate": birthdate.to_string(),
            "iat": now.as_secs(),
            "exp": now.plus(ttl).as_secs(),
        });
        self.sign_claims(&claims)
    }

    /// An assertion with any claims at all, for tests of what must be refused.
    #[must_use]
    pub fn sign_claims(&self, claims: &serde_json::Value) -> String {
        let header = serde_json::json!({ "alg": "EdDSA", "kid": KEY_ID, "typ": "JWT" });
        let signed = format!(
            "{}.{}",
            B64.encode(header.to_string()),
            B64.encode(claims.to_string())
        );
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", B64.encode(signature.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = Provider::load_or_create(folder.path()).expect("writable");
        let again = Provider::load_or_create(folder.path()).expect("readable");
        assert_eq!(first.jwks(), again.jwks());
        assert_eq!(
            std::fs::read_to_string(first.jwks_file()).expect("readable"),
            first.jwks()
        );
        std::fs::write(folder.path().join(SEED_FILE), "short").expect("writable");
        assert!(matches!(
            Provider::load_or_create(folder.path()),
            Err(Fault::Seed { .. })
        ));
    }
}
