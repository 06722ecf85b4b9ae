//! Calendar days of the API as numbers.

use jiff::civil::{Date, date};
use proto::common::Date as PbDate;

/// Days since 1970-01-01; `None` for a day that no calendar has.
pub(super) fn day_number(day: &PbDate) -> Option<i32> {
    let year = i16::try_from(day.year).ok().filter(|year| *year >= 1)?;
    let month = i8::try_from(day.month).ok()?;
    let date = Date::new(year, month, i8::try_from(day.day).ok()?).ok()?;
    since_1970(date)
}

fn since_1970(day: Date) -> Option<i32> {
    Some(day.since(date(1970, 1, 1)).ok()?.get_days())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970_and_impossible_ones_are_none() {
        let of = |year, month, day| day_number(&PbDate { year, month, day });
        assert_eq!(of(1970, 1, 1), Some(0));
        assert_eq!(of(1969, 12, 31), Some(-1));
        assert_eq!(of(2021, 8, 26), Some(18_865));
        for (year, month, day) in [
            (2021, 2, 29),
            (2021, 13, 1),
            (2021, 0, 1),
            (0, 1, 1),
            (10_000, 1, 1),
            (2021, 1, 300),
        ] {
            assert_eq!(of(year, month, day), None, "{year}-{month}-{day}");
        }
    }
}
