//! What operators do with rooms: the steps of the draw, doors, pauses, speeds.
//!
//! Invariant: a room has one draw for ever. Every process of identity may do this, because each write expects the room's
//! revision; the doorkeeper follows what it finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::campaign::Campaign;
use domain::room::draw::Announcement;
use domain::room::{Phase, Room};
use domain::{CampaignId, CohortId, Refusal, RegionId};
use proto::status::Refused;
use runtime::Clock;
use runtime::keyspace::{Keyspace, Txn};

use crate::campaigns::{self, CONFLICTS_MAX, fault};
use crate::doorkeeper::control::{self, Control, Rate};
use crate::doorkeeper::draw::{self, Ask, Ceremony};
use crate::doorkeeper::lines;
use crate::doorkeeper::publish::{Draft, Publisher, Stored};
use crate::metrics::Metrics;
use crate::people::People;

/// Where the public value of a draw comes from that nobody watches: this very process.
pub const DEVELOPMENT_SOURCE: &str = "development: drawn by doseline itself, proves nothing";
/// How long the seed of such a draw counts.
const DEVELOPMENT_REVEAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Does what operators ask for. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    keyspace: Keyspace,
    publisher: Publisher,
    ceremony: Ceremony,
    ttl: Duration,
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

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTaken {
    /// 1 to 5.
    pub number: u32,
    /// The signed text.
    pub document: String,
    /// The room's version.
    pub version: u64,
}

/// A room with what operators set for it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The document.
    pub room: Room,
    /// What is set.
    pub control: Control,
    /// The step of the draw that comes next; `None` after the last.
    pub next_step: Option<&'static str>,
}

// === impl Rooms ===

