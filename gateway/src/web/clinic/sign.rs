//! Signing in and out, with what the gateway knows clinics by.

use axum::extract::{Request, State};
use axum::response::Response;
use domain::Refusal;
use http::StatusCode;
use maud::{Markup, html};
use proto::clinic::QueryInventoryRequest;
use proto::status::Refused;
use runtime::transport::PeerIdentity;

use super::{Message, SIGN_IN, Visit, status};
use crate::callers::{Role, Shows};
use crate::web::layout::Layout;
use crate::web::metrics::SignIn;
use crate::web::session::Session;
use crate::web::text::Language;
use crate::web::{Site, inside, reply};

/// More than any credential has.
const TYPED_LENGTH_MAX: usize = 4_096;
/// Until one from the same place may try again.
const RETURN_AFTER_SECS: u64 = 60;

pub(in crate::web) async fn sign_in_page(State(site): State<Site>, request: Request) -> Response {
    let (language, cookie) = reply::language(request.uri(), request.headers());
    let certificate = PeerIdentity::of(request.extensions()).is_some();
    let page = page(&site, language, certificate, None);
    let answer = reply::page(StatusCode::OK, page);
    super::kept(cookie, answer)
}

pub(in crate::web) async fn sign_in(State(site): State<Site>, request: Request) -> Response {
    let (language, _) = reply::language(request.uri(), request.headers());
    let certificate = PeerIdentity::of(request.extensions()).is_some();
    let refuse = |code: StatusCode, message: Message| {
        let page = page(&site, language, certificate, Some(&message));
        reply::page(code, page)
    };
    if !reply::is_ours(request.headers()) {
        return refuse(StatusCode::FORBIDDEN, Message::Expired);
    }
    let from = reply::place(&request);
    if !site.attempts.take(from, site.clock.monotonic()) {
        site.metrics.sign_in(SignIn::TurnedAway);
        let why = Message::refused(language, &Refusal::RateLimited.into());
        let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, why);
        reply::retry_later(&mut answer, RETURN_AFTER_SECS);
        return answer;
    }
    let (parts, body) = request.into_parts();
    let extensions = parts.extensions.clone();
    let form = reply::form(Request::from_parts(parts, body)).await;
    let Some(form) = form else {
        return refuse(StatusCode::BAD_REQUEST, Message::Expired);
    };
    let typed = form.get("credential").map_or("", |typed| typed.trim());
    let session = proven(&site, typed, &extensions);
    let session = match session {
        Ok(session) => known(&site, session).await,
        Err(why) => Err(why),
    };
    match session {
        Ok(session) => {
            site.attempts.forgive(from);
            site.metrics.sign_in(SignIn::Accepted);
            let now = site.now();
            let mut answer = reply::see_other("/clinic");
            reply::give_cookie(&mut answer, &site.sessions.set_cookie(&session, now));
            answer
        }
        Err(why) => {
            site.metrics.sign_in(SignIn::Refused);
            refuse(status(&why), Message::refused(language, &why))
        }
    }
}

/// Who it is, by certificate or by what was typed; only clinics have pages.
fn proven(site: &Site, typed: &str, extensions: &http::Extensions) -> Result<Session, Refused> {
    if typed.len() > TYPED_LENGTH_MAX {
        return Err(Refusal::CallerUnknown.into());
    }
    let (caller, until) = site.callers.sign_in(typed, extensions)?;
    if caller.role != Role::Clinic {
        return Err(Refusal::CallerForbidden.into());
    }
    let now = site.now();
    let session = site.sessions.open(caller.system, until, now);
    session.ok_or_else(|| Refusal::CallerUnknown.into())
}

/// A clinic that its region knows; one that cannot be asked now may come in.
async fn known(site: &Site, session: Session) -> Result<Session, Refused> {
    let name = &session.clinic;
    let asked = QueryInventoryRequest {
        clinic: format!("regions/{}/clinics/{}", name.region, name.clinic),
    };
    let answer = site
        .inside
        .clinics()
        .query_inventory(inside::of(&session, asked))
        .await;
    match answer.map_err(|status| inside::refused(&status)) {
        Err(why) if !super::again(&why) => Err(why),
        Ok(_) | Err(_) => Ok(session),
    }
}

pub(in crate::web) async fn sign_out(State(site): State<Site>, request: Request) -> Response {
    let ours = reply::is_ours(request.headers());
    let Some(visit) = Visit::of(site.clone(), &request) else {
        return reply::see_other(SIGN_IN);
    };
    let form = reply::form(request).await.unwrap_or_default();
    let key = form.get("key").map_or("", String::as_str);
    if !ours || !site.sessions.is_form_of(&visit.session, key) {
        return reply::see_other("/clinic");
    }
    let mut answer = reply::see_other(SIGN_IN);
    reply::give_cookie(&mut answer, &site.sessions.clear_cookie());
    answer
}

fn page(site: &Site, language: Language, certificate: bool, message: Option<&Message>) -> Markup {
    let texts = language.texts();
    let title = match message {
        Some(message) => format!("{} – {}", message.title(language), texts.sign_in),
        None => texts.sign_in.to_owned(),
    };
    let layout = Layout {
        language,
        title,
        path: SIGN_IN,
        live: None,
        now_ms: site.now_ms(),
        reload_secs: None,
    };
    let wrong = message.map(|_| "true");
    let described = if message.is_some() {
        "message hint"
    } else {
        "hint"
    };
    layout.around(&html! {
        h1 { (texts.sign_in) }
        p.lead { (texts.sign_in_lead) }
        @if let Some(message) = message { (message.markup(language)) }
        form.card method="post" action=(SIGN_IN) {
            @match (certificate, site.callers.shows()) {
                (true, _) => p { (texts.certificate_lead) },
                (false, Shows::Certificate) => p { (texts.certificate_missing) },
                (false, Shows::Name) => div.field {
                    label for="credential" { (texts.clinic_name) }
                    input #credential name="credential" required autofocus autocapitalize="none" spellcheck="false"
                        autocomplete="username" aria-describedby=(described) aria-invalid=[wrong];
                    p #hint .hint { (texts.clinic_name_help) }
                },
                (false, Shows::Credential) => div.field {
                    label for="credential" { (texts.credential) }
                    input #credential type="password" name="credential" required autofocus autocomplete="current-password"
                        aria-describedby=(described) aria-invalid=[wrong];
                    p #hint .hint { (texts.credential_help) }
                },
            }
            @if certificate || site.callers.shows() != Shows::Certificate {
                button { (texts.sign_in_button) }
            }
        }
    })
}
