//! `listeners[].routes`.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use super::references::Pools;
use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::{NO_ROUTE, RouteConfig, RouteTarget, Sniff, SplitShare};
use crate::config::raw::{RawListener, RawMatch, RawRoute, RawShare};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{CountryCode, HostRule, MethodName, NameRule, Network, PathPrefix, WholePath};
use crate::config::tree::NodeId;

/// Largest weight of a share.
const MAX_WEIGHT: i64 = 1000;

/// Which requests a listener reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestsRead {
    None,
    /// The first one of a connection.
    First,
    Each,
    /// A key could not be read, which is reported.
    Unclear,
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
        let requests = self.requests_read(raw, owner);
        let mut routes = Vec::with_capacity(list.len());
        let mut names: HashMap<&str, NodeId> = HashMap::new();
        for element in list {
            let Some((typed, at)) = value(Some(element)) else {
                pools.unclear();
                continue;
            };
            let name = value(typed.name.as_ref());
            if let Some((name, at)) = name {
                self.route_name(name, at, &mut names);
            }
            let target = self.target(typed, at, pools);
            let hint = "match: the conditions, such as { sni: [\"www.example.com\"] }";
            let given = self.required(typed.r#match.as_ref(), "match", at, hint);
            let is_passthrough = raw.tls.is_none();
            let conditions = given.and_then(|(given, at)| self.conditions(given, at, requests, is_passthrough));
            if let (Some(conditions), Some(target)) = (conditions, target) {
                let name = name.map(|(name, _)| name.as_str().into());
                let route = RouteConfig { name, target, ..conditions };
                let key = typed.pool.as_ref().map(|key| key.at).or(typed.split.as_ref().map(|key| key.at));
                if let (Some(key), true) = (key, is_passthrough && requests != RequestsRead::Each)
                    && route.needs_tls()
                    && route.target.pools().any(|pool| pools.speaks_tls(pool))
                {
                    let diagnostic =
                        Diagnostic::new("TLS inside TLS: this route passes TLS through, and the pool has `tls`");
                    self.warning(
                        key,
                        diagnostic.hint("terminate TLS by `tls` of the listener, or use a pool without `tls`"),
                    );
                }
                routes.push((route, at));
            }
        }
        routes
    }

    fn route_name<'n>(&mut self, name: &'n str, at: NodeId, names: &mut HashMap<&'n str, NodeId>) {
        self.name(name, at);
        if name == NO_ROUTE {
            let diagnostic = Diagnostic::new(format!("`{NO_ROUTE}` is the label of what matches no route"));
            self.error(at, diagnostic.hint("choose another name"));
        }
        match names.get(name) {
            Some(first) => self.duplicate(
                at,
                *first,
                format!("duplicate route name `{}`", shown(name)),
                "route names are unique within a listener",
            ),
            None => drop(names.insert(name, at)),
        }
    }

    fn requests_read(&self, raw: &RawListener, owner: NodeId) -> RequestsRead {
        let sniffs = match &raw.sniff {
            Some(key) => key.value.map(|sniff| sniff == Sniff::Http),
            None => (!self.is_typo_of(owner, "sniff")).then_some(false),
        };
        match (self.balances_requests(raw, owner), sniffs) {
            (Some(true), _) => RequestsRead::Each,
            (None, _) | (_, None) => RequestsRead::Unclear,
            (Some(false), Some(true)) => RequestsRead::First,
            (Some(false), Some(false)) => RequestsRead::None,
        }
    }

    /// Where a route leads: exactly one of `pool`, `split` and `refuse` says so.
    fn target(&mut self, raw: &RawRoute, at: NodeId, pools: &mut Pools<'_>) -> Option<RouteTarget> {
        let refuse = raw.refuse.as_ref().filter(|key| key.value != Some(false));
        let keys = [
            ("pool", raw.pool.as_ref().map(|key| key.at)),
            ("split", raw.split.as_ref().map(|key| key.at)),
            ("refuse", refuse.map(|key| key.at)),
        ];
        let mut given = keys.into_iter().filter_map(|(key, at)| Some((key, at?)));
        if let (Some((first, _)), Some((second, at))) = (given.next(), given.next()) {
            let diagnostic = Diagnostic::new(format!("`{second}` and `{first}` exclude each other"));
            self.error(at, diagnostic.hint("a route leads to one pool, splits clients over several, or refuses them"));
            pools.unclear();
            return None;
        }
        if let Some(key) = refuse {
            return key.value.map(|_| RouteTarget::Refuse);
        }
        if let Some(key) = &raw.split {
            return self.split(key, pools).map(RouteTarget::Split);
        }
        if raw.pool.is_none() {
            if !["pool", "split", "refuse"].iter().any(|key| self.is_typo_of(at, key)) {
                let diagnostic = Diagnostic::new("`pool` is missing");
                self.error(at, diagnostic.hint("name a pool, or give `split` or `refuse: true`"));
            }
            pools.unclear();
            return None;
        }
        self.pool_of(raw.pool.as_ref(), at, pools).map(RouteTarget::Pool)
    }

    fn split(&mut self, key: &Located<Vec<Located<RawShare>>>, pools: &mut Pools<'_>) -> Option<Vec<SplitShare>> {
        let Some((list, at)) = value(Some(key)) else {
            pools.unclear();
            return None;
        };
        let mut shares = Vec::with_capacity(list.len());
        for element in list {
            let Some((raw, at)) = value(Some(element)) else {
                pools.unclear();
                continue;
            };
            let weight = self.number(raw.weight.as_ref(), 0..=MAX_WEIGHT, 1) as u32;
            shares.extend(self.pool_of(raw.pool.as_ref(), at, pools).map(|pool| SplitShare { pool, weight }));
        }
        let hint = "for example: split: [{ pool: stable, weight: 95 }, { pool: canary, weight: 5 }]";
        if list.is_empty() {
            self.error(at, Diagnostic::new("the list is empty: the route would lead nowhere").hint(hint));
        } else if shares.len() == list.len() && shares.iter().all(|share| share.weight == 0) {
            self.error(at, Diagnostic::new("every weight is 0: the route would lead nowhere").hint(hint));
        } else if shares.len() == list.len() {
            return Some(shares);
        }
        None
    }

    /// A route that leads nowhere yet; `None` if a condition is invalid, which is reported.
    fn conditions(
        &mut self,
        raw: &RawMatch,
        at: NodeId,
        requests: RequestsRead,
        is_passthrough: bool,
    ) -> Option<RouteConfig> {
        let RawMatch { sni, alpn, host, path, path_prefix, method, header, client, country, protocol } = raw;
        let keys = [
            ("sni", sni.as_ref().map(|key| key.at)),
            ("alpn", alpn.as_ref().map(|key| key.at)),
            ("host", host.as_ref().map(|key| key.at)),
            ("path", path.as_ref().map(|key| key.at)),
            ("path_prefix", path_prefix.as_ref().map(|key| key.at)),
            ("method", method.as_ref().map(|key| key.at)),
            ("header", header.as_ref().map(|key| key.at)),
            ("client", client.as_ref().map(|key| key.at)),
            ("country", country.as_ref().map(|key| key.at)),
            ("protocol", protocol.as_ref().map(|key| key.at)),
        ];
        let misspelt = keys.iter().any(|(key, _)| self.is_typo_of(at, key));
        if keys.iter().all(|(_, place)| place.is_none()) {
            if !misspelt {
                let diagnostic = Diagnostic::new("no condition: the route would take every connection");
                self.error(
                    at,
                    diagnostic.hint("connections that match no route go to the listener's `pool`: name the pool there"),
                );
            }
            return None;
        }
        for (key, place) in keys {
            if let Some(at) = place {
                self.is_known(key, at, requests, is_passthrough);
            }
        }
        let sni = self.listed(sni.as_ref(), |NameRule(name)| name.clone());
        let host = self.listed(host.as_ref(), |HostRule(name)| name.clone());
        let path = self.listed(path.as_ref(), |WholePath(path)| path.clone());
        let path_prefix = self.listed(path_prefix.as_ref(), |PathPrefix(path)| path.clone());
        let method = self.listed(method.as_ref(), |MethodName(method)| method.clone());
        let header = self.header_matches(header.as_ref());
        let alpn = match alpn {
            Some(alpn) if self.is_empty(alpn) => None,
            alpn => self.protocols(alpn.as_ref()),
        };
        let client = self.listed(client.as_ref(), |Network(network)| *network);
        if let Some(key) = country {
            self.needs_countries(key.at);
        }
        let country = self.listed(country.as_ref(), |CountryCode(country)| *country);
        let protocol = self.listed(protocol.as_ref(), |protocol| *protocol);
        let conditions = RouteConfig {
            name: None,
            sni: sni?,
            alpn: alpn?,
            host: host?,
            path: path?,
            path_prefix: path_prefix?,
            method: method?,
            header: header?,
            client: client?.into(),
            country: country?,
            protocol: protocol?,
            target: RouteTarget::Refuse,
        };
        (!misspelt).then_some(conditions)
    }

    /// Refuses a condition by what the listener does not read.
    fn is_known(&mut self, key: &str, at: NodeId, requests: RequestsRead, is_passthrough: bool) {
        let (what, hint) = match (key, requests) {
            ("path" | "method" | "header", RequestsRead::None | RequestsRead::First) => (
                "requires `protocol: http`",
                "set it at the listener: `sniff: http` reads the first request of a connection only, and routes by `host` and `path_prefix`",
            ),
            ("host" | "path_prefix", RequestsRead::None) => (
                "requires `protocol: http` or `sniff: http`",
                "add one to the listener, beside `routes`: the first routes each request, the second each connection by its first one",
            ),
            ("protocol", RequestsRead::Each) => {
                ("has no effect: with `protocol: http` at the listener, every client speaks HTTP", "remove it")
            }
            ("sni" | "alpn", RequestsRead::Each) if is_passthrough => (
                "requires `tls`: with `protocol: http`, TLS does not pass through",
                "add `tls` to the listener, or match by `host`",
            ),
            _ => return,
        };
        self.error(at, Diagnostic::new(what).hint(hint));
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
}
