//! `starttls` against what else is configured: routes, health checks, the other side of a connection.

use super::health::MYSQL_PORT;
use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::{
    BackendAddress, BackendConfig, Health, HealthCheck, ListenerConfig, PoolConfig, PoolIndex, PoolTls, RouteConfig,
    StartTls,
};
use crate::config::raw::RawPool;
use crate::config::report::{Diagnostic, shown};
use crate::config::tree::NodeId;

impl Checker<'_> {
    /// Refuses routes by what a client says first: with `starttls: mysql`, its backend speaks before.
    pub(super) fn routes_before_bytes(&mut self, routes: &[(RouteConfig, NodeId)]) {
        for (_, at) in routes.iter().filter(|(route, _)| route.needs_bytes()) {
            let diagnostic = Diagnostic::new(
                "with `starttls: mysql`, the backend is chosen before the client says anything: its server speaks first",
            );
            self.error(
                *at,
                diagnostic.hint("match by client or country only; for each server name, use a listener of its own"),
            );
        }
    }

    /// Checks the kind of a health check against the way in which the pool's connections begin TLS.
    pub(super) fn probes_by_starttls(
        &mut self,
        raw: &RawPool,
        health: Option<&Health>,
        tls: Option<&PoolTls>,
        backends: &[BackendConfig],
    ) {
        let (Some(Health { check, port, .. }), Some(tls)) = (health, tls) else { return };
        let Some((_, at)) = value(raw.health.as_ref()) else { return };
        match (check, tls.starttls) {
            (HealthCheck::Mysql(_), None) => {
                let place = value(raw.tls.as_ref()).map_or(at, |(_, at)| at);
                let diagnostic = Diagnostic::new(
                    "connections of clients begin with TLS at once, which no MySQL server takes; only the health check asks for it",
                );
                self.warning(
                    place,
                    diagnostic.hint("write `starttls: mysql`; for clients whose own TLS passes through, remove `tls`"),
                );
            }
            (HealthCheck::Mysql(_), Some(StartTls::Postgres))
            | (HealthCheck::Postgres(_), Some(StartTls::Mysql))
            | (HealthCheck::Redis(_), Some(_)) => {
                let starttls = tls.starttls.map_or("off", StartTls::name);
                let diagnostic =
                    Diagnostic::new(format!("the check is of another protocol than `starttls: {starttls}`"));
                self.error(at, diagnostic.hint("check the protocol that the pool's backends speak"));
            }
            (HealthCheck::Tcp, Some(StartTls::Mysql))
                if port.is_some() || backends.iter().any(is_known_to_be_mysql) => {}
            (HealthCheck::Tcp | HealthCheck::Tls { .. }, Some(StartTls::Mysql)) => {
                let diagnostic = Diagnostic::new(match check {
                    HealthCheck::Tcp => {
                        "the server counts a check without a login as an aborted connect, and blocks this host after max_connect_errors"
                    }
                    _ => "the check logs in without a password, which the server logs as a denied access",
                });
                self.warning(
                    at,
                    diagnostic.hint("use `mysql: {}`, or better with a user: it asks for TLS and logs in"),
                );
            }
            _ => {}
        }
    }

    /// Refuses a listener of one protocol in front of a pool of another.
    pub(super) fn one_protocol(
        &mut self,
        listeners: &[ListenerConfig],
        pools: &[PoolConfig],
        raw: Option<&Located<Vec<Located<RawPool>>>>,
    ) {
        let raw = value(raw).map_or(&[][..], |(pools, _)| pools);
        for (place, (pool, raw)) in pools.iter().zip(raw).enumerate() {
            let key = value(Some(raw)).and_then(|(pool, _)| value(pool.tls.as_ref()));
            let key = key.and_then(|(tls, _)| tls.starttls.as_ref());
            let (Some(starttls), Some(key)) = (pool.tls.as_ref().and_then(|tls| tls.starttls), key) else { continue };
            let wanted = starttls.speaks();
            for listener in listeners.iter().filter(|listener| listener.pools().any(|pool| pool == PoolIndex(place))) {
                let Some(spoken) = listener.speaks().filter(|spoken| *spoken != wanted) else { continue };
                let (name, spoken) = (shown(&listener.name), spoken.name());
                let diagnostic = Diagnostic::new(format!("the clients of listener `{name}` speak {spoken}"));
                self.error(key.at, diagnostic.hint("use the same protocol on both sides, or another pool"));
            }
        }
    }
}

/// Whether checks of it without a login have their warning by its port.
fn is_known_to_be_mysql(backend: &BackendConfig) -> bool {
    match backend.address {
        BackendAddress::Ip(address) => address.port() == MYSQL_PORT,
        BackendAddress::Name { port, .. } => port == MYSQL_PORT,
        BackendAddress::Unix(_) => false,
    }
}
