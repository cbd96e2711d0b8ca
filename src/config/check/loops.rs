//! Forwarding loops: backends that are listeners of the same file. A looping connection opens connections until no
//! descriptor is left.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::binds::{Binds, CanonicalAddress};
use super::{Checker, copied, value};
use crate::config::located::Located;
use crate::config::model::BackendAddress;
use crate::config::raw::{RawConfig, RawPool};
use crate::config::report::{Diagnostic, Severity, shown};
use crate::config::scalars_serde::Int;
use crate::config::tree::NodeId;

/// From a listener through a pool to the listener that one of its backends is.
struct Hop<'r> {
    from: usize,
    to: usize,
    pool: &'r str,
    /// The backend's address.
    at: NodeId,
    /// The bind that accepts its connections.
    bind: NodeId,
    /// Whether any connection of the listener may reach the backend: no route, host name or backup decides.
    certain: bool,
    /// Whether the next listener gets the same bytes or the same requests, and so routes the same.
    same_bytes: bool,
}

impl Checker<'_> {
    /// Reports forwarding loops.
    pub(super) fn loops(&mut self, raw: &RawConfig, binds: &Binds) {
        let listeners = value(raw.listeners.as_ref()).map_or(&[][..], |(list, _)| list);
        let hops = self.hops(raw, binds);
        let mut by_listener: HashMap<usize, Vec<&Hop<'_>>> = HashMap::new();
        for hop in &hops {
            by_listener.entry(hop.from).or_default().push(hop);
        }
        let name = |index: usize| {
            let listener = listeners.get(index).and_then(|listener| value(Some(listener)));
            let name = listener.and_then(|(listener, _)| value(listener.name.as_ref()));
            shown(name.map_or("?", |(name, _)| name)).to_string()
        };
        let mut reported: HashSet<NodeId> = HashSet::new();
        // Certain loops first: an uncertain one may be a part of one.
        for certain in [true, false] {
            for hop in &hops {
                if reported.contains(&hop.at) {
                    continue;
                }
                let Some(way) = way_back(hop, &by_listener, certain) else { continue };
                reported.insert(hop.at);
                reported.extend(way.iter().map(|hop| hop.at));
                let diagnostic = match way.as_slice() {
                    [] if certain => {
                        Diagnostic::new(format!("forwarding loop: this is the address of listener `{}`", name(hop.to)))
                    }
                    [] => Diagnostic::new(format!(
                        "possible forwarding loop: this may be the address of listener `{}`",
                        name(hop.to)
                    )),
                    way => {
                        let step = |hop: &Hop<'_>| format!(" -> pool {} -> listener {}", shown(hop.pool), name(hop.to));
                        let mut steps = format!("listener {}{}", name(hop.from), step(hop));
                        way.iter().for_each(|hop| steps.push_str(&step(hop)));
                        let what = if certain { "forwarding loop" } else { "possible forwarding loop" };
                        Diagnostic::new(format!("{what}: {steps}"))
                    }
                };
                let diagnostic =
                    diagnostic.hint("use the address of the server, not one that a listener of this file binds");
                let diagnostic = self.located(hop.at, diagnostic);
                let diagnostic = diagnostic.related(self.tree.span(hop.bind), "bound here");
                let severity = if certain { Severity::Error } else { Severity::Warning };
                self.diagnostics.push(Diagnostic { severity, ..diagnostic });
            }
        }
    }

    fn hops<'r>(&self, raw: &'r RawConfig, binds: &Binds) -> Vec<Hop<'r>> {
        let mut pools: HashMap<&str, &'r RawPool> = HashMap::new();
        for pool in value(raw.pools.as_ref()).map_or(&[][..], |(list, _)| list) {
            let Some((pool, _)) = value(Some(pool)) else { continue };
            if let Some((name, _)) = value(pool.name.as_ref()) {
                pools.entry(name).or_insert(pool);
            }
        }
        // Computed once per pool, but for what depends on the listener's ports.
        let mut doors: HashMap<&str, Vec<Door>> = HashMap::new();
        let mut hops = Vec::new();
        for (from, listener) in value(raw.listeners.as_ref()).map_or(&[][..], |(list, _)| list).iter().enumerate() {
            let Some((listener, _)) = value(Some(listener)) else { continue };
            if !binds.has(copied(listener.protocol.as_ref())) {
                continue;
            }
            let routes = value(listener.routes.as_ref()).map_or(&[][..], |(list, _)| list);
            let by_route = routes.iter().filter_map(|route| value(Some(route))).flat_map(|(route, _)| {
                let shares = value(route.split.as_ref()).map_or(&[][..], |(shares, _)| shares);
                let shares = shares.iter().filter_map(|share| value(Some(share))).map(|(share, _)| share.pool.as_ref());
                std::iter::once(route.pool.as_ref()).chain(shares)
            });
            // Requests go on with other fields, X-Forwarded-For among them.
            let by_header = routes.iter().filter_map(|route| value(Some(route))).any(|(route, _)| {
                value(route.r#match.as_ref()).is_some_and(|(conditions, _)| conditions.header.is_some())
            });
            let mut seen: HashSet<&str> = HashSet::new();
            for key in std::iter::once(listener.pool.as_ref()).chain(by_route) {
                let Some((name, _)) = value(key) else { continue };
                let Some(pool) = pools.get(name.as_str()).filter(|_| seen.insert(name)) else { continue };
                let fixed = doors.entry(name).or_insert_with(|| self.doors(pool, binds, None));
                let of_ports = self.doors(pool, binds, Some(from));
                for door in fixed.iter().chain(&of_ports) {
                    hops.push(Hop {
                        from,
                        to: door.listener,
                        pool: name,
                        at: door.at,
                        bind: door.bind,
                        certain: door.certain && routes.is_empty(),
                        same_bytes: door.certain && !by_header && listener.tls.is_none() && pool.tls.is_none(),
                    });
                }
            }
        }
        hops
    }

    /// The backends of a pool that are listeners: those with a port of their own, or those that take the port of a listener's
    /// client.
    fn doors(&self, pool: &RawPool, binds: &Binds, from: Option<usize>) -> Vec<Door> {
        let mut doors = Vec::new();
        for backend in value(pool.backends.as_ref()).map_or(&[][..], |(list, _)| list) {
            let Some((backend, _)) = value(Some(backend)) else { continue };
            let Some((target, at)) = value(backend.address.as_ref()) else { continue };
            let is_off = matches!(copied(backend.weight.as_ref()), Some(Int(0)));
            if is_off || target.address.has_client_port() != from.is_some() {
                continue;
            }
            let ports = |fixed: u16| match from {
                Some(listener) => binds.ports_of(listener).collect(),
                None => vec![fixed],
            };
            let is_backup = is_true(backend.backup.as_ref());
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let (places, is_known) = match &target.address {
                BackendAddress::Ip(address) => {
                    let at = |port| {
                        let mut address = *address;
                        address.set_port(port);
                        CanonicalAddress::of(&address)
                    };
                    (ports(address.port()).into_iter().map(at).collect(), true)
                }
                BackendAddress::Unix(path) => (vec![CanonicalAddress::Unix(self.files.real(path))], true),
                // RFC 6761, 6.3. The system's resolver chooses one of the two.
                BackendAddress::Name { host, port } if is_localhost(host) => {
                    let at = |port: u16| loopback.map(|ip| CanonicalAddress::Tcp(ip, 0, port));
                    (ports(*port).into_iter().flat_map(at).collect(), false)
                }
                BackendAddress::Name { .. } => continue,
            };
            let mut seen = HashSet::new();
            for place in &places {
                let Some(bind) = binds.taking(place) else { continue };
                let is_here = match place {
                    // A wildcard accepts connections to local addresses only.
                    CanonicalAddress::Tcp(ip, ..) => bind.place == *place || self.files.is_own(*ip),
                    CanonicalAddress::Unix(_) => true,
                };
                if let Some(listener) = bind.listener.filter(|listener| is_here && seen.insert(*listener)) {
                    doors.push(Door { listener, at, bind: bind.at, certain: is_known && !is_backup });
                }
            }
        }
        doors
    }
}

