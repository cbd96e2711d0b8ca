//! Routes that never match, because of earlier ones or of what the listener negotiates.

use std::collections::HashMap;
use std::sync::Arc;

use super::Checker;
use crate::config::model::{HeaderMatch, ListenerTls, RouteConfig, StartTls};
use crate::config::report::Diagnostic;
use crate::config::tree::NodeId;
use crate::net::country::Country;
use crate::net::name::NamePattern;
use crate::net::networks::NetworkSet;
use crate::net::protocol::ClientProtocol;

impl Checker<'_> {
    /// Warns of routes that never match. With `tls`, the protocol of a connection is one of its `alpn`; with `by_request`,
    /// path prefixes end at a segment.
    pub(super) fn dead_routes(
        &mut self,
        routes: &[(RouteConfig, NodeId)],
        tls: Option<&ListenerTls>,
        by_request: bool,
    ) {
        let mut earlier = Earlier::default();
        let networks: Vec<NetworkSet> =
            routes.iter().map(|(route, _)| route.client.iter().copied().collect()).collect();
        let covers = |first: usize, second: usize| match (routes.get(first), routes.get(second), networks.get(first)) {
            (Some((first, _)), Some((second, _)), Some(networks)) => {
                covers(first, networks, second, by_request) && covers_protocol(first, second, tls)
            }
            _ => false,
        };
        // An error has refused them.
        let is_refused =
            |route: &RouteConfig| route.needs_bytes() && tls.is_some_and(|tls| tls.starttls == Some(StartTls::Mysql));
        let checked = routes.iter().enumerate().filter(|(_, (route, _))| !is_refused(route));
        for (index, (route, at)) in checked {
            let first = earlier.candidates(route).filter(|first| covers(*first, index)).min();
            if let Some((place, (_, first_at))) = first.and_then(|first| Some((first, routes.get(first)?))) {
                let diagnostic = if covers(index, place) {
                    Diagnostic::new("never matches: an earlier route is identical")
                        .hint("first match wins: remove one of the two")
                } else {
                    let what = if by_request { "requests" } else { "connections" };
                    Diagnostic::new(format!("never matches: an earlier route takes all of its {what}"))
                        .hint("first match wins: put the more specific route first")
                };
                let diagnostic = self.located(*at, diagnostic).related(self.tree.span(*first_at), "this one");
                self.diagnostics.push(diagnostic.warning());
            } else if let Some(tls) = tls
                && !route.alpn.is_empty()
                && !route.alpn.iter().any(|protocol| tls.alpn.contains(protocol))
            {
                let diagnostic =
                    Diagnostic::new("never matches: the listener's `tls.alpn` has none of these protocols")
                        .hint("with TLS termination, only protocols in `tls.alpn` are negotiated");
                self.warning(*at, diagnostic);
            } else if tls.is_none() && !by_request && route.needs_request() && route.needs_tls() {
                let diagnostic =
                    Diagnostic::new("never matches: it requires both TLS passthrough and a request in plain text")
                        .hint("add `tls` to the listener: requests inside TLS passthrough are encrypted");
                self.warning(*at, diagnostic);
            } else if let Some((why, hint)) = contradiction(route, tls) {
                self.warning(*at, Diagnostic::new(format!("never matches: {why}")).hint(hint));
            } else if !route.path.is_empty()
                && route.path.iter().all(|path| !has_prefix(&route.path_prefix, path, true))
            {
                let diagnostic = Diagnostic::new("never matches: no `path` has a prefix of `path_prefix`");
                self.warning(*at, diagnostic.hint("all conditions must match: remove one of the two"));
            }
            earlier.add(index, route);
        }
    }
}

/// Why the first bytes that a route asks for exclude its other conditions, or what the listener negotiates, and what to do.
fn contradiction(route: &RouteConfig, tls: Option<&ListenerTls>) -> Option<(&'static str, &'static str)> {
    let takes = |protocol| route.protocol.is_empty() || route.protocol.contains(&protocol);
    match tls {
        _ if route.needs_request() && !takes(ClientProtocol::Http) => {
            Some(("host and path_prefix are of HTTP requests", "add http to `protocol`, or remove it"))
        }
        None if route.needs_tls() && !takes(ClientProtocol::Tls) => Some((
            "without `tls` of the listener, sni and alpn are of TLS clients",
            "add tls to `protocol`, or remove it",
        )),
        Some(tls) if tls.starttls.is_some() && !takes(ClientProtocol::Postgres) => {
            Some(("with `starttls: postgres`, every client speaks PostgreSQL", "remove the route"))
        }
        Some(_) if route.protocol == [ClientProtocol::Tls] => Some((
            "with `tls` of the listener, `protocol` is that of the bytes inside TLS",
            "remove `tls` of the listener for TLS passthrough, or `protocol` of the route",
        )),
        _ => None,
    }
}

