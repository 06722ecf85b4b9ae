//! Whether it is a person's turn, decided here, at the point of use, from this process's own verified copy of the room.
//!
//! Invariant: a frontier this process answered with never moves back, also not across a restart (`room_seen`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use domain::campaign::{BookingRules, Campaign};
use domain::permit::Permit;
use domain::room::{BucketDocument, Phase, Rejected, Room, Seen};
use domain::{CampaignId, CohortId, Refusal, RegionId};
use runtime::Clock;
use runtime::keyspace::{Entry, Keyspace, Mirror};
use runtime::trusted_keys::TrustedKeysFile;

use crate::ledger::RoomSeen;

/// Part of every bucket's key and of no room's.
const BUCKETS: &str = "/bucket/";

type RoomKey = (CampaignId, CohortId);

#[derive(Clone)]
struct RoomView {
    seen: Seen,
    document: String,
    received: Instant,
}

/// What a booking needs of its campaign.
#[derive(Debug)]
pub struct CampaignView {
    /// Where it runs.
    pub regions: BTreeSet<RegionId>,
    /// What a booking must look like.
    pub rules: Arc<BookingRules>,
}

#[derive(Clone, Default)]
struct State {
    rooms: BTreeMap<RoomKey, RoomView>,
    campaigns: BTreeMap<CampaignId, Arc<CampaignView>>,
}

/// Rooms and campaigns as this process knows them. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    state: Arc<ArcSwap<State>>,
    clock: Clock,
}

