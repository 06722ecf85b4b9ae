//! Changes of region: begun before anybody is asked to let the person go, ended only against that region's receipt.
//!
//! Invariant: a permit of another region is signed only after the old region's own key has signed that the old serial
//! is worth nothing there; no gateway's word is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::paseto::TrustedKeys;
use domain::permit::{Permit, Unusable};
use domain::region_change::{Departure, MOVING_TTL, Moving, Receipt};
use domain::{CallingSystem, Refusal, RegionId};
use proto::status::Refused;
use runtime::reload::Reloading;
use runtime::trusted_keys;

use crate::issue::{Issued, Issuer, store_fault};
use crate::people::{Change, Standing};

/// Public keys that receipts are believed by, those of each region apart: no region can speak for another.
#[derive(Debug, Default)]
pub struct ReceiptKeys(BTreeMap<RegionId, TrustedKeys>);

/// Why a folder gives no keys of receipts.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused.
    #[error("{path} cannot be read")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file's name is no region.
    #[error("{path} must be named after a region, such as seoul.json")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// It is no set of keys.
    #[error("{path} cannot be used")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: trusted_keys::Malformed,
    },
}

/// How a change stands after its first step.
pub enum Begun {
    /// There is nothing to change: the permit of the region wanted.
    Settled(Issued),
    /// The region to be left is to be asked.
    Moving {
        /// Our signed word; none where nothing was to be noted.
        document: Option<String>,
        /// The region to be left.
        from: RegionId,
        /// Where the change goes to.
        to: RegionId,
    },
}

/// Takes the steps. Cheap to clone.
#[derive(Clone)]
pub struct RegionChanges {
    /// Verifies and signs permits.
    pub issuer: Issuer,
    /// Believes receipts; `None` = changes are not offered.
    pub receipt_keys: Option<Reloading<ReceiptKeys>>,
}

// === impl ReceiptKeys ===

impl ReceiptKeys {
    /// Reads every `<region>.json` of a folder. Blocks.
    pub fn read(folder: &Path) -> Result<Self, Fault> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Fault::Io { path, source }
        };
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(io(folder))? {
            let path = entry.map_err(io(folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let region = name.and_then(|name| name.parse().ok());
            let region: RegionId = region.ok_or_else(|| Fault::Name { path: path.clone() })?;
            let json = std::fs::read(&path).map_err(io(&path))?;
            let trusted = trusted_keys::parse(&json).map_err(|source| Fault::Keys {
                path: path.clone(),
                source,
            })?;
            keys.insert(region, trusted);
        }
        Ok(Self(keys))
    }

    /// Follows a folder whose files are replaced, never written in place.
    pub fn follow(folder: &Path) -> Result<Reloading<Self>, Fault> {
        let path = folder.to_owned();
        Reloading::load(vec![path.clone()], move || Self::read(&path))
    }

    fn of(&self, region: &RegionId) -> Option<&TrustedKeys> {
        self.0.get(region)
    }
}

// === impl RegionChanges ===

impl RegionChanges {
    /// Notes that the permit's holder is about to leave; with `validate_only` only says what would be.
    pub async fn begin(
        &self,
        permit: String,
        region: RegionId,
        caller: &CallingSystem,
        validate_only: bool,
    ) -> Result<Begun, Refused> {
        let outcome = self.try_begin(permit, region, caller, validate_only).await;
        let told = match &outcome {
            Ok(Begun::Settled(_)) => "settled",
            Ok(Begun::Moving { .. }) if validate_only => "foretold",
            Ok(Begun::Moving { .. }) => "begun",
            Err(why) => why.refusal.code(),
        };
        self.issuer.metrics.region_change(told);
        outcome
    }

    async fn try_begin(
        &self,
        permit: String,
        region: RegionId,
        caller: &CallingSystem,
        validate_only: bool,
    ) -> Result<Begun, Refused> {
        let permit = self.permit(permit, caller).await?;
        let campaign = self.issuer.campaign(&permit.campaign)?;
        if !campaign.campaign.regions.contains(&region) {
            return Err(Refusal::RegionNotInCampaign.into());
        }
        let now = self.issuer.clock.wall();
        if now >= campaign.end {
            return Err(Refusal::CampaignEnded.into());
        }
        // Who could not be believed about it is not asked: nobody gets stuck half-way for that.
        let keys = self.receipt_keys.as_ref().map(|keys| keys.current());
        if region != permit.region && keys.is_none_or(|keys| keys.of(&permit.region).is_none()) {
            return Err(Refusal::RegionChangeClosed.into());
        }
        let change = Change {
            campaign: permit.campaign.clone(),
            person: permit.person,
            serial: permit.serial,
            from: permit.region.clone(),
            to: region,
        };
        let people = &self.issuer.people;
        let found = if validate_only {
            people.place(&change.campaign, change.person).await
        } else {
            people.begin_change(&change).await
        };
        match change.standing(found.map_err(store_fault)?) {
            Standing::Settled(placed) => {
                let issued = self
                    .issuer
                    .sign(&campaign, permit.person, placed, caller.clone());
                Ok(Begun::Settled(issued.await?))
            }
            Standing::Moving { to } if validate_only => Ok(Begun::Moving {
                document: None,
                from: permit.region,
                to,
            }),
            Standing::Moving { to } => {
                let moving = Moving {
                    campaign: permit.campaign,
                    person: permit.person,
                    serial: permit.serial,
                    from: permit.region.clone(),
                    to: to.clone(),
                    issued_at: now,
                    expires_at: now.plus(MOVING_TTL),
                };
                let key = self.issuer.signer()?;
                let document = self.issuer.workers.run(move || moving.sign(&key)).await?;
                Ok(Begun::Moving {
                    document: Some(document),
                    from: permit.region,
                    to,
                })
            }
            Standing::Elsewhere { to } => Err(Refused {
                violations: vec![(
                    "region".to_owned(),
                    format!("a change to {to} is under way"),
                )],
                ..Refusal::RegionChanging.into()
            }),
            Standing::Superseded => Err(Refusal::PermitSuperseded.into()),
        }
    }

