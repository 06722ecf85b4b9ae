//! The keys of identity in the hands of an attacker's test: real ones to sign what identity never would, and own ones.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::paseto::SigningKeyWithId;
use domain::permit::Permit;
use domain::place::{DrawTicket, Place};
use domain::{PersonId, Serial, Timestamp};
use ed25519_dalek::SigningKey;
use serde::Deserialize;

use crate::world::{CALLER, COHORT, World};

/// A key as it lies in a folder of signing keys.
#[derive(Deserialize)]
pub(crate) struct Key {
    pub(crate) kid: String,
    seed: String,
}

impl Key {
    /// The one key of a folder.
    pub(crate) fn of(folder: &Path) -> anyhow::Result<Self> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                return Ok(serde_json::from_slice(&std::fs::read(path)?)?);
            }
        }
        anyhow::bail!("no key in {}", folder.display())
    }

    pub(crate) fn seed(&self) -> anyhow::Result<[u8; 32]> {
        STANDARD
            .decode(&self.seed)?
            .try_into()
            .ok()
            .context("a seed has 32 bytes")
    }

    pub(crate) fn signer(&self) -> anyhow::Result<SigningKeyWithId> {
        Ok(SigningKeyWithId::new(
            &self.kid,
            SigningKey::from_bytes(&self.seed()?),
        ))
    }
}

/// A key nobody trusts.
pub(crate) fn own_key(kid: &str) -> SigningKeyWithId {
    SigningKeyWithId::new(kid, SigningKey::from_bytes(&rand::random()))
}

impl World {
    pub(crate) fn permit_key(&self) -> anyhow::Result<Key> {
        Key::of(&self.folder().join("permit-signing"))
    }

    pub(crate) fn room_key(&self) -> anyhow::Result<Key> {
        Key::of(&self.folder().join("room-signing"))
    }

    /// What a permit says, read with identity's public keys.
    pub(crate) fn read_permit(&self, text: &str) -> anyhow::Result<Permit> {
        let keys = std::fs::read(self.folder().join("permit_keys.json"))?;
        let keys = runtime::trusted_keys::parse(&keys)?;
        Ok(Permit::verify(&keys, text, now())?)
    }
}

pub(crate) fn now() -> Timestamp {
    runtime::Clock::system().wall()
}

/// So many seconds from now, or before it.
pub(crate) fn in_secs(seconds: i64) -> Timestamp {
    Timestamp::from_secs(now().as_secs() + seconds)
}

/// What identity would say about somebody new, valid now.
pub(crate) fn somebody(campaign: &str, region: &str) -> anyhow::Result<Permit> {
    Ok(Permit {
        person: PersonId::from_bytes(rand::random()),
        campaign: campaign.parse()?,
        cohort: COHORT.parse()?,
        region: region.parse()?,
        serial: Serial(1),
        place: Place {
            bucket: 0,
            ticket: DrawTicket(rand::random()),
        },
        issued_at: now(),
        expires_at: now().plus(Duration::from_secs(3_600)),
        caller: CALLER.parse()?,
    })
}
