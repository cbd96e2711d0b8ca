//! DNS: which addresses the names of backends have, at start and every now and then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::{Backend, BackendIndex, Pool};
use crate::config::model::BackendAddress;
use crate::net::addr::Address;

/// From one round of lookups to the next.
const EVERY: Duration = Duration::from_secs(30);

/// How long a round may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Lookups under way at once: each holds a thread of the runtime's for blocking calls.
const AT_ONCE: usize = 32;

/// What std puts before the resolver's own words; says nothing more.
const STD_SAYS: &str = "failed to lookup address information: ";

/// Keeps the addresses of all backends that are configured by name.
pub struct Resolver {
    names: Vec<Name>,
}

/// A backend's name.
struct Name {
    pool: Arc<Pool>,
    backend: BackendIndex,
    host: String,
    port: u16,
    /// The last lookup failed, and that was logged.
    failing: bool,
}

impl Resolver {
    /// For all backends of `pools` that are configured by name; there may be none.
    pub fn new(pools: &[Arc<Pool>]) -> Resolver {
        let names = |pool: &Arc<Pool>| {
            let name = |backend: &Arc<Backend>| match backend.configured_address() {
                BackendAddress::Name { host, port } => Some(Name {
                    pool: Arc::clone(pool),
                    backend: backend.index(),
                    host: host.clone(),
                    port: *port,
                    failing: false,
                }),
                BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
            };
            pool.backends().iter().filter_map(name).collect::<Vec<_>>()
        };
        Resolver { names: pools.iter().flat_map(names).collect() }
    }

    /// Looks all names up, at the same time and for at most `limit`. Afterwards each backend has addresses, or is down and says
    /// why. On a tokio runtime with time enabled.
    pub async fn resolve_all(&mut self, limit: Duration) {
        self.round(limit, system).await;
    }

    /// Looks all names up every 30 seconds, for ever. A name that no longer resolves keeps its last addresses.
    pub async fn run(self) {
        self.run_with(system).await;
    }

    async fn run_with<F>(mut self, lookup: fn(String, u16) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        if self.names.is_empty() {
            return;
        }
        let mut timer = time::interval_at(Instant::now() + EVERY, EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.round(LIMIT, lookup).await;
        }
    }

    async fn round<F>(&mut self, limit: Duration, lookup: fn(String, u16) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let deadline = Instant::now() + limit;
        let free = Arc::new(Semaphore::new(AT_ONCE));
        let mut lookups = JoinSet::new();
        for (number, name) in self.names.iter().enumerate() {
            let (free, host, port) = (Arc::clone(&free), name.host.clone(), name.port);
            lookups.spawn(async move {
                let answer = time::timeout_at(deadline, async move {
                    let _permit = free.acquire_owned().await;
                    lookup(host, port).await
                });
                let late = || io::Error::other(format!("no answer within {limit:?}"));
                (number, answer.await.unwrap_or_else(|_| Err(late())))
            });
        }
        while let Some(done) = lookups.join_next().await {
            // A lookup that panicked has said so itself; its name keeps what it has.
            let Ok((number, answer)) = done else { continue };
            self.names[number].apply(answer);
        }
    }
}

