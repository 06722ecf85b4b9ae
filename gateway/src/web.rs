//! Pages for people: a public board, and a clinic's own pages. Rendered here, alive with a small script, whole without.
//!
//! Invariant: nothing is known here that the public API does not know, and nothing is changed but through its services:
//! the same roles, the same limits, the same `request_id`.

mod assets;
mod attempts;
mod board;
mod clinic;
mod config;
mod events;
mod inside;
mod layout;
mod metrics;
mod reply;
mod session;
mod text;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use domain::{RegionId, Timestamp};
use http::StatusCode;
use runtime::metrics::Registry;
use runtime::transport::{Drained, Listener, Server, ServerTls};
use runtime::{Clock, Drain};
use tower::ServiceExt;

use crate::callers::Callers;
use crate::room::Rooms;
use crate::rpc::Services;
use crate::shedding::Gates;
use attempts::Attempts;
use board::Board;
use events::Seats;
use inside::Inside;
use metrics::WebMetrics;
use session::Sessions;
use text::Language;

pub use config::{RawWeb, WebSettings};

/// What the pages are made of.
pub(crate) struct Parts {
    pub(crate) services: Services,
    pub(crate) callers: Callers,
    pub(crate) gates: Gates,
    pub(crate) regions: Vec<RegionId>,
    pub(crate) clock: Clock,
    pub(crate) drain: Drain,
    /// Shared by all gateways; sessions have a key made from it.
    pub(crate) shared_key: Vec<u8>,
    pub(crate) streams_max: usize,
    pub(crate) tls: bool,
}

/// The pages. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Site {
    board: Board,
    inside: Inside,
    rooms: Rooms,
    services: Services,
    callers: Callers,
    sessions: Sessions,
    attempts: Attempts,
    seats: Seats,
    metrics: WebMetrics,
    clock: Clock,
    tls: bool,
}

impl Site {
    pub(crate) fn new(parts: Parts, registry: &Registry) -> Self {
        let Parts {
            services,
            callers,
            gates,
            regions,
            clock,
            drain,
            shared_key,
            streams_max,
            tls,
        } = parts;
        let metrics = WebMetrics::register(registry);
        let rooms = services.rooms.clone();
        Self {
            board: Board::new(
                rooms.clone(),
                services.supply.clone(),
                regions,
                clock.clone(),
            ),
            inside: Inside::new(&services, callers.clone(), gates),
            rooms,
            services,
            callers,
            sessions: Sessions::new(&shared_key, tls),
            attempts: Attempts::default(),
            seats: Seats::new(streams_max, metrics.clone(), drain),
            metrics,
            clock,
            tls,
        }
    }

    /// Renders the board while somebody looks, until it is dropped.
    pub(crate) fn render(&self) -> impl Future<Output = Infallible> + Send + use<> {
        board::render(self.board.clone())
    }

    /// Serves browsers until the drain has ended.
    pub(crate) async fn serve(
        self,
        listener: Listener,
        (server, tls): (Server, Option<ServerTls>),
        drain: &Drain,
    ) -> Drained {
        let router = ServiceExt::<http::Request<tonic::body::Body>>::map_response(
            self.router(),
            |answer: Response| answer.map(tonic::body::Body::new),
        );
        server
            .tls(tls)
            .serve_browsers(listener, router, drain)
            .await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(board_page))
            .route("/board/live", get(board_live))
            .route("/assets/{name}", get(asset))
            .route("/clinic", get(clinic::today))
            .route("/clinic/inventory", get(clinic::inventory))
            .route("/clinic/stock", get(clinic::stock))
            .route("/clinic/live/{page}", get(clinic::live))
            .route("/clinic/act", post(clinic::act))
            .route(
                "/clinic/sign-in",
                get(clinic::sign_in_page).post(clinic::sign_in),
            )
            .route("/clinic/sign-out", post(clinic::sign_out))
            .fallback(nothing)
            .layer(middleware::from_fn_with_state(self.clone(), observe))
            .with_state(self)
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    fn now_ms(&self) -> i64 {
        self.now().as_micros() / 1_000
    }

    /// Too many are here: says when to come back, and a browser does so by itself.
    fn busy(&self, language: Language) -> Response {
        let texts = language.texts();
        let notice = layout::notice(language, texts.busy, texts.busy_help, self.now_ms());
        let mut answer = reply::page(StatusCode::SERVICE_UNAVAILABLE, notice);
        reply::retry_later(&mut answer, reply::RETURN_AFTER_SECS);
        let again = http::HeaderValue::from(reply::RETURN_AFTER_SECS);
        answer.headers_mut().insert("refresh", again);
        answer
    }
}

async fn board_page(State(site): State<Site>, request: Request) -> Response {
    let (language, cookie) = reply::language(request.uri(), request.headers());
    let page = site.board.page(language, request.headers()).await;
    let mut answer = page.unwrap_or_else(|| site.busy(language));
    if let Some(cookie) = cookie {
        reply::give_cookie(&mut answer, &cookie);
        // Whose language was chosen is nothing for a cache between.
        reply::set(
            answer.headers_mut(),
            http::header::CACHE_CONTROL,
            "private, max-age=1",
        );
    }
    answer
}

async fn board_live(State(site): State<Site>, request: Request) -> Response {
    let (language, _) = reply::language(request.uri(), request.headers());
    let stream = site.seats.stream(site.board.follow(language));
    stream.unwrap_or_else(|_| site.busy(language))
}

async fn asset(State(site): State<Site>, Path(name): Path<String>, request: Request) -> Response {
    let found = assets::serve(request.uri(), &name, request.headers());
    found.unwrap_or_else(|| site.missing(&request))
}

async fn nothing(State(site): State<Site>, request: Request) -> Response {
    site.missing(&request)
}

impl Site {
    fn missing(&self, request: &Request) -> Response {
        let (language, _) = reply::language(request.uri(), request.headers());
        let texts = language.texts();
        let (title, help) = (texts.not_found, texts.not_found_help);
        let notice = layout::notice(language, title, help, self.now_ms());
        reply::page(StatusCode::NOT_FOUND, notice)
    }
}

/// Counts every answer and protects it.
async fn observe(State(site): State<Site>, request: Request, next: middleware::Next) -> Response {
    let page = kind(request.uri().path());
    let answer: http::Response<Body> = next.run(request).await;
    site.metrics.answered(page, answer.status());
    reply::protect(answer, site.tls)
}

/// A page's name for counting: of a closed set.
fn kind(path: &str) -> &'static str {
    match path {
        "/" => "board",
        "/board/live" => "board_live",
        "/clinic" => "clinic_today",
        "/clinic/inventory" => "clinic_inventory",
        "/clinic/stock" => "clinic_stock",
        "/clinic/act" => "clinic_act",
        "/clinic/sign-in" => "clinic_sign_in",
        "/clinic/sign-out" => "clinic_sign_out",
        path if path.starts_with("/clinic/live/") => "clinic_live",
        path if path.starts_with("/assets/") => "asset",
        _ => "other",
    }
}
