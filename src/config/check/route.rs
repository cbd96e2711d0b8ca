//! `listeners[].routes`.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;

use super::references::Pools;
use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::{ListenerTls, RouteConfig, Sniff};
use crate::config::raw::{RawListener, RawMatch};
use crate::config::report::Diagnostic;
use crate::config::scalars::{HostRule, NameRule, PathPrefix};
use crate::config::tree::NodeId;
use crate::net::name::NamePattern;

/// What `match` says.
struct Conditions {
    sni: Vec<NamePattern>,
    alpn: Vec<Arc<str>>,
    host: Vec<NamePattern>,
    path_prefix: Vec<Arc<str>>,
}

impl Checker<'_> {
    /// A listener's valid routes in their order, with their nodes.
    pub(super) fn routes(
        &mut self,
        raw: &RawListener,
        owner: NodeId,
        pools: &mut Pools<'_>,
    ) -> Vec<(RouteConfig, NodeId)> {
        if raw.routes.is_none() && self.is_typo_of(owner, "routes") {
            pools.unclear();
        }
        let Some(Located { value: Some(list), .. }) = &raw.routes else {
            if raw.routes.is_some() {
                pools.unclear();
            }
            return Vec::new();
        };
        let reads_requests = match &raw.sniff {
            Some(key) => !matches!(key.value, Some(Sniff::Off)),
            None => self.is_typo_of(owner, "sniff"),
        };
        let mut routes = Vec::with_capacity(list.len());
        for element in list {
            let Some((typed, at)) = value(Some(element)) else {
                pools.unclear();
                continue;
            };
            let pool = self.pool_of(typed.pool.as_ref(), at, pools);
            let hint = "match: the conditions, such as { sni: [\"www.example.com\"] }";
            let given = self.required(typed.r#match.as_ref(), "match", at, hint);
            let conditions = given.and_then(|(given, at)| self.conditions(given, at, reads_requests));
            if let (Some(conditions), Some(pool)) = (conditions, pool) {
                let Conditions { sni, alpn, host, path_prefix } = conditions;
                if let (Some(key), None) = (&typed.pool, &raw.tls)
                    && pools.speaks_tls(pool)
                {
                    let diagnostic =
                        Diagnostic::new("TLS inside TLS: this route passes TLS through, and the pool has `tls`");
                    self.warning(
                        key.at,
                        diagnostic.hint("terminate TLS by `tls` of the listener, or use a pool without `tls`"),
                    );
                }
                routes.push((RouteConfig { sni, alpn, host, path_prefix, pool }, at));
            }
        }
        routes
    }

    /// `None` if one is invalid, which is reported.
    fn conditions(&mut self, raw: &RawMatch, at: NodeId, reads_requests: bool) -> Option<Conditions> {
        let misspelt = ["sni", "alpn", "host", "path_prefix"].iter().any(|key| self.is_typo_of(at, key));
        if raw.sni.is_none() && raw.alpn.is_none() && raw.host.is_none() && raw.path_prefix.is_none() {
            if !misspelt {
                let diagnostic = Diagnostic::new("no condition: the route would take every connection");
                self.error(
                    at,
                    diagnostic.hint("connections that match no route go to the listener's `pool`: name the pool there"),
                );
            }
            return None;
        }
        let needs_request = raw.host.as_ref().map(|key| key.at).or(raw.path_prefix.as_ref().map(|key| key.at));
        if let (Some(at), false) = (needs_request, reads_requests) {
            let diagnostic = Diagnostic::new("requires `sniff: http`");
            self.error(at, diagnostic.hint("add it to the listener, beside `routes`"));
        }
        let sni = self.listed(raw.sni.as_ref(), |NameRule(name)| name.clone());
        let host = self.listed(raw.host.as_ref(), |HostRule(name)| name.clone());
        let path_prefix = self.listed(raw.path_prefix.as_ref(), |PathPrefix(path)| path.clone());
        let alpn = match &raw.alpn {
            Some(alpn) if self.is_empty(alpn) => None,
            alpn => self.protocols(alpn.as_ref()),
        };
        let conditions = Conditions { sni: sni?, alpn: alpn?, host: host?, path_prefix: path_prefix? };
        (!misspelt).then_some(conditions)
    }

    /// The elements of a list that must not be empty; none if it is absent.
    fn listed<T: Eq + Hash + Display, U>(
        &mut self,
        key: Option<&Located<Vec<Located<T>>>>,
        meant: impl Fn(&T) -> U,
    ) -> Option<Vec<U>> {
        let Some(list) = key else { return Some(Vec::new()) };
        if self.is_empty(list) {
            return None;
        }
        let (elements, _) = value(Some(list))?;
        let elements = self.distinct(elements)?;
        Some(elements.into_iter().map(|(element, _)| meant(element)).collect())
    }

    /// Reports an empty list.
    fn is_empty<T>(&mut self, list: &Located<Vec<Located<T>>>) -> bool {
        let Some(([], at)) = value(Some(list)).map(|(elements, at)| (elements.as_slice(), at)) else { return false };
        let diagnostic = Diagnostic::new("the list is empty: the route would match nothing");
        self.error(at, diagnostic.hint("remove the key to match any"));
        true
    }

    /// Warns of routes that never match. With `tls`, the protocol of a connection is one of its `alpn`.
    pub(super) fn dead_routes(&mut self, routes: &[(RouteConfig, NodeId)], tls: Option<&ListenerTls>) {
        let mut earlier = Earlier::default();
        for (index, (route, at)) in routes.iter().enumerate() {
            if let Some((first, first_at)) = earlier.covers(route, routes).and_then(|index| routes.get(index)) {
                let diagnostic = if covers(route, first) {
                    Diagnostic::new("never matches: an earlier route is identical")
                        .hint("first match wins: remove one of the two")
                } else {
                    Diagnostic::new("never matches: an earlier route takes all of its connections")
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
            } else if tls.is_none() && route.needs_request() && route.needs_tls() {
                let diagnostic =
                    Diagnostic::new("never matches: it requires both TLS passthrough and a request in plain text")
                        .hint("add `tls` to the listener: requests inside TLS passthrough are encrypted");
                self.warning(*at, diagnostic);
            }
            earlier.add(index, route);
        }
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

    /// The first route that alone matches all connections of `route`.
    fn covers(&self, route: &RouteConfig, routes: &[(RouteConfig, NodeId)]) -> Option<usize> {
        let candidates = self.by_server_name.candidates(&route.sni).chain(self.by_host.candidates(&route.host));
        candidates.filter(|index| routes.get(*index).is_some_and(|(first, _)| covers(first, route))).min()
    }
}

fn covers(first: &RouteConfig, second: &RouteConfig) -> bool {
    let name = |names: &[NamePattern], name: &NamePattern| {
        names.contains(name) || wildcard_over(name).is_some_and(|wildcard| names.contains(&wildcard))
    };
    covers_all(&first.sni, &second.sni, name)
        && covers_all(&first.alpn, &second.alpn, <[Arc<str>]>::contains)
        && covers_all(&first.host, &second.host, name)
        && covers_all(&first.path_prefix, &second.path_prefix, |prefixes, path| {
            prefixes.iter().any(|prefix| path.starts_with(&**prefix))
        })
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
