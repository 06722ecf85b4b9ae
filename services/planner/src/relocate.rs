//! To other clinics: as many people as possible, then as few days away as possible, then as near as possible.
//!
//! People of one clinic, kind, day and allowed days are alike to a plan, and so are the slots of one clinic, kind and day:
//! the transport is between those groups. Who of a group goes where is decided afterwards, by the hour.

use std::collections::BTreeMap;

use crate::flow::{Arc, Network, solve};
use crate::grid::Grid;
use crate::{Booking, Clinic, Limits, Plan, Slot, Unmoved};

/// A day away is dearer than any distance.
const DAY: i64 = 2_000_000;
/// Further than this is as far.
const METRES_MAX: i64 = 999_999;
const DAY_MICROS: i64 = 86_400_000_000;

/// People who are alike: clinic, day, first and last day allowed.
type Group = (u32, i32, i32, i32);

/// Days with free places at one clinic: the sink of each.
type Days = BTreeMap<i32, u32>;

/// Where to go with bookings whose clinic cannot serve them.
///
/// The clinic that a booking is at is not looked at. A plan leaves as few people as possible, and the sum over the
/// others of (days away, then metres) is the least there is.
#[must_use]
pub fn relocate(clinics: &[Clinic], slots: &[Slot], bookings: &[Booking], limits: &Limits) -> Plan {
    let grid = Grid::new(clinics);
    let mut plan: Plan = vec![Err(Unmoved::NoPlaceInReach); bookings.len()];
    let mut kinds: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, booking) in bookings.iter().enumerate() {
        kinds.entry(booking.kind).or_default().push(at);
    }
    for (kind, people) in kinds {
        let mut kind = Kind::new(clinics.len(), slots, kind);
        kind.plan(&grid, bookings, &people, limits, &mut plan);
    }
    plan
}

/// The free places of one kind.
struct Kind<'a> {
    slots: &'a [Slot],
    /// By clinic.
    days: Vec<Days>,
    /// The slots of each sink, by start, with what is still free.
    sinks: Vec<Vec<(u32, u32)>>,
}

impl<'a> Kind<'a> {
    fn new(clinics: usize, slots: &'a [Slot], kind: u32) -> Self {
        let mut days = vec![Days::new(); clinics];
        let mut sinks: Vec<Vec<(u32, u32)>> = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            if slot.kind != kind || slot.free == 0 {
                continue;
            }
            let next = number(sinks.len());
            let sink = *days[slot.clinic as usize].entry(slot.day).or_insert(next);
            if sink == next {
                sinks.push(Vec::new());
            }
            sinks[sink as usize].push((number(at), slot.free));
        }
        for sink in &mut sinks {
            sink.sort_by_key(|(slot, _)| (slots[*slot as usize].starts_at, *slot));
        }
        Self { slots, days, sinks }
    }

    fn plan(
        &mut self,
        grid: &Grid,
        bookings: &[Booking],
        people: &[usize],
        limits: &Limits,
        plan: &mut Plan,
    ) {
        let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
        for at in people {
            let booking = &bookings[*at];
            let reach = i32::from(limits.days);
            let first = booking.earliest.max(booking.day.saturating_sub(reach));
            let last = booking.latest.min(booking.day.saturating_add(reach));
            let group = (booking.clinic, booking.day, first, last);
            groups.entry(group).or_default().push(*at);
        }
        let mut network = Network {
            places: self.places(),
            ..Network::default()
        };
        for (group, people) in &groups {
            network.people.push(number(people.len()));
            network.arcs.push(self.arcs(grid, *group, limits));
        }
        for ((group, people), arcs) in groups.iter().zip(&network.arcs) {
            if arcs.is_empty() && self.has_other_days(*group, limits) {
                for at in people {
                    plan[*at] = Err(Unmoved::NoDayInInterval);
                }
            }
        }
        let flow = solve(network);
        let mut of_sink: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (people, to) in groups.values().zip(&flow.to) {
            let mut people = people.iter().copied();
            for (sink, count) in to {
                let going = people.by_ref().take(*count as usize);
                of_sink.entry(*sink).or_default().extend(going);
            }
        }
        for (sink, people) in of_sink {
            self.seat(sink as usize, bookings, people, plan);
        }
    }

    fn places(&self) -> Vec<u32> {
        let all = self.sinks.iter();
        all.map(|slots| slots.iter().map(|(_, free)| free).sum())
            .collect()
    }

    fn arcs(&self, grid: &Grid, group: Group, limits: &Limits) -> Vec<Arc> {
        let (clinic, day, first, last) = group;
        if first > last {
            return Vec::new();
        }
        let open = |other: u32| {
            other != clinic
                && self.days[other as usize]
                    .range(first..=last)
                    .next()
                    .is_some()
        };
        let mut arcs = Vec::new();
        for (other, metres) in grid.nearest(clinic as usize, limits.clinics, open) {
            for (on, sink) in self.days[other as usize].range(first..=last) {
                let away = i64::from(on.abs_diff(day));
                arcs.push(Arc {
                    sink: *sink,
                    cost: away * DAY + i64::from(metres).min(METRES_MAX),
                });
            }
        }
        arcs
    }

    /// Whether there would be something if the other dose did not matter.
    fn has_other_days(&self, (clinic, day, first, last): Group, limits: &Limits) -> bool {
        let reach = i32::from(limits.days);
        let (from, to) = (day.saturating_sub(reach), day.saturating_add(reach));
        let bound = first > from || last < to;
        let others = self.days.iter().enumerate();
        bound
            && others
                .filter(|(other, _)| number(*other) != clinic)
                .any(|(_, days)| days.range(from..=to).next().is_some())
    }

    /// Gives everybody the hour next to their own, in the order of their hours.
    fn seat(&mut self, sink: usize, bookings: &[Booking], mut people: Vec<usize>, plan: &mut Plan) {
        let hour = |starts_at: i64, day: i32| starts_at - i64::from(day) * DAY_MICROS;
        people.sort_by_key(|at| (hour(bookings[*at].starts_at, bookings[*at].day), *at));
        for at in people {
            let wanted = hour(bookings[at].starts_at, bookings[at].day);
            let free = self.sinks[sink].iter_mut().filter(|(_, free)| *free > 0);
            let nearest = free.min_by_key(|(slot, _)| {
                let slot = &self.slots[*slot as usize];
                hour(slot.starts_at, slot.day).abs_diff(wanted)
            });
            if let Some((slot, free)) = nearest {
                *free -= 1;
                plan[at] = Ok(*slot);
            }
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
