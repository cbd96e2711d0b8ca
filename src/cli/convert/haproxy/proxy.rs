//! `frontend`, `backend` and `listen`.

use std::collections::HashSet;
use std::time::Duration;

use super::acl::{Acls, NEGATION};
use super::bind::{self, BindDefaults, based};
use super::check::{self, CheckLines};
use super::counters::Counters;
use super::log;
use super::reasons::{self, Reason};
use super::sections::{CfgLine, Section};
use super::server::{self, time};
use crate::cli::convert::draft::{
    DASHBOARD_PORT, Draft, DraftBackend, DraftListener, DraftPersist, DraftPool, DraftProbe, DraftRoute, MAX_RETRIES,
    add,
};
use crate::cli::convert::ledger::{Ledger, Said, StatementId, longest};
use crate::cli::convert::quantity::{haproxy_time, host_and_port};

/// Of `mode http`.
const REQUESTS: &str = "HAProxy balances each request, tidegate each connection";
/// Connections that wait for a backend: HAProxy's queue has no limit.
const QUEUE_SIZE: u32 = 10_000;

/// A section with what its lines say.
#[derive(Default)]
pub(super) struct Proxy {
    kind: String,
    pub(super) name: String,
    http: bool,
    /// The line that says so.
    of_http: Option<StatementId>,
    stats: Option<StatementId>,
    logs: Vec<CfgLine>,
    /// A backend without servers: its connections are closed.
    is_closed: bool,
    counters: Counters,
    ca_base: Said<String>,
    crt_base: Said<String>,
    binds: Vec<DraftListener>,
    servers: Vec<CfgLine>,
    /// `None` is round robin.
    balance: Said<Option<&'static str>>,
    sticky: Said<()>,
    table: Said<DraftPersist>,
    queue: Said<Duration>,
    retries: Said<u32>,
    source: Said<String>,
    check: CheckLines,
    connect: Said<Duration>,
    check_timeout: Said<Duration>,
    client: Said<Duration>,
    server: Said<Duration>,
    tunnel: Said<Duration>,
    client_fin: Said<Duration>,
    server_fin: Said<Duration>,
    request: Said<Duration>,
    max_connections: Said<u32>,
    rate: Said<u32>,
    backlog: Said<u32>,
    routes: Vec<(DraftRoute, StatementId)>,
    lost: Vec<LostRoute>,
    /// `use_backend` without a condition, which comes before `default_backend`.
    unconditional: Option<(String, StatementId)>,
    default: Option<(String, StatementId)>,
}

/// A `use_backend` that becomes no route.
struct LostRoute {
    target: String,
    id: StatementId,
    text: String,
    why: String,
}

impl Proxy {
    pub(super) fn read(
        section: &Section,
        lines: &[CfgLine],
        global: &BindDefaults,
        taken: &mut HashSet<String>,
        ledger: &mut Ledger,
    ) -> Proxy {
        ledger.translated(section.head.id);
        let mut proxy = Proxy { kind: section.kind().to_owned(), name: section.name().to_owned(), ..Proxy::default() };
        // The mode may stand below the binds that depend on it.
        for line in lines.iter().filter(|line| line.words[0] == "mode") {
            proxy.http = line.words.get(1).is_some_and(|mode| mode == "http");
        }
        let is_server = |line: &CfgLine| ["server", "server-template"].contains(&line.words[0].as_str());
        proxy.is_closed = proxy.kind == "backend" && !lines.iter().any(is_server);
        let mut acls = Acls::default();
        lines.iter().filter(|line| line.words[0] == "acl").for_each(|line| acls.read(line, ledger));
        // What a check exchanges may stand above the option that says its kind.
        let (options, others): (Vec<&CfgLine>, Vec<&CfgLine>) = lines.iter().partition(|line| check::is_kind(line));
        for line in options.into_iter().chain(others) {
            proxy.line(line, &acls, global, taken, ledger);
        }
        acls.close(ledger);
        proxy.ca_base = global.ca_base.clone();
        proxy.crt_base = global.crt_base.clone();
        proxy
    }

