//! Which route a connection matches, and which of its pools the client gets.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderValue};

use crate::balance::{self, Split};
use crate::config::model::{HeaderMatch, RouteConfig, RouteTarget};
use crate::net::country::Country;
use crate::net::networks::NetworkSet;
use crate::net::protocol::ClientProtocol;
use crate::pool::Pool;
use crate::sniff::http::RequestHead;

/// What routes may ask for.
#[derive(Clone, Copy, Default)]
pub struct RouteKey<'a> {
    /// The client.
    pub client: RouteClient,
    /// The name of the server (SNI).
    pub server_name: Option<&'a str>,
    /// The application protocol that was agreed on (ALPN), or those that the client offers.
    pub alpn: &'a [&'a [u8]],
    /// The protocol of the client's first bytes.
    pub protocol: Option<ClientProtocol>,
    /// The request.
    pub request: Option<RequestView<'a>>,
}

/// What routes may ask for of a request.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// Normal: lowercase, without port.
    pub host: Option<&'a str>,
    /// Without the query.
    pub path: &'a str,
    /// As sent.
    pub method: &'a str,
    /// `None` where only the first request of a connection is looked at.
    pub headers: Option<&'a HeaderMap>,
}

impl<'a> From<&'a RequestHead> for RequestView<'a> {
    fn from(head: &'a RequestHead) -> RequestView<'a> {
        RequestView { host: head.host.as_deref(), path: &head.path, method: &head.method, headers: None }
    }
}

/// What routes may ask for of a client.
#[derive(Clone, Copy, Default)]
pub struct RouteClient {
    /// `None` where it has no address.
    pub ip: Option<IpAddr>,
    /// Of its address, where a route asks for it and it is known.
    pub country: Option<Country>,
    /// Decides its share of a split.
    pub affinity: u64,
}

/// A part of a [`RouteKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Client,
    ServerName,
    Alpn,
    Protocol,
    Request,
}

impl Condition {
    /// Known when a connection was accepted.
    pub(super) const AT_ACCEPT: &[Condition] = &[Condition::Client];
    /// Known by a ClientHello that TLS termination answers.
    pub(super) const AT_HELLO: &[Condition] = &[Condition::Client, Condition::ServerName];
    /// Known after a handshake.
    pub(super) const AFTER_HANDSHAKE: &[Condition] = &[Condition::Client, Condition::ServerName, Condition::Alpn];
    /// Known by the first bytes of a connection, or of what is in TLS.
    pub(super) const AT_FIRST_BYTES: &[Condition] = &[Condition::Client, Condition::Protocol];
    /// Known when only the first request is left to be read.
    pub(super) const BEFORE_REQUEST: &[Condition] =
        &[Condition::Client, Condition::ServerName, Condition::Alpn, Condition::Protocol];
    /// Known by all that is read. What was not asked for until then is known to be absent.
    pub(super) const ALL: &[Condition] =
        &[Condition::Client, Condition::ServerName, Condition::Alpn, Condition::Protocol, Condition::Request];
}

/// What routes say of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteDecision {
    /// More has to be known.
    Undecided,
    /// It matches none.
    NoMatch,
    Match(RouteMatch),
}

/// The route that a connection matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Its number.
    pub route: usize,
    /// The share of its split that the client has; 0 where there is no split.
    pub share: usize,
}

/// The routes of a listener, prepared.
#[derive(Default)]
pub(super) struct Routes(Box<[PreparedRoute]>);

struct PreparedRoute {
    clients: NetworkSet,
    /// In the order of [`RouteTarget::pools`].
    pools: Vec<Arc<Pool>>,
    split: Split,
}

impl Routes {
    /// `pools` has those of each route.
    pub(super) fn new(config: &[RouteConfig], pools: Vec<Vec<Arc<Pool>>>) -> Routes {
        let prepare = |(route, pools): (&RouteConfig, Vec<Arc<Pool>>)| {
            let shares = match &route.target {
                RouteTarget::Split(shares) => shares.as_slice(),
                RouteTarget::Pool(_) | RouteTarget::Refuse => &[],
            };
            let shares = pools.iter().zip(shares).map(|(pool, share)| (&**pool.name(), share.weight));
            PreparedRoute { clients: route.client.iter().copied().collect(), split: Split::new(shares), pools }
        };
        Routes(config.iter().zip(pools).map(prepare).collect())
    }

    /// The pool of a connection that matches a route, unless that refuses it.
    pub(super) fn pool(&self, found: RouteMatch) -> Option<&Arc<Pool>> {
        self.0.get(found.route)?.pools.get(found.share)
    }

