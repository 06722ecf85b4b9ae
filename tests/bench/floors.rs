//! Floors: servers that answer at once, and one that only passes on. Children of the bench, like the product's parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use proto::booking::booking_service_client::BookingServiceClient;
use proto::booking::booking_service_server::{BookingService, BookingServiceServer};
use proto::booking::{
    BookRequest, BookResponse, Booking, CancelBookingRequest, CancelBookingResponse,
    ConfirmHoldRequest, ConfirmHoldResponse, GetBookingRequest, GetBookingResponse,
    HoldSlotsRequest, HoldSlotsResponse, MoveBookingRequest, MoveBookingResponse,
    ReleaseHoldRequest, ReleaseHoldResponse,
};
use system_tests::await_until::await_ok;
use system_tests::ports::free_port;
use system_tests::processes::{Launch, Process};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::reads::Raw;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// As many as a gateway keeps to an owner.
const UPSTREAM_CHANNELS: usize = 4;

/// A floor that runs.
pub(crate) struct Floor {
    /// Where it listens.
    pub(crate) addr: String,
    _process: Process,
}

impl Floor {
    /// Answers `Book` at once, as long as the product does.
    pub(crate) async fn echo(folder: &std::path::Path) -> anyhow::Result<Self> {
        Self::start(folder, "echo", &[]).await
    }

    /// Passes `Book` on to `upstream` by typed messages.
    pub(crate) async fn proxy(folder: &std::path::Path, upstream: &str) -> anyhow::Result<Self> {
        Self::start(folder, "proxy", &[upstream]).await
    }

    /// Answers reads with so many bytes.
    pub(crate) async fn bytes(folder: &std::path::Path, size: usize) -> anyhow::Result<Self> {
        Self::start(folder, "bytes", &[&size.to_string()]).await
    }

    async fn start(folder: &std::path::Path, kind: &str, more: &[&str]) -> anyhow::Result<Self> {
        let addr = format!("127.0.0.1:{}", free_port()?);
        let name = format!("floor-{kind}-{}", more.join("-").replace(':', "-"));
        let launch = Launch::new(name, std::env::current_exe()?, folder)
            .args(["--floor", kind, &addr])
            .args(more.iter().copied());
        let process = Process::start(launch)?;
        await_ok("a floor listens", READY_WITHIN, || {
            tokio::net::TcpStream::connect(addr.clone())
        })
        .await?;
        Ok(Self {
            addr,
            _process: process,
        })
    }
}

/// The child's side.
pub(crate) async fn serve(args: &[String]) -> anyhow::Result<()> {
    let [kind, addr, more @ ..] = args else {
        anyhow::bail!("a floor needs a kind and an address");
    };
    let addr: SocketAddr = addr.parse()?;
    let mut server = Server::builder();
    let router = match (kind.as_str(), more) {
        ("echo", []) => server.add_service(BookingServiceServer::new(Booker::Echo(answer()))),
        ("proxy", [upstream]) => {
            let mut channels = Vec::new();
            for _ in 0..UPSTREAM_CHANNELS {
                channels.push(Channel::from_shared(format!("http://{upstream}"))?.connect_lazy());
            }
            let next = Arc::new(AtomicUsize::new(0));
            server.add_service(BookingServiceServer::new(Booker::Proxy(channels, next)))
        }
        ("bytes", [size]) => server.add_service(Reader(Bytes::from(vec![7; size.parse()?]))),
        _ => anyhow::bail!("no such floor: {kind}"),
    };
    router.serve(addr).await.context("a floor")
}

/// What a booking's answer looks like: as many bytes, no meaning.
fn answer() -> BookResponse {
    let clinic = "regions/jeju/clinics/5000-0000";
    let appointment = proto::booking::Appointment {
        slot: format!("{clinic}/slots/100000"),
        vaccine: "demo-mrna".to_owned(),
        dose: 1,
        state: 1,
        ..proto::booking::Appointment::default()
    };
    BookResponse {
        booking: Some(Booking {
            name: "regions/jeju/bookings/00000000-0000-4000-8000-000000000000".to_owned(),
            code: "0000-0000-0000".to_owned(),
            appointments: vec![appointment],
        }),
        claim_version: 1,
        repeated_answer: false,
    }
}

/// The least a tonic server can do: the same bytes for every call.
#[derive(Clone)]
struct Reader(Bytes);

impl tonic::server::NamedService for Reader {
    const NAME: &'static str = "doseline.bench.Echo";
}

impl tonic::server::UnaryService<Bytes> for Reader {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.clone())))
    }
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Reader {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let reader = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(grpc.unary(reader, request).await)
        })
    }
}

#[derive(Clone)]
enum Booker {
    Echo(BookResponse),
    Proxy(Vec<Channel>, Arc<AtomicUsize>),
}

#[tonic::async_trait]
impl BookingService for Booker {
    async fn book(&self, request: Request<BookRequest>) -> Result<Response<BookResponse>, Status> {
        match self {
            Self::Echo(answer) => Ok(Response::new(answer.clone())),
            Self::Proxy(channels, next) => {
                let at = next.fetch_add(1, Ordering::Relaxed) % channels.len();
                let mut upstream = BookingServiceClient::new(channels[at].clone());
                let answer = upstream.book(request.into_inner()).await?;
                Ok(Response::new(answer.into_inner()))
            }
        }
    }

    async fn hold_slots(
        &self,
        _: Request<HoldSlotsRequest>,
    ) -> Result<Response<HoldSlotsResponse>, Status> {
        Err(only_book())
    }

    async fn confirm_hold(
        &self,
        _: Request<ConfirmHoldRequest>,
    ) -> Result<Response<ConfirmHoldResponse>, Status> {
        Err(only_book())
    }

    async fn release_hold(
        &self,
        _: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        Err(only_book())
    }

    async fn move_booking(
        &self,
        _: Request<MoveBookingRequest>,
    ) -> Result<Response<MoveBookingResponse>, Status> {
        Err(only_book())
    }

    async fn cancel_booking(
        &self,
        _: Request<CancelBookingRequest>,
    ) -> Result<Response<CancelBookingResponse>, Status> {
        Err(only_book())
    }

    async fn get_booking(
        &self,
        _: Request<GetBookingRequest>,
    ) -> Result<Response<GetBookingResponse>, Status> {
        Err(only_book())
    }
}

fn only_book() -> Status {
    Status::unimplemented("a floor only echoes Book")
}
