//! Takes a [`Snapshot`] of what is true now.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::process;
use super::rates::Rates;
use super::readiness::not_ready;
use super::snapshot_model::{
    AdminStats, BackendStats, BackendStatus, CheckKind, CheckResult, CheckStats, ConfigStats, DatagramStats,
    DrainingPredecessor, GeoIpStats, HandshakeStats, HttpStats, Latency, LatencySummary, ListenerStats, LogStats,
    PlaneStats, PoolStats, QueryStats, QueueStats, RejectedClient, RouteStats, ServedCertificate, Snapshot,
    StatusChange, TerminationStats, TlsFiles, TlsOwner,
};
use super::sources::Sources;
use super::unix_time::seconds;
use crate::config::model;
use crate::control::status::ConfigStatus;
use crate::geoip::GeoIp;
use crate::log::counters::LogCounters;
use crate::pool::{self, Departed};
use crate::server::{self, DataPlane};
use crate::stats::counters;
use crate::stats::database::ReplicationLag;
use crate::stats::histogram::Histogram;
use crate::stats::latency::{Latencies, Measured, Stage, Window};
use crate::stats::registry::PoolId;
use crate::stats::termination::Termination;
use crate::tls;

/// Transitions that are shown, over all pools.
const TRANSITIONS: usize = 100;
/// Rejected clients that are shown, over all listeners.
const REJECTIONS: usize = 100;

/// What is true now, without latencies. `lost` is the number of measurements that were lost.
pub(super) fn snapshot(sources: &Sources, latencies: &Latencies, rates: &Rates, lost: u64) -> Snapshot {
    let plane = &sources.plane;
    let draining = sources.draining.load(Ordering::Relaxed);
    let not_ready = not_ready(sources);
    let with_requests = pools_of_requests(plane);
    let (standings, status) = (standings(sources), sources.status.get());
    Snapshot {
        version: sources.version.0.to_owned(),
        commit: sources.version.1.to_owned(),
        time: seconds(SystemTime::now()),
        started: seconds(sources.started.0),
        uptime: sources.started.1.elapsed().as_secs_f64(),
        draining,
        ready: not_ready.is_empty(),
        predecessors: status
            .predecessors
            .iter()
            .map(|it| DrainingPredecessor { pid: it.pid, connections: it.connections })
            .collect(),
        not_ready,
        config: config(&status),
        plane: PlaneStats {
            workers: plane.workers(),
            capacity: plane.size(),
            open: plane.open(),
            dropped_samples: lost,
        },
        admin: AdminStats {
            rejected: sources.interface.rejected(),
            failed_handshakes: sources.interface.failed_handshakes(),
        },
        process: process::read(),
        listeners: plane.listeners().iter().map(|state| listener(state, latencies, rates)).collect(),
        pools: plane.pools().iter().map(|it| pool(it, latencies, rates, with_requests.contains(&it.id()))).collect(),
        certificates: standings.iter().flat_map(|(owner, standing)| certificates(owner, standing)).collect(),
        tls_files: standings.iter().map(|(owner, standing)| tls_files(owner, standing)).collect(),
        geoip: geoip(&sources.geoip),
        logs: sources.logging.counters().iter().map(log).collect(),
        transitions: transitions(plane),
        rejections: rejections(plane),
    }
}

/// Adds the latencies, which is most of the work.
pub(super) fn add_latencies(snapshot: &mut Snapshot, latencies: &Latencies) {
    for listener in &mut snapshot.listeners {
        let measured = latencies.listener(listener.id);
        listener.latency = measured.map(|measured| summaries(histograms(measured))).unwrap_or_default();
        for route in &mut listener.routes {
            let measured = latencies.route(route.id);
            route.latency = measured.map(|measured| summaries(histograms(measured))).unwrap_or_default();
        }
    }
    for pool in &mut snapshot.pools {
        // Percentiles cannot be merged: histograms are.
        let mut merged = Merged::default();
        for backend in &mut pool.backends {
            let Some(measured) = latencies.backend(backend.id) else { continue };
            let measured: Vec<_> = histograms(measured).collect();
            merged.add(&measured);
            backend.latency = summaries(measured.iter().map(|(stage, window, histogram)| (*stage, *window, histogram)));
        }
        pool.latency = merged.latency();
    }
}

