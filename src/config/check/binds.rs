//! Overlapping addresses of listeners and the stats port, of which the second bind would fail.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Checker, copied, value};
use crate::config::located::Located;
use crate::config::model::ListenAddress;
use crate::config::raw::{RawConfig, RawProtocol};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::BindAddress;
use crate::config::scalars_serde::Switch;
use crate::config::tree::NodeId;
use crate::net::addr::Address;

/// Most ports that the ranges of a configuration have together. Each is a socket, and an upgrade hands all of them over.
const MAX_RANGE_PORTS: usize = 16_384;

/// One address of the file, in the order in which they are bound. A range of ports is several.
pub(super) struct Bind {
    /// Index of the listener; `None` is the admin interface.
    pub(super) listener: Option<usize>,
    pub(super) address: Address,
    pub(super) at: NodeId,
    /// As the kernel compares it.
    pub(super) place: CanonicalAddress,
    reuse: Switch,
    /// Whether it may be bound while the host does not have it.
    is_foreign: bool,
    /// The address as written.
    written: Arc<str>,
}

/// An address in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CanonicalAddress {
    /// Address, scope id and port. Never an IPv4-mapped IPv6 address.
    Tcp(IpAddr, u32, u16),
    Unix(PathBuf),
}

impl CanonicalAddress {
    pub(super) fn of(address: &SocketAddr) -> CanonicalAddress {
        let scope = match address {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        CanonicalAddress::Tcp(address.ip().to_canonical(), scope, address.port())
    }
}

impl Bind {
    /// The port of a wildcard address.
    fn wildcard(&self) -> Option<u16> {
        match self.place {
            CanonicalAddress::Tcp(ip, _, port) if ip.is_unspecified() => Some(port),
            _ => None,
        }
    }
}

/// All binds, by address and by wildcard port.
pub(super) struct Binds {
    /// Of UDP.
    datagrams: bool,
    pub(super) all: Vec<Bind>,
    exact: HashMap<CanonicalAddress, usize>,
    wild: HashMap<u16, Vec<usize>>,
    by_port: HashMap<u16, Vec<usize>>,
}

impl Binds {
    /// Whether a listener of this protocol is among them.
    pub(super) fn has(&self, protocol: Option<RawProtocol>) -> bool {
        (protocol == Some(RawProtocol::Udp)) == self.datagrams
    }

    /// The bind that accepts connections to an address.
    pub(super) fn taking(&self, place: &CanonicalAddress) -> Option<&Bind> {
        let exact = self.exact.get(place);
        let wild = || match place {
            CanonicalAddress::Tcp(ip, _, port) => self.wild.get(port)?.iter().find(|wild| self.covers(**wild, *ip)),
            CanonicalAddress::Unix(_) => None,
        };
        exact.or_else(wild).and_then(|index| self.all.get(*index))
    }

    /// Whether a wildcard covers an address on its port. `[::]` of a listener covers IPv4 unless a listener binds `0.0.0.0`, as
    /// in `app::sockets`; that of the admin interface, unless the interface does.
    fn covers(&self, wild: usize, ip: IpAddr) -> bool {
        let Some(bind) = self.all.get(wild) else { return false };
        match bind.place {
            CanonicalAddress::Tcp(IpAddr::V4(_), ..) => ip.is_ipv4(),
            CanonicalAddress::Tcp(IpAddr::V6(_), _, port) => {
                ip.is_ipv6() || !self.has_v4_any(port, bind.listener.is_some())
            }
            CanonicalAddress::Unix(_) => false,
        }
    }

    fn has_v4_any(&self, port: u16, of_listener: bool) -> bool {
        let v4 = Address::Tcp(SocketAddr::from(([0, 0, 0, 0], port)));
        let is_it = |bind: &Bind| bind.listener.is_some() == of_listener && bind.address == v4;
        self.wild.get(&port).is_some_and(|wild| wild.iter().any(|index| is_it(&self.all[*index])))
    }

