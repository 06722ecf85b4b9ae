//! How the line of a cohort stands, for everybody to see: the same state and the same pure functions that places are
//! told by.
//!
//! Invariant: nothing here knows a person. How many of a region wait is computed from the closed buckets' counts and the
//! frontier; because the order is drawn, it is an estimate inside a bucket.

use std::time::Duration;

use domain::campaign::{Campaign, Cohort};
use domain::room::wait::{Eta, View, Waiter};
use domain::room::{Phase, RegionState};
use domain::{RegionId, Timestamp};

use super::Rooms;
use super::rules::Rules;
use super::state::{RoomView, request_of};

const NO_WAIT: Eta = Eta {
    from: Duration::ZERO,
    to: Some(Duration::ZERO),
};

/// A cohort's line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CohortStanding {
    pub(crate) cohort: Cohort,
    /// The announced opening.
    pub(crate) opens_at: Timestamp,
    /// What the room is doing; LOBBY while there is no room yet.
    pub(crate) phase: Phase,
    /// People in closed buckets; `None` before the list is closed.
    pub(crate) people: Option<u64>,
    /// Region by region, those of the campaign.
    pub(crate) regions: Vec<RegionStanding>,
}

/// A cohort's line in one region.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RegionStanding {
    pub(crate) region: RegionId,
    /// People of the region that are not let in yet.
    pub(crate) waiting: u64,
    /// People of the region that were let in.
    pub(crate) let_in: u64,
    /// People of the region let in per minute, as set.
    pub(crate) per_minute: f64,
    /// When it is the turn of whoever stands last; `None` where nobody can say.
    pub(crate) last: Option<Eta>,
    /// Nothing is left.
    pub(crate) exhausted: bool,
}

impl CohortStanding {
    /// People of all regions that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.regions.iter().map(|region| region.waiting).sum()
    }

    /// People of all regions that were let in.
    pub(crate) fn let_in(&self) -> u64 {
        self.regions.iter().map(|region| region.let_in).sum()
    }

    /// People let in per minute in all regions together.
    pub(crate) fn per_minute(&self) -> f64 {
        self.regions.iter().map(|region| region.per_minute).sum()
    }

    /// From the earliest to the latest moment at which the last in a line may be let in; `None` where it cannot be said
    /// of one of the regions that still have something.
    pub(crate) fn last(&self) -> Option<Eta> {
        let lines = self.regions.iter().filter(|region| !region.exhausted);
        let etas: Option<Vec<Eta>> = lines.map(|region| region.last).collect();
        let etas = etas?;
        let from = etas.iter().map(|eta| eta.from).min()?;
        let to: Option<Vec<_>> = etas.iter().map(|eta| eta.to).collect();
        Some(Eta {
            from,
            to: to.and_then(|all| all.into_iter().max()),
        })
    }
}

impl Rooms {
    /// The lines of a campaign's cohorts, in the campaign's order.
    pub(crate) fn cohorts(&self, campaign: &Campaign) -> Vec<CohortStanding> {
        let standing = |cohort: &Cohort| {
            let id = request_of(campaign.campaign.as_str(), cohort.cohort.as_str());
            let opens_at = Timestamp::from_micros(cohort.opens_at.as_microsecond());
            let rules = Rules::of(&campaign.room, Some(opens_at));
            let view = self.view(&id);
            let region = |region: &RegionId| {
                let view = view.as_ref()?;
                self.line(view, region, rules)
            };
            CohortStanding {
                cohort: cohort.clone(),
                opens_at,
                phase: view
                    .as_ref()
                    .map_or(Phase::Lobby, |view| view.seen.room().phase),
                people: view
                    .as_ref()
                    .filter(|view| !view.seen.buckets().is_empty())
                    .map(|view| view.seen.buckets().people()),
                regions: campaign.regions.iter().filter_map(region).collect(),
            }
        };
        campaign.cohorts.iter().map(standing).collect()
    }

    fn line(&self, view: &RoomView, region: &RegionId, rules: Rules) -> Option<RegionStanding> {
        let Rules { pace, opens_at } = rules;
        let line = View::of(&view.seen, region, self.followed(view), pace, opens_at)?;
        let people = view.seen.buckets().people();
        let of_region = view.by_region.get(region).copied().unwrap_or(0);
        let open = matches!(line.phase, Phase::Open | Phase::Exhausted | Phase::Paused);
        let reached = if open { line.frontier.min(people) } else { 0 };
        let let_in = part(of_region, reached, people);
        let last = Waiter {
            ordinal: people.checked_sub(1),
            own: 0,
        };
        let told = line.tell(&last, self.now());
        // Where nobody stands in line nobody waits.
        let nobody = people == 0 && line.phase == Phase::Open;
        let last = if nobody { Some(NO_WAIT) } else { told.eta };
        // A place in line is one of all regions; only this region's people among them are let in here.
        #[expect(
            clippy::cast_precision_loss,
            reason = "a speed to be read, far below 2^52"
        )]
        let per_minute = if people == 0 || told.admitted || line.phase != Phase::Open {
            0.0
        } else {
            line.line.per_kilosecond as f64 * 0.06 * of_region as f64 / people as f64
        };
        Some(RegionStanding {
            region: region.clone(),
            waiting: of_region - let_in,
            let_in,
            per_minute,
            last,
            exhausted: line.line.state == RegionState::Exhausted,
        })
    }
}

/// `of` × `reached` / `all`, rounded down; `of` where there is nobody.
fn part(of: u64, reached: u64, all: u64) -> u64 {
    if all == 0 {
        return 0;
    }
    let part = u128::from(of) * u128::from(reached.min(all)) / u128::from(all);
    u64::try_from(part).unwrap_or(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regions_part_is_that_of_the_whole_line() {
        assert_eq!(part(100, 25, 50), 50);
        assert_eq!(part(7, 50, 50), 7);
        assert_eq!(part(7, 99, 50), 7, "never more than there are");
        assert_eq!(part(0, 0, 0), 0);
    }

    #[test]
    fn the_last_of_all_is_told_over_all_regions_that_have_something() {
        let region = |name: &str, last, exhausted| RegionStanding {
            region: name.parse().expect("slug"),
            waiting: 1,
            let_in: 2,
            per_minute: 1.5,
            last,
            exhausted,
        };
        let eta = |from, to| {
            Some(Eta {
                from: Duration::from_secs(from),
                to: Some(Duration::from_secs(to)),
            })
        };
        let cohort: Cohort = serde_json::from_value(serde_json::json!({
            "cohort": "fifties", "born_from": "1971-01-01", "born_to": "1980-12-31",
            "opens_at": "2031-03-01T20:00:00+09:00", "permits_from": "2026-01-01",
        }))
        .expect("a cohort");
        let mut standing = CohortStanding {
            cohort,
            opens_at: Timestamp::from_secs(0),
            phase: Phase::Open,
            people: Some(9),
            regions: vec![
                region("seoul", eta(8, 13), false),
                region("busan", eta(4, 20), false),
            ],
        };
        assert_eq!(standing.last(), eta(4, 20));
        assert_eq!((standing.waiting(), standing.let_in()), (2, 4));
        standing.regions.push(region("jeju", None, true));
        assert_eq!(
            standing.last(),
            eta(4, 20),
            "what is sold out does not count"
        );
        standing.regions.push(region("ulsan", None, false));
        assert_eq!(standing.last(), None);
    }
}
