//! Incidents beside the ledger: how a plan is made of what is booked and free, and who carries it out.

mod apply;
mod plan;

pub(crate) use apply::apply_plans;
pub(crate) use plan::plan;