    /// An earlier bind that makes this one fail.
    fn before(&self, index: usize) -> Option<usize> {
        let bind = self.all.get(index)?;
        if let Some(first) = self.exact.get(&bind.place).filter(|first| **first < index) {
            return Some(*first);
        }
        let CanonicalAddress::Tcp(ip, _, port) = bind.place else { return None };
        let is_in_the_way = |first: usize| {
            let CanonicalAddress::Tcp(of_first, ..) = self.all[first].place else { return false };
            let overlap = (bind.wildcard().is_some() && self.covers(index, of_first))
                || (self.all[first].wildcard().is_some() && self.covers(first, ip));
            overlap && !shares(&self.all[first], bind)
        };
        let candidates = if bind.wildcard().is_some() { &self.by_port } else { &self.wild };
        candidates.get(&port)?.iter().copied().take_while(|first| *first < index).find(|first| is_in_the_way(*first))
    }

    /// The ports of a listener.
    pub(super) fn ports_of(&self, listener: usize) -> impl Iterator<Item = u16> {
        let port = |bind: &Bind| match bind.place {
            CanonicalAddress::Tcp(_, _, port) => Some(port),
            CanonicalAddress::Unix(_) => None,
        };
        self.all.iter().filter(move |bind| bind.listener == Some(listener)).filter_map(port)
    }
}

/// Whether both can listen by SO_REUSEPORT, where the more specific address wins. The second must set it; the first has
/// it unless `reuse_port` is false.
fn shares(first: &Bind, second: &Bind) -> bool {
    first.listener.is_some() && second.listener.is_some() && first.reuse != Switch::Off && second.reuse == Switch::On
}

impl Checker<'_> {
    /// Every bind that could be read: of UDP, or all others.
    pub(super) fn binds(&mut self, raw: &RawConfig, datagrams: bool) -> Binds {
        let (mut all, mut range_ports) = (Vec::new(), 0);
        for (index, listener) in value(raw.listeners.as_ref()).map_or(&[][..], |(list, _)| list).iter().enumerate() {
            let Some((listener, _)) = value(Some(listener)) else { continue };
            let protocol = copied(listener.protocol.as_ref());
            if (protocol == Some(RawProtocol::Udp)) != datagrams {
                continue;
            }
            let socket = value(listener.socket.as_ref()).map(|(socket, _)| socket);
            let reuse = socket.and_then(|socket| value(socket.reuse_port.as_ref())).map_or(Switch::Auto, |(it, _)| *it);
            let is_set = |key: &Option<Located<bool>>| copied(key.as_ref()) == Some(true);
            let is_foreign = socket.is_some_and(|socket| is_set(&socket.transparent) || is_set(&socket.freebind));
            let binds = value(listener.bind.as_ref()).map_or(&[][..], |(list, _)| &list.0);
            for bind in binds {
                let Some((BindAddress(bind), at)) = value(Some(bind)) else { continue };
                if bind.is_range() {
                    range_ports += bind.ports().map_or(0, Iterator::count);
                    if range_ports > MAX_RANGE_PORTS {
                        let what = format!("more than {MAX_RANGE_PORTS} ports in ranges");
                        self.error(at, Diagnostic::new(what).hint("each port is a socket: use smaller ranges"));
                        break;
                    }
                }
                let written: Arc<str> = bind.to_string().into();
                for address in bind.addresses() {
                    let place = self.place(&address);
                    let written = Arc::clone(&written);
                    all.push(Bind { listener: Some(index), address, at, place, reuse, is_foreign, written });
                }
            }
        }
        if let (Some((admin, at)), false) = (value(raw.admin.as_ref()), datagrams) {
            let listed = value(admin.bind.as_ref()).map_or(&[][..], |(list, _)| &list.0);
            // An unreadable one is reported elsewhere, and so is a range.
            let listed = listed.iter().filter_map(|bind| match value(Some(bind)) {
                Some((BindAddress(ListenAddress::One(address)), at)) => Some((address.clone(), at)),
                _ => None,
            });
            let default = admin.bind.is_none().then(|| (super::admin::default_address(), at));
            for (address, at) in listed.chain(default) {
                let (place, written) = (self.place(&address), address.to_string().into());
                let reuse = Switch::Off;
                all.push(Bind { listener: None, address, at, place, reuse, is_foreign: false, written });
            }
        }
        // Each bind of port 0 gets a different port.
        all.retain(|bind| !matches!(bind.place, CanonicalAddress::Tcp(_, _, 0)));
        let mut binds = Binds { datagrams, all, exact: HashMap::new(), wild: HashMap::new(), by_port: HashMap::new() };
        for (index, bind) in binds.all.iter().enumerate() {
            binds.exact.entry(bind.place.clone()).or_insert(index);
            if let CanonicalAddress::Tcp(_, _, port) = bind.place {
                binds.by_port.entry(port).or_default().push(index);
            }
            if let Some(port) = bind.wildcard() {
                binds.wild.entry(port).or_default().push(index);
            }
        }
        binds
    }

