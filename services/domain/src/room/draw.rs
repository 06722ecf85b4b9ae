//! The draw as a chain of signed steps: COMMIT, FREEZE, REVEAL, BEACON, DOORS. Each happens once, in this order.
//!
//! Invariant: what decides the order (list, seed, beacon) is fixed by documents of which each names the one before,
//! and nobody who writes one can know the outcome while there is still something to choose.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bytes::Bytes32;
use crate::ids::{CampaignId, CohortId, RegionId};
use crate::paseto::{SigningKeyWithId, TrustedKeys, Untrusted};
use crate::time::Timestamp;

/// Signed along with every step and carried by none.
pub const STEP_PURPOSE: &str = "doseline/draw-step/v1";
/// Hashed into every final seed.
pub const FORMULA: &str = "doseline/draw/v1";
/// The longest source, round, value or code version, in bytes.
pub const TEXT_LENGTH_MAX: usize = 1_024;

/// Where a public random value will come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Who publishes it, such as `drand quicknet` or `Lotto 6/45`.
    pub source: String,
    /// Exactly which value: a round's number, or the drawing's date.
    pub round: String,
    /// When it is published. Where it is said, the list must be frozen before, and the value comes after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
}

/// The rules, fixed before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// SHA-256 of the operator's seed.
    pub seed_hash: Bytes32,
    /// The public random value that will be used.
    pub beacon: Announcement,
    /// The one to be used if the first never comes; without one the doors wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Announcement>,
    /// Until then the seed counts; after it the seed is 32 zero bytes.
    pub reveal_by: Timestamp,
    /// The code that draws.
    pub code_version: String,
}

/// The list, fixed: bucket 0 is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Root of the sorted list of draw tickets.
    pub list_root: Bytes32,
    /// How many tickets it has.
    pub n0: u64,
    /// How many of them by region; adds up to `n0`.
    pub regions: BTreeMap<RegionId, u64>,
}

/// The public random value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// As announced.
    pub source: String,
    /// As announced.
    pub round: String,
    /// The value as text, exactly as published.
    pub value: String,
}

/// What a step says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub enum Body {
    /// Step 1.
    Commit(Commit),
    /// Step 2.
    Freeze(Freeze),
    /// Step 3: the seed, or 32 zero bytes after the time for it.
    Reveal {
        /// The operator's seed.
        seed: Bytes32,
    },
    /// Step 4: now the order is known.
    Beacon(Beacon),
    /// Step 5: the doors may be opened.
    Doors {
        /// Computed from all before.
        final_seed: Bytes32,
    },
}

/// One step's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The campaign.
    pub campaign: CampaignId,
    /// The cohort.
    pub cohort: CohortId,
    /// 1 to 5.
    pub number: u32,
    /// SHA-256 over the signed text of the step before; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_hash: Option<Bytes32>,
    /// When the server wrote it, in microseconds since 1970.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
}

/// What is known of a draw: part of the room's document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Draw {
    /// Since step 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// Since step 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_root: Option<Bytes32>,
    /// Since step 2: people in bucket 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n0: Option<u64>,
    /// Since step 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<Bytes32>,
    /// Since step 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Beacon>,
    /// Since step 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_seed: Option<Bytes32>,
    /// SHA-256 over the signed text of the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Bytes32>,
}

