//! What the public port offers: our services, health and reflection.

use std::convert::Infallible;

use proto::availability_encoded::availability_service_server::AvailabilityServiceServer;
use proto::booking::booking_service_server::BookingServiceServer;
use proto::clinic::clinic_service_server::ClinicServiceServer;
use proto::clinic::incident_service_server::IncidentServiceServer;
use proto::identity::identity_service_server::IdentityServiceServer;
use proto::leftover::leftover_service_server::LeftoverServiceServer;
use proto::room_encoded::room_service_server::RoomServiceServer;
use runtime::{Drain, Readiness};
use tonic::service::Routes;

use super::Fault;
use crate::rpc::Services;

/// A command is below 2 KiB; so is every other request but an assertion's.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// All services of the public port.
pub(super) fn routes<H>(services: Services, health: H) -> Result<Routes, Fault>
where
    H: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send + 'static,
{
    // Only what is offered here is listed; the descriptors also know our internal services.
    let offered = [
        "doseline.availability.v1.AvailabilityService",
        "doseline.booking.v1.BookingService",
        "doseline.clinic.v1.ClinicService",
        "doseline.clinic.v1.IncidentService",
        "doseline.identity.v1.IdentityService",
        "doseline.leftover.v1.LeftoverService",
        "doseline.room.v1.RoomService",
        H::NAME,
    ];
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        offered
            .iter()
            .fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let small = REQUEST_BYTES_MAX;
    let booking = BookingServiceServer::new(services.clone()).max_decoding_message_size(small);
    let identity = IdentityServiceServer::new(services.clone()).max_decoding_message_size(small);
    let rooms = RoomServiceServer::new(services.clone()).max_decoding_message_size(small);
    let clinics = ClinicServiceServer::new(services.clone()).max_decoding_message_size(small);
    let incidents = IncidentServiceServer::new(services.clone()).max_decoding_message_size(small);
    let leftovers = LeftoverServiceServer::new(services.clone()).max_decoding_message_size(small);
    let lists = AvailabilityServiceServer::new(services).max_decoding_message_size(small);
    Ok(Routes::new(booking)
        .add_service(identity)
        .add_service(rooms)
        .add_service(clinics)
        .add_service(incidents)
        .add_service(leftovers)
        .add_service(lists)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(Fault::Reflection)?)
        .add_service(reflection().build_v1alpha().map_err(Fault::Reflection)?))
}

/// Says of every public service whether it serves.
pub(super) async fn set_health(health: &tonic_health::server::HealthReporter, serving: bool) {
    type Lists = AvailabilityServiceServer<Services>;
    if serving {
        health.set_serving::<BookingServiceServer<Services>>().await;
        health
            .set_serving::<IdentityServiceServer<Services>>()
            .await;
        health.set_serving::<RoomServiceServer<Services>>().await;
        health.set_serving::<ClinicServiceServer<Services>>().await;
        health
            .set_serving::<IncidentServiceServer<Services>>()
            .await;
        health
            .set_serving::<LeftoverServiceServer<Services>>()
            .await;
        health.set_serving::<Lists>().await;
    } else {
        health
            .set_not_serving::<BookingServiceServer<Services>>()
            .await;
        health
            .set_not_serving::<IdentityServiceServer<Services>>()
            .await;
        health
            .set_not_serving::<RoomServiceServer<Services>>()
            .await;
        health
            .set_not_serving::<ClinicServiceServer<Services>>()
            .await;
        health
            .set_not_serving::<IncidentServiceServer<Services>>()
            .await;
        health
            .set_not_serving::<LeftoverServiceServer<Services>>()
            .await;
        health.set_not_serving::<Lists>().await;
    }
    let whole = if serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    health.set_service_status("", whole).await;
}

/// Says by the health service what readiness says.
pub(super) async fn follow_health(
    health: tonic_health::server::HealthReporter,
    readiness: Readiness,
    drain: Drain,
) {
    let mut changes = readiness.watch();
    loop {
        let ready = *changes.borrow_and_update();
        set_health(&health, ready).await;
        // The last thing that is told is that a draining gateway serves nobody new.
        if drain.is_draining() && !ready {
            return;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = drain.announced() => {}
        }
    }
}
