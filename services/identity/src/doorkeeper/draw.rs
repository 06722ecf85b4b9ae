//! The steps of a draw as writes: commit, freeze, reveal, beacon, doors. Each once, in this order.
//!
//! Invariant: a step, what it changes in the room, and the bucket it closes are written in one transaction; the seed
//! leaves the people store only with the step that reveals it.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::place::DrawTicket;
use domain::room::draw::{Announcement, BadStep, Beacon, Body, Chain, Commit, Freeze};
use domain::room::list::ListBuilder;
use domain::room::{BucketDocument, Bytes32, Phase, Room, bucket_key};
use domain::{CampaignId, CohortId, Refusal, Timestamp};
use proto::status::Refused;
use runtime::fields;

use super::publish::{Draft, Publisher, Stored};
use crate::campaigns::{CONFLICTS_MAX, fault};
use crate::people::{self, ClosedBucket, DrawSeed, People};

/// Below this prefix every step of every draw has one key.
pub const PREFIX: &str = "/doseline/draw/";

/// Takes steps. Cheap to clone.
#[derive(Clone)]
pub struct Ceremony {
    publisher: Publisher,
    people: Arc<dyn People>,
}

/// A step to be taken.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Fix the rules. The seed is made here.
    Commit {
        /// The public value that will be used.
        beacon: Announcement,
        /// The one to be used if the first never comes.
        second: Option<Announcement>,
        /// Until then the seed counts.
        reveal_by: Timestamp,
    },
    /// Close bucket 0 and fix the list.
    Freeze,
    /// Publish the seed.
    Reveal,
    /// Enter the public value; source and round as announced, those of the first announcement where none are given.
    Beacon {
        /// Who published it and which it is.
        named: Option<(String, String)>,
        /// Exactly as published.
        value: String,
    },
    /// Open the doors, once the order is known.
    Doors,
}

/// A step that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// 1 to 5.
    pub number: u32,
    /// The room that it made.
    pub stored: Stored,
    /// Keys of the step and whatever came with it, with their signed texts.
    pub texts: Vec<(String, String)>,
}

// === impl Ceremony ===

impl Ceremony {
    /// Over these stores.
    #[must_use]
    pub fn new(publisher: Publisher, people: Arc<dyn People>) -> Self {
        Self { publisher, people }
    }

    /// The steps so far.
    pub async fn chain(&self, campaign: &CampaignId, cohort: &CohortId) -> Result<Chain, Refused> {
        let prefix = format!("{PREFIX}{campaign}/{cohort}/");
        let entries = self.publisher.keyspace.list(&prefix).await.map_err(fault)?;
        let keys = self.publisher.keys.current().trusted();
        let mut chain = Chain::new(campaign.clone(), cohort.clone());
        for entry in entries {
            let text = String::from_utf8_lossy(&entry.value);
            if let Err(error) = chain.append_text(&keys, &text) {
                tracing::error!(
                    key = entry.key,
                    error = fields::chain(&error),
                    "a stored step of a draw is not believed"
                );
                return Err(Refusal::Unavailable.into());
            }
        }
        Ok(chain)
    }

    /// Takes a step; `room` makes the room's next version of its last one and the draw.
    pub async fn take(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
        ask: Ask,
        room: impl Fn(Option<&Stored>) -> Result<Room, Refused>,
    ) -> Result<Taken, Refused> {
        for _ in 0..CONFLICTS_MAX {
            let stored = self.publisher.load(campaign, cohort).await?;
            let chain = self.chain(campaign, cohort).await?;
            let at = self.publisher.clock.wall();
            let (body, closed) = self.body(&chain, at, ask.clone()).await?;
            let mut draft = Draft::new(room(stored.as_ref())?, &self.publisher.clock);
            let number = self.sign(chain, at, body, &mut draft)?;
            let known = stored.as_ref().map(|stored| &stored.room.draw);
            if known.is_some_and(|known| !draft.room.draw.extends(known)) {
                // Steps vanished from the key space: a draw is never repeated.
                tracing::error!(campaign.id = %campaign, cohort = %cohort, "a room knows more of its draw than its steps");
                return Err(Refusal::Unavailable.into());
            }
            if let Some((closed, root)) = closed {
                close_into(&self.publisher, &mut draft, &closed, Some(root))?;
            }
            let texts = draft.once.clone();
            if let Some(stored) = self.publisher.write(stored.as_ref(), draft, None).await? {
                tracing::info!(
                    campaign.id = %campaign, cohort = %cohort, number, version = stored.room.version,
                    "step of a draw taken"
                );
                return Ok(Taken {
                    number,
                    stored,
                    texts,
                });
            }
        }
        Err(Refusal::Unavailable.into())
    }

    /// Signs the step into the draft.
    fn sign(
        &self,
        mut chain: Chain,
        at: Timestamp,
        body: Body,
        draft: &mut Draft,
    ) -> Result<u32, Refused> {
        let step = chain.next(at, body).map_err(refused)?;
        let text = step.sign(&*self.publisher.signer()?);
        chain
            .append(&step, Bytes32::sha256(&text))
            .map_err(refused)?;
        let room = &mut draft.room;
        room.draw = chain.draw().clone();
        let key = format!("{PREFIX}{}/{}/{}", room.campaign, room.cohort, step.number);
        draft.once.push((key, text));
        Ok(step.number)
    }