fn config(status: &ConfigStatus) -> ConfigStats {
    ConfigStats {
        generation: status.generation,
        since: status.since.map(seconds).unwrap_or_default(),
        file_differs: status.file_differs.clone(),
        last_reload_succeeded: status.last_reload_succeeded,
        last_reload_success: status.last_success.map(seconds).unwrap_or_default(),
    }
}

fn listener(state: &server::Listener, latencies: &Latencies, rates: &Rates) -> ListenerStats {
    let (config, counters) = (state.config(), state.counters());
    let (id, measured) = (state.id(), latencies.listener(state.id()));
    let mut pools: Vec<String> = Vec::new();
    for pool in state.pools() {
        if !pools.iter().any(|name| **name == **pool.name()) {
            pools.push(pool.name().to_string());
        }
    }
    let ended = |termination: Termination| TerminationStats { termination, count: counters.ended(termination) };
    // What was open first, so that no connection is missing in the sum of what is open and what has ended.
    let open = counters.open() as u64;
    let terminations: Vec<TerminationStats> = Termination::ALL.into_iter().map(ended).collect();
    ListenerStats {
        id,
        name: config.name.to_string(),
        addresses: state.addresses().iter().map(ToString::to_string).collect(),
        state: config.state,
        tls: config.tls.is_some(),
        counts_requests: config.sniff == model::Sniff::Http || config.http.is_some(),
        pool: pools.first().cloned().unwrap_or_default(),
        pools,
        max_connections: config.udp.as_ref().map(|udp| udp.max_sessions).or(config.max_connections).map(u32::from),
        rate_limit: config.limits.connection_rate.map(|rate| f64::from(rate.count.get()) / rate.per.as_secs_f64()),
        open,
        open_max: counters.peak() as u64,
        accepted: counters.accepted(),
        ended: terminations.iter().map(|ending| ending.count).sum(),
        rejected: terminations
            .iter()
            .filter(|ending| ending.termination.is_rejection())
            .map(|ending| ending.count)
            .sum(),
        bytes_in: state.traffic().bytes_in(),
        bytes_out: state.traffic().bytes_out(),
        retries: counters.retries(),
        rate: rates.listener(id),
        request_rate: rates.requests(id),
        handshakes: config.tls.is_some().then(|| HandshakeStats::of(counters.handshakes())),
        terminations,
        latency: Latency::default(),
        http: measured.and_then(Measured::http).map(HttpStats::of),
        requests_open: config.http.is_some().then(|| state.requests().open()),
        routes: routes(state, latencies),
        datagrams: config.udp.is_some().then(|| DatagramStats::of(state.datagrams())),
        queries: measured.and_then(Measured::queries).map(QueryStats::of).unwrap_or_default(),
    }
}

/// The routes of a listener with `protocol: http`; those with the same label are one.
fn routes(listener: &server::Listener, latencies: &Latencies) -> Vec<RouteStats> {
    let mut routes: Vec<RouteStats> = Vec::with_capacity(listener.route_counters().len());
    for (place, counters) in listener.route_counters().iter().enumerate() {
        if routes.iter().any(|known| known.id == counters.id() && known.name == **counters.label()) {
            continue;
        }
        routes.push(RouteStats {
            id: counters.id(),
            name: counters.label().to_string(),
            pools: listener.pools_at(place).map(|pool| pool.name().to_string()).collect(),
            requests_open: counters.requests().open(),
            retries: counters.requests().retries(),
            latency: Latency::default(),
            http: latencies.route(counters.id()).and_then(Measured::http).map(HttpStats::of),
        });
    }
    routes
}

