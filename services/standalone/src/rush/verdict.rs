//! The verdict: what the ledgers say, held against what the clients were told.
//!
//! Invariant: own SQL, read only, no code of the services. Without every region's ledger the verdict is `not verified`.

mod facts;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context as _;

use super::Rush;
use super::acks::{Ack, Kind};
use super::driver::Outcome;
use super::group;
use super::history::History;
use facts::{Facts, Place};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the ledgers were read at all.
    pub verified: bool,
    /// People beyond a slot's capacity.
    pub oversold: u64,
    /// Acknowledged changes that the ledger does not have.
    pub lost: u64,
    /// People with two bookings.
    pub doubled: u64,
    /// Bookings of people without a permit for that region.
    pub without_permit: u64,
    /// People who held or booked before their turn.
    pub early: u64,
    /// Slots whose counter is not the number of their appointments.
    pub miscounted: u64,
    /// Promises that clients themselves saw broken.
    pub broken: u64,
    /// Active bookings in the ledgers.
    pub booked: u64,
    /// Of them, those whose answer no client got (its deadline had passed).
    pub unanswered: u64,
    /// By region: places, booked.
    pub regions: BTreeMap<String, (u64, u64)>,
}

impl Verdict {
    /// Whether everything held.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        self.verified
            && self.oversold
                + self.lost
                + self.doubled
                + self.without_permit
                + self.early
                + self.miscounted
                + self.broken
                == 0
    }

    /// What the terminal shows.
    #[must_use]
    pub(crate) fn told(&self) -> String {
        if !self.verified {
            return "verdict: NOT VERIFIED (name every region's --ledger, and --people)".to_owned();
        }
        let word = if self.holds() { "HOLDS" } else { "BROKEN" };
        format!(
            "verdict, from the ledgers: {word}\n\
             \x20 oversold                       {}\n\
             \x20 acknowledged and lost          {}\n\
             \x20 people with two bookings       {}\n\
             \x20 bookings without a permit      {}\n\
             \x20 taken before their turn        {}\n\
             \x20 slots with a wrong counter     {}\n\
             \x20 promises clients saw broken    {}\n\
             \x20 (active bookings {}, of which {} whose answer came too late for its caller)",
            self.oversold,
            self.lost,
            self.doubled,
            self.without_permit,
            self.early,
            self.miscounted,
            self.broken,
            group(self.booked),
            group(self.unanswered),
        )
    }
}

/// Reads the ledgers and judges.
pub(crate) async fn judge(
    rush: &Rush,
    outcome: &Outcome,
    history: &History,
) -> anyhow::Result<Verdict> {
    let broken = outcome.stats.broken.values().sum();
    let (Some(people), false) = (&rush.args.people, rush.args.ledgers.is_empty()) else {
        return Ok(Verdict {
            broken,
            ..Verdict::default()
        });
    };
    let mut ledgers = BTreeMap::new();
    for named in &rush.args.ledgers {
        let (region, url) = named
            .split_once('=')
            .context("--ledger must be REGION=URL")?;
        let facts = read(url, &rush.args.campaign)
            .await
            .with_context(|| format!("ledger of {region}"))?;
        ledgers.insert(region.to_owned(), facts);
    }
    let regions = &rush.regions;
    if regions.iter().any(|region| !ledgers.contains_key(region)) {
        return Ok(Verdict {
            broken,
            ..Verdict::default()
        });
    }
    let places = match people.strip_prefix("sqlite:") {
        Some(path) => sqlite::places(path, &rush.args.campaign),
        None => postgres::places(people, &rush.args.campaign).await,
    };
    let places = places.context("the database of people")?;
    Ok(Verdict {
        broken,
        early: early(&ledgers, &places, history),
        ..weigh(regions, &ledgers, &places, &outcome.acks)
    })
}

async fn read(url: &str, campaign: &str) -> anyhow::Result<Facts> {
    match url.strip_prefix("sqlite:") {
        Some(path) => sqlite::facts(path, campaign),
        None => postgres::facts(url, campaign).await,
    }
}