impl Rooms {
    /// Over these stores; plans of its own may be followed for `ttl`.
    #[must_use]
    pub fn new(
        keyspace: Keyspace,
        publisher: Publisher,
        people: Arc<dyn People>,
        ttl: Duration,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            keyspace,
            ceremony: Ceremony::new(publisher.clone(), people),
            publisher,
            ttl,
            clock,
            metrics,
        }
    }

    /// Takes the next step of the draw; refused out of order.
    pub async fn step(
        &self,
        room: (&CampaignId, &CohortId),
        ask: Ask,
    ) -> Result<StepTaken, Refused> {
        let taken = self.try_step(room, ask).await;
        self.count(taken)
    }

    /// All steps that are missing, with a public value of our own making, and the doors: for development and for small
    /// places. Open doors only get another rate. `per_kilosecond` is as in [`Rooms::rate`].
    pub async fn open(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        per_kilosecond: u64,
    ) -> Result<Written, Refused> {
        let opened = self.try_open((campaign, cohort), per_kilosecond).await;
        self.count(opened)
    }

    /// Stops new holds and bookings of the cohort.
    pub async fn pause(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        reason: &str,
    ) -> Result<Written, Refused> {
        let room = (campaign, cohort);
        let paused = self.change(room, |stored, room| {
            match stored.room.phase {
                Phase::Paused if stored.room.reason == reason => return Ok(false),
                Phase::Open | Phase::Exhausted | Phase::Paused => {}
                Phase::Lobby | Phase::Frozen | Phase::Drawn => {
                    return Err(cohort_problem(
                        "has closed doors: there is nothing to pause",
                    ));
                }
                Phase::Ended => return Err(Refusal::RoomEnded.into()),
            }
            lines::halt(room, &stored.room, stored.followed(&self.clock));
            room.phase = Phase::Paused;
            reason.clone_into(&mut room.reason);
            Ok(true)
        });
        self.count(paused.await)
    }

    /// Goes on after a pause, from where each line stood.
    pub async fn resume(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
    ) -> Result<Written, Refused> {
        let resumed = self.try_resume((campaign, cohort)).await;
        self.count(resumed)
    }

    /// Sets how fast people are let in, in people who come per 1,000 seconds; 0 = everybody at once, `None` = as fast
    /// as the back end shows that it can take them.
    pub async fn rate(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        per_kilosecond: Option<u64>,
    ) -> Result<Control, Refused> {
        let rate = rate_of(per_kilosecond);
        self.set((campaign, cohort), |control| control.rate = rate)
            .await
    }

    /// Sets a ceiling in people who come per 1,000 seconds; `None` = the configuration's.
    pub async fn ceiling(
        &self,
        campaign: &CampaignId,
        cohort: &CohortId,
        per_kilosecond: Option<u64>,
    ) -> Result<Control, Refused> {
        self.set((campaign, cohort), |control| {
            control.ceiling_per_kilosecond = per_kilosecond;
        })
        .await
    }

    /// The room as it is.
    pub async fn show(&self, campaign: &CampaignId, cohort: &CohortId) -> Result<Shown, Refused> {
        self.campaign(campaign, cohort).await?;
        let stored = self.publisher.load(campaign, cohort).await?;
        let stored = stored.ok_or_else(no_room)?;
        let chain = self.ceremony.chain(campaign, cohort).await?;
        Ok(Shown {
            room: stored.room,
            control: self.control((campaign, cohort)).await?.1,
            next_step: chain.expected(),
        })
    }

    async fn try_step(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
        ask: Ask,
    ) -> Result<StepTaken, Refused> {
        let document = self.campaign(campaign, cohort).await?;
        let (_, control) = self.control((campaign, cohort)).await?;
        let number = number_of(&ask);
        let next = |stored: Option<&Stored>| {
            let mut room = next_version(&document, cohort, stored);
            if stored.is_some_and(|stored| stored.room.phase == Phase::Ended) {
                return Err(Refusal::RoomEnded.into());
            }
            room.phase = draw::phase(number);
            if room.phase == Phase::Open && control.rate == Rate::AtOnce {
                let people = stored.and_then(|stored| stored.room.draw.n0).unwrap_or(0);
                lines::at_once(&mut room, people, self.ttl);
            }
            Ok(room)
        };
        let taken = self.ceremony.take((campaign, cohort), ask, next).await?;
        let texts = taken.texts.into_iter();
        let mut steps = texts.filter(|(key, _)| key.starts_with(draw::PREFIX));
        Ok(StepTaken {
            number: taken.number,
            document: steps.next().map(|(_, text)| text).unwrap_or_default(),
            version: taken.stored.room.version,
        })
    }

    async fn try_open(
        &self,
        room: (&CampaignId, &CohortId),
        per_kilosecond: u64,
    ) -> Result<Written, Refused> {
        self.campaign(room.0, room.1).await?;
        let rate = rate_of(Some(per_kilosecond));
        self.set(room, |control| control.rate = rate).await?;
        // Somebody else may be taking the same steps: each conflict is one step further.
        for _ in 0..2 * CONFLICTS_MAX {
            let chain = self.ceremony.chain(room.0, room.1).await?;
            let Some(ask) = development(&chain, self.clock.wall()) else {
                break;
            };
            match self.try_step(room, ask).await {
                Err(refused) if refused.refusal == Refusal::DrawStepRefused => {
                    let now = self.ceremony.chain(room.0, room.1).await?;
                    if now.length() == chain.length() {
                        return Err(refused);
                    }
                }
                taken => drop(taken?),
            }
        }
        self.try_resume(room).await
    }

    /// Opens the doors again; with everybody at once that is written here.
    async fn try_resume(&self, room: (&CampaignId, &CohortId)) -> Result<Written, Refused> {
        let (_, control) = self.control(room).await?;
        let change = self.change(room, |stored, next| {
            match stored.room.phase {
                Phase::Open | Phase::Exhausted | Phase::Paused => {}
                Phase::Lobby | Phase::Frozen | Phase::Drawn => {
                    return Err(cohort_problem(
                        "has doors that were never opened: see the steps of the draw",
                    ));
                }
                Phase::Ended => return Err(Refusal::RoomEnded.into()),
            }
            let paused = stored.room.phase == Phase::Paused;
            if paused {
                lines::halt(next, &stored.room, stored.followed(&self.clock));
                next.phase = Phase::Open;
                next.reason.clear();
            }
            let lines_before = next.regions.clone();
            if control.rate == Rate::AtOnce {
                // Later buckets are added by the doorkeeper.
                lines::at_once(next, stored.room.draw.n0.unwrap_or(0), self.ttl);
            }
            Ok(paused || next.regions != lines_before)
        });
        change.await
    }

    /// Writes what `change` makes of the room's next version; `false` leaves it as it is.
    async fn change(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
        change: impl Fn(&Stored, &mut Room) -> Result<bool, Refused>,
    ) -> Result<Written, Refused> {
        let document = self.campaign(campaign, cohort).await?;
        for _ in 0..CONFLICTS_MAX {
            let stored = self.publisher.load(campaign, cohort).await?;
            let stored = stored.ok_or_else(no_room)?;
            let room = next_version(&document, cohort, Some(&stored));
            let mut draft = Draft::new(room, &self.clock);
            if !change(&stored, &mut draft.room)? {
                return Ok(written(&stored.room));
            }
            let answer = written(&draft.room);
            let wrote = self.publisher.write(Some(&stored), draft, None).await?;
            if wrote.is_some() {
                tracing::info!(
                    campaign.id = %campaign, cohort = %cohort, version = answer.version, "room changed"
                );
                return Ok(answer);
            }
        }
        Err(Refusal::Unavailable.into())
    }

    async fn set(
        &self,
        room: (&CampaignId, &CohortId),
        change: impl Fn(&mut Control),
    ) -> Result<Control, Refused> {
        self.campaign(room.0, room.1).await?;
        let key = control::key(room.0, room.1);
        for _ in 0..CONFLICTS_MAX {
            let (revision, mut control) = self.control(room).await?;
            let before = control;
            change(&mut control);
            if control == before {
                return Ok(control);
            }
            let txn = match revision {
                Some(revision) => Txn::new().expect_revision(&key, revision),
                None => Txn::new().expect_absent(&key),
            };
            let txn = txn.put(&key, control.json());
            if self.keyspace.commit(txn).await.map_err(fault)?.committed() {
                tracing::info!(campaign.id = %room.0, cohort = %room.1, ?control, "room's control set");
                return Ok(control);
            }
        }
        Err(Refusal::Unavailable.into())
    }

    async fn control(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
    ) -> Result<(Option<i64>, Control), Refused> {
        let key = control::key(campaign, cohort);
        let entry = self.keyspace.get(&key).await.map_err(fault)?;
        Ok(entry.map_or((None, Control::default()), |entry| {
            (Some(entry.mod_revision), Control::read(&key, &entry.value))
        }))
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
        Err(cohort_problem("is not a cohort of the campaign"))
    }

    fn count<T>(&self, outcome: Result<T, Refused>) -> Result<T, Refused> {
        let told = outcome.as_ref().map(|_| ());
        self.metrics.room(told.map_err(|refused| refused.refusal));
        outcome
    }
}