    fn line(
        &mut self,
        line: &CfgLine,
        acls: &Acls,
        global: &BindDefaults,
        taken: &mut HashSet<String>,
        ledger: &mut Ledger,
    ) {
        let word = |index: usize| line.words.get(index).map_or("", String::as_str);
        let id = line.id;
        match (word(0), word(1)) {
            ("acl", _) => {}
            // That of the listener counts.
            ("mode", "tcp" | "http") if self.kind == "backend" => ledger.heard(id),
            ("mode", "tcp") => ledger.translated(id),
            ("mode", "http") => {
                ledger.heard(id);
                self.of_http = Some(id);
            }
            ("bind", _) => bind::read(line, self.http, global, &mut self.binds, taken, ledger),
            ("server" | "default-server" | "server-template", _) => {
                ledger.heard(id);
                self.servers.push(line.clone());
            }
            ("balance", algorithm) => {
                let (balance, why) = match balance(algorithm, word(2)) {
                    Ok(balance) => (balance, None),
                    Err((balance, why)) => (balance, Some(why)),
                };
                self.balance.say(balance, id, ledger);
                if let Some(why) = why {
                    ledger.left(id, why);
                }
            }
            ("stick-table", _) => {
                let table = self.counters.table(line, ledger);
                self.table.say(table, id, ledger);
            }
            ("stick", "on") if word(2) == "src" => {
                self.sticky.say((), id, ledger);
                if line.words.len() > 3 {
                    ledger.left(id, "conditions and tables of other sections: each pool has a table of its own");
                }
            }
            ("stick", _) => ledger.left(id, "only the client's address makes a session sticky: `persist`"),
            ("log", "global") => ledger.not_needed(id, "the access log is one for all listeners: `log.access`"),
            ("log", _) => self.logs.push(line.clone()),
            ("tcp-request", _) if self.counters.read(line) => ledger.heard(id),
            ("option", "tcplog") => ledger.not_needed(id, "the access log has the fields of tcplog in their order"),
            ("option", "httplog") => ledger.left(id, "the access log has a line for each connection, not each request"),
            ("stats", "enable" | "uri") => {
                self.stats = Some(id);
                ledger.not_needed(id, "the dashboard has an address of its own: `admin.bind`");
            }
            ("maxconn", count) => {
                let count = server::number(count, "maxconn", line, ledger);
                say(&mut self.max_connections, count.filter(|count| *count != 0), id, ledger);
            }
            ("backlog", count) => {
                let count = server::number(count, "backlog", line, ledger);
                let usable = count.filter(|count| (1..=65_535).contains(count));
                if count.is_some() && usable.is_none() {
                    ledger.left(id, "backlog: 1 to 65535");
                }
                say(&mut self.backlog, usable, id, ledger);
            }
            ("rate-limit", "sessions") => {
                let rate = server::number(word(2), "rate-limit", line, ledger);
                say(&mut self.rate, rate.filter(|rate| *rate != 0), id, ledger);
            }
            ("retries", count) => {
                let count = server::number(count, "retries", line, ledger);
                if count.is_some_and(|count| count > MAX_RETRIES) {
                    ledger.left(id, format!("retries: {MAX_RETRIES} at most"));
                }
                say(&mut self.retries, count.map(|count| count.min(MAX_RETRIES)), id, ledger);
            }
            ("source", _) => {
                let source = server::source(&line.words[1..], line, ledger);
                say(&mut self.source, source, id, ledger);
            }
            ("timeout", which) => self.timeout(which, word(2), line, ledger),
            ("default_backend", name) => {
                ledger.heard(id);
                self.default = Some((name.to_owned(), id));
            }
            ("use_backend", name) => self.use_backend(name, line, acls, ledger),
            _ => {
                if self.is_closed && reasons::refuses(&line.words) {
                    ledger.not_needed(id, "a backend without servers: its connections are closed");
                } else if !self.check.read(line, ledger) {
                    account(line, ledger);
                }
            }
        }
    }

