//! Keeps one room for as long as this process is the doorkeeper.
//!
//! Invariants: at most four writes a second; every write expects the office and the room's revision; what could not be
//! written changes nothing here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::campaign::Cohort;
use domain::room::{BucketDocument, Bytes32, Phase, RegionState, Room, bucket_key, room_key};
use domain::{CampaignId, CohortId, Refusal};
use proto::status::Refused;
use runtime::telemetry::LogLimit;
use tokio_util::sync::CancellationToken;

use super::control::{self, Control, Rate};
use super::draw::{close_into, list_root, unavailable};
use super::elect::Office;
use super::publish::{Draft, Stored};
use super::steer::{Crowd, Plan, Settings, Steering, Tick};
use super::{Parts, closing, lines, schedule};
use crate::campaigns::InForce;
use crate::people::ClosedBucket;

/// A room is looked at, and written, at most this often.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

static FAILING: LogLimit = LogLimit::every(Duration::from_secs(10));

/// One room.
pub(super) struct Keeper {
    parts: Arc<Parts>,
    office: Office,
    /// Cancelled when the office is lost.
    over: CancellationToken,
    campaign: CampaignId,
    cohort: CohortId,
    stored: Option<Stored>,
    crowd: Crowd,
    steering: Option<Steering>,
    /// Since when the plan in force is followed, as the steering counts.
    since: Instant,
    /// When the open bucket was looked at last.
    looked: Option<Instant>,
}