impl Admission {
    /// Nothing known yet: nobody is admitted.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            clock,
        }
    }

    /// Starts from what earlier processes stored, so that a restart while etcd is away refuses nobody admitted.
    pub fn restore(&self, region: &RegionId, stored: &[RoomSeen], keys: &TrustedKeysFile) {
        let mut state = State::clone(&self.state.load());
        for room in stored {
            let Ok(document) = Room::verify(&keys.current(), &room.document) else {
                tracing::warn!(campaign.id = %room.campaign, "a stored room was not signed by a trusted key");
                continue;
            };
            let key = (room.campaign.clone(), room.cohort.clone());
            let known = state.rooms.get(&key);
            let mut highest = known
                .map(|view| view.seen.highest().clone())
                .unwrap_or_default();
            let mine = highest.entry(region.clone()).or_default();
            *mine = room.frontier.max(*mine);
            let newest = known.filter(|view| view.seen.room().version >= document.version);
            let (document, text) = newest.map_or((document, room.document.clone()), |view| {
                (view.seen.room().clone(), view.document.clone())
            });
            let buckets = known
                .map(|view| view.seen.buckets().clone())
                .unwrap_or_default();
            let view = RoomView {
                // What a line reached since it was stored is not known; it starts again from what was stored.
                seen: Seen::new(stopped(document), highest).with_buckets(buckets),
                document: text,
                received: self.clock.monotonic(),
            };
            state.rooms.insert(key, view);
        }
        self.state.store(Arc::new(state));
    }

    /// Follows rooms and campaigns for as long as the process lives.
    pub async fn follow(self, keyspace: Keyspace, keys: TrustedKeysFile) {
        let mut rooms = keyspace.mirror("/doseline/room/");
        let mut campaigns = keyspace.mirror("/doseline/campaign/");
        loop {
            self.take(&rooms, &campaigns, &keys);
            tokio::select! {
                () = rooms.changed() => {}
                () = campaigns.changed() => {}
            }
        }
    }

    fn take(&self, rooms: &Mirror, campaigns: &Mirror, keys: &TrustedKeysFile) {
        let mut state = State::clone(&self.state.load());
        let rooms = rooms.snapshot();
        for entry in rooms.values().filter(|entry| !entry.key.contains(BUCKETS)) {
            self.take_room(&mut state, entry, keys);
        }
        // After all rooms: a bucket is believed once its room calls it closed.
        for entry in rooms.values().filter(|entry| entry.key.contains(BUCKETS)) {
            take_bucket(&mut state, entry, keys);
        }
        for entry in campaigns.snapshot().values() {
            match serde_json::from_slice::<Campaign>(&entry.value) {
                Ok(Campaign {
                    campaign,
                    regions,
                    rules,
                    ..
                }) => {
                    let view = CampaignView {
                        regions,
                        rules: Arc::new(rules),
                    };
                    state.campaigns.insert(campaign, Arc::new(view));
                }
                Err(error) => tracing::warn!(key = entry.key, %error, "not a campaign document"),
            }
        }
        self.state.store(Arc::new(state));
    }

    fn take_room(&self, state: &mut State, entry: &Entry, keys: &TrustedKeysFile) {
        let text = String::from_utf8_lossy(&entry.value);
        let now = self.clock.monotonic();
        let room = match Room::verify(&keys.current(), &text) {
            Ok(room) => room,
            Err(error) => {
                tracing::warn!(key = entry.key, %error, "a room document was not believed");
                return;
            }
        };
        let key = (room.campaign.clone(), room.cohort.clone());
        match state.rooms.get_mut(&key) {
            None => {
                let seen = Seen::new(room, BTreeMap::new());
                state.rooms.insert(
                    key,
                    RoomView {
                        seen,
                        document: text.into_owned(),
                        received: now,
                    },
                );
            }
            Some(view) if room.version > view.seen.room().version => {
                let elapsed = now.saturating_duration_since(view.received);
                match view.seen.replace(room, elapsed) {
                    Ok(()) => {
                        view.received = now;
                        view.document = text.into_owned();
                    }
                    Err(error) => {
                        tracing::error!(key = entry.key, %error, "a room document was refused")
                    }
                }
            }
            // After a restart the stored copy has the same version, stopped: follow the line again.
            Some(view) if room.version == view.seen.room().version => {
                if *view.seen.room() != room {
                    let buckets = view.seen.buckets().clone();
                    view.seen = Seen::new(room, view.seen.highest().clone()).with_buckets(buckets);
                    view.received = now;
                }
            }
            Some(_) => {}
        }
    }

    /// The campaign of a permit, if it runs in the region.
    pub fn campaign(&self, permit: &Permit) -> Result<Arc<CampaignView>, Refusal> {
        let state = self.state.load();
        let campaign = state
            .campaigns
            .get(&permit.campaign)
            .ok_or(Refusal::CampaignUnknown)?;
        if campaign.regions.contains(&permit.region) {
            Ok(Arc::clone(campaign))
        } else {
            Err(Refusal::RegionNotInCampaign)
        }
    }

    /// Whether it is the permit holder's turn now.
    pub fn check(&self, permit: &Permit) -> Result<(), Refusal> {
        let state = self.state.load();
        let key = (permit.campaign.clone(), permit.cohort.clone());
        let view = state.rooms.get(&key).ok_or(Refusal::NotAdmitted)?;
        let elapsed = self
            .clock
            .monotonic()
            .saturating_duration_since(view.received);
        view.seen.admitted(&permit.place, &permit.region, elapsed)
    }

    /// Whether the cohort's time for changes is over (cancelling is always allowed).
    #[must_use]
    pub fn ended(&self, permit: &Permit) -> bool {
        let key = (permit.campaign.clone(), permit.cohort.clone());
        let state = self.state.load();
        state
            .rooms
            .get(&key)
            .is_some_and(|view| view.seen.room().phase == Phase::Ended)
    }

    /// What is to be stored in a region's ledger now.
    #[must_use]
    pub fn seen(&self, region: &RegionId) -> Vec<RoomSeen> {
        let now = self.clock.monotonic();
        let state = self.state.load();
        let rooms = state.rooms.iter().map(|((campaign, cohort), view)| {
            let elapsed = now.saturating_duration_since(view.received);
            let open = matches!(view.seen.room().phase, Phase::Open | Phase::Exhausted);
            let stored = view.seen.highest().get(region).copied().unwrap_or(0);
            let reached = view
                .seen
                .frontier(region, elapsed)
                .filter(|_| open)
                .unwrap_or(stored);
            RoomSeen {
                campaign: campaign.clone(),
                cohort: cohort.clone(),
                version: view.seen.room().version,
                document: view.document.clone(),
                frontier: reached.max(stored),
            }
        });
        rooms.collect()
    }
}

/// Takes a closed bucket. Those of one room come in the order of their ids: keys have a fixed width.
fn take_bucket(state: &mut State, entry: &Entry, keys: &TrustedKeysFile) {
    let known = entry
        .key
        .rsplit_once('/')
        .and_then(|(_, id)| id.parse::<u32>().ok());
    let Some(id) = known else { return };
    let text = String::from_utf8_lossy(&entry.value);
    let unknown = |view: &&mut RoomView| {
        let (campaign, cohort) = (&view.seen.room().campaign, &view.seen.room().cohort);
        let mine = domain::room::bucket_key(campaign, cohort, id) == entry.key;
        mine && view.seen.buckets().get(id).is_none()
    };
    let Some(view) = state.rooms.values_mut().find(unknown) else {
        return;
    };
    let (bucket, hash) = match BucketDocument::verify(&keys.current(), &text) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(key = entry.key, %error, "a bucket was not believed");
            return;
        }
    };
    match view.seen.learn_bucket(&bucket, hash) {
        // Its room document is still on the way; the next change offers it again.
        Ok(()) | Err(Rejected::BucketOpen) => {}
        Err(error) => tracing::error!(key = entry.key, %error, "a bucket was refused"),
    }
}

/// The document with its lines at a standstill.
fn stopped(mut room: Room) -> Room {
    for line in room.regions.values_mut() {
        line.per_kilosecond = 0;
    }
    room
}
