//! Which route a connection matches.

use std::sync::Arc;

use crate::config::model;
use crate::sniff::http::RequestHead;

/// What routes may ask for.
#[derive(Default)]
pub struct RouteKey<'a> {
    /// The name of the server (SNI).
    pub server_name: Option<&'a str>,
    /// The connection's protocol (ALPN), or those it may have.
    pub protocols: &'a [&'a [u8]],
    /// The first request.
    pub request: Option<&'a RequestHead>,
}

impl RouteKey<'_> {
    /// The first route that fits, by its number.
    pub(super) fn route(&self, routes: &[model::RouteConfig]) -> Option<usize> {
        routes.iter().position(|route| self.fits_tls(route) && self.fits_request(route))
    }

    /// Whether the route depends on the first request, which is not known yet.
    pub(super) fn needs_request(&self, routes: &[model::RouteConfig]) -> bool {
        routes.iter().find(|route| self.fits_tls(route)).is_some_and(model::RouteConfig::needs_request)
    }

    fn fits_tls(&self, route: &model::RouteConfig) -> bool {
        let fits = |name| route.sni.iter().any(|pattern| pattern.fits(name));
        let speaks = |wanted: &Arc<str>| self.protocols.contains(&wanted.as_bytes());
        (route.sni.is_empty() || self.server_name.is_some_and(fits))
            && (route.alpn.is_empty() || route.alpn.iter().any(speaks))
    }

    fn fits_request(&self, route: &model::RouteConfig) -> bool {
        let Some(RequestHead { host, path, .. }) = self.request else { return !route.needs_request() };
        let fits = |name: &Arc<str>| route.host.iter().any(|pattern| pattern.fits(name));
        (route.host.is_empty() || host.as_ref().is_some_and(fits))
            && (route.path_prefix.is_empty() || route.path_prefix.iter().any(|prefix| path.starts_with(&**prefix)))
    }
}
