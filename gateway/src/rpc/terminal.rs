//! What a clinic's terminal asks: any member of its region can answer, because the ledger decides.

use domain::name::{ClinicName, SlotName};
use proto::clinic::{ListAppointmentsRequest, ListAppointmentsResponse};
use proto::convert::Fields;
use proto::status::Refused;
use tonic::{Request, Response, Status};

use super::target::{self, Target};
use super::{Services, caller};
use crate::routing::Verb;

/// A request with a clinic in it; `code` where it has a booking's.
pub(super) fn clinic(
    clinic: &str,
    request_id: &str,
    code: Option<&str>,
) -> Result<ClinicName, Refused> {
    let mut fields = Fields::default();
    let name = fields.parse::<ClinicName>("clinic", clinic);
    target::request_id(&mut fields, request_id);
    if let Some(code) = code {
        fields.booking_code("code", code);
    }
    fields.finish(name)
}

/// A request about one slot.
pub(super) fn slot(slot: &str, request_id: &str) -> Result<ClinicName, Refused> {
    let mut fields = Fields::default();
    let name = fields.parse::<SlotName>("slot", slot);
    target::request_id(&mut fields, request_id);
    fields.finish(name.map(|name| name.clinic))
}

/// The day sheet: its pages' offsets travel sealed.
pub(super) async fn list_appointments(
    services: &Services,
    mut request: Request<ListAppointmentsRequest>,
) -> Result<Response<ListAppointmentsResponse>, Status> {
    let asked = request.get_mut();
    let mut fields = Fields::default();
    fields.parse::<ClinicName>("clinic", &asked.clinic);
    fields.finish(Some(()))?;
    let day = asked.day.unwrap_or_default();
    let day = format!("{}-{}-{}", day.year, day.month, day.day);
    let listing = ["list_appointments", &asked.clinic, &day].map(str::to_owned);
    asked.page_token = services.answers.open_page(&listing, &asked.page_token)?;
    let mut answer = services.terminal(request, |r| clinic_of(&r.clinic)).await?;
    let offset = std::mem::take(&mut answer.get_mut().next_page_token);
    answer.get_mut().next_page_token = services.answers.seal_page(&listing, &offset);
    Ok(answer)
}

fn clinic_of(clinic: &str) -> Result<ClinicName, Refused> {
    let mut fields = Fields::default();
    let name = fields.parse("clinic", clinic);
    fields.finish(name)
}

impl Services {
    /// A terminal's command: parsed for its clinic, which must be the caller's own.
    pub(super) async fn terminal<V: Verb>(
        &self,
        request: Request<V>,
        parse: impl FnOnce(&V) -> Result<ClinicName, Refused>,
    ) -> Result<Response<V::Response>, Status> {
        let caller = caller(&request)?;
        let to = |body: &V| {
            let name = parse(body)?;
            caller.may_see(&name)?;
            Ok(Target {
                region: name.region,
                clinic: None,
            })
        };
        self.command(request, to).await
    }
}
