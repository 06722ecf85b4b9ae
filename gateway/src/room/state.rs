//! The newest document of every room, verified, with the answer that carries it encoded once.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use domain::campaign::Campaign;
use domain::paseto::TrustedKeys;
use domain::permit::Permit;
use domain::room::{BucketDocument, Rejected, Room, Seen};
use domain::{RegionId, Timestamp};
use proto::convert::timestamp;
use proto::encoded::Encoded;
use proto::room::{GetRoomRequest, GetRoomResponse, WatchRoomResponse};
use runtime::Clock;
use runtime::keyspace::{Entry, Keyspace, Mirror};
use runtime::telemetry::LogLimit;
use runtime::trusted_keys::TrustedKeysFile;
use tokio::sync::watch;

use super::rules::{self, Rules};

const PREFIX: &str = "/doseline/room/";
const STEPS_PREFIX: &str = "/doseline/draw/";
const CAMPAIGNS_PREFIX: &str = "/doseline/campaign/";
/// A room is good for a second, so its answer's age may be up to that.
const ENCODED_FOR: Duration = Duration::from_secs(1);

static REJECTED: LogLimit = LogLimit::every(Duration::from_secs(10));

/// All rooms. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rooms(Arc<Inner>);

struct Inner {
    rooms: ArcSwap<HashMap<GetRoomRequest, Arc<RoomView>>>,
    rules: ArcSwap<HashMap<GetRoomRequest, Rules>>,
    permit_keys: TrustedKeysFile,
    room_keys: TrustedKeysFile,
    verify_places: bool,
    mirror: Mirror,
    steps: Mirror,
    campaigns: Mirror,
    changes: watch::Sender<u64>,
    clock: Clock,
}

/// One room as last heard.
pub(super) struct RoomView {
    pub(super) seen: Seen,
    document: String,
    revision: i64,
    /// By the monotonic clock: the frontier is followed from here.
    received: Instant,
    answer: ArcSwapOption<Answer>,
    watched: Encoded,
    /// People in the closed buckets that are known, by region.
    pub(super) by_region: BTreeMap<RegionId, u64>,
}

struct Answer {
    encoded: Encoded,
    at: Instant,
}

impl RoomView {
    fn copy(&self) -> Self {
        Self {
            seen: self.seen.clone(),
            document: self.document.clone(),
            revision: self.revision,
            received: self.received,
            answer: ArcSwapOption::new(self.answer.load_full()),
            watched: self.watched.clone(),
            by_region: self.by_region.clone(),
        }
    }
}

