//! What anybody can do with a room's published documents, without a server: check a draw, simulate an opening.

pub(crate) mod audit;
//SIM pub(crate) mod simulate;
pub(crate) mod export;
pub(crate) mod operate;
