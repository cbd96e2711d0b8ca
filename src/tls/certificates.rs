//! Which certificate a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use crate::net::name::{NamePattern, normal};

/// The certificates of a listener by the names in them. A lookup is one or two of a hash map, however many
/// names there are.
#[derive(Debug)]
pub(super) struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    /// Places in `keys`, in the order of the configuration.
    exact: HashMap<Arc<str>, Vec<usize>>,
    /// By what follows `*.`.
    wildcards: HashMap<Arc<str>, Vec<usize>>,
    /// The first, then those that share a name with it: of another kind of key, for clients that want one.
    default: Vec<usize>,
}

impl Certificates {
    /// In the order of the configuration.
    pub(super) fn new<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> Certificates {
        let (mut keys, mut exact, mut wildcards) = (Vec::new(), HashMap::new(), HashMap::new());
        for (place, certificate) in certificates.into_iter().enumerate() {
            keys.push(certificate.key.clone());
            for pattern in &certificate.facts.patterns {
                let (map, name): (&mut HashMap<_, Vec<usize>>, _) = match pattern {
                    NamePattern::Exact(name) => (&mut exact, name),
                    NamePattern::Wildcard(parent) => (&mut wildcards, parent),
                };
                let places = map.entry(name.clone()).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        let mut default: Vec<usize> = exact
            .values()
            .chain(wildcards.values())
            .filter(|places| places.first() == Some(&0))
            .flatten()
            .copied()
            .chain(keys.first().map(|_| 0))
            .collect();
        default.sort_unstable();
        default.dedup();
        Certificates { keys, exact, wildcards, default }
    }

    /// Whether a certificate is for this name. No name is known to none.
    pub(super) fn knows(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| !self.places(name).is_empty())
    }

    /// The certificate for a client that asks for `name` and can verify `schemes`: one for the very name, or a
    /// wildcard's, or the default; of several, the first whose key can sign as the client wants.
    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let named = name.map(|name| self.places(name)).filter(|places| !places.is_empty());
        let places = named.unwrap_or(&self.default);
        let mut keys = places.iter().filter_map(|place| self.keys.get(*place));
        let first = keys.clone().next();
        // When none can, the first is as good as any: the handshake fails, and says why.
        keys.find(|key| key.key.choose_scheme(schemes).is_some()).or(first)
    }

    fn places(&self, name: &str) -> &[usize] {
        let name = normal(name);
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
        self.exact.get(&*name).or_else(parent).map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}
