//! Whether it is a person's turn, decided here, at the point of use, from this process's own verified copy of the room.
//!
//! Invariant: a frontier this process answered with never moves back, also not across a restart (`room_seen`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use domain::campaign::{BookingRules, Campaign};
use domain::permit::Permit;
use domain::room::{BucketDocument, Bytes32, Phase, Rejected, Room, Seen, bucket_key, room_key};
use domain::{CampaignId, CohortId, Refusal, RegionId, Timestamp};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use runtime::Clock;
use runtime::keyspace::{Entry, Mirror};
use runtime::trusted_keys::TrustedKeysFile;

use crate::ledger::{BucketSeen, RoomSeen};
use crate::metrics::RefusedDocuments;

/// Part of every bucket's key and of no room's.
const BUCKETS: &str = "/bucket/";

type RoomKey = (CampaignId, CohortId);

#[derive(Clone)]
struct RoomView {
    seen: Seen,
    document: String,
    received: Instant,
    /// From the ledger, not heard since.
    restored: bool,
}

/// What a booking needs of its campaign.
#[derive(Debug)]
pub struct CampaignView {
    /// Where it runs.
    pub regions: BTreeSet<RegionId>,
    /// What a booking must look like.
    pub rules: Arc<BookingRules>,
    /// Whose calendar and clock tell its days and hours.
    pub time_zone: TimeZone,
    /// The day of the last appointment.
    pub last_appointment: Date,
}

#[derive(Clone, Default)]
struct State {
    rooms: BTreeMap<RoomKey, RoomView>,
    campaigns: BTreeMap<CampaignId, Arc<CampaignView>>,
    /// The revision of each room's key that was looked at last.
    taken: BTreeMap<String, i64>,
}

/// Rooms and campaigns as this process knows them. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    state: Arc<ArcSwap<State>>,
    clock: Clock,
    refused: RefusedDocuments,
}

impl Admission {
    /// Nothing known yet: nobody is admitted.
    #[must_use]
    pub fn new(clock: Clock, refused: RefusedDocuments) -> Self {
        Self {
            state: Arc::default(),
            clock,
            refused,
        }
    }