/// Pools with requests of `protocol: http`.
fn pools_of_requests(plane: &DataPlane) -> HashSet<PoolId> {
    let listeners = plane.listeners();
    let of_requests = listeners.iter().filter(|listener| listener.config().http.is_some());
    of_requests.flat_map(|listener| listener.pools().map(|pool| pool.id())).collect()
}

fn pool(pool: &pool::Pool, latencies: &Latencies, rates: &Rates, has_requests: bool) -> PoolStats {
    let config = pool.settings();
    let backends: Vec<BackendStats> =
        pool.backends().iter().map(|backend| self::backend(backend, &config, latencies, rates, has_requests)).collect();
    let (status, departed) = (pool.status(), *pool.departed());
    PoolStats {
        id: pool.id(),
        name: pool.name().to_string(),
        balance: config.balance,
        health: config.health.as_ref().map(|health| kind(&health.check)),
        rise: config.health.as_ref().map(|health| health.rise.get()),
        fall: config.health.as_ref().map(|health| health.fall.get()),
        status: BackendStatus::of(status.up, config.health.is_some()),
        up: backends.iter().filter(|backend| backend.is_in_service()).count(),
        usable: status.up,
        since: seconds(status.since),
        downs: pool.downs(),
        downtime: status.downtime_so_far().as_secs_f64(),
        open: u64::from(pool.connections()),
        open_max: u64::from(pool.peak()),
        rejected: pool.refused(),
        queue: queue(pool.queue_status(), &config),
        fails_open: pool.fails_open(),
        primary_conflict: pool.has_primary_conflict(),
        persistent_clients: config.persistence().is_some().then(|| pool.persistent_clients() as u64),
        retries: departed.retries + backends.iter().map(|backend| backend.retries).sum::<u64>(),
        departed: self::departed(departed),
        rate: rates.pool(pool.id()),
        latency: Latency::default(),
        backends,
    }
}

fn queue(of: pool::QueueStatus, config: &model::PoolConfig) -> QueueStats {
    QueueStats {
        size: config.queue.size,
        waiting: of.waiting,
        waiting_max: of.peak,
        queued: of.queued,
        overflowed: of.overflowed,
        timed_out: of.timed_out,
    }
}

fn departed(of: Departed) -> BackendStats {
    BackendStats {
        connections: of.connections,
        connect_failures: of.connect_failures,
        retries: of.retries,
        failures: of.failures,
        client_aborts: of.client_aborts,
        bytes_in: of.bytes_in,
        bytes_out: of.bytes_out,
        handshakes: Some(HandshakeStats { full: of.handshakes_full, resumed: of.handshakes_resumed }),
        ..BackendStats::default()
    }
}

fn backend(
    backend: &pool::Backend,
    config: &model::PoolConfig,
    latencies: &Latencies,
    rates: &Rates,
    has_requests: bool,
) -> BackendStats {
    let (id, counters, status) = (backend.id(), backend.counters(), backend.status());
    let lag = backend.database().and_then(|database| database.lag);
    BackendStats {
        id,
        name: backend.name().to_string(),
        entry: (backend.entry() != backend.name()).then(|| backend.entry().to_string()),
        address: backend.shown_address(),
        weight: backend.weight(),
        admin_state: backend.state(),
        forced: backend.forced(),
        backup: backend.is_backup(),
        max_connections: backend.max_connections(),
        up: status.up && !backend.is_leaving(),
        status: match (backend.is_leaving(), backend.state()) {
            (true, _) => BackendStatus::Leaving,
            (false, model::AdminState::Drain) => BackendStatus::Drain,
            (false, model::AdminState::Maintenance) => BackendStatus::Maintenance,
            (false, model::AdminState::Ready) => BackendStatus::of(status.up, config.health.is_some()),
        },
        ejected: status.ejected,
        ejections: counters.ejections(),
        since: seconds(status.since),
        downs: u64::from(backend.downs()),
        downtime: status.downtime_so_far().as_secs_f64(),
        reason: match backend.is_leaving() {
            true => Some("removed: gone when its last connection has ended".to_owned()),
            false => status.reason.map(|reason| reason.to_string()),
        },
        checks: config.health.is_some().then(|| checks(counters.checks())),
        role: backend.database().and_then(|database| database.role),
        lag_bytes: lag.and_then(|lag| match lag {
            ReplicationLag::Bytes(bytes) => Some(bytes),
            ReplicationLag::Time(_) => None,
        }),
        lag_seconds: lag.and_then(|lag| match lag {
            ReplicationLag::Bytes(_) => None,
            ReplicationLag::Time(time) => Some(time.as_secs_f64()),
        }),
        open: u64::from(backend.connections()),
        open_max: u64::from(counters.peak()),
        connections: counters.connections(),
        rate: rates.backend(id),
        last_session: rates.last_session(id).map(seconds),
        connect_failures: counters.connect_failures(),
        retries: counters.retries(),
        failures: counters.failures(),
        client_aborts: counters.client_aborts(),
        handshakes: config.tls.is_some().then(|| HandshakeStats::of(counters.handshakes())),
        bytes_in: backend.traffic().bytes_in(),
        bytes_out: backend.traffic().bytes_out(),
        average_us: backend.latency_us(),
        latency: Latency::default(),
        http: latencies.backend(id).and_then(Measured::http).map(HttpStats::of),
        requests_open: has_requests.then(|| backend.requests().open()),
        queries: latencies.backend(id).and_then(Measured::queries).map(QueryStats::of).unwrap_or_default(),
    }
}

