//! The campaign's document: who may come, where, from when, and what a booking must look like.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::command::SlotState;
use crate::ids::{CampaignId, CohortId, RegionId, VaccineId};
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// People let in together: those born in `born_from ..= born_to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// Its id inside the campaign.
    pub cohort: CohortId,
    /// The earliest birth date, inclusive.
    pub born_from: Date,
    /// The latest birth date, inclusive.
    pub born_to: Date,
    /// The announced opening; information, never a predicate: doors open by a write.
    pub opens_at: jiff::Timestamp,
    /// From this date in the campaign's zone on, permits are issued to the cohort.
    pub permits_from: Date,
    /// When the doorkeeper takes the steps of the draw by itself; without it operators take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<DrawSchedule>,
}

/// When the steps of a draw are taken. The public value itself is entered by an operator; the doors open at `opens_at`
/// or as soon after it as the value is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawSchedule {
    /// The rules are published.
    pub commit_at: jiff::Timestamp,
    /// The list is closed.
    pub freeze_at: jiff::Timestamp,
    /// The seed is published.
    pub reveal_at: jiff::Timestamp,
    /// After it the seed would be 32 zero bytes.
    pub reveal_by: jiff::Timestamp,
    /// The public value that will be used.
    pub beacon: ScheduledBeacon,
    /// The one to be used if the first never comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<ScheduledBeacon>,
}

/// A public value to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledBeacon {
    /// Who publishes it.
    pub source: String,
    /// Exactly which value.
    pub round: String,
    /// When it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<jiff::Timestamp>,
}

/// How rooms are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomRules {
    /// Who comes after the doors opened waits at most so long until the order among those who came with them is drawn,
    /// in seconds; 1 to 600.
    pub bucket_seconds: u32,
    /// A bucket closes earlier when it has so many people; 1 to 1,000,000.
    pub bucket_size: u32,
    /// How many polls all gateways together may see before the doors open and while nothing moves, per second.
    pub polls_per_second: u64,
    /// People expected, until they are counted.
    pub expected_people: u64,
}

impl Default for RoomRules {
    fn default() -> Self {
        Self {
            bucket_seconds: 30,
            bucket_size: 10_000,
            polls_per_second: 20_000,
            expected_people: 100_000,
        }
    }
}

/// How far apart the two doses of one booking must be, in days at the clinic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoseInterval {
    /// At least so many days.
    pub min_days: u16,
    /// At most so many days.
    pub max_days: u16,
}

/// The part of a campaign that a booking is checked against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookingRules {
    /// The vaccines given in the campaign.
    pub vaccines: BTreeSet<VaccineId>,
    /// The distance of two doses booked together.
    pub dose_interval: DoseInterval,
    /// How long a hold lives, in seconds; 10 to 3,600.
    pub hold_ttl_secs: u32,
}

/// A campaign, as stored under `/doseline/campaign/{campaign}` and watched by all parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Its id.
    pub campaign: CampaignId,
    /// Rises by one at each change.
    #[serde(default)]
    pub version: u64,
    /// IANA name of the zone whose calendar decides ages and days, such as `Asia/Seoul`.
    pub time_zone: String,
    /// Where it runs.
    pub regions: BTreeSet<RegionId>,
    /// Who may come; birth-date ranges must not overlap.
    pub cohorts: Vec<Cohort>,
    /// What a booking must look like.
    pub rules: BookingRules,
    /// The day of the last appointment; permits are renewed until it has passed.
    pub last_appointment: Date,
    /// How long a permit is good for, in seconds; 60 to 86,400.
    pub permit_ttl_secs: u32,
    /// How its rooms are run.
    #[serde(default)]
    pub room: RoomRules,
}

