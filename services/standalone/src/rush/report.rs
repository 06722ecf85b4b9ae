//! The report of a rush as one HTML file: what was promised, how fast it was, where it sold out. No script needed.

use std::fmt::Write as _;

use super::driver::Outcome;
use super::fairness::Fairness;
use super::stats::{STEP, Stats};
use super::verdict::Verdict;
use super::{Rush, group};

pub(crate) const WIDTH: f64 = 860.0;
pub(crate) const HEIGHT: f64 = 220.0;

pub(crate) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid #d8dee4}th:first-child,td:first-child{text-align:left}\
.ok{color:#0a5c2b}.bad{color:#a40e26}.verdict{font-size:1.3rem;font-weight:600}svg{width:100%;height:auto}\
.bar{background:#dfe5ec;height:.8rem}.bar i{display:block;background:#2456a6;height:.8rem}figcaption{color:#57606a;font-size:.9rem}";

/// Writes `rush.html` and `rush.json` into the folder that the rush was given.
pub(crate) fn write(
    rush: &Rush,
    issuing: &Stats,
    outcome: &Outcome,
    (verdict, fairness): (&Verdict, &Fairness),
) -> anyhow::Result<()> {
    let folder = &rush.args.report;
    std::fs::create_dir_all(folder)?;
    let mut all = issuing.clone();
    all.add(&outcome.stats);
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>Doseline: a rush</title><style>{STYLE}</style><h1>A rush of {} people in {} regions</h1>",
        group(rush.population.people()),
        verdict.regions.len().max(rush.regions.len()),
    )?;
    promises(&mut page, verdict)?;
    write!(
        page,
        "<p>{:.1} s from the opening to the last answer; at most {} bookings in a second; {} people found nothing left, \
         {} gave up. Supply was {:.0} % of demand; clinic positions are synthetic.</p>",
        outcome.took.as_secs_f64(),
        group(outcome.peak),
        group(outcome.stats.sold_out),
        group(outcome.stats.gave_up),
        rush.args.supply * 100.0,
    )?;
    time_line(&mut page, &outcome.stats)?;
    fairness.section(&mut page)?;
    latencies(&mut page, &all)?;
    regions(&mut page, verdict)?;
    calls(&mut page, &all)?;
    page.push_str("</html>\n");
    std::fs::write(folder.join("rush.html"), page)?;
    std::fs::write(
        folder.join("rush.json"),
        serde_json::to_vec_pretty(&json(&all, outcome, (verdict, fairness)))?,
    )?;
    Ok(())
}

fn json(
    all: &Stats,
    outcome: &Outcome,
    (verdict, fairness): (&Verdict, &Fairness),
) -> serde_json::Value {
    let calls: serde_json::Map<_, _> = all
        .calls
        .iter()
        .map(|(call, stats)| {
            let at = |quantile| stats.from_due.value_at_quantile(quantile);
            let figures = serde_json::json!({
                "outcomes": stats.outcomes, "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99),
                "p999_us": at(0.999), "max_us": at(1.0),
            });
            (call.name().to_owned(), figures)
        })
        .collect();
    serde_json::json!({
        "holds": verdict.holds(), "verified": verdict.verified, "oversold": verdict.oversold,
        "lost": verdict.lost, "doubled": verdict.doubled, "without_permit": verdict.without_permit,
        "early": verdict.early, "miscounted": verdict.miscounted, "broken": verdict.broken, "booked": verdict.booked,
        "unanswered": verdict.unanswered, "seconds": outcome.took.as_secs_f64(),
        "peak_per_second": outcome.peak, "sold_out": outcome.stats.sold_out,
        "gave_up": outcome.stats.gave_up, "calls": calls, "fairness": fairness.json(),
    })
}

fn promises(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let (class, word) = match (verdict.verified, verdict.holds()) {
        (false, _) => ("bad", "not verified: the ledgers were not read"),
        (true, true) => ("ok", "every promise held, says the ledger"),
        (true, false) => ("bad", "a promise was broken"),
    };
    write!(
        page,
        "<p class='verdict {class}'>{word}</p><table><tr><th>from the ledgers<th>count"
    )?;
    for (what, count) in [
        ("people beyond a slot's capacity", verdict.oversold),
        ("acknowledged changes that are not there", verdict.lost),
        ("people with two bookings", verdict.doubled),
        (
            "bookings without a permit for their region",
            verdict.without_permit,
        ),
        ("people who took something before their turn", verdict.early),
        ("slots whose counter is wrong", verdict.miscounted),
        ("promises that clients saw broken", verdict.broken),
    ] {
        let class = if count == 0 { "ok" } else { "bad" };
        write!(page, "<tr><td>{what}<td class={class}>{}", group(count))?;
    }
    write!(
        page,
        "<tr><td>active bookings<td>{}</table>",
        group(verdict.booked)
    )
}

/// Bookings and refusals in each quarter of a second.
fn time_line(page: &mut String, stats: &Stats) -> std::fmt::Result {
    let most = stats
        .line
        .iter()
        .map(|step| step.0.max(step.1))
        .max()
        .unwrap_or(0)
        .max(1);
    let steps = stats.line.len().max(2);
    let seconds = steps as f64 * STEP.as_secs_f64();
    write!(
        page,
        "<h2>Bookings and refusals over time</h2><figure><svg viewBox='0 0 {WIDTH} {}' role=img \
         aria-label='Bookings and refusals over time'>",
        HEIGHT + 24.0
    )?;
    for (colour, of) in [("#2456a6", 0), ("#c4571b", 1)] {
        let mut path = String::new();
        for (at, step) in stats.line.iter().enumerate() {
            let value = if of == 0 { step.0 } else { step.1 };
            let x = at as f64 / (steps - 1) as f64 * WIDTH;
            let y = HEIGHT - value as f64 / most as f64 * (HEIGHT - 10.0);
            write!(path, "{}{x:.1},{y:.1}", if at == 0 { "M" } else { "L" })?;
        }
        write!(
            page,
            "<path d='{path}' fill=none stroke='{colour}' stroke-width=2 />"
        )?;
    }
    write!(
        page,
        "<line x1=0 y1={HEIGHT} x2={WIDTH} y2={HEIGHT} stroke='#8c959f'/>\
         <text x=0 y={y} font-size=13>0 s</text><text x={WIDTH} y={y} font-size=13 text-anchor=end>{seconds:.1} s</text>\
         <text x=4 y=14 font-size=13>{} a second</text></svg>\
         <figcaption><span style='color:#2456a6'>bookings and holds</span>, \
         <span style='color:#c4571b'>refusals</span></figcaption></figure>",
        group(most * 4),
        y = HEIGHT + 18.0,
    )
}

/// The latency of each call by percentile, from the instant it was due.
fn latencies(page: &mut String, stats: &Stats) -> std::fmt::Result {
    const NINES: [f64; 6] = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0];
    let most = stats
        .calls
        .values()
        .map(|call| call.from_due.max())
        .max()
        .unwrap_or(1)
        .max(10);
    let top = (most as f64).log10();
    write!(
        page,
        "<h2>Latency, from the instant a call was due</h2><figure><svg viewBox='0 0 {WIDTH} {}' role=img \
         aria-label='Latency by percentile'>",
        HEIGHT + 24.0
    )?;
    let colours = [
        "#2456a6", "#c4571b", "#2d7d46", "#7a3b9c", "#9a6700", "#0f6f78", "#a40e26",
    ];
    for ((call, of), colour) in stats.calls.iter().zip(colours.iter().cycle()) {
        let mut path = String::new();
        for (at, quantile) in NINES.iter().enumerate() {
            let value = of.from_due.value_at_quantile(*quantile).max(1) as f64;
            let x = 20.0 + at as f64 / (NINES.len() - 1) as f64 * (WIDTH - 120.0);
            let y = HEIGHT - value.log10() / top * (HEIGHT - 12.0);
            write!(path, "{}{x:.1},{y:.1}", if at == 0 { "M" } else { "L" })?;
        }
        let last = (of.from_due.max().max(1) as f64).log10() / top * (HEIGHT - 12.0);
        write!(
            page,
            "<path d='{path}' fill=none stroke='{colour}' stroke-width=2 /><text x={:.0} y={:.1} font-size=12 \
             fill='{colour}'>{}</text>",
            WIDTH - 96.0,
            HEIGHT - last + 4.0,
            call.name()
        )?;
    }
    for (at, name) in ["min", "p50", "p90", "p99", "p99.9", "max"]
        .iter()
        .enumerate()
    {
        let x = 20.0 + at as f64 / 5.0 * (WIDTH - 120.0);
        write!(
            page,
            "<text x={x:.1} y={} font-size=13 text-anchor=middle>{name}</text>",
            HEIGHT + 18.0
        )?;
    }
    write!(
        page,
        "</svg><figcaption>Logarithmic; the top is {:.1} s.</figcaption></figure>",
        most as f64 / 1e6
    )
}

