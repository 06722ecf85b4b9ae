//! Everything that a form of a clinic does: a call of the public API with the form's `request_id`, and the page that
//! says what came of it.

use axum::extract::{Request, State};
use axum::response::Response;
use domain::{Refusal, booking_code};
use http::StatusCode;
use proto::booking::appointment::State as VisitState;
use proto::clinic::{
    CheckInRequest, ClinicAppointment, DeliverStockRequest, RecordDoseGivenRequest,
    RecordNoShowRequest, RecordWalkInRequest, RecordWastageRequest, SetWalkInsRequest, Stock,
};
use proto::status::Refused;

use super::desk::{self, Desk, Dose};
use super::supplies::{self, Typed};
use super::{Message, SIGN_IN, Visit, again, status};
use crate::web::reply::Form;
use crate::web::text::{Texts, number};
use crate::web::{Site, inside, reply};

/// What a form asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    CheckIn,
    /// Only shows the form for the dose; changes nothing.
    DoseForm,
    DoseGiven,
    NoShow,
    Stock(StockAction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StockAction {
    Deliver,
    Waste,
    SetWalkIns,
    WalkIn,
}

impl Action {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "check_in" => Self::CheckIn,
            "dose_form" => Self::DoseForm,
            "dose_given" => Self::DoseGiven,
            "no_show" => Self::NoShow,
            "deliver" => Self::Stock(StockAction::Deliver),
            "waste" => Self::Stock(StockAction::Waste),
            "set_walk_ins" => Self::Stock(StockAction::SetWalkIns),
            "walk_in" => Self::Stock(StockAction::WalkIn),
            _ => return None,
        })
    }
}

impl StockAction {
    const fn name(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Waste => "waste",
            Self::SetWalkIns => "set_walk_ins",
            Self::WalkIn => "walk_in",
        }
    }
}

/// A form of whoever is signed in.
struct Sent {
    clinic: String,
    form: Form,
}

impl Sent {
    fn text(&self, name: &str) -> String {
        self.form
            .get(name)
            .map_or_else(String::new, |text| text.trim().to_owned())
    }

    /// A number as typed; what is none is beyond every bound, so that the field is told.
    fn number(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap_or(u32::MAX)
    }
}

pub(in crate::web) async fn act(State(site): State<Site>, request: Request) -> Response {
    let ours = reply::is_ours(request.headers());
    let Some(visit) = Visit::of(site, &request) else {
        return reply::see_other(SIGN_IN);
    };
    let form = reply::form(request).await.unwrap_or_default();
    let key = form.get("key").map_or("", String::as_str);
    let action = form.get("action").and_then(|name| Action::from_name(name));
    let ours = ours && visit.site.sessions.is_form_of(&visit.session, key);
    let Some(action) = action.filter(|_| ours) else {
        let expired = (StatusCode::FORBIDDEN, Message::Expired);
        return desk::page(&visit, Some(expired), Desk::default()).await;
    };
    let clinic = visit.clinic();
    let sent = Sent { clinic, form };
    match action {
        Action::Stock(action) => stock(&visit, action, &sent).await,
        Action::CheckIn => check_in(&visit, &sent).await,
        Action::NoShow => no_show(&visit, &sent).await,
        Action::DoseGiven => dose_given(&visit, &sent).await,
        Action::DoseForm => {
            let desk = Desk {
                dose: Some(dose_of(&sent)),
                ..Desk::default()
            };
            desk::page(&visit, None, desk).await
        }
    }
}

fn dose_of(sent: &Sent) -> Dose {
    let typed = sent.text("code");
    Dose {
        code: booking_code::parse(&typed).unwrap_or(typed),
        vaccine: sent.text("vaccine"),
        dose: sent.number("dose"),
        lot: sent.text("lot"),
    }
}

