//! Counts how many different people came without remembering any of them.
//!
//! A HyperLogLog sketch over draw tickets, which are as good as random; read by Ertl's estimator (2017), which needs no
//! correction for small or large crowds. Sketches of several processes merge into the one of all. Standard error 0.8 %.

use crate::place::DrawTicket;

/// Bits of a ticket that choose the register.
const INDEX_BITS: u32 = 14;
/// Registers of a sketch; one byte each.
pub const REGISTERS: usize = 1 << INDEX_BITS;
/// The highest rank: the other bits are all zero.
const RANK_MAX: u8 = 64 - 14 + 1;

/// Different people, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headcount {
    registers: Vec<u8>,
}

/// The register that a person falls into, and the rank it keeps the highest of.
#[must_use]
pub fn mark(ticket: &DrawTicket) -> (usize, u8) {
    let mut first = [0; 8];
    first.copy_from_slice(&ticket.0[..8]);
    let bits = u64::from_be_bytes(first);
    let index = usize::try_from(bits >> (64 - INDEX_BITS)).unwrap_or(0);
    let zeros = (bits << INDEX_BITS).leading_zeros().min(64 - INDEX_BITS);
    (index, u8::try_from(zeros + 1).unwrap_or(RANK_MAX))
}

impl Default for Headcount {
    fn default() -> Self {
        Self {
            registers: vec![0; REGISTERS],
        }
    }
}

impl Headcount {
    /// A sketch from another process; `None` if it is none.
    #[must_use]
    pub fn from_registers(registers: &[u8]) -> Option<Self> {
        let fits = registers.len() == REGISTERS && registers.iter().all(|rank| *rank <= RANK_MAX);
        fits.then(|| Self {
            registers: registers.to_vec(),
        })
    }

    /// Somebody came, perhaps again.
    pub fn note(&mut self, ticket: &DrawTicket) {
        let (index, rank) = mark(ticket);
        self.registers[index] = self.registers[index].max(rank);
    }

    /// Everybody of `other` came, too.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// How many different people came, about.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, never negative"
    )]
    pub fn people(&self) -> u64 {
        let mut ranks = [0u32; RANK_MAX as usize + 1];
        for rank in &self.registers {
            ranks[usize::from(*rank)] += 1;
        }
        let registers = REGISTERS as f64;
        let top = usize::from(RANK_MAX);
        let mut z = registers * tau(1.0 - f64::from(ranks[top]) / registers);
        for count in ranks[1..top].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += registers * sigma(f64::from(ranks[0]) / registers);
        let estimate = registers * registers / (2.0 * std::f64::consts::LN_2 * z);
        estimate.round() as u64
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut weight, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum <= before {
            return sum;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x).powi(2) * weight;
        if sum >= before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::draw_ticket;

    fn ticket(person: u32) -> DrawTicket {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&person.to_be_bytes());
        draw_ticket(b"a campaign's key", &crate::ids::PersonId::from_bytes(id))
    }

    #[test]
    fn a_crowd_is_counted_within_four_sigmas_from_nobody_to_many() {
        let mut crowd = Headcount::default();
        assert_eq!(crowd.people(), 0);
        for person in 0..150_000u32 {
            crowd.note(&ticket(person));
            let came = person + 1;
            if [1, 10, 1_000, 20_000, 40_000, 45_000, 80_000, 150_000].contains(&came) {
                let error = crowd.people().abs_diff(u64::from(came)) as f64;
                assert!(error <= 0.5 + 0.032 * f64::from(came), "{came}: {error}");
            }
        }
    }

    #[test]
    fn who_comes_again_or_elsewhere_is_counted_once() {
        let (mut here, mut there, mut both) = Default::default();
        for person in 0..3_000 {
            Headcount::note(&mut here, &ticket(person));
            Headcount::note(&mut there, &ticket(person + 1_000));
            Headcount::note(&mut there, &ticket(person + 1_000));
        }
        for person in 0..4_000 {
            Headcount::note(&mut both, &ticket(person));
        }
        here.merge(&there);
        assert_eq!(here, both);
        assert_eq!(
            Headcount::from_registers(&here.registers),
            Some(here.clone())
        );
        assert_eq!(Headcount::from_registers(&here.registers[1..]), None);
        assert_eq!(Headcount::from_registers(&[99; REGISTERS]), None);
    }

    #[test]
    fn the_rarest_ticket_stays_in_range() {
        assert_eq!(mark(&DrawTicket([0; 16])), (0, RANK_MAX));
        assert_eq!(mark(&DrawTicket([255; 16])), (REGISTERS - 1, 1));
    }
}
