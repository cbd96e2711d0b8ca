//! Who may read what.
//!
//! A web page of another site is refused in every case, also where no token is asked for: it could not read the answers,
//! but hold connections open, or read them under a name of its own that it makes mean this host (DNS rebinding).

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Version};

use super::token::Token;
use crate::tls::Acceptor;

/// What is asked for, by how it is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// The files of the page: nothing in them is secret, and a browser asks for them without the token.
    Public,
    /// What is measured.
    Read,
    /// The same, for as long as the connection stays.
    Stream,
    /// To change something.
    Change,
}

/// Why it is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token is missing or wrong.
    Token,
    /// A `Host` that is not the interface's own.
    Host,
    /// The request comes from a page of another origin.
    Origin,
    /// Changes over TCP require a token, and the interface has none.
    ReadOnly,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Holds what is asked of a request.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Rc<Token>>,
    /// Browsers do not get at unix sockets.
    for_browsers: bool,
    /// Names in its certificates are the interface's own.
    tls: Option<Arc<Acceptor>>,
}

impl Guard {
    /// Of a connection over TCP.
    pub(super) fn tcp(token: Option<Rc<Token>>, tls: Option<Arc<Acceptor>>) -> Guard {
        Guard { token, for_browsers: true, tls }
    }

    /// Of a connection over a unix socket: who may open it needs no token.
    pub(super) fn unix() -> Guard {
        Guard { token: None, for_browsers: false, tls: None }
    }

    /// Whether a request may have this.
    pub(super) fn admit<B>(&self, request: &Request<B>, access: Permission) -> Result<(), Denied> {
        let headers = request.headers();
        if self.for_browsers {
            // With a token, names are free for reading: a page that makes one mean this host does not know the token.
            let is_free = self.token.is_some() && access != Permission::Change;
            if !is_free && !self.is_own_host(headers, request.version()) {
                return Err(Denied::Host);
            }
            if !is_own_origin(headers, access) {
                return Err(Denied::Origin);
            }
            if self.token.is_none() && access == Permission::Change {
                return Err(Denied::ReadOnly);
            }
        }
        match &self.token {
            Some(token) if access != Permission::Public && !token.is_in(headers) => Err(Denied::Token),
            _ => Ok(()),
        }
    }

    /// Whether `Host` is an address, a name of this host, or one in a certificate. HTTP/1.0 may leave it out.
    fn is_own_host(&self, headers: &HeaderMap, version: Version) -> bool {
        let is_own = |host: &str| {
            let name = name_of(host);
            is_near(name) || self.tls.as_ref().is_some_and(|tls| tls.knows(Some(name)))
        };
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => version == Version::HTTP_10,
            (Some(host), None) => host.to_str().is_ok_and(is_own),
            (Some(_), Some(_)) => false,
        }
    }
}

/// The host in `Host` without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether it is an address, or a name that always means this host (RFC 6761, 6.3).
fn is_near(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether the request comes from the interface's own page, or from no page at all.
fn is_own_origin(headers: &HeaderMap, access: Permission) -> bool {
    let is = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|given| given == value);
    // A link of another site leads to a page as a whole: that site sees nothing of it. It cannot do so unseen, or often.
    let is_link = !matches!(access, Permission::Stream | Permission::Change)
        && is(&SEC_FETCH_MODE, "navigate")
        && is(&SEC_FETCH_DEST, "document");
    let is_own_site = match headers.get(&SEC_FETCH_SITE) {
        Some(site) => site == "same-origin" || site == "none" || is_link,
        None => true,
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_host = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    is_own_site && headers.get_all(header::ORIGIN).iter().all(is_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let builder = headers.iter().fold(Request::get("/"), |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    fn tcp(token: Option<&str>) -> Guard {
        Guard::tcp(token.map(|token| Rc::new(Token::fixed(token))), None)
    }

    #[test]
    fn pages_of_other_origins_are_denied() {
        let own = ("host", "127.0.0.1:9900");
        let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        type Headers<'h> = &'h [(&'h str, &'h str)];
        let cases: [(Headers<'_>, bool, bool); 13] = [
            (&[], true, true),
            (&[("sec-fetch-site", "none")], true, true),
            (&[("sec-fetch-site", "same-origin")], true, true),
            (&[("sec-fetch-site", "cross-site")], false, false),
            // Another port of this host.
            (&[("sec-fetch-site", "same-site")], false, false),
            (&[("sec-fetch-site", "cross-site"), link[0], link[1]], true, false),
            (&[("sec-fetch-site", "cross-site"), link[0], ("sec-fetch-dest", "iframe")], false, false),
            (
                &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
                false,
                false,
            ),
            (&[("origin", "http://127.0.0.1:9900")], true, true),
            (&[("origin", "http://127.0.0.1:3000")], false, false),
            (&[("origin", "http://evil.example")], false, false),
            (&[("origin", "null")], false, false),
            (&[("origin", "http://127.0.0.1:9900"), ("origin", "http://evil.example")], false, false),
        ];
        for (headers, page, stream) in cases {
            let request = request(&[&[own], headers].concat());
            let admitted = |access| match tcp(None).admit(&request, access) {
                Ok(()) => true,
                Err(denied) => {
                    assert_eq!(denied, Denied::Origin, "{headers:?}");
                    false
                }
            };
            assert_eq!(admitted(Permission::Public), page, "{headers:?}");
            assert_eq!(admitted(Permission::Read), page, "{headers:?}");
            assert_eq!(admitted(Permission::Stream), stream, "{headers:?}");
        }
    }

    #[test]
    fn changes_over_tcp_require_a_token_and_the_own_host() {
        let token = ("authorization", "Bearer s3cret");
        let change = |guard: &Guard, headers: &[(&str, &str)]| guard.admit(&request(headers), Permission::Change);
        assert_eq!(change(&tcp(None), &[("host", "127.0.0.1:9900")]), Err(Denied::ReadOnly));
        let guard = tcp(Some("s3cret"));
        assert_eq!(change(&guard, &[("host", "127.0.0.1:9900")]), Err(Denied::Token));
        assert_eq!(change(&guard, &[("host", "127.0.0.1:9900"), token]), Ok(()));
        assert_eq!(change(&guard, &[("host", "evil.example"), token]), Err(Denied::Host));
        let from_page = [("host", "127.0.0.1:9900"), token, ("origin", "http://evil.example")];
        assert_eq!(change(&guard, &from_page), Err(Denied::Origin));
        let from_own_page = [("host", "127.0.0.1:9900"), token, ("origin", "http://127.0.0.1:9900")];
        assert_eq!(change(&guard, &from_own_page), Ok(()));
        let cross_site = [("host", "127.0.0.1:9900"), token, ("sec-fetch-site", "cross-site")];
        assert_eq!(change(&guard, &cross_site), Err(Denied::Origin));
        let unix = Guard::unix();
        assert_eq!(change(&unix, &[("host", "whatever")]), Ok(()));
    }

    #[test]
    fn names_are_free_only_with_a_token() {
        let named = request(&[("host", "lb.example"), ("authorization", "Bearer s3cret")]);
        assert_eq!(tcp(None).admit(&named, Permission::Read), Err(Denied::Host));
        assert_eq!(tcp(Some("s3cret")).admit(&named, Permission::Read), Ok(()));
        assert_eq!(tcp(Some("other")).admit(&named, Permission::Read), Err(Denied::Token));
        assert_eq!(tcp(Some("other")).admit(&named, Permission::Public), Ok(()));
        let unix = Guard::unix();
        assert_eq!(unix.admit(&request(&[("host", "whatever"), ("origin", "null")]), Permission::Stream), Ok(()));
    }
}
