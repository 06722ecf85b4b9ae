//! The borders of the age rule, by a day on both sides.

use super::*;

fn campaign() -> Campaign {
    serde_json::from_value(serde_json::json!({
        "campaign": "kr-2021",
        "time_zone": "Asia/Seoul",
        "regions": ["seoul"],
        "cohorts": [
            { "cohort": "55-59", "born_from": "1962-01-01", "born_to": "1966-12-31",
              "opens_at": "2021-07-12T00:00:00+09:00", "permits_from": "2021-07-08" },
            { "cohort": "50-54", "born_from": "1967-01-01", "born_to": "1971-12-31",
              "opens_at": "2021-07-19T20:00:00+09:00", "permits_from": "2021-07-16" },
            { "cohort": "leap", "born_from": "1996-02-29", "born_to": "1996-02-29",
              "opens_at": "2021-07-19T20:00:00+09:00", "permits_from": "2020-02-29" }
        ],
        "rules": { "vaccines": ["moderna"], "dose_interval": { "min_days": 28, "max_days": 42 },
                   "hold_ttl_secs": 300 },
        "last_appointment": "2021-12-31",
        "permit_ttl_secs": 3600
    }))
    .expect("a campaign document")
}

fn ask(born: &str, now: &str) -> Result<String, Refusal> {
    let campaign = campaign();
    let zone = TimeZone::get(&campaign.time_zone).expect("a zone");
    let born = born.parse().expect("a date");
    let now: jiff::Timestamp = now.parse().expect("an instant");
    let now = Timestamp::from_micros(now.as_microsecond());
    cohort(&campaign, &zone, born, now).map(|cohort| cohort.cohort.to_string())
}

const DURING: &str = "2021-08-01T12:00:00+09:00";

#[test]
fn a_cohort_takes_its_first_and_last_birth_date_and_no_day_more() {
    for (born, expected) in [
        ("1961-12-31", Err(Refusal::NotEligible)),
        ("1962-01-01", Ok("55-59")),
        ("1966-12-31", Ok("55-59")),
        ("1967-01-01", Ok("50-54")),
        ("1971-12-31", Ok("50-54")),
        ("1972-01-01", Err(Refusal::NotEligible)),
        ("2021-08-02", Err(Refusal::NotEligible)),
    ] {
        assert_eq!(
            ask(born, DURING),
            expected.map(str::to_owned),
            "born {born}"
        );
    }
}

#[test]
fn the_29th_of_february_is_a_day_of_its_own() {
    for (born, expected) in [
        ("1996-02-28", Err(Refusal::NotEligible)),
        ("1996-02-29", Ok("leap".to_owned())),
        ("1996-03-01", Err(Refusal::NotEligible)),
    ] {
        assert_eq!(ask(born, DURING), expected, "born {born}");
    }
    // Also as a first day of permits.
    assert_eq!(
        ask("1996-02-29", "2020-02-28T23:59:59+09:00"),
        Err(Refusal::NotEligible)
    );
    assert_eq!(
        ask("1996-02-29", "2020-02-29T00:00:00+09:00"),
        Ok("leap".to_owned())
    );
}

#[test]
fn permits_begin_at_midnight_of_the_campaigns_zone() {
    let ok = || Ok("55-59".to_owned());
    assert_eq!(
        ask("1962-01-01", "2021-07-07T23:59:59.999999+09:00"),
        Err(Refusal::NotEligible)
    );
    assert_eq!(ask("1962-01-01", "2021-07-08T00:00:00+09:00"), ok());
    // The same midnight told by other clocks: it is still the 7th in London, already the 8th in Auckland.
    assert_eq!(ask("1962-01-01", "2021-07-07T15:00:00Z"), ok());
    assert_eq!(
        ask("1962-01-01", "2021-07-08T02:59:59+12:00"),
        Err(Refusal::NotEligible)
    );
}

#[test]
fn the_campaign_ends_with_the_last_appointments_day_and_the_year() {
    assert_eq!(
        ask("1962-01-01", "2021-12-31T23:59:59.999999+09:00"),
        Ok("55-59".to_owned())
    );
    assert_eq!(
        ask("1962-01-01", "2022-01-01T00:00:00+09:00"),
        Err(Refusal::CampaignEnded)
    );
    // Who was never eligible hears that it is over, too: the birth date tells nothing any more.
    assert_eq!(
        ask("2000-01-01", "2022-01-01T00:00:00+09:00"),
        Err(Refusal::CampaignEnded)
    );
}

#[test]
fn the_end_is_the_instant_from_which_permits_are_refused() {
    let campaign = campaign();
    let zone = TimeZone::get(&campaign.time_zone).expect("a zone");
    let end = end(&campaign, &zone);
    let expected: jiff::Timestamp = "2022-01-01T00:00:00+09:00".parse().expect("an instant");
    assert_eq!(end.as_micros(), expected.as_microsecond());
    let born = "1962-01-01".parse().expect("a date");
    let before = Timestamp::from_micros(end.as_micros() - 1);
    assert!(cohort(&campaign, &zone, born, before).is_ok());
    assert_eq!(
        cohort(&campaign, &zone, born, end),
        Err(Refusal::CampaignEnded)
    );
}

#[test]
fn a_broken_clock_lets_nobody_in() {
    let campaign = campaign();
    let zone = TimeZone::get(&campaign.time_zone).expect("a zone");
    let born = "1962-01-01".parse().expect("a date");
    for micros in [i64::MIN, i64::MAX] {
        assert!(cohort(&campaign, &zone, born, Timestamp::from_micros(micros)).is_err());
    }
}
