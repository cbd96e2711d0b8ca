//! Overlapping addresses of listeners and the stats port, of which the second bind would fail.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Checker, copied, value};
use crate::config::raw::RawConfig;
use crate::config::report::shown;
use crate::config::scalars::BindAddress;
use crate::config::scalars_serde::Switch;
use crate::config::tree::NodeId;
use crate::net::addr::Address;

/// One bind of the file, in the order in which they are bound.
pub(super) struct Bind {
    /// Index of the listener; `None` is the stats port.
    pub(super) listener: Option<usize>,
    pub(super) address: Address,
    pub(super) at: NodeId,
    /// As the kernel compares it.
    pub(super) place: CanonicalAddress,
    reuse: Switch,
    transparent: bool,
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
    pub(super) all: Vec<Bind>,
    exact: HashMap<CanonicalAddress, usize>,
    wild: HashMap<u16, Vec<usize>>,
}

impl Binds {
    /// The bind that accepts connections to an address.
    pub(super) fn taking(&self, place: &CanonicalAddress) -> Option<&Bind> {
        let exact = self.exact.get(place);
        let wild = || match place {
            CanonicalAddress::Tcp(ip, _, port) => self.wild.get(port)?.iter().find(|wild| self.covers(**wild, *ip)),
            CanonicalAddress::Unix(_) => None,
        };
        exact.or_else(wild).and_then(|index| self.all.get(*index))
    }

    /// Whether a wildcard covers an address on its port. `[::]` covers IPv4 unless a listener binds `0.0.0.0`, as in
    /// `app::sockets`. The stats port's always does.
    fn covers(&self, wild: usize, ip: IpAddr) -> bool {
        let Some(bind) = self.all.get(wild) else { return false };
        match bind.place {
            CanonicalAddress::Tcp(IpAddr::V4(_), ..) => ip.is_ipv4(),
            CanonicalAddress::Tcp(IpAddr::V6(_), _, port) => {
                ip.is_ipv6() || !(bind.listener.is_some() && self.has_v4_any(port))
            }
            CanonicalAddress::Unix(_) => false,
        }
    }

    fn has_v4_any(&self, port: u16) -> bool {
        let v4 = Address::Tcp(SocketAddr::from(([0, 0, 0, 0], port)));
        self.wild.get(&port).is_some_and(|wild| {
            wild.iter().any(|index| self.all[*index].listener.is_some() && self.all[*index].address == v4)
        })
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
        let same_port =
            |first: &usize| matches!(self.all[*first].place, CanonicalAddress::Tcp(_, _, other) if other == port);
        match bind.wildcard() {
            Some(_) => (0..index).filter(same_port).find(|first| is_in_the_way(*first)),
            None => {
                self.wild.get(&port)?.iter().copied().filter(|first| *first < index).find(|first| is_in_the_way(*first))
            }
        }
    }
}

/// Whether both can listen by SO_REUSEPORT, where the more specific address wins. The second must set it; the first has
/// it unless `reuse_port` is false.
fn shares(first: &Bind, second: &Bind) -> bool {
    first.listener.is_some() && second.listener.is_some() && first.reuse != Switch::Off && second.reuse == Switch::On
}

impl Checker<'_> {
    /// Every bind that could be read.
    pub(super) fn binds(&self, raw: &RawConfig) -> Binds {
        let mut all = Vec::new();
        for (index, listener) in value(raw.listeners.as_ref()).map_or(&[][..], |(list, _)| list).iter().enumerate() {
            let Some((listener, _)) = value(Some(listener)) else { continue };
            let socket = value(listener.socket.as_ref()).map(|(socket, _)| socket);
            let reuse = socket.and_then(|socket| value(socket.reuse_port.as_ref())).map_or(Switch::Auto, |(it, _)| *it);
            let transparent = socket.and_then(|socket| copied(socket.transparent.as_ref())) == Some(true);
            let binds = value(listener.bind.as_ref()).map_or(&[][..], |(list, _)| &list.0);
            for bind in binds {
                if let Some((BindAddress(address), at)) = value(Some(bind)) {
                    let (address, place) = (address.clone(), self.place(address));
                    all.push(Bind { listener: Some(index), address, at, place, reuse, transparent });
                }
            }
        }
        if let Some((admin, at)) = value(raw.admin.as_ref()) {
            let default = || (super::default_admin(), at);
            let bind = value(admin.bind.as_ref()).map(|(BindAddress(address), at)| (address.clone(), at));
            // An unreadable one is reported elsewhere.
            if admin.bind.is_none() || bind.is_some() {
                let (address, at) = bind.unwrap_or_else(default);
                let place = self.place(&address);
                all.push(Bind { listener: None, address, at, place, reuse: Switch::Off, transparent: false });
            }
        }
        // Each bind of port 0 gets a different port.
        all.retain(|bind| !matches!(bind.place, CanonicalAddress::Tcp(_, _, 0)));
        let (mut exact, mut wild) = (HashMap::new(), HashMap::<u16, Vec<usize>>::new());
        for (index, bind) in all.iter().enumerate() {
            exact.entry(bind.place.clone()).or_insert(index);
            if let Some(port) = bind.wildcard() {
                wild.entry(port).or_default().push(index);
            }
        }
        Binds { all, exact, wild }
    }

    fn place(&self, address: &Address) -> CanonicalAddress {
        match address {
            Address::Tcp(address) => CanonicalAddress::of(address),
            Address::Unix(path) => CanonicalAddress::Unix(self.files.real(path)),
        }
    }

    /// Reports binds that overlap an earlier one.
    pub(super) fn overlaps(&mut self, binds: &Binds) {
        for (index, bind) in binds.all.iter().enumerate() {
            let Some(first) = binds.before(index).and_then(|first| binds.all.get(first)) else { continue };
            let (address, other) =
                (shown(&bind.address.to_string()).to_string(), shown(&first.address.to_string()).to_string());
            let hint = match bind.listener {
                Some(_) => "an address can be bound by one listener only",
                None => "the stats port needs an address of its own",
            };
            let (what, hint) = if bind.address == first.address {
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
        for bind in &binds.all {
            match &bind.address {
                Address::Unix(path) => self.socket_file(path, bind.at),
                // The interface is checked when the address is parsed.
                Address::Tcp(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {}
                Address::Tcp(_) if bind.transparent => {}
                Address::Tcp(address) => {
                    let hint = match bind.listener {
                        Some(_) => "see `ip address`; `socket: { transparent: true }` permits non-local addresses",
                        None => "see `ip address`",
                    };
                    self.own_address(address.ip(), bind.at, hint);
                }
            }
        }
    }
}
