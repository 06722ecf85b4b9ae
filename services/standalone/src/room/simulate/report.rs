//! The simulation's report: one HTML file without scripts, one CSV by second, and the figures as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::Took;
use super::crowd::Group;
use super::fairness::{Fairness, OfGroup};
use super::figures::{Figures, Second};
use super::kdca::{self, Case};
use super::plot::{Series, chart, series};
use super::world::Scene;
use crate::equivalence::{LEVEL, MARGIN_SECS, Shown, rule};
use crate::rush::group;
use crate::rush::report::STYLE;

const BLUE: &str = "#2456a6";
const ORANGE: &str = "#c4571b";
const COLOURS: [&str; 5] = [BLUE, ORANGE, "#2d7d46", "#7a3b9c", "#9a6700"];

/// What was claimed, what came out, and whether it holds.
struct Claim {
    what: String,
    claimed: String,
    measured: String,
    holds: bool,
}

fn claims(scene: &Scene, it: &Figures, fairness: &Fairness) -> Vec<Claim> {
    let claim = |what: &str, claimed: &str, measured: String, holds| Claim {
        what: what.to_owned(),
        claimed: claimed.to_owned(),
        measured,
        holds,
    };
    let (peak, ratio) = it.poll_peak();
    let place = it.place_error as f64 / it.n0.max(1) as f64;
    // A list of n has a largest deviation of about 1.95 / sqrt(n) in one draw of a thousand.
    let place_bound = (1.95 / (it.n0.max(1) as f64).sqrt()).max(0.001);
    let ranges = it.ranges.1 as f64 / it.ranges.0.max(1) as f64;
    let vain = it.in_vain() as f64 / it.came().max(1) as f64;
    // Four standard deviations of as many people as come in 10 s, and the presence's own error.
    let rate_bound = 4.0 / (scene.rate * 10.0).sqrt() + 0.01;
    let mut all = vec![
        claim(
            "polls per second against λc(1 + ln(T/c))",
            "at most the bound (10 % for chance)",
            format!("{:.0} % of it; peak {}", ratio * 100.0, group(peak as u64)),
            ratio <= 1.1,
        ),
        claim(
            "place against the number of people before it",
            &format!("within {:.2} % of the list", place_bound * 100.0),
            format!("{:.3} %, {} places", place * 100.0, group(it.place_error)),
            place <= place_bound,
        ),
        claim(
            "turn inside the range told",
            "at least 90 %",
            format!("{:.1} % of {}", ranges * 100.0, group(it.ranges.0)),
            ranges >= 0.9,
        ),
        claim(
            "latest times that rose without a reason",
            "0",
            group(it.unexplained),
            it.unexplained == 0,
        ),
        claim(
            "frontiers that fell",
            "0",
            group(it.frontier_fell),
            it.frontier_fell == 0,
        ),
        claim(
            "admitted to an empty shelf",
            "at most 5 %",
            format!("{:.2} %", vain * 100.0),
            vain <= 0.05,
        ),
    ];
    if !scene.adaptive {
        let error = it.rate_error();
        all.push(claim(
            "arrivals against the set rate, any 10 s",
            &format!("within {:.1} %", rate_bound * 100.0),
            format!("{:.1} %", error * 100.0),
            error <= rate_bound,
        ));
    }
    all.extend(fairness.groups.iter().map(fair));
    all
}

/// What is claimed of one group's fairness.
fn fair(one: &OfGroup) -> Claim {
    Claim {
        what: format!("mean time of becoming admitted: {}", one.group.name()),
        claimed: format!(
            "within ±{MARGIN_SECS} s of the others (two one-sided tests, each at {LEVEL})"
        ),
        measured: one.found.told(),
        holds: one.found.shown() == Shown::Equivalent,
    }
}

