//! What must hold after every input, whatever came before.

use std::collections::{BTreeMap, BTreeSet};

use domain::{SlotId, SlotPair};

use crate::batch::Work;
use crate::effects::AskId;
use crate::pending::{PersonKey, Stage, Want, person_key};
use crate::shard::{Phase, Shard};

/// Up to this many asks a debug build checks after every input; beyond, the check would be most of the work.
const CHECKED_ASKS_MAX: usize = 32;

impl Shard {
    /// Panics where the shard's memory contradicts itself. For simulations and debug builds.
    pub fn assert_invariants(&self) {
        self.assert_every_ask_is_in_one_place();
        self.assert_places_are_accounted_for();
        self.assert_one_op_of_a_person_is_under_way();
        self.assert_one_statement();
    }

    pub(crate) fn check_now_and_then(&self) {
        if cfg!(debug_assertions) && self.asks.len() <= CHECKED_ASKS_MAX {
            self.assert_invariants();
        }
    }

    fn in_flight_asks(&self) -> &[AskId] {
        match self.in_flight.as_ref().map(|statement| &statement.work) {
            Some(Work::Ops(asks)) => asks,
            Some(Work::Sweep | Work::Reapply(_)) | None => &[],
        }
    }

    fn assert_every_ask_is_in_one_place(&self) {
        let mut places: Vec<(AskId, Stage)> = Vec::with_capacity(self.asks.len());
        let parked = self.persons.values().flatten();
        places.extend(parked.map(|ask| (*ask, Stage::Parked)));
        places.extend(self.arrivals.iter().map(|ask| (*ask, Stage::Arrived)));
        let waiters = self.loads.waiters.values().flatten();
        places.extend(waiters.map(|ask| (*ask, Stage::Loading)));
        let lookups = self.lookups.iter().chain(&self.looking);
        places.extend(lookups.map(|(ask, _)| (*ask, Stage::Looking)));
        places.extend(self.queue.iter().map(|ask| (*ask, Stage::Queued)));
        let in_flight = self.in_flight_asks().iter();
        places.extend(in_flight.map(|ask| (*ask, Stage::InFlight)));
        places.sort_unstable();
        let asks = self.asks.iter();
        let known: Vec<_> = asks.map(|(ask, pending)| (*ask, pending.stage)).collect();
        assert_eq!(known, places, "shard {}: asks and places differ", self.id);
    }

    fn assert_places_are_accounted_for(&self) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        let mut taken: BTreeMap<SlotId, u32> = BTreeMap::new();
        for ask in self.queue.iter().chain(self.in_flight_asks()) {
            let wants = self.wants_of(*ask);
            for slot in wants.into_iter().flat_map(SlotPair::iter) {
                *taken.entry(slot).or_insert(0) += 1;
            }
        }
        for (slot, known) in &self.slots {
            let counted = taken.remove(slot).unwrap_or(0);
            assert_eq!(
                known.taken, counted,
                "shard {}: places taken of slot {slot}",
                self.id
            );
        }
        assert!(
            taken.is_empty(),
            "shard {}: places taken of slots not in memory: {taken:?}",
            self.id
        );
    }

    fn assert_one_op_of_a_person_is_under_way(&self) {
        let mut busy: BTreeSet<PersonKey> = BTreeSet::new();
        for pending in self.asks.values() {
            if let Want::Op(op) = &pending.want {
                let key = person_key(op);
                assert!(
                    self.persons.contains_key(&key),
                    "shard {}: a person's op is under way unnoticed",
                    self.id
                );
                let first = pending.stage == Stage::Parked || busy.insert(key);
                assert!(first, "shard {}: two ops of a person at once", self.id);
            }
        }
        assert_eq!(
            busy.len(),
            self.persons.len(),
            "shard {}: a person waits for nothing",
            self.id
        );
    }

    fn assert_one_statement(&self) {
        let asks = self.in_flight_asks().len();
        assert!(asks <= self.limits.batch_ops_max, "batch of {asks} ops");
        assert!(self.asks.len() <= self.limits.queue_ops_max);
        if let (Phase::Serving | Phase::Reapplying, Some(statement)) = (self.phase, &self.in_flight)
        {
            assert_eq!(
                statement.seq,
                self.committed + 1,
                "shard {}: statements number without gaps",
                self.id
            );
        }
        if self.phase == Phase::Serving {
            assert!(self.arrivals.is_empty(), "somebody was not looked at");
            let idle = self.in_flight.is_none();
            assert!(!idle || self.queue.is_empty(), "work waits for nothing");
        }
    }
}