    /// Ends a change by the old region's receipt: the permit of the region that it says.
    pub async fn complete(
        &self,
        permit: String,
        receipt: String,
        caller: &CallingSystem,
    ) -> Result<Issued, Refused> {
        let outcome = self.try_complete(permit, receipt, caller).await;
        self.issuer.metrics.region_change(match &outcome {
            Ok((Departure::Left { .. }, _)) => "left",
            Ok((Departure::Stayed, _)) => "stayed",
            Err(why) => why.refusal.code(),
        });
        outcome.map(|(_, issued)| issued)
    }

    async fn try_complete(
        &self,
        permit: String,
        receipt: String,
        caller: &CallingSystem,
    ) -> Result<(Departure, Issued), Refused> {
        let permit = self.permit(permit, caller).await?;
        let campaign = self.issuer.campaign(&permit.campaign)?;
        let keys = self.receipt_keys.as_ref().map(|keys| keys.current());
        let keys = keys.ok_or(Refusal::RegionChangeClosed)?;
        let region = permit.region.clone();
        let verify = move || Receipt::verify(keys.of(&region)?, &region, &receipt).ok();
        let receipt = self.issuer.workers.run(verify).await?;
        let receipt = receipt.ok_or(Refusal::ReceiptInvalid)?;
        let about = (&receipt.campaign, receipt.person, receipt.serial);
        if about != (&permit.campaign, permit.person, permit.serial) {
            return Err(Refusal::ReceiptInvalid.into());
        }
        let placed = self.issuer.people.complete_change(&receipt).await;
        let placed = placed
            .map_err(store_fault)?
            .ok_or(Refusal::ReceiptInvalid)?;
        let issued = self
            .issuer
            .sign(&campaign, permit.person, placed, caller.clone());
        Ok((receipt.departure, issued.await?))
    }

    /// The permit, if it is ours, not over, and this caller's.
    async fn permit(&self, text: String, caller: &CallingSystem) -> Result<Permit, Refusal> {
        let (keys, now) = (self.issuer.keys.current(), self.issuer.clock.wall());
        let verify = move || Permit::verify(&keys.trusted(), &text, now);
        let permit = self.issuer.workers.run(verify).await?;
        let permit = permit.map_err(|why| match why {
            Unusable::Untrusted(_) => Refusal::PermitInvalid,
            Unusable::Expired => Refusal::PermitExpired,
        })?;
        if permit.caller == *caller {
            Ok(permit)
        } else {
            Err(Refusal::PermitForeignCaller)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_each_region_its_own_keys_and_other_names_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let now = domain::Timestamp::from_secs(1_625_000_000);
        for region in ["seoul", "busan"] {
            let signing = folder.path().join(region);
            crate::keys::generate(&signing, now).expect("writable");
            let public = folder.path().join(format!("{region}.json"));
            crate::keys::publish(&signing, &public).expect("writable");
        }
        let keys = ReceiptKeys::read(folder.path()).expect("keys");
        let ids = |region: &str| -> Vec<String> {
            let of = keys.of(&region.parse().expect("slug")).expect("known");
            of.ids().map(str::to_owned).collect()
        };
        assert_ne!(ids("seoul"), ids("busan"));
        assert!(keys.of(&"jeju".parse().expect("slug")).is_none());
        let followed = ReceiptKeys::follow(folder.path()).expect("keys");
        std::fs::write(folder.path().join("Not A Region.json"), "{}").expect("writable");
        let refused = ReceiptKeys::read(folder.path());
        assert!(matches!(refused, Err(Fault::Name { .. })));
        assert!(!followed.check(), "keys that work stay");
        let seoul = "seoul".parse().expect("slug");
        assert!(followed.current().of(&seoul).is_some());
    }
}