fn checks(checks: counters::CheckCounters) -> CheckStats {
    let last = checks.last.map(|check| CheckResult {
        time: seconds(check.at),
        took_us: micros(check.took),
        passed: check.failure.is_none(),
        reason: check.failure.map(|reason| reason.to_string()),
    });
    CheckStats { count: checks.count, failed: checks.failed, last }
}

/// The histograms of a pool, one for each stage and window: those of its backends merged.
#[derive(Default)]
struct Merged([[Histogram; Window::ALL.len()]; Stage::ALL.len()]);

impl Merged {
    fn add(&mut self, histograms: &[(Stage, Window, Histogram)]) {
        for (stage, window, histogram) in histograms {
            self.0[*stage as usize][*window as usize].merge(histogram);
        }
    }

    fn latency(&self) -> Latency {
        let all = Stage::ALL.into_iter().flat_map(|stage| Window::ALL.map(|window| (stage, window)));
        summaries(all.map(|(stage, window)| (stage, window, &self.0[stage as usize][window as usize])))
    }
}

/// Every stage that was ever measured, in each window.
fn histograms(measured: &Measured) -> impl Iterator<Item = (Stage, Window, Histogram)> {
    Stage::ALL
        .into_iter()
        .filter_map(|stage| Some((stage, measured.stage(stage)?)))
        .flat_map(|(stage, series)| Window::ALL.into_iter().map(move |window| (stage, window, series.window(window))))
}

fn summaries(histograms: impl Iterator<Item = (Stage, Window, impl Borrow<Histogram>)>) -> Latency {
    histograms
        .filter(|(_, _, histogram)| histogram.borrow().count() > 0)
        .map(|(stage, window, histogram)| ((stage, window), summary(histogram.borrow())))
        .collect()
}

