//! Writes rooms: signed, each version naming the one before, by compare-and-set on the room's revision.
//!
//! Invariants: whoever writes, the versions of a room are one chain; what belongs to a version (a bucket, a step) is
//! written in the same transaction; every version is kept in the people store, and where the key space shows an older
//! one or none, the newest that was kept counts and is written over it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::paseto::SigningKeyWithId;
use domain::room::{Room, room_key};
use domain::{CampaignId, CohortId, Refusal, Timestamp};
use proto::status::Refused;
use runtime::keyspace::{Keyspace, Txn};
use runtime::reload::Reloading;
use runtime::{Clock, fields};
use serde::{Deserialize, Serialize};

use super::elect::Office;
use super::history::History;
use crate::campaigns::fault;
use crate::keys::SigningKeys;
use crate::people::{KeptDocument, People};

/// Below this prefix every room has one key, and its closed buckets below that.
pub const PREFIX: &str = "/doseline/room/";
/// Beside each room: when the write of its document began. Not under the rooms' prefix, whose readers expect rooms.
const WRITTEN_PREFIX: &str = "/doseline/room-written/";
/// Two machines may disagree about the time by this much; readers remember how far they came besides.
const CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// Reads and writes rooms. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    pub(super) keyspace: Keyspace,
    pub(super) keys: Reloading<SigningKeys>,
    pub(super) clock: Clock,
    people: Arc<dyn People>,
    history: History,
    /// The newest version of each room that this process read or wrote.
    newest: Arc<Mutex<BTreeMap<(CampaignId, CohortId), KeptDocument>>>,
}

/// A room as it is stored, with what is needed to replace it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The verified document.
    pub room: Room,
    /// Its signed text.
    pub text: String,
    /// The key's revision; 0 where the key is gone.
    pub revision: i64,
    /// The key space showed an older version, or none: this one must be put back.
    pub lost: bool,
    began: Option<Timestamp>,
    /// By this process's monotonic clock, if it wrote the document itself.
    mine: Option<Instant>,
}

/// What is to be written.
pub struct Draft {
    /// The next version.
    pub room: Room,
    /// Keys that come into being with it, each once for ever.
    pub once: Vec<(String, String)>,
    /// Keys that are set with it.
    pub set: Vec<(String, String)>,
    /// Since when readers may follow it, at the earliest: what its lines start from was computed for this moment.
    began: (Instant, Timestamp),
}

/// When the write of a version began, by the writer's wall clock.
#[derive(Serialize, Deserialize)]
struct Began {
    version: u64,
    began_micros: i64,
}

// === impl Stored ===

impl Stored {
    /// Since the write of the document began: no reader can have followed it for longer. `None` if nobody knows.
    #[must_use]
    pub fn followed(&self, clock: &Clock) -> Option<Duration> {
        match (self.mine, self.began) {
            (Some(mine), _) => Some(clock.monotonic().saturating_duration_since(mine)),
            (None, Some(began)) => Some(clock.wall().since(began) + CLOCK_MARGIN),
            (None, None) => None,
        }
    }
}

// === impl Draft ===

impl Draft {
    /// Of a room whose lines were computed for now.
    #[must_use]
    pub fn new(room: Room, clock: &Clock) -> Self {
        Self {
            room,
            once: Vec::new(),
            set: Vec::new(),
            began: (clock.monotonic(), clock.wall()),
        }
    }

    /// Since when it may be followed, by the monotonic clock.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began.0
    }
}

// === impl Publisher ===

impl Publisher {
    /// Signs with the newest of `keys`.
    #[must_use]
    pub fn new(
        keyspace: Keyspace,
        keys: Reloading<SigningKeys>,
        clock: Clock,
        (people, history): (Arc<dyn People>, History),
    ) -> Self {
        Self {
            keyspace,
            keys,
            clock,
            people,
            history,
            newest: Arc::default(),
        }
    }

    /// The key that signs now.
    pub fn signer(&self) -> Result<Arc<SigningKeyWithId>, Refused> {
        let signer = self.keys.current().signer(self.clock.wall());
        Ok(signer.ok_or(Refusal::Unavailable)?)
    }

