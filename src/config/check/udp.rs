//! `protocol: udp`: its keys, what it excludes, and the pools behind it.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Checker, in_front, period, value};
use crate::config::located::Located;
use crate::config::model::{BackendAddress, HealthCheck, ListenerConfig, PoolConfig, PoolIndex, UdpListener};
use crate::config::raw::{RawListener, RawMatch, RawPool, RawProtocol, RawSendProxy, RawSocket, RawUdp};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{BindAddress, ByteRate, Frequency, Period};
use crate::config::scalars_serde::Switch;
use crate::config::tree::NodeId;

/// Sessions: each is a descriptor.
const MAX_SESSIONS: i64 = 4_000_000;

/// Largest factor of `amplification`.
const MAX_AMPLIFICATION: i64 = 1000;

impl Checker<'_> {
    /// `listeners[].udp`; `None` without `protocol: udp`.
    pub(super) fn udp_listener(&mut self, raw: &RawListener, owner: NodeId) -> Option<UdpListener> {
        match &raw.protocol {
            Some(key) if key.value == Some(RawProtocol::Udp) => {}
            other => {
                let is_known = other.as_ref().is_none_or(|key| key.value.is_some());
                if let (Some(key), true) = (&raw.udp, is_known && !self.is_typo_of(owner, "protocol")) {
                    let diagnostic = Diagnostic::new("requires `protocol: udp`");
                    self.error(key.at, diagnostic.hint("set `protocol: udp` at the listener, or remove the section"));
                }
                return None;
            }
        }
        self.excluded_by_datagrams(raw);
        self.addresses_of_datagrams(raw);
        self.routes_of_datagrams(raw);
        let absent = RawUdp::default();
        let raw = value(raw.udp.as_ref()).map_or(&absent, |(udp, _)| udp);
        if let Some((Period(Duration::ZERO), at)) = value(raw.idle.as_ref()) {
            let diagnostic = Diagnostic::new("a session of UDP has no other end than its idle time");
            self.error(at, diagnostic.hint("the default is 1m"));
        }
        let number = |number: i64| u32::try_from(number).ok().and_then(NonZeroU32::new);
        Some(UdpListener {
            idle: period(raw.idle.as_ref(), Duration::from_secs(60)),
            max_sessions: number(self.number(raw.max_sessions.as_ref(), 1..=MAX_SESSIONS, 65_536))
                .unwrap_or(NonZeroU32::MAX),
            responses: self.limit(raw.responses.as_ref()),
            amplification: number(self.number(raw.amplification.as_ref(), 0..=MAX_AMPLIFICATION, 3)),
        })
    }

    /// Refuses keys that have no effect on datagrams.
    fn excluded_by_datagrams(&mut self, raw: &RawListener) {
        let bandwidth = value(raw.limits.as_ref()).and_then(|(limits, _)| value(limits.bandwidth.as_ref()));
        let handshakes = value(raw.limits.as_ref()).and_then(|(limits, _)| limits.handshakes.as_ref());
        let requests = value(raw.limits.as_ref()).and_then(|(limits, _)| value(limits.request_rate_per_ip.as_ref()));
        let absent = RawSocket::default();
        let socket = value(raw.socket.as_ref()).map_or(&absent, |(socket, _)| socket);
        let shared = value(socket.reuse_port.as_ref()).filter(|(switch, _)| **switch == Switch::On);
        let excluded = [
            (
                raw.tls.as_ref().map(|key| key.at),
                "tls",
                "remove it: datagrams pass as they are, those of QUIC and DTLS too",
            ),
            (raw.sniff.as_ref().map(|key| key.at), "sniff", "remove it: datagrams are not parsed"),
            (
                raw.protocol_hint.as_ref().map(|key| key.at),
                "protocol_hint",
                "remove it: no client gets an error message",
            ),
            (
                raw.proxy_protocol.as_ref().map(|key| key.at),
                "proxy_protocol",
                "remove it: PROXY headers of datagrams are sent to backends (`send_proxy: v2`), and not taken from clients",
            ),
            (raw.timeouts.as_ref().map(|key| key.at), "timeouts", "set `udp: { idle: 1m }`"),
            (raw.max_connections.as_ref().map(|key| key.at), "max_connections", "set `udp: { max_sessions: 65536 }`"),
            (
                bandwidth.filter(|(ByteRate(rate), _)| rate.is_some()).map(|(_, at)| at),
                "bandwidth",
                "remove it: a client of UDP cannot be slowed down",
            ),
            (handshakes.map(|key| key.at), "handshakes", "remove it: there is no TLS"),
            (
                requests.filter(|(Frequency(rate), _)| rate.is_some()).map(|(_, at)| at),
                "request_rate_per_ip",
                "limit new sessions: `connection_rate_per_ip`",
            ),
            (socket.backlog.as_ref().map(|key| key.at), "backlog", "remove it: it is the queue of connections"),
            (socket.nodelay.as_ref().map(|key| key.at), "nodelay", "remove it: it is an option of TCP"),
            (socket.keepalive.as_ref().map(|key| key.at), "keepalive", "remove it: it is an option of TCP"),
            (socket.fast_open.as_ref().map(|key| key.at), "fast_open", "remove it: it is an option of TCP"),
            (socket.defer_accept.as_ref().map(|key| key.at), "defer_accept", "remove it: it is an option of TCP"),
            (socket.mptcp.as_ref().map(|key| key.at), "mptcp", "remove it: it is an option of TCP"),
            (socket.mode.as_ref().map(|key| key.at), "mode", "remove it: it is of unix sockets"),
            (
                shared.map(|(_, at)| at),
                "reuse_port: true",
                "remove it: a second process would get datagrams of this one's sessions",
            ),
        ];
        for (at, key, hint) in excluded {
            let Some(at) = at else { continue };
            let diagnostic = Diagnostic::new(format!("`{key}` and `protocol: udp` exclude each other"));
            self.error(at, diagnostic.hint(hint));
        }
    }

    fn addresses_of_datagrams(&mut self, raw: &RawListener) {
        for bind in value(raw.bind.as_ref()).map_or(&[][..], |(list, _)| &list.0) {
            let Some((BindAddress(address), at)) = value(Some(bind)) else { continue };
            if address.ports().is_none() {
                let diagnostic = Diagnostic::new("`protocol: udp` has no unix sockets");
                self.error(at, diagnostic.hint("write an IP address and a port, such as 0.0.0.0:53"));
            }
        }
    }

    /// Refuses conditions that need the bytes of a connection.
    fn routes_of_datagrams(&mut self, raw: &RawListener) {
        for route in value(raw.routes.as_ref()).map_or(&[][..], |(list, _)| list) {
            let Some((matched, _)) = value(Some(route)).and_then(|(route, _)| value(route.r#match.as_ref())) else {
                continue;
            };
            let RawMatch { sni, alpn, host, path, path_prefix, method, header, client: _, country: _, protocol } =
                matched;
            let conditions = [
                (sni.as_ref().map(|key| key.at), "sni"),
                (alpn.as_ref().map(|key| key.at), "alpn"),
                (host.as_ref().map(|key| key.at), "host"),
                (path.as_ref().map(|key| key.at), "path"),
                (path_prefix.as_ref().map(|key| key.at), "path_prefix"),
                (method.as_ref().map(|key| key.at), "method"),
                (header.as_ref().map(|key| key.at), "header"),
                (protocol.as_ref().map(|key| key.at), "protocol"),
            ];
            for (at, key) in conditions {
                let Some(at) = at else { continue };
                let diagnostic = Diagnostic::new(format!("`{key}` and `protocol: udp` exclude each other"));
                self.error(at, diagnostic.hint("datagrams are not parsed: match by `client` or `country`"));
            }
        }
    }

    /// Checks each pool against the listeners of datagrams in front of it. A check by `exchange` is one of datagrams where no other
    /// listener leads to the pool.
    pub(super) fn pools_of_datagrams(
        &mut self,
        listeners: &[ListenerConfig],
        pools: &mut [PoolConfig],
        raw: Option<&Located<Vec<Located<RawPool>>>>,
    ) {
        let raw = value(raw).map_or(&[][..], |(pools, _)| pools);
        for (place, (pool, raw)) in pools.iter_mut().zip(raw).enumerate() {
            let Some((raw, _)) = value(Some(raw)) else { continue };
            let (of_datagrams, others) = in_front(listeners, PoolIndex(place), |listener| listener.udp.is_some());
            let Some(listener) = of_datagrams.first() else { continue };
            let name = shown(&listener.name).to_string();
            let only = others.is_empty();
            let v1 = value(raw.send_proxy.as_ref()).filter(|(version, _)| matches!(version, RawSendProxy::V1));
            let of_connections = |at: Option<NodeId>| at.filter(|_| only);
            let excluded = [
                (v1.map(|(_, at)| at), "send_proxy: v1", "version 1 has no datagrams: use v2"),
                (
                    raw.tls.as_ref().map(|key| key.at),
                    "tls",
                    "datagrams pass as they are: give that listener another pool",
                ),
                (
                    of_connections(raw.queue.as_ref().map(|key| key.at)),
                    "queue",
                    "remove it: a datagram that no backend can take is dropped",
                ),
                (
                    of_connections(raw.timeouts.as_ref().map(|key| key.at)),
                    "timeouts",
                    "remove it: UDP has no connect that could be waited for",
                ),
            ];
            for (at, key, hint) in excluded {
                let Some(at) = at else { continue };
                let diagnostic =
                    Diagnostic::new(format!("`{key}` has no effect on the datagrams of listener `{name}`"));
                // What connections have and datagrams lack changes nothing of what is forwarded.
                match key {
                    "queue" | "timeouts" => self.warning(at, diagnostic.hint(hint)),
                    _ => self.error(at, diagnostic.hint(hint)),
                }
            }
            let backends = value(raw.backends.as_ref()).map_or(&[][..], |(list, _)| list);
            for (backend, raw) in pool.backends.iter().zip(backends) {
                if matches!(backend.address, BackendAddress::Unix(_)) {
                    let at = value(Some(raw)).and_then(|(raw, _)| raw.address.as_ref()).map_or(raw.at, |key| key.at);
                    let diagnostic =
                        Diagnostic::new(format!("listener `{name}` sends datagrams, a unix socket takes none"));
                    self.error(at, diagnostic.hint("write an IP address and a port"));
                }
            }
            if let (Some(health), true) = (&mut pool.health, only) {
                health.by_datagrams = matches!(health.check, HealthCheck::Exchange { .. });
                if let (HealthCheck::Exchange { send, .. }, Some((raw, at))) =
                    (&health.check, value(raw.health.as_ref()))
                    && send.reveal().is_empty()
                {
                    let at = raw.exchange.as_ref().map_or(at, |key| key.at);
                    let diagnostic = Diagnostic::new("`send` is empty: a server of UDP answers, and does not begin");
                    self.error(at, diagnostic.hint("write the datagram to send, such as send: \"ping\""));
                }
            }
        }
    }
}
