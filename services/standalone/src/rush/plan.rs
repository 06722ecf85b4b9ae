//! The supply of a rush: clinics in proportion to people, sizes drawn from real ones, positions synthetic.

use std::collections::BTreeMap;

use jiff::ToSpan as _;
use jiff::civil::Date;
use proto::admin::{ClinicSpec, SlotSpec, StockSpec};

use crate::population::{Population, spread};

const CAPACITIES: &str = include_str!("../../data/clinic-capacity-2021-05.csv");
/// The vaccine given; its name says that nothing here is a real product.
pub(crate) const VACCINE: &str = "demo-mrna";
/// Start times of a clinic's day.
const HOURS: [i8; 4] = [9, 11, 13, 15];
/// Days until the first appointments.
const LEAD_DAYS: i32 = 7;
/// Days from the first dose to the second.
pub(crate) const INTERVAL_DAYS: i32 = 28;
/// Of every so many places for a first dose there is one for a second.
const SECOND_DOSE_EVERY: u32 = 10;

/// A region's clinics.
pub(crate) type Plan = BTreeMap<String, Vec<ClinicSpec>>;

/// Clinics whose places for a first dose add up to `share` of the people of each district.
pub(crate) fn clinics(population: &Population, share: f64, today: Date) -> anyhow::Result<Plan> {
    let sizes = sizes()?;
    let mut plan = Plan::new();
    let mut drawn = 0u64;
    for district in &population.districts {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "below 2^53"
        )]
        let mut wanted = (district.people() as f64 * share).round() as u32;
        let mut number = 0;
        while wanted > 0 {
            drawn += 1;
            number += 1;
            let pick = usize::try_from(spread(drawn) % sizes.len() as u64).unwrap_or(0);
            let size = sizes[pick].min(wanted);
            wanted -= size;
            let day = i32::try_from(spread(drawn ^ 0xDA7) % 5).unwrap_or(0);
            let clinic = clinic(&district.code, &district.name, number, size, today, day);
            plan.entry(district.region.clone())
                .or_default()
                .push(clinic);
        }
    }
    Ok(plan)
}

fn clinic(code: &str, district: &str, number: u32, size: u32, today: Date, day: i32) -> ClinicSpec {
    let id = format!("{code}-{number:04}");
    let first = today.saturating_add((LEAD_DAYS + day).days());
    let second = first.saturating_add(INTERVAL_DAYS.days());
    let mut slots = Vec::new();
    let mut left = size;
    for (at, hour) in HOURS.iter().enumerate() {
        let hours_left = u32::try_from(HOURS.len() - at).unwrap_or(1);
        let capacity = left.div_ceil(hours_left);
        left -= capacity;
        slots.extend(slot(first, *hour, 1, capacity));
        slots.extend(slot(second, *hour, 2, capacity / SECOND_DOSE_EVERY));
    }
    let received = slots.iter().map(|slot| slot.capacity).sum();
    let position = spread(u64::from(number) ^ code.parse::<u64>().unwrap_or(0) << 20);
    ClinicSpec {
        display_name: format!("{district} {number} (synthetic)"),
        district: district.to_owned(),
        clinic: id,
        // Somewhere in the bounding box of the country: the statistics have no positions.
        latitude: 34.0 + (position % 4_000) as f64 / 1_000.0,
        longitude: 126.0 + (position / 4_000 % 3_000) as f64 / 1_000.0,
        shard: None,
        stock: vec![StockSpec {
            vaccine: VACCINE.to_owned(),
            received,
        }],
        slots,
    }
}

fn slot(day: Date, hour: i8, dose: u32, capacity: u32) -> Option<SlotSpec> {
    (capacity > 0).then(|| SlotSpec {
        // Korea has one zone and no daylight saving.
        starts_at: format!("{day}T{hour:02}:00:00+09:00"),
        day: day.to_string(),
        vaccine: VACCINE.to_owned(),
        dose,
        capacity,
        closed: false,
    })
}

/// Appointments of each clinic-day that had any.
fn sizes() -> anyhow::Result<Vec<u32>> {
    let mut reader = csv::Reader::from_reader(CAPACITIES.as_bytes());
    let mut sizes = Vec::new();
    for record in reader.records() {
        let record = record?;
        let open: u32 = record.get(3).unwrap_or_default().parse()?;
        let taken: u32 = record.get(4).unwrap_or_default().parse()?;
        if open + taken > 0 {
            sizes.push(open + taken);
        }
    }
    anyhow::ensure!(!sizes.is_empty(), "the capacities are empty");
    Ok(sizes)
}

/// Today where the clinics are.
#[must_use]
pub(crate) fn today() -> Date {
    let now = runtime::Clock::system().wall();
    let now =
        jiff::Timestamp::from_microsecond(now.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    // Korea is nine hours ahead all year.
    jiff::tz::Offset::constant(9).to_datetime(now).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supply_is_the_asked_share_of_demand_in_every_district() {
        let population = Population::load(0.01, &[]).expect("loads");
        let plan = clinics(&population, 0.7, jiff::civil::date(2026, 11, 23)).expect("plans");
        assert_eq!(plan.len(), 17);
        let places: u32 = plan
            .values()
            .flatten()
            .flat_map(|clinic| &clinic.slots)
            .filter(|slot| slot.dose == 1)
            .map(|slot| slot.capacity)
            .sum();
        let share = f64::from(places) / 85_911.0;
        assert!((0.69..0.71).contains(&share), "{share}");
        for clinic in plan.values().flatten() {
            let all: u32 = clinic.slots.iter().map(|slot| slot.capacity).sum();
            assert_eq!(clinic.stock[0].received, all);
        }
    }

    #[test]
    fn clinic_days_have_their_real_mean_of_43() {
        let sizes = sizes().expect("reads");
        assert_eq!(sizes.len(), 14_577 - 8_387);
        let mean = sizes.iter().map(|n| f64::from(*n)).sum::<f64>() / sizes.len() as f64;
        assert!((42.0..44.0).contains(&mean), "{mean}");
    }
}