    fn use_backend(&mut self, name: &str, line: &CfgLine, acls: &Acls, ledger: &mut Ledger) {
        let condition = line.words.get(2).map_or("", String::as_str);
        let routes = match (name.starts_with("%["), condition) {
            (true, _) => Err("pools are not chosen by maps: write a route for each name".to_owned()),
            (_, "if") => acls.routes(&line.words[3..], ledger),
            (_, "") if self.unconditional.is_some() => return ledger.heard(line.id),
            (_, "") => {
                ledger.heard(line.id);
                self.unconditional = Some((name.to_owned(), line.id));
                return;
            }
            _ => Err(NEGATION.to_owned()),
        };
        match routes {
            // Nothing comes to it.
            _ if self.unconditional.is_some() => ledger.heard(line.id),
            Ok(routes) => {
                ledger.heard(line.id);
                let named = |route| (DraftRoute { pool: name.to_owned(), ..route }, line.id);
                self.routes.extend(routes.into_iter().map(named));
            }
            Err(why) => {
                ledger.heard(line.id);
                let text = line.words.join(" ");
                self.lost.push(LostRoute { target: name.to_owned(), id: line.id, text, why });
            }
        }
    }

    fn timeout(&mut self, which: &str, length: &str, line: &CfgLine, ledger: &mut Ledger) {
        let said = match which {
            "client" | "clitimeout" => &mut self.client,
            "server" => &mut self.server,
            "tunnel" => &mut self.tunnel,
            "connect" => &mut self.connect,
            "check" => &mut self.check_timeout,
            "client-fin" => &mut self.client_fin,
            "server-fin" => &mut self.server_fin,
            "http-request" => &mut self.request,
            "queue" => &mut self.queue,
            "http-keep-alive" | "tarpit" => {
                return ledger.not_needed(line.id, "`timeouts.idle` bounds the time between requests");
            }
            _ => return ledger.left(line.id, "tidegate has no such timeout"),
        };
        let length_said = time(length, which, line, ledger);
        if length_said.is_none() && haproxy_time(length).is_some() {
            ledger.left(line.id, "0 is no limit: tidegate has one, the default of its own timeout");
        }
        say(said, length_said, line.id, ledger);
    }

    pub(super) fn is_backend(&self) -> bool {
        self.kind != "frontend"
    }

    /// Where its connections go that no route matches.
    fn fallback(&self) -> Option<&(String, StatementId)> {
        self.unconditional.as_ref().or(self.default.as_ref())
    }

    /// Whether connections of this section go to another one, or to its own servers.
    pub(super) fn leads_to(&self, other: &Proxy) -> bool {
        let by_name =
            self.fallback().map(|(name, _)| name).into_iter().chain(self.routes.iter().map(|(route, _)| &route.pool));
        let is_own = std::ptr::eq(self, other) && !self.binds.is_empty();
        is_own || other.is_backend() && by_name.into_iter().any(|name| *name == other.name)
    }

    /// The only port of its binds.
    pub(super) fn port(&self) -> Option<u16> {
        let binds: Vec<&String> = self.binds.iter().flat_map(|listener| &listener.bind).collect();
        let mut ports = binds.iter().map(|bind| host_and_port(bind).1.and_then(|port| port.parse().ok()));
        let first = ports.next().flatten();
        first.filter(|_| ports.all(|port| port == first))
    }

    /// Its servers, if it has any.
    pub(super) fn pool(&self, port: Option<u16>, ledger: &mut Ledger) -> Option<DraftPool> {
        let (mut servers, health) = server::servers(&self.servers, port, ledger);
        if servers.backends.is_empty() {
            return None;
        }
        if let Some(tls) = &mut servers.tls {
            tls.ca = tls.ca.take().filter(|ca| ca != "@system-ca").map(|ca| based(&ca, &self.ca_base, ledger));
            let mut pair = |(file, _): (String, String)| based(&file, &self.crt_base, ledger);
            tls.client_certificate = tls.client_certificate.take().map(&mut pair).map(|file| (file.clone(), file));
        }
        let mut notes = Vec::new();
        let persist = self.sticky.used(ledger).map(|()| self.table.used(ledger).unwrap_or_default());
        let balance = self.balance.used(ledger).flatten();
        let is_bounded = |backend: &DraftBackend| backend.max_connections.is_some();
        let queue = servers.backends.iter().any(is_bounded).then(|| {
            notes.push("queue: HAProxy's has no limit. Connections also wait while all backends are down.".to_owned());
            // That of a connect, where none is given.
            (QUEUE_SIZE, self.queue.used(ledger).or_else(|| self.connect.get().copied()))
        });
        notes.extend(servers.notes.iter().cloned());
        let health = health.map(|mut health| {
            let is_plain = servers.tls.is_none() || health.port.is_some();
            notes.extend(self.check.notes.iter().cloned());
            health.probe = match self.check.used(ledger) {
                DraftProbe::Tcp if !is_plain => DraftProbe::Tls,
                probe => probe,
            };
            if let (Some(own), Some((port, id))) = (health.port, self.check.port) {
                ledger.not_needed(id, format!("port {port} takes the place of the servers' port {own}"));
            }
            health.port = self.check.port.map(|(port, _)| port).or(health.port);
            let timeout = self.check_timeout.used(ledger);
            health.timeout = timeout.filter(|length| *length != Duration::from_secs(1));
            health
        });
        if servers.source.is_empty() {
            servers.source.extend(self.source.used(ledger));
        }
        let connect = self.connect.used(ledger).filter(|length| *length != Duration::from_secs(5));
        let retries = self.retries.used(ledger).filter(|retries| *retries != 2);
        Some(DraftPool { balance, persist, queue, retries, connect, health, notes, ..servers })
    }

