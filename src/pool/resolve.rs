//! DNS: which addresses the names of backends have, at start and every now and then.
//!
//! Each name has a clock of its own ([`schedule`]); each lookup has a thread ([`lookup`]).

mod lookup;
mod schedule;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use self::lookup::{Answer, Question};
use self::schedule::Schedule;
use super::Pool;
use crate::config::model::{self, BackendAddress};
use crate::net::addr::Address;

/// Descriptors of one lookup: a socket for each of up to three name servers, and one for an answer over TCP.
const FILES_PER_LOOKUP: usize = 4;

/// std's prefix to the resolver's message.
const STD_SAYS: &str = "failed to lookup address information: ";

/// Keeps the addresses of all backends that are configured by name.
pub struct Resolver {
    names: Vec<Name>,
    schedule: Schedule,
    /// Starts a lookup.
    ask: fn(Question),
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
}

/// How many descriptors lookups may hold at a time when this many backends are configured by name.
pub fn max_open_files(names: usize) -> usize {
    names.min(schedule::MAX_LOOKUPS) * FILES_PER_LOOKUP
}

/// A host name in an entry of `pools[].backends`.
struct Name {
    pool: Arc<Pool>,
    entry: Arc<str>,
    host: String,
    port: u16,
    /// It has addresses, or a reason why not.
    is_settled: bool,
    /// The last lookup failed, and that was logged.
    failing: bool,
}

impl Resolver {
    /// For all backends of `pools` that are configured by name; there may be none.
    pub fn new(pools: &[Arc<Pool>]) -> Resolver {
        Resolver::asking(pools, lookup::in_thread)
    }

    fn asking(pools: &[Arc<Pool>], ask: fn(Question)) -> Resolver {
        let names = |pool: &Arc<Pool>| {
            let name = |entry: &model::BackendConfig| match &entry.address {
                BackendAddress::Name { host, port } => Some(Name {
                    pool: Arc::clone(pool),
                    entry: Arc::clone(&entry.name),
                    host: host.clone(),
                    port: *port,
                    is_settled: false,
                    failing: false,
                }),
                BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
            };
            pool.settings().backends.iter().filter_map(name).collect::<Vec<_>>()
        };
        let names: Vec<Name> = pools.iter().flat_map(names).collect();
        let schedule = Schedule::new(names.iter().map(|name| name.host.as_str()), Instant::now().into_std());
        Resolver { names, schedule, ask, answers: mpsc::channel(schedule::MAX_LOOKUPS) }
    }

    /// Looks all names up, and waits for at most `limit`. Afterwards each backend has addresses, or is down and says why. Lookups
    /// that take longer go on. On a tokio runtime with time enabled.
    pub async fn resolve_all(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.names.iter().any(|name| !name.is_settled) {
            if time::timeout_at(deadline, self.turn()).await.is_err() {
                break;
            }
        }
        for name in self.names.iter_mut().filter(|name| !name.is_settled) {
            name.apply(Err(no_answer(limit)));
        }
    }

    /// Looks each name up 30 seconds after its last answer, for ever; sooner after a failure. A name that no longer resolves
    /// keeps its last addresses.
    pub async fn run(mut self) {
        if self.names.is_empty() {
            return;
        }
        loop {
            self.turn().await;
        }
    }

