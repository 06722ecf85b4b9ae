//! Pages over plain HTTP, without a browser: who comes in, what is believed, what is counted, and what it costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use domain::room::Phase;
use gateway::WebSettings;
use proto::inventory::{SupplyFigures, SupplyRow, answer, command};
use runtime::transport::{Limits, ServerSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake_inventory::{FakeInventory, Reaction, agreed};
use crate::setup::{Setup, await_until};

/// A booking's code with a good check digit.
const CODE: &str = "0000-0000-0000";
const TERMINAL: &str = "credential=seoul--c1";

fn figures() -> SupplyFigures {
    let row = SupplyRow {
        clinic: "c1".to_owned(),
        district: "jongno".to_owned(),
        vaccine: "mrna-1273".to_owned(),
        received: 1_234_567,
        opened: 10,
        left: 10,
        ..SupplyRow::default()
    };
    SupplyFigures {
        rows: vec![row],
        as_of: Some(prost_types::Timestamp {
            seconds: 1_900_000_000,
            nanos: 0,
        }),
    }
}

/// A gateway with pages, one inventory, an open room and a campaign.
struct Pages {
    it: Setup,
    owner: FakeInventory,
    addr: SocketAddr,
}

/// An answer: its head and its body.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).expect("a status line");
        status.parse().expect("a number")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The session's cookie.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").expect("a cookie");
        cookie.split(';').next().expect("name and value").to_owned()
    }

    /// The value of the first hidden field of this name after the text `after`.
    fn field(&self, after: &str, name: &str) -> String {
        let (_, rest) = self.body.split_once(after).expect(after);
        let (_, rest) = rest
            .split_once(&format!("name=\"{name}\" value=\""))
            .expect(name);
        rest.split('"').next().expect("a value").to_owned()
    }
}

impl Pages {
    async fn start(streams_max: usize) -> Self {
        let it = Setup::start_with_pages(WebSettings {
            server: ServerSettings {
                listen: (Ipv4Addr::LOCALHOST, 0).into(),
                tls: None,
                limits: Limits::default(),
            },
            streams_max,
        })
        .await;
        let owner = FakeInventory::start().await;
        owner.own(0, 1, "c1", 1);
        owner.on(|command| {
            Reaction::Answer(match &command.action {
                Some(command::Action::ReadSupply(_)) => answer::Outcome::ReadSupply(figures()),
                _ => agreed(command),
            })
        });
        it.member("i1", owner.addr, false).await;
        it.owner(0, 1, owner.addr).await;
        it.ready().await;
        let addr = it.pages.expect("served");
        Self { it, owner, addr }
    }

    async fn send(&self, request: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr)
            .await
            .expect("the port listens");
        let length = body.len();
        let request = format!(
            "{request}\r\nhost: pages\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("writable");
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await;
        read.expect("within twenty seconds").expect("an answer");
        let answer = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        Answer {
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\ncookie: {cookie}\r\naccept-language: en");
        self.send(&request, "").await
    }

    async fn post(&self, path: &str, cookie: &str, origin: &str, body: &str) -> Answer {
        let request = format!(
            "POST {path} HTTP/1.1\r\ncookie: {cookie}\r\norigin: {origin}\r\naccept-language: en\r\n\
             content-type: application/x-www-form-urlencoded"
        );
        self.send(&request, body).await
    }

    async fn signed_in(&self) -> String {
        let answer = self
            .post("/clinic/sign-in", "", "http://pages", TERMINAL)
            .await;
        assert_eq!(answer.status(), 303, "{}", answer.body);
        answer.cookie()
    }

    /// The check-in form of a page, filled in.
    async fn check_in(&self, cookie: &str) -> String {
        let page = self.get("/clinic", cookie).await;
        let (key, id) = (
            page.field("value=\"check_in\"", "request_id"),
            page.field("/clinic/sign-out", "key"),
        );
        format!("action=check_in&code={CODE}&request_id={key}&key={id}")
    }
}

#[tokio::test]
async fn everybody_sees_one_rendering_and_nobody_may_script_it() {
    let pages = Pages::start(10).await;
    pages.it.room(1, Phase::Open, 0).await;
    let first = pages.get("/", "").await;
    assert_eq!(first.status(), 200);
    assert!(first.body.contains("1,234,567"), "{}", first.body);
    let policy = first.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for name in [
        "x-content-type-options",
        "referrer-policy",
        "etag",
        "cache-control",
    ] {
        assert!(first.header(name).is_some(), "{name} in {}", first.head);
    }
    // Many ask; the ledger is asked at most once a second.
    let before = pages.owner.commands().len();
    for _ in 0..40 {
        assert_eq!(pages.get("/", "").await.status(), 200);
    }
    let asked = pages.owner.commands().len() - before;
    assert!(asked < 20, "{asked} reads of the ledger for forty viewers");
    let korean = pages.get("/?lang=ko", "").await;
    assert!(korean.body.contains("lang=\"ko\"") && korean.body.contains("예약 현황"));
    assert!(
        korean
            .header("set-cookie")
            .is_some_and(|set| set.starts_with("lang=ko;"))
    );
}

#[tokio::test]
async fn files_are_kept_by_browsers_until_they_are_others() {
    let pages = Pages::start(10).await;
    let page = pages.get("/", "").await;
    let (_, rest) = page
        .body
        .split_once("href=\"/assets/style.css")
        .expect("a style sheet");
    let path = format!(
        "/assets/style.css{}",
        rest.split('"').next().expect("an address")
    );
    let style = pages.get(&path, "").await;
    assert_eq!(style.status(), 200);
    assert!(
        style
            .header("cache-control")
            .is_some_and(|kept| kept.contains("immutable"))
    );
    let tag = style.header("etag").expect("a tag").to_owned();
    let known = format!("GET {path} HTTP/1.1\r\nif-none-match: {tag}");
    assert_eq!(pages.send(&known, "").await.status(), 304);
    assert_eq!(pages.get("/assets/../Cargo.toml", "").await.status(), 404);
    assert_eq!(pages.get("/assets/none.css", "").await.status(), 404);
}

#[tokio::test]
async fn only_clinics_come_in_and_only_from_our_own_page() {
    let pages = Pages::start(10).await;
    for path in ["/clinic", "/clinic/stock", "/clinic/inventory"] {
        let answer = pages.get(path, "").await;
        assert_eq!(
            (answer.status(), answer.header("location")),
            (303, Some("/clinic/sign-in"))
        );
    }
    assert_eq!(pages.get("/clinic/live/today", "").await.status(), 401);
    for foreign in ["https://evil.example", "null", "http://pages.evil.example"] {
        let answer = pages.post("/clinic/sign-in", "", foreign, TERMINAL).await;
        assert_eq!(answer.status(), 403, "{foreign}");
        assert!(answer.header("set-cookie").is_none());
    }
    for (typed, status) in [
        ("credential=app-1", 401),
        ("credential=", 401),
        ("credential=seoul--c2", 404),
    ] {
        let answer = pages
            .post("/clinic/sign-in", "", "http://pages", typed)
            .await;
        assert_eq!(answer.status(), status, "{typed}: {}", answer.body);
        assert!(answer.header("set-cookie").is_none());
    }
    let cookie = pages.signed_in().await;
    assert_eq!(pages.get("/clinic", &cookie).await.status(), 200);
    let mut forged = cookie.clone();
    forged.replace_range(cookie.len() - 4.., "AAAA");
    assert_eq!(pages.get("/clinic", &forged).await.status(), 303);
}

#[tokio::test]
async fn a_clinic_does_by_form_what_its_terminal_does_by_call() {
    let pages = Pages::start(10).await;
    let cookie = pages.signed_in().await;
    let form = pages.check_in(&cookie).await;
    let answer = pages
        .post("/clinic/act", &cookie, "http://pages", &form)
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.body);
    assert!(
        answer.body.contains("Checked in") && answer.body.contains(CODE),
        "{}",
        answer.body
    );
    let id = form
        .split("request_id=")
        .nth(1)
        .and_then(|rest| rest.split('&').next());
    let asked = pages
        .owner
        .commands()
        .into_iter()
        .find_map(|command| match command.action {
            Some(command::Action::CheckIn(asked)) => Some((command.caller, asked)),
            _ => None,
        });
    let (caller, asked) = asked.expect("an inventory was asked");
    assert_eq!(caller, "seoul--c1", "as the clinic's own calling system");
    assert_eq!(asked.clinic, "regions/seoul/clinics/c1");
    assert_eq!(
        Some(asked.request_id.as_str()),
        id,
        "the form's own id: sent twice it is one request"
    );
}

