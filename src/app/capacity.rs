//! How many connections there are descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin;
use crate::config::model::{BackendAddress, Config};
use crate::pool::resolve;
use crate::relay::MAX_PIPES;

/// Descriptors of the process itself: standard streams, logs, the event loops of the control, signal and statistics threads,
/// files of TLS that are read again, and some to spare.
const OWN: u64 = 32;
/// Connections below which the limit is worth a warning.
const FEW: usize = 256;
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
    if let Some(wanted) = falls_short(capacity, config) {
        tracing::warn!(
            open_files = limit,
            connections = capacity,
            "the limit of open files leaves room for {capacity} connections, {wanted}: raise the hard limit (ulimit -Hn, \
             LimitNOFILE= of systemd, --ulimit nofile= of containers)"
        );
    }
    capacity
}

/// What is wanted, if it is more than there is room for: by a listener's max_connections, or as a rule where one has none.
fn falls_short(capacity: usize, config: &Config) -> Option<String> {
    let limits =
        config.listeners.iter().map(|listener| Some((listener.max_connections?.get() as usize, &listener.name)));
    let limits: Option<Vec<_>> = limits.collect();
    match limits {
        None => (capacity < FEW).then(|| format!("and fewer than {FEW} are seldom enough")),
        Some(limits) => {
            let (all, names): (Vec<usize>, Vec<&str>) = limits.into_iter().map(|(max, name)| (max, &**name)).unzip();
            let all: usize = all.iter().sum();
            (all > capacity).then(|| format!("and max_connections of {} allows {all}", names.join(", ")))
        }
    }
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
    // Under a low limit, connections come first here, too.
    let admin = config.admin.as_ref().map_or(0, |_| admin::MAX_OPEN_FILES.min(limit / 8));
    // Each listening socket twice: the worker's, and the one that it is a duplicate of.
    let fixed = OWN + workers * (PER_WORKER + 2 * addresses) + probes + lookups + admin;
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
        assert_eq!(capacity(20_000, &config), (20_000 - 32 - 2 * 4 - 256) / 2);
        assert_eq!(capacity(64, &config), (64 - 32 - 2 * 4 - 8) / 2);
        assert_eq!(capacity(3, &config), 1, "at least one");
        assert!(capacity(u64::MAX, &config) > 1 << 40, "no limit");
    }

    #[test]
    fn a_low_limit_is_told_by_what_is_wanted() {
        let of = |listener: &str, capacity| {
            let yaml = ONE.replace("pool: p }", &format!("pool: p{listener} }}"));
            falls_short(capacity, &crate::config::parse("test", &yaml, &crate::config::files::Unread).unwrap().config)
        };
        assert_eq!(of("", FEW), None);
        assert_eq!(of("", 2).unwrap(), "and fewer than 256 are seldom enough");
        assert_eq!(of(", max_connections: 2", 2), None);
        assert_eq!(of(", max_connections: 3", 2).unwrap(), "and max_connections of a allows 3");
    }

    #[test]
    fn the_stats_port_has_descriptors() {
        let of = |yaml: &str| {
            capacity(20_000, &crate::config::parse("test", yaml, &crate::config::files::Unread).unwrap().config)
        };
        assert_eq!(of(ONE) - of(&format!("admin: {{ bind: 127.0.0.1:9 }}\n{ONE}")), admin::MAX_OPEN_FILES as usize / 2);
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
