//! Listings and watches, as encoded answers.

use std::sync::Arc;
use std::time::Duration;

use domain::name::ClinicName;
use domain::{ClinicId, Refusal, RegionId};
use futures::stream::{self, BoxStream, StreamExt as _};
use proto::availability::{
    Clinic as PbClinic, ListClinicsRequest, ListClinicsResponse, ListSlotsRequest,
    ListSlotsResponse, Slot as PbSlot, WatchAvailabilityRequest, WatchAvailabilityResponse,
};
use proto::clinic::QueryInventoryResponse;
use proto::convert::timestamp;
use proto::encoded::Encoded;
use proto::status::{Refused, refuse};
use runtime::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use super::Availability;
use super::filter::{ClinicFilter, SlotFilter};
use super::inventory::{self, InventoryStream};
use super::page::{Listing, PageKey};
use super::region::Region;
use super::shards::{Clinic, Slot};
use super::snapshot::View;
use super::watchers::{BATCH_MAX, Expired};

/// A watch on which nothing happens says that it is alive.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);

/// Answers questions about availability. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Answers {
    availability: Availability,
    key: PageKey,
    watchers: Arc<Semaphore>,
    drain: Drain,
    sign_of_life_every: Duration,
}

/// The messages of a watch.
pub(crate) type WatchStream = BoxStream<'static, Result<Encoded, Status>>;

impl Answers {
    pub(crate) fn new(
        availability: Availability,
        key: PageKey,
        watchers_max: usize,
        drain: Drain,
    ) -> Self {
        Self {
            availability,
            key,
            watchers: Arc::new(Semaphore::new(watchers_max)),
            drain,
            sign_of_life_every: SIGN_OF_LIFE_EVERY,
        }
    }

    pub(crate) fn list_slots(&self, request: &ListSlotsRequest) -> Result<Encoded, Refused> {
        let (region, view) = self.view(&request.region)?;
        if let Some(answer) = view.slot_answers.get(request) {
            return Ok(answer);
        }
        let filter = SlotFilter::parse(&region.id, request, &self.key)?;
        let (slots, offset) = filter.page(&view);
        let answer = Encoded::of(&ListSlotsResponse {
            slots: slots
                .into_iter()
                .map(|(c, slot)| slot_of(&region.id, &c.id, slot))
                .collect(),
            next_page_token: offset
                .map(|offset| self.key.seal(&filter.listing, &offset.encode()))
                .unwrap_or_default(),
            as_of: Some(timestamp(view.as_of)),
        });
        view.slot_answers.put(request, &answer);
        Ok(answer)
    }

    pub(crate) fn list_clinics(&self, request: &ListClinicsRequest) -> Result<Encoded, Refused> {
        let (region, view) = self.view(&request.region)?;
        if let Some(answer) = view.clinic_answers.get(request) {
            return Ok(answer);
        }
        let filter = ClinicFilter::parse(request, &self.key)?;
        let (clinics, offset) = filter.page(&view);
        let answer = Encoded::of(&ListClinicsResponse {
            clinics: clinics
                .into_iter()
                .map(|clinic| clinic_of(&region.id, clinic))
                .collect(),
            next_page_token: offset
                .map(|offset| self.key.seal(&filter.listing, &offset))
                .unwrap_or_default(),
            as_of: Some(timestamp(view.as_of)),
        });
        view.clinic_answers.put(request, &answer);
        Ok(answer)
    }

    pub(crate) fn query_inventory(
        &self,
        name: &ClinicName,
    ) -> Result<QueryInventoryResponse, Refused> {
        let (region, view) = self.view(name.region.as_str())?;
        let clinic = view.clinic(&name.clinic).ok_or(Refusal::ClinicUnknown)?;
        Ok(QueryInventoryResponse {
            slots: clinic
                .slots
                .iter()
                .map(|s| slot_of(&region.id, &name.clinic, s))
                .collect(),
            as_of: Some(timestamp(view.as_of)),
        })
    }

    pub(crate) fn watch(&self, request: &WatchAvailabilityRequest) -> Result<WatchStream, Refused> {
        let (region, view) = self.view(&request.region)?;
        let seat = Arc::clone(&self.watchers)
            .try_acquire_owned()
            .map_err(|_| Refusal::Overloaded)?;
        let newest = region.ring.subscribe();
        let at = if request.cursor.is_empty() {
            At::Snapshot {
                view,
                clinic: 0,
                slot: 0,
            }
        } else {
            let sequence = region
                .ring
                .resume(&request.cursor)
                .map_err(|Expired| Refusal::CursorExpired)?;
            At::Change(sequence)
        };
        let region = Arc::clone(region);
        let watch = Watch {
            region,
            newest,
            at,
            drain: self.drain.clone(),
            sign_of_life_every: self.sign_of_life_every,
            _seat: seat,
        };
        Ok(stream::unfold(Some(watch), Watch::next).boxed())
    }

    /// A clinic's slots, then what changes.
    pub(crate) fn watch_inventory(
        &self,
        name: &ClinicName,
        cursor: &str,
    ) -> Result<InventoryStream, Refused> {
        let (region, view) = self.view(name.region.as_str())?;
        if view.clinic(&name.clinic).is_none() {
            return Err(Refusal::ClinicUnknown.into());
        }
        let seat = Arc::clone(&self.watchers)
            .try_acquire_owned()
            .map_err(|_| Refusal::Overloaded)?;
        let pace = (self.drain.clone(), self.sign_of_life_every);
        inventory::watch(region, &name.clinic, cursor, pace, seat)
    }

