//! An inventory whose answers a test writes: a real gRPC server, only the deciding is not real.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use proto::booking as pb;
use proto::clinic as terminal;
use proto::inventory::inventory_service_server::{InventoryService, InventoryServiceServer};
use proto::inventory::watch_shards_response::Update;
use proto::inventory::{
    Answer, ClinicInfo, Command, ExecuteRequest, ExecuteResponse, GetFiguresRequest,
    GetFiguresResponse, Owner, Refused, ShardSnapshot, SlotInfo, SupplyFigures, WatchShardsRequest,
    WatchShardsResponse, answer, command,
};
use runtime::drain::Cause;
use runtime::metrics::Registry;
use runtime::transport::{Limits, Listener, Server};
use runtime::{Drain, OnExit, Tasks};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// What a fake does with a command.
pub(crate) enum Reaction {
    Answer(answer::Outcome),
    Silence,
    BreakStream,
}

type React = Box<dyn Fn(&Command) -> Reaction + Send + Sync>;

/// A fake inventory that listens.
pub(crate) struct FakeInventory {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    drain: Drain,
    tasks: Tasks,
}

struct Shared {
    react: Mutex<React>,
    commands: Mutex<Vec<Command>>,
    batches: Mutex<Vec<usize>>,
    secrets: Mutex<Vec<String>>,
    first: Mutex<Vec<WatchShardsResponse>>,
    feed: broadcast::Sender<WatchShardsResponse>,
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl FakeInventory {
    /// Starts one that books whatever is asked.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            react: Mutex::new(Box::new(|command| Reaction::Answer(agreed(command)))),
            commands: Mutex::default(),
            batches: Mutex::default(),
            secrets: Mutex::default(),
            first: Mutex::default(),
            feed: broadcast::Sender::new(64),
        });
        let drain = Drain::within(Duration::ZERO);
        let tasks = Tasks::new(drain.clone());
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .expect("a free port");
        let addr = listener.local_addr();
        let server = Server::new(
            "fake",
            Limits::default(),
            Registry::new().rpc_metrics(Vec::<String>::new()),
        );
        let routes = Routes::new(InventoryServiceServer::new(Service(Arc::clone(&shared))));
        let stop = drain.clone();
        tasks.spawn("fake_inventory", OnExit::Ignore, async move {
            let _ = server.serve(listener, routes, &stop).await;
        });
        Self {
            addr,
            shared,
            drain,
            tasks,
        }
    }

    /// What to do with commands from now on.
    pub(crate) fn on(&self, react: impl Fn(&Command) -> Reaction + Send + Sync + 'static) {
        *self.shared.react.lock().expect("not poisoned") = Box::new(react);
    }

    /// Cuts every connection and answers nobody any more.
    pub(crate) async fn kill(&self) {
        self.drain.start(Cause::Requested);
        let _ = self.tasks.join(Duration::from_secs(5)).await;
    }

    /// Says something about a shard to all who watch and will watch.
    pub(crate) fn say(&self, message: WatchShardsResponse) {
        let mut first = self.shared.first.lock().expect("not poisoned");
        if matches!(message.update, Some(Update::Snapshot(_))) {
            first.retain(|known| known.shard != message.shard);
        }
        first.push(message.clone());
        // Nobody may watch yet; they get it when they come.
        let _ = self.shared.feed.send(message);
    }

    /// Owns a shard with one clinic and one slot.
    pub(crate) fn own(&self, shard: u32, epoch: u64, clinic: &str, slot: u64) {
        self.say(snapshot(shard, epoch, 1, &[(clinic, &[(slot, 5)])]));
    }

    /// Commands that arrived.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.shared.commands.lock().expect("not poisoned").clone()
    }

    /// How many commands each message had.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.shared.batches.lock().expect("not poisoned").clone()
    }

    /// The secrets that callers showed.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.shared.secrets.lock().expect("not poisoned").clone()
    }
}

#[tonic::async_trait]
impl InventoryService for Service {
    async fn get_figures(
        &self,
        _: Request<GetFiguresRequest>,
    ) -> Result<Response<GetFiguresResponse>, Status> {
        Err(Status::unimplemented("gateways do not ask for figures"))
    }

    type ExecuteStream = ReceiverStream<Result<ExecuteResponse, Status>>;
    type WatchShardsStream =
        Pin<Box<dyn Stream<Item = Result<WatchShardsResponse, Status>> + Send>>;