impl Rooms {
    pub(crate) fn new(
        keyspace: &Keyspace,
        permit_keys: TrustedKeysFile,
        room_keys: TrustedKeysFile,
        verify_places: bool,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            rooms: ArcSwap::default(),
            rules: ArcSwap::default(),
            permit_keys,
            room_keys,
            verify_places,
            mirror: keyspace.mirror(PREFIX),
            steps: keyspace.mirror(STEPS_PREFIX),
            campaigns: keyspace.mirror(CAMPAIGNS_PREFIX),
            changes: watch::Sender::new(0),
            clock,
        }))
    }

    /// A room's document, encoded.
    pub(crate) fn document(&self, request: &GetRoomRequest) -> Option<Encoded> {
        let rooms = self.0.rooms.load();
        let view = rooms.get(request)?;
        let now = self.0.clock.monotonic();
        if let Some(answer) = view.answer.load().as_ref()
            && now.saturating_duration_since(answer.at) < ENCODED_FOR
        {
            return Some(answer.encoded.clone());
        }
        let age = i64::try_from(self.age().as_micros()).unwrap_or(i64::MAX);
        let as_of = Timestamp::from_micros(self.0.clock.wall().as_micros().saturating_sub(age));
        let encoded = Encoded::of(&GetRoomResponse {
            document: view.document.clone(),
            as_of: Some(timestamp(as_of)),
        });
        view.answer.store(Some(Arc::new(Answer {
            encoded: encoded.clone(),
            at: now,
        })));
        Some(encoded)
    }

    /// Whether the holder of this permit is admitted by the room this gateway knows. Inventories decide; this says
    /// only whether asking one again can help.
    pub(crate) fn admits(&self, permit: &str) -> bool {
        let keys = self.0.permit_keys.current();
        let Ok(permit) = Permit::verify(&keys, permit, self.0.clock.wall()) else {
            return false;
        };
        self.of(&permit).is_some_and(|(room, _)| {
            let followed = self.followed(&room);
            let answer = room.seen.admitted(&permit.place, &permit.region, followed);
            answer.is_ok()
        })
    }

    /// The room of a permit, and what its campaign says about waiting.
    pub(super) fn of(&self, permit: &Permit) -> Option<(Arc<RoomView>, Rules)> {
        let id = request_of(permit.campaign.as_str(), permit.cohort.as_str());
        let rules = self.0.rules.load().get(&id).copied();
        Some((self.view(&id)?, rules.unwrap_or_default()))
    }

    pub(super) fn view(&self, id: &GetRoomRequest) -> Option<Arc<RoomView>> {
        self.0.rooms.load().get(id).cloned()
    }

    /// A room's document if it is newer than a version, encoded for those who watch.
    pub(super) fn newer(&self, id: &GetRoomRequest, than: u64) -> Option<(u64, Encoded)> {
        let view = self.view(id)?;
        let version = view.seen.room().version;
        (version > than).then(|| (version, view.watched.clone()))
    }

    /// Told at each change of any room.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The signed steps of a room's draw, in order.
    pub(super) fn steps(&self, id: &GetRoomRequest) -> Vec<String> {
        let prefix = format!("{STEPS_PREFIX}{}/{}/", id.campaign, id.cohort);
        let entries = self.0.steps.snapshot();
        let steps = entries
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix));
        steps
            .map(|(_, entry)| String::from_utf8_lossy(&entry.value).into_owned())
            .collect()
    }

    /// Rooms and buckets as they stand in the key space.
    pub(super) fn entries(&self) -> Arc<BTreeMap<String, Entry>> {
        self.0.mirror.snapshot()
    }

    /// For how long the key space may have changed without this being known.
    pub(crate) fn age(&self) -> Duration {
        self.0.mirror.stale_for()
    }

    /// The campaigns that can be read, by id.
    pub(crate) fn campaigns(&self) -> Vec<Campaign> {
        let entries = self.0.campaigns.snapshot();
        let read = |entry: &Entry| serde_json::from_slice(&entry.value).ok();
        entries.values().filter_map(read).collect()
    }

    pub(super) fn room_keys(&self) -> Arc<TrustedKeys> {
        self.0.room_keys.current()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.wall()
    }

    pub(super) fn followed(&self, room: &RoomView) -> Duration {
        let now = self.0.clock.monotonic();
        now.saturating_duration_since(room.received)
    }

    pub(super) fn permit(&self, text: &str) -> Result<Permit, domain::permit::Unusable> {
        let now = self.0.clock.wall();
        if self.0.verify_places {
            Permit::verify(&self.0.permit_keys.current(), text, now)
        } else {
            Permit::unverified(text, now)
        }
    }

    /// Takes what the key space says now.
    fn take(&self, entries: &BTreeMap<String, Entry>) {
        let before = self.0.rooms.load_full();
        let now = self.0.clock.monotonic();
        // Rooms whose key vanished stay: a cohort's room is closed by a document, not by its absence.
        let mut after = HashMap::clone(&before);
        for entry in entries.values() {
            let Some((campaign, cohort)) = entry
                .key
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once('/'))
            else {
                continue;
            };
            if cohort.contains('/') {
                continue;
            }
            let id = request_of(campaign, cohort);
            let known = before.get(&id);
            let newer = known.is_none_or(|known| known.revision < entry.mod_revision);
            let mut view = match known {
                Some(known) if !newer => known.copy(),
                known => match self.read(entry, &id, known.map(Arc::as_ref), now) {
                    Some(view) => view,
                    None => continue,
                },
            };
            if self.learn(&mut view, entries) || newer {
                after.insert(id, Arc::new(view));
            }
        }
        self.0.rooms.store(Arc::new(after));
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Takes the closed buckets of a room that are not known yet; says whether there were any.
    fn learn(&self, view: &mut RoomView, entries: &BTreeMap<String, Entry>) -> bool {
        let before = view.seen.buckets().len();
        let (campaign, cohort) = (&view.seen.room().campaign, &view.seen.room().cohort);
        let prefix = format!("{PREFIX}{campaign}/{cohort}/bucket/");
        // Ids have a fixed width, so that what is known need not be looked at again.
        let from = format!("{prefix}{before:010}");
        for (key, entry) in entries
            .range(from..)
            .take_while(|(key, _)| key.starts_with(&prefix))
        {
            let text = String::from_utf8_lossy(&entry.value);
            let why = match BucketDocument::verify(&self.0.room_keys.current(), &text) {
                Ok((bucket, hash)) => match view.seen.learn_bucket(&bucket, hash) {
                    Ok(()) => {
                        for (region, people) in bucket.regions {
                            *view.by_region.entry(region).or_default() += people;
                        }
                        continue;
                    }
                    // Its room document is still on the way.
                    Err(Rejected::BucketOpen) => break,
                    Err(why) => why.to_string(),
                },
                Err(why) => why.to_string(),
            };
            reject(key, &why);
            break;
        }
        view.seen.buckets().len() > before
    }

    fn read(
        &self,
        entry: &Entry,
        id: &GetRoomRequest,
        known: Option<&RoomView>,
        now: Instant,
    ) -> Option<RoomView> {
        let rejected = |why: &str| reject(&entry.key, why);
        let text = std::str::from_utf8(&entry.value)
            .map_err(|_| rejected("not UTF-8"))
            .ok()?;
        let room = Room::verify(&self.0.room_keys.current(), text)
            .map_err(|why| rejected(&why.to_string()))
            .ok()?;
        if room.campaign.as_str() != id.campaign || room.cohort.as_str() != id.cohort {
            rejected("it is another room's");
            return None;
        }
        let seen = match known {
            None => Seen::new(room, BTreeMap::new()),
            Some(known) => {
                let mut seen = known.seen.clone();
                let followed = now.saturating_duration_since(known.received);
                seen.replace(room, followed)
                    .map_err(|why| rejected(&why.to_string()))
                    .ok()?;
                seen
            }
        };
        Some(RoomView {
            seen,
            document: text.to_owned(),
            revision: entry.mod_revision,
            received: now,
            answer: ArcSwapOption::default(),
            watched: Encoded::of(&WatchRoomResponse {
                document: text.to_owned(),
            }),
            by_region: known
                .map(|known| known.by_region.clone())
                .unwrap_or_default(),
        })
    }
}

fn reject(key: &str, why: &str) {
    if let Some(suppressed) = REJECTED.pass() {
        tracing::error!(
            key,
            error = why,
            suppressed,
            "a room's document is not believed"
        );
    }
}

pub(super) fn request_of(campaign: &str, cohort: &str) -> GetRoomRequest {
    GetRoomRequest {
        campaign: campaign.to_owned(),
        cohort: cohort.to_owned(),
    }
}

/// Follows the rooms until it is dropped.
pub(crate) async fn watch_rooms(rooms: Rooms) -> Infallible {
    let mut mirror = rooms.0.mirror.clone();
    let mut campaigns = rooms.0.campaigns.clone();
    loop {
        if mirror.listed() {
            rooms.take(&mirror.snapshot());
        }
        let rules = rules::read(&campaigns.snapshot());
        rooms.0.rules.store(Arc::new(rules));
        tokio::select! {
            () = mirror.changed() => {}
            () = campaigns.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests;
