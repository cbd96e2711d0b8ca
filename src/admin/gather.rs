//! Makes a [`View`] of what is true now.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::process;
use super::rates::Rates;
use super::view::{
    Backend, Certificate, Check, Checks, Handshakes, Http, Latency, Listener, Log, Plane, Pool, Refusal, Responses,
    Status, Summary, TerminationStats, TlsFiles, Transition, View,
};
use crate::config::model::{self, Balance};
use crate::log::counters::LogCounters;
use crate::pool;
use crate::server::{self, DataPlane};
use crate::stats::counters;
use crate::stats::histogram::Histogram;
use crate::stats::http::HttpCounts;
use crate::stats::latency::{Latencies, Measured, Stage, Window};
use crate::stats::termination::Termination;
use crate::tls;

/// Transitions that are shown, over all pools.
const TRANSITIONS: usize = 100;
/// Refusals that are shown, over all listeners.
const REFUSALS: usize = 100;

/// Where everything is that is shown.
pub struct Sources {
    /// Listeners, pools, backends.
    pub plane: Arc<DataPlane>,
    /// The version and the commit of the program.
    pub version: (&'static str, &'static str),
    /// When the process started, by both clocks.
    pub started: (SystemTime, Instant),
    /// What is in effect.
    pub config: Arc<ArcSwap<model::Config>>,
    /// Set once it drains.
    pub draining: Arc<AtomicBool>,
    /// Of each log.
    pub logs: Vec<LogCounters>,
}

/// What is true now, without latencies. `lost` is the number of measurements that were lost.
pub(super) fn gather(sources: &Sources, latencies: &Latencies, rates: &Rates, lost: u64) -> View {
    let plane = &sources.plane;
    let draining = sources.draining.load(Ordering::Relaxed);
    let not_ready = not_ready(sources);
    let standings: Vec<_> = standings(sources).collect();
    View {
        version: sources.version.0.to_owned(),
        commit: sources.version.1.to_owned(),
        time: seconds(SystemTime::now()),
        started: seconds(sources.started.0),
        uptime: sources.started.1.elapsed().as_secs_f64(),
        draining,
        ready: not_ready.is_empty(),
        not_ready,
        plane: Plane { workers: plane.workers(), capacity: plane.size(), open: plane.open(), lost_samples: lost },
        process: process::read(),
        listeners: plane.listeners().iter().map(|state| listener(state, latencies, rates)).collect(),
        pools: plane.pools().iter().map(|state| pool(state, latencies, rates)).collect(),
        certificates: standings.iter().flat_map(|(owner, standing)| certificates(owner, standing)).collect(),
        tls_files: standings.iter().map(|(owner, standing)| tls_files(owner, standing)).collect(),
        logs: sources.logs.iter().map(log).collect(),
        transitions: transitions(plane),
        refusals: refusals(plane),
    }
}

/// Adds how long things took in each window, which is most of the work.
pub(super) fn add_latencies(view: &mut View, latencies: &Latencies) {
    for listener in &mut view.listeners {
        let measured = latencies.listener(listener.id);
        listener.latency = measured.map(|measured| latency(measured, |_, _, _| ())).unwrap_or_default();
    }
    for pool in &mut view.pools {
        // Percentiles of several cannot be told from those of each: their histograms are merged.
        let mut whole = Histograms::default();
        for backend in &mut pool.backends {
            let Some(measured) = latencies.backend(backend.id) else { continue };
            backend.latency = latency(measured, |stage, window, histogram| whole.at(stage, window).merge(histogram));
        }
        pool.latency = whole.latency();
    }
}

/// Whether connections should be sent here now: as [`not_ready`] is empty, without the cost of its texts.
pub(super) fn is_ready(Sources { plane, draining, .. }: &Sources) -> bool {
    let members = plane.members();
    let mut pools = members.listeners.iter().flat_map(|listener| listener.pools());
    !draining.load(Ordering::Relaxed) && pools.all(|pool| pool.is_usable())
}