/// The HTML file.
pub(super) fn page(
    scene: &Scene,
    it: &Figures,
    took: &Took,
    fairness: &Fairness,
    comparison: &[Case],
) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>Doseline: a simulated opening</title><style>{STYLE}</style>\
         <h1>{} people before the doors, {} after, {:.1} hours</h1>",
        group(u64::from(scene.people)),
        group(u64::from(scene.late)),
        scene.open_for_secs as f64 / 3_600.0
    )?;
    let claims = claims(scene, it, fairness);
    let holds = claims.iter().all(|claim| claim.holds);
    let (class, word) = if holds {
        ("ok", "every claim held")
    } else {
        ("bad", "a claim did not hold")
    };
    write!(
        page,
        "<p class='verdict {class}'>{word}</p><table><tr><th>claim<th>claimed<th>measured"
    )?;
    for claim in &claims {
        let class = if claim.holds { "ok" } else { "bad" };
        write!(
            page,
            "<tr><td>{}<td>{}<td class={class}>{}",
            claim.what, claim.claimed, claim.measured
        )?;
    }
    write!(
        page,
        "</table><p>{} events in {:.1} s. Set rate {:.0} people a second, back end {:.0}; {} came to book, {} units were left. \
         The frontier, the places, the waiting times and the steering are the code that serves; people and back end are made up.</p>",
        group(took.events),
        took.main_secs,
        scene.rate,
        scene.capacity,
        group(it.came()),
        group(it.left)
    )?;
    charts(&mut page, it)?;
    groups(&mut page, it)?;
    fairness_table(&mut page, fairness)?;
    july(&mut page, comparison)?;
    page.push_str("</html>\n");
    Ok(page)
}

fn charts(page: &mut String, it: &Figures) -> std::fmt::Result {
    let of = |value: fn(&Second) -> f64| it.seconds.iter().map(value).collect::<Vec<_>>();
    let until = format!("{:.0} min", it.seconds.len() as f64 / 60.0);
    let span = ("the draw", until.as_str());
    chart(
        page,
        "Line length",
        "people",
        span,
        &[series(
            "present, turn not come",
            BLUE,
            of(|s| f64::from(s.line)),
        )],
    )?;
    let admissions = [
        series("came to book", BLUE, of(|s| f64::from(s.arrivals))),
        series("set rate", ORANGE, of(|s| f64::from(s.wanted))),
    ];
    chart(
        page,
        "Admissions against the set rate",
        "a second",
        span,
        &admissions,
    )?;
    let polls = [
        series("polls as told", BLUE, of(|s| f64::from(s.polls))),
        series("bound λc(1 + ln(T/c))", ORANGE, of(|s| f64::from(s.bound))),
        series(
            "further devices and reloads",
            COLOURS[2],
            of(|s| f64::from(s.extra)),
        ),
    ];
    chart(page, "Poll load", "a second", span, &polls)?;
    let shares: Vec<Series<'_>> = Group::ALL
        .into_iter()
        .zip(COLOURS)
        .filter(|(group, _)| it.group(*group).waits.n > 0)
        .map(|(group, colour)| {
            let waits = &it.group(group).waits;
            let minutes = waits.bins[..it.seconds.len().min(waits.bins.len())].chunks(60);
            let part = |bins: &[u32]| f64::from(bins.iter().sum::<u32>()) / waits.n as f64 * 100.0;
            series(group.name(), colour, minutes.map(part).collect())
        })
        .collect();
    chart(
        page,
        "Waiting time by group",
        "% of the group in a minute",
        ("0 min", &until),
        &shares,
    )
}

