//! Which clients may come: lists of networks and countries.

use std::net::IpAddr;

use crate::config::model::{AccessConfig, ClientRule};
use crate::net::country::Country;
use crate::net::networks::NetworkSet;

/// Clients by network or country. Immutable: a lookup takes no lock, and as long for 100,000 networks as for few.
#[derive(Debug, Default)]
pub struct ClientSet {
    networks: NetworkSet,
    /// Sorted.
    countries: Box<[Country]>,
}

impl ClientSet {
    /// The clients of any of these.
    pub fn new(rules: &[ClientRule]) -> ClientSet {
        let mut countries: Vec<Country> = rules
            .iter()
            .filter_map(|rule| match rule {
                ClientRule::Country(country) => Some(*country),
                ClientRule::Network(_) => None,
            })
            .collect();
        countries.sort_unstable();
        let networks = rules.iter().filter_map(|rule| match rule {
            ClientRule::Network(network) => Some(*network),
            ClientRule::Country(_) => None,
        });
        ClientSet { networks: networks.collect(), countries: countries.into() }
    }

    /// Whether it has the client. One without an address is in no set.
    pub fn contains(&self, client: Option<IpAddr>, country: Option<Country>) -> bool {
        client.is_some_and(|ip| self.networks.contains(ip))
            || country.is_some_and(|country| self.countries.binary_search(&country).is_ok())
    }

    /// Whether no client is in it.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.countries.is_empty()
    }

    /// Whether it depends on the client's country.
    pub fn needs_country(&self) -> bool {
        !self.countries.is_empty()
    }

    /// Memory that it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.networks.heap_bytes() + size_of_val(&*self.countries)
    }
}

/// `access`, prepared.
#[derive(Debug, Default)]
pub struct AccessList {
    allow: ClientSet,
    deny: ClientSet,
}

/// Why a client may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessDenial {
    /// It is in `deny`.
    Denied,
    /// It is not in `allow`.
    NotAllowed,
}

impl AccessList {
    /// Both lists.
    pub fn new(config: &AccessConfig) -> AccessList {
        AccessList { allow: ClientSet::new(&config.allow), deny: ClientSet::new(&config.deny) }
    }

    /// Whether any client may be refused.
    pub fn is_set(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    /// Whether it depends on the client's country.
    pub fn needs_country(&self) -> bool {
        self.allow.needs_country() || self.deny.needs_country()
    }

    /// Memory that it takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.allow.heap_bytes() + self.deny.heap_bytes()
    }

    /// Whether a client may connect. One without an address may, unless there is a list of those that may.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, client: Option<IpAddr>, country: Option<Country>) -> Result<(), AccessDenial> {
        if self.deny.contains(client, country) {
            return Err(AccessDenial::Denied);
        }
        match self.allow.is_empty() || self.allow.contains(client, country) {
            true => Ok(()),
            false => Err(AccessDenial::NotAllowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    fn rules(rules: &[&str]) -> Vec<ClientRule> {
        let rule = |rule: &&str| match rule.strip_prefix("country:") {
            Some(code) => ClientRule::Country(Country::of_letters(code).unwrap()),
            None => ClientRule::Network(rule.parse().unwrap()),
        };
        rules.iter().map(rule).collect()
    }

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        AccessList::new(&AccessConfig { allow: rules(allow).into(), deny: rules(deny).into() })
    }

    #[test]
    fn deny_wins_and_a_client_without_an_address_is_in_no_list() {
        use AccessDenial::{Denied, NotAllowed};
        let check = |list: &AccessList, ip: Option<&str>, country: Option<&str>| {
            list.check(ip.map(|ip| ip.parse().unwrap()), country.map(|code| Country::of_letters(code).unwrap()))
        };
        let none = list(&[], &[]);
        assert!(!none.is_set());
        assert_eq!(check(&none, Some("10.0.0.1"), None), Ok(()));
        let both = list(&["10.0.0.0/8", "country:DE"], &["10.1.0.0/16", "country:AT"]);
        assert!(both.is_set() && both.needs_country());
        assert_eq!(check(&both, Some("10.0.0.1"), None), Ok(()));
        assert_eq!(check(&both, Some("::ffff:10.1.0.1"), None), Err(Denied));
        assert_eq!(check(&both, Some("10.0.0.1"), Some("AT")), Err(Denied));
        assert_eq!(check(&both, Some("1.1.1.1"), Some("DE")), Ok(()));
        assert_eq!(check(&both, Some("1.1.1.1"), Some("CH")), Err(NotAllowed));
        assert_eq!(check(&both, None, None), Err(NotAllowed));
        assert_eq!(check(&list(&[], &["0.0.0.0/0", "::/0"]), None, None), Ok(()));
    }

    proptest! {
        #[test]
        fn list_agrees_with_the_rules_one_by_one(
            allow in prop::collection::vec((any::<u8>(), 24..=32_u8), 0..8),
            deny in prop::collection::vec((any::<u8>(), 24..=32_u8), 0..8),
            client: u8,
        ) {
            let rules = |nets: Vec<(u8, u8)>| -> Vec<IpNet> {
                nets.into_iter().map(|(last, length)| IpNet::new([10, 0, 0, last].into(), length).unwrap().trunc()).collect()
            };
            let (allow, deny) = (rules(allow), rules(deny));
            let client = IpAddr::from([10, 0, 0, client]);
            let has = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
            let expected = match (has(&deny), allow.is_empty() || has(&allow)) {
                (true, _) => Err(AccessDenial::Denied),
                (false, true) => Ok(()),
                (false, false) => Err(AccessDenial::NotAllowed),
            };
            let of = |nets: &[IpNet]| nets.iter().copied().map(ClientRule::Network).collect();
            let list = AccessList::new(&AccessConfig { allow: of(&allow), deny: of(&deny) });
            prop_assert_eq!(list.check(Some(client), None), expected);
        }
    }
}
