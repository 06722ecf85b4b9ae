//! What the board says, as data: read from the rooms and the supply figures that the public API answers from.

use std::time::Duration;

use domain::campaign::Campaign;
use domain::{RegionId, Timestamp};
use futures::future::join_all;
use jiff::tz::TimeZone;
use prost::Message as _;
use proto::availability::{GetSupplyRequest, GetSupplyResponse, Supply as Figures, SupplyLevel};
use proto::convert::from_timestamp;
use runtime::Clock;
use tokio::time::Instant;

use crate::availability::Supply;
use crate::room::{CohortStanding, Rooms};

/// A region that does not answer must not hold up the others' second.
const SUPPLY_WITHIN: Duration = Duration::from_millis(800);

/// Everything that one rendering says.
#[derive(Debug)]
pub(super) struct Facts {
    /// When it was read, by the server's clock.
    pub(super) now: Timestamp,
    /// As old as the oldest of the rooms' figures.
    pub(super) rooms_as_of: Timestamp,
    pub(super) campaigns: Vec<Standing>,
    /// Region by region; those whose figures could not be had are missing.
    pub(super) supply: Vec<RegionSupply>,
}

/// A campaign and its cohorts' lines.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) campaign: Campaign,
    pub(super) time_zone: TimeZone,
    pub(super) cohorts: Vec<CohortStanding>,
}

/// A region's figures, all vaccines together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RegionSupply {
    pub(super) region: RegionId,
    pub(super) figures: Figures,
    pub(super) as_of: Timestamp,
}

impl RegionSupply {
    /// There were places, and none is left.
    pub(super) fn sold_out(&self) -> bool {
        self.figures.opened > 0 && self.figures.left == 0
    }
}

impl Facts {
    /// When all of it was true.
    pub(super) fn as_of(&self) -> Timestamp {
        let oldest = self.supply.iter().map(|region| region.as_of).min();
        oldest.map_or(self.rooms_as_of, |supply| supply.min(self.rooms_as_of))
    }

    /// The zone that times are told in: that of the first campaign.
    pub(super) fn time_zone(&self) -> TimeZone {
        let first = self.campaigns.first();
        first.map_or(TimeZone::UTC, |standing| standing.time_zone.clone())
    }

    pub(super) async fn read(
        rooms: &Rooms,
        supply: &Supply,
        regions: &[RegionId],
        clock: &Clock,
    ) -> Self {
        let deadline = Instant::from_std(clock.monotonic()) + SUPPLY_WITHIN;
        let ask = regions.iter().map(|id| region(supply, id, deadline));
        let supply = join_all(ask).await.into_iter().flatten().collect();
        let now = clock.wall();
        let age = i64::try_from(rooms.age().as_micros()).unwrap_or(i64::MAX);
        let campaigns = rooms.campaigns().into_iter().map(|campaign| Standing {
            time_zone: TimeZone::get(&campaign.time_zone).unwrap_or(TimeZone::UTC),
            cohorts: rooms.cohorts(&campaign),
            campaign,
        });
        let mut campaigns: Vec<_> = campaigns.collect();
        // Whoever opens next, or opened last, is what people come for.
        campaigns.sort_by_key(|standing| {
            let opens = standing.cohorts.iter().map(|cohort| cohort.opens_at).max();
            std::cmp::Reverse(opens)
        });
        Self {
            now,
            rooms_as_of: Timestamp::from_micros(now.as_micros().saturating_sub(age)),
            campaigns,
            supply,
        }
    }
}

async fn region(supply: &Supply, id: &RegionId, deadline: Instant) -> Option<RegionSupply> {
    let request = GetSupplyRequest {
        region: id.to_string(),
        level: SupplyLevel::Region.into(),
        ..GetSupplyRequest::default()
    };
    let answer = supply.get(&request, deadline).await.ok()?;
    let answer = GetSupplyResponse::decode(answer.bytes().clone()).ok()?;
    Some(RegionSupply {
        region: id.clone(),
        figures: total(answer.supply.iter()),
        as_of: answer.as_of.as_ref().map(from_timestamp)?,
    })
}

/// Figures added up.
pub(super) fn total<'a>(all: impl Iterator<Item = &'a Figures>) -> Figures {
    all.fold(Figures::default(), |sum, one| Figures {
        received: sum.received + one.received,
        wasted: sum.wasted + one.wasted,
        walk_in: sum.walk_in + one.walk_in,
        opened: sum.opened + one.opened,
        held: sum.held + one.held,
        booked: sum.booked + one.booked,
        given: sum.given + one.given,
        left: sum.left + one.left,
        ..sum
    })
}
