//! Which backends a pool's configuration stands for: as many as the addresses that its names have. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::{self, AdminState, BackendAddress, ForcedHealth};
use crate::net::addr::{Address, backend_text};

/// What a backend is: where it listens, and its share of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The name of its entry in `pools[].backends`.
    pub(super) entry: Arc<str>,
    /// Its own name: that of the entry, or `NAME@ADDRESS` where the entry's host name has several addresses.
    pub(super) name: Arc<str>,
    /// As configured.
    pub(super) configured: BackendAddress,
    /// Where to connect to. `None` while its host name has never been resolved. Its port may be
    /// [`CLIENT_PORT`](crate::net::addr::CLIENT_PORT).
    pub(super) address: Option<Address>,
    pub(super) weight: u32,
    /// `u32::MAX` for no limit.
    pub(super) max_connections: u32,
    pub(super) backup: bool,
    pub(super) state: AdminState,
    pub(super) forced: Option<ForcedHealth>,
}

/// What makes a backend the same one as before: its entry and its address.
pub(super) type Identity = (Arc<str>, Option<Address>);

impl Target {
    pub(super) fn identity(&self) -> Identity {
        (Arc::clone(&self.entry), self.address.clone())
    }
}

/// What DNS last said of the host name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    /// The host name and port that were asked for.
    of: BackendAddress,
    /// Sorted, each once. A failed lookup keeps the last ones.
    addresses: Vec<Address>,
    /// Why there is none.
    failure: Option<Arc<str>>,
}

/// By the entry's name.
#[derive(Debug, Default)]
pub(super) struct Resolutions(HashMap<Arc<str>, Resolution>);

impl Resolutions {
    /// Takes an answer in: the addresses of an entry's host name, or why it has none.
    pub(super) fn answer(&mut self, entry: &model::BackendConfig, answer: Result<Vec<Address>, Arc<str>>) {
        let of = &entry.address;
        let known = self.0.entry(Arc::clone(&entry.name)).or_insert_with(|| Resolution::unknown(of));
        if known.of != *of {
            *known = Resolution::unknown(of);
        }
        match answer {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.sort_unstable();
                addresses.dedup();
                *known = Resolution { addresses, ..Resolution::unknown(of) };
            }
            Ok(_) => {}
            Err(_) if !known.addresses.is_empty() => {}
            Err(reason) => known.failure = Some(reason),
        }
    }

    /// Forgets the entries that the pool no longer has.
    pub(super) fn keep_those_of(&mut self, config: &model::PoolConfig) {
        self.0.retain(|name, known| config.backends.iter().any(|it| it.name == *name && it.address == known.of));
    }

    /// The last addresses of an entry's host name; none before the first answer.
    pub(super) fn addresses(&self, entry: &model::BackendConfig) -> &[Address] {
        self.of(entry).map_or(&[], |known| &known.addresses)
    }

    /// Why an entry's host name has no address.
    pub(super) fn failure(&self, entry: &str) -> Option<&Arc<str>> {
        self.0.get(entry)?.failure.as_ref()
    }

    fn of(&self, entry: &model::BackendConfig) -> Option<&Resolution> {
        self.0.get(&entry.name).filter(|known| known.of == entry.address)
    }
}

impl Resolution {
    fn unknown(of: &BackendAddress) -> Resolution {
        Resolution { of: of.clone(), addresses: Vec::new(), failure: None }
    }
}

/// The backends that `config` stands for, in its order.
///
/// A host name with several addresses is as many backends, each named `NAME@ADDRESS`. With one address, or none yet, it is one
/// with the plain name.
pub(super) fn targets(config: &model::PoolConfig, resolutions: &Resolutions) -> Vec<Target> {
    config.backends.iter().flat_map(|entry| of_entry(entry, resolutions)).collect()
}

/// The name of a backend among several of its entry.
pub(super) fn full_name(entry: &str, address: &Address) -> Arc<str> {
    match address {
        Address::Tcp(address) => format!("{entry}@{}", backend_text(address)).into(),
        Address::Unix(_) => format!("{entry}@{address}").into(),
    }
}

