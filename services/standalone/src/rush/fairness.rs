//! Did people with ten devices, or who reload, become admitted earlier in this rush? From everybody's permit and the room's
//! published history alone: what people saw of it, and when, does not matter.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::history::{History, payload};
use super::manners::{Manner, manner};
use super::permits::Store;
use super::{Rush, group};
use crate::equivalence::{Comparison, Moments, Shown, rule};

const COMPARED: [Manner; 2] = [Manner::TenDevices, Manner::Reloads];

/// When those who wait as they are told became admitted, and the other groups against them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fairness {
    others: Moments,
    groups: Vec<(Manner, Comparison)>,
    /// People of these groups whose turn had not come when the history ended.
    never: u64,
}

/// Compares the groups by the instant at which the line passed each person's ordinal.
pub(crate) fn judge(rush: &Rush, store: &Store, history: &History) -> anyhow::Result<Fairness> {
    let Some(opened) = history.opened() else {
        return Ok(Fairness::default());
    };
    let mut turns = BTreeMap::new();
    let mut moments = BTreeMap::<Manner, Moments>::new();
    let mut never = 0;
    for number in 0..rush.population.people() {
        let manner = manner(number, rush.args.seed, rush.args.absent);
        if manner != Manner::Patient && !COMPARED.contains(&manner) {
            continue;
        }
        let (region, bucket, ticket) = place(&store.permit(number)?)?;
        let turns = turns
            .entry(region)
            .or_insert_with_key(|region| history.turns(region));
        let ordinal = history.ordinal(bucket, &ticket);
        match ordinal.and_then(|ordinal| turns.at(ordinal)) {
            Some(at) => moments
                .entry(manner)
                .or_default()
                .note((at - opened) as f64 / 1e6),
            None => never += 1,
        }
    }
    let of = |manner| moments.get(&manner).copied().unwrap_or_default();
    let others = of(Manner::Patient);
    let groups = COMPARED.map(|manner| (manner, Comparison::of(of(manner), others)));
    Ok(Fairness {
        others,
        groups: groups.to_vec(),
        never,
    })
}

/// Region, bucket and draw ticket of a permit.
fn place(permit: &str) -> anyhow::Result<(String, u32, [u8; 16])> {
    let permit = payload(permit)?;
    let region = permit["region"].as_str().context("a region")?.to_owned();
    let bucket = permit["bucket"].as_u64().context("a bucket")?;
    let ticket = permit["ticket"].as_str().context("a ticket")?;
    anyhow::ensure!(ticket.len() == 32 && ticket.is_ascii(), "not a ticket");
    let mut bytes = [0; 16];
    for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&ticket[at..at + 2], 16)?;
    }
    Ok((region, u32::try_from(bucket)?, bytes))
}

// === impl Fairness ===

impl Fairness {
    /// What the terminal shows.
    pub(crate) fn told(&self) -> String {
        let mut text = format!(
            "becoming admitted, from permits and history: patient people {:.2} s after the opening (n = {}); {} never",
            self.others.mean,
            group(self.others.n),
            group(self.never)
        );
        for (manner, found) in &self.groups {
            let verdict = found.shown().name();
            text.push_str(&format!(
                "\n  {:<26} {}: {verdict}",
                manner.name(),
                found.told()
            ));
        }
        text
    }

    /// A section of the report.
    pub(crate) fn section(&self, page: &mut String) -> std::fmt::Result {
        write!(
            page,
            "<h2>Fairness</h2><p>{} {} people wait as they are told, and became admitted {:.2} s after the opening on average; {} of all \
             compared were not admitted before nothing was left. By permits and the room's history.</p><table><tr><th>group<th>people\
             <th>mean s<th>difference s<th>90 % interval<th>p<th>verdict",
            rule(),
            group(self.others.n),
            self.others.mean,
            group(self.never)
        )?;
        for (manner, found) in &self.groups {
            let (from, to) = found.interval();
            let class = match found.shown() {
                Shown::Equivalent => "ok",
                Shown::Unproven => "bad",
                Shown::TooFew => "open",
            };
            write!(
                page,
                "<tr><td>{}<td>{}<td>{:.2}<td>{:+.3}<td>{from:+.3} to {to:+.3}<td>{:.1e}<td class={class}>{}",
                manner.name(),
                group(found.n),
                found.mean,
                found.difference,
                found.p,
                found.shown().name()
            )?;
        }
        page.push_str("</table>");
        Ok(())
    }

    /// For other programs.
    pub(crate) fn json(&self) -> Value {
        let groups = self.groups.iter().map(|(manner, found)| {
            let (from, to) = found.interval();
            json!({
                "group": manner.name(), "n": found.n, "mean_secs": found.mean, "difference_secs": found.difference,
                "interval_90_secs": [from, to], "p": found.p, "verdict": found.shown().name(),
            })
        });
        json!({ "patient": { "n": self.others.n, "mean_secs": self.others.mean }, "never": self.never, "groups": groups.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_place_is_read_from_a_permit_and_from_nothing_else() {
        let permit = |ticket: &str| {
            let claims =
                json!({ "region": "seoul", "bucket": 3, "ticket": ticket, "caller": "dev" });
            let signed = [claims.to_string().into_bytes(), vec![0; 64]].concat();
            let b64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
            format!("v4.public.{}.x", b64.encode(signed))
        };
        let read = place(&permit("000102030405060708090a0b0c0d0eff")).expect("a permit");
        assert_eq!((read.0.as_str(), read.1), ("seoul", 3));
        assert_eq!((read.2[1], read.2[15]), (1, 0xff));
        assert!(place(&permit("0001")).is_err() && place("v4.public.").is_err());
    }
}
