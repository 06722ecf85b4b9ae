//! The wire and nothing else: generated messages, clients and servers, and the way between them and the domain.
//!
//! Invariant: protobuf types do not travel beyond the handlers, and only this crate makes a `tonic::Status`.

pub mod convert;
pub mod encoded;
pub mod status;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use generated::doseline::admin::v1 as admin;
pub use generated::doseline::availability::v1 as availability;
pub use generated::doseline::booking::v1 as booking;
pub use generated::doseline::clinic::v1 as clinic;
pub use generated::doseline::common::v1 as common;
pub use generated::doseline::doorkeeper::v1 as doorkeeper;
pub use generated::doseline::identity::v1 as identity;
pub use generated::doseline::inventory::v1 as inventory;
pub use generated::doseline::leftover::v1 as leftover;
pub use generated::doseline::regions::v1 as regions;
pub use generated::doseline::room::v1 as room;

/// `doseline.availability.v1` once more, with a server whose answers are bytes encoded once.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub mod availability_encoded {
    include!(concat!(
        env!("OUT_DIR"),
        "/encoded/availability/doseline.availability.v1.rs"
    ));
}

/// `doseline.room.v1` once more, with a server whose rooms are bytes encoded once.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub mod room_encoded {
    include!(concat!(
        env!("OUT_DIR"),
        "/encoded/room/doseline.room.v1.rs"
    ));
}

mod method {
    include!(concat!(env!("OUT_DIR"), "/methods.rs"));
}
pub use method::Method;

/// All protos as a `FileDescriptorSet`, for reflection and for the method × role table.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/doseline.bin"));
