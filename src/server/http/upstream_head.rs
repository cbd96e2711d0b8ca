//! The head of a request as its backend gets it.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Uri, Version};

use super::client::HttpClient;
use super::interim::Interim;
use crate::config::model::{HttpListener, HttpVersion};
use crate::http::forward::{ForwardedFacts, set_forwarded, strip_hop_by_hop};
use crate::http::request::requested_upgrade;

/// What is asked of the backend beyond the request itself.
pub(super) struct Wishes {
    /// A switch of protocols.
    pub(super) switches: bool,
    pub(super) expects_continue: bool,
    /// Interim responses, where there may be any that matter.
    pub(super) interim: Option<Arc<Interim>>,
}

/// The request as the backend gets it.
pub(super) fn prepare(client: &HttpClient, rules: &HttpListener, version: HttpVersion, parts: &mut Parts) -> Wishes {
    // HTTP/1.0 knows none (RFC 9110, 15.2), and hyper sends none over HTTP/2.
    let takes_interim = !client.is_http2 && parts.version == Version::HTTP_11;
    // A clone of a value copies no bytes.
    let host = match parts.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    let upgrade = match version {
        HttpVersion::Http1 => requested_upgrade(parts).cloned(),
        HttpVersion::Http2 => None,
    };
    let headers = &mut parts.headers;
    let expects_continue = headers.contains_key(EXPECT);
    strip_hop_by_hop(headers);
    if version == HttpVersion::Http1 {
        // It would be an announcement that only a backend of HTTP/2 can rely on.
        headers.remove(hyper::header::TE);
        join_cookies(headers);
        if let Some(upgrade) = &upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        }
    }
    let scheme = if client.is_tls { "https" } else { "http" };
    let address = client.connection.client.get().ip();
    set_forwarded(
        headers,
        rules.forwarded,
        ForwardedFacts { client: address, is_tls: client.is_tls, host: host.as_ref() },
    );
    match version {
        HttpVersion::Http1 => {
            // A client of HTTP/1.0 need not name one (RFC 9112, 3.2).
            headers.insert(HOST, host.unwrap_or_else(|| HeaderValue::from_static("")));
            parts.uri = origin_form(&parts.uri).parse().unwrap_or_else(|_| Uri::from_static("/"));
            parts.version = Version::HTTP_11;
        }
        HttpVersion::Http2 => {
            headers.remove(HOST);
            let target = origin_form(&parts.uri);
            let uri = Uri::builder()
                .scheme(scheme)
                .authority(host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost"));
            parts.uri = uri.path_and_query(&*target).build().unwrap_or_else(|_| Uri::from_static("/"));
            parts.version = Version::HTTP_2;
        }
    }
    parts.extensions.clear();
    let notes = version == HttpVersion::Http1 && takes_interim || expects_continue;
    let interim = notes.then(|| Interim::of(&mut parts.extensions, takes_interim));
    Wishes { switches: upgrade.is_some(), expects_continue, interim }
}

/// The path and the query. An absolute form may have no path (RFC 9112, 3.2.1).
fn origin_form(uri: &Uri) -> Cow<'_, str> {
    match uri.path_and_query().map_or("/", |target| target.as_str()) {
        query if query.starts_with('?') => Cow::Owned(format!("/{query}")),
        target => Cow::Borrowed(target),
    }
}

/// One field of cookies, as HTTP/1 wants it (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let joined = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}
