//! The board as a page and as parts of a page: a pure function of the facts and a language.

use std::time::Duration;

use domain::room::Phase;
use domain::room::wait::Eta;
use domain::{RegionId, Timestamp};
use jiff::tz::TimeZone;
use maud::{Markup, PreEscaped, html};

use super::facts::{Facts, RegionSupply, Standing, total};
use super::plot::{Bar, bars};
use crate::room::{CohortStanding, RegionStanding};
use crate::web::events::Part;
use crate::web::layout::Layout;
use crate::web::text::{Language, number};

/// The part that is told less often.
pub(super) const SUPPLY: &str = "supply";
/// Without scripts the page is loaded again after so many seconds.
const RELOAD_SECS: u64 = 10;

/// How a countdown stands in a page: as it is now, or as what it is recognised by.
#[derive(Clone, Copy)]
enum Clock {
    At(Timestamp),
    /// Every moment alike, but for whether the time has come.
    Any(Timestamp),
}

/// What may change, in the order of the page.
pub(super) fn parts(facts: &Facts, language: Language) -> Vec<Part> {
    let same = |id, markup: Markup| {
        let html = markup.into_string();
        Part::new(id, html.clone(), html)
    };
    let now = Clock::At(facts.now);
    let any = Clock::Any(facts.now);
    vec![
        same("as-of", as_of(facts, language)),
        same("news", news(facts, language)),
        Part::new(
            "campaigns",
            campaigns(facts, language, now).into_string(),
            campaigns(facts, language, any).into_string(),
        ),
        same(SUPPLY, supply(facts, language)),
    ]
}

/// The whole page around its parts.
pub(super) fn whole(facts: &Facts, language: Language, parts: &[Part]) -> Markup {
    let texts = language.texts();
    let live = format!("/board/live?lang={}", language.tag());
    let part = |id: &str| {
        let part = parts.iter().find(|part| part.id == id);
        PreEscaped(part.map_or("", |part| part.html.as_str()))
    };
    let layout = Layout {
        language,
        title: texts.board_title.to_owned(),
        path: "/",
        live: Some(&live),
        now_ms: facts.now.as_micros() / 1_000,
        reload_secs: Some(RELOAD_SECS),
    };
    layout.around(&html! {
        h1 { (texts.board_title) }
        p.lead { (texts.board_lead) }
        p #as-of .as-of data-part { (part("as-of")) }
        p #news .hidden role="status" data-part { (part("news")) }
        div #campaigns data-part { (part("campaigns")) }
        section aria-labelledby="supply-title" {
            h2 #supply-title { (texts.supply) }
            p.lead { (texts.supply_lead) }
            div #supply data-part { (part(SUPPLY)) }
        }
    })
}

fn as_of(facts: &Facts, language: Language) -> Markup {
    let texts = language.texts();
    let at = facts.as_of();
    html! {
        span.dot aria-hidden="true" {}
        (texts.as_of) " " (time(at, &facts.time_zone(), "%Y-%m-%d %H:%M:%S %Z"))
        span.auto { " · " (texts.live) }
    }
}

/// What is read out when it changes: phases and what is sold out, nothing that ticks.
fn news(facts: &Facts, language: Language) -> Markup {
    let texts = language.texts();
    html! {
        @for standing in &facts.campaigns {
            @for cohort in &standing.cohorts {
                (cohort.cohort.cohort) ": " (language.phase(cohort.phase)) ". "
                @for region in cohort.regions.iter().filter(|region| region.exhausted) {
                    (language.region(region.region.as_str())) ": " (texts.sold_out) ". "
                }
            }
        }
    }
}

fn campaigns(facts: &Facts, language: Language, clock: Clock) -> Markup {
    html! {
        @if facts.campaigns.is_empty() {
            p.card { (language.texts().no_campaign) }
        }
        @for standing in &facts.campaigns {
            section {
                h2 { (standing.campaign.campaign) }
                @for cohort in &standing.cohorts { (self::cohort(standing, cohort, language, clock)) }
            }
        }
    }
}

