//! Everything a page says, in every language, in one place each.
//!
//! Invariant: a text that one language lacks does not compile: [`Texts`] has no default.

mod english;
mod korean;
mod refusals;

use std::time::Duration;

use domain::room::Phase;

pub(super) use refusals::{Told, told};

/// The languages of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Language {
    /// Korean: what the page speaks to whoever asks for nothing else.
    Korean,
    /// English.
    English,
}

impl Language {
    pub(super) const ALL: [Self; 2] = [Self::Korean, Self::English];

    /// As in `lang` attributes, in `?lang=` and in the cookie.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Korean => "ko",
            Self::English => "en",
        }
    }

    /// Its name for those who speak it.
    pub(super) const fn own_name(self) -> &'static str {
        match self {
            Self::Korean => "한국어",
            Self::English => "English",
        }
    }

    /// Of a tag; also of one with a region, such as `en-GB`.
    pub(super) fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split('-').next()?;
        Self::ALL
            .into_iter()
            .find(|language| language.tag().eq_ignore_ascii_case(primary))
    }

    /// The first language of an `Accept-Language` header that is spoken here, by its weights.
    pub(super) fn accepted(header: &str) -> Option<Self> {
        let ranges = header.split(',').take(20).filter_map(|range| {
            let mut parts = range.split(';');
            let language = Self::from_tag(parts.next()?)?;
            let weight = parts.find_map(|part| part.trim().strip_prefix("q="));
            let weight = weight.map_or(Some(1.0), |q| q.trim().parse::<f32>().ok())?;
            (weight > 0.0).then_some((language, weight))
        });
        // The earlier one of two with the same weight.
        let best = ranges.fold(None, |best: Option<(Self, f32)>, (language, weight)| {
            if best.is_some_and(|(_, heaviest)| heaviest >= weight) {
                best
            } else {
                Some((language, weight))
            }
        });
        best.map(|(language, _)| language)
    }

    /// What the pages say in it.
    pub(super) const fn texts(self) -> &'static Texts {
        match self {
            Self::Korean => &korean::TEXTS,
            Self::English => &english::TEXTS,
        }
    }

    /// A region by its name where it is one of Korea's, by its id elsewhere.
    pub(super) fn region(self, id: &str) -> String {
        let known = REGIONS.iter().find(|(known, _, _)| *known == id);
        match (known, self) {
            (Some((_, korean, _)), Self::Korean) => (*korean).to_owned(),
            (Some((_, _, english)), Self::English) => (*english).to_owned(),
            (None, _) => id.to_owned(),
        }
    }

    /// So many people.
    pub(super) const fn people(self, count: u64) -> &'static str {
        let texts = self.texts();
        if count == 1 {
            texts.person_unit
        } else {
            texts.people_unit
        }
    }

    /// A length of time in words, to the larger two units.
    pub(super) fn duration(self, duration: Duration) -> String {
        let texts = self.texts();
        let seconds = duration.as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => format!("{seconds}{}", texts.unit_second),
            (0, 0, _) => format!(
                "{minutes}{} {seconds}{}",
                texts.unit_minute, texts.unit_second
            ),
            (0, _, _) => format!("{hours}{} {minutes}{}", texts.unit_hour, texts.unit_minute),
            (_, _, _) => format!("{days}{} {hours}{}", texts.unit_day, texts.unit_hour),
        }
    }

    /// What a room is doing.
    pub(super) const fn phase(self, phase: Phase) -> &'static str {
        let texts = self.texts();
        match phase {
            Phase::Lobby => texts.phase_lobby,
            Phase::Frozen => texts.phase_frozen,
            Phase::Drawn => texts.phase_drawn,
            Phase::Open => texts.phase_open,
            Phase::Paused => texts.phase_paused,
            Phase::Exhausted => texts.phase_exhausted,
            Phase::Ended => texts.phase_ended,
        }
    }
}