fn groups(page: &mut String, it: &Figures) -> std::fmt::Result {
    page.push_str(
        "<h2>Groups</h2><table><tr><th>group<th>present<th>came<th>waited p50 s<th>p90 s<th>p99 s<th>turn, mean s\
         <th>noticed after p50 s<th>p99 s",
    );
    for of in Group::ALL {
        let figures = it.group(of);
        let wait = |part| group(figures.waits.quantile(part));
        let delay = |part| figures.delays.quantile(part) as f64 / 10.0;
        write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.1}<td>{:.1}<td>{:.1}",
            of.name(),
            group(figures.people),
            group(figures.waits.n),
            wait(0.5),
            wait(0.9),
            wait(0.99),
            figures.admitted.mean,
            delay(0.5),
            delay(0.99)
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn fairness_table(page: &mut String, fairness: &Fairness) -> std::fmt::Result {
    write!(
        page,
        "<h2>Fairness</h2><p>{} openings with draws of their own; {} people wait as they are told, and become admitted {:.2} s after \
         the opening on average. {}</p><table><tr><th>group<th>people<th>mean s<th>difference s<th>90 % interval<th>standard error<th>p\
         <th>verdict",
        fairness.trials,
        group(fairness.others.n),
        fairness.others.mean,
        rule()
    )?;
    for OfGroup {
        group: of,
        found: one,
    } in &fairness.groups
    {
        let shown = one.shown();
        let class = if shown == Shown::Equivalent {
            "ok"
        } else {
            "bad"
        };
        let (from, to) = one.interval();
        write!(
            page,
            "<tr><td>{}<td>{}<td>{:.2}<td>{:+.3}<td>{from:+.3} to {to:+.3}<td>{:.3}<td>{:.1e}<td class={class}>{}",
            of.name(),
            group(one.n),
            one.mean,
            one.difference,
            one.error,
            one.p,
            shown.name()
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn july(page: &mut String, comparison: &[Case]) -> std::fmt::Result {
    if comparison.is_empty() {
        return Ok(());
    }
    let every = |secs: u32| group(u64::from(kdca::DEVICES / secs));
    write!(
        page,
        "<h2>July 2021</h2><p>{} devices for 1,500,000 eligible people, at both capacities of that summer, in this room (simulated at one \
         in {}). The same devices reloading every 5 s are {} requests a second, every 20 s {}; the worst wait reported after the repair was \
         30 to 50 minutes, and places in line were lost.</p><table><tr><th>capacity<th>half through<th>all through<th>waited p50<th>p99\
         <th>polls a second, peak<th>lost places",
        group(u64::from(kdca::DEVICES)),
        kdca::SCALE,
        every(5),
        every(20)
    )?;
    let minutes = |secs: u64| format!("{:.0} min", secs as f64 / 60.0);
    for case in comparison {
        let figures = &case.figures;
        let waits = &figures.group(Group::Early).waits;
        write!(
            page,
            "<tr><td>{} an hour<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            group(u64::from(case.per_hour)),
            minutes(figures.done_after(0.5)),
            minutes(figures.done_after(0.999)),
            minutes(waits.quantile(0.5)),
            minutes(waits.quantile(0.99)),
            group(case.polls() as u64),
            figures.n0 - figures.came().min(figures.n0)
        )?;
    }
    page.push_str("</table>");
    let most = comparison
        .iter()
        .map(|case| case.figures.seconds.len())
        .max()
        .unwrap_or(0);
    let lines: Vec<Series<'_>> = comparison
        .iter()
        .zip(["300,000 an hour", "2,000,000 an hour"])
        .zip(COLOURS)
        .map(|((case, name), colour)| {
            let line = |at: usize| {
                case.figures
                    .seconds
                    .get(at)
                    .map_or(0.0, |s| f64::from(s.line * kdca::SCALE))
            };
            series(name, colour, (0..most).map(line).collect())
        })
        .collect();
    let until = format!("{:.0} min", most as f64 / 60.0);
    chart(
        page,
        "Line length in July 2021, with this room",
        "people",
        ("the draw", &until),
        &lines,
    )
}

/// By second, from the opening on.
pub(super) fn csv(it: &Figures) -> String {
    let mut out =
        String::from("second,line,wanted,arrivals,served,in_vain,polls,extra_polls,poll_bound\n");
    for (at, second) in it.seconds.iter().enumerate() {
        let since = at as i64 - it.opened_at as i64;
        let Second {
            line,
            wanted,
            arrivals,
            served,
            in_vain,
            polls,
            extra,
            bound,
        } = second;
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "{since},{line},{wanted:.1},{arrivals},{served},{in_vain},{polls},{extra},{bound:.0}"
        );
    }
    out
}

/// The figures for other programs.
pub(super) fn json(
    scene: &Scene,
    it: &Figures,
    took: &Took,
    fairness: &Fairness,
    comparison: &[Case],
) -> serde_json::Value {
    let claims: Vec<_> = claims(scene, it, fairness)
        .into_iter()
        .map(|claim| json!({ "claim": claim.what, "claimed": claim.claimed, "measured": claim.measured, "holds": claim.holds }))
        .collect();
    let july: Vec<_> = comparison
        .iter()
        .map(|case| {
            json!({
                "per_hour": case.per_hour, "all_through_secs": case.figures.done_after(0.999),
                "polls_per_second_peak": case.polls() as u64,
            })
        })
        .collect();
    json!({
        "people": scene.people, "late": scene.late, "rate": scene.rate, "events": took.events,
        "seconds": took.main_secs, "events_per_second": took.events as f64 / took.main_secs.max(1e-9),
        "came": it.came(), "left": it.left, "in_vain": it.in_vain(), "claims": claims, "july_2021": july,
    })
}

#[cfg(test)]
pub(super) fn all_hold(scene: &Scene, it: &Figures, fairness: &Fairness) -> Vec<String> {
    let bad = claims(scene, it, fairness)
        .into_iter()
        .filter(|claim| !claim.holds);
    bad.map(|claim| {
        format!(
            "{}: {}, claimed {}",
            claim.what, claim.measured, claim.claimed
        )
    })
    .collect()
}
