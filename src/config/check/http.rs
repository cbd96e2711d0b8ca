//! `protocol: http`: its keys, what it excludes, and the pools behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Checker, copied, in_front, optional_period, value};
use crate::config::located::Located;
use crate::config::model::{
    Forwarded, HeaderMatch, HttpListener, HttpPool, HttpVersion, ListenerConfig, ListenerTls, PersistCookie,
    PoolConfig, PoolIndex, SameSite, Sniff,
};
use crate::config::raw::{RawHeaders, RawHttpListener, RawHttpPool, RawListener, RawPool, RawProtocol, RawStartTls};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{BackendHttp, ByteRate, Frequency, Period, RetryReason, Size, is_token};
use crate::config::tree::NodeId;

/// Bytes of a request's head that `max_head` may allow. Less than 1 KiB refuses what usual browsers send.
const HEAD_SIZES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;

/// ALPN protocols of HTTP that are spoken, in order of preference.
const HTTP_2: &str = "h2";
const HTTP_1: &str = "http/1.1";

impl Checker<'_> {
    /// Whether requests are balanced; `None` if `protocol` could not be read, which is reported.
    pub(super) fn balances_requests(&self, raw: &RawListener, owner: NodeId) -> Option<bool> {
        match &raw.protocol {
            Some(key) => key.value.map(|protocol| protocol == RawProtocol::Http),
            None => (!self.is_typo_of(owner, "protocol")).then_some(false),
        }
    }

    /// `listeners[].http`; `None` without `protocol: http`.
    pub(super) fn http_listener(&mut self, raw: &RawListener, requests: Option<bool>) -> Option<HttpListener> {
        if requests == Some(false) {
            self.only_with_requests(raw);
        }
        if requests != Some(true) {
            return None;
        }
        self.excluded_by_requests(raw);
        let absent = RawHttpListener::default();
        let raw = value(raw.http.as_ref()).map_or(&absent, |(http, _)| http);
        if let Some((Period(Duration::ZERO), at)) = value(raw.head_timeout.as_ref()) {
            let diagnostic = Diagnostic::new("no limit: clients that send nothing keep their connections open");
            self.warning(at, diagnostic.hint("the default is 10s"));
        }
        Some(HttpListener {
            forwarded: copied(raw.forwarded.as_ref()).unwrap_or(Forwarded::Append),
            max_head: self.max_head(raw.max_head.as_ref()),
            head_timeout: optional_period(raw.head_timeout.as_ref(), Duration::from_secs(10)),
            keep_alive: optional_period(raw.keep_alive.as_ref(), Duration::from_secs(75)),
            request_timeout: optional_period(raw.request_timeout.as_ref(), Duration::from_secs(60)),
        })
    }

    fn max_head(&mut self, key: Option<&Located<Size>>) -> u32 {
        let default = 64 << 10;
        let Some((Size(bytes), at)) = value(key) else { return default };
        let valid = u32::try_from(*bytes).ok().filter(|_| HEAD_SIZES.contains(bytes));
        valid.unwrap_or_else(|| {
            let diagnostic = Diagnostic::new(format!("{} is out of range", Size(*bytes)));
            let (least, most) = (Size(*HEAD_SIZES.start()), Size(*HEAD_SIZES.end()));
            self.error(at, diagnostic.hint(format!("valid range: {least} to {most}")));
            default
        })
    }

    /// Refuses keys that need each request.
    fn only_with_requests(&mut self, raw: &RawListener) {
        if let Some(key) = &raw.http {
            let diagnostic = Diagnostic::new("requires `protocol: http`");
            self.error(key.at, diagnostic.hint("set `protocol: http` at the listener, or remove the section"));
        }
        let rate = value(raw.limits.as_ref()).and_then(|(limits, _)| value(limits.request_rate_per_ip.as_ref()));
        if let Some((Frequency(Some(_)), at)) = rate {
            let diagnostic = Diagnostic::new("requires `protocol: http`, which reads each request");
            self.error(at, diagnostic.hint("set it at the listener, or limit connections: `connection_rate_per_ip`"));
        }
    }

    /// Refuses keys that have no effect where each request is read.
    fn excluded_by_requests(&mut self, raw: &RawListener) {
        let sniff = value(raw.sniff.as_ref()).filter(|(sniff, _)| **sniff != Sniff::Off);
        let starttls = value(raw.tls.as_ref()).and_then(|(tls, _)| value(tls.starttls.as_ref()));
        let starttls = starttls.filter(|(starttls, _)| !matches!(starttls, RawStartTls::Off));
        let bandwidth = value(raw.limits.as_ref()).and_then(|(limits, _)| value(limits.bandwidth.as_ref()));
        let bandwidth = bandwidth.filter(|(ByteRate(rate), _)| rate.is_some());
        let excluded = [
            (sniff.map(|(_, at)| at), "sniff", "remove `sniff`: `protocol: http` reads and counts each request"),
            (raw.protocol_hint.as_ref().map(|key| key.at), "protocol_hint", "remove it: the clients speak HTTP"),
            (starttls.map(|(_, at)| at), "starttls", "remove it: HTTP has no request for TLS"),
            (
                bandwidth.map(|(_, at)| at),
                "bandwidth",
                "remove it: requests of several clients share the connections to a backend",
            ),
        ];
        for (at, key, hint) in excluded {
            let Some(at) = at else { continue };
            let diagnostic = Diagnostic::new(format!("`{key}` and `protocol: http` exclude each other"));
            self.error(at, diagnostic.hint(hint));
        }
    }

    /// Sets the protocols that are negotiated for requests, where none is written; refuses others.
    pub(super) fn alpn_of_requests(&mut self, raw: &RawListener, tls: &mut ListenerTls) {
        let key = value(raw.tls.as_ref()).and_then(|(tls, _)| tls.alpn.as_ref());
        let Some(key) = key else {
            tls.alpn = vec![HTTP_2.into(), HTTP_1.into()];
            return;
        };
        if let Some(other) = tls.alpn.iter().find(|protocol| ![HTTP_2, HTTP_1].contains(&&***protocol)) {
            let diagnostic = Diagnostic::new(format!("`{}` is not spoken with `protocol: http`", shown(other)));
            self.error(key.at, diagnostic.hint("write h2, http/1.1 or both, or remove the key: the default is both"));
        }
    }

    /// `routes[].match.header`, by name; `None` if one is invalid, which is reported.
    pub(super) fn header_matches(&mut self, key: Option<&Located<RawHeaders>>) -> Option<Vec<HeaderMatch>> {
        let Some(key) = key else { return Some(Vec::new()) };
        let (RawHeaders(fields), at) = value(Some(key))?;
        if fields.is_empty() {
            let diagnostic = Diagnostic::new("the mapping is empty: the route would match any request");
            self.error(at, diagnostic.hint("name a field, or remove the key"));
            return None;
        }
        let mut first: HashMap<Arc<str>, NodeId> = HashMap::new();
        let mut matches = Vec::with_capacity(fields.len());
        for field in fields {
            let written = self.tree.key(field.at).unwrap_or_default();
            let name: Arc<str> = written.to_ascii_lowercase().into();
            let fault = match &*name {
                "host" => Some(("is a condition of its own", "write `host: [www.example.com]` beside `header`")),
                name if !is_token(name) => {
                    Some(("is not the name of a field", "allowed are letters, digits and `-`, without the colon"))
                }
                _ => None,
            };
            if let Some((what, hint)) = fault {
                let diagnostic = Diagnostic::new(format!("`{}` {what}", shown(written))).hint(hint);
                let diagnostic = self.located(field.at, diagnostic);
                self.diagnostics.push(Diagnostic { span: Some(self.tree.key_span(field.at)), ..diagnostic });
                continue;
            }
            if let Some(first) = first.insert(Arc::clone(&name), field.at) {
                let what = format!("duplicate field `{}`", shown(written));
                self.duplicate(field.at, first, what, "names of fields are case-insensitive");
                continue;
            }
            let Some((value, at)) = value(Some(field)) else { continue };
            self.header_value(value.as_bytes(), at);
            matches.push(HeaderMatch { name, value: (value != "*").then(|| value.as_str().into()) });
        }
        matches.sort_by(|one, other| one.name.cmp(&other.name));
        (matches.len() == fields.len()).then_some(matches)
    }

    /// `pools[].http`.
    pub(super) fn http_pool(&mut self, pool: &RawPool) -> HttpPool {
        let absent = RawHttpPool::default();
        let raw = value(pool.http.as_ref()).map_or(&absent, |(http, _)| http);
        let default = HttpPool::default();
        let retry = value(raw.retry.as_ref()).and_then(|(reasons, _)| self.distinct(reasons));
        HttpPool {
            version: copied(raw.version.as_ref()).map_or(default.version, |BackendHttp(version)| version),
            idle_connections: self.number(raw.idle_connections.as_ref(), 0..=65_536, default.idle_connections.into())
                as u32,
            idle_timeout: optional_period(raw.idle_timeout.as_ref(), default.idle_timeout.unwrap_or_default()),
            retry: retry
                .map_or(default.retry, |reasons| reasons.into_iter().map(|(RetryReason(reason), _)| *reason).collect()),
        }
    }

    /// Checks each pool against the listeners in front of it, and sets the protocol that is offered to backends of HTTP/2.
    pub(super) fn pools_of_requests(
        &mut self,
        listeners: &[ListenerConfig],
        pools: &mut [PoolConfig],
        raw: Option<&Located<Vec<Located<RawPool>>>>,
    ) {
        let raw = value(raw).map_or(&[][..], |(pools, _)| pools);
        for (place, (pool, raw)) in pools.iter_mut().zip(raw).enumerate() {
            let Some((raw, _)) = value(Some(raw)) else { continue };
            let (of_requests, of_connections) =
                in_front(listeners, PoolIndex(place), |listener| listener.http.is_some());
            if let (Some(_), Some((persist, _)), [listener, ..]) =
                (pool.persistence_cookie(), value(raw.persist.as_ref()), of_connections.as_slice())
                && let Some(key) = &persist.by
            {
                let what = format!("listener `{}` balances connections, not requests", shown(&listener.name));
                let hint = "set `protocol: http` at the listener, use `by: client_ip`, or give it another pool";
                self.error(key.at, Diagnostic::new(what).hint(hint));
            }
            self.cookie_without_tls(pool, raw, &of_requests);
            if !of_requests.is_empty() {
                self.alpn_to_backends(pool, raw, &of_connections);
            } else if let (Some(key), false) = (&raw.http, of_connections.is_empty()) {
                let what = "has no effect: no listener in front of this pool has `protocol: http`";
                self.warning(key.at, Diagnostic::new(what).hint("set it at the listener, or remove the section"));
            }
        }
    }

    /// Warns of a cookie that browsers do not keep: it is not Secure where no TLS ends.
    fn cookie_without_tls(&mut self, pool: &PoolConfig, raw: &RawPool, of_requests: &[&ListenerConfig]) {
        let same_site = value(raw.persist.as_ref()).and_then(|(persist, _)| persist.same_site.as_ref());
        let plain = of_requests.iter().find(|listener| listener.tls.is_none());
        if let (Some(PersistCookie { same_site: SameSite::None, .. }), Some(key), Some(listener)) =
            (pool.persistence_cookie(), same_site, plain)
        {
            let what = format!("listener `{}` has no `tls`: browsers refuse its cookie", shown(&listener.name));
            self.warning(
                key.at,
                Diagnostic::new(what).hint("`same_site: none` needs TLS; use lax, or add `tls` to the listener"),
            );
        }
    }

    /// The protocols that TLS offers are those of `http.version`.
    fn alpn_to_backends(&mut self, pool: &mut PoolConfig, raw: &RawPool, of_connections: &[&ListenerConfig]) {
        let keys = value(raw.tls.as_ref()).map(|(tls, _)| tls);
        let (Some(tls), Some(keys)) = (&mut pool.tls, keys) else { return };
        let has_http_2 = tls.alpn.iter().any(|protocol| **protocol == *HTTP_2);
        match (pool.http.version, &keys.alpn) {
            (HttpVersion::Http2, None) => {
                tls.alpn = vec![HTTP_2.into()];
                let version = value(raw.http.as_ref()).and_then(|(http, _)| http.version.as_ref());
                if let (Some(version), [listener, ..]) = (version, of_connections) {
                    let what = format!("connections of listener `{}` offer h2 too", shown(&listener.name));
                    let hint = "its clients may speak something else: give it a pool of its own";
                    self.warning(version.at, Diagnostic::new(what).hint(hint));
                }
            }
            (HttpVersion::Http2, Some(key)) if !has_http_2 => {
                let diagnostic = Diagnostic::new("`h2` is missing, which `http.version: 2` speaks");
                self.error(key.at, diagnostic.hint("add h2, or remove the key: the default is [h2]"));
            }
            (HttpVersion::Http1, Some(key)) if has_http_2 && tls.alpn.len() == 1 => {
                let diagnostic = Diagnostic::new("`h2` alone is offered, but `http.version: 1.1` is spoken");
                self.error(key.at, diagnostic.hint("set `http: { version: 2 }` of the pool, or offer http/1.1"));
            }
            _ => {}
        }
    }
}
