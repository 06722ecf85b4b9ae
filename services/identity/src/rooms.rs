//! Opens and pauses rooms: until the doorkeeper moves frontiers by itself, an operator's word does.
//!
//! Invariant: a room has one draw and one bucket 0 for ever; every document is signed, names the one before it, and is
//! written by compare-and-set on its revision.

use std::sync::Arc;

use domain::campaign::Campaign;
use domain::room::{BucketDocument, Bytes32, Phase, Room, bucket_key, room_key};
use domain::{CampaignId, CohortId, Refusal, Timestamp};
use proto::status::Refused;
use runtime::keyspace::{Entry, Keyspace, Txn};
use runtime::reload::Reloading;
use runtime::{Clock, fields};
use serde::{Deserialize, Serialize};

use crate::campaigns::{self, CONFLICTS_MAX, fault};
use crate::keys::SigningKeys;
use crate::metrics::Metrics;
use crate::people::{self, People};

pub mod plan;

/// Beside each room: when the write of its document began. Not under the rooms' prefix, whose readers expect rooms.
const WRITTEN_PREFIX: &str = "/doseline/room-written/";

/// Writes rooms. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    keyspace: Keyspace,
    people: Arc<dyn People>,
    keys: Reloading<SigningKeys>,
    clock: Clock,
    metrics: Metrics,
}

/// A room as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The document's version.
    pub version: u64,
    /// People in bucket 0.
    pub people: u64,
}

/// When the write of a version began, by the writer's wall clock.
#[derive(Serialize, Deserialize)]
struct Began {
    version: u64,
    began_micros: i64,
}

/// A stored room with what is needed to replace it.
struct Stored {
    entry: Entry,
    text: String,
    room: Room,
    /// Since the write began; `None` if nobody knows.
    followed: Option<std::time::Duration>,
}

// === impl Rooms ===

