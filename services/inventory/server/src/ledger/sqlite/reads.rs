//! What is only read, on connections that cannot write.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use domain::{
    CampaignId, Claimant, PersonId, Serial, ShardId, SlotId, SlotPair, SlotState, Timestamp,
};
use rusqlite::{Connection, Row, params};
use tokio::sync::Semaphore;

use super::rows::{SLOT_COLUMNS, claim_row, parsed, read_slot, slot_state, visit_state};
use super::{files, unavailable};
use crate::ledger::{
    Appointment, AppointmentState, BucketSeen, ClaimState, ClaimView, Clinic, Fault, OutboxCursor,
    OutsideChanges, RoomSeen, ShardCatalogue,
};

/// More than the cores of a machine that runs embedded: reads hardly wait for the disk.
const READERS_MAX: usize = 4;

/// A few read-only connections, opened when needed.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }

    /// Runs `query` in one snapshot that has every commit answered before this call.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(unavailable)?;
        let (path, idle) = (Arc::clone(&self.path), Arc::clone(&self.idle));
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut db = match waiting {
                Some(db) => db,
                None => files::open_reader(&path).map_err(unavailable)?,
            };
            let snapshot = db.transaction().map_err(unavailable)?;
            let result = query(&snapshot).map_err(unavailable)?;
            snapshot.finish().map_err(unavailable)?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
            Ok(result)
        })
        .await
        .map_err(unavailable)?
    }
}

pub(super) fn slots(db: &Connection, wanted: &[SlotId]) -> rusqlite::Result<Vec<SlotState>> {
    wanted
        .iter()
        .filter_map(|slot| slot_state(db, *slot).transpose())
        .collect()
}

pub(super) fn catalogue(db: &Connection, shard: ShardId) -> rusqlite::Result<ShardCatalogue> {
    let clinics = db
        .prepare_cached(
            "SELECT clinic, shard_id, display_name, district, latitude, longitude FROM clinic
             WHERE shard_id = ?1 ORDER BY clinic",
        )?
        .query_map([shard.0], clinic)?
        .collect::<rusqlite::Result<_>>()?;
    let slots = db
        .prepare_cached(&format!(
            "SELECT {SLOT_COLUMNS} FROM slot WHERE shard_id = ?1 ORDER BY clinic, starts_at, slot_id"
        ))?
        .query_map([shard.0], read_slot)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(ShardCatalogue { clinics, slots })
}

/// Reads a clinic's columns, in the order of its type.
pub(super) fn clinic(row: &Row<'_>) -> rusqlite::Result<Clinic> {
    Ok(Clinic {
        clinic: parsed(row, 0)?,
        shard: ShardId(row.get(1)?),
        display_name: row.get(2)?,
        district: row.get(3)?,
        latitude: row.get(4)?,
        longitude: row.get(5)?,
    })
}

/// One writer commits events in the order of their numbers, so nothing can appear before a cursor later on.
pub(super) fn outside_changes(
    db: &Connection,
    cursor: OutboxCursor,
    limit: u32,
) -> rusqlite::Result<OutsideChanges> {
    let events = db
        .prepare_cached(
            "SELECT event_id, slot_id FROM event WHERE side = 1 AND event_id > ?1 ORDER BY event_id LIMIT ?2",
        )?
        .query_map(params![cursor.0, limit], |row| {
            Ok((row.get::<_, u64>(0)?, SlotId(row.get(1)?)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let last = events.last().map_or(cursor, |(id, _)| OutboxCursor(*id, 0));
    let mut changed: Vec<SlotId> = events.into_iter().map(|(_, slot)| slot).collect();
    changed.sort_unstable();
    changed.dedup();
    Ok(OutsideChanges {
        slots: slots(db, &changed)?,
        cursor: last,
    })
}

pub(super) fn outbox_cursor(db: &Connection) -> rusqlite::Result<OutboxCursor> {
    let last: u64 = db
        .prepare_cached("SELECT coalesce(max(event_id), 0) FROM event")?
        .query_row([], |row| row.get(0))?;
    Ok(OutboxCursor(last, 0))
}

pub(super) fn has_expired_holds(
    db: &Connection,
    shard: ShardId,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM claim WHERE hold_shard = ?1 AND hold_until <= ?2)",
    )?
    .query_row(params![shard.0, now.as_micros()], |row| row.get(0))
}

pub(super) fn claim(
    db: &Connection,
    campaign: CampaignId,
    person: PersonId,
    now: Timestamp,
) -> rusqlite::Result<Option<ClaimView>> {
    let who = Claimant {
        campaign,
        person,
        serial: Serial(0),
    };
    let Some(row) = claim_row(db, &who)? else {
        return Ok(None);
    };
    let state = if row.expired(now) {
        ClaimState::Free
    } else {
        row.state
    };
    let mut view = ClaimView {
        state,
        serial: row.serial,
        version: row.version,
        booking: None,
        hold_until: None,
        appointments: Vec::new(),
    };
    let appointment = match state {
        ClaimState::Free | ClaimState::Surrendered => return Ok(Some(view)),
        ClaimState::Held => AppointmentState::Held,
        ClaimState::Booked => AppointmentState::Booked,
    };
    view.booking = row.booking;
    view.hold_until = row.hold_until;
    for slot in row.slots.into_iter().flat_map(SlotPair::iter) {
        let visit = match row.booking {
            Some(booking) => visit_state(db, slot, booking)?,
            None => None,
        };
        let found = slot_state(db, slot)?.map(|slot| Appointment {
            slot,
            state: visit.unwrap_or(appointment),
        });
        view.appointments.extend(found);
    }
    view.appointments.sort_by_key(|one| one.slot.dose);
    Ok(Some(view))
}

pub(super) fn rooms(db: &Connection) -> rusqlite::Result<Vec<RoomSeen>> {
    db.prepare_cached(
        "SELECT campaign, cohort, version, document, frontier FROM room_seen ORDER BY campaign, cohort",
    )?
    .query_map([], |row| {
        Ok(RoomSeen {
            campaign: parsed(row, 0)?,
            cohort: parsed(row, 1)?,
            version: row.get(2)?,
            document: row.get(3)?,
            frontier: parsed(row, 4)?,
        })
    })?
    .collect()
}

pub(super) fn buckets(db: &Connection) -> rusqlite::Result<Vec<BucketSeen>> {
    db.prepare_cached(
        "SELECT campaign, cohort, id, document FROM bucket_seen ORDER BY campaign, cohort, id",
    )?
    .query_map([], |row| {
        Ok(BucketSeen {
            campaign: parsed(row, 0)?,
            cohort: parsed(row, 1)?,
            id: row.get(2)?,
            document: row.get(3)?,
        })
    })?
    .collect()
}