/// A bucket closed in the people store that nobody was told of yet.
type Closed = (ClosedBucket, Bytes32);

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(
        parts: Arc<Parts>,
        (office, over): (Office, CancellationToken),
        (campaign, cohort): (CampaignId, CohortId),
    ) -> Self {
        let since = parts.clock.monotonic();
        Self {
            parts,
            office,
            over,
            campaign,
            cohort,
            stored: None,
            crowd: Crowd::default(),
            steering: None,
            since,
            looked: None,
        }
    }

    /// Until the office is lost.
    pub(super) async fn run(mut self) {
        let over = self.over.clone();
        let mut every = tokio::time::interval(TICK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                _ = every.tick() => {}
            }
            if let Err(refused) = self.round().await {
                // Whatever was written or not: read it again.
                self.stored = None;
                if let Some(suppressed) = FAILING.pass() {
                    tracing::warn!(
                        campaign.id = %self.campaign, cohort = %self.cohort, suppressed,
                        refusal = refused.refusal.code(), details = ?refused.violations,
                        "a room could not be kept; trying again"
                    );
                }
                tokio::select! {
                    () = over.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), Refused> {
        let Some(campaign) = self.parts.campaigns.get(&self.campaign) else {
            return Ok(());
        };
        let mut cohorts = campaign.campaign.cohorts.iter();
        let Some(cohort) = cohorts.find(|known| known.cohort == self.cohort) else {
            return Ok(());
        };
        self.refresh().await?;
        let Some(stored) = &self.stored else {
            let regions = campaign.campaign.regions.iter().cloned();
            let lobby = Room::lobby(self.campaign.clone(), self.cohort.clone(), regions);
            return self.write(lobby, Vec::new()).await.map(drop);
        };
        if stored.lost {
            return self.put_back(&campaign).await;
        }
        let phase = stored.room.phase;
        if self.parts.clock.wall() >= campaign.end {
            return self.end(&campaign).await;
        }
        if self.scheduled(cohort).await? {
            self.stored = None;
            return Ok(());
        }
        match phase {
            Phase::Open | Phase::Exhausted | Phase::Paused => self.keep_open(&campaign).await,
            Phase::Drawn => self.foretell(&campaign).await,
            Phase::Lobby | Phase::Frozen | Phase::Ended => Ok(()),
        }
    }

    /// Reads the room again if somebody else wrote it.
    async fn refresh(&mut self) -> Result<(), Refused> {
        let key = room_key(&self.campaign, &self.cohort);
        let seen = self.parts.rooms.snapshot();
        let revision = seen.get(&key).map_or(0, |entry| entry.mod_revision);
        let known = self.stored.as_ref().map_or(-1, |stored| stored.revision);
        // A copy that is a moment behind shows an older revision; one that shows none may mean that the key is gone.
        if known >= revision && !(revision == 0 && known > 0) {
            return Ok(());
        }
        let load = self.parts.publisher.load(&self.campaign, &self.cohort);
        self.stored = load.await?;
        self.steering = None;
        self.since = self.parts.clock.monotonic();
        Ok(())
    }

    /// Takes the next step of the draw if the campaign says that it is time.
    async fn scheduled(&self, cohort: &Cohort) -> Result<bool, Refused> {
        let (Some(schedule), Some(stored)) = (&cohort.draw, &self.stored) else {
            return Ok(false);
        };
        let now = self.parts.clock.wall();
        let Some(ask) = schedule::due(schedule, cohort.opens_at, &stored.room, now) else {
            return Ok(false);
        };
        let room = (&self.campaign, &self.cohort);
        self.parts.operators.step(room, ask).await.map(|_| true)
    }

    /// The key space lost the newest version: its successor, every line at a standstill, takes the place of what is there.
    async fn put_back(&mut self, campaign: &InForce) -> Result<(), Refused> {
        let Some(stored) = &self.stored else {
            return Ok(());
        };
        let mut room = lines::successor(&stored.room, &stored.text, &campaign.campaign.regions);
        lines::halt(&mut room, &stored.room, stored.followed(&self.parts.clock));
        self.parts.metrics.room_put_back();
        self.write(room, Vec::new()).await.map(drop)
    }

    async fn end(&mut self, campaign: &InForce) -> Result<(), Refused> {
        let Some(stored) = self
            .stored
            .as_ref()
            .filter(|it| it.room.phase != Phase::Ended)
        else {
            return Ok(());
        };
        let mut room = lines::successor(&stored.room, &stored.text, &campaign.campaign.regions);
        lines::halt(&mut room, &stored.room, stored.followed(&self.parts.clock));
        room.phase = Phase::Ended;
        room.reason = "the last appointment has passed".to_owned();
        self.write(room, Vec::new()).await.map(drop)
    }

    /// Once the order is known, publishes how fast lines will move: who stands in front is told to be there when the
    /// doors open, the others when it is worth asking. Nobody is admitted by it.
    async fn foretell(&mut self, campaign: &InForce) -> Result<(), Refused> {
        self.learn_buckets()?;
        let (Some(stored), control) = (self.stored.clone(), self.control()) else {
            return Ok(());
        };
        if control.rate == Rate::AtOnce {
            return Ok(());
        }
        let mut room = lines::successor(&stored.room, &stored.text, &campaign.campaign.regions);
        let mut opened = room.clone();
        let crowd = self.crowd.clone();
        self.steer(&mut opened, &crowd, campaign, control.rate, control);
        let mut news = false;
        for (region, line) in &mut room.regions {
            let foretold = opened.regions.get(region).map(|line| &line.promise);
            let foretold = foretold.filter(|told| told.per_kilosecond > 0);
            if let Some(foretold) = foretold.filter(|_| line.promise.per_kilosecond == 0) {
                line.promise = foretold.clone();
                news = true;
            }
        }
        if news {
            self.write(room, Vec::new()).await?;
        }
        Ok(())
    }

    /// Buckets and lines of a room whose doors have been opened.
    async fn keep_open(&mut self, campaign: &InForce) -> Result<(), Refused> {
        self.learn_buckets()?;
        let closed = self.close(campaign).await;
        // The line goes on when the people store is away.
        let closed = closed.unwrap_or_else(|refused| {
            if let Some(suppressed) = FAILING.pass() {
                tracing::warn!(
                    refusal = refused.refusal.code(),
                    suppressed,
                    "a bucket could not be closed yet"
                );
            }
            None
        });
        let Some(stored) = self.stored.clone() else {
            return Ok(());
        };
        let room = lines::successor(&stored.room, &stored.text, &campaign.campaign.regions);
        let mut draft = Draft::new(room, &self.parts.clock);
        let mut crowd = self.crowd.clone();
        if let Some((bucket, root)) = &closed {
            let document = close_into(&self.parts.publisher, &mut draft, bucket, Some(*root))?;
            crowd.push(&document);
        }
        let control = self.control();
        let steering = match (stored.room.phase, control.rate) {
            (Phase::Paused, _) => None,
            (_, Rate::AtOnce) => {
                self.let_everybody_in(&mut draft.room, &crowd, campaign);
                None
            }
            (_, rate) => Some(self.steer(&mut draft.room, &crowd, campaign, rate, control)),
        };
        let since = self
            .parts
            .clock
            .monotonic()
            .saturating_duration_since(self.since);
        let worth = closed.is_some() || lines::worth_writing(&stored.room, &draft.room, since);
        if !worth {
            return Ok(());
        }
        let began = draft.began();
        let written = self
            .parts
            .publisher
            .write(Some(&stored), draft, Some(&self.office))
            .await?;
        let Some(written) = written else {
            self.stored = None;
            self.check_office().await;
            return Ok(());
        };
        self.parts.metrics.room_written(closed.is_some());
        self.stored = Some(written);
        self.crowd = crowd;
        self.since = began;
        self.steering = steering;
        Ok(())
    }

    fn control(&self) -> Control {
        let key = control::key(&self.campaign, &self.cohort);
        let entries = self.parts.controls.snapshot();
        entries
            .get(&key)
            .map(|entry| Control::read(&key, &entry.value))
            .unwrap_or_default()
    }

    /// Learns the closed buckets that the room's document speaks of, in order.
    fn learn_buckets(&mut self) -> Result<(), Refused> {
        let last = self
            .stored
            .as_ref()
            .and_then(|stored| stored.room.last_closed_bucket);
        let wanted = last.map_or(0, |last| u64::from(last) + 1);
        let keys = self.parts.publisher.keys.current().trusted();
        let entries = self.parts.rooms.snapshot();
        while (self.crowd.buckets() as u64) < wanted {
            let id = u32::try_from(self.crowd.buckets()).unwrap_or(u32::MAX);
            let key = bucket_key(&self.campaign, &self.cohort, id);
            // A moment behind the document that names it.
            let entry = entries.get(&key).ok_or(Refusal::Unavailable)?;
            let text = String::from_utf8_lossy(&entry.value);
            let believed = BucketDocument::verify(&keys, &text);
            let fits = believed.is_ok_and(|(document, _)| self.crowd.push(&document));
            if !fits {
                tracing::error!(key, "a stored bucket is not believed");
                return Err(Refusal::Unavailable.into());
            }
            self.steering = None;
        }
        Ok(())
    }

    /// Closes the open bucket if it is time.
    async fn close(&mut self, campaign: &InForce) -> Result<Option<Closed>, Refused> {
        let now = self.parts.clock.monotonic();
        let early = |then| now.saturating_duration_since(then) < closing::EVERY;
        let room = self.stored.as_ref().map(|stored| &stored.room);
        let Some((room, last)) = room.and_then(|room| Some((room, room.last_closed_bucket?)))
        else {
            return Ok(None);
        };
        if self.looked.is_some_and(early) {
            return Ok(None);
        }
        self.looked = Some(now);
        let (people, rules) = (&self.parts.people, &campaign.campaign.room);
        let most = u64::from(rules.bucket_size);
        let open = people.open_bucket(&self.campaign, &self.cohort, most).await;
        let Some(open) = open.map_err(unavailable)? else {
            return Ok(None);
        };
        let at_once = self.control().rate == Rate::AtOnce;
        let empty = at_once || closing::line_empty(room, self.crowd.total());
        if !closing::due(&open, last, rules, empty) {
            return Ok(None);
        }
        let closed = people
            .close_bucket(&self.campaign, &self.cohort, last + 1)
            .await;
        let closed = closed.map_err(unavailable)?.ok_or(Refusal::Unavailable)?;
        let root = list_root(&**people, &self.campaign, &self.cohort, &closed).await?;
        Ok(Some((closed, root)))
    }

    fn let_everybody_in(&self, room: &mut Room, crowd: &Crowd, campaign: &InForce) {
        lines::at_once(room, crowd.total(), self.parts.settings.ttl);
        let figures = self.figures(campaign);
        for (region, line) in &mut room.regions {
            if let Some(figures) = figures.get(region) {
                line.left = figures.left;
                if figures.left == 0 {
                    line.state = RegionState::Exhausted;
                }
            }
        }
    }

    fn figures(
        &self,
        campaign: &InForce,
    ) -> std::collections::BTreeMap<domain::RegionId, super::steer::Figures> {
        let vaccines = campaign.campaign.rules.vaccines.iter();
        let regions = campaign.campaign.regions.iter();
        let now = self.parts.clock.monotonic();
        let room = (&self.campaign, &self.cohort);
        self.parts.gathered.of_room(room, vaccines, regions, now)
    }

    /// The next plan; the steering counts only once it is written.
    fn steer(
        &self,
        room: &mut Room,
        crowd: &Crowd,
        campaign: &InForce,
        rate: Rate,
        control: Control,
    ) -> Steering {
        let settings = self.parts.settings.with(rate, control);
        let now = self.parts.clock.monotonic();
        let (mut steering, followed) = match &self.steering {
            Some(known) => (known.clone(), now.saturating_duration_since(self.since)),
            None => (self.resume(settings, room), Duration::ZERO),
        };
        steering.set(settings);
        *steering.crowd() = crowd.clone();
        let tick = Tick {
            followed,
            version: room.version,
            regions: self.figures(campaign),
            gateways: self.parts.reports.lately(now),
        };
        let (
            next,
            Plan {
                mut regions,
                exhausted,
                basis,
            },
        ) = steering.tick(&tick);
        for (region, line) in &mut regions {
            let known = room.regions.get(region);
            // Nobody has said yet what is left there: that is not the same as nothing.
            let unheard = !tick.regions.contains_key(region) && line.left == 0;
            if unheard && known.is_some_and(|old| old.state == RegionState::Open) {
                line.state = RegionState::Open;
            }
        }
        self.parts.metrics.steered(&basis);
        let heard_out = regions
            .values()
            .any(|line| line.state == RegionState::Exhausted);
        room.phase = if exhausted && heard_out {
            Phase::Exhausted
        } else {
            Phase::Open
        };
        room.regions = regions;
        next
    }

    fn resume(&self, settings: Settings, room: &Room) -> Steering {
        let stored = self.stored.as_ref();
        let followed = stored.and_then(|stored| stored.followed(&self.parts.clock));
        // With the phase that readers followed, and the lines of regions that have just joined.
        let phase = stored.map_or(room.phase, |stored| stored.room.phase);
        let mut old = room.clone();
        old.phase = phase;
        Steering::resume(settings, &old, self.crowd.clone(), followed)
    }

    async fn write(&mut self, room: Room, once: Vec<(String, String)>) -> Result<bool, Refused> {
        let mut draft = Draft::new(room, &self.parts.clock);
        draft.once = once;
        let old = self.stored.take();
        self.since = self.parts.clock.monotonic();
        let write = self
            .parts
            .publisher
            .write(old.as_ref(), draft, Some(&self.office));
        self.stored = write.await?;
        self.steering = None;
        if self.stored.is_none() {
            self.check_office().await;
        }
        Ok(self.stored.is_some())
    }

    /// After a write that somebody else was faster than: was it the office?
    async fn check_office(&self) {
        let keyspace = &self.parts.publisher.keyspace;
        if super::elect::absent(keyspace, &self.office).await {
            self.over.cancel();
        }
    }
}

/// The rooms of a campaign, to be told from the keys of their buckets.
pub(super) fn rooms_of(campaign: &InForce) -> impl Iterator<Item = (CampaignId, CohortId)> {
    let id = &campaign.campaign.campaign;
    let cohorts = campaign.campaign.cohorts.iter();
    cohorts.map(|cohort| (id.clone(), cohort.cohort.clone()))
}