/// Why no connection should be sent here now; empty when all is well.
pub(super) fn not_ready(Sources { plane, draining, .. }: &Sources) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining.load(Ordering::Relaxed) {
        reasons.push("draining: no new connection is accepted".to_owned());
    }
    reasons.extend(unusable_pools(plane));
    reasons
}

/// Why some connections would get no backend now: each listener with each of its pools that has none.
pub fn unusable_pools(plane: &DataPlane) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut seen = HashSet::new();
    for listener in &plane.members().listeners {
        for pool in listener.pools() {
            let (name, pool_name) = (&listener.config().name, pool.name());
            // A pool may be that of several routes.
            if !pool.is_usable() && seen.insert((name, pool_name)) {
                reasons.push(format!("listener {name}: no backend of pool {pool_name} is up"));
            }
        }
    }
    reasons
}

fn listener(state: &server::Listener, latencies: &Latencies, rates: &Rates) -> Listener {
    let (config, counters) = (state.config(), state.counters());
    let (id, measured) = (state.id(), latencies.listener(state.id()));
    let mut pools: Vec<String> = Vec::new();
    for pool in state.pools() {
        if !pools.iter().any(|name| **name == **pool.name()) {
            pools.push(pool.name().to_string());
        }
    }
    let ended = |ending: Termination| TerminationStats {
        end: ending.to_string(),
        side: ending.side().to_owned(),
        reason: ending.reason().to_owned(),
        code: ending.code().to_owned(),
        refusal: ending.is_refusal(),
        count: counters.ended(ending),
    };
    // What was open first, so that no connection is missing in the sum of what is open and what has ended.
    let open = counters.open() as u64;
    let endings: Vec<TerminationStats> = Termination::ALL.into_iter().map(ended).collect();
    Listener {
        id,
        name: config.name.to_string(),
        addresses: state.addresses().iter().map(ToString::to_string).collect(),
        tls: config.tls.is_some(),
        sniffs_http: config.sniff == model::Sniff::Http,
        pool: pools.first().cloned().unwrap_or_default(),
        pools,
        max_connections: config.max_connections.map(u32::from),
        rate_limit: config.limits.connection_rate.map(|rate| f64::from(rate.count.get()) / rate.per.as_secs_f64()),
        open,
        open_max: counters.peak() as u64,
        accepted: counters.accepted(),
        ended: endings.iter().map(|ending| ending.count).sum(),
        refused: endings.iter().filter(|ending| ending.refusal).map(|ending| ending.count).sum(),
        bytes_in: state.traffic().bytes_in(),
        bytes_out: state.traffic().bytes_out(),
        retries: counters.retries(),
        rate: rates.listener(id),
        request_rate: rates.requests(id),
        handshakes: config.tls.is_some().then(|| handshakes(counters.handshakes())),
        endings,
        latency: Latency::new(),
        http: measured.and_then(Measured::http).map(http),
    }
}

fn pool(pool: &pool::Pool, latencies: &Latencies, rates: &Rates) -> Pool {
    let config = pool.settings();
    let backends: Vec<Backend> =
        pool.backends().iter().map(|backend| self::backend(backend, &config, latencies, rates)).collect();
    let status = pool.status();
    Pool {
        id: pool.id(),
        name: pool.name().to_string(),
        balance: balance(config.balance).to_owned(),
        health: config.health.as_ref().map(|health| kind(&health.check).to_owned()),
        rise: config.health.as_ref().map(|health| health.rise.get()),
        fall: config.health.as_ref().map(|health| health.fall.get()),
        status: Status::of(status.up, config.health.is_some()),
        up: backends.iter().filter(|backend| backend.up).count(),
        usable: status.up,
        since: seconds(status.since),
        downs: pool.downs(),
        downtime: status.downtime_so_far().as_secs_f64(),
        open: u64::from(pool.connections()),
        open_max: u64::from(pool.peak()),
        refused: pool.refused(),
        retries: backends.iter().map(|backend| backend.retries).sum(),
        rate: rates.pool(pool.id()),
        latency: Latency::new(),
        backends,
    }
}

