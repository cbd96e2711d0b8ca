//! `/explain`: which listener, route, pool and backend a client would get now, and why. It is asked of the same routes
//! and the same pools that a connection would be; nothing is taken, and round robin does not advance.
//!
//! The query: `client` (an IP address), and perhaps `sni`, `alpn` (one or several, the preferred one first), `host` and
//! `path` of its first request, `method` and `header` (several) of one where each is balanced, `protocol` of its first bytes, `listener`.

mod query;
mod route;

use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub(super) use self::query::ExplainQuery;
pub use self::route::SkippedRoute;
use self::route::{place, route_in_words, skipped};
use super::snapshot_model::{BackendStatus, Snapshot};
use super::unix_time::seconds;
use crate::config::model::{Balance, ListenerState, Plaintext, RouteConfig, StartTls, UnknownSni};
use crate::net::protocol::ClientProtocol;
use crate::pool::{Availability, Backend, BackendPreview, Choice, NoBackend, Pool, Preview};
use crate::server::{DataPlane, Listener, RequestView, RouteKey};

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client that was asked for.
    pub client: String,
    /// When this was true, in seconds since 1970.
    pub time: f64,
    /// At each listener, or at the one that was asked for.
    pub listeners: Vec<AtListener>,
}

/// What a client gets at a listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtListener {
    /// Its name.
    pub listener: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Its administrative state.
    #[serde(default)]
    pub state: ListenerState,
    /// Further notes.
    pub notes: Vec<String>,
    /// Why the client is rejected before it reaches a pool.
    pub rejected: Option<String>,
    /// Earlier routes, and which of their keys do not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedRoute>,
    /// Which route it matches, and why.
    pub route: String,
    /// The pool.
    pub pool: String,
    /// The pool's algorithm.
    pub balance: Balance,
    /// The backend that it gets; `None` when there is none, or when chance decides.
    pub backend: Option<String>,
    /// Why that one, or why none.
    pub why: String,
    /// All backends of the pool, in the order of the configuration.
    pub backends: Vec<AtBackend>,
}

/// How a backend stands in the choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtBackend {
    /// Its name.
    pub backend: String,
    /// As configured.
    pub address: String,
    /// Whether it is the one, or may be.
    pub chosen: bool,
    /// How likely it is to be chosen, where chance decides.
    pub chance: Option<f64>,
    /// Why, or why not.
    pub why: String,
}

/// Answers. The error says which listeners there are.
pub(super) fn explain(question: &ExplainQuery, plane: &DataPlane, snapshot: &Snapshot) -> Result<Explanation, String> {
    let wanted = |listener: &&std::sync::Arc<Listener>| {
        question.listener.as_ref().is_none_or(|name| **name == *listener.config().name)
    };
    let listeners: Vec<AtListener> = plane
        .listeners()
        .iter()
        .filter(wanted)
        .map(|listener| at_listener(question, listener, plane, snapshot))
        .collect();
    if listeners.is_empty() {
        let names: Vec<String> = plane.listeners().iter().map(|listener| listener.config().name.to_string()).collect();
        let asked = question.listener.as_deref().unwrap_or_default();
        return Err(format!("there is no listener `{asked}`: there are {}", names.join(", ")));
    }
    Ok(Explanation { client: question.client.to_string(), time: seconds(SystemTime::now()), listeners })
}

fn at_listener(question: &ExplainQuery, listener: &Listener, plane: &DataPlane, snapshot: &Snapshot) -> AtListener {
    let config = listener.config();
    let (rejected, alpn) = first_bytes(question, listener);
    // Without a PROXY header, a client that comes by a unix socket has no address.
    let has_address = config.proxy_protocol.is_some() || config.bind.iter().any(|bind| bind.ports().is_some());
    let client = has_address.then_some(question.client);
    let rejected = listener.would_refuse(client).or(rejected);
    let rejected = match (snapshot.draining, config.state) {
        (true, _) => Some("it drains: no new connection is accepted".to_owned()),
        (false, ListenerState::Drain) => Some("the listener is drained: its sockets are closed".to_owned()),
        (false, _) => rejected,
    };
    let alpn: Vec<&[u8]> = alpn.iter().map(String::as_bytes).collect();
    let (server_name, request) = (question.sni.as_deref(), question.request.as_ref());
    // The share of a client without an address is drawn for each connection.
    let key = listener.route_client(client, fastrand::u64(..));
    let (alpn, protocol) = (&*alpn, protocol(question, listener));
    let request = request.map(|head| RequestView {
        path: if config.http.is_some() { head.path.split('?').next().unwrap_or_default() } else { &head.path },
        headers: config.http.is_some().then_some(&question.headers),
        ..RequestView::from(head)
    });
    let key = RouteKey { client: key, server_name, alpn, protocol, request };
    let route = listener.route(&key);
    let refused = route
        .filter(|route| listener.refuses(*route))
        .map(|route| format!("{} refuses it", place(listener, route.route)));
    let rejected = rejected.or(refused);
    let pool = listener.pool(route);
    let preview = pool.preview(client);
    AtListener {
        listener: config.name.to_string(),
        addresses: snapshot
            .listeners
            .iter()
            .find(|shown| *shown.name == *config.name)
            .map(|shown| shown.addresses.clone())
            .unwrap_or_default(),
        state: config.state,
        notes: notes(question, listener, plane, has_address),
        rejected,
        skipped: skipped(listener, route, &key),
        route: route_in_words(listener, route, client.is_some()),
        pool: pool.name().to_string(),
        balance: pool.settings().balance,
        backend: match &preview.choice {
            Ok(Choice::One { backend, .. }) => Some(backend.name().to_string()),
            Ok(Choice::Drawn(drawn)) => match drawn.as_slice() {
                [(only, _)] => Some(only.name().to_string()),
                _ => None,
            },
            Err(_) => None,
        },
        why: why(pool, &preview, client),
        backends: preview.backends.iter().map(|backend| at_backend(pool, backend, &preview)).collect(),
    }
}