    /// What the step says, and the bucket that it closes.
    async fn body(
        &self,
        chain: &Chain,
        at: Timestamp,
        ask: Ask,
    ) -> Result<(Body, Option<(ClosedBucket, Bytes32)>), Refused> {
        let (campaign, cohort) = (chain.campaign(), chain.cohort());
        let body = match ask {
            Ask::Commit {
                beacon,
                second,
                reveal_by,
            } => {
                let commit = |seed_hash| {
                    Body::Commit(Commit {
                        seed_hash,
                        beacon: beacon.clone(),
                        second: second.clone(),
                        reveal_by,
                        code_version: format!("doseline {}", env!("CARGO_PKG_VERSION")),
                    })
                };
                // Before a seed is made: whoever is refused leaves nothing behind.
                chain.next(at, commit(Bytes32::ZERO)).map_err(refused)?;
                let seed = DrawSeed(rand::random());
                let kept = self.people.keep_seed(campaign, cohort, seed).await;
                commit(Bytes32::sha256(kept.map_err(unavailable)?.0))
            }
            Ask::Freeze => {
                let (body, closed) = self.freeze(chain, at).await?;
                return Ok((body, Some(closed)));
            }
            Ask::Reveal => {
                let seed = self.people.seed(campaign, cohort).await;
                let seed = seed.map_err(unavailable)?.map(|seed| Bytes32(seed.0));
                let missing =
                    || violation("the seed is not in the people store: wait until reveal_by");
                chain.reveal(at, seed).ok_or_else(missing)?
            }
            Ask::Beacon { named, value } => {
                let announced = chain.draw().commit.as_ref().map(|commit| {
                    let Announcement { source, round, .. } = commit.beacon.clone();
                    (source, round)
                });
                let (source, round) = named.or(announced).unwrap_or_default();
                Body::Beacon(Beacon {
                    source,
                    round,
                    value,
                })
            }
            Ask::Doors => {
                let early = || {
                    violation(
                        &BadStep::OutOfOrder {
                            expected: chain.expected().unwrap_or("nothing"),
                        }
                        .to_string(),
                    )
                };
                chain.doors().ok_or_else(early)?
            }
        };
        Ok((body, None))
    }

    /// Closes bucket 0.
    async fn freeze(
        &self,
        chain: &Chain,
        at: Timestamp,
    ) -> Result<(Body, (ClosedBucket, Bytes32)), Refused> {
        let (campaign, cohort) = (chain.campaign(), chain.cohort());
        // First without effect: a closed bucket can never be opened again.
        let nobody = Freeze {
            list_root: Bytes32::ZERO,
            n0: 0,
            regions: BTreeMap::new(),
        };
        chain.next(at, Body::Freeze(nobody)).map_err(refused)?;
        let closed = self.people.close_bucket(campaign, cohort, 0).await;
        let closed = closed.map_err(unavailable)?.ok_or(Refusal::Unavailable)?;
        let root = list_root(&*self.people, campaign, cohort, &closed).await?;
        let freeze = Freeze {
            list_root: root,
            n0: closed.size(),
            regions: closed.regions.clone(),
        };
        Ok((Body::Freeze(freeze), (closed, root)))
    }
}

/// Makes a closed bucket the room's last one.
pub(super) fn close_into(
    publisher: &Publisher,
    draft: &mut Draft,
    closed: &ClosedBucket,
    list_root: Option<Bytes32>,
) -> Result<BucketDocument, Refused> {
    let room = &mut draft.room;
    let document = BucketDocument {
        campaign: room.campaign.clone(),
        cohort: room.cohort.clone(),
        id: closed.id,
        before: closed.before,
        size: closed.size(),
        regions: closed.regions.clone(),
        list_root,
        prev_hash: room.last_bucket_hash,
    };
    let text = document.sign(&*publisher.signer()?);
    room.last_closed_bucket = Some(closed.id);
    room.last_bucket_hash = Some(Bytes32::sha256(&text));
    let key = bucket_key(&room.campaign, &room.cohort, closed.id);
    draft.once.push((key, text));
    Ok(document)
}

/// The root of a closed bucket's list of tickets.
pub(super) async fn list_root(
    people: &dyn People,
    campaign: &CampaignId,
    cohort: &CohortId,
    closed: &ClosedBucket,
) -> Result<Bytes32, Refused> {
    let tickets = people.tickets(campaign, cohort, closed.id).await;
    let tickets: Vec<DrawTicket> = tickets.map_err(unavailable)?;
    let mut list = ListBuilder::new();
    for ticket in &tickets {
        if let Err(error) = list.push(ticket) {
            tracing::error!(
                campaign.id = %campaign, cohort = %cohort, bucket = closed.id,
                error = fields::chain(&error),
                "a bucket has a ticket twice"
            );
            return Err(Refusal::Unavailable.into());
        }
    }
    let list = list.finish();
    if list.n != closed.size() {
        tracing::error!(
            campaign.id = %campaign, cohort = %cohort, bucket = closed.id,
            "a bucket's list is not as long as its count"
        );
        return Err(Refusal::Unavailable.into());
    }
    Ok(list.root)
}

/// The room's phase after a step.
#[must_use]
pub fn phase(number: u32) -> Phase {
    match number {
        0 | 1 => Phase::Lobby,
        2 | 3 => Phase::Frozen,
        4 => Phase::Drawn,
        _ => Phase::Open,
    }
}

/// Told where the caller looks for it: as a detail of the refusal.
pub(super) fn violation(problem: &str) -> Refused {
    Refused {
        violations: vec![("step".to_owned(), problem.to_owned())],
        ..Refusal::DrawStepRefused.into()
    }
}

fn refused(why: BadStep) -> Refused {
    violation(&why.to_string())
}

pub(crate) fn unavailable(fault: people::Fault) -> Refused {
    tracing::warn!(
        error = fields::chain(&fault),
        retry = "caller",
        "the people store was not read or written"
    );
    Refusal::Unavailable.into()
}
