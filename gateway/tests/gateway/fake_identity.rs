//! An identity member whose answers a test writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::doorkeeper::doorkeeper_service_server::{DoorkeeperService, DoorkeeperServiceServer};
use proto::doorkeeper::{ReportLoadRequest, ReportLoadResponse};
use proto::identity::identity_service_server::{IdentityService, IdentityServiceServer};
use proto::identity::{
    ChangeRegionRequest, ChangeRegionResponse, IssuePermitRequest, IssuePermitResponse,
};
use runtime::metrics::Registry;
use runtime::transport::{Limits, Listener, Server};
use runtime::{Drain, OnExit, Tasks};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

type React = Box<dyn Fn(&IssuePermitRequest) -> Result<IssuePermitResponse, Status> + Send + Sync>;

/// A fake identity that listens.
pub(crate) struct FakeIdentity {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: Tasks,
}

struct Shared {
    /// `None` never answers.
    react: Option<React>,
    /// The secret and the content of each report of load.
    reports: Mutex<Vec<(String, ReportLoadRequest)>>,
    /// The calling system and the secret of each call.
    calls: Mutex<Vec<(String, String)>>,
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl FakeIdentity {
    pub(crate) async fn start(
        react: impl Fn(&IssuePermitRequest) -> Result<IssuePermitResponse, Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::with(Some(Box::new(react))).await
    }

    /// One that hears requests for permits and never answers them.
    pub(crate) async fn stuck() -> Self {
        Self::with(None).await
    }

    async fn with(react: Option<React>) -> Self {
        let shared = Arc::new(Shared {
            react,
            reports: Mutex::default(),
            calls: Mutex::default(),
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
        let service = Service(Arc::clone(&shared));
        let routes = Routes::new(IdentityServiceServer::new(service.clone()))
            .add_service(DoorkeeperServiceServer::new(service));
        tasks.spawn("fake_identity", OnExit::Ignore, async move {
            let _ = server.serve(listener, routes, &drain).await;
        });
        Self {
            addr,
            shared,
            _tasks: tasks,
        }
    }

    pub(crate) fn reports(&self) -> Vec<(String, ReportLoadRequest)> {
        self.shared.reports.lock().expect("not poisoned").clone()
    }

    pub(crate) fn calls(&self) -> Vec<(String, String)> {
        self.shared.calls.lock().expect("not poisoned").clone()
    }
}

#[tonic::async_trait]
impl IdentityService for Service {
    async fn issue_permit(
        &self,
        request: Request<IssuePermitRequest>,
    ) -> Result<Response<IssuePermitResponse>, Status> {
        let call = (
            header(&request, "x-doseline-caller"),
            header(&request, "x-doseline-internal"),
        );
        self.0.calls.lock().expect("not poisoned").push(call);
        match &self.0.react {
            Some(react) => react(request.get_ref()).map(Response::new),
            None => std::future::pending().await,
        }
    }

    async fn change_region(
        &self,
        _: Request<ChangeRegionRequest>,
    ) -> Result<Response<ChangeRegionResponse>, Status> {
        Err(Status::unimplemented("gateways take the steps"))
    }
}

#[tonic::async_trait]
impl DoorkeeperService for Service {
    async fn report_load(
        &self,
        request: Request<ReportLoadRequest>,
    ) -> Result<Response<ReportLoadResponse>, Status> {
        let secret = header(&request, "x-doseline-internal");
        let mut reports = self.0.reports.lock().expect("not poisoned");
        reports.push((secret, request.into_inner()));
        Ok(Response::new(ReportLoadResponse {}))
    }
}

fn header<T>(request: &Request<T>, name: &str) -> String {
    let value = request
        .metadata()
        .get(name)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
