//! `listeners[].access`, `admin.allow` and `geoip`: clients by network and country.

use super::{Checker, value};
use crate::config::located::Located;
use crate::config::model::{AccessConfig, ClientRule, GeoIpConfig};
use crate::config::raw::{RawGeoIp, RawListener};
use crate::config::report::Diagnostic;
use crate::config::scalars::{BindAddress, ClientPattern, FilePath};
use crate::config::tree::NodeId;

impl Checker<'_> {
    pub(super) fn geoip(&mut self, key: Option<&Located<RawGeoIp>>) -> Option<GeoIpConfig> {
        let (raw, _) = value(key)?;
        let (FilePath(database), at) = value(raw.database.as_ref())?;
        self.country_database(database, at);
        Some(GeoIpConfig { database: database.clone() })
    }

    /// Reports the first use of countries where there is no database of them.
    pub(super) fn needs_countries(&mut self, at: NodeId) {
        if !self.knows_countries {
            self.knows_countries = true;
            let diagnostic = Diagnostic::new("a country requires `geoip.database`");
            self.error(at, diagnostic.hint("add geoip: { database: /usr/share/GeoIP/GeoLite2-Country.mmdb }"));
        }
    }

    /// A list of clients; empty if it is absent.
    pub(super) fn clients(&mut self, key: Option<&Located<Vec<Located<ClientPattern>>>>) -> Vec<ClientRule> {
        let Some((list, _)) = value(key) else { return Vec::new() };
        let Some(rules) = self.distinct(list) else { return Vec::new() };
        let is_country = |rule: &ClientPattern| matches!(rule.0, ClientRule::Country(_));
        if let Some((_, at)) = rules.iter().find(|(rule, _)| is_country(rule)) {
            self.needs_countries(*at);
        }
        rules.into_iter().map(|(ClientPattern(rule), _)| *rule).collect()
    }

    pub(super) fn access(&mut self, listener: &RawListener) -> AccessConfig {
        let Some((raw, _)) = value(listener.access.as_ref()) else { return AccessConfig::default() };
        let (allow, deny) = (self.clients(raw.allow.as_ref()), self.clients(raw.deny.as_ref()));
        let is_everyone = |rule: &ClientRule| matches!(rule, ClientRule::Network(network) if network.prefix_len() == 0);
        if let Some(key) = raw.deny.as_ref().filter(|_| deny.iter().any(is_everyone)) {
            let diagnostic = Diagnostic::new("every address of a family is denied, those in `allow` too");
            self.warning(key.at, diagnostic.hint("deny wins over allow: list the clients in `allow` only"));
        }
        let is_unix = |bind: &Located<BindAddress>| {
            value(Some(bind)).is_some_and(|(BindAddress(bind), _)| bind.ports().is_none())
        };
        let has_addresses = listener.proxy_protocol.is_some()
            || value(listener.bind.as_ref()).is_none_or(|(binds, _)| !binds.0.iter().all(is_unix));
        if !has_addresses {
            let hint = "clients of a unix socket have no address: the mode of its file says which of them may connect";
            if let Some(key) = raw.allow.as_ref().filter(|_| !allow.is_empty()) {
                self.warning(key.at, Diagnostic::new("refuses every client").hint(hint));
            }
            if let Some(key) = raw.deny.as_ref().filter(|_| !deny.is_empty()) {
                self.warning(key.at, Diagnostic::new("has no effect").hint(hint));
            }
        }
        AccessConfig { allow: allow.into(), deny: deny.into() }
    }
}
