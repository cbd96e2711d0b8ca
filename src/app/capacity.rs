//! How many connections there are descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin;
use crate::config::model::{BackendAddress, Config};
use crate::pool::resolve;
use crate::relay::MAX_PIPES;
use crate::server::PlaneState;

/// Descriptors of the process itself: standard streams, logs, the event loops of the control, signal and statistics threads,
/// files of TLS that are read again, and some to spare.
const OWN: u64 = 32;
/// Connections below which the limit is worth a warning.
const FEW: usize = 256;
/// An epoll and an eventfd.
const PER_WORKER: u64 = 2;
/// A client's socket and a backend's.
const PER_CONNECTION: u64 = 2;

/// What is open already.
#[derive(Clone, Copy, Debug)]
pub(super) struct InUse {
    /// Workers, those included that have retired.
    pub(super) workers: usize,
    /// Descriptors of listening sockets.
    pub(super) listening: usize,
}

/// Raises the soft limit of open files to the hard one, and makes room for as many connections as fit; if they are others than
/// before, says so, and warns of listeners that are promised more.
pub(super) fn establish(config: &Config, used: InUse, plane: &PlaneState) {
    let limit = raise_open_files();
    let capacity = capacity(limit, config, used);
    if capacity == plane.size() {
        return;
    }
    plane.resize(capacity);
    tracing::info!(open_files = limit, connections = capacity, "connection capacity");
    if let Some(wanted) = falls_short(capacity, config) {
        tracing::warn!(
            open_files = limit,
            connections = capacity,
            "the limit of open files leaves room for {capacity} connections, {wanted}: raise the hard limit (ulimit -Hn, \
             LimitNOFILE= of systemd, --ulimit nofile= of containers)"
        );
    }
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

/// Raises the soft limit of open files to the hard one. Returns the limit that is in force afterwards; `u64::MAX` is none.
pub(super) fn raise_open_files() -> u64 {
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
fn capacity(limit: u64, config: &Config, used: InUse) -> usize {
    let workers = used.workers as u64;
    let probes: u64 =
        config.pools.iter().filter(|pool| pool.health.is_some()).map(|pool| pool.backends.len() as u64).sum();
    let backends = config.pools.iter().flat_map(|pool| &pool.backends);
    let names = backends.filter(|backend| matches!(backend.address, BackendAddress::Name { .. })).count();
    let lookups = resolve::max_open_files(names) as u64;
    // Under a low limit, connections come first here, too.
    let admin = config.admin.as_ref().map_or(0, |it| admin::max_open_files(it.bind.len()).min(limit / 8));
    let fixed = OWN + workers * PER_WORKER + used.listening as u64 + probes + lookups + admin;
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

    /// As a start opens it.
    const USED: InUse = InUse { workers: 2, listening: 4 };

    #[test]
    fn two_descriptors_a_connection_beside_what_else_is_open() {
        let config = crate::config::parse("test", ONE, &crate::config::files::Unread).unwrap().config;
        assert_eq!(capacity(20_000, &config, USED), (20_000 - 32 - 2 * 4 - 256) / 2);
        assert_eq!(capacity(64, &config, USED), (64 - 32 - 2 * 4 - 8) / 2);
        assert_eq!(capacity(3, &config, USED), 1, "at least one");
        assert!(capacity(u64::MAX, &config, USED) > 1 << 40, "no limit");
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
            capacity(20_000, &crate::config::parse("test", yaml, &crate::config::files::Unread).unwrap().config, USED)
        };
        let bound = |bind: &str| of(ONE) - of(&format!("admin: {{ bind: {bind} }}\n{ONE}"));
        assert_eq!(bound("127.0.0.1:9"), admin::max_open_files(1) as usize / 2);
        assert_eq!(bound("[127.0.0.1:9, unix:/run/a.sock, unix:/run/b.sock]"), bound("127.0.0.1:9") + 2 * 4 / 2);
    }

    #[test]
    fn lookups_have_descriptors() {
        let of = |names: usize| {
            let backends: String = (0..names).map(|n| format!("{{ address: \"n{n}.example:1\" }}, ")).collect();
            let yaml = ONE.replace("{ address: 127.0.0.1:2 }", &backends);
            capacity(20_000, &crate::config::parse("test", &yaml, &crate::config::files::Unread).unwrap().config, USED)
        };
        assert_eq!(of(1) - of(2), 2);
        assert_eq!(of(1) - of(80), 79 * 2);
        assert_eq!(of(80), of(200));
    }
}
