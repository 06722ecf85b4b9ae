//! To later days, by rule: the earliest later slot of the same clinic, else of the district, first come first served.
//!
//! Invariant: of two people of one clinic and kind the earlier one never gets the later day, unless the other dose of
//! either left them no choice.

use std::collections::{BTreeMap, BTreeSet};

use crate::grid::Grid;
use crate::{Booking, Clinic, Limits, Plan, Slot, Unmoved};

/// Later slots for bookings that there is no supply for.
///
/// `limits.clinics` bounds the other clinics of the district that are looked at, nearest first; its days do not count:
/// supply may take long.
#[must_use]
pub fn redate(clinics: &[Clinic], slots: &[Slot], bookings: &[Booking], limits: &Limits) -> Plan {
    let grid = Grid::new(clinics);
    let mut shelf = Shelf::new(slots);
    let mut order: Vec<usize> = (0..bookings.len()).collect();
    order.sort_by_key(|at| (bookings[*at].starts_at, *at));
    let mut plan: Plan = vec![Err(Unmoved::NoPlaceInReach); bookings.len()];
    let mut neighbours: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut last: BTreeMap<(u32, u32), i64> = BTreeMap::new();
    for at in order {
        let booking = &bookings[at];
        let home = booking.clinic;
        let near = neighbours.entry(home).or_insert_with(|| {
            let district = clinics[home as usize].district;
            let wanted = |other: u32| other != home && clinics[other as usize].district == district;
            let near = grid.nearest(home as usize, limits.clinics, wanted);
            near.into_iter().map(|(clinic, _)| clinic).collect()
        });
        let line = last.entry((home, booking.kind)).or_insert(i64::MIN);
        let after = booking.starts_at.saturating_add(1).max(*line);
        let (mut found, mut passed_over) = shelf.earliest(&[home], booking, after);
        if found.is_none() {
            let (elsewhere, passed) = shelf.earliest(near, booking, after);
            found = elsewhere;
            passed_over |= passed;
        }
        plan[at] = match found {
            Some(slot) => {
                shelf.take(slot);
                // Whoever the other dose made wait does not make others wait.
                if !passed_over {
                    *line = slots[slot as usize].starts_at;
                }
                Ok(slot)
            }
            None if passed_over => Err(Unmoved::NoDayInInterval),
            None => Err(Unmoved::NoPlaceInReach),
        };
    }
    plan
}

/// What is free, by clinic, kind and start.
struct Shelf<'a> {
    slots: &'a [Slot],
    free: Vec<u32>,
    order: BTreeMap<(u32, u32), BTreeSet<(i64, u32)>>,
}

impl<'a> Shelf<'a> {
    fn new(slots: &'a [Slot]) -> Self {
        let mut order: BTreeMap<(u32, u32), BTreeSet<(i64, u32)>> = BTreeMap::new();
        for (slot, at) in slots.iter().zip(0u32..) {
            if slot.free > 0 {
                let line = order.entry((slot.clinic, slot.kind)).or_default();
                line.insert((slot.starts_at, at));
            }
        }
        Self {
            slots,
            free: slots.iter().map(|slot| slot.free).collect(),
            order,
        }
    }

    /// The earliest slot of these clinics from a moment on, of several the first clinic's; and whether something free was
    /// passed over because of the other dose.
    fn earliest(&self, clinics: &[u32], booking: &Booking, after: i64) -> (Option<u32>, bool) {
        let mut passed_over = false;
        let mut best: Option<(i64, u32)> = None;
        for clinic in clinics {
            let Some(line) = self.order.get(&(*clinic, booking.kind)) else {
                continue;
            };
            for (starts_at, slot) in line.range((after, 0)..).copied() {
                if best.is_some_and(|(known, _)| starts_at >= known) {
                    break;
                }
                let day = self.slots[slot as usize].day;
                if (booking.earliest..=booking.latest).contains(&day) {
                    best = Some((starts_at, slot));
                    break;
                }
                passed_over = true;
            }
        }
        (best.map(|(_, slot)| slot), passed_over)
    }

    fn take(&mut self, slot: u32) {
        let free = &mut self.free[slot as usize];
        *free -= 1;
        if *free == 0 {
            let of = &self.slots[slot as usize];
            if let Some(line) = self.order.get_mut(&(of.clinic, of.kind)) {
                line.remove(&(of.starts_at, slot));
            }
        }
    }
}