/// Why a step cannot be the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStep {
    /// Not signed by a trusted key, or unreadable.
    #[error("is not believed: {0}")]
    Untrusted(Untrusted),
    /// It is about another campaign or cohort.
    #[error("is another room's")]
    AnotherRoom,
    /// Another step comes next, or none: no step is repeated.
    #[error("is out of order: next comes {expected}")]
    OutOfOrder {
        /// What comes next.
        expected: &'static str,
    },
    /// It does not name the step before by its hash.
    #[error("does not follow the step before")]
    BrokenChain,
    /// It is older than the step before.
    #[error("is older than the step before")]
    TimeBack,
    /// A text is empty, too long, has control characters or outer spaces.
    #[error("has a text that is empty, too long, or not clean")]
    Text,
    /// The commit's times contradict each other: reveal, then beacon, then the second.
    #[error("has times in the wrong order")]
    Times,
    /// The regions do not add up to the list's length.
    #[error("has regions that do not add up")]
    Sums,
    /// Every announced value may be known already.
    #[error("freezes the list after the beacon was published")]
    FrozenLate,
    /// The seed is not the committed one.
    #[error("reveals another seed than the committed one")]
    SeedChanged,
    /// The committed seed came too late: it must be 32 zero bytes.
    #[error("reveals the seed after its time: it is 32 zero bytes now")]
    SeedLate,
    /// Not what was announced.
    #[error("has a beacon that was not announced")]
    WrongBeacon,
    /// The list was not frozen yet when this value came out.
    #[error("uses a beacon that was published before the list was frozen")]
    BeaconKnown,
    /// Before its announced time.
    #[error("has a beacon before its announced time")]
    BeaconEarly,
    /// The seed is not what the formula gives.
    #[error("has another final seed than the formula gives")]
    WrongFinalSeed,
}

/// The steps of one room so far.
#[derive(Clone, Debug)]
pub struct Chain {
    campaign: CampaignId,
    cohort: CohortId,
    draw: Draw,
    frozen_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    length: u32,
}

const ORDER: [&str; 5] = ["COMMIT", "FREEZE", "REVEAL", "BEACON", "DOORS"];

// === impl Step ===

impl Step {
    /// Signs the step.
    #[must_use]
    pub fn sign(&self, key: &SigningKeyWithId) -> String {
        let message = serde_json::to_vec(self).expect("plain fields always serialise");
        key.sign(&message, STEP_PURPOSE)
    }

    /// Reads a signed step and the hash of its text.
    pub fn verify(keys: &TrustedKeys, text: &str) -> Result<(Self, Bytes32), Untrusted> {
        let message = keys.verify(text, STEP_PURPOSE)?;
        let step = serde_json::from_slice(&message).map_err(|_| Untrusted::Malformed)?;
        Ok((step, Bytes32::sha256(text)))
    }
}

impl Body {
    /// The step's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Commit(_) => ORDER[0],
            Self::Freeze(_) => ORDER[1],
            Self::Reveal { .. } => ORDER[2],
            Self::Beacon(_) => ORDER[3],
            Self::Doors { .. } => ORDER[4],
        }
    }
}

// === impl Draw ===

impl Draw {
    /// Whether everything `old` says is said here, too, unchanged.
    #[must_use]
    pub fn extends(&self, old: &Self) -> bool {
        fn kept<T: PartialEq>(new: &Option<T>, old: &Option<T>) -> bool {
            old.is_none() || new == old
        }
        kept(&self.commit, &old.commit)
            && kept(&self.list_root, &old.list_root)
            && kept(&self.n0, &old.n0)
            && kept(&self.seed, &old.seed)
            && kept(&self.beacon, &old.beacon)
            && kept(&self.final_seed, &old.final_seed)
            && (old.hash.is_none() || self.hash.is_some())
    }
}

// === impl Chain ===

impl Chain {
    /// No step yet.
    #[must_use]
    pub fn new(campaign: CampaignId, cohort: CohortId) -> Self {
        Self {
            campaign,
            cohort,
            draw: Draw::default(),
            frozen_at: None,
            last_at: None,
            length: 0,
        }
    }

    /// The campaign.
    #[must_use]
    pub fn campaign(&self) -> &CampaignId {
        &self.campaign
    }

    /// The cohort.
    #[must_use]
    pub fn cohort(&self) -> &CohortId {
        &self.cohort
    }

    /// Whether this is the draw of that room.
    #[must_use]
    pub fn is_of(&self, campaign: &CampaignId, cohort: &CohortId) -> bool {
        self.campaign == *campaign && self.cohort == *cohort
    }

    /// What the steps so far have fixed: goes into the room's document as it is.
    #[must_use]
    pub fn draw(&self) -> &Draw {
        &self.draw
    }