    /// Starts the lookups that are due, and waits for an answer or the next event of the schedule.
    async fn turn(&mut self) {
        let now = Instant::now().into_std();
        for number in self.schedule.start(now) {
            let name = &self.names[number];
            (self.ask)(Question::new(number, &name.host, name.port, &self.answers.0));
        }
        let next_event = self.schedule.next_event(now);
        let wakeup = async {
            match next_event {
                Some(at) => time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // There is always a sender: ours.
            Some((number, answer)) = self.answers.1.recv() => {
                let has_addresses = answer.as_ref().is_ok_and(|found| !found.is_empty());
                self.schedule.finish(number, has_addresses, Instant::now().into_std());
                self.names[number].apply(answer);
            }
            () = wakeup => {
                for number in self.schedule.late(Instant::now().into_std()) {
                    self.names[number].apply(Err(no_answer(schedule::LATE)));
                }
            }
        }
    }
}

fn no_answer(within: Duration) -> io::Error {
    io::Error::other(format!("no answer within {within:?}"))
}

impl Name {
    fn apply(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        let (pool, name, host) = (self.pool.name(), &self.entry, self.host.as_str());
        let old = self.pool.resolved(&self.entry);
        self.is_settled = true;
        match answer {
            Ok(found) if !found.is_empty() => {
                let mut new: Vec<Address> = found.into_iter().map(Address::Tcp).collect();
                new.sort_unstable();
                new.dedup();
                if self.failing {
                    info!(%pool, backend = %name, host, addresses = %list(&new), "name resolves again");
                } else if old.is_empty() {
                    debug!(%pool, backend = %name, host, addresses = %list(&new), "name resolved");
                } else if old != new {
                    info!(%pool, backend = %name, host, old = %list(&old), new = %list(&new), "addresses changed");
                }
                self.failing = false;
                self.pool.resolve(&self.entry, Ok(new));
            }
            failed => {
                let error = failed.err().map_or("no address".to_owned(), |error| error.to_string());
                let error = error.strip_prefix(STD_SAYS).unwrap_or(&error);
                if old.is_empty() {
                    self.pool.resolve(&self.entry, Err(&format!("name does not resolve: {error}")));
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
    use crate::pool::{Excluded, NoBackend};
    use crate::stats::registry::Registry;

    thread_local! {
        /// What each name has now; none: it does not resolve.
        static ANSWER: RefCell<&'static [&'static str]> = const { RefCell::new(&[]) };
        /// The names that were asked for, and when.
        static ASKED: RefCell<Vec<(String, Instant)>> = const { RefCell::new(Vec::new()) };
    }

    fn answer(addresses: &'static [&'static str]) {
        ANSWER.replace(addresses);
    }

    /// How long the lookup of a name takes.
    fn takes(host: &str) -> Duration {
        match host {
            host if host.ends_with("half.example") => Duration::from_millis(500),
            host if host.ends_with("late.example") => Duration::from_secs(12),
            host if host.ends_with("silent.example") => Duration::from_secs(3_600),
            _ => Duration::ZERO,
        }
    }

    fn scripted(question: Question) {
        ASKED.with_borrow_mut(|asked| asked.push((question.host.clone(), Instant::now())));
        let port = question.port;
        let found = ANSWER.with_borrow(|all| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>());
        let found = match found.is_empty() {
            true => Err(io::Error::other("failed to lookup address information: unknown")),
            false => Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        };
        tokio::spawn(async move {
            time::sleep(takes(&question.host)).await;
            question.answer(found);
        });
    }

    fn named(hosts: &[String]) -> Arc<Pool> {
        let mut config = pool(backends(&vec![1; hosts.len()]));
        for (backend, host) in config.backends.iter_mut().zip(hosts) {
            backend.address = BackendAddress::Name { host: host.clone(), port: 80 };
        }
        Pool::new(config, &Registry::default(), 1)
    }

    fn addresses(pool: &Pool) -> String {
        list(&pool.resolved("a"))
    }

    fn reason(pool: &Pool) -> Option<String> {
        pool.backends()[0].status().reason.map(|reason| reason.to_string())
    }

    fn start(host: &str) -> (Arc<Pool>, Resolver, Log, tracing::subscriber::DefaultGuard) {
        let (log, guard) = capture_log();
        let pool = named(&[host.to_owned()]);
        let resolver = Resolver::asking(std::slice::from_ref(&pool), scripted);
        (pool, resolver, log, guard)
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn all_addresses_are_kept_sorted_and_once() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        assert_eq!(pool.lease(None, &Excluded::new()).unwrap_err(), NoBackend::AllDown { backends: 1 });
        answer(&["10.0.0.9", "::1", "10.0.0.2", "10.0.0.9"]);
        resolver.resolve_all(LIMIT).await;
        assert_eq!(addresses(&pool), "10.0.0.2:80 10.0.0.9:80 [::1]:80");
        assert!(pool.lease(None, &Excluded::new()).is_ok());
        assert_eq!(log.with("WARN").len() + log.with("INFO").len(), 0, "{:?}", log.lines());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_logged_with_old_and_new() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        answer(&["10.0.0.1"]);
        resolver.resolve_all(LIMIT).await;
        let running = tokio::spawn(resolver.run());
        answer(&["10.0.0.2"]);
        time::sleep(schedule::REFRESH - Duration::from_millis(1)).await;
        assert_eq!(addresses(&pool), "10.0.0.1:80");
        time::sleep(schedule::REFRESH * 3).await;
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
        resolver.resolve_all(LIMIT).await;
        let running = tokio::spawn(resolver.run());
        for _ in 0..2 {
            answer(&[]);
            time::sleep(Duration::from_secs(50)).await;
            assert_eq!(addresses(&pool), "10.0.0.1:80");
            assert!(pool.backends()[0].is_up());
            answer(&["10.0.0.1"]);
            time::sleep(Duration::from_secs(70)).await;
        }
        let lost = log.with("does not resolve");
        assert_eq!(lost.len(), 2, "{:?}", log.lines());
        assert!(lost[0].contains("error=\"unknown\" kept=10.0.0.1:80"), "{lost:?}");
        assert_eq!(log.with("resolves again").len(), 2);
        assert_eq!(log.with("addresses changed").len(), 0);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_never_resolved_is_asked_again_after_a_second() {
        let (pool, mut resolver, log, _guard) = start("db.example");
        answer(&[]);
        let began = Instant::now();
        resolver.resolve_all(LIMIT).await;
        assert_eq!(reason(&pool).as_deref(), Some("name does not resolve: unknown"));
        assert_eq!(log.with("WARN").len(), 1);
        let running = tokio::spawn(resolver.run());
        time::sleep(Duration::from_secs(4)).await;
        answer(&["10.0.0.1"]);
        time::sleep(Duration::from_secs(4)).await;
        assert!(pool.backends()[0].is_up());
        let asked: Vec<u64> = ASKED.with_borrow(|asked| asked.iter().map(|(_, at)| (*at - began).as_secs()).collect());
        assert_eq!(asked, [0, 1, 3, 7]);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_a_limit_and_a_late_answer_is_taken() {
        let (pool, mut resolver, log, _guard) = start("db.late.example");
        answer(&["10.0.0.1"]);
        let began = Instant::now();
        resolver.resolve_all(LIMIT).await;
        assert_eq!(began.elapsed().as_secs(), 5);
        assert_eq!(reason(&pool).as_deref(), Some("name does not resolve: no answer within 5s"));
        let running = tokio::spawn(resolver.run());
        time::sleep(Duration::from_secs(8)).await;
        assert_eq!(addresses(&pool), "10.0.0.1:80");
        assert_eq!((log.with("WARN").len(), log.with("resolves again").len()), (1, 1), "{:?}", log.lines());
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_names_all_resolve_in_time() {
        let (_log, _guard) = capture_log();
        let hosts: Vec<String> = (0..450).map(|number| format!("n{number}.half.example")).collect();
        let pool = named(&hosts);
        answer(&["10.0.0.1"]);
        Resolver::asking(std::slice::from_ref(&pool), scripted).resolve_all(LIMIT).await;
        pool.tick(Instant::now().into_std());
        assert!(pool.backends().iter().all(|backend| backend.address().is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_a_silent_zone_do_not_hold_up_a_good_one() {
        let (_log, _guard) = capture_log();
        let mut hosts: Vec<String> = (0..400).map(|number| format!("n{number}.silent.example")).collect();
        hosts.push("db.example".into());
        let pool = named(&hosts);
        answer(&["10.0.0.1"]);
        let mut resolver = Resolver::asking(std::slice::from_ref(&pool), scripted);
        resolver.resolve_all(LIMIT).await;
        pool.tick(Instant::now().into_std());
        let good = || list(pool.backends().last().unwrap().address().map(std::slice::from_ref).unwrap_or_default());
        assert_eq!(good(), "10.0.0.1:80");
        let running = tokio::spawn(resolver.run());
        answer(&["10.0.0.2"]);
        time::sleep(Duration::from_secs(31)).await;
        pool.tick(Instant::now().into_std());
        assert_eq!(good(), "10.0.0.2:80");
        let silent = ASKED.with_borrow(|asked| asked.iter().filter(|(host, _)| host.contains("silent")).count());
        assert!(silent < schedule::MAX_LOOKUPS, "{silent} lookups hang");
        running.abort();
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let pool = named(&["localhost".to_owned()]);
        Resolver::new(std::slice::from_ref(&pool)).resolve_all(LIMIT).await;
        assert!(addresses(&pool).contains("127.0.0.1:80") || addresses(&pool).contains("[::1]:80"));
    }
}
