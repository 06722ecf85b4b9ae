//! From who is booked and what is free to the lines of a plan; pure.
//!
//! First doses are planned first, each on a day that its second dose allows where it stands now; then second doses, each on
//! a day that its first dose allows where it will stand. So the interval holds after every single move, and not only at
//! the end.

use std::collections::BTreeMap;

use domain::campaign::DoseInterval;
use domain::{BookingId, CampaignId, ClinicId, Refusal, RequestId, VaccineId};
use planner::{Booking, Clinic, Limits, Slot, Unmoved};

use crate::ledger::{Affected, IncidentKind, PlanLine, Scene};

/// Moves in one wave: a wave begins when every line of the one before was tried.
const WAVE_MAX: u32 = 50;

/// The lines of a new plan, in the order in which people are moved; who cannot be moved stands at the end.
///
/// `interval`: what the campaign says of its two doses; `None` for one that is not known. `request`: makes an id for each
/// move.
pub(crate) fn plan(
    scene: &Scene,
    interval: impl Fn(&CampaignId) -> Option<DoseInterval>,
    mut request: impl FnMut() -> RequestId,
) -> Vec<PlanLine> {
    let mut town = Town::new(scene);
    let mut targets: Vec<Result<usize, Refusal>> = Vec::with_capacity(scene.affected.len());
    let mut intervals = Vec::with_capacity(scene.affected.len());
    for one in &scene.affected {
        let known = interval(&one.campaign);
        targets.push(match known {
            _ if one.begun => Err(Refusal::AppointmentBegun),
            None => Err(Refusal::CampaignUnknown),
            Some(_) => Err(Refusal::NoPlaceInReach),
        });
        intervals.push(known.filter(|_| !one.begun));
    }
    for dose in [1, 2] {
        town.send(dose, &intervals, &mut targets);
    }
    lines(scene, &targets, &mut request)
}

/// What the planner sees, and how to get back from it.
struct Town<'a> {
    scene: &'a Scene,
    clinics: Vec<Clinic>,
    slots: Vec<Slot>,
    numbers: BTreeMap<&'a ClinicId, u32>,
    kinds: BTreeMap<(&'a VaccineId, u8), u32>,
    /// Where an appointment stands in the scene.
    places: BTreeMap<(BookingId, u8), usize>,
}

impl<'a> Town<'a> {
    fn new(scene: &'a Scene) -> Self {
        let mut districts: BTreeMap<&str, u32> = BTreeMap::new();
        let mut kinds = BTreeMap::new();
        let mut clinics = Vec::with_capacity(scene.clinics.len());
        for clinic in &scene.clinics {
            let next = number(districts.len());
            clinics.push(Clinic {
                latitude: clinic.latitude,
                longitude: clinic.longitude,
                district: *districts.entry(&clinic.district).or_insert(next),
            });
        }
        let all = scene.clinics.iter().zip(0u32..);
        let numbers: BTreeMap<_, _> = all.map(|(one, at)| (&one.clinic, at)).collect();
        let mut slots = Vec::with_capacity(scene.free.len());
        for slot in &scene.free {
            let next = number(kinds.len());
            slots.push(Slot {
                // A clinic that was added between two reads has nobody yet and is left out: no place is free there.
                clinic: numbers.get(&slot.clinic).copied().unwrap_or(0),
                kind: *kinds.entry((&slot.vaccine, slot.dose)).or_insert(next),
                day: slot.day,
                starts_at: slot.starts_at.as_micros(),
                free: if numbers.contains_key(&slot.clinic) {
                    slot.left()
                } else {
                    0
                },
            });
        }
        let places = scene.affected.iter().enumerate();
        Self {
            scene,
            clinics,
            slots,
            numbers,
            kinds,
            places: places
                .map(|(at, one)| ((one.booking, one.slot.dose), at))
                .collect(),
        }
    }

    /// Finds places for everybody's appointment of one dose.
    fn send(
        &mut self,
        dose: u8,
        intervals: &[Option<DoseInterval>],
        targets: &mut [Result<usize, Refusal>],
    ) {
        let mut who = Vec::new();
        let mut bookings = Vec::new();
        for (at, one) in self.scene.affected.iter().enumerate() {
            let clinic = self.numbers.get(&one.slot.clinic);
            let (Some(interval), Some(clinic)) = (intervals[at], clinic) else {
                continue;
            };
            if one.slot.dose != dose {
                continue;
            }
            let next = number(self.kinds.len());
            let kind = *self.kinds.entry((&one.slot.vaccine, dose)).or_insert(next);
            let (earliest, latest) = self.days(one, interval, targets);
            who.push(at);
            bookings.push(Booking {
                clinic: *clinic,
                kind,
                day: one.slot.day,
                starts_at: one.slot.starts_at.as_micros(),
                earliest,
                latest,
            });
        }
        let limits = Limits::default();
        let find = match self.scene.view.kind {
            IncidentKind::FridgeFailure | IncidentKind::Closure => planner::relocate,
            IncidentKind::SupplyCut => planner::redate,
        };
        let found = find(&self.clinics, &self.slots, &bookings, &limits);
        for (at, target) in who.into_iter().zip(found) {
            targets[at] = match target {
                Ok(slot) => Ok(slot as usize),
                Err(Unmoved::NoPlaceInReach) => Err(Refusal::NoPlaceInReach),
                Err(Unmoved::NoDayInInterval) => Err(Refusal::NoDayInInterval),
            };
        }
    }

    /// The days that keep the distance to the other dose, as it stands when this one is moved.
    fn days(
        &self,
        one: &Affected,
        interval: DoseInterval,
        targets: &[Result<usize, Refusal>],
    ) -> (i32, i32) {
        let Some(mut other) = one.other_day else {
            return (i32::MIN, i32::MAX);
        };
        let (least, most) = (i32::from(interval.min_days), i32::from(interval.max_days));
        if one.slot.dose == 1 {
            return (other.saturating_sub(most), other.saturating_sub(least));
        }
        if let Some(first) = self.places.get(&(one.booking, 1))
            && let Ok(slot) = targets[*first]
        {
            other = self.slots[slot].day;
        }
        (other.saturating_add(least), other.saturating_add(most))
    }
}

fn lines(
    scene: &Scene,
    targets: &[Result<usize, Refusal>],
    request: &mut impl FnMut() -> RequestId,
) -> Vec<PlanLine> {
    let mut lines: Vec<PlanLine> = Vec::with_capacity(targets.len());
    let mut firsts: BTreeMap<BookingId, u32> = BTreeMap::new();
    let mut wave = 0;
    for dose in [1, 2] {
        let moved = scene.affected.iter().zip(targets);
        let moved = moved.filter(|(one, target)| one.slot.dose == dose && target.is_ok());
        for (at, (one, target)) in moved.enumerate() {
            if number(at).is_multiple_of(WAVE_MAX) {
                wave += 1;
            }
            let Ok(slot) = target else { continue };
            let line = number(lines.len() + 1);
            let after = firsts.get(&one.booking).copied();
            firsts.entry(one.booking).or_insert(line);
            lines.push(PlanLine {
                who: one.clone(),
                to: Ok((scene.free[*slot].slot, request())),
                wave,
                after,
            });
        }
    }
    for (one, target) in scene.affected.iter().zip(targets) {
        if let Err(why) = target {
            lines.push(PlanLine {
                who: one.clone(),
                to: Err(*why),
                wave: 0,
                after: None,
            });
        }
    }
    lines
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
