//! Session persistence by a cookie.

use std::hash::Hasher;
use std::time::Duration;

use hyper::header::{COOKIE, HeaderMap, HeaderValue};
use siphasher::sip::SipHasher13;

use crate::config::model::{PersistCookie, SameSite};
use crate::pool::{Backend, Lease, Pool};

/// The cookie of one request.
pub(super) struct Sticky {
    rules: PersistCookie,
    /// What the client sent.
    sent: Option<String>,
}

impl Sticky {
    pub(super) fn new(rules: &PersistCookie, headers: &HeaderMap) -> Sticky {
        Sticky { rules: rules.clone(), sent: cookie(headers, &rules.name).map(str::to_owned) }
    }

    /// The backend that the client was with, if it may still have it.
    pub(super) fn lease(&self, pool: &Pool) -> Option<Lease> {
        let sent = self.sent.as_deref()?;
        let backends = pool.backends();
        let backend = backends.iter().find(|backend| value(pool.name(), backend.name()) == sent)?;
        pool.lease_kept(backend.id())
    }

    /// The field that tells the client its backend, if it does not know that.
    pub(super) fn set_cookie(&self, pool: &Pool, backend: &Backend, is_tls: bool) -> Option<HeaderValue> {
        let PersistCookie { name, ttl, same_site } = &self.rules;
        let value = value(pool.name(), backend.name());
        // With a lifetime, it is renewed by each response.
        if self.sent.as_deref() == Some(&value) && ttl.is_none() {
            return None;
        }
        let same_site = match same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let secure = if is_tls { "; Secure" } else { "" };
        let age = ttl.as_ref().map(Duration::as_secs).map_or_else(String::new, |age| format!("; Max-Age={age}"));
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite={same_site}{secure}{age}");
        HeaderValue::try_from(text).ok()
    }
}

/// The first cookie of this name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A backend's name as clients see it: a hash, keyed by the pool's name, so that instances agree and addresses do not show.
fn value(pool: &str, backend: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(pool.as_bytes());
    hasher.write_u8(0);
    hasher.write(backend.as_bytes());
    format!("{:016x}", hasher.finish())
}