/// One thing wrong with a campaign document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, as a path in the document.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Campaign {
    /// Everything that is wrong with the document; empty when it can be applied.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut wrong = |field: String, problem: &str| {
            found.push(Violation {
                field,
                problem: problem.to_owned(),
            });
        };
        if jiff::tz::TimeZone::get(&self.time_zone).is_err() {
            wrong(
                "time_zone".into(),
                "must be an IANA zone such as Asia/Seoul",
            );
        }
        if self.regions.is_empty() {
            wrong("regions".into(), "must name at least one region");
        }
        if self.cohorts.is_empty() {
            wrong("cohorts".into(), "must have at least one cohort");
        }
        if self.rules.vaccines.is_empty() {
            wrong("rules.vaccines".into(), "must name at least one vaccine");
        }
        if self.rules.dose_interval.min_days > self.rules.dose_interval.max_days {
            wrong(
                "rules.dose_interval".into(),
                "min_days must not exceed max_days",
            );
        }
        if !(10..=3_600).contains(&self.rules.hold_ttl_secs) {
            wrong("rules.hold_ttl_secs".into(), "must be 10 to 3600");
        }
        if !(60..=86_400).contains(&self.permit_ttl_secs) {
            wrong("permit_ttl_secs".into(), "must be 60 to 86400");
        }
        if self.permit_ttl_secs <= self.rules.hold_ttl_secs {
            wrong("permit_ttl_secs".into(), "must exceed rules.hold_ttl_secs");
        }
        for (field, problem) in self.room.violations() {
            wrong(format!("room.{field}"), problem);
        }
        for (index, cohort) in self.cohorts.iter().enumerate() {
            let path = format!("cohorts[{index}]");
            if let Some((field, problem)) = cohort
                .draw
                .as_ref()
                .and_then(|it| it.violation(cohort.opens_at))
            {
                wrong(format!("{path}.draw.{field}"), problem);
            }
            if cohort.born_from > cohort.born_to {
                wrong(format!("{path}.born_from"), "must not be after born_to");
            }
            for (other_index, other) in self.cohorts.iter().enumerate().take(index) {
                if cohort.cohort == other.cohort {
                    wrong(format!("{path}.cohort"), "is used twice");
                }
                if cohort.born_from <= other.born_to && other.born_from <= cohort.born_to {
                    wrong(
                        path.clone(),
                        &format!("overlaps the birth dates of cohorts[{other_index}]"),
                    );
                }
            }
        }
        found
    }
}

impl RoomRules {
    fn violations(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let seconds = !(1..=600).contains(&self.bucket_seconds);
        let size = !(1..=1_000_000).contains(&self.bucket_size);
        let polls = !(1..=10_000_000).contains(&self.polls_per_second);
        let all = [
            (seconds, "bucket_seconds", "must be 1 to 600"),
            (size, "bucket_size", "must be 1 to 1000000"),
            (polls, "polls_per_second", "must be 1 to 10000000"),
        ];
        let wrong = all.into_iter().filter(|(wrong, _, _)| *wrong);
        wrong.map(|(_, field, problem)| (field, problem))
    }
}

impl DrawSchedule {
    /// The first thing wrong with it, for doors that open at `opens_at`.
    fn violation(&self, opens_at: jiff::Timestamp) -> Option<(&'static str, &'static str)> {
        let published = |beacon: &ScheduledBeacon| beacon.published_at;
        let first = published(&self.beacon);
        let second = self.second.as_ref().and_then(published);
        if self.freeze_at <= self.commit_at {
            Some(("freeze_at", "must be after commit_at"))
        } else if self.reveal_at < self.freeze_at {
            Some(("reveal_at", "must not be before freeze_at"))
        } else if self.reveal_by <= self.reveal_at {
            Some(("reveal_by", "must be after reveal_at"))
        } else if first.is_some_and(|at| at <= self.reveal_by) {
            Some(("beacon.published_at", "must be after reveal_by"))
        } else if second.is_some_and(|at| at <= first.unwrap_or(self.reveal_by)) {
            Some((
                "second.published_at",
                "must be after reveal_by and the first beacon",
            ))
        } else if opens_at <= first.unwrap_or(self.reveal_by) {
            Some(("beacon.published_at", "must be before opens_at"))
        } else {
            None
        }
    }
}

impl BookingRules {
    /// Whether these slots may be taken together in this campaign at `now`.
    ///
    /// Closed and full are not looked at here: they change by the second and are decided by the ledger.
    pub fn allow(&self, slots: &[&SlotState], now: Timestamp) -> Result<(), Refusal> {
        for slot in slots {
            if !self.vaccines.contains(&slot.vaccine) {
                return Err(Refusal::PermitForeignCampaign);
            }
            if slot.starts_at <= now {
                return Err(Refusal::SlotClosed);
            }
        }
        match slots {
            [_] => Ok(()),
            [first, second] => {
                let days = second
                    .day
                    .checked_sub(first.day)
                    .and_then(|d| u16::try_from(d).ok());
                let interval = self.dose_interval;
                let fits =
                    days.is_some_and(|d| (interval.min_days..=interval.max_days).contains(&d));
                let same = first.clinic == second.clinic && first.vaccine == second.vaccine;
                if same && first.dose == 1 && second.dose == 2 && fits {
                    Ok(())
                } else {
                    Err(Refusal::SlotsMismatch)
                }
            }
            _ => Err(Refusal::SlotsMismatch),
        }
    }

    /// Whether a second dose on `second_day` may follow a first on `first_day` (days since 1970-01-01).
    #[must_use]
    pub fn interval_fits(&self, first_day: i32, second_day: i32) -> bool {
        let days = second_day
            .checked_sub(first_day)
            .and_then(|days| u16::try_from(days).ok());
        let DoseInterval { min_days, max_days } = self.dose_interval;
        days.is_some_and(|days| (min_days..=max_days).contains(&days))
    }
}
