//! What the order can be checked by, from the people store: lists of tickets, proofs, the history of rooms. For
//! gateways, which pass it on.

use std::pin::Pin;
use std::sync::Arc;

use domain::place::DrawTicket;
use domain::{CampaignId, CohortId, Refusal};
use futures::Stream;
use proto::convert::{Fields, timestamp};
use proto::room::room_service_server::RoomService;
use proto::room::{
    GetDrawRequest, GetDrawResponse, GetInclusionProofRequest, GetInclusionProofResponse,
    GetPlaceRequest, GetPlaceResponse, GetRoomRequest, GetRoomResponse, ListRoomVersionsRequest,
    ListRoomVersionsResponse, ListTicketsRequest, ListTicketsResponse, RoomVersion,
    WatchRoomRequest, WatchRoomResponse,
};
use proto::status::{Refused, refuse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::room;
use crate::caller::Callers;
use crate::doorkeeper::draw::unavailable;
use crate::people::People;
use crate::tickets::Lists;

/// Tickets in one message: 64 KiB.
const TICKETS_MAX: usize = 4_096;
/// Versions in one message: below a megabyte for rooms of 17 regions.
const VERSIONS_MAX: u32 = 100;
/// Downloads at once; a list of ten million is 160 MB on its way to somebody slow.
const DOWNLOADS_MAX: usize = 16;

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The part of `RoomService` that needs the people store; gateways answer the rest from memory.
#[derive(Clone)]
pub struct RoomRecords {
    callers: Callers,
    people: Arc<dyn People>,
    lists: Lists,
    downloads: Arc<Semaphore>,
}

// === impl RoomRecords ===

impl RoomRecords {
    pub(crate) fn new(callers: Callers, people: Arc<dyn People>) -> Self {
        Self {
            callers,
            lists: Lists::new(Arc::clone(&people)),
            people,
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
        }
    }

    fn download(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let free = Arc::clone(&self.downloads).try_acquire_owned();
        Ok(free.map_err(|_| Refusal::Overloaded)?)
    }

    /// The next versions of a room, and the last one's number.
    async fn versions(
        &self,
        (campaign, cohort): (&CampaignId, &CohortId),
        after: u64,
    ) -> Result<Option<(ListRoomVersionsResponse, u64)>, Refused> {
        let kept = self.people.documents(campaign, cohort, after, VERSIONS_MAX);
        let kept = kept.await.map_err(unavailable)?;
        let Some(last) = kept.last().map(|one| one.version) else {
            return Ok(None);
        };
        let versions = kept.into_iter().map(|one| RoomVersion {
            document: one.document,
            write_time: Some(timestamp(one.written_at)),
        });
        let response = ListRoomVersionsResponse {
            versions: versions.collect(),
        };
        Ok(Some((response, last)))
    }
}

fn from_gateways_memory() -> Status {
    refuse(Refusal::NotImplemented)
}

#[tonic::async_trait]
impl RoomService for RoomRecords {
    async fn get_room(
        &self,
        _: Request<GetRoomRequest>,
    ) -> Result<Response<GetRoomResponse>, Status> {
        Err(from_gateways_memory())
    }

    async fn get_place(
        &self,
        _: Request<GetPlaceRequest>,
    ) -> Result<Response<GetPlaceResponse>, Status> {
        Err(from_gateways_memory())
    }

    type WatchRoomStream = Streamed<WatchRoomResponse>;

    async fn watch_room(
        &self,
        _: Request<WatchRoomRequest>,
    ) -> Result<Response<Self::WatchRoomStream>, Status> {
        Err(from_gateways_memory())
    }

    async fn get_draw(
        &self,
        _: Request<GetDrawRequest>,
    ) -> Result<Response<GetDrawResponse>, Status> {
        Err(from_gateways_memory())
    }

    type ListTicketsStream = Streamed<ListTicketsResponse>;

    async fn list_tickets(
        &self,
        request: Request<ListTicketsRequest>,
    ) -> Result<Response<Self::ListTicketsStream>, Status> {
        self.callers.check(&request).map_err(refuse)?;
        let ask = request.get_ref();
        let (campaign, cohort) = room(Fields::default(), &ask.campaign, &ask.cohort)?;
        let download = self.download()?;
        let list = self.lists.get(&campaign, &cohort, ask.bucket).await?;
        let start = (0, list, download);
        let parts = futures::stream::unfold(start, |(at, list, download)| async move {
            let rest = list.tickets().get(at..)?;
            let part = &rest[..rest.len().min(TICKETS_MAX)];
            if part.is_empty() {
                return None;
            }
            let bytes: Vec<u8> = part.iter().flat_map(|ticket| ticket.0).collect();
            let next = at + part.len();
            let message = ListTicketsResponse {
                tickets: bytes.into(),
            };
            Some((Ok(message), (next, list, download)))
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<GetInclusionProofRequest>,
    ) -> Result<Response<GetInclusionProofResponse>, Status> {
        self.callers.check(&request).map_err(refuse)?;
        let ask = request.get_ref();
        let mut fields = Fields::default();
        let ticket = <[u8; 16]>::try_from(&ask.ticket[..]).ok();
        if ticket.is_none() {
            fields.wrong("ticket", "must have 16 bytes");
        }
        let (campaign, cohort) = room(fields, &ask.campaign, &ask.cohort)?;
        let list = self.lists.get(&campaign, &cohort, ask.bucket).await?;
        let size = list.tickets().len() as u64;
        let found = ticket.and_then(|ticket| list.prove(&DrawTicket(ticket)));
        Ok(Response::new(match found {
            Some(proof) => GetInclusionProofResponse {
                included: true,
                index: proof.index,
                size,
                path: proof
                    .path
                    .iter()
                    .map(|hash| hash.0.to_vec().into())
                    .collect(),
            },
            None => GetInclusionProofResponse {
                size,
                ..GetInclusionProofResponse::default()
            },
        }))
    }

    type ListRoomVersionsStream = Streamed<ListRoomVersionsResponse>;

    async fn list_room_versions(
        &self,
        request: Request<ListRoomVersionsRequest>,
    ) -> Result<Response<Self::ListRoomVersionsStream>, Status> {
        self.callers.check(&request).map_err(refuse)?;
        let ask = request.get_ref();
        let id = room(Fields::default(), &ask.campaign, &ask.cohort)?;
        let download = self.download()?;
        let start = (Some(ask.after_version), self.clone(), id, download);
        let parts = futures::stream::unfold(start, |(after, records, id, download)| async move {
            match records.versions((&id.0, &id.1), after?).await {
                Ok(Some((message, last))) => {
                    Some((Ok(message), (Some(last), records, id, download)))
                }
                Ok(None) => None,
                // The stream ends with its first error.
                Err(refused) => Some((Err(Status::from(refused)), (None, records, id, download))),
            }
        });
        Ok(Response::new(Box::pin(parts)))
    }
}