    /// Adds its listeners. `own` is the pool of its servers, `named` the pool of a section, `proxies` are all sections.
    pub(super) fn listeners(
        &self,
        own: Option<String>,
        named: impl Fn(&str) -> Option<String>,
        proxies: &[Proxy],
        draft: &mut Draft,
        ledger: &mut Ledger,
    ) {
        self.logs.iter().for_each(|line| log::read(line, draft, ledger));
        let per_client = self.counters.limits(&self.binds, ledger);
        let has_target = own.is_some() || self.fallback().is_some() || !self.routes.is_empty();
        if let Some(id) = self.stats {
            let port = if has_target { None } else { self.port() };
            let is_near = |bind: &String| ["127.", "[::1]:", "unix:"].iter().any(|near| bind.starts_with(near));
            let address = format!("127.0.0.1:{}", port.unwrap_or(DASHBOARD_PORT));
            if !self.binds.iter().flat_map(|listener| &listener.bind).all(is_near) {
                let why = "the dashboard listens on loopback only: other addresses need `admin.token_file`";
                ledger.left(id, format!("{why}; write `admin.bind`"));
            }
            add(&mut draft.admin, address);
        }
        if self.binds.is_empty() || self.stats.is_some() && !has_target {
            return;
        }
        // What is meant for servers that are not here must not reach others.
        let mut find = |name: &str, id: StatementId, ledger: &mut Ledger| {
            ledger.translated(id);
            named(name).unwrap_or_else(|| {
                ledger.left(id, format!("{name} has no servers: its connections are closed"));
                draft.reject()
            })
        };
        let mut notes = Vec::new();
        let routes: Vec<DraftRoute> = self
            .routes
            .iter()
            .map(|(route, id)| DraftRoute { pool: find(&route.pool, *id, ledger), ..route.clone() })
            .collect();
        let fallback = self.fallback().map(|(name, id)| find(name, *id, ledger)).or(own);
        let pool = fallback.unwrap_or_else(|| {
            notes.push("pool: there is no default; what no route matches is closed.".to_owned());
            draft.reject()
        });
        for LostRoute { target, id, text, why } in &self.lost {
            if named(target).as_ref() == Some(&pool) {
                ledger.not_needed(*id, format!("its connections go to {pool} in any case: {why}"));
                continue;
            }
            ledger.diverted(*id, format!("its connections go to {pool} instead of {target}: {why}"));
            notes.push(format!("WARNING: what `{text}` sent to {target} goes to {pool}."));
        }
        for (route, (_, id)) in routes.iter().zip(&self.routes).filter(|(route, _)| route.deep) {
            if route.pool != pool || routes.iter().any(|other| other.pool != route.pool) {
                let name = route.sni.iter().chain(&route.host).find(|name| name.starts_with('*'));
                let name = name.map_or("it", String::as_str);
                let why = "stands for one label: names with several labels there no longer go to";
                ledger.diverted(*id, format!("{name} {why} {}", route.pool));
            }
        }
        let by_request = routes.iter().any(|route| !route.host.is_empty() || !route.path_prefix.is_empty());
        if self.http {
            notes.push(format!("{REQUESTS}."));
            if let Some(id) = self.of_http {
                ledger.translated(id);
                ledger.left(id, REQUESTS);
            }
        }
        let targets: Vec<&Proxy> = proxies.iter().filter(|other| self.leads_to(other)).collect();
        let towards = |of: fn(&Proxy) -> &Said<Duration>| targets.iter().map(move |target| of(target));
        let tunnel =
            longest("timeouts.idle", [&self.tunnel].into_iter().chain(towards(|target| &target.tunnel)), ledger);
        let sides = || [&self.client].into_iter().chain(towards(|target| &target.server));
        if tunnel.is_some() {
            let ids = sides().filter_map(Said::id);
            ids.for_each(|id| ledger.not_needed(id, "`timeout tunnel` becomes `timeouts.idle` in its place"));
        }
        let idle = tunnel.or_else(|| longest("timeouts.idle", sides(), ledger));
        let fins = [&self.client_fin].into_iter().chain(towards(|target| &target.server_fin));
        let half_close = longest("timeouts.half_close", fins, ledger);
        let (max_connections, connection_rate) = (self.max_connections.used(ledger), self.rate.used(ledger));
        let of_listener = [("maxconn", self.max_connections.id()), ("rate-limit", self.rate.id())];
        for (word, id) in of_listener.into_iter().filter(|_| self.binds.len() > 1) {
            if let Some(id) = id {
                let why = "it holds for each of the section's listeners, of which there are";
                ledger.left(id, format!("{word}: {why} {}: divide it", self.binds.len()));
            }
        }
        let sniff = self.request.used(ledger);
        let has_own = |bind: &DraftListener| bind.socket.backlog.is_some();
        let backlog = if self.binds.iter().all(has_own) { None } else { self.backlog.used(ledger) };
        for (index, bind) in self.binds.iter().enumerate() {
            let suffix = match (index, &bind.tls) {
                (0, _) => "",
                (_, Some(_)) => "-tls",
                _ => "-more",
            };
            let mut listener = DraftListener {
                name: format!("{}{suffix}", self.name),
                pool: pool.clone(),
                routes: routes.clone(),
                sniff_http: self.http || by_request,
                max_connections,
                connections_per_ip: per_client.connections,
                connection_rate_per_ip: per_client.rate.clone(),
                connection_rate,
                sniff: sniff.filter(|length| *length != Duration::from_secs(5)),
                idle: idle.filter(|length| *length != Duration::from_secs(3600)),
                half_close: half_close.filter(|length| *length != Duration::from_secs(60)),
                ..bind.clone()
            };
            listener.socket.backlog = listener.socket.backlog.or(backlog);
            listener.notes.extend(notes.iter().cloned());
            draft.listeners.push(listener);
        }
    }
}

