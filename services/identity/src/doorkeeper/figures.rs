//! What inventories show, gathered from all of them: the only thing that makes a line faster.

use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::headcount::Headcount;
use domain::{CampaignId, CohortId, Epoch, RegionId, ShardId, VaccineId, spread};
use futures::future::join_all;
use proto::inventory::inventory_service_client::InventoryServiceClient;
use proto::inventory::{GetFiguresRequest, GetFiguresResponse, RegionFigures};
use runtime::keyspace::{Keyspace, Mirror};
use runtime::secret::Secret;
use runtime::transport::{ClientSettings, ClientTls, connect, normalised};
use runtime::{Clock, fields};
use serde::Deserialize;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use super::spans::Spans;
use super::steer;
use crate::caller::INTERNAL_HEADER;
use crate::campaigns::Campaigns;

/// How often inventories are asked.
pub const EVERY: Duration = Duration::from_millis(250);
/// An answer from memory; whoever takes longer shows nothing this time.
const WITHIN: Duration = Duration::from_secs(1);
/// What a shard had left is believed for so long after its owner was heard: take-overs are shorter.
const SHARD_KEPT: Duration = Duration::from_secs(30);
/// Load that is older says nothing about now.
const LOAD_KEPT: Duration = Duration::from_secs(5);
/// Asks inventories, for as long as it is polled. Cheap to clone.
#[derive(Clone)]
pub struct Inventories {
    keyspace: Keyspace,
    tls: Option<ClientTls>,
    secret: MetadataValue<Ascii>,
    gathered: Gathered,
    clock: Clock,
}

/// The shared secret cannot travel in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared secret must be visible ASCII without blanks at its ends")]
pub struct NotAHeader;

/// Everything heard. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gathered(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    shards: BTreeMap<(RegionId, ShardId), Shard>,
    arrived: BTreeMap<(RegionId, CampaignId, CohortId), Headcount>,
    loads: BTreeMap<(String, RegionId), Spans<Load>>,
}

struct Shard {
    epoch: Epoch,
    heard: Instant,
    left: BTreeMap<VaccineId, u64>,
}

#[derive(Clone, Default)]
struct Load {
    ops: u64,
    failures: u64,
    queued: u64,
    commit_times: Vec<u64>,
}

/// The part of a member's value that is used here.
#[derive(Deserialize)]
struct Member {
    addr: String,
}

// === impl Inventories ===

impl Inventories {
    /// Nobody heard yet.
    pub fn new(
        keyspace: Keyspace,
        tls: Option<ClientTls>,
        secret: &Secret,
        clock: Clock,
    ) -> Result<Self, NotAHeader> {
        let text = secret.expose_str().map(str::trim);
        let text = text.filter(|text| !text.is_empty());
        let mut secret: MetadataValue<Ascii> =
            text.and_then(|text| text.parse().ok()).ok_or(NotAHeader)?;
        secret.set_sensitive(true);
        Ok(Self {
            keyspace,
            tls,
            secret,
            gathered: Gathered::default(),
            clock,
        })
    }

    /// What was heard.
    #[must_use]
    pub fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    /// Asks every living inventory of every region again and again, until it is dropped.
    pub async fn ask(self, campaigns: Campaigns) {
        let mut mirrors: BTreeMap<RegionId, Mirror> = BTreeMap::new();
        let mut channels: BTreeMap<String, Channel> = BTreeMap::new();
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            for campaign in campaigns.all().values() {
                for region in &campaign.campaign.regions {
                    mirrors.entry(region.clone()).or_insert_with(|| {
                        self.keyspace.mirror(&format!("/doseline/{region}/member/"))
                    });
                }
            }
            let snapshots = mirrors.values().map(Mirror::snapshot);
            let members = snapshots.flat_map(|entries| {
                let values = entries
                    .values()
                    .map(|entry| serde_json::from_slice::<Member>(&entry.value));
                values
                    .flatten()
                    .map(|member| member.addr)
                    .collect::<Vec<_>>()
            });
            let addrs: std::collections::BTreeSet<String> = members.collect();
            channels.retain(|addr, _| addrs.contains(addr));
            for addr in addrs {
                let Entry::Vacant(new) = channels.entry(addr) else {
                    continue;
                };
                match connect(new.key(), self.tls.clone(), &ClientSettings::default()) {
                    Ok(channel) => drop(new.insert(channel)),
                    Err(error) => tracing::warn!(
                        error = fields::chain(&error),
                        "an inventory announced an address that is none"
                    ),
                }
            }
            let asks = channels
                .iter()
                .map(|(addr, channel)| self.ask_one(addr, channel));
            join_all(asks).await;
        }
    }

    async fn ask_one(&self, addr: &str, channel: &Channel) {
        let mut request = Request::new(GetFiguresRequest {});
        request.set_timeout(WITHIN);
        request
            .metadata_mut()
            .insert(INTERNAL_HEADER, self.secret.clone());
        let mut client = InventoryServiceClient::new(channel.clone());
        let asked = tokio::time::timeout(WITHIN, client.get_figures(request)).await;
        match asked {
            Ok(Ok(answer)) => {
                let now = self.clock.monotonic();
                self.gathered.take(addr, answer.into_inner(), now);
            }
            Ok(Err(status)) => {
                let error = normalised(status);
                tracing::debug!(%error, "an inventory gave no figures");
            }
            Err(_) => tracing::debug!("an inventory gave no figures in time"),
        }
    }
}

