//! What operators set for a room, beside its document: followed by whoever is the doorkeeper.

use domain::{CampaignId, CohortId};
use serde::{Deserialize, Serialize};

/// Below this prefix every room may have one key.
pub const PREFIX: &str = "/doseline/room-control/";

/// How fast people are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub enum Rate {
    /// As fast as the back end shows that it can take them.
    #[default]
    Adaptive,
    /// So many people who come per 1,000 seconds, in all regions together, as long as there is something left.
    Fixed {
        /// People per 1,000 seconds.
        per_kilosecond: u64,
    },
    /// Everybody at once: for development and small places.
    AtOnce,
}

/// An operator's settings of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// How fast people are let in.
    pub rate: Rate,
    /// Never faster than this in all regions together, in people per 1,000 seconds; none = the configuration's ceiling.
    pub ceiling_per_kilosecond: Option<u64>,
}

/// Where a room's control lives in the key space.
#[must_use]
pub fn key(campaign: &CampaignId, cohort: &CohortId) -> String {
    format!("{PREFIX}{campaign}/{cohort}")
}

// === impl Control ===

impl Control {
    /// Reads what is stored; what cannot be read is told and counts as nothing set.
    #[must_use]
    pub fn read(key: &str, json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_else(|error| {
            tracing::error!(key, %error, "a room's control cannot be read");
            Self::default()
        })
    }

    /// As it is stored.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain fields always serialise")
    }
}
