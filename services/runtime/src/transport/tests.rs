//! A server and its callers over real sockets. Handlers are plain HTTP services: this crate knows no protobuf.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::*;
use crate::drain::{Cause, Drain};
use crate::metrics::{Registry, counted};
use crate::tasks::{OnExit, Tasks};

mod limits;
mod tls;

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

const ECHO: &str = "/test.v1.TestService/Echo";
const HANG: &str = "/test.v1.TestService/Hang";
const HOLD: &str = "/test.v1.TestService/Hold";

/// What the handler saw and waits for.
#[derive(Clone, Default)]
struct Seen {
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    identities: Arc<Mutex<Vec<Option<PeerIdentity>>>>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
    dropped: Arc<Notify>,
}

struct Running {
    address: SocketAddr,
    drain: Drain,
    tasks: Tasks,
    seen: Seen,
    registry: Registry,
    ended: tokio::sync::oneshot::Receiver<Drained>,
}

/// Tells when a handler is given up.
struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn done() -> http::Response<Body> {
    let mut trailers = http::HeaderMap::new();
    Status::new(Code::Ok, "")
        .add_header(&mut trailers)
        .expect("plain text");
    http::Response::new(Body::new(http_body_util::StreamBody::new(
        futures::stream::iter([
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"echo"))),
            Ok(Frame::trailers(trailers)),
        ]),
    )))
}

impl Seen {
    fn handle(
        &self,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>> {
        let this = self.clone();
        async move {
            let PeerAddr(address) = request
                .extensions()
                .get()
                .expect("every request has an address");
            this.peers.lock().expect("not poisoned").insert(*address);
            let identity = PeerIdentity::of(request.extensions()).cloned();
            this.identities.lock().expect("not poisoned").push(identity);
            let _dropped = OnDrop(this.dropped);
            this.entered.notify_one();
            match request.uri().path() {
                HANG => std::future::pending().await,
                HOLD => this.release.notified().await,
                _ => {}
            }
            Ok(done())
        }
        .boxed()
    }
}

async fn start(limits: Limits, tls: Option<ServerTls>, deadline: Duration) -> Running {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .expect("a free port");
    let address = listener.local_addr();
    let (drain, seen, registry) = (Drain::within(deadline), Seen::default(), Registry::new());
    let tasks = Tasks::new(drain.clone());
    let server = Server::new("test", limits, registry.rpc_metrics([ECHO, HANG, HOLD])).tls(tls);
    let (send, ended) = tokio::sync::oneshot::channel();
    let handler = seen.clone();
    let serving = drain.clone();
    tasks.spawn("serve", OnExit::StopProcess, async move {
        let service = tower::service_fn(move |request| handler.handle(request));
        // Nobody listens any more only when the test has failed already.
        let _ = send.send(server.serve(listener, service, &serving).await);
    });
    Running {
        address,
        drain,
        tasks,
        seen,
        registry,
        ended,
    }
}

fn channel(address: SocketAddr, tls: Option<ClientTls>) -> Channel {
    connect(&address.to_string(), tls, &ClientSettings::default()).expect("an address")
}

/// One call; the status of its answer, or what went wrong on the way.
async fn call(channel: &Channel, path: &str) -> Result<Code, Status> {
    let mut channel = channel.clone();
    let request = http::Request::post(path)
        .body(Body::empty())
        .expect("a request");
    let answer = async {
        let response = channel
            .ready()
            .await
            .map_err(status)?
            .call(request)
            .await
            .map_err(status)?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Ok(status.code());
        }
        let body = response.into_body().collect().await?;
        Ok(body
            .trailers()
            .and_then(Status::from_header_map)
            .map_or(Code::Unknown, |s| s.code()))
    };
    tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("an answer within the test's patience")
}

fn status(error: tonic::transport::Error) -> Status {
    Status::from_error(error.into())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("within the test's patience")
}

#[tokio::test]
async fn an_idle_connection_ends_at_once_when_the_server_drains() {
    let it = start(Limits::default(), None, Duration::from_secs(60)).await;
    let channel = channel(it.address, None);
    assert_eq!(call(&channel, ECHO).await.expect("served"), Code::Ok);
    assert_eq!(counted(&it.registry, ECHO, Code::Ok), 1);
    it.drain.start(Cause::Requested);
    assert_eq!(within(it.ended).await, Ok(Drained { cut: 0 }));
    assert!(
        TcpStream::connect(it.address).await.is_err(),
        "nobody listens any more"
    );
    assert!(within(it.tasks.join(PATIENCE)).await.cut.is_empty());
}

