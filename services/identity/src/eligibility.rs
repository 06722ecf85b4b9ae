//! The age rule: which cohort of a campaign a birth date is in, today.
//!
//! Pure. Invariant: "today" is the server's date in the campaign's time zone, never the caller's.

use domain::campaign::{Campaign, Cohort};
use domain::{Refusal, Timestamp};
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The cohort that lets this person have a permit now.
pub fn cohort<'a>(
    campaign: &'a Campaign,
    zone: &TimeZone,
    born: Date,
    now: Timestamp,
) -> Result<&'a Cohort, Refusal> {
    let today = date_in(zone, now);
    if today > campaign.last_appointment {
        return Err(Refusal::CampaignEnded);
    }
    campaign
        .cohorts
        .iter()
        .find(|cohort| (cohort.born_from..=cohort.born_to).contains(&born))
        .filter(|cohort| cohort.permits_from <= today)
        .ok_or(Refusal::NotEligible)
}

/// The first instant at which the campaign is over: the end of the last appointment's day in its zone.
#[must_use]
pub fn end(campaign: &Campaign, zone: &TimeZone) -> Timestamp {
    let after = campaign
        .last_appointment
        .tomorrow()
        .and_then(|day| day.to_zoned_datetime(zone.clone()));
    after.map_or(Timestamp::from_micros(i64::MAX), |start| {
        Timestamp::from_micros(start.timestamp().as_microsecond())
    })
}

/// The date of an instant in a zone.
#[must_use]
pub fn date_in(zone: &TimeZone, now: Timestamp) -> Date {
    // Instants outside of what a calendar can show are a broken clock: nobody is eligible, the campaign is over.
    jiff::Timestamp::from_microsecond(now.as_micros()).map_or(Date::MAX, |instant| {
        instant.to_zoned_datetime(zone.clone()).date()
    })
}

#[cfg(test)]
mod tests;
