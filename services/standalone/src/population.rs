//! Real people by district and year of age (resident registration statistics, July 2021), scaled and numbered.
//!
//! Invariant: a person's district, birth date and behaviour follow from their number and the seed alone.

use anyhow::Context as _;
use jiff::ToSpan as _;
use jiff::civil::{Date, date};

const STATISTICS: &str = include_str!("../data/korea-population-2021-07.csv");
/// The day the ages are as of.
const AS_OF: Date = date(2021, 7, 31);
/// The cohort: people of 50 to 59.
pub(crate) const AGES: std::ops::RangeInclusive<u8> = 50..=59;
/// The province whose people stand in the file twice; the second row is left out.
const COUNTED_TWICE: &str = "3611000000";

/// A city, county or borough.
#[derive(Clone, Debug)]
pub(crate) struct District {
    /// The region's id, such as `seoul`.
    pub region: String,
    /// Its name, as in the statistics.
    pub name: String,
    /// The first five digits of its administrative code.
    pub code: String,
    /// People of each age of the cohort, scaled.
    by_age: Vec<(u8, u64)>,
    first: u64,
    people: u64,
}

/// All districts with their people.
#[derive(Clone, Debug)]
pub(crate) struct Population {
    /// In the order of the statistics.
    pub districts: Vec<District>,
    people: u64,
}

/// One person, made from a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person<'a> {
    /// Where they live.
    pub district: &'a District,
    /// When they were born.
    pub birth_date: Date,
}

impl Population {
    /// Reads the statistics and scales every district and age, so that the total is `scale` of the real one.
    pub(crate) fn load(scale: f64, only_regions: &[String]) -> anyhow::Result<Self> {
        anyhow::ensure!(
            scale > 0.0 && scale <= 1.0,
            "--scale must be above 0 and at most 1"
        );
        let mut districts = Vec::new();
        let (mut real, mut given) = (0u64, 0u64);
        for (region, name, code, ages) in rows()? {
            if !only_regions.is_empty() && !only_regions.contains(&region) {
                continue;
            }
            let mut by_age = Vec::new();
            let first = given;
            for (age, people) in ages {
                real += people;
                // Rounding the running total keeps the sum right and every district near its share.
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "below 2^53"
                )]
                let target = (real as f64 * scale).round() as u64;
                by_age.push((age, target - given));
                given = target;
            }
            let code = code.chars().take(5).collect();
            districts.push(District {
                region,
                name,
                code,
                by_age,
                first,
                people: given - first,
            });
        }
        anyhow::ensure!(
            given > 0,
            "nobody is left at this scale and in these regions"
        );
        Ok(Self {
            districts,
            people: given,
        })
    }

    /// How many people there are.
    #[must_use]
    pub(crate) fn people(&self) -> u64 {
        self.people
    }

    /// The regions, in the order of the statistics.
    #[must_use]
    pub(crate) fn regions(&self) -> Vec<String> {
        let mut regions: Vec<String> = Vec::new();
        for district in &self.districts {
            if !regions.contains(&district.region) {
                regions.push(district.region.clone());
            }
        }
        regions
    }

    /// The person with a number below [`Population::people`].
    #[must_use]
    pub(crate) fn person(&self, number: u64) -> Person<'_> {
        let at = self
            .districts
            .partition_point(|district| district.first <= number)
            - 1;
        let district = &self.districts[at];
        let mut left = number - district.first;
        let mut age = *AGES.start();
        for (of, people) in &district.by_age {
            age = *of;
            if left < *people {
                break;
            }
            left -= people;
        }
        // Somewhere in the year that makes this age on the day of the statistics.
        let latest = AS_OF.saturating_sub(i32::from(age).years());
        let days = i32::try_from(spread(number) % 365).unwrap_or(0);
        Person {
            district,
            birth_date: latest.saturating_sub(days.days()),
        }
    }
}

impl District {
    /// How many of the cohort live here, scaled.
    #[must_use]
    pub(crate) fn people(&self) -> u64 {
        self.people
    }
}

/// The birth dates of the cohort, the earliest and the latest.
#[must_use]
pub(crate) fn birth_dates() -> (Date, Date) {
    let oldest = i32::from(*AGES.end()) + 1;
    let earliest = AS_OF.saturating_sub(oldest.years()).saturating_add(1.day());
    (
        earliest,
        AS_OF.saturating_sub(i32::from(*AGES.start()).years()),
    )
}

/// Spreads neighbouring numbers (the finaliser of SplitMix64).
#[must_use]
pub(crate) fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

type Row = (String, String, String, Vec<(u8, u64)>);

/// The lowest level of the statistics: a city that is also listed by borough is left out, Sejong is one district.
fn rows() -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::Reader::from_reader(STATISTICS.as_bytes());
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header == name)
            .with_context(|| format!("no column {name}"))
    };
    let ages: Vec<(u8, usize)> = AGES
        .map(|age| column(&format!("age_{age}")).map(|at| (age, at)))
        .collect::<anyhow::Result<_>>()?;
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    let field =
        |record: &csv::StringRecord, at: usize| record.get(at).unwrap_or_default().to_owned();
    let names: Vec<(String, String)> = records
        .iter()
        .map(|record| (field(record, 1), field(record, 2)))
        .collect();
    let mut rows = Vec::new();
    for record in &records {
        let (code, region, mut name) = (field(record, 0), field(record, 1), field(record, 2));
        let borough = format!("{name} ");
        let by_borough = names
            .iter()
            .any(|(of, other)| *of == region && other.starts_with(&borough));
        if name.is_empty() && region == "sejong" && code != COUNTED_TWICE {
            name = "세종시".to_owned();
        }
        if name.is_empty() || by_borough {
            continue;
        }
        let people = ages
            .iter()
            .map(|(age, at)| Ok((*age, field(record, *at).parse::<u64>()?)))
            .collect::<anyhow::Result<_>>()?;
        rows.push((region, name, code, people));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifties_of_the_whole_country_are_8_591_085_and_a_hundredth_of_them_85_911() {
        let everybody = Population::load(1.0, &[]).expect("loads");
        assert_eq!(everybody.people(), 8_591_085);
        assert_eq!(everybody.regions().len(), 17);
        assert_eq!(Population::load(0.01, &[]).expect("loads").people(), 85_911);
    }

    #[test]
    fn every_number_is_a_person_of_the_cohort_in_a_district_with_people() {
        let some = Population::load(0.001, &[]).expect("loads");
        let (earliest, latest) = birth_dates();
        let mut by_district = std::collections::BTreeMap::new();
        for number in 0..some.people() {
            let person = some.person(number);
            assert!(
                (earliest..=latest).contains(&person.birth_date),
                "{}",
                person.birth_date
            );
            *by_district
                .entry(person.district.code.clone())
                .or_insert(0u64) += 1;
        }
        for district in &some.districts {
            assert_eq!(
                by_district.get(&district.code).copied().unwrap_or(0),
                district.people()
            );
        }
    }

    #[test]
    fn the_cohort_is_ten_years_long() {
        assert_eq!(birth_dates(), (date(1961, 8, 1), date(1971, 7, 31)));
    }
}