fn regions(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    if verdict.regions.is_empty() {
        return Ok(());
    }
    page.push_str(
        "<h2>Sold out</h2><table><tr><th>region<th>places<th>taken<th style='width:40%'>share",
    );
    for (region, (places, taken)) in &verdict.regions {
        let share = *taken as f64 / (*places).max(1) as f64 * 100.0;
        write!(
            page,
            "<tr><td>{region}<td>{}<td>{}<td><div class=bar title='{share:.1} %'><i style='width:{share:.1}%'></i></div>",
            group(*places),
            group(*taken)
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn calls(page: &mut String, stats: &Stats) -> std::fmt::Result {
    page.push_str(
        "<h2>Calls</h2><table><tr><th>call<th>count<th>p50 ms<th>p90 ms<th>p99 ms<th>p99.9 ms<th>max ms<th>outcomes",
    );
    for (call, of) in &stats.calls {
        write!(
            page,
            "<tr><td>{}<td>{}",
            call.name(),
            group(of.from_due.len())
        )?;
        for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
            write!(
                page,
                "<td>{:.1}",
                of.from_due.value_at_quantile(quantile) as f64 / 1_000.0
            )?;
        }
        let outcomes: Vec<String> = of
            .outcomes
            .iter()
            .map(|(outcome, count)| format!("{outcome} {}", group(*count)))
            .collect();
        write!(page, "<td>{}", outcomes.join("<br>"))?;
    }
    page.push_str("</table>");
    Ok(())
}
