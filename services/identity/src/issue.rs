//! Issues permits: who, which cohort, which place, signed.
//!
//! Invariant: a permit is signed only over a place that is durable; the same person gets the same serial, region and
//! place from any device, until the campaign is over.

use std::sync::Arc;
use std::time::Duration;

use domain::paseto::SigningKeyWithId;
use domain::permit::Permit;
use domain::{CallingSystem, CampaignId, PersonId, Refusal, RegionId, Timestamp};
use proto::status::Refused;
use runtime::Clock;
use runtime::reload::Reloading;

use crate::assertion::Verifier;
use crate::campaigns::{Campaigns, InForce};
use crate::eligibility;
use crate::keys::SigningKeys;
use crate::metrics::Metrics;
use crate::people::{self, People, Placed, Stamp};
use crate::person::Blinding;
use crate::workers::Workers;

/// A request for a permit, its fields well-formed.
pub struct Ask {
    /// The campaign.
    pub campaign: CampaignId,
    /// The region in which the person wants to book.
    pub region: RegionId,
    /// What an identity provider says; not believed yet.
    pub assertion: String,
    /// Who asks on the person's behalf.
    pub caller: CallingSystem,
}

/// A permit with what its holder may know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The signed permit.
    pub permit: String,
    /// The place it is about.
    pub placed: Placed,
    /// When to ask again.
    pub expires_at: Timestamp,
}

/// Issues permits. Cheap to clone.
#[derive(Clone)]
pub struct Issuer {
    /// The campaigns in force.
    pub campaigns: Campaigns,
    /// Believes assertions.
    pub verifier: Arc<Verifier>,
    /// Makes people of identifiers.
    pub blinding: Blinding,
    /// Who has which place.
    pub people: Arc<dyn People>,
    /// Signs permits.
    pub keys: Reloading<SigningKeys>,
    /// Where verifying and signing happens.
    pub workers: Workers,
    /// The server's clock, which alone decides.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
}

// === impl Issuer ===

impl Issuer {
    /// The person's permit, or why there is none.
    pub async fn issue(&self, ask: Ask) -> Result<Issued, Refused> {
        let outcome = self.try_issue(ask).await;
        self.metrics
            .permit(outcome.as_ref().map(|_| ()).map_err(|why| why.refusal));
        outcome
    }

    /// A campaign in force.
    pub(crate) fn campaign(&self, campaign: &CampaignId) -> Result<Arc<InForce>, Refusal> {
        self.campaigns.get(campaign).ok_or(Refusal::CampaignUnknown)
    }

    async fn try_issue(&self, ask: Ask) -> Result<Issued, Refused> {
        let campaign = self.campaign(&ask.campaign)?;
        if !campaign.campaign.regions.contains(&ask.region) {
            return Err(Refusal::RegionNotInCampaign.into());
        }
        let Ask {
            region,
            assertion,
            caller,
            ..
        } = ask;
        let stamp = self
            .stamp(&campaign, region.clone(), assertion, caller.clone())
            .await?;
        let person = stamp.person;
        let placed = self.people.stamp(stamp).await.map_err(store_fault)?;
        if placed.region != region {
            return Err(bound(&placed, &region));
        }
        Ok(self.sign(&campaign, person, placed, caller).await?)
    }

    /// Signs the permit of a place that is durable.
    pub(crate) async fn sign(
        &self,
        campaign: &InForce,
        person: PersonId,
        placed: Placed,
        caller: CallingSystem,
    ) -> Result<Issued, Refusal> {
        let issued_at = self.clock.wall();
        let ttl = Duration::from_secs(campaign.campaign.permit_ttl_secs.into());
        let expires_at = issued_at.plus(ttl).min(campaign.end);
        let permit = Permit {
            person,
            campaign: campaign.campaign.campaign.clone(),
            cohort: placed.cohort.clone(),
            region: placed.region.clone(),
            serial: placed.serial,
            place: placed.place,
            issued_at,
            expires_at,
            caller,
        };
        let key = self.signer()?;
        let permit = self.workers.run(move || permit.sign(&key)).await?;
        Ok(Issued {
            permit,
            placed,
            expires_at,
        })
    }

    /// The key that signs now.
    pub(crate) fn signer(&self) -> Result<Arc<SigningKeyWithId>, Refusal> {
        let signer = self.keys.current().signer(self.clock.wall());
        signer.ok_or(Refusal::Unavailable)
    }

    /// Everything that needs the assertion; it is gone when this returns.
    async fn stamp(
        &self,
        campaign: &Arc<InForce>,
        region: RegionId,
        assertion: String,
        caller: CallingSystem,
    ) -> Result<Stamp, Refusal> {
        let (campaign, verifier) = (Arc::clone(campaign), Arc::clone(&self.verifier));
        let (blinding, now) = (self.blinding.clone(), self.clock.wall());
        let work = move || {
            let said = verifier
                .verify(&assertion, now)
                .map_err(|rejected| rejected.refusal())?;
            let cohort =
                eligibility::cohort(&campaign.campaign, &campaign.time_zone, said.born, now)?;
            let person = blinding.person(&said.subject);
            Ok(Stamp {
                campaign: campaign.campaign.campaign.clone(),
                person,
                cohort: cohort.cohort.clone(),
                region,
                ticket: campaign.key.ticket(&person),
                caller,
            })
        };
        self.workers.run(work).await?
    }
}

/// What the caller hears of a fault of the people store.
pub(crate) fn store_fault(fault: people::Fault) -> Refusal {
    match fault {
        people::Fault::Overloaded => Refusal::Overloaded,
        people::Fault::Unavailable { .. } => Refusal::Unavailable,
    }
}

/// Why a person whose permit is for one region gets none for another; they proved who they are, and are told which.
fn bound(placed: &Placed, wanted: &RegionId) -> Refused {
    let changing = placed.moving_to.as_ref() == Some(wanted);
    let (refusal, problem) = if changing {
        let problem = "the change to this region has not ended: ask for the permit of";
        (Refusal::RegionChanging, problem)
    } else {
        (Refusal::RegionBound, "the person's permit is bound to")
    };
    Refused {
        violations: vec![("region".to_owned(), format!("{problem} {}", placed.region))],
        ..refusal.into()
    }
}