fn of_entry(entry: &model::BackendConfig, resolutions: &Resolutions) -> Vec<Target> {
    let target = |name: Arc<str>, address: Option<Address>| Target {
        entry: Arc::clone(&entry.name),
        name,
        configured: entry.address.clone(),
        address,
        weight: entry.weight,
        max_connections: entry.max_connections.map_or(u32::MAX, u32::from),
        backup: entry.backup,
        state: entry.state,
        forced: entry.forced,
    };
    let plain = |address| vec![target(Arc::clone(&entry.name), address)];
    match &entry.address {
        BackendAddress::Ip(address) => plain(Some(Address::Tcp(*address))),
        BackendAddress::Unix(path) => plain(Some(Address::Unix(Arc::new(path.clone())))),
        BackendAddress::Name { .. } => match resolutions.addresses(entry) {
            [] => plain(None),
            [one] => plain(Some(one.clone())),
            several => {
                let named = |address: &Address| target(full_name(&entry.name, address), Some(address.clone()));
                several.iter().map(named).collect()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{backends, pool};
    use super::*;

    fn tcp(text: &str) -> Address {
        Address::Tcp(text.parse().unwrap())
    }

    fn named() -> model::PoolConfig {
        let mut config = pool(backends(&[1, 2]));
        config.backends[1].address = BackendAddress::Name { host: "db.example".into(), port: 5432 };
        config
    }

    fn names(config: &model::PoolConfig, resolutions: &Resolutions) -> Vec<String> {
        targets(config, resolutions).iter().map(|target| target.name.to_string()).collect()
    }

    #[test]
    fn host_name_with_several_addresses_is_as_many_backends() {
        let (config, mut resolutions) = (named(), Resolutions::default());
        assert_eq!(names(&config, &resolutions), ["a", "b"]);
        assert_eq!(targets(&config, &resolutions)[1].address, None);
        let db = &config.backends[1];
        resolutions.answer(db, Err("no such host".into()));
        assert_eq!(resolutions.failure("b").map(|why| &**why), Some("no such host"));
        resolutions.answer(db, Ok(vec![tcp("10.0.0.9:5432")]));
        assert_eq!(names(&config, &resolutions), ["a", "b"]);
        assert_eq!(
            (targets(&config, &resolutions)[1].address.clone(), resolutions.failure("b")),
            (Some(tcp("10.0.0.9:5432")), None)
        );
        resolutions.answer(db, Ok(["10.0.0.9:5432", "10.0.0.10:5432", "10.0.0.9:5432"].map(tcp).to_vec()));
        assert_eq!(names(&config, &resolutions), ["a", "b@10.0.0.9:5432", "b@10.0.0.10:5432"]);
        assert!(targets(&config, &resolutions)[1..].iter().all(|target| target.weight == 2));
    }

    #[test]
    fn empty_or_failing_answer_keeps_the_last_addresses() {
        let (config, mut resolutions) = (named(), Resolutions::default());
        let db = &config.backends[1];
        resolutions.answer(db, Ok(vec![tcp("10.0.0.1:1"), tcp("10.0.0.2:1")]));
        let before = targets(&config, &resolutions);
        resolutions.answer(db, Ok(Vec::new()));
        resolutions.answer(db, Err("timed out".into()));
        assert_eq!(targets(&config, &resolutions), before);
        assert_eq!(resolutions.failure("b"), None);
    }

    #[test]
    fn another_host_name_under_the_same_name_knows_nothing_of_the_old_one() {
        let (mut config, mut resolutions) = (named(), Resolutions::default());
        resolutions.answer(&config.backends[1], Ok(vec![tcp("10.0.0.1:1"), tcp("10.0.0.2:1")]));
        config.backends[1].address = BackendAddress::Name { host: "other.example".into(), port: 5432 };
        assert_eq!(names(&config, &resolutions), ["a", "b"]);
        resolutions.keep_those_of(&config);
        assert!(resolutions.0.is_empty());
    }
}
