//! What the owners of a region's shards have said, merged. Pure.
//!
//! Invariant: per shard a higher epoch replaces a lower one and nothing of a lower one comes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use domain::{ClinicId, Epoch, ShardId, SlotId, Timestamp};
use proto::convert::from_timestamp;
use proto::inventory::watch_shards_response::Update;
use proto::inventory::{ClinicInfo, ShardSnapshot, SlotInfo, WatchShardsResponse};

/// A clinic's fixed part.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Clinic {
    pub(super) id: ClinicId,
    pub(super) display_name: String,
    pub(super) district: String,
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

/// A slot as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) starts_at: Timestamp,
    /// Days since 1970-01-01 at the clinic.
    pub(super) day: i32,
    pub(super) vaccine: Arc<str>,
    pub(super) dose: u32,
    pub(super) capacity: u32,
    /// 0 when full or closed.
    pub(super) left: u32,
    pub(super) closed: bool,
}

/// All shards of a region, as last heard.
#[derive(Debug, Default)]
pub(super) struct Shards {
    shards: BTreeMap<ShardId, Shard>,
    clinics: BTreeMap<ClinicId, Held>,
    vaccines: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Shard {
    epoch: Epoch,
    sequence: u64,
    as_of: Timestamp,
    clinics: BTreeSet<ClinicId>,
}

/// A clinic with its slots, and the shard that said so last.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) shard: ShardId,
    pub(super) clinic: Arc<Clinic>,
    pub(super) slots: HashMap<SlotId, Slot>,
}

/// What a message changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Clinics whose slots or description changed, or that are gone.
    pub(super) clinics: BTreeSet<ClinicId>,
    /// Slots as they are now; gone ones with nothing left.
    pub(super) slots: Vec<(ClinicId, Slot)>,
    /// A clinic has another shard than before.
    pub(super) shards_of_clinics: bool,
    /// The message told how fresh the shard is.
    pub(super) refreshed: bool,
    /// A message of this shard was lost: only a new snapshot makes it whole again.
    pub(super) gap: bool,
}

impl Shards {
    /// Takes one message of a feed.
    pub(super) fn apply(&mut self, message: WatchShardsResponse) -> Changed {
        let id = ShardId(message.shard);
        let epoch = Epoch(message.epoch);
        let mut changed = Changed::default();
        let Some(update) = message.update else {
            return changed;
        };
        let known = self.shards.get(&id);
        if known.is_some_and(|shard| epoch < shard.epoch) {
            return changed;
        }
        if let Update::Released(_) = update {
            // Kept as it was until the next owner speaks: old figures with their age are better than none.
            return changed;
        }
        let as_of = message
            .as_of
            .as_ref()
            .map_or(Timestamp::default(), from_timestamp);
        if let Update::Snapshot(snapshot) = update {
            self.replace(id, epoch, snapshot, &mut changed);
        } else {
            let Some(shard) = known.filter(|shard| shard.epoch == epoch) else {
                // Changes to something never seen: the snapshot was lost on the way.
                changed.gap = true;
                return changed;
            };
            // The parts of a long snapshot share its number; what they say twice changes nothing.
            if message.sequence < shard.sequence {
                return changed;
            }
            changed.gap = message.sequence > shard.sequence + 1;
            if let Update::Changes(changes) = update {
                for slot in changes.slots {
                    self.set(id, slot, &mut changed);
                }
            }
        }
        let shard = self.shards.entry(id).or_default();
        shard.epoch = epoch;
        shard.sequence = message.sequence;
        shard.as_of = shard.as_of.max(as_of);
        changed.refreshed = true;
        changed
    }

    /// The shard that decides a clinic.
    pub(super) fn shard_of(&self) -> impl Iterator<Item = (&ClinicId, ShardId)> {
        self.clinics.iter().map(|(id, held)| (id, held.shard))
    }

    /// A clinic, if any shard has it.
    pub(super) fn clinic(&self, id: &ClinicId) -> Option<&Held> {
        self.clinics.get(id)
    }

    /// The shards heard of.
    pub(super) fn heard(&self) -> BTreeSet<ShardId> {
        self.shards.keys().copied().collect()
    }

    /// How fresh the region is: as its oldest shard.
    pub(super) fn as_of(&self) -> Option<Timestamp> {
        self.shards.values().map(|shard| shard.as_of).min()
    }

