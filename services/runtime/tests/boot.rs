//! A role from flags to exit code, with real signals and a real (if small) trace collector.
//!
//! Each test sets up telemetry for its whole process: run them with nextest, one process each.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use runtime::boot::{EXIT_FAULT, EXIT_FINE, EXIT_USAGE, HasProcess};
use runtime::config::{Args, Problems, Process, RawConfig, RawProcess};
use runtime::drain::Cause;
use runtime::metrics::Registry;
use runtime::transport::{ClientSettings, Limits, Listener, Server, connect};
use runtime::{Boot, Drain, OnExit, boot};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;
use tower::ServiceExt;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const BOOK: &str = "doseline.booking.v1.BookingService/Book";

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    process: RawProcess,
}

struct Config(Process);

impl RawConfig for Raw {
    type Config = Config;

    fn validate(self, problems: &mut Problems) -> Option<Config> {
        problems
            .section("process", |problems| self.process.validate(problems))
            .map(Config)
    }
}

impl HasProcess for Config {
    fn process(&self) -> &Process {
        &self.0
    }
}

fn args(settings: &[&str]) -> Args {
    let set = settings
        .iter()
        .map(|setting| (*setting).to_owned())
        .collect();
    Args {
        set,
        ..Args::default()
    }
}

fn exits(code: u8) -> ExitCode {
    ExitCode::from(code)
}

async fn ready_answer(admin: SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(admin)
        .await
        .expect("the admin port");
    let request = "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream
        .write_all(request.as_bytes())
        .await
        .expect("writable");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let code = boot::<Raw, _, _>("test", &args(&["process.colour=red"]), async |_, _| {
        panic!("must not run")
    });
    assert_eq!(code, exits(EXIT_USAGE));
}

#[test]
fn checking_and_printing_start_nothing() {
    for args in [
        Args {
            check_config: true,
            ..Args::default()
        },
        Args {
            print_config: true,
            ..Args::default()
        },
    ] {
        let code = boot::<Raw, _, _>("test", &args, async |_, _| panic!("must not run"));
        assert_eq!(code, exits(EXIT_FINE));
    }
}

#[test]
fn a_signal_drains_in_order_and_ends_well() {
    let code = boot::<Raw, _, _>(
        "test",
        &args(&["process.drain_deadline=5s"]),
        async |_, it: Boot| {
            let latch = it.readiness.register("work");
            it.tasks.spawn("work", OnExit::StopProcess, {
                let drain = it.drain.clone();
                async move { drain.signalled().await }
            });
            assert!(ready_answer(it.admin).await.starts_with("HTTP/1.1 503"));
            latch.release();
            assert!(ready_answer(it.admin).await.starts_with("HTTP/1.1 200"));
            let sent = Command::new("kill")
                .args(["-TERM", &std::process::id().to_string()])
                .status();
            assert!(sent.expect("kill exists").success());
            it.drain.signalled().await;
            assert_eq!(it.drain.cause(), Some(Cause::Signal));
            assert!(
                ready_answer(it.admin).await.contains("draining"),
                "still answers"
            );
            Ok(())
        },
    );
    assert_eq!(code, exits(EXIT_FINE));
}

#[test]
fn a_needed_task_that_panics_ends_the_process_with_a_fault() {
    let code = boot::<Raw, _, _>("test", &Args::default(), async |_, it: Boot| {
        let admin = it.admin;
        it.tasks
            .spawn("renew_lease", OnExit::StopProcess, async move {
                tokio::task::yield_now().await;
                assert!(admin.port() == 0, "a planted bug");
            });
        it.drain.signalled().await;
        Ok(())
    });
    assert_eq!(code, exits(EXIT_FAULT));
}

#[test]
fn a_role_that_ignores_the_drain_is_given_up() {
    let settings = args(&["process.drain_deadline=50ms"]);
    let code = boot::<Raw, _, _>("test", &settings, async |_, it: Boot| {
        it.drain.start(Cause::Requested);
        std::future::pending().await
    });
    assert_eq!(code, exits(EXIT_FAULT));
}

