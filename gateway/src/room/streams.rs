//! Streams of rooms: documents as they change, and downloads that pass through. Both are bounded.

use std::sync::Arc;

use domain::Refusal;
use futures::{Stream, StreamExt as _};
use proto::encoded::Encoded;
use proto::room::GetRoomRequest;
use proto::status::Refused;
use runtime::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, Streaming};

use super::Rooms;
use crate::permits::passed_on;

/// Downloads that pass through at once.
const DOWNLOADS_MAX: usize = 16;

/// Who may stream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Streams {
    watchers: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    drain: Drain,
}

impl Streams {
    pub(crate) fn new(watchers_max: usize, drain: Drain) -> Self {
        Self {
            watchers: Arc::new(Semaphore::new(watchers_max)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            drain,
        }
    }

    /// The room's document, then each newer one, until the caller leaves or the gateway drains.
    pub(crate) fn watch(
        &self,
        rooms: &Rooms,
        room: GetRoomRequest,
    ) -> Result<impl Stream<Item = Result<Encoded, Status>> + Send + use<>, Refused> {
        let seat = Arc::clone(&self.watchers).try_acquire_owned();
        let seat = seat.map_err(|_| Refusal::Overloaded)?;
        if rooms.newer(&room, 0).is_none() {
            return Err(Refusal::CampaignUnknown.into());
        }
        let (rooms, drain) = (rooms.clone(), self.drain.clone());
        let changes = rooms.changes();
        let start = (0, changes, rooms, room, seat);
        let documents = futures::stream::unfold(start, |(last, mut changes, rooms, room, seat)| {
            async move {
                loop {
                    // Marked before the look: a change after it ends the wait.
                    changes.mark_unchanged();
                    if let Some((version, document)) = rooms.newer(&room, last) {
                        return Some((Ok(document), (version, changes, rooms, room, seat)));
                    }
                    if changes.changed().await.is_err() {
                        return None;
                    }
                }
            }
        });
        Ok(documents.take_until(async move { drain.announced().await }))
    }

    pub(crate) fn download(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let seat = Arc::clone(&self.downloads).try_acquire_owned();
        Ok(seat.map_err(|_| Refusal::Overloaded)?)
    }

    /// Another service's stream, told in our words where it fails.
    pub(crate) fn pass_on<T: Send + 'static>(
        &self,
        stream: Streaming<T>,
        seat: OwnedSemaphorePermit,
    ) -> impl Stream<Item = Result<T, Status>> + Send + use<T> {
        let drain = self.drain.clone();
        let stream = stream.map(move |one| {
            // Sits until the last message is out.
            let _ = &seat;
            one.map_err(|status| passed_on(&runtime::transport::normalised(status)))
        });
        // The caller's download may be finished elsewhere; it is cut only when the time for draining is over.
        stream.take_until(async move { drain.expired().await })
    }
}