/// The protocol of the client's first bytes: the one that was asked for, or that what was asked for is a part of.
fn protocol(question: &ExplainQuery, listener: &Listener) -> Option<ClientProtocol> {
    let terminates = listener.config().tls.as_ref();
    let by_request = question.request.as_ref().map(|_| ClientProtocol::Http);
    let by_hello = || (question.sni.is_some() || !question.alpn.is_empty()).then_some(ClientProtocol::Tls);
    match terminates {
        Some(tls) if tls.starttls == Some(StartTls::Postgres) => Some(ClientProtocol::Postgres),
        Some(_) => question.protocol.or(by_request),
        None => question.protocol.or_else(by_hello).or(by_request),
    }
}

/// Why the client's first bytes get it rejected, if they do, and the protocols that routes go by.
fn first_bytes(question: &ExplainQuery, listener: &Listener) -> (Option<String>, Vec<String>) {
    let Some((rules, tls)) = listener.tls() else { return (None, question.alpn.clone()) };
    let may_be_plain = rules.starttls.is_some() && rules.plaintext == Plaintext::Allow;
    let sni = question.sni.as_deref();
    if rules.unknown_sni == UnknownSni::Refuse && !tls.knows(sni) && !(may_be_plain && sni.is_none()) {
        let name = sni.unwrap_or("none (--sni)");
        return (Some(format!("no certificate fits the server name {name} (unknown_sni: refuse)")), Vec::new());
    }
    // The listener's order counts (RFC 7301, 3.2).
    let agreed = rules.alpn.iter().find(|protocol| question.alpn.iter().any(|offered| **offered == ***protocol));
    match agreed {
        Some(protocol) => (None, vec![protocol.to_string()]),
        None if rules.alpn.is_empty() || question.alpn.is_empty() => (None, Vec::new()),
        None => (Some("client and listener have no protocol in common (ALPN)".to_owned()), Vec::new()),
    }
}

fn notes(question: &ExplainQuery, listener: &Listener, plane: &DataPlane, has_address: bool) -> Vec<String> {
    let config = listener.config();
    let mut notes = Vec::new();
    let open = listener.counters().open();
    if config.state == ListenerState::Paused {
        notes.push(format!("it is paused: a new connection waits until `tidegate resume {}`", config.name));
    }
    if let Some(most) = config.max_connections
        && open >= most.get() as usize
    {
        notes.push(format!("it is full ({open} of {most} connections): a new one waits until another ends"));
    }
    if plane.open() >= plane.size() {
        notes.push(format!("all {} connections that the limit of open files allows are in use", plane.size()));
    }
    if has_address && listener.needs_country() {
        notes.push(match listener.country(Some(question.client)) {
            Some(country) => format!("{} is in {country} (geoip.database)", question.client),
            None => format!("the country of {} is not in geoip.database", question.client),
        });
    }
    if !has_address {
        notes.push("it listens on a unix socket: its clients have no address".to_owned());
    }
    if let Some(rule) = &config.proxy_protocol {
        match rule.trusted.iter().any(|network| network.contains(&question.client)) {
            true if rule.required => notes.push(format!(
                "{} is in proxy_protocol.trusted: its connections are rejected without a PROXY header, and those with \
                 one are another client's, the one in the header",
                question.client
            )),
            true => notes.push(format!(
                "{} is in proxy_protocol.trusted: its connections with a PROXY header are those of the client in it",
                question.client
            )),
            false => {}
        }
    }
    if config.server_speaks_first() {
        notes.push(
            "its backend is connected before the client's TLS (starttls: mysql): the server speaks first, and the server name \
             chooses a certificate only"
                .to_owned(),
        );
    }
    let by_name = config.routes.iter().any(|route| !route.sni.is_empty());
    if by_name && question.sni.is_none() {
        notes.push("it has routes by server name, and none was asked for: --sni NAME".to_owned());
    }
    if config.routes.iter().any(RouteConfig::needs_protocol) && protocol(question, listener).is_none() {
        let names = ClientProtocol::ALL.map(ClientProtocol::name).join("|");
        notes.push(format!(
            "it has routes by protocol, and none was given (--protocol {names}): as for a client that waits for the \
             server to speak first"
        ));
    }
    if question.request.is_none() && config.routes.iter().any(RouteConfig::needs_request) {
        notes.push(match config.http.is_some() {
            true => "it has routes by the request, and none was given: --host, --path, --method, --header".to_owned(),
            false => "it has routes by the first request, and none was given: --host NAME, --path PATH".to_owned(),
        });
    }
    notes
}

