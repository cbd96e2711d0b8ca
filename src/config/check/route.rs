//! `listeners[].routes`.

use std::collections::HashMap;
use std::sync::Arc;

use super::references::Pools;
use super::{Checker, value};
use crate::config::de::Located;
use crate::config::model::{ListenerTls, Route};
use crate::config::raw;
use crate::config::report::{Fault, Problem, Severity};
use crate::config::tree::NodeId;
use crate::config::units::NameRule;
use crate::net::name::NamePattern;

impl Checker<'_> {
    /// A listener's routes, in their order, and where they are; without those in which something is wrong.
    pub(super) fn routes(&mut self, raw: &raw::Listener, owner: NodeId, pools: &mut Pools<'_>) -> Vec<(Route, NodeId)> {
        if raw.routes.is_none() && self.misspelt(owner, "routes") {
            pools.unclear();
        }
        let Some(Located { value: Some(list), .. }) = &raw.routes else {
            if raw.routes.is_some() {
                pools.unclear();
            }
            return Vec::new();
        };
        let mut routes = Vec::with_capacity(list.len());
        for element in list {
            let Some((route, at)) = value(Some(element)) else {
                pools.unclear();
                continue;
            };
            let pool = self.pool_of(route.pool.as_ref(), at, pools);
            let hint = "match: what a connection must be like, such as { sni: [\"www.example.com\"] }";
            let given = self.required(route.r#match.as_ref(), "match", at, hint);
            let conditions = given.and_then(|(given, at)| self.conditions(given, at));
            if let (Some((sni, alpn)), Some(pool)) = (conditions, pool) {
                if let (Some(key), None) = (&route.pool, &raw.tls)
                    && pools.speaks_tls(pool)
                {
                    let fault =
                        Fault::new("TLS inside TLS: what this route takes is TLS already, and the pool has `tls`");
                    self.warning(
                        key.at,
                        fault.hint("end the client's TLS by `tls` of the listener, or use a pool without"),
                    );
                }
                routes.push((Route { sni, alpn, pool }, at));
            }
        }
        routes
    }

    /// `None` when one could not be read, which is reported.
    fn conditions(&mut self, raw: &raw::Match, at: NodeId) -> Option<(Vec<NamePattern>, Vec<Arc<str>>)> {
        let refused = self.child(at, &["host", "path_prefix"]).is_some();
        let misspelt = self.misspelt(at, "sni") || self.misspelt(at, "alpn");
        if raw.sni.is_none() && raw.alpn.is_none() {
            if !refused && !misspelt {
                let fault = Fault::new("no condition: the route would take every connection");
                self.error(at, fault.hint("what no route matches goes to the listener's `pool`: name the pool there"));
            }
            return None;
        }
        let sni = match &raw.sni {
            Some(sni) => self.names(sni),
            None => Some(Vec::new()),
        };
        let alpn = match &raw.alpn {
            Some(alpn) => {
                self.not_empty(alpn, "protocol");
                self.protocols(Some(alpn))
            }
            None => Some(Vec::new()),
        };
        sni.zip(alpn).filter(|_| !refused && !misspelt)
    }

    fn names(&mut self, list: &Located<Vec<Located<NameRule>>>) -> Option<Vec<NamePattern>> {
        self.not_empty(list, "name");
        let (elements, _) = value(Some(list))?;
        let names = self.distinct(elements)?;
        Some(names.into_iter().map(|(NameRule(name), _)| name.clone()).collect())
    }

    fn not_empty<T>(&mut self, list: &Located<Vec<Located<T>>>, what: &str) {
        if let Some((elements, at)) = value(Some(list))
            && elements.is_empty()
        {
            let fault = Fault::new(format!("no {what}: the route would match nothing"));
            self.error(at, fault.hint("leave the key out, and it does not count"));
        }
    }

    /// Warns of routes that no connection can ever take. With `tls`, a connection's protocol is one of its `alpn`.
    pub(super) fn dead_routes(&mut self, routes: &[(Route, NodeId)], tls: Option<&ListenerTls>) {
        let mut earlier = Earlier::default();
        for (index, (route, at)) in routes.iter().enumerate() {
            if let Some((first, first_at)) = earlier.covers(route, routes).and_then(|index| routes.get(index)) {
                let fault = if covers(route, first) {
                    Fault::new("never matches: an earlier route is the same")
                        .hint("the first route that matches wins: take one of the two out")
                } else {
                    Fault::new("never matches: an earlier route takes all that it would")
                        .hint("the first route that matches wins: put the narrower one first")
                };
                let problem = self.problem(*at, fault).other(self.tree.span(*first_at), "this one");
                self.problems.push(Problem { severity: Severity::Warning, ..problem });
            } else if let Some(tls) = tls
                && !route.alpn.is_empty()
                && !route.alpn.iter().any(|protocol| tls.alpn.contains(protocol))
            {
                let fault = Fault::new("never matches: the listener's `tls.alpn` has none of these protocols")
                    .hint("TLS ends at this listener, and only what is in `tls.alpn` is agreed on with a client");
                self.warning(*at, fault);
            }
            earlier.add(index, route);
        }
    }
}

/// The routes so far, by what they ask for.
#[derive(Default)]
struct Earlier<'r> {
    by_name: HashMap<&'r NamePattern, Vec<usize>>,
    of_any_name: Vec<usize>,
}

impl<'r> Earlier<'r> {
    fn add(&mut self, index: usize, route: &'r Route) {
        if route.sni.is_empty() {
            self.of_any_name.push(index);
        }
        for name in &route.sni {
            self.by_name.entry(name).or_default().push(index);
        }
    }

    /// The first one that alone takes everything that `route` would.
    fn covers(&self, route: &Route, routes: &[(Route, NodeId)]) -> Option<usize> {
        // It takes any name, or has the first of this route's.
        let named = route.sni.first().into_iter().flat_map(|name| [Some(name.clone()), wildcard_over(name)]).flatten();
        let named = named.filter_map(|name| self.by_name.get(&name)).flatten();
        let candidates = self.of_any_name.iter().chain(named).copied();
        candidates.filter(|index| routes.get(*index).is_some_and(|(first, _)| covers(first, route))).min()
    }
}

fn covers(first: &Route, second: &Route) -> bool {
    let name = |name: &NamePattern| {
        first.sni.contains(name) || wildcard_over(name).is_some_and(|wildcard| first.sni.contains(&wildcard))
    };
    let protocol = |protocol: &Arc<str>| first.alpn.contains(protocol);
    (first.sni.is_empty() || !second.sni.is_empty() && second.sni.iter().all(name))
        && (first.alpn.is_empty() || !second.alpn.is_empty() && second.alpn.iter().all(protocol))
}

/// The wildcard that fits a name.
fn wildcard_over(name: &NamePattern) -> Option<NamePattern> {
    match name {
        NamePattern::Exact(name) => name.split_once('.').map(|(_, parent)| NamePattern::Wildcard(parent.into())),
        NamePattern::Wildcard(_) => None,
    }
}
