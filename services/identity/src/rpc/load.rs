//! `ReportLoad`: what gateways say about their load, kept for the doorkeeper of this process.

use domain::{InstanceId, Refusal, spread};
use proto::convert::Fields;
use proto::doorkeeper::doorkeeper_service_server::DoorkeeperService;
use proto::doorkeeper::{ReportLoadRequest, ReportLoadResponse};
use proto::status::{Refused, refuse};
use runtime::Clock;
use tonic::{Request, Response, Status};

use crate::caller::Callers;
use crate::doorkeeper::reports::{Report, Reports};

/// For gateways.
#[derive(Clone)]
pub struct DoorkeeperRpc {
    pub(crate) callers: Callers,
    pub(crate) reports: Reports,
    pub(crate) clock: Clock,
}

#[tonic::async_trait]
impl DoorkeeperService for DoorkeeperRpc {
    async fn report_load(
        &self,
        request: Request<ReportLoadRequest>,
    ) -> Result<Response<ReportLoadResponse>, Status> {
        self.callers.check_gateway(&request).map_err(refuse)?;
        let (gateway, report) = parse(request.into_inner())?;
        if self.reports.take(gateway, report, self.clock.monotonic()) {
            Ok(Response::new(ReportLoadResponse {}))
        } else {
            Err(refuse(Refusal::Overloaded))
        }
    }
}

fn parse(request: ReportLoadRequest) -> Result<(InstanceId, Report), Refused> {
    let mut fields = Fields::default();
    let gateway = fields.parse::<InstanceId>("gateway", &request.gateway);
    if request.shed > request.calls {
        fields.wrong("shed", "must be at most calls");
    }
    if request.answer_times.len() > spread::CLASSES {
        fields.wrong("answer_times", "must have at most 20 counts");
    }
    let gateway = fields.finish(gateway)?;
    let report = Report {
        calls: request.calls,
        shed: request.shed,
        answer_times: request.answer_times,
        in_flight: request.in_flight,
        in_flight_max: request.in_flight_max,
    };
    Ok((gateway, report))
}