/// Says a value, or that what was said before does not hold any more.
fn say<T>(said: &mut Said<T>, value: Option<T>, id: StatementId, ledger: &mut Ledger) {
    match value {
        Some(value) => said.say(value, id, ledger),
        None => {
            ledger.heard(id);
            *said = Said::default();
        }
    }
}

/// The algorithm; an error has what comes nearest, and why.
fn balance(word: &str, more: &str) -> Result<Option<&'static str>, (Option<&'static str>, &'static str)> {
    Ok(match (word, more) {
        ("roundrobin" | "static-rr", _) => None,
        ("leastconn", _) => Some("least_connections"),
        ("source", _) => Some("ip_hash"),
        ("random(1)", _) => Some("random"),
        ("random", "1") => Some("random"),
        (word, _) if word.starts_with("random") => Some("power_of_two"),
        ("first", _) => return Err((None, "servers are not filled one after the other: round robin instead")),
        (word, _) if word.starts_with("rdp-cookie") => {
            return Err((Some("ip_hash"), "ip_hash instead: the client's address keeps a session with its server"));
        }
        _ => return Err((None, "nothing of a request is hashed: round robin instead")),
    })
}

/// Accounts for a line that becomes no key.
pub(super) fn account(line: &CfgLine, ledger: &mut Ledger) {
    match reasons::line(&line.words) {
        Some(Reason::NotNeeded(why)) => ledger.not_needed(line.id, why),
        Some(Reason::Left(why)) => ledger.left(line.id, why),
        Some(Reason::Diverted(why)) => ledger.diverted(line.id, why),
        None => ledger.left(line.id, "tidegate has nothing like it"),
    }
}
