//! The desk: check-in by code, the dose, and today's sheet, which follows what happens.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::StatusCode;
use maud::{Markup, html};
use proto::booking::appointment::State;
use proto::clinic::{ClinicAppointment, ListAppointmentsRequest, WatchInventoryRequest};
use proto::common::Date;
use proto::status::Refused;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Message, Page, TELL_EVERY, Visit, tell};
use crate::web::inside;

/// A clinic's day is shorter; what is beyond is checked in by code.
const SHEET_MAX: i32 = 500;
/// The sheet is read again after so long in any case: another terminal's check-ins change no slot.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// And after a slot changed, at most so often: it is a read of the ledger.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_secs(2);
const SHEET: &str = "sheet";

/// What stands in the desk's forms after the last one was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    /// The code that was typed, where it is to be typed again.
    pub(super) code: String,
    /// The dose that comes next.
    pub(super) dose: Option<Dose>,
    /// The id of the request that is to be sent again.
    pub(super) request_id: Option<String>,
}

/// A dose about to be recorded.
#[derive(Clone, Debug)]
pub(super) struct Dose {
    pub(super) code: String,
    pub(super) vaccine: String,
    pub(super) dose: u32,
    pub(super) lot: String,
}

/// Today's appointments, and whether there are more.
#[derive(Clone, Debug, PartialEq)]
struct Sheet {
    appointments: Vec<ClinicAppointment>,
    more: bool,
}

pub(super) async fn page(
    visit: &Visit,
    message: Option<(StatusCode, Message)>,
    desk: Desk,
) -> Response {
    let texts = visit.language.texts();
    let sheet = match read(visit).await {
        Ok(sheet) => self::sheet(visit, &sheet),
        Err(why) => Message::refused(visit.language, &why).markup(visit.language),
    };
    let (status, message) = message.unzip();
    let wrong = matches!(message, Some(Message::Refused(_))).then_some("true");
    let typing = desk.dose.is_none();
    let described = if wrong.is_some() && typing {
        "message code-hint"
    } else {
        "code-hint"
    };
    let content = html! {
        @if let Some(dose) = &desk.dose { (dose_form(visit, dose, &desk, wrong)) }
        form.card method="post" action="/clinic/act" {
            h2 .hidden { (texts.check_in_title) }
            (visit.hidden("check_in", desk.request_id.as_deref().filter(|_| typing)))
            div.row {
                div.field {
                    label for="code" { (texts.code) }
                    input #code .code name="code" required autocomplete="off" autocapitalize="characters" spellcheck="false"
                        maxlength="24" value=(desk.code) autofocus[typing] aria-describedby=(described)
                        aria-invalid=[wrong.filter(|_| typing)];
                }
                button { (texts.check_in) }
            }
            p #code-hint .hint { (texts.code_help) }
        }
        section aria-labelledby="sheet-title" {
            h2 #sheet-title { (texts.sheet) }
            div #sheet .card.blocks data-part { (sheet) }
            noscript { p { a href="/clinic" { (texts.reload) } } }
        }
    };
    let status = status.unwrap_or(StatusCode::OK);
    visit.page(Page::Today, (status, message.as_ref()), &content)
}

fn dose_form(visit: &Visit, dose: &Dose, desk: &Desk, wrong: Option<&'static str>) -> Markup {
    let texts = visit.language.texts();
    let described = if wrong.is_some() {
        "message lot-hint"
    } else {
        "lot-hint"
    };
    html! {
        form.card method="post" action="/clinic/act" {
            h2 { (texts.dose_given_title) }
            (visit.hidden("dose_given", desk.request_id.as_deref()))
            input type="hidden" name="code" value=(dose.code);
            input type="hidden" name="vaccine" value=(dose.vaccine);
            input type="hidden" name="dose" value=(dose.dose);
            p {
                code.id { (dose.code) } " · " (dose.vaccine) " · " (texts.dose) " " (dose.dose)
            }
            div.row {
                div.field {
                    label for="lot" { (texts.lot) }
                    input #lot name="lot" required maxlength="40" autocomplete="off" spellcheck="false" autofocus
                        value=(dose.lot) aria-describedby=(described) aria-invalid=[wrong];
                }
                button { (texts.record_dose) }
            }
            p #lot-hint .hint { (texts.lot_help) }
        }
    }
}

