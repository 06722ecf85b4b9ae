//! What anybody can do with a room's published documents, without a server: check a draw, simulate an opening.

pub(crate) mod audit;
pub(crate) mod export;
pub(crate) mod operate;
pub(crate) mod simulate;
