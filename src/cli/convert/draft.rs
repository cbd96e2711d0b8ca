//! The configuration that comes of a conversion: keys that have a value other than their default, references by name.

use std::collections::HashSet;
use std::time::Duration;

/// Longest name, in characters, that tidegate accepts.
const MAX_NAME: usize = 128;

/// Most retries that tidegate makes.
pub(super) const MAX_RETRIES: u32 = 100;

/// The port of the dashboard where none is given.
pub(super) const DASHBOARD_PORT: u16 = 9900;

/// The name of the pool whose connections are closed.
pub(super) const REJECT: &str = "reject";

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) workers: Option<u32>,
    /// Addresses of the admin interface.
    pub(super) admin: Vec<String>,
    /// Mode of its unix sockets.
    pub(super) socket_mode: Option<String>,
    /// Where the access log goes.
    pub(super) access_log: Option<String>,
    pub(super) delay: Option<Duration>,
    pub(super) drain: Option<Duration>,
    pub(super) listeners: Vec<DraftListener>,
    pub(super) pools: Vec<DraftPool>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DraftListener {
    pub(super) name: String,
    pub(super) bind: Vec<String>,
    pub(super) pool: String,
    pub(super) max_connections: Option<u32>,
    pub(super) sniff_http: bool,
    pub(super) routes: Vec<DraftRoute>,
    pub(super) tls: Option<DraftTls>,
    /// Networks whose PROXY headers are taken.
    pub(super) trusted: Vec<String>,
    pub(super) connections_per_ip: Option<u32>,
    /// Connections of one client, such as `20/s`.
    pub(super) connection_rate_per_ip: Option<String>,
    /// Connections per second.
    pub(super) connection_rate: Option<u32>,
    /// Bytes per second in each direction.
    pub(super) bandwidth: Option<u64>,
    pub(super) sniff: Option<Duration>,
    pub(super) handshake: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) half_close: Option<Duration>,
    pub(super) socket: DraftSocket,
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftSocket {
    pub(super) backlog: Option<u32>,
    /// Nagle's algorithm stays on.
    pub(super) delays: bool,
    pub(super) keepalive: Option<Duration>,
    pub(super) fast_open: Option<u32>,
    pub(super) defer_accept: Option<Duration>,
    pub(super) reuse_port: bool,
    pub(super) transparent: bool,
    /// Mode of unix sockets.
    pub(super) mode: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftRoute {
    pub(super) sni: Vec<String>,
    pub(super) alpn: Vec<String>,
    pub(super) host: Vec<String>,
    pub(super) path_prefix: Vec<String>,
    pub(super) client: Vec<String>,
    pub(super) pool: String,
    /// Before, `*.` of its names stood for several labels too.
    pub(super) deep: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftTls {
    /// Files of the chain and of the key.
    pub(super) certificates: Vec<(String, String)>,
    pub(super) refuse_unknown_sni: bool,
    pub(super) only_1_3: bool,
    /// Where not [`DraftTls::only_1_3`].
    pub(super) only_1_2: bool,
    pub(super) alpn: Vec<String>,
    pub(super) client_auth: Option<DraftClientAuth>,
    pub(super) no_tickets: bool,
    pub(super) session_cache: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftClientAuth {
    pub(super) optional: bool,
    pub(super) ca: String,
    pub(super) crl: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DraftPool {
    pub(super) name: String,
    pub(super) balance: Option<&'static str>,
    pub(super) backends: Vec<DraftBackend>,
    pub(super) health: Option<DraftHealth>,
    pub(super) on_down_cut: bool,
    /// How many connections may wait, and how long.
    pub(super) queue: Option<(u32, Option<Duration>)>,
    pub(super) persist: Option<DraftPersist>,
    pub(super) slow_start: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) connect: Option<Duration>,
    /// `v1` or `v2`.
    pub(super) send_proxy: Option<&'static str>,
    pub(super) source: Vec<String>,
    pub(super) tls: Option<DraftPoolTls>,
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftPersist {
    pub(super) ttl: Option<Duration>,
    pub(super) size: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftBackend {
    pub(super) name: Option<String>,
    pub(super) address: String,
    pub(super) weight: Option<u32>,
    pub(super) max_connections: Option<u32>,
    pub(super) backup: bool,
    pub(super) maintenance: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftHealth {
    pub(super) probe: DraftProbe,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
    pub(super) port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum DraftProbe {
    #[default]
    Tcp,
    Tls,
    Http(DraftRequest),
    Exchange {
        send: Vec<u8>,
        expect: Vec<u8>,
    },
    Database {
        /// The key: `postgres`, `mysql` or `redis`.
        kind: &'static str,
        user: Option<String>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftRequest {
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    pub(super) host: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) status: Option<String>,
    pub(super) body: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DraftPoolTls {
    /// `ca` or `off`; full by default.
    pub(super) verify: Option<&'static str>,
    pub(super) ca: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) alpn: Vec<String>,
    pub(super) client_certificate: Option<(String, String)>,
}

impl Draft {
    /// The pool whose connections are closed: it has no backends.
    pub(super) fn reject(&mut self) -> String {
        if !self.pools.iter().any(|pool| pool.name == REJECT) {
            let note = "Closes its connections: it has no backends.".to_owned();
            let pool = DraftPool { name: REJECT.to_owned(), ..DraftPool::default() };
            self.pools.push(DraftPool { notes: vec![note], ..pool });
        }
        REJECT.to_owned()
    }

    /// Sends the access log there, or leaves it where it goes already. An error says where that is.
    pub(super) fn log_to(&mut self, target: &str) -> Result<(), String> {
        let known = self.access_log.get_or_insert_with(|| target.to_owned());
        if known == target { Ok(()) } else { Err(format!("`log.access` is one for all listeners: {known}")) }
    }

    /// Whether a listener refers to a pool.
    pub(super) fn leads_to(&self, pool: &str) -> bool {
        let of =
            |listener: &DraftListener| listener.pool == pool || listener.routes.iter().any(|route| route.pool == pool);
        self.listeners.iter().any(of)
    }

    /// Drops what nothing refers to, and repairs what `tidegate check` would refuse: names that are used twice and binds
    /// that overlap.
    pub(super) fn finish(&mut self) {
        let mut names = HashSet::new();
        let mut binds: Vec<String> = Vec::new();
        for listener in &mut self.listeners {
            listener.name = unique(&listener.name, &mut names);
            if listener.bind.iter().any(|bind| binds.iter().any(|other| overlap(bind, other))) {
                listener.socket.reuse_port = true;
                listener.notes.push("reuse_port: another listener has a wildcard address of the same port.".to_owned());
            }
            binds.extend(listener.bind.iter().cloned());
        }
        let keep: Vec<bool> = self.pools.iter().map(|pool| self.leads_to(&pool.name)).collect();
        let mut keep = keep.into_iter();
        self.pools.retain(|_| keep.next() == Some(true));
        for pool in &mut self.pools {
            let mut names = HashSet::new();
            for backend in &mut pool.backends {
                // The default name is the address, which may be there twice as well.
                let wanted = backend.name.clone().unwrap_or_else(|| backend.address.clone());
                let name = unique(&wanted, &mut names);
                backend.name = (name != backend.address).then_some(name);
            }
        }
    }
}

/// Whether two binds of different listeners can only be shared by SO_REUSEPORT: one is a wildcard of the other's port.
fn overlap(one: &str, other: &str) -> bool {
    let port = |bind: &str| bind.rsplit_once(':').map(|(_, port)| port.to_owned());
    let is_wild = |bind: &str| bind.starts_with("0.0.0.0:") || bind.starts_with("[::]:");
    let both_wild = is_wild(one) && is_wild(other);
    !one.starts_with("unix:") && port(one) == port(other) && (is_wild(one) || is_wild(other)) && !both_wild
}

/// A name that is none of `names` yet, which it joins.
pub(super) fn unique(wanted: &str, names: &mut HashSet<String>) -> String {
    let wanted = valid(wanted);
    let mut name = wanted.clone();
    let mut number = 2;
    while !names.insert(name.clone()) {
        let suffix = format!("-{number}");
        name = wanted.chars().take(MAX_NAME - suffix.len()).chain(suffix.chars()).collect();
        number += 1;
    }
    name
}

/// A name without what tidegate's names cannot have; `@` is what separates a host name's backend from its address.
pub(super) fn valid(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_graphic() && letter != '@' || letter.is_alphanumeric();
    let name: String = name.chars().map(|letter| if is_plain(letter) { letter } else { '-' }).take(MAX_NAME).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// Adds what is not there yet.
pub(super) fn add<T: PartialEq>(list: &mut Vec<T>, element: T) {
    if !list.contains(&element) {
        list.push(element);
    }
}
