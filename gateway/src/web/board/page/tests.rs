//! What the board says, phase by phase: without a browser, by its words.

use domain::campaign::Campaign;
use jiff::tz::TimeZone;
use proto::availability::Supply;

use super::*;

const OPENS: Timestamp = Timestamp::from_secs(1_930_000_000);

fn campaign() -> Campaign {
    serde_json::from_value(serde_json::json!({
        "campaign": "spring-2031", "time_zone": "Asia/Seoul", "regions": ["seoul", "busan"],
        "cohorts": [{
            "cohort": "fifties", "born_from": "1971-01-01", "born_to": "1980-12-31",
            "opens_at": "2031-02-27T16:06:40Z", "permits_from": "2026-01-01",
        }],
        "rules": {
            "vaccines": ["mrna-1273"], "dose_interval": {"min_days": 21, "max_days": 42}, "hold_ttl_secs": 120,
        },
        "last_appointment": "2031-06-30", "permit_ttl_secs": 7200,
    }))
    .expect("a campaign")
}

fn facts(phase: Phase, now: Timestamp) -> Facts {
    let campaign = campaign();
    let region = |name: &str, exhausted: bool| RegionStanding {
        region: name.parse().expect("slug"),
        waiting: 1_200,
        let_in: 300,
        per_minute: 60.0,
        last: (!exhausted).then_some(Eta {
            from: Duration::from_secs(960),
            to: Some(Duration::from_secs(1_560)),
        }),
        exhausted,
    };
    let supply = |name: &str, left| RegionSupply {
        region: name.parse().expect("slug"),
        figures: Supply {
            received: 20,
            opened: 10,
            booked: 10 - left,
            left,
            ..Supply::default()
        },
        as_of: now,
    };
    Facts {
        now,
        rooms_as_of: now,
        campaigns: vec![Standing {
            time_zone: TimeZone::get(&campaign.time_zone).expect("a zone"),
            cohorts: vec![CohortStanding {
                cohort: campaign.cohorts[0].clone(),
                opens_at: OPENS,
                phase,
                people: (phase != Phase::Lobby).then_some(3_000),
                regions: vec![
                    region("seoul", false),
                    region("busan", phase == Phase::Exhausted),
                ],
            }],
            campaign,
        }],
        supply: vec![supply("seoul", 4), supply("busan", 0)],
    }
}

fn said(facts: &Facts, language: Language) -> String {
    let parts = parts(facts, language);
    whole(facts, language, &parts).into_string()
}

fn key(facts: &Facts) -> String {
    let parts = parts(facts, Language::English);
    let campaigns = parts.iter().find(|part| part.id == "campaigns");
    campaigns.expect("a part").key.clone()
}

#[test]
fn before_the_doors_the_time_is_told_by_the_servers_clock() {
    let now = Timestamp::from_secs(OPENS.as_secs() - 93_784);
    let page = said(&facts(Phase::Lobby, now), Language::English);
    for text in [
        "data-target=\"1930000000000\"",
        "data-now=\"1929906216000\"",
        "1 d 02:03:04",
        "Before the draw",
        "counted when the list is closed",
        "known once the doors are open",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
    let later = said(&facts(Phase::Lobby, OPENS), Language::English);
    assert!(later.contains("Any moment now") && later.contains("Before the draw"));
}

#[test]
fn a_tick_is_no_change_and_its_end_is_one() {
    let at = |before: i64| facts(Phase::Drawn, Timestamp::from_secs(OPENS.as_secs() - before));
    assert_eq!(key(&at(10)), key(&at(9)));
    assert_ne!(key(&at(1)), key(&at(0)));
    assert_ne!(key(&at(10)), key(&facts(Phase::Open, OPENS)));
}

#[test]
fn an_open_line_says_how_long_it_is_and_how_fast() {
    let page = said(&facts(Phase::Open, OPENS), Language::English);
    for text in [
        "2,400",
        "600",
        "120",
        "16 min 0 s to 26 min 0 s",
        "Doors are open",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
    assert!(!page.contains("role=\"timer\""));
    let korean = said(&facts(Phase::Open, OPENS), Language::Korean);
    for text in [
        "lang=\"ko\"",
        "예약 진행 중",
        "16분 0초 ~ 26분 0초",
        "서울",
        "부산",
    ] {
        assert!(korean.contains(text), "{text} in {korean}");
    }
}

#[test]
fn what_is_sold_out_is_said_everywhere_it_matters() {
    let facts = facts(Phase::Exhausted, OPENS);
    let parts = parts(&facts, Language::English);
    for id in ["news", "campaigns", SUPPLY] {
        let part = parts.iter().find(|part| part.id == id).expect(id);
        assert!(part.html.contains("Sold out"), "{id}: {}", part.html);
    }
}

#[test]
fn nothing_announced_is_said_to_be_nothing() {
    let mut facts = facts(Phase::Open, OPENS);
    facts.campaigns.clear();
    facts.supply.clear();
    let page = said(&facts, Language::English);
    assert!(page.contains("No campaign has been announced.") && page.contains("No figures"));
}