async fn read(visit: &Visit) -> Result<Sheet, Refused> {
    let today = visit.today();
    let asked = ListAppointmentsRequest {
        clinic: visit.clinic(),
        day: Some(Date {
            year: today.year().into(),
            month: today.month().into(),
            day: today.day().into(),
        }),
        page_size: SHEET_MAX,
        page_token: String::new(),
    };
    let mut clinics = visit.site.inside.clinics();
    let answer = clinics
        .list_appointments(inside::of(&visit.session, asked))
        .await;
    let answer = answer
        .map_err(|status| inside::refused(&status))?
        .into_inner();
    Ok(Sheet {
        appointments: answer.appointments,
        more: !answer.next_page_token.is_empty(),
    })
}

fn sheet(visit: &Visit, sheet: &Sheet) -> Markup {
    let texts = visit.language.texts();
    html! {
        @if sheet.appointments.is_empty() {
            p { (texts.sheet_empty) }
        } @else {
            table {
                caption.hidden { (texts.sheet) }
                thead {
                    tr {
                        th scope="col" { (texts.time) }
                        th.text scope="col" { (texts.code) }
                        th.text scope="col" { (texts.vaccine) }
                        th.text scope="col" { (texts.state) }
                        th scope="col" { (texts.action) }
                    }
                }
                tbody { @for one in &sheet.appointments { (row(visit, one)) } }
            }
            @if sheet.more { p { (texts.sheet_more) } }
        }
    }
}

fn row(visit: &Visit, one: &ClinicAppointment) -> Markup {
    let texts = visit.language.texts();
    let (tone, state) = match one.state() {
        State::Booked => ("badge", texts.visit_booked),
        State::CheckedIn => ("badge warn", texts.visit_checked_in),
        State::Given => ("badge good", texts.visit_given),
        State::NoShow => ("badge bad", texts.visit_no_show),
        State::Unspecified | State::Held | State::Cancelled => ("badge", texts.visit_other),
    };
    let button = |action: &str, text: &str, quiet: bool| {
        html! {
            form method="post" action="/clinic/act" {
                (visit.hidden(action, None))
                input type="hidden" name="code" value=(one.code);
                input type="hidden" name="vaccine" value=(one.vaccine);
                input type="hidden" name="dose" value=(one.dose);
                button.small.quiet[quiet] #{ (action) "-" (one.code) } aria-label={ (text) ": " (one.code) } { (text) }
            }
        }
    };
    html! {
        tr {
            th scope="row" { (visit.minute(one.start_time.as_ref())) }
            td.text { code.id { (one.code) } }
            td.text.what { (one.vaccine) " · " (one.dose) }
            td.text.state { span class=(tone) { (state) } }
            td.act {
                div.actions {
                    @match one.state() {
                        State::Booked => {
                            (button("check_in", texts.check_in, false))
                            (button("no_show", texts.no_show, true))
                        }
                        State::NoShow => (button("check_in", texts.check_in, true)),
                        State::CheckedIn => (button("dose_form", texts.dose_given, false)),
                        State::Given | State::Unspecified | State::Held | State::Cancelled => {}
                    }
                }
            }
        }
    }
}

/// The sheet as it changes: after a change of the clinic's slots, and from time to time.
pub(super) async fn follow(visit: Visit) -> Result<BoxStream<'static, Bytes>, Refused> {
    let asked = WatchInventoryRequest {
        clinic: visit.clinic(),
        cursor: String::new(),
    };
    let mut clinics = visit.site.inside.clinics();
    let slots = clinics
        .watch_inventory(inside::of(&visit.session, asked))
        .await;
    let slots = slots
        .map_err(|status| inside::refused(&status))?
        .into_inner();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = (visit, slots, look, None::<Sheet>, true);
    let stream = futures::stream::unfold(
        start,
        |(visit, mut slots, mut look, mut known, mut first)| async move {
            loop {
                tokio::select! {
                    news = slots.next() => match news {
                        Some(Ok(news)) if news.slots.is_empty() => continue,
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return None,
                    },
                    _ = look.tick() => {}
                }
                // Whatever else happened in this moment is in what is read after it.
                tokio::time::sleep_until(
                    Instant::now()
                        + if known.is_some() {
                            LOOK_AT_MOST_EVERY
                        } else {
                            TELL_EVERY
                        },
                )
                .await;
                let Ok(sheet) = read(&visit).await else {
                    continue;
                };
                if known.as_ref() == Some(&sheet) {
                    let now = format!("event: time\ndata: {}\n\n", visit.site.now_ms());
                    return Some((Bytes::from(now), (visit, slots, look, known, first)));
                }
                let bytes = tell(&visit.site, SHEET, self::sheet(&visit, &sheet), &mut first);
                known = Some(sheet);
                return Some((bytes, (visit, slots, look, known, first)));
            }
        },
    );
    Ok(stream.boxed())
}
