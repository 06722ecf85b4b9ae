//! What some people do besides booking, and which slot a person chooses; both follow from number and seed.

use proto::availability::Slot;

use crate::population::spread;

/// What a person does besides booking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Plain,
    HoldsFirst,
    TwoDoses,
    TwoDevices,
    SendsAgain,
    Moves,
    Cancels,
}

pub(super) fn habit(number: u64, seed: u64) -> Habit {
    match spread(number ^ seed.rotate_left(17)) % 100 {
        0..10 => Habit::HoldsFirst,
        10..14 => Habit::TwoDoses,
        14..16 => Habit::TwoDevices,
        16..19 => Habit::SendsAgain,
        19..22 => Habit::Moves,
        22..25 => Habit::Cancels,
        _ => Habit::Plain,
    }
}

/// A slot with places left; people with the same list choose differently.
pub(super) fn pick(slots: &[Slot], habit: Habit, number: u64, intent: u32) -> Vec<String> {
    let free: Vec<&Slot> = slots.iter().filter(|slot| slot.left > 0).collect();
    let clinic = |slot: &Slot| {
        slot.name
            .split("/slots/")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let draw = spread(number.wrapping_mul(31).wrapping_add(u64::from(intent)));
    let at = |len: usize| usize::try_from(draw).unwrap_or(0) % len;
    if habit == Habit::TwoDoses {
        let second = |first: &Slot| {
            free.iter()
                .find(|slot| slot.dose == 2 && clinic(slot) == clinic(first))
                .copied()
        };
        let pairs: Vec<_> = free
            .iter()
            .filter(|slot| slot.dose == 1)
            .filter_map(|first| second(first).map(|second| (*first, second)))
            .collect();
        if !pairs.is_empty() {
            let (first, second) = pairs[at(pairs.len())];
            return vec![first.name.clone(), second.name.clone()];
        }
    }
    let first: Vec<_> = free.iter().filter(|slot| slot.dose == 1).collect();
    if first.is_empty() {
        Vec::new()
    } else {
        vec![first[at(first.len())].name.clone()]
    }
}