fn cohort(
    standing: &Standing,
    cohort: &CohortStanding,
    language: Language,
    clock: Clock,
) -> Markup {
    let texts = language.texts();
    let before = matches!(cohort.phase, Phase::Lobby | Phase::Frozen | Phase::Drawn);
    let tone = match cohort.phase {
        Phase::Open => "badge good",
        Phase::Paused | Phase::Exhausted => "badge warn",
        Phase::Lobby | Phase::Frozen | Phase::Drawn | Phase::Ended => "badge",
    };
    html! {
        article.card {
            div.head {
                h3 { (cohort.cohort.cohort) }
                span class=(tone) { (language.phase(cohort.phase)) }
                p.sub {
                    (texts.born) " " (cohort.cohort.born_from) " – " (cohort.cohort.born_to) " · "
                    (texts.opens_at) " " (time(cohort.opens_at, &standing.time_zone, "%Y-%m-%d %H:%M %Z"))
                }
            }
            @if before { (countdown(cohort, language, clock)) }
            p.help { (help(cohort.phase, language)) }
            @if cohort.phase != Phase::Ended { (facts_of(cohort, language)) }
            @if !before && !cohort.regions.is_empty() && cohort.phase != Phase::Ended {
                (by_region(cohort, standing.campaign.campaign.as_str(), language))
            }
        }
    }
}

fn countdown(cohort: &CohortStanding, language: Language, clock: Clock) -> Markup {
    let texts = language.texts();
    let target_ms = cohort.opens_at.as_micros() / 1_000;
    let (left, shown) = match clock {
        Clock::At(now) => {
            let left = cohort.opens_at.since(now);
            (left, ticks(left, texts.unit_day))
        }
        Clock::Any(now) => (cohort.opens_at.since(now), String::new()),
    };
    html! {
        div.countdown {
            span.label { @if left.is_zero() { (texts.countdown_over) } @else { (texts.countdown) } }
            span.ticks role="timer" aria-live="off" data-target=(target_ms) data-day=(texts.unit_day)
                data-over=(texts.doors_any_moment) {
                @if left.is_zero() { (texts.doors_any_moment) } @else { (shown) }
            }
        }
        @if left.is_zero() { p.help { (texts.doors_any_moment_help) } }
    }
}

/// As the script writes it: days, then hours, minutes and seconds, the last one begun counted whole.
fn ticks(left: Duration, day: &str) -> String {
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let clock = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}{day} {clock}")
    } else {
        clock
    }
}

const fn help(phase: Phase, language: Language) -> &'static str {
    let texts = language.texts();
    match phase {
        Phase::Lobby => texts.lobby_help,
        Phase::Frozen => texts.frozen_help,
        Phase::Drawn => texts.drawn_help,
        Phase::Open => texts.open_help,
        Phase::Paused => texts.paused_help,
        Phase::Exhausted => texts.exhausted_help,
        Phase::Ended => texts.ended_help,
    }
}

fn facts_of(cohort: &CohortStanding, language: Language) -> Markup {
    let texts = language.texts();
    let open = matches!(cohort.phase, Phase::Open | Phase::Exhausted | Phase::Paused);
    html! {
        dl.facts {
            div {
                dt { (texts.people_in_line) }
                dd {
                    @match cohort.people {
                        None => small { (texts.people_later) },
                        Some(_) => { (people(cohort.waiting(), language)) }
                    }
                }
            }
            @if open {
                div { dt { (texts.admitted) } dd { (people(cohort.let_in(), language)) } }
                div {
                    dt { (texts.speed) }
                    dd { (people(rounded(cohort.per_minute()), language)) small { (texts.speed_unit) } }
                }
            }
            div {
                dt { (texts.last_in_line) }
                dd {
                    @if open { (eta(cohort.last(), language)) } @else { small { (texts.eta_not_open) } }
                }
            }
        }
    }
}

fn people(count: u64, language: Language) -> Markup {
    html! { (number(count)) small { (language.people(count)) } }
}

fn eta(eta: Option<Eta>, language: Language) -> Markup {
    let texts = language.texts();
    html! {
        @match eta {
            None => small { (texts.eta_unknown) },
            Some(Eta { to: Some(to), .. }) if to.is_zero() => (texts.eta_now),
            Some(Eta { from, to: Some(to) }) => {
                (language.duration(from)) (texts.eta_between) (language.duration(to))
            }
            Some(Eta { from, to: None }) => { (language.duration(from)) (texts.eta_between) "?" }
        }
    }
}