/// Why the chosen backend, or why none.
fn why(pool: &Pool, preview: &Preview, client: Option<IpAddr>) -> String {
    let algorithm = pool.settings().balance;
    let able = |backup: bool| {
        let available = |it: &&BackendPreview| it.availability == Availability::Available;
        preview.backends.iter().filter(available).filter(|it| it.backend.is_backup() == backup).count()
    };
    let queue = pool.settings().queue;
    let words = match &preview.choice {
        _ if preview.waiting > 0 && queue.size > 0 => match preview.waiting {
            1 => format!("waits in the queue for at most {:?}, behind 1 other", queue.timeout),
            more => format!("waits in the queue for at most {:?}, behind {more} others", queue.timeout),
        },
        Err(why) if queue.size > 0 => format!("waits in the queue for at most {:?}: {why}", queue.timeout),
        Ok(Choice::One { .. }) if preview.persistent => "the client's last backend (persist)".to_owned(),
        Err(NoBackend::AllFull { .. }) => "nobody: all that are up are full".to_owned(),
        Err(why) => return format!("rejected: {why}"),
        Ok(Choice::One { backend, instead_of }) => {
            let Some(chosen) = preview.of(backend) else { return "left meanwhile".to_owned() };
            match algorithm {
                _ if able(backend.is_backup()) == 1 && algorithm != Balance::IpHash => match backend.is_backup() {
                    true => "a backup, as no other takes connections, and the only one that does".to_owned(),
                    false => "the only one that takes connections".to_owned(),
                },
                Balance::RoundRobin => match instead_of {
                    None => "next in turn".to_owned(),
                    Some(other) => {
                        format!("it is the turn of {}, which cannot take it; its share is the others'", other.name())
                    }
                },
                Balance::IpHash => {
                    let who = client.map_or_else(|| "clients without an address".to_owned(), |ip| prefix(pool, ip));
                    match instead_of {
                        None => format!("{who} is placed there"),
                        Some(other) => {
                            format!("{who} is placed on {}, which cannot take it, and next there", other.name())
                        }
                    }
                }
                Balance::LeastConnections => {
                    format!("{}, the fewest per weight{}", connections(chosen), turn_of_equals(pool, preview))
                }
                Balance::LeastLatency => format!(
                    "{} on average and {}, the least expected wait{}",
                    latency(chosen.latency_us),
                    connections(chosen),
                    turn_of_equals(pool, preview)
                ),
                Balance::PowerOfTwo | Balance::Random => "drawn".to_owned(),
            }
        }
        Ok(Choice::Drawn(drawn)) => {
            let how = match (algorithm, drawn.as_slice()) {
                (_, [_]) => "the only one that takes connections",
                (Balance::PowerOfTwo, _) => "the less loaded of two that are drawn by weight",
                _ => "drawn by weight",
            };
            let most: Vec<String> = drawn
                .iter()
                .take(LIKELY)
                .map(|(backend, chance)| format!("{} {}", backend.name(), percent(*chance)))
                .collect();
            match drawn.len() {
                1 => how.to_owned(),
                count if count > LIKELY => format!("{how}: {} and {} others", most.join(", "), count - LIKELY),
                _ => format!("{how}: {}", most.join(", ")),
            }
        }
    };
    let fails_open = match preview.fails_open {
        true => format!(" (fewer than {}% of the backends are up: all are used, fail_open)", pool.settings().fail_open),
        false => String::new(),
    };
    format!("{}: {words}{fails_open}", algorithm.name())
}

/// Backends that are named of a random choice.
const LIKELY: usize = 4;