    /// How many steps there are.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The name of the step that comes next; none after DOORS.
    #[must_use]
    pub fn expected(&self) -> Option<&'static str> {
        ORDER.get(usize::try_from(self.length).ok()?).copied()
    }

    /// The document of the next step, checked; to be signed and appended.
    pub fn next(&self, at: Timestamp, body: Body) -> Result<Step, BadStep> {
        let step = Step {
            campaign: self.campaign.clone(),
            cohort: self.cohort.clone(),
            number: self.length + 1,
            prev_hash: self.draw.hash,
            at,
            body,
        };
        self.check(&step).map(|_| step)
    }

    /// The REVEAL of whoever has (or has not) a seed at `at`: the seed in its time, 32 zero bytes after it; `None` while
    /// there is nothing to do but wait for the seed.
    #[must_use]
    pub fn reveal(&self, at: Timestamp, seed: Option<Bytes32>) -> Option<Body> {
        let late = self
            .draw
            .commit
            .as_ref()
            .is_some_and(|commit| at > commit.reveal_by);
        let seed = if late { Some(Bytes32::ZERO) } else { seed };
        seed.map(|seed| Body::Reveal { seed })
    }

    /// The DOORS step, once the beacon is known.
    #[must_use]
    pub fn doors(&self) -> Option<Body> {
        self.draw
            .final_seed
            .map(|final_seed| Body::Doors { final_seed })
    }

    /// Takes the next step; `hash` is the SHA-256 of its signed text.
    pub fn append(&mut self, step: &Step, hash: Bytes32) -> Result<(), BadStep> {
        let mut draw = self.check(step)?;
        draw.hash = Some(hash);
        self.draw = draw;
        if matches!(step.body, Body::Freeze(_)) {
            self.frozen_at = Some(step.at);
        }
        self.last_at = Some(step.at);
        self.length += 1;
        Ok(())
    }

    /// Verifies a signed step and takes it.
    pub fn append_text(&mut self, keys: &TrustedKeys, text: &str) -> Result<Step, BadStep> {
        let (step, hash) = Step::verify(keys, text).map_err(BadStep::Untrusted)?;
        self.append(&step, hash)?;
        Ok(step)
    }

    /// What the draw is after `step`, if it may be the next one.
    fn check(&self, step: &Step) -> Result<Draw, BadStep> {
        if step.campaign != self.campaign || step.cohort != self.cohort {
            return Err(BadStep::AnotherRoom);
        }
        let expected = self.expected().unwrap_or("nothing");
        if step.number != self.length + 1 || step.body.name() != expected {
            return Err(BadStep::OutOfOrder { expected });
        }
        if step.prev_hash != self.draw.hash {
            return Err(BadStep::BrokenChain);
        }
        if self.last_at.is_some_and(|last| step.at < last) {
            return Err(BadStep::TimeBack);
        }
        let mut draw = self.draw.clone();
        match &step.body {
            Body::Commit(commit) => {
                check_commit(commit)?;
                draw.commit = Some(commit.clone());
            }
            Body::Freeze(freeze) => {
                self.check_freeze(freeze, step.at)?;
                draw.list_root = Some(freeze.list_root);
                draw.n0 = Some(freeze.n0);
            }
            Body::Reveal { seed } => {
                self.check_seed(*seed, step.at)?;
                draw.seed = Some(*seed);
            }
            Body::Beacon(beacon) => {
                self.check_beacon(beacon, step.at)?;
                draw.beacon = Some(beacon.clone());
                draw.final_seed = final_seed(&self.campaign, &self.cohort, &draw);
            }
            Body::Doors { final_seed } if draw.final_seed != Some(*final_seed) => {
                return Err(BadStep::WrongFinalSeed);
            }
            Body::Doors { .. } => {}
        }
        Ok(draw)
    }

    fn announced(&self) -> impl Iterator<Item = &Announcement> {
        let commit = self.draw.commit.as_ref();
        commit
            .into_iter()
            .flat_map(|commit| [Some(&commit.beacon), commit.second.as_ref()])
            .flatten()
    }

    fn check_freeze(&self, freeze: &Freeze, at: Timestamp) -> Result<(), BadStep> {
        let sum = freeze
            .regions
            .values()
            .try_fold(0u64, |sum, n| sum.checked_add(*n));
        if sum != Some(freeze.n0) {
            return Err(BadStep::Sums);
        }
        // One value that nobody can know yet is enough; the others are refused later.
        let open = |it: &Announcement| it.published_at.is_none_or(|published| at < published);
        if self.announced().any(open) {
            Ok(())
        } else {
            Err(BadStep::FrozenLate)
        }
    }

    fn check_seed(&self, seed: Bytes32, at: Timestamp) -> Result<(), BadStep> {
        let Some(commit) = &self.draw.commit else {
            return Err(BadStep::OutOfOrder { expected: ORDER[0] });
        };
        if at > commit.reveal_by {
            return if seed == Bytes32::ZERO {
                Ok(())
            } else {
                Err(BadStep::SeedLate)
            };
        }
        if Bytes32::sha256(seed.0) == commit.seed_hash {
            Ok(())
        } else {
            Err(BadStep::SeedChanged)
        }
    }

    fn check_beacon(&self, beacon: &Beacon, at: Timestamp) -> Result<(), BadStep> {
        if !clean(&beacon.value) {
            return Err(BadStep::Text);
        }
        let same = |it: &&Announcement| it.source == beacon.source && it.round == beacon.round;
        let announced = self.announced().find(same).ok_or(BadStep::WrongBeacon)?;
        let Some(published) = announced.published_at else {
            return Ok(());
        };
        if self.frozen_at.is_none_or(|frozen| frozen >= published) {
            return Err(BadStep::BeaconKnown);
        }
        if at < published {
            Err(BadStep::BeaconEarly)
        } else {
            Ok(())
        }
    }
}

