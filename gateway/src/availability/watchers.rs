//! The last changes of a region, encoded once for all who watch.
//!
//! Invariant: memory is bounded whoever reads how slowly: a reader who falls behind the ring starts again.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use domain::Timestamp;
use proto::availability::{Slot as PbSlot, WatchAvailabilityResponse};
use proto::convert::timestamp;
use proto::encoded::Encoded;
use tokio::sync::watch;

/// Slots in one message of a watch.
pub(super) const BATCH_MAX: usize = 500;
const CHANGES_MAX: usize = 4_096;
const CHANGE_BYTES_MAX: usize = 16 << 20;

/// Changes in their order, each with a number.
#[derive(Debug)]
pub(super) struct Ring {
    /// Tells cursors of this process and region from those of others.
    origin: u64,
    changes: RwLock<Changes>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Changes {
    kept: VecDeque<Encoded>,
    bytes: usize,
    newest: u64,
}

/// The cursor is older than what is kept, or of another process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired;

impl Ring {
    pub(super) fn new(origin: u64) -> Self {
        Self {
            origin,
            changes: RwLock::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// Appends changes; returns the number of the last one.
    pub(super) fn push(&self, slots: Vec<PbSlot>, as_of: Timestamp) -> u64 {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        let mut slots = slots.into_iter();
        loop {
            let batch: Vec<_> = slots.by_ref().take(BATCH_MAX).collect();
            if batch.is_empty() {
                break;
            }
            changes.newest += 1;
            let message = self.message(batch, changes.newest, as_of);
            changes.bytes += message.bytes().len();
            changes.kept.push_back(message);
            while changes.kept.len() > CHANGES_MAX || changes.bytes > CHANGE_BYTES_MAX {
                let Some(oldest) = changes.kept.pop_front() else {
                    break;
                };
                changes.bytes -= oldest.bytes().len();
            }
        }
        changes.newest
    }

    /// Wakes the readers, once the view has the changes too.
    pub(super) fn announce(&self) {
        let newest = self
            .changes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .newest;
        self.newest
            .send_if_modified(|known| std::mem::replace(known, newest) != newest);
    }

    /// The change after number `after`: `None` while there is none.
    pub(super) fn after(&self, after: u64) -> Result<Option<Encoded>, Expired> {
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        let behind = changes.newest.checked_sub(after).ok_or(Expired)?;
        let Ok(behind) = usize::try_from(behind) else {
            return Err(Expired);
        };
        if behind == 0 {
            return Ok(None);
        }
        let at = changes.kept.len().checked_sub(behind).ok_or(Expired)?;
        Ok(changes.kept.get(at).cloned())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// A message after whose receipt a watch resumes at number `at`.
    pub(super) fn message(&self, slots: Vec<PbSlot>, at: u64, as_of: Timestamp) -> Encoded {
        Encoded::of(&WatchAvailabilityResponse {
            slots,
            cursor: self.cursor(at),
            snapshot_complete: true,
            as_of: Some(timestamp(as_of)),
        })
    }

    /// The cursor of number `at`.
    pub(super) fn cursor(&self, at: u64) -> String {
        format!("{:016x}{at:016x}", self.origin)
    }

    /// The number in a cursor of this ring that can still be resumed from.
    pub(super) fn resume(&self, cursor: &str) -> Result<u64, Expired> {
        let at = self.position(cursor)?;
        self.after(at).map(|_| at)
    }

    /// The number in a cursor of this ring, kept or not.
    pub(super) fn position(&self, cursor: &str) -> Result<u64, Expired> {
        if cursor.len() != 32 || !cursor.is_ascii() {
            return Err(Expired);
        }
        let origin = u64::from_str_radix(&cursor[..16], 16).map_err(|_| Expired)?;
        let at = u64::from_str_radix(&cursor[16..], 16).map_err(|_| Expired)?;
        let newest = self
            .changes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .newest;
        if origin != self.origin || at > newest {
            return Err(Expired);
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn push(ring: &Ring, left: u32) -> u64 {
        ring.push(
            vec![PbSlot {
                left,
                ..PbSlot::default()
            }],
            Timestamp::from_secs(1),
        )
    }

    fn decode(message: &Encoded) -> WatchAvailabilityResponse {
        WatchAvailabilityResponse::decode(message.bytes().clone()).expect("our own bytes")
    }

    #[test]
    fn changes_are_read_in_order_and_resumed_from_their_cursors() {
        let ring = Ring::new(7);
        assert_eq!(ring.after(0), Ok(None));
        (1..=3).for_each(|left| assert_eq!(push(&ring, left), u64::from(left)));
        let second = decode(&ring.after(1).expect("kept").expect("newer"));
        assert_eq!(second.slots[0].left, 2);
        let at = ring.resume(&second.cursor).expect("kept");
        assert_eq!(
            decode(&ring.after(at).expect("kept").expect("newer")).slots[0].left,
            3
        );
    }

    #[test]
    fn a_reader_who_fell_behind_starts_again() {
        let ring = Ring::new(7);
        let cursor = decode(&ring.message(Vec::new(), 0, Timestamp::default())).cursor;
        assert_eq!(ring.resume(&cursor), Ok(0));
        for _ in 0..=CHANGES_MAX {
            push(&ring, 1);
        }
        assert_eq!(ring.after(0), Err(Expired));
        assert_eq!(ring.resume(&cursor), Err(Expired));
        assert!(ring.after(1).is_ok());
    }

    #[test]
    fn a_cursor_of_another_process_or_of_the_future_expires() {
        let (ring, other) = (Ring::new(7), Ring::new(8));
        push(&ring, 1);
        push(&other, 1);
        let foreign = decode(&other.after(0).expect("kept").expect("one")).cursor;
        assert_eq!(ring.resume(&foreign), Err(Expired));
        let future = decode(&ring.message(Vec::new(), 99, Timestamp::default())).cursor;
        for cursor in [
            future.as_str(),
            "",
            "x",
            "가가가가가가가가가가가",
            &"z".repeat(32),
        ] {
            assert_eq!(ring.resume(cursor), Err(Expired), "{cursor:?}");
        }
    }

    #[test]
    fn many_changes_become_several_messages() {
        let ring = Ring::new(7);
        let slots = vec![PbSlot::default(); BATCH_MAX * 2 + 1];
        assert_eq!(ring.push(slots, Timestamp::default()), 3);
    }
}
