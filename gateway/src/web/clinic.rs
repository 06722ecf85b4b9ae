//! A clinic's pages: today's sheet with check-in, what is on offer, and the stock. Each is a page of its own with a link
//! in [`Page::ALL`].

mod act;
mod desk;
mod offer;
mod sign;
mod supplies;

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use domain::Timestamp;
use futures::stream::BoxStream;
use http::StatusCode;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use proto::status::Refused;

use super::layout::Layout;
use super::reply;
use super::session::Session;
use super::text::{Language, Told, told};
use super::{Site, events};

pub(super) use act::act;
pub(super) use sign::{sign_in, sign_in_page, sign_out};

/// Changes are told at most so often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Where to sign in.
const SIGN_IN: &str = "/clinic/sign-in";

/// The pages of a clinic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// Today's sheet and check-in.
    Today,
    /// What is on offer.
    Inventory,
    /// The stock.
    Stock,
}

impl Page {
    const ALL: [Self; 3] = [Self::Today, Self::Inventory, Self::Stock];

    const fn path(self) -> &'static str {
        match self {
            Self::Today => "/clinic",
            Self::Inventory => "/clinic/inventory",
            Self::Stock => "/clinic/stock",
        }
    }

    const fn title(self, language: Language) -> &'static str {
        let texts = language.texts();
        match self {
            Self::Today => texts.today,
            Self::Inventory => texts.inventory,
            Self::Stock => texts.stock,
        }
    }

    /// Where its changes are told; a page of forms has none.
    const fn live(self) -> Option<&'static str> {
        match self {
            Self::Today => Some("today"),
            Self::Inventory => Some("inventory"),
            Self::Stock => None,
        }
    }
}

/// Somebody signed in, with what every page of theirs needs.
#[derive(Clone)]
struct Visit {
    site: Site,
    session: Session,
    language: Language,
    zone: TimeZone,
}

/// What came of the last action, on top of the page that follows it.
enum Message {
    /// It is done.
    Done {
        title: &'static str,
        lines: Vec<String>,
        repeated: bool,
    },
    /// It was refused.
    Refused(Told),
    /// The form was not one of ours.
    Expired,
}

impl Message {
    fn refused(language: Language, why: &Refused) -> Self {
        Self::Refused(told(language, why))
    }

    fn markup(&self, language: Language) -> Markup {
        let texts = language.texts();
        html! {
            @match self {
                Self::Done { title, lines, repeated } => {
                    div #message .message role="status" {
                        h2 { (title) }
                        @for line in lines { p { (line) } }
                        @if *repeated { p { (texts.repeated) } }
                    }
                }
                Self::Refused(told) => {
                    div #message .message.bad role="alert" {
                        h2 { (texts.error) }
                        p lang=[(!told.translated).then_some("en")] { (told.help) " " code { (told.code) } }
                        @if !told.details.is_empty() {
                            ul lang="en" aria-label=(texts.details) { @for one in &told.details { li { (one) } } }
                        }
                    }
                }
                Self::Expired => {
                    div #message .message.bad role="alert" {
                        h2 { (texts.error) }
                        p { (texts.form_expired) }
                    }
                }
            }
        }
    }

    const fn title(&self, language: Language) -> &'static str {
        match self {
            Self::Done { title, .. } => title,
            Self::Refused(_) | Self::Expired => language.texts().error,
        }
    }
}

impl Visit {
    /// Of a request with a session.
    fn of(site: Site, request: &Request) -> Option<Self> {
        let (language, _) = reply::language(request.uri(), request.headers());
        let now = site.now();
        let cookies = reply::cookies(request.headers());
        let session = site.sessions.of(&cookies, now)?;
        Some(Self::with(site, session, language))
    }

    fn with(site: Site, session: Session, language: Language) -> Self {
        let zone = zone(&site, &session);
        Self {
            site,
            session,
            language,
            zone,
        }
    }

    fn clinic(&self) -> String {
        let name = &self.session.clinic;
        format!("regions/{}/clinics/{}", name.region, name.clinic)
    }

    /// The day at the clinic.
    fn today(&self) -> jiff::civil::Date {
        self.zoned(self.site.now()).date()
    }

    fn zoned(&self, at: Timestamp) -> jiff::ZonedDateTime {
        let instant = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default();
        instant.to_zoned_datetime(self.zone.clone())
    }

    /// A page of this clinic around its content, with more time for whoever uses it.
    fn page(
        &self,
        page: Page,
        (status, message): (StatusCode, Option<&Message>),
        content: &Markup,
    ) -> Response {
        let (site, language) = (&self.site, self.language);
        let texts = language.texts();
        let now = site.now();
        let title = page.title(language);
        // What happened is the first thing that is read out.
        let window = match message {
            Some(message) => format!("{} – {title}", message.title(language)),
            None => title.to_owned(),
        };
        let live = page
            .live()
            .filter(|_| message.is_none() || page == Page::Today);
        let live = live.map(|name| format!("/clinic/live/{name}?lang={}", language.tag()));
        let layout = Layout {
            language,
            title: window,
            path: page.path(),
            live: live.as_deref(),
            now_ms: site.now_ms(),
            reload_secs: (page == Page::Inventory).then_some(15),
        };
        let name = site.services.answers.display_name(&self.session.clinic);
        let markup = layout.around(&html! {
            div.who {
                h1 { (name.unwrap_or_else(|| self.session.clinic.clinic.to_string())) }
                form method="post" action="/clinic/sign-out" {
                    (self.key())
                    button.quiet.small { (texts.sign_out) }
                }
            }
            p.lead {
                (language.region(self.session.clinic.region.as_str())) " · " (self.session.clinic.clinic) " · "
                time datetime=(self.today()) { (self.today()) }
            }
            nav.tabs aria-label=(texts.nav) {
                @for one in Page::ALL {
                    a href=(one.path()) aria-current=[(one == page).then_some("page")] { (one.title(language)) }
                }
            }
            @if let Some(message) = message { (message.markup(language)) }
            (content)
        });
        let mut answer = reply::page(status, markup);
        if let Some(renewed) = site.sessions.renewed(&self.session, now) {
            reply::give_cookie(&mut answer, &site.sessions.set_cookie(&renewed, now));
        }
        answer
    }