fn check_commit(commit: &Commit) -> Result<(), BadStep> {
    let mut texts = vec![
        &commit.code_version,
        &commit.beacon.source,
        &commit.beacon.round,
    ];
    if let Some(second) = &commit.second {
        texts.extend([&second.source, &second.round]);
    }
    if !texts.into_iter().all(|text| clean(text)) {
        return Err(BadStep::Text);
    }
    let first = commit.beacon.published_at;
    let second = commit
        .second
        .as_ref()
        .and_then(|second| second.published_at);
    let revealed_late = [first, second]
        .into_iter()
        .flatten()
        .any(|published| published <= commit.reveal_by);
    let crossed = matches!((first, second), (Some(first), Some(second)) if second <= first);
    if revealed_late || crossed {
        Err(BadStep::Times)
    } else {
        Ok(())
    }
}

/// Every text has one spelling on paper: nothing invisible in it or around it.
fn clean(text: &str) -> bool {
    let bounded = (1..=TEXT_LENGTH_MAX).contains(&text.len());
    bounded && !text.starts_with(' ') && !text.ends_with(' ') && !text.chars().any(char::is_control)
}

/// `SHA-256(LP("doseline/draw/v1") LP(campaign) LP(cohort) root[32] u64be(n0) seed[32] LP(source) LP(round) LP(value))`,
/// `LP` = u32be length, then the bytes. `None` while something is missing.
#[must_use]
pub fn final_seed(campaign: &CampaignId, cohort: &CohortId, draw: &Draw) -> Option<Bytes32> {
    let (root, n0, seed) = (draw.list_root?, draw.n0?, draw.seed?);
    let beacon = draw.beacon.as_ref()?;
    let mut hash = Sha256::new();
    let lp = |hash: &mut Sha256, text: &str| {
        hash.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(text);
    };
    lp(&mut hash, FORMULA);
    lp(&mut hash, campaign.as_str());
    lp(&mut hash, cohort.as_str());
    hash.update(root.0);
    hash.update(n0.to_be_bytes());
    hash.update(seed.0);
    lp(&mut hash, &beacon.source);
    lp(&mut hash, &beacon.round);
    lp(&mut hash, &beacon.value);
    Some(Bytes32(hash.finalize().into()))
}

#[cfg(test)]
mod tests;