    fn place(&self, address: &Address) -> CanonicalAddress {
        match address {
            Address::Tcp(address) => CanonicalAddress::of(address),
            Address::Unix(path) => CanonicalAddress::Unix(self.files.real(path)),
        }
    }

    /// Reports binds that overlap an earlier one: of two ranges, the first port.
    pub(super) fn overlaps(&mut self, binds: &Binds) {
        let mut reported = HashSet::new();
        for (index, bind) in binds.all.iter().enumerate() {
            let Some(first) = binds.before(index).and_then(|first| binds.all.get(first)) else { continue };
            if !reported.insert((bind.at, first.at)) {
                continue;
            }
            let (address, other) = (shown(&bind.written).to_string(), shown(&first.written).to_string());
            let hint = match bind.listener {
                Some(_) => "an address can be bound by one listener only",
                None => "the stats port needs an address of its own",
            };
            let is_range = |bind: &Bind| *bind.written != *bind.address.to_string();
            let (what, hint) = if is_range(bind) || is_range(first) {
                // The one that is no wildcard.
                let shared = if bind.wildcard().is_some() { &first.address } else { &bind.address };
                (format!("`{address}` overlaps `{other}`: both take connections to {shared}"), hint.to_owned())
            } else if bind.address == first.address {
                (format!("`{address}` is bound twice"), hint.to_owned())
            } else if bind.place == first.place {
                (format!("`{address}` is bound twice: it is the same as `{other}`"), hint.to_owned())
            } else {
                let (all, one) = if first.wildcard().is_some() { (&other, &address) } else { (&address, &other) };
                let what = format!("`{address}` overlaps `{other}`: the second bind would fail");
                (what, format!("`{all}` also accepts connections to `{one}`: keep one of the two, or use another port"))
            };
            self.duplicate(bind.at, first.at, what, &hint);
        }
    }

    /// Checks that the host has the directories of unix sockets, and the addresses.
    pub(super) fn bindable(&mut self, binds: &Binds) {
        let mut looked_at = HashSet::new();
        for bind in binds.all.iter().filter(|bind| looked_at.insert(bind.at)) {
            match &bind.address {
                Address::Unix(path) => self.socket_file(path, bind.at),
                // The interface is checked when the address is parsed.
                Address::Tcp(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {}
                Address::Tcp(_) if bind.is_foreign => {}
                Address::Tcp(address) => {
                    let hint = match bind.listener {
                        Some(_) => {
                            "see `ip address`; for an address that comes and goes: `socket: { freebind: true }`, for those of \
                             other hosts: `transparent: true`"
                        }
                        None => "see `ip address`",
                    };
                    self.own_address(address.ip(), bind.at, hint);
                }
            }
        }
    }
}
