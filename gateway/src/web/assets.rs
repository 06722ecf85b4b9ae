//! Style, script and icon: compiled in, named by their content, kept by browsers.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use sha2::{Digest as _, Sha256};

use super::reply::{query, set};

/// A file of the pages.
#[derive(Debug)]
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
    /// Of the content: another one has another address.
    version: String,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        (
            "style.css",
            "text/css; charset=utf-8",
            include_str!("assets/style.css"),
        ),
        (
            "live.js",
            "text/javascript; charset=utf-8",
            include_str!("assets/live.js"),
        ),
        ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ]
    .map(|(name, kind, content)| Asset {
        name,
        kind,
        content,
        version: hex(&Sha256::digest(content)[..8]),
    })
});

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a file is, by its name.
pub(super) fn path(name: &str) -> String {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let version = asset.map_or("", |asset| asset.version.as_str());
    format!("/assets/{name}?v={version}")
}

/// A tag of a content, for `ETag` and `If-None-Match`.
pub(super) fn tag(content: &[u8]) -> String {
    format!("\"{}\"", hex(&Sha256::digest(content)[..12]))
}

/// Whether a browser has what the tag is of.
pub(super) fn has(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// A file by its name; `None` where there is none.
pub(super) fn serve(uri: &Uri, name: &str, headers: &HeaderMap) -> Option<Response> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    let tag = format!("\"{}\"", asset.version);
    let known = has(headers, &tag);
    let body = if known { "" } else { asset.content };
    let mut answer = Response::new(Body::from(body));
    if known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    set(headers, header::CONTENT_TYPE, asset.kind);
    let kept = if query(uri, "v").as_deref() == Some(asset.version.as_str()) {
        "public, max-age=31536000, immutable"
    } else {
        "public, max-age=60"
    };
    set(headers, header::CACHE_CONTROL, kept);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Some(answer)
}
