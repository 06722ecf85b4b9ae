//! Campaign documents: applied by operators, followed by everybody.
//!
//! Invariant: versions rise by one and only by compare-and-set; a document that cannot be applied is told whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use domain::campaign::Campaign;
use domain::{CampaignId, Refusal, Timestamp};
use jiff::tz::TimeZone;
use proto::status::Refused;
use runtime::drain::Drain;
use runtime::fields;
use runtime::keyspace::{self, Entry, Keyspace, Mirror, Txn};

use crate::eligibility;
use crate::person::{Blinding, CampaignKey};

/// Below this prefix every campaign has one key.
pub const PREFIX: &str = "/doseline/campaign/";
/// A campaign with a thousand cohorts stays below this.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Two operators at once are rare; more conflicts than this are a fault.
pub(crate) const CONFLICTS_MAX: usize = 5;

/// A campaign with what follows from its document.
#[derive(Debug)]
pub struct InForce {
    /// The document.
    pub campaign: Campaign,
    /// Its time zone.
    pub time_zone: TimeZone,
    /// When it is over.
    pub end: Timestamp,
    /// The key behind its draw tickets.
    pub key: CampaignKey,
}

/// The campaigns in force, as this process last heard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Campaigns {
    current: Arc<ArcSwap<BTreeMap<CampaignId, Arc<InForce>>>>,
    blinding: Blinding,
}

/// A document that nobody of this version has written.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("is not a campaign document")]
    Json(#[from] serde_json::Error),
    #[error("has rules that cannot be followed: {0}")]
    Violations(String),
    #[error("is about another campaign than its key")]
    Misplaced,
    #[error("has an unknown time zone")]
    Zone(#[source] jiff::Error),
}

// === impl Campaigns ===

impl Campaigns {
    /// None yet.
    #[must_use]
    pub fn new(blinding: Blinding) -> Self {
        Self {
            current: Arc::default(),
            blinding,
        }
    }

    /// A campaign in force.
    #[must_use]
    pub fn get(&self, campaign: &CampaignId) -> Option<Arc<InForce>> {
        self.current.load().get(campaign).map(Arc::clone)
    }

    /// All campaigns in force.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<CampaignId, Arc<InForce>>> {
        self.current.load_full()
    }

    /// Keeps the campaigns current until the process drains.
    pub async fn follow(self, mut mirror: Mirror, drain: Drain) {
        loop {
            if drain.interrupt(mirror.changed()).await.is_none() {
                return;
            }
            self.take(&mirror.snapshot());
        }
    }

    /// Takes a listing; a document that cannot be read leaves the one before in force.
    pub fn take(&self, entries: &BTreeMap<String, Entry>) {
        let old = self.current.load_full();
        let mut next = BTreeMap::new();
        for (key, entry) in entries {
            let Some(id) = key
                .strip_prefix(PREFIX)
                .and_then(|id| id.parse::<CampaignId>().ok())
            else {
                continue;
            };
            match self.read(&id, &entry.value) {
                Ok(campaign) => {
                    next.insert(id, Arc::new(campaign));
                }
                Err(error) => {
                    let error = fields::chain(&error);
                    tracing::error!(campaign.id = %id, error, "campaign document is not followed");
                    if let Some(known) = old.get(&id) {
                        next.insert(id, Arc::clone(known));
                    }
                }
            }
        }
        self.current.store(Arc::new(next));
    }

    fn read(&self, id: &CampaignId, json: &[u8]) -> Result<InForce, Unreadable> {
        let campaign: Campaign = serde_json::from_slice(json)?;
        if campaign.campaign != *id {
            return Err(Unreadable::Misplaced);
        }
        if let Some(first) = campaign.violations().first() {
            return Err(Unreadable::Violations(format!(
                "{} {}",
                first.field, first.problem
            )));
        }
        let time_zone = TimeZone::get(&campaign.time_zone).map_err(Unreadable::Zone)?;
        Ok(InForce {
            end: eligibility::end(&campaign, &time_zone),
            key: self.blinding.campaign_key(id),
            campaign,
            time_zone,
        })
    }
}

