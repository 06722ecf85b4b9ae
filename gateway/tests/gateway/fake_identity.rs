//! An identity member whose answers a test writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::identity::identity_service_server::{IdentityService, IdentityServiceServer};
use proto::identity::{IssuePermitRequest, IssuePermitResponse};
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
    react: React,
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
        let shared = Arc::new(Shared {
            react: Box::new(react),
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
        let routes = Routes::new(IdentityServiceServer::new(Service(Arc::clone(&shared))));
        tasks.spawn("fake_identity", OnExit::Ignore, async move {
            let _ = server.serve(listener, routes, &drain).await;
        });
        Self {
            addr,
            shared,
            _tasks: tasks,
        }
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
        let header = |name: &str| {
            let value = request
                .metadata()
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let call = (header("x-doseline-caller"), header("x-doseline-internal"));
        self.0.calls.lock().expect("not poisoned").push(call);
        (self.0.react)(request.get_ref()).map(Response::new)
    }
}
