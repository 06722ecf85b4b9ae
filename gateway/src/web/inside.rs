//! The public API from inside: the very services that the gRPC port offers, behind the same roles and the same gates.
//!
//! Invariant: a page has no way to an inventory but this one.

use std::convert::Infallible;

use domain::Refusal;
use proto::availability::availability_service_client::AvailabilityServiceClient;
use proto::availability_encoded::availability_service_server::AvailabilityServiceServer;
use proto::clinic::clinic_service_client::ClinicServiceClient;
use proto::clinic::clinic_service_server::ClinicServiceServer;
use proto::status::{Refused, read};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Request, Status};
use tower::Layer as _;
use tower::util::BoxCloneSyncService;

use super::session::Session;
use crate::callers::{Callers, CallersLayer, Vouched};
use crate::rpc::Services;
use crate::shedding::{Gates, SheddingLayer};

type Port = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The API as whoever is signed in may use it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Inside {
    port: Port,
}

impl Inside {
    pub(super) fn new(services: &Services, callers: Callers, gates: Gates) -> Self {
        let routes = Routes::new(ClinicServiceServer::new(services.clone()))
            .add_service(AvailabilityServiceServer::new(services.clone()));
        let shedding = SheddingLayer::new(gates).layer(routes);
        let callers = CallersLayer::new(callers, services.refusals.clone());
        Self {
            port: BoxCloneSyncService::new(callers.layer(shedding)),
        }
    }

    pub(super) fn clinics(&self) -> ClinicServiceClient<Port> {
        ClinicServiceClient::new(self.port.clone())
    }

    pub(super) fn availability(&self) -> AvailabilityServiceClient<Port> {
        AvailabilityServiceClient::new(self.port.clone())
    }
}

/// A request of whoever is signed in.
pub(super) fn of<T>(session: &Session, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Vouched(session.caller()));
    request
}

/// Why a request was refused; what is no refusal of ours has no known outcome.
pub(super) fn refused(status: &Status) -> Refused {
    read(status).unwrap_or_else(|| Refusal::OutcomeUnknown.into())
}