    /// Starts from what earlier processes stored, so that a restart while etcd is away refuses nobody admitted.
    pub fn restore(
        &self,
        region: &RegionId,
        (rooms, buckets): (&[RoomSeen], &[BucketSeen]),
        keys: &TrustedKeysFile,
    ) {
        let mut state = State::clone(&self.state.load());
        for room in rooms {
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
                restored: true,
            };
            state.rooms.insert(key, view);
        }
        for bucket in buckets {
            let key = (bucket.campaign.clone(), bucket.cohort.clone());
            let view = state.rooms.get_mut(&key);
            let next =
                view.filter(|view| usize::try_from(bucket.id) == Ok(view.seen.buckets().len()));
            if let Some(view) = next
                && let Err(why) = learn(view, &bucket.document, keys)
            {
                tracing::warn!(campaign.id = %bucket.campaign, why, "a stored bucket was not believed");
            }
        }
        self.state.store(Arc::new(state));
    }

    /// Follows rooms and campaigns for as long as the process lives.
    pub async fn follow(self, mut rooms: Mirror, mut campaigns: Mirror, keys: TrustedKeysFile) {
        loop {
            self.take(&rooms.snapshot(), &campaigns.snapshot(), &keys);
            tokio::select! {
                () = rooms.changed() => {}
                () = campaigns.changed() => {}
            }
        }
    }

    fn take(
        &self,
        rooms: &BTreeMap<String, Entry>,
        campaigns: &BTreeMap<String, Entry>,
        keys: &TrustedKeysFile,
    ) {
        let mut state = State::clone(&self.state.load());
        for entry in without_buckets(rooms) {
            let key = &entry.key;
            // Looked at again only when it changes: what is wrong with it is told once.
            if state.taken.get(key) == Some(&entry.mod_revision) {
                continue;
            }
            state.taken.insert(key.clone(), entry.mod_revision);
            if let Err(why) = self.take_room(&mut state, entry, keys) {
                self.refused.refused(why);
                tracing::error!(key, why, "a room document was refused");
            }
        }
        let State {
            rooms: views,
            taken,
            ..
        } = &mut state;
        for view in views.values_mut() {
            for (key, entry) in new_buckets(view, rooms) {
                if taken.get(&key) == Some(&entry.mod_revision) {
                    break;
                }
                let text = String::from_utf8_lossy(&entry.value);
                match learn(view, &text, keys) {
                    Ok(()) => {}
                    // Its room document is still on the way; the next change offers it again.
                    Err(OPEN) => break,
                    Err(why) => {
                        self.refused.refused(why);
                        tracing::error!(key, why, "a bucket was refused");
                        taken.insert(key, entry.mod_revision);
                        break;
                    }
                }
            }
        }
        for entry in campaigns.values() {
            match serde_json::from_slice::<Campaign>(&entry.value) {
                Ok(Campaign {
                    campaign,
                    regions,
                    rules,
                    time_zone,
                    last_appointment,
                    ..
                }) => {
                    let Ok(time_zone) = TimeZone::get(&time_zone) else {
                        tracing::warn!(key = entry.key, "a campaign has a time zone that is none");
                        continue;
                    };
                    let view = CampaignView {
                        regions,
                        rules: Arc::new(rules),
                        time_zone,
                        last_appointment,
                    };
                    state.campaigns.insert(campaign, Arc::new(view));
                }
                Err(error) => {
                    tracing::warn!(key = entry.key, %error, "not a campaign document");
                }
            }
        }
        self.state.store(Arc::new(state));
    }

    fn take_room(
        &self,
        state: &mut State,
        entry: &Entry,
        keys: &TrustedKeysFile,
    ) -> Result<(), &'static str> {
        let text = String::from_utf8_lossy(&entry.value);
        let now = self.clock.monotonic();
        let room =
            Room::verify(&keys.current(), &text).map_err(|_| "not signed by a trusted key")?;
        if entry.key != room_key(&room.campaign, &room.cohort) {
            return Err("another room's");
        }
        let key = (room.campaign.clone(), room.cohort.clone());
        let Some(view) = state.rooms.get_mut(&key) else {
            let view = RoomView {
                seen: Seen::new(room, BTreeMap::new()),
                document: text.into_owned(),
                received: now,
                restored: false,
            };
            state.rooms.insert(key, view);
            return Ok(());
        };
        let elapsed = now.saturating_duration_since(view.received);
        if view.restored && view.document == *text {
            // The very document that was stored, whose line stood still since the restart: follow it again.
            let buckets = view.seen.buckets().clone();
            view.seen = Seen::new(room, view.seen.highest().clone()).with_buckets(buckets);
        } else {
            view.seen.replace(room, elapsed).map_err(reason)?;
            view.document = text.into_owned();
        }
        view.received = now;
        view.restored = false;
        Ok(())
    }

    /// A campaign, by its id.
    #[must_use]
    pub fn campaign_named(&self, campaign: &CampaignId) -> Option<Arc<CampaignView>> {
        self.state.load().campaigns.get(campaign).cloned()
    }

    /// The day that it is now by the calendar of each campaign of a region, in days since 1970-01-01.
    #[must_use]
    pub fn today(&self, region: &RegionId) -> BTreeMap<CampaignId, i32> {
        let state = self.state.load();
        let running = state
            .campaigns
            .iter()
            .filter(|(_, campaign)| campaign.regions.contains(region));
        running
            .filter_map(|(id, campaign)| {
                let day = day_at(&campaign.time_zone, self.clock.wall())?;
                Some((id.clone(), day))
            })
            .collect()
    }

    /// The closed buckets of a room that this process believes from `from` on, at most `limit`, as they stand in `rooms`.
    #[must_use]
    pub fn buckets_seen(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
        from: u32,
        limit: usize,
        rooms: &BTreeMap<String, Entry>,
    ) -> Vec<BucketSeen> {
        let state = self.state.load();
        let Some(view) = state.rooms.get(&(campaign.clone(), cohort.clone())) else {
            return Vec::new();
        };
        let ids = (from..).take(limit);
        let known = ids.map_while(|id| {
            let entry = rooms.get(&bucket_key(campaign, cohort, id))?;
            let document = String::from_utf8_lossy(&entry.value).into_owned();
            let believed = view.seen.buckets().hash(id) == Some(Bytes32::sha256(&document));
            believed.then(|| BucketSeen {
                campaign: campaign.clone(),
                cohort: cohort.clone(),
                id,
                document,
            })
        });
        known.collect()
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

/// The day it is somewhere, in days since 1970-01-01.
pub(crate) fn day_at(zone: &TimeZone, now: Timestamp) -> Option<i32> {
    let now = jiff::Timestamp::from_microsecond(now.as_micros()).ok()?;
    let day = zone.to_datetime(now).date();
    Some(day.since(jiff::civil::date(1970, 1, 1)).ok()?.get_days())
}

/// The documents of rooms, and not of their buckets, which may be a hundred thousand.
fn without_buckets(rooms: &BTreeMap<String, Entry>) -> impl Iterator<Item = &Entry> {
    let mut from = String::new();
    std::iter::from_fn(move || {
        loop {
            let (key, entry) = rooms.range(from.clone()..).next()?;
            let Some((room, _)) = key.split_once(BUCKETS) else {
                from = format!("{key}\0");
                return Some(entry);
            };
            // `0` is the character after `/`: on behind all buckets of this room.
            from = format!("{room}/bucket0");
        }
    })
}

/// The buckets of a room that are not known yet, in order.
fn new_buckets(view: &RoomView, rooms: &BTreeMap<String, Entry>) -> Vec<(String, Entry)> {
    let (campaign, cohort) = (&view.seen.room().campaign, &view.seen.room().cohort);
    let next = u32::try_from(view.seen.buckets().len()).unwrap_or(u32::MAX);
    let end = bucket_key(campaign, cohort, u32::MAX);
    let new = rooms.range(bucket_key(campaign, cohort, next)..=end);
    new.map(|(key, entry)| (key.clone(), entry.clone()))
        .collect()
}

fn learn(view: &mut RoomView, text: &str, keys: &TrustedKeysFile) -> Result<(), &'static str> {
    let (bucket, hash) =
        BucketDocument::verify(&keys.current(), text).map_err(|_| "not signed by a trusted key")?;
    view.seen.learn_bucket(&bucket, hash).map_err(reason)
}

/// Of a bucket that no room document has called closed yet.
const OPEN: &str = "the bucket is not closed yet";

fn reason(rejected: Rejected) -> &'static str {
    match rejected {
        Rejected::NotNewer => "an older version",
        Rejected::AnotherRoom => "another room's",
        Rejected::DrawChanged => "another draw",
        Rejected::PhaseBack => "the phase went back",
        Rejected::BucketChanged | Rejected::BucketGap => "a closed bucket changed",
        Rejected::BucketChain | Rejected::BucketSums => "the bucket does not fit",
        Rejected::BucketOpen => OPEN,
    }
}

/// The document with its lines at a standstill.
fn stopped(mut room: Room) -> Room {
    for line in room.regions.values_mut() {
        line.per_kilosecond = 0;
    }
    room
}

#[cfg(test)]
mod tests;
