//! What is simulated, and the room as it is right after its draw.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::room::draw::Draw;
use domain::room::{BucketDocument, Bytes32, Phase, Room, Seen};
use domain::{CampaignId, CohortId};
use identity::doorkeeper::steer::{self, Crowd, Rate, Settings, Steering, Tick};

use super::super::crowd::{self, Habits, Shares};

/// What is simulated.
#[derive(Clone, Debug)]
pub(in super::super) struct Scene {
    pub people: u32,
    pub late: u32,
    pub open_for_secs: u64,
    pub rate: f64,
    pub adaptive: bool,
    pub capacity: f64,
    pub supply: u64,
    pub habits: Habits,
    pub regions: Shares,
    pub polls_per_second: u64,
    pub seed: u64,
}

/// A region's inventories, as far as the doorkeeper sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct BackEnd {
    pub capacity: f64,
    pub credit: f64,
    pub queue: u64,
    pub left: u64,
    pub arrived: u64,
}

fn ids() -> (CampaignId, CohortId) {
    (
        "simulated".parse().expect("a slug"),
        "cohort".parse().expect("a slug"),
    )
}

fn settings(scene: &Scene) -> Settings {
    let rate = if scene.adaptive {
        Rate::Adaptive {
            start: scene.rate / 10.0,
            ceiling: scene.rate,
        }
    } else {
        Rate::Fixed(scene.rate)
    };
    Settings {
        rate,
        ttl: Duration::from_secs(10),
        presence: 1.0,
        latency_max: Duration::from_millis(500),
        queued_max: 100_000,
    }
}

// === impl BackEnd ===

impl BackEnd {
    pub(super) fn figures(&self) -> steer::Figures {
        steer::Figures {
            left: self.left,
            arrived: self.arrived,
            unserved: self.queue,
            queued: self.queue,
            latency: Duration::from_secs_f64(self.queue as f64 / self.capacity.max(1.0)),
            commits_per_second: self.capacity.min(self.arrived as f64),
        }
    }
}

/// The room right after the draw, and its doorkeeper.
pub(super) fn drawn_room(scene: &Scene, back_ends: &[BackEnd]) -> (Seen, Steering) {
    let (campaign, cohort) = ids();
    let mut room = Room::lobby(
        campaign,
        cohort,
        scene.regions.iter().map(|(region, _)| region.clone()),
    );
    room.phase = Phase::Drawn;
    room.draw = Draw {
        n0: Some(u64::from(scene.people)),
        final_seed: Some(Bytes32::sha256(scene.seed.to_be_bytes())),
        ..Draw::default()
    };
    room.last_closed_bucket = Some(0);
    for ((region, _), back_end) in scene.regions.iter().zip(back_ends) {
        if let Some(line) = room.regions.get_mut(region) {
            line.left = back_end.left;
        }
    }
    let mut regions = vec![0u64; scene.regions.len()];
    for number in 0..scene.people {
        let who = crowd::person(scene.seed, number, false, &scene.habits, &scene.regions);
        regions[usize::from(who.region)] += 1;
    }
    let mut seen = Seen::new(room.clone(), BTreeMap::new());
    let zero = bucket(scene, 0, &seen, u64::from(scene.people), &regions);
    let mut people = Crowd::default();
    assert!(people.push(&zero), "the first bucket");
    let steering = Steering::resume(settings(scene), &room, people, None);
    // What the doors will begin with tells those in front when to be there.
    let (_, plan) = steering.tick(&Tick {
        followed: Duration::ZERO,
        version: room.version,
        regions: BTreeMap::new(),
        gateways: Vec::new(),
    });
    room.regions = plan.regions;
    seen = Seen::new(room, BTreeMap::new()).with_buckets(seen.buckets().clone());
    seen.learn_bucket(&zero, Bytes32::ZERO)
        .expect("the first bucket");
    (seen, steering)
}

pub(super) fn bucket(
    scene: &Scene,
    id: u32,
    seen: &Seen,
    size: u64,
    regions: &[u64],
) -> BucketDocument {
    let (campaign, cohort) = ids();
    let named = scene.regions.iter().map(|(region, _)| region.clone());
    BucketDocument {
        campaign,
        cohort,
        id,
        before: seen.buckets().people(),
        size,
        regions: named.zip(regions.iter().copied()).collect(),
        list_root: None,
        prev_hash: seen.buckets().last_hash(),
    }
}