/// A histogram in a few numbers.
pub(super) fn summary(histogram: &Histogram) -> LatencySummary {
    let [p50_us, p75_us, p90_us, p95_us, p99_us, p999_us, p9999_us] =
        histogram.quantiles([0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999]);
    LatencySummary {
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

fn geoip(geoip: &GeoIp) -> Option<GeoIpStats> {
    let (database, reloads) = (geoip.database()?, geoip.reloads());
    Some(GeoIpStats {
        kind: database.kind.clone(),
        built: seconds(database.built),
        ranges: database.countries.len(),
        bytes: database.countries.heap_bytes(),
        replaced: reloads.replaced,
        rejected: reloads.rejected,
        fault: reloads.fault,
    })
}

/// How the files of each listener and pool with TLS stand, with whose they are.
fn standings(sources: &Sources) -> Vec<(TlsOwner, Arc<tls::ReloadStatus>)> {
    let members = sources.plane.members();
    let acceptors = members.listeners.iter().filter_map(|listener| listener.tls().map(|(_, tls)| tls));
    let of_listeners = acceptors.map(|tls| (TlsOwner::Listener(tls.name().to_string()), tls.reload_status()));
    let connectors = members.pools.iter().filter_map(|pool| members.connectors.get(&pool.id()));
    let of_pools = connectors.map(|tls| (TlsOwner::Pool(tls.name().to_string()), tls.reload_status()));
    let of_admin = sources.interface.tls().map(|tls| (TlsOwner::Admin, tls.reload_status()));
    of_listeners.chain(of_pools).chain(of_admin).collect()
}

fn certificates(owner: &TlsOwner, standing: &tls::ReloadStatus) -> Vec<ServedCertificate> {
    let certificate = |facts: &tls::CertificateInfo| ServedCertificate {
        owner: owner.clone(),
        path: facts.path.display().to_string(),
        names: facts.names.clone(),
        key: facts.key.to_string(),
        not_before: seconds(facts.not_before),
        not_after: seconds(facts.not_after),
    };
    standing.facts.iter().map(certificate).collect()
}

fn tls_files(owner: &TlsOwner, standing: &tls::ReloadStatus) -> TlsFiles {
    TlsFiles {
        owner: owner.clone(),
        replaced: standing.replaced,
        rejected: standing.refused,
        faults: standing.faults.clone(),
    }
}

fn log(counters: &LogCounters) -> LogStats {
    let failing = counters.failing();
    LogStats {
        name: counters.name().to_owned(),
        dropped_lines: counters.dropped_lines(),
        write_errors: counters.write_errors(),
        truncated_lines: counters.truncated_lines(),
        error: failing.as_ref().map(|failing| failing.error.to_string()),
        failing_since: failing.map(|failing| seconds(failing.since)),
    }
}

fn transitions(plane: &DataPlane) -> Vec<StatusChange> {
    let of_pool = |pool: &Arc<pool::Pool>| {
        let pool = Arc::clone(pool);
        pool.transitions().into_iter().map(move |(at, transition)| StatusChange {
            time: seconds(at),
            pool: pool.name().to_string(),
            backend: transition.name.to_string(),
            up: transition.up,
            status: BackendStatus::of(transition.up, pool.settings().health.is_some()),
            reason: transition.reason.map(|reason| reason.to_string()),
        })
    };
    let mut all: Vec<StatusChange> = plane.pools().iter().flat_map(of_pool).collect();
    all.sort_by(|one, two| two.time.total_cmp(&one.time));
    all.truncate(TRANSITIONS);
    all
}

fn rejections(plane: &DataPlane) -> Vec<RejectedClient> {
    let of_listener = |listener: &Arc<server::Listener>| {
        let name = listener.config().name.to_string();
        listener.refused_clients().into_iter().map(move |(at, refusal)| RejectedClient {
            time: seconds(at),
            listener: name.clone(),
            client: refusal.client.to_string(),
            reason: refusal.reason,
            more: refusal.more,
        })
    };
    let mut all: Vec<RejectedClient> = plane.listeners().iter().flat_map(of_listener).collect();
    all.sort_by(|one, two| two.time.total_cmp(&one.time));
    all.truncate(REJECTIONS);
    all
}

fn kind(check: &model::HealthCheck) -> CheckKind {
    match check {
        model::HealthCheck::Tcp => CheckKind::Tcp,
        model::HealthCheck::Http(_) => CheckKind::Http,
        model::HealthCheck::Exchange { .. } => CheckKind::Exchange,
        model::HealthCheck::Tls { .. } => CheckKind::Tls,
        model::HealthCheck::Postgres(_) => CheckKind::Postgres,
        model::HealthCheck::Mysql(_) => CheckKind::Mysql,
        model::HealthCheck::Redis(_) => CheckKind::Redis,
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