    async fn execute(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        self.0.note_secret(request.metadata());
        let shared = Arc::clone(&self.0);
        let mut commands = request.into_inner();
        let (out, answers) = mpsc::channel(1_024);
        // Owned by the stream of answers: it ends with it.
        Tasks::new(Drain::within(Duration::ZERO)).spawn(
            "fake_execute",
            OnExit::Ignore,
            async move {
                while let Some(Ok(batch)) = commands.next().await {
                    shared
                        .batches
                        .lock()
                        .expect("not poisoned")
                        .push(batch.commands.len());
                    let mut answers = Vec::new();
                    for command in batch.commands {
                        let reaction = shared.react.lock().expect("not poisoned")(&command);
                        let call_id = command.call_id;
                        shared.commands.lock().expect("not poisoned").push(command);
                        match reaction {
                            Reaction::Answer(outcome) => {
                                answers.push(Answer {
                                    call_id,
                                    outcome: Some(outcome),
                                });
                            }
                            Reaction::Silence => {}
                            Reaction::BreakStream => {
                                let _ = out.send(Err(Status::internal("broken by the test"))).await;
                                return;
                            }
                        }
                    }
                    // Last first: answers come in any order.
                    answers.reverse();
                    if out.send(Ok(ExecuteResponse { answers })).await.is_err() {
                        return;
                    }
                }
            },
        );
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn watch_shards(
        &self,
        request: Request<WatchShardsRequest>,
    ) -> Result<Response<Self::WatchShardsStream>, Status> {
        self.0.note_secret(request.metadata());
        let (first, later) = {
            let first = self.0.first.lock().expect("not poisoned");
            (first.clone(), self.0.feed.subscribe())
        };
        let later = BroadcastStream::new(later).filter_map(|m| async move { m.ok() });
        let all = futures::stream::iter(first).chain(later).map(Ok);
        Ok(Response::new(Box::pin(all)))
    }
}

impl Shared {
    fn note_secret(&self, metadata: &tonic::metadata::MetadataMap) {
        let secret = metadata
            .get(gateway::INTERNAL_HEADER)
            .and_then(|s| s.to_str().ok());
        self.secrets
            .lock()
            .expect("not poisoned")
            .push(secret.unwrap_or_default().to_owned());
    }
}

/// To what no test asks.
fn unasked() -> answer::Outcome {
    answer::Outcome::Refused(Refused {
        reason: "NOT_IMPLEMENTED".to_owned(),
        ..Refused::default()
    })
}

/// A yes to a command; bookings and holds are named after the request, so that answers can be told apart.
#[expect(clippy::too_many_lines, reason = "one arm for each kind of command")]
pub(crate) fn agreed(command: &Command) -> answer::Outcome {
    use command::Action;
    let region = &command.region;
    let booking = |id: &str| {
        Some(pb::Booking {
            name: format!("regions/{region}/bookings/{id}"),
            ..pb::Booking::default()
        })
    };
    let claim_version = 1;
    match command.action.as_ref().expect("an action") {
        Action::Book(r) => answer::Outcome::Book(pb::BookResponse {
            booking: booking(&r.request_id),
            claim_version,
            repeated_answer: false,
        }),
        Action::HoldSlots(r) => answer::Outcome::HoldSlots(pb::HoldSlotsResponse {
            hold: Some(pb::Hold {
                name: r.request_id.clone(),
                ..pb::Hold::default()
            }),
            claim_version,
            repeated_answer: false,
        }),
        Action::ConfirmHold(r) => answer::Outcome::ConfirmHold(pb::ConfirmHoldResponse {
            booking: booking(&r.request_id),
            claim_version,
            repeated_answer: false,
        }),
        Action::ReleaseHold(_) => answer::Outcome::ReleaseHold(pb::ReleaseHoldResponse {
            claim_version,
            repeated_answer: false,
        }),
        Action::MoveBooking(r) => answer::Outcome::MoveBooking(pb::MoveBookingResponse {
            booking: booking(&r.request_id),
            claim_version,
            repeated_answer: false,
        }),
        Action::CancelBooking(_) => answer::Outcome::CancelBooking(pb::CancelBookingResponse {
            claim_version,
            repeated_answer: false,
        }),
        Action::GetBooking(_) => answer::Outcome::GetBooking(pb::GetBookingResponse {
            claim_version,
            ..pb::GetBookingResponse::default()
        }),
        Action::CheckIn(r) => answer::Outcome::CheckIn(terminal::CheckInResponse {
            appointment: Some(terminal::ClinicAppointment {
                code: r.code.clone(),
                ..terminal::ClinicAppointment::default()
            }),
            repeated_answer: false,
        }),
        Action::ListAppointments(r) => {
            answer::Outcome::ListAppointments(terminal::ListAppointmentsResponse {
                appointments: Vec::new(),
                next_page_token: format!("after:{}", r.page_token),
            })
        }
        Action::ReadSupply(_) => answer::Outcome::ReadSupply(SupplyFigures::default()),
        Action::DeliverStock(_)
        | Action::RecordWastage(_)
        | Action::SetWalkIns(_)
        | Action::RecordWalkIn(_)
        | Action::OpenSlots(_)
        | Action::ResizeSlot(_)
        | Action::CloseSlots(_)
        | Action::RecordDoseGiven(_)
        | Action::RecordNoShow(_)
        | Action::OpenIncident(_)
        | Action::PreviewPlan(_)
        | Action::ApplyPlan(_)
        | Action::GetIncident(_)
        | Action::ListIncidentLines(_)
        | Action::Depart(_)
        | Action::JoinLeftovers(_)
        | Action::LeaveLeftovers(_)
        | Action::ListLeftoverOffers(_)
        | Action::AnswerLeftoverOffer(_)
        | Action::OfferLeftovers(_)
        | Action::CloseLeftovers(_)
        | Action::ListLeftovers(_)
        | Action::GetLeftovers(_) => unasked(),
    }
}

/// A no.
pub(crate) fn refused(reason: &str) -> Reaction {
    Reaction::Answer(answer::Outcome::Refused(Refused {
        reason: reason.to_owned(),
        ..Refused::default()
    }))
}

/// NOT_OWNER with a hint.
pub(crate) fn not_owner(epoch: u64, addr: SocketAddr) -> Reaction {
    Reaction::Answer(answer::Outcome::Refused(Refused {
        reason: "NOT_OWNER".to_owned(),
        owner: Some(Owner {
            epoch,
            addr: addr.to_string(),
        }),
        ..Refused::default()
    }))
}

/// A shard's snapshot: clinics with their slots and what is left of each.
pub(crate) fn snapshot(
    shard: u32,
    epoch: u64,
    sequence: u64,
    clinics: &[(&str, &[(u64, u32)])],
) -> WatchShardsResponse {
    let info = |id: &str| ClinicInfo {
        clinic: id.to_owned(),
        ..ClinicInfo::default()
    };
    let slots = clinics.iter().flat_map(|(clinic, slots)| {
        slots
            .iter()
            .map(|(slot, left)| self::slot(clinic, *slot, *left))
    });
    said(
        shard,
        epoch,
        sequence,
        Update::Snapshot(ShardSnapshot {
            slots: slots.collect(),
            clinics: clinics.iter().map(|(id, _)| info(id)).collect(),
        }),
    )
}

/// A slot of a feed.
pub(crate) fn slot(clinic: &str, slot: u64, left: u32) -> SlotInfo {
    SlotInfo {
        slot,
        clinic: clinic.to_owned(),
        vaccine: "v".to_owned(),
        dose: 1,
        capacity: 10,
        left,
        open: true,
        ..SlotInfo::default()
    }
}

/// A message of a feed.
pub(crate) fn said(shard: u32, epoch: u64, sequence: u64, update: Update) -> WatchShardsResponse {
    let as_of = Some(proto::convert::timestamp(runtime::Clock::system().wall()));
    WatchShardsResponse {
        shard,
        epoch,
        sequence,
        as_of,
        update: Some(update),
    }
}

/// The request id inside a command.
pub(crate) fn request_id(command: &Command) -> &str {
    use command::Action;
    match command.action.as_ref().expect("an action") {
        Action::HoldSlots(r) => &r.request_id,
        Action::ConfirmHold(r) => &r.request_id,
        Action::ReleaseHold(r) => &r.request_id,
        Action::Book(r) => &r.request_id,
        Action::MoveBooking(r) => &r.request_id,
        Action::CancelBooking(r) => &r.request_id,
        Action::CheckIn(r) => &r.request_id,
        Action::GetBooking(_)
        | Action::DeliverStock(_)
        | Action::RecordWastage(_)
        | Action::SetWalkIns(_)
        | Action::RecordWalkIn(_)
        | Action::OpenSlots(_)
        | Action::ResizeSlot(_)
        | Action::CloseSlots(_)
        | Action::ListAppointments(_)
        | Action::RecordDoseGiven(_)
        | Action::RecordNoShow(_)
        | Action::OpenIncident(_)
        | Action::PreviewPlan(_)
        | Action::ApplyPlan(_)
        | Action::GetIncident(_)
        | Action::ListIncidentLines(_)
        | Action::Depart(_)
        | Action::JoinLeftovers(_)
        | Action::LeaveLeftovers(_)
        | Action::ListLeftoverOffers(_)
        | Action::AnswerLeftoverOffer(_)
        | Action::OfferLeftovers(_)
        | Action::CloseLeftovers(_)
        | Action::ListLeftovers(_)
        | Action::GetLeftovers(_)
        | Action::ReadSupply(_) => "",
    }
}
