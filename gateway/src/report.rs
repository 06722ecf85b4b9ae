//! Tells identity how much this gateway has to do with bookings, so that the doorkeeper can slow a line down.
//!
//! Every member is told, because each may be the doorkeeper next. Counters rise from the start of the process, so that a
//! report which is lost costs nothing but its second.

use std::convert::Infallible;
use std::time::Duration;

use domain::InstanceId;
use proto::doorkeeper::ReportLoadRequest;
use tokio::time::MissedTickBehavior;

use crate::permits::Permits;
use crate::shedding::{Class, Gates, Load};

/// How often members are told.
const EVERY: Duration = Duration::from_secs(1);
/// A report is taken from memory to memory.
const WITHIN: Duration = Duration::from_secs(1);

/// Reports until it is dropped.
pub(crate) async fn report_load(permits: Permits, gates: Gates, gateway: InstanceId) -> Infallible {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let report = report(&gateway, gates.load(Class::Commands));
        permits.tell(&report, WITHIN).await;
    }
}

fn report(gateway: &InstanceId, load: Load) -> ReportLoadRequest {
    ReportLoadRequest {
        gateway: gateway.to_string(),
        calls: load.calls,
        shed: load.shed,
        answer_times: load.answer_times,
        in_flight: load.in_flight,
        in_flight_max: load.in_flight_max,
    }
}
