//! How many connections there are descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::model::{BackendAddress, Config};
use crate::pool::resolve;
use crate::relay::MAX_PIPES;

/// Descriptors of the process itself: standard streams, logs, the control thread's, and some to spare.
const OWN: u64 = 24;
/// An epoll and an eventfd.
const PER_WORKER: u64 = 2;
/// A client's socket and a backend's.
const PER_CONNECTION: u64 = 2;

/// Raises the soft limit of open files to the hard one, and returns how many connections fit; says so, and
/// warns of listeners that are promised more.
pub(super) fn establish(config: &Config) -> usize {
    let limit = raise_open_files();
    let capacity = capacity(limit, config);
    tracing::info!(open_files = limit, connections = capacity, "connection capacity");
    for listener in &config.listeners {
        if let Some(max) = listener.max_connections
            && max.get() as usize > capacity
        {
            tracing::warn!(
                listener = %listener.name,
                max_connections = max,
                capacity,
                "max_connections is more than the limit of open files allows: raise the hard limit (ulimit -Hn, LimitNOFILE=)"
            );
        }
    }
    capacity
}

/// The limit that is in force afterwards; `u64::MAX` is none.
fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => return maximum.unwrap_or(u64::MAX),
            Err(error) => {
                let error = std::io::Error::from(error);
                tracing::warn!(%error, "cannot raise the soft limit of open files to the hard one");
            }
        }
    }
    current.unwrap_or(u64::MAX)
}

/// What is left for connections when everything else has its descriptors; at least one.
fn capacity(limit: u64, config: &Config) -> usize {
    let workers = config.workers.get() as u64;
    let addresses: u64 = config.listeners.iter().map(|listener| listener.bind.len() as u64).sum();
    let probes: u64 =
        config.pools.iter().filter(|pool| pool.health.is_some()).map(|pool| pool.backends.len() as u64).sum();
    let backends = config.pools.iter().flat_map(|pool| &pool.backends);
    let names = backends.filter(|backend| matches!(backend.address, BackendAddress::Name { .. })).count();
    let lookups = resolve::max_open_files(names) as u64;
    let fixed = OWN + workers * (PER_WORKER + addresses) + probes + lookups;
    // A pipe has two ends. Connections without one copy: under a low limit, connections come first.
    let pipes = (workers * MAX_PIPES as u64 * 2).min(limit / 8);
    let left = limit.saturating_sub(fixed + pipes) / PER_CONNECTION;
    usize::try_from(left).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "workers: 2\n\
                       listeners: [{ name: a, bind: 127.0.0.1:1, pool: p }]\n\
                       pools: [{ name: p, backends: [{ address: 127.0.0.1:2 }] }]\n";

    #[test]
    fn two_descriptors_a_connection_beside_what_else_is_open() {
        let config = crate::config::parse("test", ONE, &crate::config::files::Unread).unwrap().config;
        assert_eq!(capacity(20_000, &config), (20_000 - 24 - 2 * 3 - 256) / 2);
        assert_eq!(capacity(64, &config), (64 - 24 - 2 * 3 - 8) / 2);
        assert_eq!(capacity(3, &config), 1, "at least one");
        assert!(capacity(u64::MAX, &config) > 1 << 40, "no limit");
    }

    #[test]
    fn lookups_have_descriptors() {
        let of = |names: usize| {
            let backends: String = (0..names).map(|n| format!("{{ address: \"n{n}.example:1\" }}, ")).collect();
            let yaml = ONE.replace("{ address: 127.0.0.1:2 }", &backends);
            capacity(20_000, &crate::config::parse("test", &yaml, &crate::config::files::Unread).unwrap().config)
        };
        assert_eq!(of(1) - of(2), 2);
        assert_eq!(of(1) - of(80), 79 * 2);
        assert_eq!(of(80), of(200));
    }
}