/// Pure: the same facts give the same verdict.
fn weigh(
    regions: &[String],
    ledgers: &BTreeMap<String, Facts>,
    places: &HashMap<[u8; 16], Place>,
    acks: &[Ack],
) -> Verdict {
    let mut verdict = Verdict {
        verified: true,
        ..Verdict::default()
    };
    let mut bookings_of: HashMap<[u8; 16], BTreeSet<[u8; 16]>> = HashMap::new();
    for (region, facts) in ledgers {
        count_slots(region, facts, &mut verdict);
        for one in facts
            .appointments
            .iter()
            .filter(|one| one.ours && one.state == "BOOKED")
        {
            bookings_of
                .entry(one.person)
                .or_default()
                .insert(one.booking);
        }
        let active = facts.claims.iter().filter(|(_, claim)| claim.active());
        for (person, claim) in active {
            if claim.state == "BOOKED" {
                verdict.booked += 1;
                // A claim without appointments would be a booking that does not exist.
                bookings_of
                    .entry(*person)
                    .or_default()
                    .insert(claim.booking.unwrap_or_default());
            }
            let permitted = places
                .get(person)
                .is_some_and(|place| place.region == *region && place.serial == claim.serial);
            verdict.without_permit += u64::from(!permitted);
        }
    }
    verdict.doubled = bookings_of
        .values()
        .filter(|bookings| bookings.len() > 1)
        .count() as u64;
    verdict.lost = lost(regions, ledgers, acks);
    let told: BTreeSet<[u8; 16]> = acks.iter().map(|ack| *ack.booking.as_bytes()).collect();
    let all = ledgers.values().flat_map(|facts| facts.claims.values());
    let booked = all
        .filter(|claim| claim.state == "BOOKED")
        .filter_map(|claim| claim.booking);
    verdict.unanswered = booked.filter(|booking| !told.contains(booking)).count() as u64;
    verdict
}

/// People whose place no reader's frontier can have passed when the ledger gave them their first unit.
fn early(
    ledgers: &BTreeMap<String, Facts>,
    places: &HashMap<[u8; 16], Place>,
    history: &History,
) -> u64 {
    let mut early = 0;
    for (region, facts) in ledgers {
        let reach = history.reach(region);
        for (person, at) in &facts.taken {
            let place = places.get(person);
            let ordinal = place.and_then(|place| history.ordinal(place.bucket, &place.ticket));
            let due = ordinal.is_some_and(|ordinal| ordinal < reach.frontier(*at));
            early += u64::from(!due);
        }
    }
    early
}

fn count_slots(region: &str, facts: &Facts, verdict: &mut Verdict) {
    let mut active: HashMap<i64, u64> = HashMap::new();
    for one in facts
        .appointments
        .iter()
        .filter(|one| one.state != "CANCELLED")
    {
        *active.entry(one.slot).or_default() += 1;
    }
    let of_region = verdict.regions.entry(region.to_owned()).or_default();
    for (slot, counts) in &facts.slots {
        let people = active.remove(slot).unwrap_or(0);
        verdict.oversold += people.saturating_sub(counts.capacity);
        verdict.miscounted += u64::from(people != counts.booked);
        of_region.0 += counts.capacity;
        of_region.1 += people;
    }
    // Appointments at slots that do not exist.
    verdict.oversold += active.values().sum::<u64>();
}

/// Every acknowledgement is in the ledger, and the last one of each person is what the claim says, unless a later
/// change followed whose answer was lost on its way.
fn lost(regions: &[String], ledgers: &BTreeMap<String, Facts>, acks: &[Ack]) -> u64 {
    let mut lost = 0;
    let mut last: HashMap<[u8; 16], &Ack> = HashMap::new();
    for ack in acks {
        let facts = regions
            .get(usize::from(ack.region))
            .and_then(|region| ledgers.get(region));
        let recorded =
            facts.and_then(|facts| facts.requests.get(&(ack.person, *ack.request.0.as_bytes())));
        let verdicts: &[&str] = match ack.kind {
            Kind::Booked => &["BOOKED", "CONFIRMED"],
            Kind::Held => &["HELD"],
            Kind::Moved => &["MOVED"],
            Kind::Cancelled => &["CANCELLED"],
        };
        let there = recorded.is_some_and(|request| {
            verdicts.contains(&request.verdict.as_str())
                && request.booking == *ack.booking.as_bytes()
                && request.version == ack.version.0
                && (ack.kind == Kind::Cancelled || request.slots == ack.slots.map(|slot| slot.0))
        });
        lost += u64::from(!there);
        let newest = last.entry(ack.person).or_insert(ack);
        if ack.version > newest.version {
            *newest = ack;
        }
    }
    for (person, ack) in last {
        let facts = regions
            .get(usize::from(ack.region))
            .and_then(|region| ledgers.get(region));
        let claim = facts.and_then(|facts| facts.claims.get(&person));
        let kept = claim.is_some_and(|claim| {
            let as_told = match ack.kind {
                Kind::Booked | Kind::Moved => {
                    claim.state == "BOOKED" && claim.booking == Some(*ack.booking.as_bytes())
                }
                Kind::Cancelled => claim.state == "FREE",
                // A hold may have died since.
                Kind::Held => true,
            };
            claim.version > ack.version.0 || (claim.version == ack.version.0 && as_told)
        });
        lost += u64::from(!kept);
    }
    lost
}