/// The routes so far, by server name and host.
#[derive(Default)]
struct Earlier<'r> {
    by_server_name: ByName<'r>,
    /// Routes without a server name.
    by_host: ByName<'r>,
}

/// Routes by the names of one condition.
#[derive(Default)]
struct ByName<'r> {
    by_name: HashMap<&'r NamePattern, Vec<usize>>,
    of_any_name: Vec<usize>,
}

impl<'r> ByName<'r> {
    fn add(&mut self, index: usize, names: &'r [NamePattern]) {
        if names.is_empty() {
            self.of_any_name.push(index);
        }
        for name in names {
            self.by_name.entry(name).or_default().push(index);
        }
    }

    /// Routes that may cover all of these names: they match any, or the first.
    fn candidates(&self, names: &[NamePattern]) -> impl Iterator<Item = usize> {
        let named = names.first().into_iter().flat_map(|name| [Some(name.clone()), wildcard_over(name)]).flatten();
        let named = named.filter_map(|name| self.by_name.get(&name)).flatten();
        self.of_any_name.iter().chain(named).copied()
    }
}

impl<'r> Earlier<'r> {
    fn add(&mut self, index: usize, route: &'r RouteConfig) {
        match route.sni.is_empty() {
            true => self.by_host.add(index, &route.host),
            false => self.by_server_name.add(index, &route.sni),
        }
    }

    /// Routes that may match all connections of `route`.
    fn candidates(&self, route: &RouteConfig) -> impl Iterator<Item = usize> {
        self.by_server_name.candidates(&route.sni).chain(self.by_host.candidates(&route.host))
    }
}

/// Whether a route alone matches all connections of another. `networks` are the first one's clients.
fn covers(first: &RouteConfig, networks: &NetworkSet, second: &RouteConfig, by_request: bool) -> bool {
    let name = |names: &[NamePattern], name: &NamePattern| {
        names.contains(name) || wildcard_over(name).is_some_and(|wildcard| names.contains(&wildcard))
    };
    covers_all(&first.sni, &second.sni, name)
        && covers_all(&first.alpn, &second.alpn, <[Arc<str>]>::contains)
        && covers_all(&first.host, &second.host, name)
        && covers_all(&first.path, &second.path, <[Arc<str>]>::contains)
        && covers_path(first, second, by_request)
        && covers_all(&first.method, &second.method, <[Arc<str>]>::contains)
        && first.header.iter().all(|field| second.header.iter().any(|other| covers_header(field, other)))
        && covers_all(&first.client, &second.client, |_, network| networks.covers(network))
        && covers_all(&first.country, &second.country, <[Country]>::contains)
}

/// Whether the prefixes of a route are prefixes of all paths of another.
fn covers_path(first: &RouteConfig, second: &RouteConfig, by_request: bool) -> bool {
    let takes = |prefixes: &[Arc<str>], path: &Arc<str>| has_prefix(prefixes, path, by_request);
    covers_all(&first.path_prefix, &second.path_prefix, takes) || covers_all(&first.path_prefix, &second.path, takes)
}

/// Whether a path has one of the prefixes; by request, one that ends where a segment does.
fn has_prefix(prefixes: &[Arc<str>], path: &str, by_request: bool) -> bool {
    let fits = |prefix: &Arc<str>| {
        let rest = path.strip_prefix(&**prefix);
        rest.is_some_and(|rest| !by_request || rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
    };
    prefixes.is_empty() || prefixes.iter().any(fits)
}

/// Whether a field matches whatever another one does.
fn covers_header(first: &HeaderMatch, second: &HeaderMatch) -> bool {
    first.name == second.name && (first.value.is_none() || first.value == second.value)
}

/// Whether a route takes every protocol that another one takes: the one it asks for, or that its other conditions are of.
fn covers_protocol(first: &RouteConfig, second: &RouteConfig, tls: Option<&ListenerTls>) -> bool {
    let implied = match tls {
        Some(tls) if tls.starttls.is_some() => Some(ClientProtocol::Postgres),
        None if second.needs_tls() => Some(ClientProtocol::Tls),
        _ if second.needs_request() => Some(ClientProtocol::Http),
        _ => None,
    };
    implied.is_some_and(|implied| first.protocol.contains(&implied))
        || covers_all(&first.protocol, &second.protocol, <[ClientProtocol]>::contains)
}

/// Whether a condition covers another. An empty one covers everything.
fn covers_all<T>(first: &[T], second: &[T], takes: impl Fn(&[T], &T) -> bool) -> bool {
    first.is_empty() || !second.is_empty() && second.iter().all(|wanted| takes(first, wanted))
}

/// The wildcard that matches a name.
fn wildcard_over(name: &NamePattern) -> Option<NamePattern> {
    match name {
        NamePattern::Exact(name) => name.split_once('.').map(|(_, parent)| NamePattern::Wildcard(parent.into())),
        NamePattern::Wildcard(_) => None,
    }
}