/// An answer with an empty message, which is also an empty export response.
fn empty_answer() -> http::Response<Body> {
    let mut trailers = http::HeaderMap::new();
    tonic::Status::ok("")
        .add_header(&mut trailers)
        .expect("plain text");
    let frames = [
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0]))),
        Ok(http_body::Frame::trailers(trailers)),
    ];
    let mut answer = http::Response::new(Body::new(http_body_util::StreamBody::new(
        futures::stream::iter(frames),
    )));
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/grpc"),
    );
    answer
}

/// A collector in a thread of its own, because it outlives the process under test. Gives what it received.
fn collector() -> (SocketAddr, mpsc::Receiver<Bytes>, Drain) {
    let (received, receiver) = mpsc::channel();
    let (bound, address) = mpsc::channel();
    let drain = Drain::within(Duration::from_secs(1));
    let stop = drain.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())
                .await
                .expect("a free port");
            bound.send(listener.local_addr()).expect("the test waits");
            let service = tower::service_fn(move |request: http::Request<Body>| {
                let received = received.clone();
                async move {
                    let body = request
                        .into_body()
                        .collect()
                        .await
                        .expect("a body")
                        .to_bytes();
                    // The test may have seen enough already.
                    let _ = received.send(body);
                    Ok::<_, Infallible>(empty_answer())
                }
            });
            let metrics = Registry::new().rpc_metrics::<String>([]);
            let server = Server::new("collector", Limits::default(), metrics);
            let _ = server.serve(listener, service, &stop).await;
        });
    });
    (
        address.recv().expect("the collector bound"),
        receiver,
        drain,
    )
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn spans_of_served_calls_reach_the_collector_in_the_callers_trace() {
    let (collector, received, stop) = collector();
    let settings = args(&[
        &format!("process.telemetry.otlp_endpoint=http://{collector}"),
        "process.telemetry.sample_ratio=0.0",
    ]);
    let code = boot::<Raw, _, _>("test", &settings, async |_, it: Boot| {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let channel = connect(
            &listener.local_addr().to_string(),
            None,
            &ClientSettings::default(),
        )?;
        let server = Server::new("test", Limits::default(), it.registry.rpc_metrics([BOOK]));
        let calling = async {
            let request = http::Request::post(format!("/{BOOK}"))
                .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
                .body(Body::empty())
                .expect("a request");
            let answer = channel.oneshot(request).await.expect("served");
            answer.into_body().collect().await.expect("a whole answer");
            it.drain.start(Cause::Requested);
        };
        let service =
            tower::service_fn(async |_: http::Request<Body>| Ok::<_, Infallible>(empty_answer()));
        let (drained, ()) = tokio::join!(server.serve(listener, service, &it.drain), calling);
        anyhow::ensure!(drained.cut == 0, "nothing was in flight");
        Ok(())
    });
    assert_eq!(code, exits(EXIT_FINE));
    let export = received
        .recv_timeout(Duration::from_secs(10))
        .expect("flushed before the exit");
    let trace: Vec<u8> = (0..TRACE.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&TRACE[i..i + 2], 16).expect("hex"))
        .collect();
    assert!(
        contains(&export, BOOK.as_bytes()),
        "the span has the method's name"
    );
    assert!(
        contains(&export, &trace),
        "and the caller's trace, although nothing else is sampled"
    );
    assert!(
        contains(&export, b"doseline-test"),
        "and the service's name"
    );
    stop.start(Cause::Requested);
}

#[test]
fn a_collector_that_is_away_delays_nothing_for_long() {
    let settings = args(&[
        "process.telemetry.otlp_endpoint=http://127.0.0.1:1",
        "process.telemetry.sample_ratio=1.0",
        "process.telemetry.format=json",
    ]);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let code = boot::<Raw, _, _>("test", &settings, async |_, _| {
            tracing::info_span!("decide").in_scope(|| tracing::info!("decided"));
            Ok(())
        });
        ended.send(code).expect("the test waits");
    });
    assert_eq!(
        end.recv_timeout(Duration::from_secs(10)),
        Ok(exits(EXIT_FINE))
    );
}