#[tokio::test]
async fn a_call_in_flight_is_finished_while_draining() {
    let it = start(Limits::default(), None, Duration::from_secs(60)).await;
    let channel = channel(it.address, None);
    let (answer, ()) = tokio::join!(call(&channel, HOLD), async {
        within(it.seen.entered.notified()).await;
        it.drain.start(Cause::Requested);
        within(it.drain.signalled()).await;
        it.seen.release.notify_one();
    });
    assert_eq!(answer.expect("served"), Code::Ok);
    assert_eq!(within(it.ended).await, Ok(Drained { cut: 0 }));
}

#[tokio::test]
async fn a_stuck_call_is_cut_at_the_drains_deadline() {
    let deadline = Duration::from_millis(200);
    let it = start(Limits::default(), None, deadline).await;
    let channel = channel(it.address, None);
    let (answer, began) = tokio::join!(call(&channel, HANG), async {
        within(it.seen.entered.notified()).await;
        let began = tokio::time::Instant::now();
        it.drain.start(Cause::Requested);
        began
    });
    let error = answer.expect_err("cut");
    assert_eq!(Failure::of(&error), Failure::Lost, "{error:?}");
    let Ok(Drained { cut }) = within(it.ended).await else {
        panic!("serving panicked")
    };
    assert!(cut >= 1);
    assert!(began.elapsed() >= deadline);
    within(it.seen.dropped.notified()).await;
    assert_eq!(
        counted(&it.registry, HANG, Code::Cancelled),
        1,
        "the dropped call is counted"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_drops_the_handler_and_is_counted() {
    let it = start(Limits::default(), None, Duration::from_secs(60)).await;
    let channel = channel(it.address, None);
    tokio::select! {
        answer = call(&channel, HANG) => panic!("{answer:?}"),
        () = within(it.seen.entered.notified()) => {}
    }
    drop(channel);
    within(it.seen.dropped.notified()).await;
    it.drain.start(Cause::Requested);
    assert_eq!(within(it.ended).await, Ok(Drained { cut: 0 }));
    assert_eq!(counted(&it.registry, HANG, Code::Cancelled), 1);
}

#[tokio::test]
async fn an_aged_connection_goes_and_what_it_takes_along_is_never_an_answer() {
    let limits = Limits {
        age_max: Duration::from_millis(30),
        ..Limits::default()
    };
    let it = start(limits, None, Duration::from_secs(60)).await;
    let channel = channel(it.address, None);
    within(async {
        while it.seen.peers.lock().expect("not poisoned").len() < 5 {
            match call(&channel, ECHO).await {
                Ok(code) => assert_eq!(code, Code::Ok),
                // A call may meet the very moment of closing: the caller is told that it may repeat it.
                Err(status) => {
                    assert_ne!(Failure::of(&status), Failure::Answered, "{status:?}");
                    assert_eq!(normalised(status).code(), Code::Unavailable);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_aged_connection_with_a_stuck_call_is_cut_after_its_grace() {
    let limits = Limits {
        age_max: Duration::from_millis(30),
        age_grace: Duration::from_millis(50),
        ..Limits::default()
    };
    let it = start(limits, None, Duration::from_secs(60)).await;
    assert!(call(&channel(it.address, None), HANG).await.is_err());
    within(it.seen.dropped.notified()).await;
}

#[tokio::test]
async fn a_call_longer_than_allowed_is_answered_deadline_exceeded() {
    let limits = Limits {
        deadline_max: Duration::from_millis(30),
        ..Limits::default()
    };
    let it = start(limits, None, Duration::from_secs(60)).await;
    let answer = call(&channel(it.address, None), HANG)
        .await
        .expect("an answer");
    assert_eq!(answer, Code::DeadlineExceeded);
    assert_eq!(counted(&it.registry, HANG, Code::DeadlineExceeded), 1);
}

#[tokio::test]
async fn tonic_routes_can_be_served() {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .expect("a free port");
    let (address, registry) = (listener.local_addr(), Registry::new());
    let drain = Drain::within(PATIENCE);
    let server = Server::new("test", Limits::default(), registry.rpc_metrics([ECHO]));
    let routes = tonic::service::Routes::default().prepare();
    let caller = async {
        let answer = call(&channel(address, None), ECHO)
            .await
            .expect("an answer");
        drain.start(Cause::Requested);
        answer
    };
    let (drained, answer) = tokio::join!(server.serve(listener, routes, &drain), caller);
    assert_eq!((drained, answer), (Drained { cut: 0 }, Code::Unimplemented));
}

#[tokio::test]
async fn a_taken_port_is_a_fault_that_names_it() {
    let first = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .expect("a free port");
    let second = Listener::bind(first.local_addr()).await.expect_err("taken");
    assert!(second.to_string().contains(&first.local_addr().to_string()));
}