fn by_region(cohort: &CohortStanding, campaign: &str, language: Language) -> Markup {
    let texts = language.texts();
    let id = format!("regions-{campaign}-{}", cohort.cohort.cohort);
    html! {
        details id=(id) {
            summary { (texts.by_region) }
            div.table.tight {
                table {
                    caption { (texts.per_region_lead) }
                    thead {
                        tr {
                            th scope="col" { (texts.region) }
                            th scope="col" { (texts.waiting) }
                            th.optional scope="col" { (texts.let_in) }
                            th scope="col" { (texts.last_in_line) }
                            th scope="col" { (texts.state) }
                        }
                    }
                    tbody { @for region in &cohort.regions { (line(cohort, region, language)) } }
                }
            }
        }
    }
}

fn line(cohort: &CohortStanding, region: &RegionStanding, language: Language) -> Markup {
    let texts = language.texts();
    let moving = cohort.phase == Phase::Open && region.per_minute > 0.0;
    html! {
        tr {
            th scope="row" { (language.region(region.region.as_str())) }
            td { (number(region.waiting)) }
            td.optional { (number(region.let_in)) }
            td { (eta(region.last, language)) }
            td {
                @if region.exhausted { span.badge.bad { (texts.sold_out) } }
                @else if moving || region.waiting == 0 { span.badge.good { (texts.state_moving) } }
                @else { span.badge { (texts.state_waiting) } }
            }
        }
    }
}

fn supply(facts: &Facts, language: Language) -> Markup {
    let texts = language.texts();
    let all = total(facts.supply.iter().map(|region| &region.figures));
    let bar = |region: &RegionSupply| Bar {
        name: language.region(region.region.as_str()),
        booked: region.figures.booked,
        held: region.figures.held,
        left: region.figures.left,
    };
    let drawn: Vec<_> = facts.supply.iter().map(bar).collect();
    html! {
        @if facts.supply.is_empty() {
            p.card { (texts.supply_none) }
        } @else {
            div.card {
                figure.plot role="img" aria-label=(texts.plot_caption) { (bars(&drawn)) }
                ul.key aria-hidden="true" {
                    li { i.booked {} (texts.booked) }
                    li { i.held {} (texts.held) }
                    li { i.left {} (texts.left) }
                }
                div.table {
                    table {
                        caption.hidden { (texts.supply) }
                        thead {
                            tr {
                                th scope="col" { (texts.region) }
                                th.optional scope="col" { (texts.received) }
                                th.optional scope="col" { (texts.opened) }
                                th scope="col" { (texts.booked) }
                                th.optional scope="col" { (texts.held) }
                                th scope="col" { (texts.left) }
                                th.optional scope="col" { (texts.given) }
                            }
                        }
                        tbody { @for region in &facts.supply { (supply_row(region, language)) } }
                        @if facts.supply.len() > 1 {
                            tfoot {
                                tr {
                                    th scope="row" { (texts.total) }
                                    (figures(&all, false, language))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn supply_row(region: &RegionSupply, language: Language) -> Markup {
    let id: &RegionId = &region.region;
    html! {
        tr {
            th scope="row" { (language.region(id.as_str())) }
            (figures(&region.figures, region.sold_out(), language))
        }
    }
}

fn figures(figures: &proto::availability::Supply, sold_out: bool, language: Language) -> Markup {
    html! {
        td.optional { (number(figures.received)) }
        td.optional { (number(figures.opened)) }
        td { (number(figures.booked)) }
        td.optional { (number(figures.held)) }
        td {
            @if sold_out { span.badge.bad { (language.texts().sold_out) } } @else { (number(figures.left)) }
        }
        td.optional { (number(figures.given)) }
    }
}

fn time(at: Timestamp, zone: &TimeZone, form: &str) -> Markup {
    match jiff::Timestamp::from_microsecond(at.as_micros()) {
        Ok(instant) => {
            let zoned = instant.to_zoned_datetime(zone.clone());
            html! { time datetime=(instant.strftime("%Y-%m-%dT%H:%M:%SZ")) { (zoned.strftime(form)) } }
        }
        Err(_) => html! { (at) },
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "people a minute, not below 0 and far below 2^52"
)]
fn rounded(value: f64) -> u64 {
    value.round().max(0.0) as u64
}

#[cfg(test)]
mod tests;