    /// What every form of this session carries.
    fn key(&self) -> Markup {
        html! { input type="hidden" name="key" value=(self.site.sessions.form_key(&self.session)); }
    }

    /// A form that does something: sent twice it is one request, because its id is in it.
    fn hidden(&self, action: &str, request_id: Option<&str>) -> Markup {
        let made = || uuid::Uuid::new_v4().to_string();
        let request_id = request_id.map_or_else(made, str::to_owned);
        html! {
            (self.key())
            input type="hidden" name="action" value=(action);
            input type="hidden" name="request_id" value=(request_id);
        }
    }

    fn minute(&self, at: Option<&prost_types::Timestamp>) -> String {
        let at = at.map(proto::convert::from_timestamp);
        at.map_or_else(String::new, |at| {
            self.zoned(at).strftime("%H:%M").to_string()
        })
    }
}

/// The zone of a campaign that runs in the clinic's region; days and hours of its clinics are told in it.
fn zone(site: &Site, session: &Session) -> TimeZone {
    let campaigns = site.rooms.campaigns();
    let runs = campaigns
        .iter()
        .filter(|campaign| campaign.regions.contains(&session.clinic.region))
        .max_by_key(|campaign| campaign.last_appointment);
    runs.and_then(|campaign| TimeZone::get(&campaign.time_zone).ok())
        .unwrap_or(TimeZone::UTC)
}

/// A page for whoever is signed in; others are sent to sign in. A language that the address names is kept.
macro_rules! signed_in {
    ($site:expr, $request:expr) => {
        match Visit::of($site.clone(), &$request) {
            Some(visit) => visit,
            None => return reply::see_other(SIGN_IN),
        }
    };
}

fn kept(request_language: Option<String>, mut answer: Response) -> Response {
    if let Some(cookie) = request_language {
        reply::give_cookie(&mut answer, &cookie);
    }
    answer
}

pub(super) async fn today(State(site): State<Site>, request: Request) -> Response {
    let visit = signed_in!(site, request);
    let (_, cookie) = reply::language(request.uri(), request.headers());
    kept(
        cookie,
        desk::page(&visit, None, desk::Desk::default()).await,
    )
}

pub(super) async fn inventory(State(site): State<Site>, request: Request) -> Response {
    let visit = signed_in!(site, request);
    let (_, cookie) = reply::language(request.uri(), request.headers());
    kept(cookie, offer::page(&visit).await)
}

pub(super) async fn stock(State(site): State<Site>, request: Request) -> Response {
    let visit = signed_in!(site, request);
    let (_, cookie) = reply::language(request.uri(), request.headers());
    kept(cookie, supplies::page(&visit, None, None).await)
}

/// What changes on a page, until the session ends.
pub(super) async fn live(
    State(site): State<Site>,
    Path(page): Path<String>,
    request: Request,
) -> Response {
    let Some(visit) = Visit::of(site.clone(), &request) else {
        return reply::page(StatusCode::UNAUTHORIZED, html! {});
    };
    let left = visit.session.until.since(site.now());
    let language = visit.language;
    let started: Result<BoxStream<'static, Bytes>, Refused> = match page.as_str() {
        "today" => desk::follow(visit).await,
        "inventory" => offer::follow(visit).await,
        _ => return site.missing(&request),
    };
    let Ok(started) = started else {
        return site.busy(language);
    };
    let until = futures::StreamExt::take_until(started, tokio::time::sleep(left));
    let stream = site.seats.stream(until);
    stream.unwrap_or_else(|_| site.busy(language))
}

/// One part of a page as an event, with the time.
fn tell(site: &Site, id: &'static str, markup: Markup, first: &mut bool) -> Bytes {
    let html = markup.into_string();
    let part = [events::Part::new(id, html.clone(), html)];
    let mut seen = if std::mem::take(first) {
        Vec::new()
    } else {
        vec![(id, 0)]
    };
    events::news(site.now_ms(), &part, &mut seen)
}

/// The HTTP status of a refusal.
fn status(refused: &Refused) -> StatusCode {
    use domain::refusal::Class;
    match refused.refusal.class() {
        Class::Malformed => StatusCode::BAD_REQUEST,
        Class::Unauthenticated => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Precondition | Class::AlreadyExists => StatusCode::CONFLICT,
        Class::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Class::Unavailable | Class::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        Class::Unimplemented => StatusCode::NOT_IMPLEMENTED,
    }
}

/// Whether the same form is to be sent again: it may have been done, or can be done in a moment.
fn again(refused: &Refused) -> bool {
    use domain::refusal::Class;
    matches!(
        refused.refusal.class(),
        Class::Unavailable | Class::Unknown | Class::Exhausted
    )
}
