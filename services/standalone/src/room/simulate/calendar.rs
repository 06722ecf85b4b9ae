//! A bucketed calendar queue: events by time, in two levels, at a cost that does not depend on how many there are.
//!
//! A heap would touch a cache line per level for each of hundreds of millions of events. Here an event is appended to
//! the chunk of its coarse bin, spread over fine slots when the bin's time comes, and read once, all in sequence.
//! Events of one slot have no order among themselves: a slot is the resolution of the simulation.

/// Microseconds in a slot, as a power of two: about 16 ms.
pub(super) const SLOT_BITS: u32 = 14;
/// Slots in a coarse bin, as a power of two: about 8 s.
const BIN_BITS: u32 = 9;
const SLOTS: usize = 1 << BIN_BITS;
/// Events in a chunk: 16 KiB.
const CHUNK: usize = 1_024;

/// Somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Event {
    /// Who.
    pub person: u32,
    /// Their place in line; `u32::MAX` while they have none.
    pub ordinal: u32,
    /// The slot inside its bin: the calendar's own.
    pub(super) slot: u16,
    /// Their bucket.
    pub bucket: u16,
    /// Their region's index.
    pub region: u8,
    /// Their group's index.
    pub group: u8,
}

/// The queue.
pub(super) struct Calendar {
    bins: Vec<Vec<Vec<Event>>>,
    /// The slots of the bin whose time is now.
    slots: Vec<Vec<Event>>,
    free: Vec<Vec<Event>>,
    /// The slot that is read now, since the beginning.
    now: u64,
}

// === impl Calendar ===

impl Calendar {
    /// Empty, for events before `until_micros`; what is due later is dropped.
    pub(super) fn new(until_micros: u64) -> Self {
        let bins = (until_micros >> (SLOT_BITS + BIN_BITS)) + 1;
        Self {
            bins: (0..bins).map(|_| Vec::new()).collect(),
            slots: vec![Vec::new(); SLOTS],
            free: Vec::new(),
            now: 0,
        }
    }

    /// Puts an event at a time; one that is due now or before comes next.
    pub(super) fn put(&mut self, at_micros: u64, mut event: Event) {
        let slot = (at_micros >> SLOT_BITS).max(self.now + 1);
        let (bin, within) = (slot >> BIN_BITS, slot & (SLOTS as u64 - 1));
        if bin == self.now >> BIN_BITS {
            self.slots[within as usize].push(event);
            return;
        }
        let Some(bin) = self.bins.get_mut(bin as usize) else {
            return;
        };
        event.slot = within as u16;
        match bin.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(event),
            _ => {
                let mut chunk = self.free.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK));
                chunk.push(event);
                bin.push(chunk);
            }
        }
    }

    /// The time of the slot that is read now.
    pub(super) fn now_micros(&self) -> u64 {
        self.now << SLOT_BITS
    }

    /// Whether all of the time has been read.
    pub(super) fn over(&self) -> bool {
        (self.now >> BIN_BITS) as usize >= self.bins.len()
    }

    /// The events of the slot that is read now, in `into`, which they replace.
    pub(super) fn take(&mut self, into: &mut Vec<Event>) {
        into.clear();
        let within = (self.now & (SLOTS as u64 - 1)) as usize;
        if within == 0 && !self.over() {
            for mut chunk in std::mem::take(&mut self.bins[(self.now >> BIN_BITS) as usize]) {
                for event in chunk.drain(..) {
                    self.slots[usize::from(event.slot)].push(event);
                }
                self.free.push(chunk);
            }
        }
        std::mem::swap(into, &mut self.slots[within]);
    }

    /// On to the next slot.
    pub(super) fn step(&mut self) {
        self.now += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_comes_once_and_in_its_slot() {
        let until = 60_000_000;
        let mut calendar = Calendar::new(until);
        let due = |person: u32| u64::from(person).wrapping_mul(0x9E37_79B9_7F4A_7C15) % until;
        for person in 0..50_000 {
            let event = Event {
                person,
                ..Event::default()
            };
            calendar.put(due(person), event);
        }
        let (mut seen, mut again, mut events) = (vec![0u8; 50_000], 0, Vec::new());
        while !calendar.over() {
            calendar.take(&mut events);
            let slot = calendar.now_micros();
            for event in &events {
                let at = if event.bucket == 0 {
                    due(event.person)
                } else {
                    due(event.person) + 7_000_000
                };
                // Whatever is due in the very first slot comes in the second.
                assert!(
                    at >> SLOT_BITS << SLOT_BITS == slot || slot == 1 << SLOT_BITS,
                    "{at} in {slot}"
                );
                seen[event.person as usize] += 1;
                if event.bucket == 0 && at + 7_000_000 < until {
                    calendar.put(
                        at + 7_000_000,
                        Event {
                            bucket: 1,
                            ..*event
                        },
                    );
                    again += 1;
                }
            }
            calendar.step();
        }
        assert!(seen.iter().all(|n| (1..=2).contains(n)));
        assert_eq!(
            seen.iter().map(|n| u32::from(*n)).sum::<u32>(),
            50_000 + again
        );
        assert!(again > 40_000);
    }
}
