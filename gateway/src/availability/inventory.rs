//! One clinic's slots as its terminal watches them: everything, then what is different from what it saw.
//!
//! Invariant: what a terminal has seen plus what it is sent is the view; nothing is sent twice, whoever owns the shard.

use std::sync::Arc;
use std::time::Duration;

use domain::{ClinicId, Refusal};
use futures::stream::{self, BoxStream, StreamExt as _};
use proto::clinic::WatchInventoryResponse;
use proto::convert::timestamp;
use proto::status::{Refused, refuse};
use runtime::Drain;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::answers::slot_of;
use super::region::Region;
use super::watchers::Expired;

/// The messages of a watch.
pub(crate) type InventoryStream = BoxStream<'static, Result<WatchInventoryResponse, Status>>;

struct Watch {
    region: Arc<Region>,
    clinic: ClinicId,
    newest: watch::Receiver<u64>,
    /// The last change that the terminal has seen; none before the snapshot.
    seen: Option<u64>,
    drain: Drain,
    sign_of_life_every: Duration,
    _seat: OwnedSemaphorePermit,
}

/// Watches from a cursor, or from a snapshot if that is empty.
pub(super) fn watch(
    region: &Arc<Region>,
    clinic: &ClinicId,
    cursor: &str,
    (drain, sign_of_life_every): (Drain, Duration),
    seat: OwnedSemaphorePermit,
) -> Result<InventoryStream, Refused> {
    let seen = match cursor {
        "" => None,
        cursor => {
            let position = region.ring.position(cursor);
            Some(position.map_err(|Expired| Refusal::CursorExpired)?)
        }
    };
    let watch = Watch {
        region: Arc::clone(region),
        clinic: clinic.clone(),
        newest: region.ring.subscribe(),
        seen,
        drain,
        sign_of_life_every,
        _seat: seat,
    };
    Ok(stream::unfold(Some(watch), Watch::next).boxed())
}

impl Watch {
    async fn next(
        this: Option<Self>,
    ) -> Option<(Result<WatchInventoryResponse, Status>, Option<Self>)> {
        let mut this = this?;
        loop {
            // Marked before the view is read: what comes after that ends the wait.
            this.newest.borrow_and_update();
            match this.news() {
                Ok(Some(message)) => return Some((Ok(message), Some(this))),
                Ok(None) => {}
                Err(why) => return Some((Err(refuse(why)), None)),
            }
            let news = tokio::time::timeout(this.sign_of_life_every, this.newest.changed());
            match this.drain.interrupt(news).await {
                // This gateway goes: the terminal watches on at another, from the start.
                None => return Some((Err(refuse(Refusal::Unavailable)), None)),
                Some(Ok(_)) => {}
                Some(Err(_)) => {
                    let message = this.message(Vec::new(), false);
                    return Some((Ok(message), Some(this)));
                }
            }
        }
    }

    /// What the terminal has not seen yet.
    fn news(&mut self) -> Result<Option<WatchInventoryResponse>, Refusal> {
        let view = self.region.view().ok_or(Refusal::Unavailable)?;
        let clinic = view.clinic(&self.clinic).ok_or(Refusal::ClinicUnknown)?;
        let before = self.seen;
        if before.is_some_and(|seen| clinic.removed > seen) {
            return Err(Refusal::CursorExpired);
        }
        // The view may be a moment behind a cursor that another stream of this gateway gave.
        self.seen = Some(view.sequence.max(before.unwrap_or(0)));
        if before.is_some_and(|seen| clinic.newest <= seen) {
            return Ok(None);
        }
        let told = clinic
            .slots
            .iter()
            .zip(&clinic.since)
            .filter(|(_, since)| before.is_none_or(|seen| **since > seen))
            .map(|(slot, _)| slot_of(&self.region.id, &self.clinic, slot))
            .collect();
        Ok(Some(self.message(told, before.is_none())))
    }

    fn message(
        &self,
        slots: Vec<proto::availability::Slot>,
        snapshot: bool,
    ) -> WatchInventoryResponse {
        let as_of = self.region.view().map(|view| timestamp(view.as_of));
        WatchInventoryResponse {
            slots,
            cursor: self.region.ring.cursor(self.seen.unwrap_or(0)),
            snapshot,
            as_of,
        }
    }
}