/// A number as people read it: in groups of three.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Korea's regions, as the demonstration's data names them.
const REGIONS: [(&str, &str, &str); 17] = [
    ("seoul", "서울", "Seoul"),
    ("busan", "부산", "Busan"),
    ("daegu", "대구", "Daegu"),
    ("incheon", "인천", "Incheon"),
    ("gwangju", "광주", "Gwangju"),
    ("daejeon", "대전", "Daejeon"),
    ("ulsan", "울산", "Ulsan"),
    ("sejong", "세종", "Sejong"),
    ("gyeonggi", "경기", "Gyeonggi"),
    ("gangwon", "강원", "Gangwon"),
    ("chungbuk", "충북", "North Chungcheong"),
    ("chungnam", "충남", "South Chungcheong"),
    ("jeonbuk", "전북", "North Jeolla"),
    ("jeonnam", "전남", "South Jeolla"),
    ("gyeongbuk", "경북", "North Gyeongsang"),
    ("gyeongnam", "경남", "South Gyeongsang"),
    ("jeju", "제주", "Jeju"),
];

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One language's texts.
        #[derive(Debug)]
        pub(super) struct Texts {
            $($(#[$doc])* pub(super) $name: &'static str,)+
        }

        #[cfg(test)]
        impl Texts {
            /// Every text with its name.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

texts! {
    // === Every page ===
    site, skip_to_content, language, nav, board, clinic, footer, live, stale, reload, not_found, not_found_help,
    busy, busy_help, unit_day, unit_hour, unit_minute, unit_second, error, details, as_of,
    // === The board ===
    board_title, board_lead, no_campaign, born, opens_at, countdown, countdown_over, doors_any_moment, doors_any_moment_help,
    phase_lobby, phase_frozen, phase_drawn, phase_open, phase_paused, phase_exhausted, phase_ended,
    lobby_help, frozen_help, drawn_help, open_help, paused_help, exhausted_help, ended_help,
    people_in_line, people_unit, person_unit, people_later, admitted, speed, speed_unit, last_in_line, eta_between, eta_unknown,
    eta_now, eta_not_open, by_region, region, waiting, let_in, state, state_moving, state_waiting, sold_out,
    supply, supply_lead, supply_none, received, opened, booked, held, left, given,
    total, plot_caption, per_region_lead,
    // === Signing in ===
    sign_in, sign_in_lead, clinic_name, clinic_name_help, credential, credential_help, certificate_lead,
    certificate_missing, sign_in_button, sign_out,
    // === The clinic's pages ===
    today, inventory, stock, check_in_title, code, code_help, check_in, sheet, sheet_empty, sheet_more, time, vaccine,
    dose, action, visit_booked, visit_checked_in, visit_given, visit_no_show, visit_other, no_show, dose_given,
    dose_given_title, lot, lot_help, record_dose, done_check_in, done_given, done_no_show, done_stock, done_short, repeated,
    inventory_lead, inventory_empty, capacity, slot_open, slot_full, slot_closed, slots_more,
    stock_lead, stock_empty, wasted, walk_in, walk_in_given, deliver, deliver_help, doses_count, waste, waste_help,
    set_walk_ins, set_walk_ins_help, record_walk_in, record_walk_in_help, submit, form_expired,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The compiler holds that no text is missing; this holds that none is empty or left in the other language.
    #[test]
    fn both_languages_have_every_text() {
        let [korean, english] = Language::ALL.map(|language| language.texts().all());
        for ((name, korean), (_, english)) in korean.iter().zip(&english) {
            assert!(
                !korean.trim().is_empty() && !english.trim().is_empty(),
                "{name}"
            );
            // What stands between two times is no word.
            if !korean.chars().any(char::is_alphabetic) {
                continue;
            }
            assert!(
                korean.chars().any(|c| ('가'..='힣').contains(&c)),
                "{name}: {korean}"
            );
            assert!(
                english.is_ascii() || !english.chars().any(|c| ('가'..='힣').contains(&c)),
                "{name}"
            );
        }
        let names: BTreeSet<_> = korean.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), korean.len());
    }

    #[test]
    fn the_language_is_the_first_that_is_spoken_here() {
        for (header, expected) in [
            ("en-GB,en;q=0.9,ko;q=0.8", Some(Language::English)),
            ("fr, ko;q=0.5, en;q=0.7", Some(Language::English)),
            ("ko-KR", Some(Language::Korean)),
            ("en;q=0, ko;q=0.1", Some(Language::Korean)),
            ("fr", None),
            ("", None),
            ("en;q=x", None),
        ] {
            assert_eq!(Language::accepted(header), expected, "{header}");
        }
    }

    #[test]
    fn numbers_and_times_are_written_for_people() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        let second = Duration::from_secs(1);
        assert_eq!(Language::English.duration(second * 59), "59 s");
        assert_eq!(Language::English.duration(second * 61), "1 min 1 s");
        assert_eq!(Language::Korean.duration(second * 3_660), "1시간 1분");
        assert_eq!(Language::Korean.duration(second * 90_000), "1일 1시간");
    }
}