#[tokio::test]
async fn a_form_of_another_session_or_site_changes_nothing() {
    let pages = Pages::start(10).await;
    let (mine, other) = (pages.signed_in().await, pages.signed_in().await);
    let form = pages.check_in(&mine).await;
    for (cookie, origin) in [
        (&other, "http://pages"),
        (&mine, "https://evil.example"),
        (&mine, "null"),
    ] {
        let answer = pages.post("/clinic/act", cookie, origin, &form).await;
        assert_eq!(answer.status(), 403, "{origin}: {}", answer.body);
    }
    let without = form.split("&key=").next().expect("a form");
    let answer = pages
        .post("/clinic/act", &mine, "http://pages", without)
        .await;
    assert_eq!(answer.status(), 403);
    let asked = |command: &proto::inventory::Command| {
        matches!(command.action, Some(command::Action::CheckIn(_)))
    };
    assert!(
        !pages.owner.commands().iter().any(asked),
        "nothing reached an inventory"
    );
}

#[tokio::test]
async fn who_tries_too_often_is_turned_away_for_a_while() {
    let pages = Pages::start(10).await;
    let mut statuses = Vec::new();
    for _ in 0..15 {
        let answer = pages
            .post("/clinic/sign-in", "", "http://pages", "credential=app-1")
            .await;
        statuses.push(answer.status());
        if answer.status() == 429 {
            assert!(answer.header("retry-after").is_some());
        }
    }
    assert!(
        statuses.contains(&401) && statuses.contains(&429),
        "{statuses:?}"
    );
    let metrics = pages.it.host.registry.encode();
    for line in [
        "doseline_gateway_web_sign_ins_total{outcome=\"turned_away\"}",
        "doseline_gateway_web_requests_total{page=\"clinic_sign_in\",outcome=\"refused\"} 15",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn beyond_the_seats_a_page_is_told_when_to_come_back() {
    let pages = Pages::start(1).await;
    let mut first = TcpStream::connect(pages.addr)
        .await
        .expect("the port listens");
    let request = b"GET /board/live?lang=en HTTP/1.1\r\nhost: pages\r\n\r\n";
    first.write_all(request).await.expect("writable");
    let mut seen = String::new();
    await_until("the board is streamed", async || {
        let mut bytes = [0; 4_096];
        let read = first.read(&mut bytes).await.expect("readable");
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        seen.contains("event: time") && seen.contains("data: campaigns")
    })
    .await;
    assert!(seen.contains("text/event-stream"), "{seen}");
    let second = pages.get("/board/live?lang=en", "").await;
    assert_eq!(second.status(), 503);
    assert_eq!(second.header("retry-after"), Some("5"));
    drop(first);
    await_until("the seat is free again", async || {
        let metrics = pages.it.host.registry.encode();
        metrics.contains("doseline_gateway_web_streams 0")
    })
    .await;
}