    /// The pools of one route.
    pub(super) fn pools_of(&self, route: usize) -> impl Iterator<Item = &Arc<Pool>> {
        self.0.get(route).into_iter().flat_map(|route| &route.pools)
    }

    /// The pools of all routes.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.0.iter().flat_map(|route| &route.pools)
    }

    /// The first route that matches, as far as that can be said by what is known of `key`. `config` is what these were made from.
    pub(super) fn decide(&self, config: &[RouteConfig], key: &RouteKey<'_>, known: &[Condition]) -> RouteDecision {
        for (number, (route, prepared)) in config.iter().zip(&self.0).enumerate() {
            let conditions = [
                (Condition::Client, route.needs_client(), prepared.fits_client(route, &key.client)),
                (Condition::ServerName, !route.sni.is_empty(), key.fits_server_name(route)),
                (Condition::Alpn, !route.alpn.is_empty(), key.fits_alpn(route)),
                (Condition::Protocol, route.needs_protocol(), key.fits_protocol(route)),
                (Condition::Request, route.needs_request(), key.fits_request(route)),
            ];
            let mut set = conditions.into_iter().filter(|(_, is_set, _)| *is_set);
            if set.clone().any(|(condition, _, fits)| known.contains(&condition) && !fits) {
                continue;
            }
            if set.any(|(condition, ..)| !known.contains(&condition)) {
                return RouteDecision::Undecided;
            }
            let share = prepared.split.pick(key.client.affinity).unwrap_or_default();
            return RouteDecision::Match(RouteMatch { route: number, share });
        }
        RouteDecision::NoMatch
    }
}

impl Routes {
    /// The keys of a route's `match` that do not match.
    pub(super) fn unmet(&self, config: &[RouteConfig], number: usize, key: &RouteKey<'_>) -> Vec<&'static str> {
        let (Some(route), Some(prepared)) = (config.get(number), self.0.get(number)) else { return Vec::new() };
        let in_request = |fits: &dyn Fn(&RequestView<'_>) -> bool| key.request.as_ref().is_some_and(fits);
        let conditions = [
            ("client", !route.client.is_empty(), prepared.fits_network(route, &key.client)),
            ("country", !route.country.is_empty(), fits_country(route, &key.client)),
            ("sni", !route.sni.is_empty(), key.fits_server_name(route)),
            ("alpn", !route.alpn.is_empty(), key.fits_alpn(route)),
            ("protocol", route.needs_protocol(), key.fits_protocol(route)),
            ("host", !route.host.is_empty(), in_request(&|it| it.fits_host(route))),
            ("path", !route.path.is_empty(), in_request(&|it| it.fits_path(route))),
            ("path_prefix", !route.path_prefix.is_empty(), in_request(&|it| it.fits_path(route))),
            ("method", !route.method.is_empty(), in_request(&|it| it.fits_method(route))),
            ("header", !route.header.is_empty(), in_request(&|it| it.fits_header(route))),
        ];
        conditions.into_iter().filter(|(_, is_set, fits)| *is_set && !fits).map(|(name, ..)| name).collect()
    }
}

impl PreparedRoute {
    fn fits_client(&self, route: &RouteConfig, client: &RouteClient) -> bool {
        self.fits_network(route, client) && fits_country(route, client)
    }

    fn fits_network(&self, route: &RouteConfig, client: &RouteClient) -> bool {
        route.client.is_empty() || client.ip.is_some_and(|ip| self.clients.contains(ip))
    }
}

fn fits_country(route: &RouteConfig, client: &RouteClient) -> bool {
    route.country.is_empty() || client.country.is_some_and(|country| route.country.contains(&country))
}

impl RouteKey<'_> {
    fn fits_server_name(&self, route: &RouteConfig) -> bool {
        self.server_name.is_some_and(|name| route.sni.iter().any(|pattern| pattern.fits(name)))
    }

    fn fits_alpn(&self, route: &RouteConfig) -> bool {
        route.alpn.iter().any(|wanted| self.alpn.contains(&wanted.as_bytes()))
    }

    fn fits_protocol(&self, route: &RouteConfig) -> bool {
        self.protocol.is_some_and(|protocol| route.protocol.contains(&protocol))
    }

    fn fits_request(&self, route: &RouteConfig) -> bool {
        self.request.is_some_and(|it| {
            it.fits_host(route) && it.fits_path(route) && it.fits_method(route) && it.fits_header(route)
        })
    }
}

impl RequestView<'_> {
    fn fits_host(&self, route: &RouteConfig) -> bool {
        let fits = |name: &str| route.host.iter().any(|pattern| pattern.fits(name));
        route.host.is_empty() || self.host.is_some_and(fits)
    }

