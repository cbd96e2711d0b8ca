//! `pools[].health`.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{Checker, copied, value};
use crate::config::located::Located;
use crate::config::model::{BackendAddress, BackendConfig, Header, Health, HealthCheck, HttpCheck, Initial};
use crate::config::raw::{RawExchange, RawHeaders, RawHealth, RawHttp};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{Period, ServerName, StatusRange, is_token};
use crate::config::scalars_serde::Int;
use crate::config::tree::{NodeId, NodeValue};

/// The registered port of MySQL's protocol.
pub(super) const MYSQL_PORT: u16 = 3306;

/// Longest text that a check sends or looks for, in bytes.
const MAX_TEXT: usize = 16 * 1024;

impl Checker<'_> {
    /// A pool's health check; `None` if its kind is missing or invalid, which is reported.
    pub(super) fn health(&mut self, raw: &RawHealth, at: NodeId, backends: &[BackendConfig]) -> Option<Health> {
        let check = self.kind(raw, at);
        let interval = self.positive(raw.interval.as_ref(), Duration::from_secs(2));
        let timeout = self.positive(raw.timeout.as_ref(), Duration::from_secs(1));
        if timeout > interval {
            // One of the two may be the default: marks the one that is written.
            let place = raw.timeout.as_ref().map(|key| key.at);
            let place = place.or(raw.interval.as_ref().map(|key| key.at)).unwrap_or(at);
            let diagnostic =
                Diagnostic::new(format!("timeout {} is longer than interval {}", Period(timeout), Period(interval)));
            self.warning(place, diagnostic.hint("slow backends are then checked less often than every `interval`"));
        }
        let port = self.number(raw.port.as_ref(), 0..=65_535, 0) as u16;
        self.without_login(raw, port, backends);
        if let (Some(any_port), 0) = (backends.iter().find(|backend| backend.address.has_client_port()), port) {
            let name = shown(&any_port.name).to_string();
            let diagnostic = Diagnostic::new(format!("backend `{name}` has no port of its own to check"));
            self.error(at, diagnostic.hint("set `port` to the one that is to be checked"));
        }
        let unix = backends.iter().find(|backend| matches!(backend.address, BackendAddress::Unix(_)));
        if let (Some(key), Some(unix)) = (&raw.port, unix)
            && port != 0
        {
            let diagnostic =
                Diagnostic::new(format!("backend `{}` is a unix socket, which has no port", shown(&unix.name)));
            self.warning(key.at, diagnostic.hint("it is checked at its own path"));
        }
        Some(Health {
            interval,
            timeout,
            rise: self.in_a_row(raw.rise.as_ref(), 2),
            fall: self.in_a_row(raw.fall.as_ref(), 3),
            port: Some(port).filter(|port| *port != 0),
            by_datagrams: false,
            initial: copied(raw.initial.as_ref()).unwrap_or(Initial::Probe),
            check: check?,
        })
    }

    /// Warns of checks that make a MySQL server block this host: it counts them as failed logins.
    fn without_login(&mut self, raw: &RawHealth, port: u16, backends: &[BackendConfig]) {
        let probed = |backend: &BackendConfig| match backend.address {
            BackendAddress::Unix(_) => None,
            _ if port != 0 => Some(port),
            BackendAddress::Ip(address) => Some(address.port()),
            BackendAddress::Name { port, .. } => Some(port),
        };
        let without_login = raw.tcp.as_ref().map(|key| key.at).or(raw.exchange.as_ref().map(|key| key.at));
        if let Some(at) = without_login
            && backends.iter().any(|backend| probed(backend) == Some(MYSQL_PORT))
        {
            let diagnostic = Diagnostic::new(
                "MariaDB and MySQL count each check without a login as a connection error, and block this host after 100 in a \
                 row (error 1129)",
            );
            let hint = "log in instead: `mysql: { user: ... }`";
            self.warning(at, diagnostic.hint(hint));
        }
    }

    fn in_a_row(&mut self, key: Option<&Located<Int>>, default: u32) -> NonZeroU32 {
        let number = self.number(key, 1..=1000, i64::from(default));
        u32::try_from(number).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    fn kind(&mut self, raw: &RawHealth, at: NodeId) -> Option<HealthCheck> {
        let places = [
            raw.tcp.as_ref().map(|key| key.at),
            raw.http.as_ref().map(|key| key.at),
            raw.exchange.as_ref().map(|key| key.at),
            raw.tls.as_ref().map(|key| key.at),
            raw.postgres.as_ref().map(|key| key.at),
            raw.mysql.as_ref().map(|key| key.at),
            raw.redis.as_ref().map(|key| key.at),
        ];
        let given: Vec<NodeId> = places.into_iter().flatten().collect();
        if let [first, others @ ..] = given.as_slice() {
            for other in others {
                let hint = "keep one; to check the same servers in two ways, use two pools";
                self.duplicate(*other, *first, "more than one kind of health check", hint);
            }
        }
        if given.is_empty() {
            self.no_kind(at);
        }
        let tcp = value(raw.tcp.as_ref()).map(|_| HealthCheck::Tcp);
        let http = value(raw.http.as_ref()).map(|(http, _)| self.http(http));
        let exchange = value(raw.exchange.as_ref()).and_then(|(exchange, at)| self.exchange(exchange, at));
        let tls = value(raw.tls.as_ref()).map(|(tls, _)| {
            let server_name = value(tls.server_name.as_ref()).map(|(ServerName(name), _)| name.as_str().into());
            HealthCheck::Tls { server_name }
        });
        let postgres = value(raw.postgres.as_ref()).map(|(postgres, _)| self.postgres(postgres));
        let mysql = value(raw.mysql.as_ref()).map(|(mysql, _)| self.mysql(mysql));
        let redis = value(raw.redis.as_ref()).map(|(redis, at)| self.redis(redis, at));
        tcp.or(http).or(exchange).or(tls).or(postgres).or(mysql).or(redis)
    }

    fn no_kind(&mut self, at: NodeId) {
        if !matches!(self.tree.value(at), NodeValue::Map(_)) {
            return;
        }
        let diagnostic = Diagnostic::new("no kind of health check");
        match self.child(at, &["tcp", "http", "exchange", "tls", "postgres", "mysql", "redis"]) {
            Some(empty) => {
                let key = self.tree.key(empty).unwrap_or_default();
                let diagnostic =
                    diagnostic.hint(format!("a key without a value counts as absent: write `{key}: {{}}`"));
                self.error(empty, diagnostic);
            }
            None => self.error(
                at,
                diagnostic.hint("add one of `tcp: {}`, `http: { path: /health }`, `exchange: { expect: ... }`, `postgres: { user: ... }`, `mysql: { user: ... }`, `redis: {}`"),
            ),
        }
    }

    fn http(&mut self, raw: &RawHttp) -> HealthCheck {
        let path = value(raw.path.as_ref());
        if let Some((path, at)) = path {
            let hint = "write a space as %20";
            if self.printable(path, at, hint) && !path.starts_with('/') {
                let diagnostic = Diagnostic::new("must begin with `/`");
                self.error(at, diagnostic.hint(format!("write /{}", shown(path))));
            }
        }
        let method = value(raw.method.as_ref());
        if let Some((method, at)) = method {
            self.method(method, at);
        }
        let host = value(raw.host.as_ref());
        if let Some((host, at)) = host {
            self.printable(host, at, "write a name, and a port if it has one");
        }
        let headers = value(raw.headers.as_ref()).map_or_else(Vec::new, |(headers, _)| self.headers(headers));
        let body = value(raw.body.as_ref()).map(|(_, at)| (self.bytes(at), at));
        if let Some((body, at)) = &body {
            let at = *at;
            self.length(body, at);
            self.escapes(at, "looked for");
            if method.is_some_and(|(method, _)| method == "HEAD") {
                let diagnostic = Diagnostic::new("responses to HEAD have no body").hint("use `method: GET`");
                self.error(at, diagnostic);
            }
        }
        HealthCheck::Http(HttpCheck {
            path: path.map_or("/health", |(path, _)| path).to_owned().into(),
            method: method.map_or("GET", |(method, _)| method).to_owned(),
            host: host.map(|(host, _)| host.clone().into()),
            headers: headers.into(),
            status: value(raw.status.as_ref()).map_or(200..=399, |(StatusRange(range), _)| range.clone()),
            body: body.map(|(body, _)| body.into()),
            tls: copied(raw.tls.as_ref()),
        })
    }

    fn headers(&mut self, RawHeaders(values): &RawHeaders) -> Vec<Header> {
        let mut first: HashMap<String, NodeId> = HashMap::new();
        let mut headers = Vec::with_capacity(values.len());
        for located in values {
            let at = located.at;
            let name = self.tree.key(at).unwrap_or_default();
            if let Some(diagnostic) = header_name(name) {
                let diagnostic = self.located(at, diagnostic);
                self.diagnostics.push(Diagnostic { span: Some(self.tree.key_span(at)), ..diagnostic });
            }
            if let Some(first) = first.get(&name.to_ascii_lowercase()) {
                let what = format!("duplicate header `{}`", shown(name));
                self.duplicate(at, *first, what, "header names are case-insensitive");
            }
            first.entry(name.to_ascii_lowercase()).or_insert(at);
            if located.value.is_some() {
                let value = self.bytes(at);
                self.header_value(&value, at);
                headers.push(Header { name: name.to_owned(), value });
            }
        }
        headers
    }

    pub(super) fn header_value(&mut self, value: &[u8], at: NodeId) {
        if value.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            let diagnostic = Diagnostic::new("control characters are not allowed");
            self.error(at, diagnostic.hint("a header is one line"));
        } else if value.trim_ascii().len() != value.len() {
            let diagnostic = Diagnostic::new("leading or trailing white space, which HTTP strips");
            self.error(at, diagnostic.hint("remove it"));
        } else if value.len() > MAX_TEXT {
            self.length(value, at);
        }
    }

    /// Requires upper case, although RFC 9110 allows any token: methods are case-sensitive, and `get` is a typo.
    fn method(&mut self, method: &str, at: NodeId) {
        let upper = method.to_ascii_uppercase();
        if method.is_empty() || !upper.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_') {
            let diagnostic = Diagnostic::new(format!("`{}` is not an HTTP method", shown(method)));
            self.error(at, diagnostic.hint("for example GET, HEAD or OPTIONS"));
        } else if upper != method {
            let diagnostic = Diagnostic::new(format!("`{method}` is not upper case"));
            self.error(at, diagnostic.hint(format!("write {upper}")));
        }
    }

    /// Checks text that is copied into a request head, which white space and line ends would split.
    fn printable(&mut self, text: &str, at: NodeId, hint: &str) -> bool {
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            let diagnostic = Diagnostic::new("white space and control characters are not allowed");
            self.error(at, diagnostic.hint(hint));
            return false;
        }
        self.length(text.as_bytes(), at)
    }

    fn length(&mut self, bytes: &[u8], at: NodeId) -> bool {
        if bytes.is_empty() {
            self.error(at, Diagnostic::new("must not be empty").hint("remove the key instead"));
        } else if bytes.len() > MAX_TEXT {
            let diagnostic = Diagnostic::new(format!("{} bytes long", bytes.len()));
            self.error(at, diagnostic.hint(format!("at most {MAX_TEXT}")));
        }
        (1..=MAX_TEXT).contains(&bytes.len())
    }

    /// A scalar as bytes.
    fn bytes(&self, at: NodeId) -> Vec<u8> {
        self.tree.bytes(at).unwrap_or_default().to_vec()
    }

    fn exchange(&mut self, raw: &RawExchange, at: NodeId) -> Option<HealthCheck> {
        let send = value(raw.send.as_ref()).map(|(_, at)| (self.bytes(at), at));
        if let Some((send, at)) = &send {
            if !send.is_empty() {
                self.length(send, *at);
            }
            self.escapes(*at, "sent");
        }
        let hint = "expect: the prefix of the response, such as \"+PONG\"";
        let (_, at) = self.required(raw.expect.as_ref(), "expect", at, hint)?;
        let expect = self.bytes(at);
        if expect.is_empty() {
            let diagnostic = Diagnostic::new("must not be empty").hint("`tcp: {}` checks that a connect succeeds");
            self.error(at, diagnostic);
        } else {
            self.length(&expect, at);
        }
        self.escapes(at, "expected");
        let send = send.map_or(Vec::new(), |(send, _)| send);
        Some(HealthCheck::Exchange { send: send.into(), expect: expect.into() })
    }

    /// Warns of escapes outside double quotes: `'PING\r\n'` has two backslashes.
    fn escapes(&mut self, at: NodeId, done: &str) {
        let NodeValue::Scalar { text, escapes: false, .. } = self.tree.value(at) else {
            return;
        };
        if ["\\r", "\\n", "\\t", "\\0", "\\x"].iter().any(|escape| text.contains(escape)) {
            let diagnostic = Diagnostic::new(format!("a backslash is {done} literally"));
            self.warning(at, diagnostic.hint("escapes such as \\r\\n require double quotes"));
        }
    }
}

/// What is wrong with the name of a header; `None` if a check may send it.
fn header_name(name: &str) -> Option<Diagnostic> {
    if !is_token(name) {
        let diagnostic = Diagnostic::new(format!("`{}` is not the name of a header", shown(name)));
        return Some(diagnostic.hint("allowed are letters, digits and `-`, without the colon"));
    }
    let hint = match name.to_ascii_lowercase().as_str() {
        "host" => "use `host` beside `headers`",
        "content-length" | "transfer-encoding" | "trailer" | "expect" => "health checks send no body",
        "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" => {
            "health checks close the connection after one response"
        }
        _ => return None,
    };
    Some(Diagnostic::new(format!("health checks cannot send `{}`", shown(name))).hint(hint))
}