/// A backend that is a listener.
struct Door {
    listener: usize,
    at: NodeId,
    bind: NodeId,
    certain: bool,
}

fn is_true(key: Option<&Located<bool>>) -> bool {
    copied(key) == Some(true)
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The shortest path from the end of a hop to its beginning; empty if it ends where it begins.
fn way_back<'h, 'r>(
    hop: &Hop<'r>,
    by_listener: &HashMap<usize, Vec<&'h Hop<'r>>>,
    certain: bool,
) -> Option<Vec<&'h Hop<'r>>> {
    if hop.from == hop.to {
        return (hop.certain || hop.same_bytes || !certain).then(Vec::new);
    }
    if certain && !hop.certain {
        return None;
    }
    let mut came_by: HashMap<usize, &'h Hop<'r>> = HashMap::new();
    let mut next = VecDeque::from([hop.to]);
    while let Some(listener) = next.pop_front() {
        for step in by_listener.get(&listener).into_iter().flatten().filter(|step| step.certain || !certain) {
            if step.to == hop.to || came_by.contains_key(&step.to) {
                continue;
            }
            came_by.insert(step.to, step);
            if step.to == hop.from {
                let mut way = Vec::new();
                let mut at = hop.from;
                while at != hop.to {
                    let step = came_by.get(&at)?;
                    way.push(*step);
                    at = step.from;
                }
                way.reverse();
                return Some(way);
            }
            next.push_back(step.to);
        }
    }
    None
}
