//! `listeners[].routes`.

use std::hash::Hasher;
use std::sync::Arc;

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use super::http::HeaderMatch;
use super::pool::PoolIndex;
use crate::net::country::Country;
use crate::net::name::NamePattern;
use crate::net::protocol::ClientProtocol;

/// One entry of `listeners[].routes`. All conditions must match; an empty one matches anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Unique within the listener; `None` goes by the conditions ([`RouteConfig::label`]).
    pub name: Option<Arc<str>>,
    /// Server names (SNI), any of them.
    pub sni: Vec<NamePattern>,
    /// Application protocols, any of them.
    pub alpn: Vec<Arc<str>>,
    /// Hosts of the first request, any of them.
    pub host: Vec<NamePattern>,
    /// Whole paths of requests, any of them.
    pub path: Vec<Arc<str>>,
    /// Prefixes of the first request's path, any of them.
    pub path_prefix: Vec<Arc<str>>,
    /// Methods of requests, any of them.
    pub method: Vec<Arc<str>>,
    /// Fields of requests, all of them.
    pub header: Vec<HeaderMatch>,
    /// Networks of clients, any of them.
    pub client: Arc<[IpNet]>,
    /// Countries of clients, any of them.
    pub country: Vec<Country>,
    /// Protocols of the client's first bytes, any of them.
    pub protocol: Vec<ClientProtocol>,
    /// What becomes of the connections that match.
    pub target: RouteTarget,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// To a pool.
    Pool(PoolIndex),
    /// To pools by shares of the clients. At least one weight is not zero.
    Split(Vec<SplitShare>),
    /// Nowhere: the client is refused.
    Refuse,
}

/// A pool's share of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitShare {
    /// The pool.
    pub pool: PoolIndex,
    /// 0..=1000, in relation to the other weights.
    pub weight: u32,
}

impl RouteTarget {
    /// To the first pool of a configuration.
    #[cfg(test)]
    pub(crate) fn to_first_pool() -> RouteTarget {
        RouteTarget::Pool(PoolIndex(0))
    }

    /// Every pool that it may lead to, in the order of the file.
    pub fn pools(&self) -> impl Iterator<Item = PoolIndex> {
        let (one, shares) = match self {
            RouteTarget::Pool(pool) => (Some(*pool), &[][..]),
            RouteTarget::Split(shares) => (None, shares.as_slice()),
            RouteTarget::Refuse => (None, &[][..]),
        };
        one.into_iter().chain(shares.iter().map(|share| share.pool))
    }

    pub(super) fn pools_mut(&mut self) -> impl Iterator<Item = &mut PoolIndex> {
        let (one, shares) = match self {
            RouteTarget::Pool(pool) => (Some(pool), &mut [][..]),
            RouteTarget::Split(shares) => (None, shares.as_mut_slice()),
            RouteTarget::Refuse => (None, &mut [][..]),
        };
        one.into_iter().chain(shares.iter_mut().map(|share| &mut share.pool))
    }
}

/// The label of what matches no route.
pub const NO_ROUTE: &str = "default";

/// Characters of a label that conditions make. A hash follows in longer ones.
const MAX_LABEL: usize = 100;

impl RouteConfig {
    /// What statistics and messages call it: its name, or its conditions. Its place in the list may change at any reload.
    pub fn label(&self) -> Arc<str> {
        if let Some(name) = &self.name {
            return Arc::clone(name);
        }
        let conditions = self.conditions(usize::MAX);
        if conditions.chars().count() <= MAX_LABEL {
            return conditions.into();
        }
        let mut hasher = SipHasher13::new();
        hasher.write(conditions.as_bytes());
        let beginning: String = conditions.chars().take(MAX_LABEL).collect();
        format!("{beginning}... #{:08x}", hasher.finish() as u32).into()
    }

    /// Its conditions as they are written, with at most `listed` elements of each.
    pub fn conditions(&self, listed: usize) -> String {
        fn shown<T: ToString>(list: &[T], listed: usize) -> String {
            let mut texts: Vec<String> = list.iter().take(listed).map(T::to_string).collect();
            if let Some(more) = list.len().checked_sub(listed).filter(|more| *more > 0) {
                texts.push(format!("{more} more"));
            }
            texts.join(", ")
        }
        let RouteConfig { sni, alpn, host, path, path_prefix, method, header, client, country, protocol, .. } = self;
        let rules = [
            ("sni", shown(sni, listed)),
            ("alpn", shown(alpn, listed)),
            ("host", shown(host, listed)),
            ("path", shown(path, listed)),
            ("path_prefix", shown(path_prefix, listed)),
            ("method", shown(method, listed)),
            ("header", shown(header, listed)),
            ("client", shown(client, listed)),
            ("country", shown(country, listed)),
            ("protocol", shown(protocol, listed)),
        ];
        let rules = rules.iter().filter(|(_, names)| !names.is_empty()).map(|(key, names)| format!("{key}: [{names}]"));
        rules.collect::<Vec<_>>().join(", ")
    }

    /// Whether it needs the ClientHello.
    pub fn needs_tls(&self) -> bool {
        !(self.sni.is_empty() && self.alpn.is_empty())
    }

    /// Whether it depends on the client's address.
    pub fn needs_client(&self) -> bool {
        !(self.client.is_empty() && self.country.is_empty())
    }

    /// Whether it needs the first bytes of the client.
    pub fn needs_bytes(&self) -> bool {
        self.needs_tls() || self.needs_protocol() || self.needs_request()
    }

    /// Whether it depends on the protocol of the first bytes.
    pub fn needs_protocol(&self) -> bool {
        !self.protocol.is_empty()
    }

    /// Whether it needs the first HTTP request.
    pub fn needs_request(&self) -> bool {
        !(self.host.is_empty()
            && self.path.is_empty()
            && self.path_prefix.is_empty()
            && self.method.is_empty()
            && self.header.is_empty())
    }
}
