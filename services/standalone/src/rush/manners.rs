//! How people wait: most as they are told, some with every trick that was tried in July 2021.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::population::spread;

/// How a person waits for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Manner {
    /// Asks when told to.
    Patient,
    /// Reloads every second, whatever it is told.
    Reloads,
    /// Asks with ten devices at once.
    TenDevices,
    /// Goes away after the first answer, and comes back later.
    Leaves,
    /// Never asks for its place, and books as if it were its turn.
    BooksEarly,
    /// The same, with a clock that is a day ahead.
    WrongClock,
    /// Has a permit and never comes.
    Absent,
}

impl Manner {
    /// As in reports.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Reloads => "reloads every second",
            Self::TenDevices => "ten devices",
            Self::Leaves => "leaves and comes back",
            Self::BooksEarly => "books early",
            Self::WrongClock => "books with a wrong clock",
            Self::Absent => "never comes",
        }
    }
}

/// The manner of a person; `absent` is the part of people who never come.
#[must_use]
pub(super) fn manner(number: u64, seed: u64, absent: f64) -> Manner {
    let draw = |turn: u32| spread(number ^ seed.rotate_left(turn)) % 10_000;
    if (draw(5) as f64) < absent * 10_000.0 {
        return Manner::Absent;
    }
    match draw(41) {
        0..500 => Manner::Reloads,
        500..1_000 => Manner::TenDevices,
        1_000..1_400 => Manner::Leaves,
        1_400..1_800 => Manner::BooksEarly,
        1_800..2_000 => Manner::WrongClock,
        _ => Manner::Patient,
    }
}

/// When the turns of a group of people came, in seconds after the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Turns {
    /// People.
    pub count: u64,
    sum: f64,
    squares: f64,
}

impl Turns {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// Mean, and half the width of its 95 % interval.
    #[must_use]
    pub(crate) fn mean(&self) -> (f64, f64) {
        let n = (self.count as f64).max(1.0);
        let mean = self.sum / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        (mean, 1.96 * (variance / n).sqrt())
    }
}

/// Who came when, and who found nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    /// People who came on their turn, in each step of the time line.
    pub line: Vec<u64>,
    /// By manner.
    pub turns: BTreeMap<Manner, Turns>,
    /// By region: people who came, and of them those who found nothing left.
    pub regions: BTreeMap<u8, (u64, u64)>,
    /// People who were told, waiting, that nothing is left.
    pub told: u64,
    /// People who never came.
    pub absent: u64,
}

impl Arrivals {
    /// Somebody came.
    pub(crate) fn came(&mut self, manner: Manner, region: u8, since: Duration, step: Duration) {
        let at = usize::try_from(since.as_millis() / step.as_millis()).unwrap_or(0);
        if self.line.len() <= at {
            self.line.resize(at + 1, 0);
        }
        self.line[at] += 1;
        let seconds = since.as_secs_f64();
        self.turns.entry(manner).or_default().add(Turns {
            count: 1,
            sum: seconds,
            squares: seconds * seconds,
        });
        self.regions.entry(region).or_default().0 += 1;
    }

    /// Somebody who had come found nothing.
    pub(crate) fn empty_handed(&mut self, region: u8) {
        self.regions.entry(region).or_default().1 += 1;
    }

    /// Adds another driver's.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.line.len() < other.line.len() {
            self.line.resize(other.line.len(), 0);
        }
        for (mine, theirs) in self.line.iter_mut().zip(&other.line) {
            *mine += theirs;
        }
        for (manner, turns) in &other.turns {
            self.turns.entry(*manner).or_default().add(*turns);
        }
        for (region, (came, empty)) in &other.regions {
            let mine = self.regions.entry(*region).or_default();
            mine.0 += came;
            mine.1 += empty;
        }
        self.told += other.told;
        self.absent += other.absent;
    }

    /// The largest part of a region's people who came and found nothing, of regions in which a hundred came.
    #[must_use]
    pub(crate) fn worst_empty(&self) -> Option<f64> {
        let parts = self.regions.values().filter(|(came, _)| *came >= 100);
        parts
            .map(|(came, empty)| *empty as f64 / *came as f64)
            .max_by(f64::total_cmp)
    }

    /// What the terminal shows.
    #[must_use]
    pub(crate) fn table(&self) -> String {
        let came: u64 = self.turns.values().map(|turns| turns.count).sum();
        let empty: u64 = self.regions.values().map(|(_, empty)| empty).sum();
        let mut text = format!(
            "{came} came on their turn, {empty} of them found nothing (at most {:.1} % of a region's), {} were told while \
             waiting, {} never came\n",
            100.0 * self.worst_empty().unwrap_or(0.0),
            self.told,
            self.absent
        );
        for (manner, turns) in &self.turns {
            let (mean, half) = turns.mean();
            text.push_str(&format!(
                "  {:<26} {:>7} people, their turn came after {mean:.1} ± {half:.1} s\n",
                manner.name(),
                turns.count
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manner_occurs_and_nobody_is_absent_unless_asked() {
        let count = |absent: f64| {
            let mut by = BTreeMap::<Manner, u64>::new();
            for number in 0..20_000 {
                *by.entry(manner(number, 7, absent)).or_default() += 1;
            }
            by
        };
        let all = count(0.0);
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(!all.contains_key(&Manner::Absent));
        let absent = count(0.3)[&Manner::Absent];
        assert!((5_600..6_400).contains(&absent), "{absent}");
    }

    #[test]
    fn means_and_empty_hands_are_counted_by_region() {
        let mut arrivals = Arrivals::default();
        for n in 0..200u64 {
            let since = Duration::from_secs(n % 2 * 10);
            arrivals.came(Manner::Patient, 3, since, Duration::from_millis(250));
        }
        (0..5).for_each(|_| arrivals.empty_handed(3));
        assert_eq!(arrivals.worst_empty(), Some(0.025));
        let (mean, half) = arrivals.turns[&Manner::Patient].mean();
        assert!(
            (mean - 5.0).abs() < 1e-9 && (half - 0.693).abs() < 0.01,
            "{mean} {half}"
        );
        assert_eq!(arrivals.line.iter().sum::<u64>(), 200);
    }
}