async fn check_in(visit: &Visit, sent: &Sent) -> Response {
    let asked = CheckInRequest {
        clinic: sent.clinic.clone(),
        request_id: sent.text("request_id"),
        code: sent.text("code"),
    };
    let mut clinics = visit.site.inside.clinics();
    let answer = clinics.check_in(inside::of(&visit.session, asked)).await;
    match answer {
        Ok(answer) => {
            let answer = answer.into_inner();
            let title = visit.language.texts().done_check_in;
            let seen = answer.appointment;
            let desk = Desk {
                dose: seen
                    .as_ref()
                    .filter(|seen| seen.state() == VisitState::CheckedIn)
                    .map(next_dose),
                ..Desk::default()
            };
            let done = done(visit, title, seen.as_ref(), answer.repeated_answer);
            desk::page(visit, Some(done), desk).await
        }
        Err(status) => {
            let why = inside::refused(&status);
            let desk = Desk {
                code: sent.text("code"),
                request_id: kept_id(&why, sent),
                ..Desk::default()
            };
            refused(visit, &why, desk).await
        }
    }
}

async fn no_show(visit: &Visit, sent: &Sent) -> Response {
    let asked = RecordNoShowRequest {
        clinic: sent.clinic.clone(),
        request_id: sent.text("request_id"),
        code: sent.text("code"),
    };
    let mut clinics = visit.site.inside.clinics();
    let answer = clinics
        .record_no_show(inside::of(&visit.session, asked))
        .await;
    match answer {
        Ok(answer) => {
            let answer = answer.into_inner();
            let title = visit.language.texts().done_no_show;
            let seen = answer.appointment;
            let done = done(visit, title, seen.as_ref(), answer.repeated_answer);
            desk::page(visit, Some(done), Desk::default()).await
        }
        Err(status) => refused(visit, &inside::refused(&status), Desk::default()).await,
    }
}

async fn dose_given(visit: &Visit, sent: &Sent) -> Response {
    let dose = dose_of(sent);
    let asked = RecordDoseGivenRequest {
        clinic: sent.clinic.clone(),
        request_id: sent.text("request_id"),
        code: dose.code.clone(),
        dose: dose.dose,
        vaccine: dose.vaccine.clone(),
        lot: dose.lot.clone(),
    };
    let mut clinics = visit.site.inside.clinics();
    let answer = clinics
        .record_dose_given(inside::of(&visit.session, asked))
        .await;
    match answer {
        Ok(answer) => {
            let answer = answer.into_inner();
            let title = visit.language.texts().done_given;
            let seen = answer.appointment;
            let done = done(visit, title, seen.as_ref(), answer.repeated_answer);
            desk::page(visit, Some(done), Desk::default()).await
        }
        Err(status) => {
            let why = inside::refused(&status);
            let desk = Desk {
                request_id: kept_id(&why, sent),
                dose: Some(dose),
                ..Desk::default()
            };
            refused(visit, &why, desk).await
        }
    }
}

async fn stock(visit: &Visit, action: StockAction, sent: &Sent) -> Response {
    match change_stock(visit, action, sent).await {
        Ok((stock, lines, repeated)) => {
            let title = visit.language.texts().done_stock;
            let done = Message::Done {
                title,
                lines,
                repeated,
            };
            supplies::with(visit, Some((StatusCode::OK, done)), None, stock).await
        }
        Err(why) => {
            let typed = Typed {
                action: action.name(),
                vaccine: sent.text("vaccine"),
                doses: sent.text("doses"),
                lot: sent.text("lot"),
                request_id: kept_id(&why, sent),
            };
            let told = (status(&why), Message::refused(visit.language, &why));
            supplies::page(visit, Some(told), Some(typed)).await
        }
    }
}

/// The figures afterwards, what is to be said of them, and whether the answer was given before.
type Changed = (Option<Stock>, Vec<String>, bool);

