//! `listen`.

use std::time::Duration;

use super::tree::Directive;
use crate::cli::convert::draft::DraftSocket;
use crate::cli::convert::ledger::{Ledger, StatementId};
use crate::cli::convert::quantity::{bind, host_and_port, nginx_time, ports, unix};

/// Most addresses of one directive: a range of ports becomes one each.
const MAX_PORTS: u16 = 1024;

/// Of an address that is there already.
pub(super) const TAKEN: &str = "another listener has this address, and takes all connections to it";

/// Of a name with a wildcard.
pub(super) const DEEP: &str = "the star stands for one label, in nginx for several too, as in a.b.example.com";

#[derive(Clone, Debug, Default)]
pub(super) struct Listen {
    /// `None` is the one that nginx supplies.
    pub(super) id: Option<StatementId>,
    pub(super) addresses: Vec<String>,
    pub(super) tls: bool,
    pub(super) proxy_protocol: bool,
    /// Requests for no server's name go to the server of this one.
    pub(super) default: bool,
    pub(super) socket: DraftSocket,
}

/// Reads a directive. `port` is that of addresses without one.
pub(super) fn read(directive: &Directive, port: Option<u16>, ledger: &mut Ledger) -> Option<Listen> {
    let options = directive.words.get(2..).unwrap_or_default();
    if let Some(other) = options.iter().find(|word| ["udp", "quic"].contains(&word.as_str())) {
        ledger.left(directive.id, format!("{other}: tidegate balances TCP"));
        return None;
    }
    let addresses = addresses(directive.word(1), port);
    if addresses.is_empty() {
        ledger.left(directive.id, "write an IP address and a port, or unix:/path");
        return None;
    }
    ledger.translated(directive.id);
    let mut listen = Listen { id: Some(directive.id), addresses, ..Listen::default() };
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "ssl" => listen.tls = true,
            "proxy_protocol" => listen.proxy_protocol = true,
            "default_server" | "default" => listen.default = true,
            "bind" => ledger.not_needed(directive.id, "bind: each address has a socket of its own"),
            "reuseport" => ledger.not_needed(directive.id, "reuseport: each worker has sockets of its own"),
            "deferred" => listen.socket.defer_accept = Some(Duration::from_secs(60)),
            "backlog" | "fastopen" => {
                let length = value.parse().ok().filter(|length| (1..=65_535).contains(length));
                if length.is_none() {
                    ledger.left(directive.id, format!("{name}: 1 to 65535"));
                }
                *(if name == "backlog" { &mut listen.socket.backlog } else { &mut listen.socket.fast_open }) = length;
            }
            "so_keepalive" => match value.split(':').next() {
                Some("on") => ledger.not_needed(directive.id, "so_keepalive: on by itself, after 60 s"),
                Some("off") => ledger.left(directive.id, "so_keepalive: write `socket: { keepalive: 0s }`"),
                idle => {
                    let idle = idle.and_then(nginx_time).map(|length| length.as_secs());
                    let idle = idle.filter(|seconds| (1..=3600).contains(seconds)).map(Duration::from_secs);
                    listen.socket.keepalive = idle.filter(|length| length.as_secs() != 60);
                    let others = value.split(':').skip(1).any(|text| !text.is_empty());
                    if others || idle.is_none() {
                        ledger.left(directive.id, "so_keepalive: only the idle time becomes `socket.keepalive`");
                    }
                }
            },
            "ipv6only" if value == "on" => {
                ledger.not_needed(directive.id, "ipv6only: [::] leaves IPv4 to a listener that binds 0.0.0.0");
            }
            "ipv6only" => {
                ledger.not_needed(directive.id, "ipv6only: [::] takes IPv4 too, unless a listener binds 0.0.0.0");
            }
            "http2" | "spdy" => {
                ledger
                    .left(directive.id, format!("{name}: HTTP passes unchanged, and servers would get this protocol"));
            }
            _ => ledger.left(directive.id, format!("{name}: tidegate has no such option of a listener")),
        }
    }
    Some(listen)
}

fn addresses(text: &str, port: Option<u16>) -> Vec<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).into_iter().collect();
    }
    let (host, written) = match host_and_port(text) {
        // A port alone.
        (only, None) if only.starts_with(|letter: char| letter.is_ascii_digit()) && ports(only).is_some() => {
            ("*", Some(only))
        }
        other => other,
    };
    let range = match written {
        Some(written) => ports(written),
        None => port.map(|port| (port, port)),
    };
    let range = range.filter(|(first, last)| last - first < MAX_PORTS);
    range.into_iter().flat_map(|(first, last)| first..=last).filter_map(|port| bind(host, port)).collect()
}