    fn replace(
        &mut self,
        id: ShardId,
        epoch: Epoch,
        snapshot: ShardSnapshot,
        changed: &mut Changed,
    ) {
        let before = self.shards.entry(id).or_default();
        before.epoch = epoch;
        let mut gone = std::mem::take(&mut before.clinics);
        let mut slots: HashMap<String, Vec<SlotInfo>> = HashMap::new();
        for slot in snapshot.slots {
            slots.entry(slot.clinic.clone()).or_default().push(slot);
        }
        let mut here = BTreeSet::new();
        for info in snapshot.clinics {
            let its_slots = slots.remove(&info.clinic).unwrap_or_default();
            let Ok(clinic) = info.clinic.parse::<ClinicId>() else {
                continue;
            };
            gone.remove(&clinic);
            here.insert(clinic.clone());
            self.place(id, &clinic, info, its_slots, changed);
        }
        for clinic in gone {
            // It may have moved to another shard that spoke first; then it is not this one's to remove.
            if self
                .clinics
                .get(&clinic)
                .is_some_and(|held| held.shard == id)
                && let Some(held) = self.clinics.remove(&clinic)
            {
                changed.shards_of_clinics = true;
                changed.slots.extend(
                    held.slots
                        .into_values()
                        .map(|slot| (clinic.clone(), emptied(slot))),
                );
                changed.clinics.insert(clinic);
            }
        }
        self.shards.entry(id).or_default().clinics = here;
    }

    fn place(
        &mut self,
        shard: ShardId,
        id: &ClinicId,
        info: ClinicInfo,
        slots: Vec<SlotInfo>,
        changed: &mut Changed,
    ) {
        let clinic = Clinic {
            id: id.clone(),
            display_name: info.display_name,
            district: info.district,
            latitude: info.latitude,
            longitude: info.longitude,
        };
        let after: HashMap<SlotId, Slot> = slots
            .into_iter()
            .map(|slot| {
                let slot = self.slot(slot);
                (slot.id, slot)
            })
            .collect();
        let before = self.clinics.remove(id);
        let moved = before.as_ref().is_none_or(|held| held.shard != shard);
        changed.shards_of_clinics |= moved;
        let same_clinic = before.as_ref().is_some_and(|held| *held.clinic == clinic);
        let old = before.map(|held| held.slots).unwrap_or_default();
        if !same_clinic || old != after {
            changed.clinics.insert(id.clone());
            for slot in after
                .values()
                .filter(|slot| old.get(&slot.id) != Some(slot))
            {
                changed.slots.push((id.clone(), slot.clone()));
            }
            for slot in old
                .into_values()
                .filter(|slot| !after.contains_key(&slot.id))
            {
                changed.slots.push((id.clone(), emptied(slot)));
            }
        }
        let held = Held {
            shard,
            clinic: Arc::new(clinic),
            slots: after,
        };
        self.clinics.insert(id.clone(), held);
    }

    fn set(&mut self, shard: ShardId, info: SlotInfo, changed: &mut Changed) {
        let Ok(clinic) = info.clinic.parse::<ClinicId>() else {
            return;
        };
        let slot = self.slot(info);
        let Some(held) = self.clinics.get_mut(&clinic) else {
            changed.gap = true;
            return;
        };
        // A clinic that moved away is the other shard's to describe.
        if held.shard != shard {
            return;
        }
        if held.slots.get(&slot.id) != Some(&slot) {
            changed.clinics.insert(clinic.clone());
            changed.slots.push((clinic, slot.clone()));
            held.slots.insert(slot.id, slot);
        }
    }

    fn slot(&mut self, info: SlotInfo) -> Slot {
        let vaccine = match self.vaccines.get(info.vaccine.as_str()) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = info.vaccine.into();
                self.vaccines.insert(Arc::clone(&new));
                new
            }
        };
        Slot {
            id: SlotId(info.slot),
            starts_at: Timestamp::from_micros(info.starts_at_us),
            day: info.day,
            vaccine,
            dose: info.dose,
            capacity: info.capacity,
            left: if info.open { info.left } else { 0 },
            closed: !info.open,
        }
    }
}

fn emptied(slot: Slot) -> Slot {
    Slot {
        capacity: 0,
        left: 0,
        ..slot
    }
}

#[cfg(test)]
mod tests;