async fn change_stock(visit: &Visit, action: StockAction, sent: &Sent) -> Result<Changed, Refused> {
    let texts = visit.language.texts();
    let (clinic, request_id) = (sent.clinic.clone(), sent.text("request_id"));
    let (vaccine, doses) = (sent.text("vaccine"), sent.number("doses"));
    let mut clinics = visit.site.inside.clinics();
    macro_rules! change {
        ($method:ident, $request:expr) => {
            clinics
                .$method(inside::of(&visit.session, $request))
                .await
                .map_err(|status| inside::refused(&status))?
                .into_inner()
        };
    }
    let mut short = 0;
    let (stock, repeated) = match action {
        StockAction::Deliver => {
            let request = DeliverStockRequest {
                clinic,
                request_id,
                vaccine,
                doses,
            };
            let answer = change!(deliver_stock, request);
            (answer.stock, answer.repeated_answer)
        }
        StockAction::Waste => {
            let request = RecordWastageRequest {
                clinic,
                request_id,
                vaccine,
                doses,
            };
            let answer = change!(record_wastage, request);
            short = answer.short;
            (answer.stock, answer.repeated_answer)
        }
        StockAction::SetWalkIns => {
            let request = SetWalkInsRequest {
                clinic,
                request_id,
                vaccine,
                doses,
            };
            let answer = change!(set_walk_ins, request);
            (answer.stock, answer.repeated_answer)
        }
        StockAction::WalkIn => {
            let request = RecordWalkInRequest {
                clinic,
                request_id,
                vaccine,
                lot: sent.text("lot"),
            };
            let answer = change!(record_walk_in, request);
            (answer.stock, answer.repeated_answer)
        }
    };
    let mut lines: Vec<_> = stock.iter().map(|stock| told_stock(stock, texts)).collect();
    if short > 0 {
        lines.push(format!("{}: {}", texts.done_short, number(short)));
    }
    Ok((stock, lines, repeated))
}

fn told_stock(stock: &Stock, texts: &Texts) -> String {
    let figures = [
        (texts.received, stock.received),
        (texts.wasted, stock.wasted),
        (texts.walk_in, stock.walk_in),
        (texts.walk_in_given, stock.walk_in_given),
        (texts.given, stock.given),
    ];
    let told: Vec<_> = figures
        .iter()
        .map(|(name, value)| format!("{name} {}", number(*value)))
        .collect();
    format!("{}: {}", stock.vaccine, told.join(" · "))
}

fn next_dose(seen: &ClinicAppointment) -> Dose {
    Dose {
        code: seen.code.clone(),
        vaccine: seen.vaccine.clone(),
        dose: seen.dose,
        lot: String::new(),
    }
}

fn done(
    visit: &Visit,
    title: &'static str,
    seen: Option<&ClinicAppointment>,
    repeated: bool,
) -> (StatusCode, Message) {
    let texts = visit.language.texts();
    let line = |seen: &ClinicAppointment| {
        let time = visit.minute(seen.start_time.as_ref());
        let (code, vaccine, dose) = (&seen.code, &seen.vaccine, seen.dose);
        format!("{time} · {code} · {vaccine} · {} {dose}", texts.dose)
    };
    let message = Message::Done {
        title,
        lines: seen.map(line).into_iter().collect(),
        repeated,
    };
    (StatusCode::OK, message)
}

async fn refused(visit: &Visit, why: &Refused, desk: Desk) -> Response {
    let told = (status(why), Message::refused(visit.language, why));
    let mut answer = desk::page(visit, Some(told), desk).await;
    if let Some(after) = why.retry_after {
        reply::retry_later(&mut answer, after.as_secs());
    }
    answer
}

/// The id of a request that is to be sent again as it is: then it is a repeat, whatever became of the first.
fn kept_id(why: &Refused, sent: &Sent) -> Option<String> {
    let kept = again(why) && why.refusal != Refusal::RequestIdReused;
    kept.then(|| sent.text("request_id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_action() {
        for action in [
            StockAction::Deliver,
            StockAction::Waste,
            StockAction::SetWalkIns,
            StockAction::WalkIn,
        ] {
            assert_eq!(
                Action::from_name(action.name()),
                Some(Action::Stock(action))
            );
        }
        assert_eq!(Action::from_name("check_in"), Some(Action::CheckIn));
        assert_eq!(Action::from_name("drop_everything"), None);
    }

    #[test]
    fn the_same_form_is_sent_again_only_where_that_is_a_repeat() {
        let form = [("request_id".to_owned(), "id".to_owned())].into();
        let sent = Sent {
            clinic: String::new(),
            form,
        };
        for refusal in [
            Refusal::OutcomeUnknown,
            Refusal::Unavailable,
            Refusal::Overloaded,
        ] {
            assert_eq!(
                kept_id(&refusal.into(), &sent).as_deref(),
                Some("id"),
                "{refusal:?}"
            );
        }
        for refusal in [
            Refusal::CodeUnknown,
            Refusal::Invalid,
            Refusal::RequestIdReused,
        ] {
            assert_eq!(kept_id(&refusal.into(), &sent), None, "{refusal:?}");
        }
    }
}