    fn fits_path(&self, route: &RouteConfig) -> bool {
        let begins = |prefix: &Arc<str>| match self.headers {
            Some(_) => has_segments(self.path, prefix),
            None => self.path.starts_with(&**prefix),
        };
        route.path.is_empty() && route.path_prefix.is_empty()
            || route.path.iter().any(|wanted| **wanted == *self.path)
            || route.path_prefix.iter().any(begins)
    }

    fn fits_method(&self, route: &RouteConfig) -> bool {
        route.method.is_empty() || route.method.iter().any(|wanted| **wanted == *self.method)
    }

    fn fits_header(&self, route: &RouteConfig) -> bool {
        route.header.iter().all(|wanted| self.headers.is_some_and(|headers| has_field(headers, wanted)))
    }
}

/// Whether a path is `prefix`, or below it.
fn has_segments(path: &str, prefix: &str) -> bool {
    let is_whole = |rest: &str| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/');
    path.strip_prefix(prefix).is_some_and(is_whole)
}

fn has_field(headers: &HeaderMap, wanted: &HeaderMatch) -> bool {
    let value = |value: &HeaderValue| wanted.value.as_ref().is_none_or(|wanted| value == wanted.as_bytes());
    headers.get_all(&*wanted.name).iter().any(value)
}

/// What decides the share of a client with this address: the address itself, and of IPv6 the network of 64 bits that one
/// subscriber has.
pub(super) fn affinity(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(ip) => balance::hash(&ip.octets()),
        IpAddr::V6(ip) => balance::hash(&Ipv6Addr::from(ip.to_bits() >> 64 << 64).octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::name::NamePattern;

    fn route(change: impl FnOnce(&mut RouteConfig)) -> RouteConfig {
        let mut route = RouteConfig {
            name: None,
            sni: Vec::new(),
            alpn: Vec::new(),
            host: Vec::new(),
            path: Vec::new(),
            path_prefix: Vec::new(),
            method: Vec::new(),
            header: Vec::new(),
            client: Arc::default(),
            country: Vec::new(),
            protocol: Vec::new(),
            target: RouteTarget::to_first_pool(),
        };
        change(&mut route);
        route
    }

    #[test]
    fn decision_waits_only_for_what_may_still_change_it() {
        use RouteDecision::{NoMatch, Undecided};
        let net = |text: &str| -> Arc<[ipnet::IpNet]> { [text.parse().unwrap()].into() };
        let config = [
            route(|it| it.client = net("10.1.0.0/16")),
            route(|it| {
                it.client = net("10.0.0.0/8");
                it.sni = vec![NamePattern::Exact("a.example".into())];
            }),
            route(|it| it.country = vec![Country::of_letters("DE").unwrap()]),
            route(|it| it.path_prefix = vec!["/api".into()]),
        ];
        let routes = Routes::new(&config, vec![Vec::new(); config.len()]);
        let client = |ip: &str, country: Option<&str>| RouteClient {
            ip: Some(ip.parse().unwrap()),
            country: country.and_then(Country::of_letters),
            affinity: 0,
        };
        let decide = |client, server_name, request, known| {
            routes.decide(&config, &RouteKey { client, server_name, request, ..RouteKey::default() }, known)
        };
        let first = |route| RouteDecision::Match(RouteMatch { route, share: 0 });
        let german = client("10.2.0.1", Some("DE"));
        assert_eq!(decide(client("10.1.0.1", None), None, None, Condition::AT_ACCEPT), first(0), "no byte is needed");
        assert_eq!(decide(german, None, None, Condition::AT_ACCEPT), Undecided, "the server name comes first");
        assert_eq!(decide(german, Some("a.example"), None, Condition::AT_HELLO), first(1));
        assert_eq!(decide(german, Some("b.example"), None, Condition::AT_HELLO), first(2));
        assert_eq!(decide(client("1.1.1.1", Some("DE")), None, None, Condition::AT_ACCEPT), first(2));
        let stranger = client("1.1.1.1", Some("AT"));
        assert_eq!(decide(stranger, None, None, Condition::AFTER_HANDSHAKE), Undecided);
        assert_eq!(decide(stranger, None, None, Condition::ALL), NoMatch);
        let request = RequestHead { method: "GET".into(), host: None, path: "/api/x".into(), length: 0 };
        assert_eq!(decide(stranger, None, Some(RequestView::from(&request)), Condition::ALL), first(3));
        let nobody = RouteClient::default();
        assert_eq!(decide(nobody, None, None, Condition::ALL), NoMatch, "a client without an address is in no network");
    }

    #[test]
    fn affinity_is_of_the_address_and_of_a_subscribers_network() {
        let of = |ip: &str| affinity(ip.parse().unwrap());
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