/// Creates or changes a campaign; gives its version. An unchanged document keeps the version it has.
pub async fn apply(
    keyspace: &Keyspace,
    document: &str,
    validate_only: bool,
) -> Result<u64, Refused> {
    let asked = parse(document)?;
    let key = format!("{PREFIX}{}", asked.campaign);
    for _ in 0..CONFLICTS_MAX {
        let entry = keyspace.get(&key).await.map_err(fault)?;
        let old = entry.as_ref().map(stored).transpose()?;
        let current = old.as_ref().map_or(0, |old| old.version);
        // 0 = the operator did not look; any other number must be what is in force.
        if asked.version != 0 && asked.version != current {
            let problem =
                format!("is not the version in force, which is {current}; read it and change that");
            return Err(Refused::invalid(vec![(
                "document.version".to_owned(),
                problem,
            )]));
        }
        let unchanged = Campaign {
            version: current,
            ..asked.clone()
        };
        if old.as_ref() == Some(&unchanged) || validate_only {
            return Ok(current);
        }
        let next = Campaign {
            version: current + 1,
            ..unchanged
        };
        let json = serde_json::to_vec(&next).map_err(|_| Refusal::Unavailable)?;
        let txn = match &entry {
            Some(entry) => Txn::new().expect_revision(&key, entry.mod_revision),
            None => Txn::new().expect_absent(&key),
        };
        if keyspace
            .commit(txn.put(&key, json))
            .await
            .map_err(fault)?
            .committed()
        {
            tracing::info!(campaign.id = %next.campaign, version = next.version, "campaign applied");
            return Ok(next.version);
        }
    }
    Err(Refusal::Unavailable.into())
}

/// The document of a campaign, read strictly.
pub async fn get(keyspace: &Keyspace, campaign: &CampaignId) -> Result<Campaign, Refused> {
    let entry = keyspace
        .get(&format!("{PREFIX}{campaign}"))
        .await
        .map_err(fault)?;
    stored(&entry.ok_or(Refusal::CampaignUnknown)?)
}

/// What the caller hears of a fault of the key space; the log hears the rest.
pub(crate) fn fault(fault: keyspace::Fault) -> Refused {
    let refusal = match fault {
        keyspace::Fault::Unknown { .. } => Refusal::OutcomeUnknown,
        keyspace::Fault::Unavailable { .. }
        | keyspace::Fault::SessionLost
        | keyspace::Fault::Invalid { .. }
        | keyspace::Fault::Store { .. } => Refusal::Unavailable,
    };
    tracing::warn!(
        error = fields::chain(&fault),
        retry = "caller",
        "documents could not be read or written"
    );
    refusal.into()
}

fn parse(document: &str) -> Result<Campaign, Refused> {
    let wrong = |field: String, problem: String| Refused::invalid(vec![(field, problem)]);
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(wrong(
            "document".to_owned(),
            format!("must have at most {DOCUMENT_BYTES_MAX} bytes"),
        ));
    }
    let mut json = serde_json::Deserializer::from_str(document);
    let campaign: Campaign = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            "document".to_owned()
        } else {
            format!("document.{path}")
        };
        wrong(field, error.inner().to_string())
    })?;
    json.end()
        .map_err(|error| wrong("document".to_owned(), error.to_string()))?;
    let violations = campaign.violations();
    if violations.is_empty() {
        return Ok(campaign);
    }
    let named = violations
        .into_iter()
        .map(|one| (format!("document.{}", one.field), one.problem));
    Err(Refused::invalid(named.collect()))
}

fn stored(entry: &Entry) -> Result<Campaign, Refused> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        tracing::error!(
            key = entry.key,
            error = fields::chain(&error),
            "stored campaign cannot be read"
        );
        Refusal::Unavailable.into()
    })
}

#[cfg(test)]
pub(crate) mod tests;
