//! Session persistence by a cookie.

use std::hash::Hasher;
use std::time::Duration;

use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use siphasher::sip::SipHasher13;

use crate::config::model::{PersistCookie, SameSite};
use crate::pool::{Backend, Lease, Pool};

/// Hexadecimal digits of a cookie's value.
const DIGITS: usize = 16;

/// The cookie of one request.
pub(super) struct Sticky<'r> {
    rules: &'r PersistCookie,
    pool: &'r Pool,
    /// What the client sent.
    sent: Option<u64>,
}

impl Sticky<'_> {
    pub(super) fn new<'r>(rules: &'r PersistCookie, pool: &'r Pool, headers: &HeaderMap) -> Sticky<'r> {
        let sent = cookie(headers, &rules.name).filter(|value| value.len() == DIGITS);
        Sticky { rules, pool, sent: sent.and_then(|value| u64::from_str_radix(value, 16).ok()) }
    }

    /// The backend that the client was with, if it may still have it.
    pub(super) fn lease(&self) -> Option<Lease> {
        let sent = self.sent?;
        let backends = self.pool.backends();
        let backend = backends.iter().find(|backend| self.token(backend) == sent)?;
        self.pool.lease_kept(backend.id())
    }

    /// A backend's name as clients see it: a hash, keyed by the pool's name, so that instances agree and addresses do not show.
    fn token(&self, backend: &Backend) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(self.pool.name().as_bytes());
        hasher.write_u8(0);
        hasher.write(backend.name().as_bytes());
        hasher.finish()
    }

    /// The field that tells the client its backend, if it does not know that.
    pub(super) fn set_cookie(&self, backend: &Backend, is_tls: bool) -> Option<HeaderValue> {
        let PersistCookie { name, ttl, same_site } = self.rules;
        let token = self.token(backend);
        // With a lifetime, it is renewed by each response.
        if self.sent == Some(token) && ttl.is_none() {
            return None;
        }
        let same_site = match same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let secure = if is_tls { "; Secure" } else { "" };
        let age = ttl.as_ref().map(Duration::as_secs).map_or_else(String::new, |age| format!("; Max-Age={age}"));
        let text = format!("{name}={token:0DIGITS$x}; Path=/; HttpOnly; SameSite={same_site}{secure}{age}");
        HeaderValue::try_from(text).ok()
    }
}

/// The first cookie of this name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