    /// The name on a clinic's door; `None` for one that is not known here.
    pub(crate) fn display_name(&self, name: &ClinicName) -> Option<String> {
        let view = self.availability.region(&name.region)?.view()?;
        let clinic = view.clinic(&name.clinic)?;
        Some(clinic.clinic.display_name.clone())
    }

    /// What a page token of ours says of the listing; empty for none.
    pub(crate) fn open_page(&self, listing: &[String], page: &str) -> Result<String, Refused> {
        if page.is_empty() {
            return Ok(String::new());
        }
        let opened = self.key.open(&of_parts(listing), page);
        opened
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| Refusal::PageTokenInvalid.into())
    }

    /// A page token that says where the listing goes on; empty at its end.
    pub(crate) fn seal_page(&self, listing: &[String], offset: &str) -> String {
        if offset.is_empty() {
            return String::new();
        }
        self.key.seal(&of_parts(listing), offset.as_bytes())
    }

    fn view(&self, region: &str) -> Result<(&Arc<Region>, Arc<View>), Refused> {
        let region = self
            .availability
            .named(region)
            .ok_or_else(crate::rpc::unknown_region)?;
        // Before the first snapshot an empty list would be a lie.
        let view = region.view().ok_or(Refusal::Unavailable)?;
        Ok((region, view))
    }
}

fn of_parts(parts: &[String]) -> Listing {
    parts.iter().fold(Listing::default(), |listing, part| {
        listing.with(part.as_bytes())
    })
}

/// One caller's watch.
struct Watch {
    region: Arc<Region>,
    newest: watch::Receiver<u64>,
    at: At,
    drain: Drain,
    sign_of_life_every: Duration,
    _seat: OwnedSemaphorePermit,
}

enum At {
    /// The next slot of the snapshot to be sent.
    Snapshot {
        view: Arc<View>,
        clinic: usize,
        slot: usize,
    },
    /// The last change that was sent.
    Change(u64),
}

impl Watch {
    async fn next(this: Option<Self>) -> Option<(Result<Encoded, Status>, Option<Self>)> {
        let mut this = this?;
        if let At::Snapshot { .. } = &this.at {
            return Some((Ok(this.next_of_snapshot()), Some(this)));
        }
        loop {
            let At::Change(at) = this.at else { return None };
            match this.region.ring.after(at) {
                Ok(Some(message)) => {
                    this.at = At::Change(at + 1);
                    return Some((Ok(message), Some(this)));
                }
                Ok(None) => {}
                Err(Expired) => return Some((Err(refuse(Refusal::CursorExpired)), None)),
            }
            let news = tokio::time::timeout(this.sign_of_life_every, this.newest.changed());
            match this.drain.interrupt(news).await {
                // This gateway goes: the caller watches on at another, from the start.
                None => return Some((Err(refuse(Refusal::Unavailable)), None)),
                Some(Ok(_)) => {}
                Some(Err(_)) => {
                    let as_of = this
                        .region
                        .view()
                        .map_or_else(Default::default, |view| view.as_of);
                    return Some((
                        Ok(this.region.ring.message(Vec::new(), at, as_of)),
                        Some(this),
                    ));
                }
            }
        }
    }

    /// The next part of the snapshot; the last one says so and has the cursor.
    fn next_of_snapshot(&mut self) -> Encoded {
        let At::Snapshot { view, clinic, slot } = &mut self.at else {
            return Encoded::default();
        };
        let mut slots = Vec::new();
        while let Some(at) = view.clinics.get(*clinic) {
            let room = BATCH_MAX - slots.len();
            let part = at.slots[*slot..].iter().take(room);
            slots.extend(part.map(|slot| slot_of(&self.region.id, &at.clinic.id, slot)));
            *slot += room.min(at.slots.len() - *slot);
            if *slot < at.slots.len() {
                break;
            }
            (*clinic, *slot) = (*clinic + 1, 0);
        }
        let (sequence, as_of) = (view.sequence, view.as_of);
        if *clinic == view.clinics.len() {
            self.at = At::Change(sequence);
            return self.region.ring.message(slots, sequence, as_of);
        }
        Encoded::of(&WatchAvailabilityResponse {
            slots,
            cursor: String::new(),
            snapshot_complete: false,
            as_of: Some(timestamp(as_of)),
        })
    }
}

pub(super) fn slot_of(region: &RegionId, clinic: &ClinicId, slot: &Slot) -> PbSlot {
    PbSlot {
        name: format!("regions/{region}/clinics/{clinic}/slots/{}", slot.id),
        start_time: Some(timestamp(slot.starts_at)),
        vaccine: slot.vaccine.as_ref().to_owned(),
        dose: slot.dose,
        capacity: slot.capacity,
        left: slot.left,
        closed: slot.closed,
    }
}

fn clinic_of(region: &RegionId, clinic: &Clinic) -> PbClinic {
    PbClinic {
        name: format!("regions/{region}/clinics/{}", clinic.id),
        display_name: clinic.display_name.clone(),
        district: clinic.district.clone(),
        latitude: clinic.latitude,
        longitude: clinic.longitude,
    }
}

#[cfg(test)]
mod tests;