// === impl Gathered ===

impl Gathered {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Entries are replaced whole: a panic elsewhere leaves none half made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one inventory's answer.
    pub fn take(&self, addr: &str, answer: GetFiguresResponse, now: Instant) {
        let mut heard = self.heard();
        for region in answer.regions {
            let Ok(id) = region.region.parse::<RegionId>() else {
                continue;
            };
            heard.take_shards(&id, &region, now);
            heard.take_rooms(&id, &region);
            heard.take_load(addr, id, region, now);
        }
    }

    /// What the regions of a room show, for those that were heard lately.
    #[must_use]
    pub fn of_room<'a>(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
        vaccines: impl Iterator<Item = &'a VaccineId> + Clone,
        regions: impl Iterator<Item = &'a RegionId>,
        now: Instant,
    ) -> BTreeMap<RegionId, steer::Figures> {
        let heard = self.heard();
        let mut all = BTreeMap::new();
        for region in regions {
            let shards = heard.shards.iter().filter(|((of, _), _)| of == region);
            let lately = |shard: &Shard| now.saturating_duration_since(shard.heard) < SHARD_KEPT;
            let shards: Vec<&Shard> = shards
                .map(|(_, shard)| shard)
                .filter(|shard| lately(shard))
                .collect();
            if shards.is_empty() {
                continue;
            }
            let left = shards.iter().map(|shard| {
                let of_vaccine = |vaccine| shard.left.get(vaccine).copied().unwrap_or(0);
                vaccines.clone().map(of_vaccine).sum::<u64>()
            });
            let key = (region.clone(), campaign.clone(), cohort.clone());
            let mut figures = heard.load_of(region, now);
            figures.left = left.sum();
            figures.arrived = heard.arrived.get(&key).map_or(0, Headcount::people);
            figures.unserved = figures.queued;
            all.insert(region.clone(), figures);
        }
        all
    }
}

// === impl Heard ===

impl Heard {
    fn take_shards(&mut self, region: &RegionId, figures: &RegionFigures, now: Instant) {
        for one in &figures.shards {
            let epoch = Epoch(one.epoch);
            let key = (region.clone(), ShardId(one.shard));
            if self
                .shards
                .get(&key)
                .is_some_and(|known| known.epoch > epoch)
            {
                continue;
            }
            let left = one.vaccines.iter().filter_map(|vaccine| {
                Some((vaccine.vaccine.parse::<VaccineId>().ok()?, vaccine.left))
            });
            let shard = Shard {
                epoch,
                heard: now,
                left: left.collect(),
            };
            self.shards.insert(key, shard);
        }
    }

    fn take_rooms(&mut self, region: &RegionId, figures: &RegionFigures) {
        for room in &figures.rooms {
            let (Ok(campaign), Ok(cohort)) = (room.campaign.parse(), room.cohort.parse()) else {
                continue;
            };
            if let Some(headcount) = Headcount::from_registers(&room.arrived) {
                let key = (region.clone(), campaign, cohort);
                self.arrived.entry(key).or_default().merge(&headcount);
            }
        }
    }

    fn take_load(&mut self, addr: &str, region: RegionId, figures: RegionFigures, now: Instant) {
        let load = Load {
            ops: figures.ops,
            failures: figures.failures,
            queued: figures.queue_depth,
            commit_times: figures.commit_times,
        };
        match self.loads.entry((addr.to_owned(), region)) {
            Entry::Vacant(new) => drop(new.insert(Spans::new(now, load))),
            Entry::Occupied(mut known) => {
                // A process that was started again counts from the beginning.
                let restarted = load.ops < known.get().last().ops;
                known.get_mut().note(now, load, restarted);
            }
        }
    }

    /// Queue, commit times and commits of a region in all processes together.
    fn load_of(&self, region: &RegionId, now: Instant) -> steer::Figures {
        let mut figures = steer::Figures::default();
        let mut classes: Vec<u64> = Vec::new();
        let loads = self.loads.iter().filter(|((_, of), _)| of == region);
        for (_, load) in loads {
            if load.age(now) > LOAD_KEPT {
                continue;
            }
            let (before, last, secs) = (load.before(), load.last(), load.secs());
            figures.queued += last.queued;
            if secs > 0.0 {
                figures.commits_per_second += (last.ops - before.ops) as f64 / secs;
            }
            // What was not committed for certain took as long as anything can.
            let failures = last.failures.saturating_sub(before.failures);
            let times = last.commit_times.iter().enumerate();
            classes.resize(classes.len().max(last.commit_times.len()), 0);
            for (at, count) in times {
                let old = before.commit_times.get(at).copied().unwrap_or(0);
                classes[at] += count.saturating_sub(old);
            }
            if let Some(longest) = classes.last_mut() {
                *longest += failures;
            }
        }
        figures.latency = spread::percentile_99(&classes);
        figures
    }
}

#[cfg(test)]
mod tests;