fn backend(backend: &pool::Backend, config: &model::Pool, latencies: &Latencies, rates: &Rates) -> Backend {
    let (id, counters, status) = (backend.id(), backend.counters(), backend.status());
    Backend {
        id,
        name: backend.name().to_string(),
        address: backend.shown_address(),
        weight: backend.weight(),
        backup: backend.is_backup(),
        max_connections: backend.max_connections(),
        up: status.up && !backend.is_leaving(),
        status: match backend.is_leaving() {
            true => Status::Leaving,
            false => Status::of(status.up, config.health.is_some()),
        },
        since: seconds(status.since),
        downs: u64::from(backend.downs()),
        downtime: status.downtime_so_far().as_secs_f64(),
        reason: match backend.is_leaving() {
            true => Some("removed: gone when its last connection has ended".to_owned()),
            false => status.reason.map(|reason| reason.to_string()),
        },
        checks: config.health.is_some().then(|| checks(counters.checks())),
        open: u64::from(backend.connections()),
        open_max: u64::from(counters.peak()),
        connections: counters.connections(),
        rate: rates.backend(id),
        last_session: rates.last_session(id).map(seconds),
        connect_failures: counters.connect_failures(),
        retries: counters.retries(),
        failures: counters.failures(),
        client_aborts: counters.client_aborts(),
        handshakes: config.tls.is_some().then(|| handshakes(counters.handshakes())),
        bytes_in: backend.traffic().bytes_in(),
        bytes_out: backend.traffic().bytes_out(),
        average_us: backend.latency_us(),
        latency: Latency::new(),
        http: latencies.backend(id).and_then(Measured::http).map(http),
    }
}

fn handshakes(counted: &counters::Handshakes) -> Handshakes {
    Handshakes { full: counted.full(), resumed: counted.resumed() }
}

fn checks(checks: counters::Checks) -> Checks {
    let last = checks.last.map(|check| Check {
        time: seconds(check.at),
        took_us: micros(check.took),
        passed: check.failure.is_none(),
        reason: check.failure.map(|reason| reason.to_string()),
    });
    Checks { count: checks.count, failed: checks.failed, last }
}

/// Every stage and window in which something was measured; `also` gets each histogram.
fn latency(measured: &Measured, mut also: impl FnMut(Stage, Window, &Histogram)) -> Latency {
    let mut latency = Latency::new();
    for stage in Stage::ALL {
        let Some(series) = measured.stage(stage) else { continue };
        let windows = Window::ALL.into_iter().filter_map(|window| {
            let histogram = series.window(window);
            also(stage, window, &histogram);
            (histogram.count() > 0).then(|| (window.name().to_owned(), summary(&histogram)))
        });
        latency.insert(stage.name().to_owned(), windows.collect());
    }
    latency
}

/// A histogram of each stage and window.
#[derive(Default)]
struct Histograms([[Histogram; Window::ALL.len()]; Stage::ALL.len()]);

impl Histograms {
    fn at(&mut self, stage: Stage, window: Window) -> &mut Histogram {
        &mut self.0[stage as usize][window as usize]
    }

    /// Every stage and window that has values.
    fn latency(&mut self) -> Latency {
        let mut latency = Latency::new();
        for stage in Stage::ALL {
            for window in Window::ALL {
                let histogram = self.at(stage, window);
                if histogram.count() > 0 {
                    let windows = latency.entry(stage.name().to_owned()).or_default();
                    windows.insert(window.name().to_owned(), summary(histogram));
                }
            }
        }
        latency
    }
}

/// A histogram in a few numbers.
pub(super) fn summary(histogram: &Histogram) -> Summary {
    let [p50_us, p75_us, p90_us, p95_us, p99_us, p999_us, p9999_us] =
        histogram.quantiles([0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999]);
    Summary {
        count: histogram.count(),
        mean_us: histogram.mean().map(|mean| (mean * 10.0).round() / 10.0).unwrap_or_default(),
        p50_us,
        p75_us,
        p90_us,
        p95_us,
        p99_us,
        p999_us,
        p9999_us,
        max_us: histogram.max(),
    }
}

