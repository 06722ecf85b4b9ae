//! What gateways report over the wire, and what it does to a line.

use proto::doorkeeper::ReportLoadRequest;
use proto::doorkeeper::doorkeeper_service_client::DoorkeeperServiceClient;
use proto::doorkeeper::doorkeeper_service_server::DoorkeeperServiceServer;
use proto::status::read;
use runtime::metrics::Registry;
use runtime::transport::{ClientSettings, Limits, Listener, Server, connect};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::*;
use crate::caller::{Callers, INTERNAL_HEADER};
use crate::rpc::DoorkeeperRpc;

const SECRET: &str = "open-sesame-0123456789";

impl World {
    /// The port at which gateways report.
    async fn reporting(&self) -> DoorkeeperServiceClient<Channel> {
        let service = DoorkeeperServiceServer::new(DoorkeeperRpc {
            callers: Callers::new(&Secret::new(SECRET), false),
            reports: self.reports.clone(),
            clock: self.clock.clone(),
        });
        let listener = Listener::bind(([127, 0, 0, 1], 0).into())
            .await
            .expect("a free port");
        let addr = listener.local_addr().to_string();
        let rpc = Registry::new().rpc_metrics(Vec::<String>::new());
        let (server, drain) = (
            Server::new("test", Limits::default(), rpc),
            self.drain.clone(),
        );
        self.tasks.spawn("serve", OnExit::Log, async move {
            let _ = server.serve(listener, Routes::new(service), &drain).await;
        });
        let channel = connect(&addr, None, &ClientSettings::default()).expect("an address");
        DoorkeeperServiceClient::new(channel)
    }

    fn speed(room: &Room) -> u64 {
        room.regions[&seoul()].per_kilosecond
    }
}

fn report(gateway: &str, calls: u64, shed: u64) -> Request<ReportLoadRequest> {
    let mut request = Request::new(ReportLoadRequest {
        gateway: gateway.to_owned(),
        calls,
        shed,
        in_flight_max: 100,
        ..ReportLoadRequest::default()
    });
    let secret = SECRET.parse().expect("ASCII");
    request.metadata_mut().insert(INTERNAL_HEADER, secret);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_shed_slow_the_line_down_and_those_that_do_not_leave_it() {
    let world = world().await;
    let _one = world.candidate("one");
    let mut gateway = world.reporting().await;
    world.until("a lobby", |_| true).await;
    let places = world.stamp(0, 2_500).await;
    world.open(100_000).await;
    world
        .rooms
        .rate(&campaign(), &cohort(), None)
        .await
        .expect("set");
    let seen = world.seen().await;
    let order = places
        .iter()
        .map(|place| (seen.ordinal(place).expect("drawn"), place.ticket));
    let order: Vec<(u64, DrawTicket)> = order.collect();
    world.show(1_000_000);
    world
        .until("the line moves", |room| frontier(room) > 20)
        .await;
    // Reports go on as gateways send them, ten calls more each time; whoever is let in comes at once.
    let mut calls = 0;
    let mut told = async |shed_of_ten: u64, until: &dyn Fn(&Room) -> bool| {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        let telling = async {
            loop {
                looks.tick().await;
                calls += 10;
                let sent = report("gateway-1", calls, calls / 10 * shed_of_ten);
                gateway.report_load(sent).await.expect("taken");
                let room = world.room().await.expect("there");
                let line = &room.regions[&seoul()];
                let came = order.iter().filter(|(ordinal, _)| *ordinal < line.f0);
                let came: Vec<DrawTicket> = came.map(|(_, ticket)| *ticket).collect();
                world.show_arrived(1_000_000, &came);
                if until(&room) {
                    return room;
                }
            }
        };
        timeout(BOUND, telling).await.expect("in time")
    };
    let well = told(0, &|room| frontier(room) > 300).await;
    // A hundred a second, divided by a presence that wavers.
    assert!(
        World::speed(&well) >= 50_000,
        "calls that are served slow nothing: {well:?}"
    );
    // Half of it, and half again, and half again.
    let slow = told(5, &|room| World::speed(room) < 25_000).await;
    assert!(World::speed(&slow) > 0, "not at its end: {slow:?}");
    let version = slow.version;
    let least = told(5, &|room| room.version > version + 4).await;
    assert!(
        frontier(&least) > frontier(&slow),
        "slow is not stopped: {least:?}"
    );
}

#[tokio::test]
async fn only_a_gateway_reports_and_only_what_makes_sense() {
    let world = world().await;
    let mut gateway = world.reporting().await;
    let refusal = |status: Status| {
        let refused = read(&status).expect("a reason");
        let fields = refused.violations.into_iter().map(|(field, _)| field);
        (refused.refusal, fields.collect::<Vec<_>>())
    };
    let mut stranger = report("gateway-1", 1, 0);
    stranger.metadata_mut().remove(INTERNAL_HEADER);
    let status = gateway.report_load(stranger).await.expect_err("unknown");
    assert_eq!(
        refusal(status),
        (domain::Refusal::CallerUnknown, Vec::new())
    );
    let mut wrong = report("Gateway 1", 1, 2);
    wrong.get_mut().answer_times = vec![0; 21];
    let status = gateway.report_load(wrong).await.expect_err("wrong");
    let all = ["gateway", "shed", "answer_times"].map(str::to_owned);
    assert_eq!(refusal(status), (domain::Refusal::Invalid, all.to_vec()));
    let now = world.clock.monotonic();
    assert!(world.reports.lately(now).is_empty(), "nothing was changed");
    gateway
        .report_load(report("gateway-1", 1, 0))
        .await
        .expect("taken");
    let now = world.clock.monotonic();
    assert_eq!(world.reports.lately(now).len(), 1);
}