    /// A room, read strictly; `None` where there is none yet.
    pub async fn load(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Option<Stored>, Refused> {
        // The room first: if it is replaced in between, the write will conflict whatever the second read says.
        let entry = self.keyspace.get(&room_key(campaign, cohort)).await;
        let entry = entry.map_err(fault)?;
        let stored = match entry {
            None => None,
            Some(entry) => {
                let text = String::from_utf8_lossy(&entry.value).into_owned();
                let room = self.verify(&entry.key, &text)?;
                Some((room, text, entry.mod_revision))
            }
        };
        let newest = self.newest(campaign, cohort).await;
        let version = stored.as_ref().map_or(0, |(room, _, _)| room.version);
        if let Some(newest) = newest.filter(|newest| newest.version > version) {
            tracing::error!(
                campaign.id = %campaign, cohort = %cohort, version, newest = newest.version,
                "the key space shows an older room than was written: the newest one counts"
            );
            return Ok(Some(Stored {
                room: self.verify("newest", &newest.document)?,
                text: newest.document,
                revision: stored.map_or(0, |(_, _, revision)| revision),
                lost: true,
                began: Some(newest.written_at),
                mine: None,
            }));
        }
        let Some((room, text, revision)) = stored else {
            return Ok(None);
        };
        let began = self.keyspace.get(&written_key(campaign, cohort)).await;
        let began = began
            .map_err(fault)?
            .and_then(|began| serde_json::from_slice::<Began>(&began.value).ok())
            .filter(|began| began.version == room.version)
            .map(|began| Timestamp::from_micros(began.began_micros));
        // Its writer may have died before it was kept.
        self.keep(&room, &text, began.unwrap_or_else(|| self.clock.wall()));
        Ok(Some(Stored {
            room,
            text,
            revision,
            lost: false,
            began,
            mine: None,
        }))
    }

    fn verify(&self, key: &str, text: &str) -> Result<Room, Refused> {
        Room::verify(&self.keys.current().trusted(), text).map_err(|error| {
            // Somebody else's, or a key that was removed too early: overwriting it would end the only draw.
            tracing::error!(
                key,
                error = fields::chain(&error),
                "stored room is not believed"
            );
            Refusal::Unavailable.into()
        })
    }

    /// The newest version that anybody is known to have written. Without the people store only this process's own
    /// memory counts: a pause must not wait for a database.
    async fn newest(&self, campaign: &CampaignId, cohort: &CohortId) -> Option<KeptDocument> {
        let kept = self.people.newest_document(campaign, cohort).await;
        let kept = kept.unwrap_or_else(|error| {
            let error = fields::chain(&error);
            tracing::warn!(error, "the newest version of a room could not be looked up");
            None
        });
        let key = (campaign.clone(), cohort.clone());
        let known = self.known().get(&key).cloned();
        [kept, known]
            .into_iter()
            .flatten()
            .max_by_key(|one| one.version)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(CampaignId, CohortId), KeptDocument>> {
        // Documents are replaced whole: a panic elsewhere leaves none half made.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the version after `old`; `None` when somebody else wrote first, or the office is lost.
    pub async fn write(
        &self,
        old: Option<&Stored>,
        draft: Draft,
        office: Option<&Office>,
    ) -> Result<Option<Stored>, Refused> {
        let Draft {
            room,
            once,
            set,
            began: (mine, began),
        } = draft;
        let text = room.sign(&*self.signer()?);
        let key = room_key(&room.campaign, &room.cohort);
        let mut txn = match old {
            Some(old) if old.revision > 0 => Txn::new().expect_revision(&key, old.revision),
            Some(_) | None => Txn::new().expect_absent(&key),
        };
        if let Some(Office { key, revision }) = office {
            txn = txn.expect_revision(key, *revision);
        }
        let note = Began {
            version: room.version,
            began_micros: began.as_micros(),
        };
        let note = serde_json::to_vec(&note).map_err(|_| Refusal::Unavailable)?;
        txn = txn
            .put(&key, text.clone())
            .put(written_key(&room.campaign, &room.cohort), note);
        for (key, text) in once {
            txn = txn.expect_absent(&key).put(&key, text);
        }
        for (key, text) in set {
            txn = txn.put(&key, text);
        }
        let committed = self.keyspace.commit(txn).await.map_err(fault)?;
        let Some(revision) = committed.revision() else {
            return Ok(None);
        };
        self.keep(&room, &text, began);
        Ok(Some(Stored {
            room,
            text,
            revision,
            lost: false,
            began: Some(began),
            mine: Some(mine),
        }))
    }

    fn keep(&self, room: &Room, text: &str, written_at: Timestamp) {
        let document = KeptDocument {
            version: room.version,
            document: text.to_owned(),
            written_at,
        };
        let key = (room.campaign.clone(), room.cohort.clone());
        self.known().insert(key, document.clone());
        self.history
            .keep(room.campaign.clone(), room.cohort.clone(), document);
    }
}

fn written_key(campaign: &CampaignId, cohort: &CohortId) -> String {
    format!("{WRITTEN_PREFIX}{campaign}/{cohort}")
}