impl Rooms {
    /// Writes rooms signed with the newest of `keys`.
    #[must_use]
    pub fn new(
        keyspace: Keyspace,
        people: Arc<dyn People>,
        keys: Reloading<SigningKeys>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            keyspace,
            people,
            keys,
            clock,
            metrics,
        }
    }

    /// Opens the room, or opens it again from where it stood. `per_kilosecond` 0 lets everybody in at once.
    pub async fn open(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        per_kilosecond: u64,
    ) -> Result<Written, Refused> {
        let outcome = self.try_open(campaign, cohort, per_kilosecond).await;
        self.metrics.room(
            outcome
                .as_ref()
                .map(|_| ())
                .map_err(|refused| refused.refusal),
        );
        outcome
    }

    /// Stops new holds and bookings of the cohort.
    pub async fn pause(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        reason: &str,
    ) -> Result<Written, Refused> {
        let outcome = self.try_pause(campaign, cohort, reason).await;
        self.metrics.room(
            outcome
                .as_ref()
                .map(|_| ())
                .map_err(|refused| refused.refusal),
        );
        outcome
    }

    async fn try_open(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        per_kilosecond: u64,
    ) -> Result<Written, Refused> {
        let document = self.campaign(campaign, cohort).await?;
        for _ in 0..CONFLICTS_MAX {
            let began = self.clock.wall();
            let stored = self.stored(campaign, cohort, began).await?;
            let mut bucket = None;
            let room = match &stored {
                None => {
                    let count = self
                        .people
                        .count_open_bucket(campaign, cohort)
                        .await
                        .map_err(unavailable)?;
                    let people = count.people();
                    let seed = rand::random();
                    let room = plan::first(&document, cohort, people, seed, per_kilosecond);
                    bucket = Some(plan::bucket_zero(&room, &count.regions));
                    room
                }
                Some(Stored { room, .. }) if room.phase == Phase::Ended => {
                    return Err(Refusal::RoomEnded.into());
                }
                Some(Stored {
                    room,
                    text,
                    followed,
                    ..
                }) => plan::reopened(room, text, &document.regions, per_kilosecond, *followed),
            };
            let answer = written(&room);
            if self.write(stored.as_ref(), room, bucket, began).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Unavailable.into())
    }

    async fn try_pause(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        reason: &str,
    ) -> Result<Written, Refused> {
        self.campaign(campaign, cohort).await?;
        for _ in 0..CONFLICTS_MAX {
            let began = self.clock.wall();
            let Some(stored) = self.stored(campaign, cohort, began).await? else {
                let problem = "has no room yet: nobody can book, so there is nothing to pause";
                return Err(Refused::invalid(vec![(
                    "cohort".to_owned(),
                    problem.to_owned(),
                )]));
            };
            if stored.room.phase == Phase::Ended {
                return Err(Refusal::RoomEnded.into());
            }
            if stored.room.phase == Phase::Paused && stored.room.reason == reason {
                return Ok(written(&stored.room));
            }
            let room = plan::paused(&stored.room, &stored.text, reason, stored.followed);
            let answer = written(&room);
            if self.write(Some(&stored), room, None, began).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Unavailable.into())
    }

    async fn campaign(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Campaign, Refused> {
        let document = campaigns::get(&self.keyspace, campaign).await?;
        if document.cohorts.iter().any(|known| known.cohort == *cohort) {
            return Ok(document);
        }
        let problem = "is not a cohort of the campaign";
        Err(Refused::invalid(vec![(
            "cohort".to_owned(),
            problem.to_owned(),
        )]))
    }

    async fn stored(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        now: Timestamp,
    ) -> Result<Option<Stored>, Refused> {
        // The room first: if it is replaced in between, the write will conflict whatever the second read says.
        let entry = self
            .keyspace
            .get(&room_key(campaign, cohort))
            .await
            .map_err(fault)?;
        let Some(entry) = entry else { return Ok(None) };
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        let room = Room::verify(&self.keys.current().trusted(), &text).map_err(|error| {
            // Somebody else's, or a key that was removed too early: overwriting it would end the only draw.
            tracing::error!(
                key = entry.key,
                error = fields::chain(&error),
                "stored room is not believed"
            );
            Refused::from(Refusal::Unavailable)
        })?;
        let began = self
            .keyspace
            .get(&format!("{WRITTEN_PREFIX}{campaign}/{cohort}"))
            .await
            .map_err(fault)?;
        let followed = began
            .and_then(|began| serde_json::from_slice::<Began>(&began.value).ok())
            .filter(|began| began.version == room.version)
            .map(|began| now.since(Timestamp::from_micros(began.began_micros)));
        Ok(Some(Stored {
            entry,
            text,
            room,
            followed,
        }))
    }

    /// `Ok(false)` when somebody else wrote first.
    async fn write(
        &self,
        old: Option<&Stored>,
        mut room: Room,
        bucket: Option<BucketDocument>,
        began: Timestamp,
    ) -> Result<bool, Refused> {
        let signer = self
            .keys
            .current()
            .signer(began)
            .ok_or(Refusal::Unavailable)?;
        let bucket = bucket.map(|bucket| {
            let text = bucket.sign(&signer);
            room.last_bucket_hash = Some(Bytes32::sha256(&text));
            let (campaign, cohort) = (&bucket.campaign, &bucket.cohort);
            (bucket_key(campaign, cohort, bucket.id), text)
        });
        let (campaign, cohort) = (&room.campaign, &room.cohort);
        let key = room_key(campaign, cohort);
        let began = Began {
            version: room.version,
            began_micros: began.as_micros(),
        };
        let began = serde_json::to_vec(&began).map_err(|_| Refusal::Unavailable)?;
        let txn = match old {
            Some(old) => Txn::new().expect_revision(&key, old.entry.mod_revision),
            None => Txn::new().expect_absent(&key),
        };
        let mut txn = txn
            .put(&key, room.sign(&signer))
            .put(format!("{WRITTEN_PREFIX}{campaign}/{cohort}"), began);
        if let Some((key, text)) = bucket {
            txn = txn.expect_absent(&key).put(&key, text);
        }
        let committed = self.keyspace.commit(txn).await.map_err(fault)?.committed();
        if committed {
            tracing::info!(
                campaign.id = %campaign, cohort = %cohort, version = room.version, phase = ?room.phase,
                "room written"
            );
        }
        Ok(committed)
    }
}

fn written(room: &Room) -> Written {
    Written {
        version: room.version,
        people: room.draw.n0.unwrap_or(0),
    }
}

fn unavailable(fault: people::Fault) -> Refused {
    tracing::warn!(
        error = fields::chain(&fault),
        retry = "caller",
        "a bucket was not counted"
    );
    Refusal::Unavailable.into()
}

#[cfg(test)]
mod tests;
