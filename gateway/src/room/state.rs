//! The newest document of every room, verified, with the answer that carries it encoded once.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use domain::permit::Permit;
use domain::room::{BucketDocument, Rejected, Room, Seen};
use domain::{RegionId, Timestamp};
use proto::convert::timestamp;
use proto::encoded::Encoded;
use proto::room::{GetRoomRequest, GetRoomResponse};
use runtime::Clock;
use runtime::keyspace::{Entry, Keyspace, Mirror};
use runtime::telemetry::LogLimit;
use runtime::trusted_keys::TrustedKeysFile;

const PREFIX: &str = "/doseline/room/";
/// A room is good for a second, so its answer's age may be up to that.
const ENCODED_FOR: Duration = Duration::from_secs(1);

static REJECTED: LogLimit = LogLimit::every(Duration::from_secs(10));

/// All rooms. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rooms(Arc<Inner>);

struct Inner {
    rooms: ArcSwap<HashMap<GetRoomRequest, Arc<RoomView>>>,
    permit_keys: TrustedKeysFile,
    room_keys: TrustedKeysFile,
    mirror: Mirror,
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
        }
    }
}

impl Rooms {
    pub(crate) fn new(
        keyspace: &Keyspace,
        permit_keys: TrustedKeysFile,
        room_keys: TrustedKeysFile,
        clock: Clock,
    ) -> Self {
        let mirror = keyspace.mirror(PREFIX);
        Self(Arc::new(Inner {
            rooms: ArcSwap::default(),
            permit_keys,
            room_keys,
            mirror,
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
        let age = i64::try_from(self.0.mirror.stale_for().as_micros()).unwrap_or(i64::MAX);
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
        self.of(&permit).is_some_and(|room| {
            let followed = self.followed(&room);
            let answer = room.seen.admitted(&permit.place, &permit.region, followed);
            answer.is_ok()
        })
    }

    pub(super) fn of(&self, permit: &Permit) -> Option<Arc<RoomView>> {
        self.0
            .rooms
            .load()
            .get(&request_of(
                permit.campaign.as_str(),
                permit.cohort.as_str(),
            ))
            .cloned()
    }

    /// The frontier of a region now.
    pub(super) fn frontier(&self, room: &RoomView, region: &RegionId) -> Option<u64> {
        room.seen.frontier(region, self.followed(room))
    }

    fn followed(&self, room: &RoomView) -> Duration {
        let now = self.0.clock.monotonic();
        now.saturating_duration_since(room.received)
    }

    pub(super) fn permit(&self, text: &str) -> Result<Permit, domain::permit::Unusable> {
        Permit::verify(&self.0.permit_keys.current(), text, self.0.clock.wall())
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
                    Ok(()) => continue,
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

fn request_of(campaign: &str, cohort: &str) -> GetRoomRequest {
    GetRoomRequest {
        campaign: campaign.to_owned(),
        cohort: cohort.to_owned(),
    }
}

/// Follows the rooms until it is dropped.
pub(crate) async fn watch_rooms(rooms: Rooms) -> Infallible {
    let mut mirror = rooms.0.mirror.clone();
    loop {
        if mirror.listed() {
            rooms.take(&mirror.snapshot());
        }
        mirror.changed().await;
    }
}

#[cfg(test)]
mod tests;
