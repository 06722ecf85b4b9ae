//! What goes wrong in a world, and how often: all of it drawn from one seed.

use std::time::Duration;

/// `splitmix64`: small, and the same on every machine.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1_000 + self.below((to - from) * 1_000 + 1))
    }
}

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    /// Committed, and a copy of it arrives later.
    Twice,
    /// Never arrives; the sender does not know.
    Lost,
    /// Arrives after the sender gave up.
    Late,
    /// Committed, but the answer is lost.
    Unheard,
    /// Not written, and the sender knows.
    NotWritten,
    /// The ledger's check fires.
    Constraint,
}

/// How often, in a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    statement: u64,
    pub(crate) read_fails: u64,
    pub(crate) answer_lost: u64,
    pub(crate) crash: u64,
    pub(crate) pause: u64,
    pub(crate) take_over: u64,
    pub(crate) drain: u64,
    pub(crate) operator: u64,
    pub(crate) regress: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        statement: 0,
        read_fails: 0,
        answer_lost: 0,
        crash: 0,
        pause: 0,
        take_over: 0,
        drain: 0,
        operator: 0,
        regress: 0,
    };

    /// Every world has its own weather: some are calm, some regress.
    pub(crate) fn draw(rng: &mut Rng, seed: u64) -> Self {
        if seed.is_multiple_of(16) {
            return Self::NONE;
        }
        let mut upto = |most: u64| rng.below(most + 1);
        Self {
            statement: upto(400),
            read_fails: upto(100),
            answer_lost: upto(100),
            crash: upto(60),
            pause: upto(120),
            take_over: upto(120),
            drain: upto(30),
            operator: upto(150),
            regress: if seed % 8 == 3 { 60 } else { 0 },
        }
    }

    pub(crate) fn fate(&self, rng: &mut Rng) -> Fate {
        if !rng.chance(self.statement) {
            return Fate::Fine;
        }
        match rng.below(10) {
            0 | 1 => Fate::Twice,
            2 | 3 => Fate::Lost,
            4 | 5 => Fate::Late,
            6 | 7 => Fate::Unheard,
            8 => Fate::NotWritten,
            _ => Fate::Constraint,
        }
    }
}