/// With more than one that is as good, their turn decides.
fn turn_of_equals(pool: &Pool, preview: &Preview) -> &'static str {
    let Ok(Choice::One { backend, .. }) = &preview.choice else { return "" };
    let balance = pool.settings().balance;
    let score = |it: &BackendPreview| {
        let weight = f64::from(it.backend.weight()) * it.share;
        match balance {
            Balance::LeastLatency => (f64::from(it.latency_us) + 1.0) * (f64::from(it.connections) + 1.0) / weight,
            _ => f64::from(it.connections) / weight,
        }
    };
    let Some(chosen) = preview.of(backend).map(score) else { return "" };
    let is_equal = |it: &&BackendPreview| {
        let same_tier = it.backend.is_backup() == backend.is_backup();
        let available = it.availability == Availability::Available;
        same_tier && available && (score(it) - chosen).abs() <= f64::EPSILON * chosen
    };
    let equals = preview.backends.iter().filter(is_equal).count();
    if equals > 1 { "; of equals, next in turn" } else { "" }
}

/// The client as far as placement looks at it.
fn prefix(pool: &Pool, client: IpAddr) -> String {
    let bits = match client {
        IpAddr::V4(_) => pool.settings().hash.ipv4,
        IpAddr::V6(_) => pool.settings().hash.ipv6,
    };
    ipnet::IpNet::new(client, bits).map_or_else(|_| client.to_string(), |network| network.trunc().to_string())
}

fn at_backend(pool: &Pool, shown: &BackendPreview, preview: &Preview) -> AtBackend {
    let backend = &shown.backend;
    let (chosen, chance) = match &preview.choice {
        Ok(Choice::One { backend: chosen, .. }) => (chosen == backend, None),
        Ok(Choice::Drawn(drawn)) => {
            let chance = drawn.iter().find(|(drawn, _)| drawn == backend).map(|(_, chance)| *chance);
            (chance.is_some(), chance)
        }
        Err(_) => (false, None),
    };
    let state = match shown.availability {
        Availability::Leaving => format!("leaving: {}, and no new ones", connections(shown)),
        Availability::Down => down(backend, pool.settings().health.is_some()),
        Availability::Ejected => down(backend, true),
        Availability::Drained => "drained: gets no new connections".to_owned(),
        Availability::Maintenance => "in maintenance: gets no new connections".to_owned(),
        Availability::Weightless => "weight 0: gets no new connections".to_owned(),
        Availability::Full => {
            format!("full: {} of {} connections", shown.connections, backend.max_connections().unwrap_or_default())
        }
        Availability::Available if backend.is_backup() && !chosen => {
            "backup: used when no other takes connections".to_owned()
        }
        Availability::Available => {
            let status = BackendStatus::of(backend.is_up(), pool.settings().health.is_some()).name();
            let mut words = match pool.settings().balance {
                Balance::LeastLatency => {
                    format!("{status}, {} on average, {}", latency(shown.latency_us), connections(shown))
                }
                _ => format!("{status}, {}", connections(shown)),
            };
            if backend.weight() != 1 {
                words.push_str(&format!(", weight {}", backend.weight()));
            }
            if shown.share < 1.0 {
                words.push_str(&format!(", {} of it in slow start", percent(shown.share)));
            }
            if let Some(chance) = chance {
                words.push_str(&format!(", {} likely", percent(chance)));
            }
            words
        }
    };
    let why = state + &database(backend);
    AtBackend { backend: backend.name().to_string(), address: backend.shown_address(), chosen, chance, why }
}

/// Role and lag of a database, where its health check has learnt them.
fn database(backend: &Backend) -> String {
    let words = backend.database().and_then(|database| database.words());
    words.map(|words| format!(", {words}")).unwrap_or_default()
}

fn down(backend: &Backend, is_checked: bool) -> String {
    let condition = backend.status();
    let since = crate::log::date::rfc3339(condition.since);
    match condition.reason {
        Some(reason) => format!("down since {since}: {reason}"),
        None if !is_checked => format!("down since {since}: its name is not resolved yet"),
        None => format!("not known to be up, since {since}: no health check has passed yet"),
    }
}

fn connections(shown: &BackendPreview) -> String {
    match shown.connections {
        0 => "no connections".to_owned(),
        1 => "1 connection".to_owned(),
        more => format!("{more} connections"),
    }
}

fn latency(micros: u32) -> String {
    match micros {
        0 => "never measured".to_owned(),
        1..1000 => format!("{micros} µs"),
        _ => format!("{:.1} ms", f64::from(micros) / 1000.0),
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent < 0.05 => "below 0.1 %".to_owned(),
        percent if percent < 9.95 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}