/// What the system's resolver says: hosts file, DNS, whatever is configured.
async fn system(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

impl Name {
    fn apply(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        let Some(backend) = self.pool.backends().get(self.backend.0) else {
            return;
        };
        let (pool, name, host) = (self.pool.name(), backend.name(), self.host.as_str());
        let old = backend.addresses();
        match answer {
            Ok(found) if !found.is_empty() => {
                let mut new: Vec<Address> = found.into_iter().map(Address::Tcp).collect();
                new.sort_unstable();
                new.dedup();
                if self.failing {
                    info!(%pool, backend = %name, host, addresses = %list(&new), "name resolves again");
                } else if old.is_empty() {
                    debug!(%pool, backend = %name, host, addresses = %list(&new), "name resolved");
                } else if *old != *new {
                    info!(%pool, backend = %name, host, old = %list(&old), new = %list(&new), "addresses changed");
                }
                self.failing = false;
                self.pool.set_addresses(self.backend, new);
            }
            failed => {
                let error = failed.err().map_or("no address".to_owned(), |error| error.to_string());
                let error = error.strip_prefix(STD_SAYS).unwrap_or(&error);
                if old.is_empty() {
                    self.pool.set_unresolved(self.backend, &format!("name does not resolve: {error}"));
                }
                if !std::mem::replace(&mut self.failing, true) {
                    let kept = list(&old);
                    warn!(%pool, backend = %name, host, error, kept = %kept, "name does not resolve");
                }
            }
        }
    }
}

fn list(addresses: &[Address]) -> String {
    let all: Vec<String> = addresses.iter().map(Address::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::testing::{Log, backends, capture_log, pool};
    use super::*;
    use crate::config::model::PoolIndex;
    use crate::pool::{NoBackend, Tried};

    thread_local! {
        /// What the name has now; none: it does not resolve.
        static ANSWER: RefCell<&'static [&'static str]> = const { RefCell::new(&[]) };
    }

    fn answer(addresses: &'static [&'static str]) {
        ANSWER.replace(addresses);
    }

    async fn scripted(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        if host == "slow.example" {
            time::sleep(Duration::from_secs(60)).await;
        }
        let found = ANSWER.with_borrow(|all| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>());
        match found.is_empty() {
            true => Err(io::Error::other("failed to lookup address information: unknown")),
            false => Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        }
    }

    fn named(host: &str) -> Arc<Pool> {
        let mut config = pool(backends(&[1]));
        config.backends[0].address = BackendAddress::Name { host: host.into(), port: 80 };
        Pool::new(&config, PoolIndex(0), 1)
    }

    fn addresses(pool: &Pool) -> String {
        list(&pool.backends()[0].addresses())
    }

    fn start(host: &str) -> (Arc<Pool>, Resolver, Log, tracing::subscriber::DefaultGuard) {
        let (log, guard) = capture_log();
        let pool = named(host);
        let resolver = Resolver::new(std::slice::from_ref(&pool));
        (pool, resolver, log, guard)
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_are_kept_sorted_and_once() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        assert_eq!(pool.lease(None, &Tried::new()).unwrap_err(), NoBackend::AllDown { backends: 1 });
        answer(&["10.0.0.9", "::1", "10.0.0.2", "10.0.0.9"]);
        resolver.round(LIMIT, scripted).await;
        assert_eq!(addresses(&pool), "10.0.0.2:80 10.0.0.9:80 [::1]:80");
        assert!(pool.lease(None, &Tried::new()).is_ok());
        assert_eq!(log.with("WARN").len() + log.with("INFO").len(), 0, "{:?}", log.lines());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_logged_with_old_and_new() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        answer(&["10.0.0.1"]);
        resolver.round(LIMIT, scripted).await;
        let running = tokio::spawn(resolver.run_with(scripted));
        answer(&["10.0.0.2"]);
        time::sleep(EVERY - Duration::from_millis(1)).await;
        assert_eq!(addresses(&pool), "10.0.0.1:80");
        time::sleep(EVERY * 3).await;
        assert_eq!(addresses(&pool), "10.0.0.2:80");
        let changes = log.with("addresses changed");
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].contains("old=10.0.0.1:80 new=10.0.0.2:80"), "{changes:?}");
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_no_longer_resolves_keeps_its_addresses_and_says_so_once() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        answer(&["10.0.0.1"]);
        resolver.round(LIMIT, scripted).await;
        for _ in 0..2 {
            answer(&[]);
            for _ in 0..3 {
                resolver.round(LIMIT, scripted).await;
            }
            assert_eq!(addresses(&pool), "10.0.0.1:80");
            assert!(pool.backends()[0].is_up());
            answer(&["10.0.0.1"]);
            resolver.round(LIMIT, scripted).await;
            resolver.round(LIMIT, scripted).await;
        }
        let lost = log.with("does not resolve");
        assert_eq!(lost.len(), 2, "{:?}", log.lines());
        assert!(lost[0].contains("error=\"unknown\" kept=10.0.0.1:80"), "{lost:?}");
        assert_eq!(log.with("resolves again").len(), 2);
        assert_eq!(log.with("addresses changed").len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_never_resolved_is_down_until_it_does() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        answer(&[]);
        resolver.round(LIMIT, scripted).await;
        let reason = pool.backends()[0].condition().reason;
        assert_eq!(reason.as_deref(), Some("name does not resolve: unknown"));
        assert_eq!(log.with("WARN").len(), 1);
        answer(&["10.0.0.1"]);
        resolver.round(LIMIT, scripted).await;
        assert!(pool.backends()[0].is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_a_limit() {
        let (pool, mut resolver, _log, _guard) = start("slow.example");
        answer(&["10.0.0.1"]);
        let start = Instant::now();
        resolver.round(LIMIT, scripted).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        let reason = pool.backends()[0].condition().reason;
        assert_eq!(reason.as_deref(), Some("name does not resolve: no answer within 5s"));
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let pool = named("localhost");
        Resolver::new(std::slice::from_ref(&pool)).resolve_all(LIMIT).await;
        assert!(addresses(&pool).contains("127.0.0.1:80") || addresses(&pool).contains("[::1]:80"));
    }
}