fn http(counts: &HttpCounts) -> Http {
    let responses = counts.responded().map(|(method, class, count)| Responses {
        method: method.name().to_owned(),
        class: class.name().to_owned(),
        count,
    });
    Http {
        requests: counts.requests(),
        unanswered: counts.unanswered(),
        opaque: counts.opaque(),
        responses: responses.collect(),
    }
}

/// How the files of each listener and pool with TLS stand, with whose they are.
fn standings(sources: &Sources) -> impl Iterator<Item = (String, Arc<tls::ReloadStatus>)> {
    let members = sources.plane.members();
    let acceptors = members.listeners.iter().filter_map(|listener| listener.tls().map(|(_, tls)| tls));
    let of_listeners = acceptors.map(|tls| (format!("listener {}", tls.name()), tls.reload_status()));
    let connectors = members.pools.iter().filter_map(|pool| members.connectors.get(&pool.id()));
    let of_pools = connectors.map(|tls| (format!("pool {}", tls.name()), tls.reload_status()));
    of_listeners.chain(of_pools).collect::<Vec<_>>().into_iter()
}

fn certificates(owner: &str, standing: &tls::ReloadStatus) -> Vec<Certificate> {
    let certificate = |facts: &tls::CertificateInfo| Certificate {
        owner: owner.to_owned(),
        path: facts.path.display().to_string(),
        names: facts.names.clone(),
        key: facts.key.to_string(),
        not_before: seconds(facts.not_before),
        not_after: seconds(facts.not_after),
    };
    standing.facts.iter().map(certificate).collect()
}

fn tls_files(owner: &str, standing: &tls::ReloadStatus) -> TlsFiles {
    TlsFiles {
        owner: owner.to_owned(),
        replaced: standing.replaced,
        refused: standing.refused,
        faults: standing.faults.clone(),
    }
}

fn log(counters: &LogCounters) -> Log {
    let failing = counters.failing();
    Log {
        name: counters.name().to_owned(),
        dropped_lines: counters.dropped_lines(),
        write_errors: counters.write_errors(),
        error: failing.as_ref().map(|failing| failing.error.to_string()),
        failing_since: failing.map(|failing| seconds(failing.since)),
    }
}

fn transitions(plane: &DataPlane) -> Vec<Transition> {
    let of_pool = |pool: &Arc<pool::Pool>| {
        let pool = Arc::clone(pool);
        pool.transitions().into_iter().map(move |(at, transition)| Transition {
            time: seconds(at),
            pool: pool.name().to_string(),
            backend: transition.name.to_string(),
            up: transition.up,
            status: Status::of(transition.up, pool.settings().health.is_some()),
            reason: transition.reason.map(|reason| reason.to_string()),
        })
    };
    let mut all: Vec<Transition> = plane.pools().iter().flat_map(of_pool).collect();
    all.sort_by(|one, two| two.time.total_cmp(&one.time));
    all.truncate(TRANSITIONS);
    all
}

fn refusals(plane: &DataPlane) -> Vec<Refusal> {
    let of_listener = |listener: &Arc<server::Listener>| {
        let name = listener.config().name.to_string();
        listener.refused_clients().into_iter().map(move |(at, refusal)| Refusal {
            time: seconds(at),
            listener: name.clone(),
            client: refusal.client.to_string(),
            reason: refusal.reason,
            more: refusal.more,
        })
    };
    let mut all: Vec<Refusal> = plane.listeners().iter().flat_map(of_listener).collect();
    all.sort_by(|one, two| two.time.total_cmp(&one.time));
    all.truncate(REFUSALS);
    all
}

/// As in the configuration.
pub(super) fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastConnections => "least_connections",
        Balance::IpHash => "ip_hash",
        Balance::PowerOfTwo => "power_of_two",
        Balance::LeastLatency => "least_latency",
        Balance::Random => "random",
    }
}

fn kind(check: &model::Check) -> &'static str {
    match check {
        model::Check::Tcp => "tcp",
        model::Check::Http(_) => "http",
        model::Check::Exchange { .. } => "exchange",
    }
}

/// Seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    (since * 1000.0).round() / 1000.0
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
