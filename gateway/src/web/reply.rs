//! What every answer to a browser has in common, and what is read from every request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use maud::Markup;
use runtime::transport::PeerAddr;

use super::session::cookie;
use super::text::Language;

/// Our own pages from our own host, no scripts but our file, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Every browser that comes has these; those that only matter over TLS are ignored without it.
const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    // Other sites are told nothing; our own forms keep their origin, which is looked at.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    ("x-frame-options", "DENY"),
];
const TRANSPORT: &str = "max-age=31536000";
const LANGUAGE_COOKIE: &str = "lang";
/// No form of ours comes near.
const FORM_BYTES_MAX: usize = 16 * 1024;
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// When to come back where there are too many.
pub(super) const RETURN_AFTER_SECS: u64 = 5;

/// The fields of a form.
pub(super) type Form = HashMap<String, String>;

/// Adds what every answer has.
pub(super) fn protect<B>(mut answer: http::Response<B>, tls: bool) -> http::Response<B> {
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
    if tls {
        let value = HeaderValue::from_static(TRANSPORT);
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    answer
}

/// A page of its own for whoever asked.
pub(super) fn page(status: StatusCode, markup: Markup) -> Response {
    let mut answer = Response::new(Body::from(markup.into_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    set(headers, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(headers, header::CACHE_CONTROL, "no-store");
    answer
}

/// Somewhere else, by GET.
pub(super) fn see_other(to: &'static str) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    set(answer.headers_mut(), header::LOCATION, to);
    set(answer.headers_mut(), header::CACHE_CONTROL, "no-store");
    answer
}

/// Come back in a moment.
pub(super) fn retry_later(answer: &mut Response, after_secs: u64) {
    let value = HeaderValue::from(after_secs.max(1));
    answer.headers_mut().insert(header::RETRY_AFTER, value);
}

pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

/// Adds a cookie.
pub(super) fn give_cookie(answer: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The language of a request: what its address says, else its cookie, else its browser, else Korean. The cookie to set
/// where the address said it.
pub(super) fn language(uri: &Uri, headers: &HeaderMap) -> (Language, Option<String>) {
    let asked = query(uri, "lang").and_then(|tag| Language::from_tag(&tag));
    if let Some(language) = asked {
        let tag = language.tag();
        let cookie = format!("{LANGUAGE_COOKIE}={tag}; Path=/; Max-Age=31536000; SameSite=Lax");
        return (language, Some(cookie));
    }
    let kept = cookie(&cookies(headers), LANGUAGE_COOKIE).and_then(Language::from_tag);
    let accepted = || {
        let header = headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?;
        Language::accepted(header)
    };
    (kept.or_else(accepted).unwrap_or(Language::Korean), None)
}

/// All cookies of a request; browsers may send them in several headers over HTTP/2.
pub(super) fn cookies(headers: &HeaderMap) -> String {
    let all = headers.get_all(header::COOKIE).iter();
    let texts: Vec<_> = all.filter_map(|value| value.to_str().ok()).collect();
    texts.join("; ")
}

/// A value of the address's query.
pub(super) fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs
        .into_iter()
        .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

/// Where a request comes from. Never to be recorded.
pub(super) fn place<B>(request: &Request<B>) -> IpAddr {
    let peer = request.extensions().get::<PeerAddr>();
    peer.map_or(IpAddr::from([0; 4]), |peer| peer.0.ip())
}

/// Whether a request that changes something was sent by a page of ours: browsers say where it comes from.
pub(super) fn is_ours(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else {
        return false;
    };
    origin
        .split_once("://")
        .is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
}

/// A form's fields; `None` for what is none, or too large, or too slow.
pub(super) async fn form(request: Request<Body>) -> Option<Form> {
    let kind = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return None;
    }
    let body = axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX);
    let body = tokio::time::timeout(FORM_WITHIN, body).await.ok()?.ok()?;
    Some(form_urlencoded::parse(&body).into_owned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_language_is_chosen_by_address_then_cookie_then_browser() {
        let english = headers(&[("accept-language", "en")]);
        let kept = headers(&[("accept-language", "en"), ("cookie", "a=b; lang=ko")]);
        let plain = Uri::from_static("/");
        assert_eq!(
            language(&plain, &HeaderMap::new()),
            (Language::Korean, None)
        );
        assert_eq!(language(&plain, &english), (Language::English, None));
        assert_eq!(language(&plain, &kept), (Language::Korean, None));
        let (chosen, cookie) = language(&Uri::from_static("/?lang=en"), &kept);
        assert_eq!(chosen, Language::English);
        assert!(cookie.is_some_and(|cookie| cookie.starts_with("lang=en;")));
        let (chosen, cookie) = language(&Uri::from_static("/?lang=%0d%0ax"), &english);
        assert_eq!((chosen, cookie), (Language::English, None));
    }

    #[test]
    fn what_another_site_sends_is_not_ours() {
        assert!(is_ours(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(is_ours(&headers(&[
            ("origin", "https://a.example"),
            ("host", "a.example")
        ])));
        for foreign in [
            headers(&[]),
            headers(&[("host", "a.example")]),
            headers(&[("sec-fetch-site", "cross-site")]),
            headers(&[
                ("sec-fetch-site", "same-site"),
                ("origin", "https://a.example"),
                ("host", "a.example"),
            ]),
            headers(&[("origin", "https://b.example"), ("host", "a.example")]),
            headers(&[("origin", "null"), ("host", "a.example")]),
        ] {
            assert!(!is_ours(&foreign), "{foreign:?}");
        }
    }
}
