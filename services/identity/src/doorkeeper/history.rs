//! Keeps every version of every room, a moment after it was written, however long the people store is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{CampaignId, CohortId};
use runtime::drain::Drain;
use runtime::fields;
use tokio::sync::mpsc;

use crate::people::{KeptDocument, People};

/// Versions that wait for the store: about an hour of one room. Beyond that the newest are not kept.
const WAITING_MAX: usize = 16_384;
/// Versions written at once.
const BATCH_MAX: usize = 256;
/// How long after a failed write the next one is tried.
const AGAIN: Duration = Duration::from_millis(500);
/// A process that stops does not wait longer than this for a store that is away.
const LAST_WITHIN: Duration = Duration::from_secs(2);

type Version = (CampaignId, CohortId, KeptDocument);

/// Where written versions go. Cheap to clone.
#[derive(Clone)]
pub struct History(mpsc::Sender<Version>);

// === impl History ===

impl History {
    /// With the end that [`keep`] reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Version>) {
        let (versions, waiting) = mpsc::channel(WAITING_MAX);
        (Self(versions), waiting)
    }

    pub(super) fn keep(&self, campaign: CampaignId, cohort: CohortId, document: KeptDocument) {
        let version = document.version;
        let (of_campaign, of_cohort) = (campaign.clone(), cohort.clone());
        if self.0.try_send((campaign, cohort, document)).is_err() {
            tracing::error!(
                campaign.id = %of_campaign, cohort = %of_cohort, version,
                "a room's version is not kept: the people store has been away for too long"
            );
        }
    }
}

/// Writes what comes until the process drains, then what is left.
pub async fn keep(people: Arc<dyn People>, mut waiting: mpsc::Receiver<Version>, drain: Drain) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        tokio::select! {
            count = waiting.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
            () = drain.announced() => {
                waiting.close();
                while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {}
                let last = write_all(&*people, &mut batch);
                if tokio::time::timeout(LAST_WITHIN, last).await.is_err() {
                    tracing::warn!("the last versions of rooms were not kept");
                }
                return;
            }
        }
        tokio::select! {
            () = write_all(&*people, &mut batch) => {}
            () = drain.announced() => {}
        }
    }
}

/// Until everything is written; what is written already changes nothing.
async fn write_all(people: &dyn People, batch: &mut Vec<Version>) {
    let mut failing = false;
    while !batch.is_empty() {
        match write(people, batch).await {
            Ok(()) => batch.clear(),
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    let error = fields::chain(&error);
                    tracing::warn!(
                        error,
                        retry = "doorkeeper",
                        "versions of rooms are not kept yet"
                    );
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn write(people: &dyn People, batch: &[Version]) -> Result<(), crate::people::Fault> {
    let mut rooms: BTreeMap<(&CampaignId, &CohortId), Vec<KeptDocument>> = BTreeMap::new();
    for (campaign, cohort, document) in batch {
        let of_room = rooms.entry((campaign, cohort)).or_default();
        // The same version twice is one version.
        if of_room
            .iter()
            .all(|known| known.version != document.version)
        {
            of_room.push(document.clone());
        }
    }
    for ((campaign, cohort), documents) in rooms {
        people.keep_documents(campaign, cohort, &documents).await?;
    }
    Ok(())
}
