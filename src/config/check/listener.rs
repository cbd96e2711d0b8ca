//! `listeners`.

use std::collections::HashMap;
use std::time::Duration;

use super::references::Pools;
use super::{Checker, copied, optional_period, value};
use crate::config::located::Located;
use crate::config::model::{
    LimitsConfig, ListenAddress, ListenerConfig, ListenerSocket, ListenerTimeouts, ListenerTls, ProxyProtocol,
    ReusePort, RouteConfig, Sniff, SpokenProtocol, StartTls,
};
use crate::config::raw::{RawListener, RawListenerTimeouts, RawPool, RawSocket};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{BindAddress, ByteRate, FileMode, Frequency, Network, Period};
use crate::config::scalars_serde::Switch;
use crate::config::tree::NodeId;

/// TCP_KEEPIDLE's largest value, in seconds (tcp(7)).
const MAX_KEEPALIVE: u64 = 32_767;

/// Permission bits of unix sockets, as a usual umask leaves them.
const DEFAULT_MODE: u32 = 0o755;

const EXAMPLE: &str = "for example: listeners: [{ name: web, bind: 0.0.0.0:8080, pool: web }]";

impl Checker<'_> {
    /// All listeners; their pools are indices of the list as typed.
    pub(super) fn listeners(
        &mut self,
        key: Option<&Located<Vec<Located<RawListener>>>>,
        pools: Option<&Located<Vec<Located<RawPool>>>>,
    ) -> Option<Vec<ListenerConfig>> {
        let raw = self.elements(key, "listeners", self.tree.root(), EXAMPLE);
        let mut pools = Pools::new(pools);
        let mut names: HashMap<&str, NodeId> = HashMap::new();
        let mut listeners = Vec::with_capacity(raw.len());
        for listener in raw {
            let Some((raw, at)) = value(Some(listener)) else {
                pools.unclear();
                continue;
            };
            let name = self.required(raw.name.as_ref(), "name", at, "name: web");
            if let Some((name, at)) = name {
                self.name(name, at);
                match names.get(name.as_str()) {
                    Some(first) => {
                        self.duplicate(
                            at,
                            *first,
                            format!("duplicate listener name `{}`", shown(name)),
                            "listener names are unique",
                        );
                    }
                    None => drop(names.insert(name, at)),
                }
            }
            let bind = self.bind(raw, at);
            let pool = self.pool_of(raw.pool.as_ref(), at, &mut pools);
            let routes = self.routes(raw, at, &mut pools);
            let requests = self.balances_requests(raw, at);
            let http = self.http_listener(raw, requests);
            let udp = self.udp_listener(raw, at);
            let mut tls = self.listener_tls(raw, at);
            if let (Some(tls), Some(_)) = (&mut tls, &http) {
                self.alpn_of_requests(raw, tls);
            }
            let sniff = self.sniff(raw, tls.as_ref());
            let protocol_hint = self.protocol_hint(raw, sniff, tls.as_ref());
            if let Some(ListenerTls { starttls: Some(StartTls::Mysql), .. }) = &tls {
                self.routes_before_bytes(&routes);
            }
            if raw.tls.is_none() || tls.is_some() {
                self.dead_routes(&routes, tls.as_ref(), http.is_some());
            }
            let proxy_protocol = self.proxy_protocol(raw, at);
            let access = self.access(raw);
            let limits = self.limits(raw);
            let timeouts = self.timeouts(raw, &routes);
            let socket = self.socket(raw.socket.as_ref(), &bind);
            let max_connections = self.limit(raw.max_connections.as_ref());
            if let (Some((name, _)), Some(pool)) = (name, pool) {
                listeners.push(ListenerConfig {
                    state: copied(raw.state.as_ref()).unwrap_or_default(),
                    name: name.as_str().into(),
                    bind,
                    pool,
                    http,
                    udp,
                    sniff,
                    protocol_hint,
                    routes: routes.into_iter().map(|(route, _)| route).collect(),
                    tls,
                    proxy_protocol,
                    access,
                    limits,
                    max_connections,
                    timeouts,
                    socket,
                });
            }
        }
        if !raw.is_empty() {
            self.unused(&pools);
        }
        (!listeners.is_empty()).then_some(listeners)
    }

    fn bind(&mut self, raw: &RawListener, owner: NodeId) -> Vec<ListenAddress> {
        let hint = "bind: 127.0.0.1:8080 for this host only, 0.0.0.0:8080 for every IPv4 address";
        let Some((list, at)) = self.required(raw.bind.as_ref(), "bind", owner, hint) else {
            return Vec::new();
        };
        if list.0.is_empty() {
            self.error(at, Diagnostic::new("no address").hint(hint));
        }
        let addresses = list.0.iter().filter_map(|bind| value(Some(bind)));
        addresses.map(|(BindAddress(address), _)| address.clone()).collect()
    }

    fn sniff(&mut self, listener: &RawListener, tls: Option<&ListenerTls>) -> Sniff {
        let Some((sniff, at)) = value(listener.sniff.as_ref()) else { return Sniff::Off };
        let begun = tls.and_then(|tls| tls.starttls).map(StartTls::speaks);
        if let (Some(spoken), Some(begun)) = (sniff.speaks(), begun)
            && spoken != begun
        {
            let what = format!("has no effect: clients of `tls.starttls: {}` speak another protocol", begun.name());
            self.warning(at, Diagnostic::new(what).hint("remove one of the two"));
        }
        *sniff
    }

    fn protocol_hint(
        &mut self,
        listener: &RawListener,
        sniff: Sniff,
        tls: Option<&ListenerTls>,
    ) -> Option<SpokenProtocol> {
        let (hint, at) = value(listener.protocol_hint.as_ref())?;
        let (known, key) = match (tls.and_then(|tls| tls.starttls), sniff.speaks()) {
            (Some(starttls), _) => (starttls.speaks(), format!("tls.starttls: {}", starttls.name())),
            (None, Some(known)) => (known, format!("sniff: {}", sniff.name())),
            (None, None) => return Some(*hint),
        };
        if *hint != known {
            let diagnostic = Diagnostic::new(format!("contradicts `{key}`"));
            self.error(at, diagnostic.hint("remove it: clients of the listener speak that protocol"));
        }
        Some(*hint)
    }

    /// `None` if it is absent, or invalid, which is reported.
    fn proxy_protocol(&mut self, listener: &RawListener, owner: NodeId) -> Option<ProxyProtocol> {
        let hint = "trusted: the networks of the proxies that send PROXY headers, such as [10.0.0.0/8]";
        if listener.proxy_protocol.is_none() {
            self.empty_section(owner, "proxy_protocol", hint);
        }
        let (raw, at) = value(listener.proxy_protocol.as_ref())?;
        let (networks, list) = self.required(raw.trusted.as_ref(), "trusted", at, hint)?;
        if networks.is_empty() {
            self.error(list, Diagnostic::new("the list is empty: every PROXY header would be rejected").hint(hint));
        }
        let trusted = self.distinct(networks)?;
        for (Network(network), at) in &trusted {
            if network.prefix_len() == 0 {
                let diagnostic = Diagnostic::new("every address is trusted: any client can forge its source address");
                self.warning(*at, diagnostic.hint("list only the networks of the proxies that send PROXY headers"));
            }
        }
        let trusted = trusted.into_iter().map(|(Network(network), _)| *network).collect();
        let required = copied(raw.required.as_ref()).unwrap_or(true);
        Some(ProxyProtocol { trusted, required })
    }

    fn limits(&mut self, listener: &RawListener) -> LimitsConfig {
        let Some((raw, _)) = value(listener.limits.as_ref()) else { return LimitsConfig::default() };
        let rate = |key: Option<&Located<Frequency>>| copied(key).and_then(|Frequency(rate)| rate);
        let limits = LimitsConfig {
            request_rate_per_ip: rate(raw.request_rate_per_ip.as_ref()),
            connections_per_ip: self.limit(raw.connections_per_ip.as_ref()),
            connection_rate_per_ip: rate(raw.connection_rate_per_ip.as_ref()),
            connection_rate: rate(raw.connection_rate.as_ref()),
            handshakes: self.limit(raw.handshakes.as_ref()),
            bandwidth: copied(raw.bandwidth.as_ref()).and_then(|ByteRate(bytes)| bytes),
        };
        if let (Some(_), Some(key), None) = (limits.handshakes, &raw.handshakes, &listener.tls) {
            let diagnostic = Diagnostic::new("has no effect").hint("it applies to listeners with `tls` only");
            self.warning(key.at, diagnostic);
        }
        let is_unix = |bind: &Located<BindAddress>| {
            value(Some(bind)).is_some_and(|(BindAddress(bind), _)| bind.ports().is_none())
        };
        let has_addresses = listener.proxy_protocol.is_some()
            || value(listener.bind.as_ref()).is_none_or(|(binds, _)| !binds.0.iter().all(is_unix));
        let by_address = [
            limits.connections_per_ip.and(raw.connections_per_ip.as_ref()).map(|key| key.at),
            limits.connection_rate_per_ip.and(raw.connection_rate_per_ip.as_ref()).map(|key| key.at),
            limits.request_rate_per_ip.and(raw.request_rate_per_ip.as_ref()).map(|key| key.at),
        ];
        for at in by_address.into_iter().flatten().filter(|_| !has_addresses) {
            let diagnostic =
                Diagnostic::new("has no effect").hint("clients of a unix socket have no address: use connection_rate");
            self.warning(at, diagnostic);
        }
        limits
    }

    fn timeouts(&mut self, listener: &RawListener, routes: &[(RouteConfig, NodeId)]) -> ListenerTimeouts {
        let absent = RawListenerTimeouts::default();
        let raw = value(listener.timeouts.as_ref()).map_or(&absent, |(timeouts, _)| timeouts);
        let sniffs = listener.tls.is_some()
            || listener.proxy_protocol.is_some()
            || routes.iter().any(|(it, _)| it.needs_bytes());
        for (key, phase, default) in [(&raw.sniff, sniffs, "5s"), (&raw.handshake, listener.tls.is_some(), "10s")] {
            if let (Some((Period(Duration::ZERO), at)), true) = (value(key.as_ref()), phase) {
                let diagnostic = Diagnostic::new("no limit: clients that send nothing keep their connections open");
                self.warning(at, diagnostic.hint(format!("the default is {default}")));
            }
        }
        ListenerTimeouts {
            sniff: optional_period(raw.sniff.as_ref(), Duration::from_secs(5)),
            handshake: optional_period(raw.handshake.as_ref(), Duration::from_secs(10)),
            idle: optional_period(raw.idle.as_ref(), Duration::from_secs(3600)),
            half_close: optional_period(raw.half_close.as_ref(), Duration::from_secs(60)),
            lifetime: optional_period(raw.lifetime.as_ref(), Duration::ZERO),
        }
    }

    fn socket(&mut self, key: Option<&Located<RawSocket>>, binds: &[ListenAddress]) -> ListenerSocket {
        let absent = RawSocket::default();
        let raw = value(key).map_or(&absent, |(socket, _)| socket);
        if let Some((Period(length), at)) = value(raw.keepalive.as_ref()) {
            self.whole_seconds(*length, at);
            if length.as_secs() > MAX_KEEPALIVE {
                let diagnostic = Diagnostic::new("longer than the kernel supports")
                    .hint(format!("at most {MAX_KEEPALIVE}s; 0s turns keepalive off"));
                self.error(at, diagnostic);
            }
        }
        if let Some((Period(length), at)) = value(raw.defer_accept.as_ref()) {
            self.whole_seconds(*length, at);
        }
        let is_unix = |bind: &ListenAddress| bind.ports().is_none();
        if let (Some((FileMode(mode), at)), false) =
            (value(raw.mode.as_ref()), binds.is_empty() || binds.iter().any(is_unix))
            && *mode != DEFAULT_MODE
        {
            self.warning(at, Diagnostic::new("has no effect").hint("it applies to unix sockets in `bind` only"));
        }
        if let (Some((true, at)), false) =
            (value(raw.freebind.as_ref()), binds.is_empty() || !binds.iter().all(is_unix))
        {
            self.warning(at, Diagnostic::new("has no effect").hint("it applies to IP addresses in `bind` only"));
        }
        ListenerSocket {
            backlog: self.number(raw.backlog.as_ref(), 1..=i64::from(i32::MAX), 4096) as i32,
            nodelay: copied(raw.nodelay.as_ref()).unwrap_or(true),
            keepalive: optional_period(raw.keepalive.as_ref(), Duration::from_secs(60)),
            fast_open: self.number(raw.fast_open.as_ref(), 0..=65_535, 0) as u32,
            defer_accept: optional_period(raw.defer_accept.as_ref(), Duration::ZERO),
            mptcp: copied(raw.mptcp.as_ref()).unwrap_or(false),
            reuse_port: match copied(raw.reuse_port.as_ref()).unwrap_or(Switch::Auto) {
                Switch::Auto => ReusePort::Auto,
                Switch::On => ReusePort::On,
                Switch::Off => ReusePort::Off,
            },
            transparent: copied(raw.transparent.as_ref()).unwrap_or(false),
            freebind: copied(raw.freebind.as_ref()).unwrap_or(false),
            mode: copied(raw.mode.as_ref()).map_or(DEFAULT_MODE, |FileMode(mode)| mode),
        }
    }

    pub(super) fn whole_seconds(&mut self, length: Duration, at: NodeId) {
        if length.subsec_nanos() != 0 {
            let diagnostic = Diagnostic::new(format!("{} is not a whole number of seconds", Period(length)))
                .hint(format!("write whole seconds: {}s", length.as_secs() + 1));
            self.error(at, diagnostic);
        }
    }
}