fn rate_of(per_kilosecond: Option<u64>) -> Rate {
    match per_kilosecond {
        None => Rate::Adaptive,
        Some(0) => Rate::AtOnce,
        Some(per_kilosecond) => Rate::Fixed { per_kilosecond },
    }
}

/// The next step of a draw that nobody watches.
fn development(chain: &domain::room::draw::Chain, now: domain::Timestamp) -> Option<Ask> {
    Some(match chain.length() {
        0 => Ask::Commit {
            beacon: Announcement {
                source: DEVELOPMENT_SOURCE.to_owned(),
                round: "1".to_owned(),
                published_at: None,
            },
            second: None,
            reveal_by: now.plus(DEVELOPMENT_REVEAL),
        },
        1 => Ask::Freeze,
        2 => Ask::Reveal,
        3 => {
            let commit = chain.draw().commit.as_ref();
            let drawn = commit.is_some_and(|it| it.beacon.source == DEVELOPMENT_SOURCE);
            // A draw that was announced to be watched is not finished with a value of our own.
            if !drawn {
                return Some(Ask::Beacon {
                    named: Some((DEVELOPMENT_SOURCE.to_owned(), "1".to_owned())),
                    value: "none".to_owned(),
                });
            }
            Ask::Beacon {
                named: None,
                value: hex::encode(rand::random::<[u8; 32]>()),
            }
        }
        4 => Ask::Doors,
        _ => return None,
    })
}

fn number_of(ask: &Ask) -> u32 {
    match ask {
        Ask::Commit { .. } => 1,
        Ask::Freeze => 2,
        Ask::Reveal => 3,
        Ask::Beacon { .. } => 4,
        Ask::Doors => 5,
    }
}

fn next_version(campaign: &Campaign, cohort: &CohortId, stored: Option<&Stored>) -> Room {
    let regions: &BTreeSet<RegionId> = &campaign.regions;
    match stored {
        Some(stored) => lines::successor(&stored.room, &stored.text, regions),
        None => Room::lobby(
            campaign.campaign.clone(),
            cohort.clone(),
            regions.iter().cloned(),
        ),
    }
}

fn no_room() -> Refused {
    cohort_problem("has no room yet: nobody can book")
}

fn cohort_problem(problem: &str) -> Refused {
    Refused::invalid(vec![("cohort".to_owned(), problem.to_owned())])
}

fn written(room: &Room) -> Written {
    Written {
        version: room.version,
        people: room.draw.n0.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
