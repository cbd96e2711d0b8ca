//! Who may read what.
//!
//! A web page of another site is refused in every case, also where no token is asked for: it could not read the answers,
//! but hold connections open, or read them under a name of its own that it makes mean this host (DNS rebinding).

use std::net::IpAddr;
use std::rc::Rc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Version};

use super::token::Token;
use crate::net::addr::Address;

/// What is asked for, by how it is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// The files of the page: nothing in them is secret, and a browser asks for them without the token.
    Public,
    /// What is measured.
    Read,
    /// The same, for as long as the connection stays.
    Stream,
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
}

impl Guard {
    pub(super) fn new(address: &Address, token: Option<Rc<Token>>) -> Guard {
        Guard { token, for_browsers: matches!(address, Address::Tcp(_)) }
    }

    /// Whether a request may have this.
    pub(super) fn admit<B>(&self, request: &Request<B>, access: Permission) -> Result<(), Denied> {
        let headers = request.headers();
        if self.for_browsers {
            // With a token, names are free: a page that makes one mean this host does not know the token.
            if self.token.is_none() && !is_own_host(headers, request.version()) {
                return Err(Denied::Host);
            }
            if !is_own_origin(headers, access) {
                return Err(Denied::Origin);
            }
        }
        match &self.token {
            Some(token) if access != Permission::Public && !token.is_in(headers) => Err(Denied::Token),
            _ => Ok(()),
        }
    }
}

/// Whether `Host` is an address, or a name that always means this host (RFC 6761, 6.3). HTTP/1.0 may leave it out.
fn is_own_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version == Version::HTTP_10,
        (Some(host), None) => host.to_str().is_ok_and(is_near),
        (Some(_), Some(_)) => false,
    }
}

fn is_near(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether the request comes from the interface's own page, or from no page at all.
fn is_own_origin(headers: &HeaderMap, access: Permission) -> bool {
    let is = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|given| given == value);
    // A link of another site leads to a page as a whole: that site sees nothing of it. It cannot do so unseen, or often.
    let is_link = access != Permission::Stream && is(&SEC_FETCH_MODE, "navigate") && is(&SEC_FETCH_DEST, "document");
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
        let address = Address::Tcp(([127, 0, 0, 1], 9900).into());
        Guard::new(&address, token.map(|token| Rc::new(Token::fixed(token))))
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
    fn names_are_free_only_with_a_token() {
        let named = request(&[("host", "lb.example"), ("authorization", "Bearer s3cret")]);
        assert_eq!(tcp(None).admit(&named, Permission::Read), Err(Denied::Host));
        assert_eq!(tcp(Some("s3cret")).admit(&named, Permission::Read), Ok(()));
        assert_eq!(tcp(Some("other")).admit(&named, Permission::Read), Err(Denied::Token));
        assert_eq!(tcp(Some("other")).admit(&named, Permission::Public), Ok(()));
        let unix = Guard::new(&Address::Unix(Default::default()), None);
        assert_eq!(unix.admit(&request(&[("host", "whatever"), ("origin", "null")]), Permission::Stream), Ok(()));
    }
}
